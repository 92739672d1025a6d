"""Windows and batches: scored positions, masks, and a seeded stateless order.

Every task is reduced to windows of sub-words with scored positions and labels (`compute.encoding`),
so that one loop serves all kinds of tasks and masked language modelling.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad as fill

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

    def choose(self, rows: Sequence[int]) -> Encoded:
        """These rows, in this order."""
        return Encoded([self.rows[i] for i in rows], among(rows, self.cut))


def among(rows: Sequence[int], cut: frozenset[int]) -> frozenset[int]:
    """Places in ``rows`` of the ones that are in ``cut``."""
    return frozenset(n for n, i in enumerate(rows) if i in cut)


def pieces_of(data: Iterable[Encoded]) -> torch.Tensor:
    """The sub-words that splits have, each once, sorted."""
    windows = (window for split in data for row in split.rows for window in row)
    found: set[int] = set()
    for window in windows:
        found.update(window.ids)
    return torch.tensor(sorted(found), dtype=torch.long)


@dataclass(frozen=True, slots=True)
class Batch:
    """Windows in padded rows: one each, or packed, several in a row.

    Attributes:
        ids: (rows, length).
        windows: (rows, length), the number of the window that a position belongs to, -1 of padding.
        places: (rows, length), positions counted from their window's beginning.
        index: (row, position) of every scored position.
        labels: all labels, in the order of the windows.
        spots: row, begin and end of each window.
        drawn: which rows draw their dropout by themselves: how many, as long as what, seed.
        packed: whether a row has more than one.
        packable: whether it might have: positions may be computed by themselves.
    """

    ids: torch.Tensor
    windows: torch.Tensor
    places: torch.Tensor
    index: tuple[torch.Tensor, torch.Tensor]
    labels: torch.Tensor
    spots: list[tuple[int, int, int]]
    drawn: list[tuple[int, int, int]]
    packed: bool = False
    packable: bool = False

    @property
    def mask(self) -> torch.Tensor:
        """(rows, length), 1 where there is a sub-word."""
        return (self.windows >= 0).long()

    def pieces(self) -> Iterator[np.ndarray[Any, Any]]:
        """The sub-words of each window."""
        ids = self.ids.cpu().numpy().astype(np.int32)
        return (ids[row, begin:end] for row, begin, end in self.spots)

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        where = (self.index[0].to(device), self.index[1].to(device))
        moved = {n: getattr(self, n).to(device) for n in ("ids", "windows", "places", "labels")}
        return replace(self, **moved, index=where)


#: Rows of packed windows have room for so many sub-words, or for the longest window.
ROOM = 64
#: They are as long as a multiple of this: other sizes made a step in bf16 up to 1.6 times as long.
GRAIN = 16


def collate(windows: Sequence[Window], pad: int, *, pack: bool = False, seed: int = 0) -> Batch:
    """Put windows into rows as long as the longest.

    Args:
        pack: whether they may share rows, where that saves one in twenty sub-words, and positions
            may be computed by themselves.
        seed: of the dropout that is drawn for them.
    """
    lengths = [len(window.ids) for window in windows]
    length = max(lengths)
    spots = [(i, 0, size) for i, size in enumerate(lengths)]
    if pack:
        fitted = first_fit(lengths, max(_whole(length), ROOM))
        longest = _whole(max(end for _, _, end in fitted))
        if (max(row for row, _, _ in fitted) + 1) * longest < 0.95 * len(windows) * length:
            spots, length = fitted, longest
    rows = max(row for row, _, _ in spots) + 1
    ids = np.full((rows, length), pad)
    numbers, places = np.full((rows, length), -1), np.zeros((rows, length), dtype=np.int64)
    at: list[tuple[int, int]] = []
    for n, (window, (row, begin, end)) in enumerate(zip(windows, spots, strict=True)):
        ids[row, begin:end] = window.ids
        numbers[row, begin:end] = n
        places[row, begin:end] = np.arange(end - begin)
        at += [(row, begin + p) for p in window.positions]
    index = torch.tensor(at, dtype=torch.long).reshape(-1, 2)
    labels = torch.tensor([label for w in windows for label in w.labels], dtype=torch.long)
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(numbers),
        torch.from_numpy(places),
        (index[:, 0], index[:, 1]),
        labels,
        spots,
        [(rows, length, seed)],
        packed=rows < len(windows),
        packable=pack,
    )


def alone(ids: torch.Tensor) -> Batch:
    """A window of sub-words (length,) by itself, of which nothing is scored."""
    nothing, size = ids.new_zeros(0), len(ids)
    places = torch.arange(size, device=ids.device)[None]
    spots = [(0, 0, size)]
    where = (nothing, nothing)
    return Batch(ids[None], torch.zeros_like(places), places, where, nothing, spots, [(1, size, 0)])


def join(batches: Sequence[Batch], pad: int) -> Batch:
    """Batches one after the other, each with its own rows and its own dropout, as one."""
    length = max(batch.ids.shape[1] for batch in batches)

    def rows(name: str, value: int) -> torch.Tensor:
        parts = [getattr(batch, name) for batch in batches]
        return torch.cat([fill(part, (0, length - part.shape[1]), value=value) for part in parts])

    counts = [len(batch.ids) for batch in batches]
    firsts = [sum(counts[:i]) for i in range(len(counts))]
    index = [(first + b.index[0], b.index[1]) for first, b in zip(firsts, batches, strict=True)]
    spots = [
        (first + row, begin, end)
        for first, b in zip(firsts, batches, strict=True)
        for row, begin, end in b.spots
    ]
    # Windows see their own rows only, so that their numbers may come again in others.
    return Batch(
        rows("ids", pad),
        rows("windows", -1),
        rows("places", 0),
        (torch.cat([row for row, _ in index]), torch.cat([at for _, at in index])),
        torch.cat([batch.labels for batch in batches]),
        spots,
        [part for batch in batches for part in batch.drawn],
        packed=any(batch.packed for batch in batches),
        packable=all(batch.packable for batch in batches),
    )


def _whole(length: int) -> int:
    return math.ceil(length / GRAIN) * GRAIN


def first_fit(lengths: Sequence[int], room: int) -> list[tuple[int, int, int]]:
    """Row, begin and end of each length: the longest first, each into the first row with room."""
    spots: list[tuple[int, int, int]] = [(0, 0, 0)] * len(lengths)
    taken: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        size = lengths[i]
        row = next((r for r, end in enumerate(taken) if end + size <= room), len(taken))
        if row == len(taken):
            taken.append(0)
        spots[i] = (row, taken[row], taken[row] + size)
        taken[row] += size
    return spots


#: What it costs to send a part of a batch through by itself, in padded sub-words.
APART = 256


def alike(rows: Sequence[tuple[Window, ...]], most: int) -> list[Sequence[tuple[Window, ...]]]:
    """Rows in parts of similar length, the shortest first, that cost the least together.

    Args:
        most: rows of a part.
    """
    rows = sorted(rows, key=_longest)
    ends = [0, *itertools.accumulate(map(len, rows))]
    # Of the first n rows: what they cost, and where their last part begins.
    best = [(0, 0)]
    for end in range(1, len(rows) + 1):
        longest, starts = _longest(rows[end - 1]), range(max(0, end - most), end)
        costs = ((best[i][0] + APART + (ends[end] - ends[i]) * longest, i) for i in starts)
        best.append(min(costs))
    parts: list[Sequence[tuple[Window, ...]]] = []
    end = len(rows)
    while end:
        start = best[end][1]
        parts.append(rows[start:end])
        end = start
    return parts[::-1]


def _longest(row: tuple[Window, ...]) -> int:
    return max(len(window.ids) for window in row)


class Order:
    """Which rows stand in a stream's batch of a number; a function of (seed, stream, number) alone.

    An epoch is one pass over ``rows`` rows in ``ceil(rows / batch)`` steps, the last batch possibly
    smaller; past its end the next epoch begins (shorter streams are cycled). Rows stand together
    by chance alone: a batch's loss is a mean over what is scored in it, so that if rows of similar
    length stood together, as padding would have it, a word of a short row would weigh more.
    """

    def __init__(self, rows: int, batch: int, seed: int, stream: str) -> None:
        self.count, self.batch, self.seed, self.stream = rows, batch, seed, stream
        self.per_epoch = math.ceil(rows / batch)
        self._epoch = -1
        self._shuffled: list[int] = []

    def rows(self, number: int) -> list[int]:
        """Indices of the rows of a batch; batches are counted from 0."""
        epoch, place = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            self._shuffled = shuffled(self.count, self.seed, "order", self.stream, epoch)
            self._epoch = epoch
        return self._shuffled[place * self.batch : (place + 1) * self.batch]


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
