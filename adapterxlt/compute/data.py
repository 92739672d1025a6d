"""From rows to batches: sub-words, scored positions, masks, and a seeded stateless order.

Every task is reduced to windows of sub-words with scored positions and labels, so that one loop
serves tagging, classification and masked language modelling.
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
    """One sequence: sub-word ids, positions that are scored, and the label index of each.

    ``items`` says which item of the row (word, or 0) a scored position stands for.
    """

    ids: list[int]
    positions: list[int]
    labels: list[int]
    items: list[int]


@dataclass(frozen=True, slots=True)
class Encoded:
    """The rows of a split as windows; ``cut`` counts rows that lost text to the length limit."""

    rows: list[tuple[Window, ...]]
    cut: int = 0

    def lengths(self) -> list[int]:
        return [sum(len(w.ids) for w in row) for row in self.rows]


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded windows. ``index`` holds (window, position) of every scored position."""

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


def encode(
    tokenizer: Any,
    kind: str,
    inputs: Sequence[str],
    label: str | None,
    labels: Sequence[str],
    rows: Sequence[Row],
    max_length: int,
) -> Encoded:
    """Encode rows of a task; without ``label`` every label index is 0."""
    number = {name: i for i, name in enumerate(labels)}
    if kind == "tagging":
        return _encode_tagging(tokenizer, inputs[0], label, number, rows, max_length)
    texts = [[row[column] for row in rows] for column in inputs]
    encoded = tokenizer(*texts)["input_ids"] if rows else []
    cut = 0
    windows: list[tuple[Window, ...]] = []
    for i, (row, ids) in enumerate(zip(rows, encoded, strict=True)):
        if len(ids) > max_length:
            cut += 1
            one = [column[i] for column in texts]
            ids = tokenizer(*one, truncation="longest_first", max_length=max_length)["input_ids"]
        gold = number[row[label]] if label else 0
        windows.append((Window(ids, [0], [gold], [0]),))
    return Encoded(windows, cut)


def _encode_tagging(
    tokenizer: Any,
    column: str,
    label: str | None,
    number: Mapping[str, int],
    rows: Sequence[Row],
    max_length: int,
) -> Encoded:
    """A word is scored at its first sub-word; a long row becomes several windows, cut at words."""
    if not rows:
        return Encoded([])
    encoded = tokenizer(
        [list(row[column]) for row in rows], is_split_into_words=True, add_special_tokens=False
    )
    room = max_length - 2
    result, cut = [], 0
    for i, row in enumerate(rows):
        words: dict[int, list[int]] = {}
        for piece, word in zip(encoded["input_ids"][i], encoded.word_ids(i), strict=True):
            words.setdefault(word, []).append(piece)
        windows: list[Window] = []
        ids: list[int] = []
        starts: list[tuple[int, int]] = []
        for word, pieces in words.items():
            if len(pieces) > room:
                pieces, cut = pieces[:room], cut + 1
            if len(ids) + len(pieces) > room:
                windows.append(_tagged(tokenizer, ids, starts, row, label, number))
                ids, starts = [], []
            starts.append((word, len(ids) + 1))
            ids = ids + pieces
        windows.append(_tagged(tokenizer, ids, starts, row, label, number))
        result.append(tuple(windows))
    return Encoded(result, cut)


def _tagged(
    tokenizer: Any,
    ids: list[int],
    starts: list[tuple[int, int]],
    row: Row,
    label: str | None,
    number: Mapping[str, int],
) -> Window:
    gold = [number[row[label][word]] if label else 0 for word, _ in starts]
    return Window(
        [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id],
        [position for _, position in starts],
        gold,
        [word for word, _ in starts],
    )


def encode_text(tokenizer: Any, lines: Sequence[str], max_length: int) -> Encoded:
    """Lines of running text; long lines become several windows. Nothing is scored yet."""
    result = []
    room = max_length - 2
    encoded = tokenizer(list(lines), add_special_tokens=False)["input_ids"] if lines else []
    for ids in encoded:
        pieces = [ids[i : i + room] for i in range(0, len(ids), room)]
        windows = tuple(
            Window([tokenizer.cls_token_id, *piece, tokenizer.sep_token_id], [], [], [])
            for piece in pieces
        )
        if windows:
            result.append(windows)
    return Encoded(result)


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
