"""Windows and batches: scored positions, masks, and a seeded stateless order.

Every task is reduced to windows of sub-words with scored positions and labels (`compute.encoding`),
so that one loop serves all kinds of tasks and masked language modelling.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from adapterxlt.core.canon import derive, shuffled

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Window:
    """One sequence: sub-word ids, positions that are scored, and labels.

    Of tagging, classification and masked language modelling ``labels`` has the label index of
    each position, and ``items`` the item of the row (word, or 0) that it stands for. Of the other
    kinds `compute.criteria` says what the labels are. ``spans`` are the characters of the context
    behind each position, where there is one.
    """

    ids: list[int]
    positions: list[int]
    labels: list[int]
    items: list[int]
    spans: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True, slots=True)
class Encoded:
    """The rows of a split as windows; ``cut`` are those that lost text to the length limit."""

    rows: Sequence[tuple[Window, ...]]
    cut: frozenset[int] = frozenset()

    def lengths(self) -> list[int]:
        """Sub-words of each row."""
        return [sum(len(w.ids) for w in row) for row in self.rows]

    def choose(self, rows: Sequence[int]) -> Encoded:
        """These rows, in this order."""
        return Encoded([self.rows[i] for i in rows], among(rows, self.cut))


def among(rows: Sequence[int], cut: frozenset[int]) -> frozenset[int]:
    """Places in ``rows`` of the ones that are in ``cut``."""
    return frozenset(n for n, i in enumerate(rows) if i in cut)


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded windows. ``index`` holds (window, position) of every scored position, ``labels`` all
    labels in the order of the windows."""

    ids: torch.Tensor
    mask: torch.Tensor
    index: tuple[torch.Tensor, torch.Tensor]
    labels: torch.Tensor
    tokens: int

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        where = (self.index[0].to(device), self.index[1].to(device))
        ids, mask, labels = (t.to(device) for t in (self.ids, self.mask, self.labels))
        return Batch(ids, mask, where, labels, self.tokens)


def collate(windows: Sequence[Window], pad: int) -> Batch:
    """Pad windows to the longest; ids and mask have shape (windows, length)."""
    longest = max(len(window.ids) for window in windows)
    ids = torch.full((len(windows), longest), pad, dtype=torch.long)
    mask = torch.zeros((len(windows), longest), dtype=torch.long)
    for i, window in enumerate(windows):
        ids[i, : len(window.ids)] = torch.tensor(window.ids)
        mask[i, : len(window.ids)] = 1
    where = [(i, p) for i, window in enumerate(windows) for p in window.positions]
    index = torch.tensor(where, dtype=torch.long).reshape(-1, 2)
    labels = torch.tensor([label for w in windows for label in w.labels], dtype=torch.long)
    return Batch(ids, mask, (index[:, 0], index[:, 1]), labels, int(mask.sum()))


@dataclass(frozen=True, slots=True)
class Masking:
    """Masked language modelling as in BERT: 80 % of the chosen become the mask, 10 % a random
    piece, 10 % stay (Devlin et al. 2019, section 3.1)."""

    share: float
    mask_id: int
    vocabulary: int
    first_piece: int = 4
    """Smallest id that a random replacement may have: special tokens stand before it."""

    def apply(self, windows: Sequence[Window], seed: int) -> list[Window]:
        """Windows with masked ids and the originals as labels; at least one a window."""
        generator = torch.Generator().manual_seed(seed)
        result = []
        for window in windows:
            n = len(window.ids) - 2
            chance = torch.rand(n, generator=generator)
            fate = torch.rand(n, generator=generator)
            swap = torch.randint(self.first_piece, self.vocabulary, (n,), generator=generator)
            chosen = (chance < self.share).nonzero().flatten().tolist()
            if not chosen:
                chosen = [int(chance.argmin())]
            ids = list(window.ids)
            for i in chosen:
                if fate[i] < 0.8:
                    ids[i + 1] = self.mask_id
                elif fate[i] < 0.9:
                    ids[i + 1] = int(swap[i])
            positions = [i + 1 for i in chosen]
            labels = [window.ids[p] for p in positions]
            result.append(Window(ids, positions, labels, [0] * len(positions)))
        return result


