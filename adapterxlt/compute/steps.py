"""One step of a training: its batches, what they wear, and how they go through the backbone.

A batch is a function of (seed, step) alone: order, masks and dropout are derived from them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from adapterxlt.compute.backbone import Backbone, Wearing
from adapterxlt.compute.criteria import ITEMS, Criterion
from adapterxlt.compute.data import Batch, Encoded, Order, Window, alike
from adapterxlt.compute.masking import Masking, mask_seed
from adapterxlt.compute.objectives import shares
from adapterxlt.compute.randomness import seed_draws
from adapterxlt.compute.ranks import Ranks
from adapterxlt.compute.remembered import Memory, Remembered, below
from adapterxlt.core.canon import derive


@dataclass(frozen=True)
class Stream:
    """One language's batches in a phase: its rows, their order, and what its batches wear.

    Batch number k wears ``stacks[k % len(stacks)]``; ``weight`` is that of its loss, which is what
    ``criterion`` says of the outputs of ``logits``.
    """

    name: str
    data: Encoded
    order: Order
    stacks: tuple[Wearing, ...]
    logits: Callable[[torch.Tensor], torch.Tensor]
    masking: Masking | None = None
    weight: float = 1.0
    criterion: Criterion = ITEMS

    def turn(self, number: int, seed: int, draw: int = 0) -> Turn:
        """The batch of a number, counted from 0, masked when the stream is text.

        Args:
            draw: seed of the dropout that is drawn for it.
        """
        rows = [self.data.rows[i] for i in self.order.rows(number)]
        if self.masking is not None:
            windows = [window for row in rows for window in row]
            masked = iter(self.masking.apply(windows, mask_seed(seed, self.name, number)))
            rows = [tuple(next(masked) for _ in row) for row in rows]
        return Turn(self, rows, self.stacks[number % len(self.stacks)], draw)


@dataclass(frozen=True)
class Turn:
    """One batch of a step: whose it is, its rows, and what it wears."""

    stream: Stream
    rows: list[tuple[Window, ...]]
    stack: Wearing
    draw: int

    @property
    def scored(self) -> int:
        """How many terms its loss has."""
        return self.stream.criterion.terms(self.rows)

    @property
    def tokens(self) -> int:
        return sum(len(window.ids) for row in self.rows for window in row)


class Lowest:
    """What is remembered of the layers below those that are trained, by what a turn wears."""

    def __init__(self, backbone: Backbone, memory: Memory | None, trained: set[str]) -> None:
        self.backbone, self.memory, self.trained = backbone, memory, trained
        self.known: dict[tuple[Wearing, range], Remembered | None] = {}

    def of(self, turn: Turn, skip: range) -> Remembered | None:
        """For a turn; masks make each batch of text another one."""
        if self.memory is None or turn.stream.masking is not None:
            return None
        if (turn.stack, skip) not in self.known:
            self.backbone.activate(turn.stack, skip)
            self.known[turn.stack, skip] = below(self.backbone, self.memory, self.trained)
        return self.known[turn.stack, skip]


@dataclass(frozen=True)
class Way:
    """How batches go through a backbone."""

    backbone: Backbone
    precision: str
    micro_batch: int | None
    lowest: Lowest
    ranks: Ranks


@dataclass(frozen=True)
class Step:
    """The batches of one step, counted from 0, and how they go through the backbone."""

    number: int
    seed: int
    turns: list[Turn]
    objective: str
    parameters: Mapping[str, torch.nn.Parameter]
    skip: range
    way: Way

    def shares(self) -> list[float]:
        """Factor of each turn's mean loss in the loss of the step."""
        weights = [turn.stream.weight for turn in self.turns]
        return shares(self.objective, weights, [turn.scored for turn in self.turns])

    def wear(self, turn: Turn) -> None:
        """Activate the adapters of a turn, without those of skipped layers."""
        self.way.backbone.activate(turn.stack, self.skip)

    def batch(self, turn: Turn, rows: Sequence[tuple[Window, ...]], start: int = 0) -> Batch:
        """Rows of a turn that is worn, from a place on, as a batch."""
        draw = derive(turn.draw, "from", start)
        # Of what adapters draw, beside the backbone's own dropout.
        seed_draws(draw, self.way.backbone.device)
        return self.way.backbone.batch([window for row in rows for window in row], draw)

    def states(self, turn: Turn, batch: Batch) -> torch.Tensor:
        """Hidden states (scored, hidden) of a batch under what a turn wears."""
        return self.way.backbone.scored(batch, self.way.lowest.of(turn, self.skip))

    def logits(self, turn: Turn, states: torch.Tensor, start: int = 0) -> torch.Tensor:
        """What a turn's head says of its states, from a row on; a head may draw dropout too."""
        seed_draws(derive(turn.draw, "head", start), self.way.backbone.device)
        return turn.stream.logits(states).float()

    def backward(self, turn: Turn, share: float) -> float:
        """Mean loss of a turn, as far as it is this process's; ``share`` times its gradient is
        accumulated."""
        scored, criterion = turn.scored, turn.stream.criterion
        if scored == 0:
            return 0.0
        self.wear(turn)
        total, end = 0.0, 0
        for number, piece in enumerate(self._pieces(turn)):
            start, end = end, end + len(piece)
            if not (self.way.ranks.mine(number) and criterion.terms(piece)):
                continue
            with self.amp():
                batch = self.batch(turn, piece, start)
                logits = self.logits(turn, self.states(turn, batch), start)
                loss = criterion.loss(logits, batch.labels, piece) / scored
            (loss * share).backward()
            total += float(loss.detach())
        return total

    def _pieces(self, turn: Turn) -> Iterable[Sequence[tuple[Window, ...]]]:
        """The rows of a turn in the parts that go through at once."""
        rows, size = turn.rows, len(turn.rows)
        if not turn.stream.criterion.splits:
            return [rows]
        size = min(self.way.micro_batch or size, math.ceil(size / self.way.ranks.count))
        if not self.way.backbone.apart:
            return alike(rows, size)
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def amp(self) -> contextlib.AbstractContextManager[Any]:
        """The precision of the step; see `amp`."""
        return amp(self.way.precision, self.way.backbone.device)


def amp(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Mixed precision for ``bf16`` (weights and optimizer stay fp32); nothing for ``fp32``."""
    if precision == "bf16":
        half: contextlib.AbstractContextManager[Any] = torch.autocast(
            device.type, dtype=torch.bfloat16
        )
        return half
    return contextlib.nullcontext()