class Order:
    """Which rows stand in a stream's batch of a number; a function of (seed, stream, number) alone.

    An epoch is one pass in ``ceil(n / batch)`` steps, the last batch possibly smaller; past its
    end the next epoch begins (shorter streams are cycled). Within eight batches rows of similar
    length stand together, to save padding.
    """

    POOL = 8

    def __init__(self, lengths: Sequence[int], batch: int, seed: int, stream: str) -> None:
        self.lengths, self.batch, self.seed, self.stream = lengths, batch, seed, stream
        self.per_epoch = math.ceil(len(lengths) / batch)
        self._epoch = -1
        self._batches: list[list[int]] = []

    def rows(self, number: int) -> list[int]:
        """Indices of the rows of a batch; batches are counted from 0."""
        epoch, place = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            self._batches, self._epoch = self._epoch_batches(epoch), epoch
        return self._batches[place]

    def _epoch_batches(self, epoch: int) -> list[list[int]]:
        order = shuffled(len(self.lengths), self.seed, "order", self.stream, epoch)
        size = self.POOL * self.batch
        batches = []
        for start in range(0, len(order), size):
            pool = sorted(order[start : start + size], key=lambda i: self.lengths[i])
            pieces = [pool[i : i + self.batch] for i in range(0, len(pool), self.batch)]
            mixed = shuffled(len(pieces), self.seed, "batches", self.stream, epoch, start)
            batches += [pieces[i] for i in mixed]
        return batches


class Mixture:
    """Which streams give the batches of a step; a function of its arguments alone.

    Args:
        rows: number of rows of each stream.
        steps: steps of the whole run.
        sampling: ``None`` is balanced, a batch of every stream. Otherwise there are as many
            batches, the stream of each drawn with probability proportional to
            ``rows ** (1 / t)``: t is 1 for ``{"kind": "proportional"}``, and given in
            ``{"kind": "temperature", "t": 5.0}`` (Arivazhagan et al. 2019, section 4.2).
        seed: of the draw.
    """

    def __init__(
        self, rows: Sequence[int], steps: int, sampling: Mapping[str, Any] | None, seed: int
    ) -> None:
        self.streams = len(rows)
        self._slots: torch.Tensor | None = None
        if sampling is None:
            return
        t: Any = {"proportional": 1.0, "temperature": sampling.get("t")}[sampling["kind"]]
        # Relative to the largest, or a power might be more than a number holds.
        sizes = torch.tensor(rows, dtype=torch.float64) / max(rows)
        bounds = (sizes ** (1 / t)).cumsum(0)
        generator = torch.Generator().manual_seed(derive(seed, "mixture"))
        chance = torch.rand(steps * len(rows), dtype=torch.float64, generator=generator)
        drawn = torch.searchsorted(bounds, chance * bounds[-1], right=True)
        numbers = torch.empty_like(drawn)
        for stream in range(len(rows)):
            mine = drawn == stream
            numbers[mine] = torch.arange(int(mine.sum()))
        self._slots = torch.stack([drawn, numbers], 1).view(steps, len(rows), 2)

    def slots(self, step: int) -> list[tuple[int, int]]:
        """The batches of a step: the stream of each, and which batch of that stream it is.

        A stream's batches are counted over the whole run, so that it gives its rows in epochs.
        """
        if self._slots is None:
            return [(stream, step) for stream in range(self.streams)]
        return [(stream, number) for stream, number in self._slots[step].tolist()]


def mask_seed(seed: int, stream: str, number: int) -> int:
    """Seed of the masks of one batch, by its number in its stream."""
    return derive(seed, "mask", stream, number)
