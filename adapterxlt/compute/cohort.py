"""Several trainings over one frozen trunk in one pass, each as if it ran alone.

The batches of all runs go through the frozen layers together; in the place of an adapter stands a
module that sends each run's rows through that run's own. Losses, gradients, clipping, optimizers,
masks and dropout are each run's. For methods with bottlenecks that stand in a stack alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from adapters.methods.bottleneck import BottleneckLayer
from adapters.methods.modeling import Adapter
from torch.nn.functional import pad as fill

from adapterxlt.compute.backbone import Backbone
from adapterxlt.compute.data import Batch, join
from adapterxlt.compute.remembered import Lowermost
from adapterxlt.compute.snapshots import Outcome
from adapterxlt.compute.steps import Step, Turn
from adapterxlt.compute.training import Run
from adapterxlt.core.errors import StageError

#: Padded sub-words of all runs that go through at once.
TOKENS = 1 << 16


@dataclass
class _Part:
    """A turn of a run: its batch, and its share in the run's loss."""

    member: int
    step: Step
    turn: Turn
    share: float
    batch: Batch


def train_together(
    backbone: Backbone, runs: Sequence[Run], tokens: int = TOKENS
) -> list[Outcome | StageError]:
    """Train runs at the same time; what becomes of each. One that fails leaves the others alone.

    Args:
        runs: of the same objective kind (macro or micro), precision and depth of stack.
        tokens: padded sub-words that go through at once; memory grows with them.
    """
    found: list[Outcome | StageError] = [run.outcome for run in runs]
    for run in runs:
        run.prepare()
    while going := [i for i, run in enumerate(runs) if run.going and _well(found[i])]:
        steps = {i: runs[i].begin() for i in going}
        losses = dict.fromkeys(going, 0.0)
        parts = [part for i, step in steps.items() for part in _parts(backbone, i, step)]
        for some in _chunks(parts, tokens):
            _backward(backbone, some, losses)
        for i, step in steps.items():
            try:
                runs[i].end(step, losses[i])
            except StageError as error:
                found[i] = error
    backbone.model.eval()
    return found


def _well(outcome: Outcome | StageError) -> bool:
    return isinstance(outcome, Outcome)


def _parts(backbone: Backbone, member: int, step: Step) -> Iterator[_Part]:
    for turn, share in zip(step.turns, step.shares(), strict=True):
        if turn.scored:
            step.wear(turn)
            yield _Part(member, step, turn, share, step.batch(turn, turn.rows))


def _chunks(parts: Sequence[_Part], tokens: int) -> Iterator[list[_Part]]:
    """Parts that go through at once: at least one, at most so many padded sub-words."""
    some: list[_Part] = []
    for part in sorted(parts, key=lambda p: p.batch.ids.shape[1]):
        longest = max(p.batch.ids.shape[1] for p in (*some, part))
        if some and sum(len(p.batch.ids) for p in (*some, part)) * longest > tokens:
            yield some
            some = []
        some.append(part)
    if some:
        yield some


def _backward(backbone: Backbone, parts: Sequence[_Part], losses: dict[int, float]) -> None:
    """Add each part's share of its mean loss to its run's, and its gradient."""
    first = parts[0]
    batch = join([part.batch for part in parts], backbone.tokenizer.pad_token_id)
    total = torch.zeros((), device=backbone.device)
    with first.step.amp():
        lowest = _joined(backbone, parts, batch.ids.shape[1])
        first.step.wear(first.turn)
        with _grouped(backbone, parts):
            states = backbone.scored(batch, lowest)
        sizes = [len(part.batch.index[0]) for part in parts]
        for part, own in zip(parts, states.split(sizes), strict=True):
            # A masked-LM head has the inverse of the adapter that is active.
            part.step.wear(part.turn)
            turn = part.turn
            logits = part.step.logits(turn, own)
            loss = turn.stream.criterion.loss(logits, part.batch.labels, turn.rows) / turn.scored
            total = total + loss * part.share
            losses[part.member] += part.share * float(loss.detach())
    total.backward()


@dataclass(frozen=True)
class _Joined:
    """States that come out of the lowest layers, of all parts; see `remembered.Known`."""

    found: torch.Tensor
    depth: int

    def states(self, batch: Batch, lowest: Lowermost) -> torch.Tensor:
        return self.found


def _joined(backbone: Backbone, parts: Sequence[_Part], length: int) -> _Joined | None:
    """What is remembered for the parts of a batch; nothing where it is not so for all, as deep."""
    below = [(part, part.step.way.lowest.of(part.turn, part.step.skip)) for part in parts]
    depth = below[0][1].depth if below[0][1] is not None else 0
    found = []
    for part, known in below:
        if known is None or known.depth != depth:
            return None
        part.step.wear(part.turn)
        own = known.states(part.batch, backbone.trunk.lowest)
        found.append(fill(own, (0, 0, 0, length - own.shape[1])))
    return _Joined(torch.cat(found), depth)


@contextmanager
def _grouped(backbone: Backbone, parts: Sequence[_Part]) -> Iterator[None]:
    """Have every part's rows go through its own adapters, where the first part's are active."""
    rows = [len(part.batch.ids) for part in parts]
    stacks = [part.turn.stack for part in parts]
    if len({len(stack) for stack in stacks}) > 1:
        raise StageError("a cohort's stacks are of different depth")
    base = backbone.model.base_model
    held = [m.adapters for m in base.modules() if isinstance(m, BottleneckLayer)]
    replaced: list[tuple[Any, str, torch.nn.Module]] = []
    try:
        for names in zip(*stacks, strict=True):
            if len(set(names)) == 1:
                continue
            for place, kind in [(place, _Bottlenecks) for place in held] + [
                (base.invertible_adapters, _Blocks)
            ]:
                if names[0] in place:
                    own = place[names[0]]
                    replaced.append((place, names[0], own))
                    place._modules[names[0]] = kind([place[name] for name in names], rows)
        yield
    finally:
        for place, name, own in replaced:
            place._modules[name] = own


class _Rows(torch.nn.Module):  # type: ignore[misc]
    """Modules, each for some of the rows, in order; neighbours that are the same are one."""

    def __init__(self, modules: Sequence[torch.nn.Module], rows: Sequence[int]) -> None:
        super().__init__()
        # Not as submodules: these belong to the backbone already.
        self.__dict__["each"] = []
        for module, count in zip(modules, rows, strict=True):
            if self.each and self.each[-1][0] is module:
                count += self.each.pop()[1]
            self.each.append((module, count))
        self.counts = [count for _, count in self.each]


class _Blocks(_Rows):
    """Invertible adapters."""

    def forward(self, states: torch.Tensor, rev: bool = False) -> torch.Tensor:
        """(rows, length, hidden)."""
        parts = zip(self.each, states.split(self.counts), strict=True)
        return torch.cat([module(part, rev=rev) for (module, _), part in parts])


class _Bottlenecks(_Rows):
    """Bottleneck adapters of one configuration, in the place of one of them."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            # What the library asks of an adapter's configuration is the same of all.
            return getattr(self.__dict__["each"][0][0], name)

    def forward(
        self, states: torch.Tensor, residual_input: torch.Tensor, output_gating: bool = False
    ) -> tuple[torch.Tensor, None, None]:
        """(rows, length, hidden), in the library's form without what only AdapterFusion wants."""
        if states.is_cuda and len(set(self.counts)) == 1 and all(_plain(m) for m, _ in self.each):
            return self.batched(states, residual_input), None, None
        parts = zip(
            self.each, states.split(self.counts), residual_input.split(self.counts), strict=True
        )
        return (
            torch.cat([m(part, residual_input=own)[0] for (m, _), part, own in parts]),
            None,
            None,
        )

    def batched(self, states: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Plain bottlenecks of as many rows each, in a few large products."""
        modules = [module for module, _ in self.each]
        down, up = [m.adapter_down[0] for m in modules], [m.adapter_up for m in modules]

        def product(layers: Sequence[torch.nn.Linear], given: torch.Tensor) -> torch.Tensor:
            weights = torch.stack([layer.weight for layer in layers]).transpose(1, 2)
            biases = torch.stack([layer.bias for layer in layers])[:, None]
            return torch.baddbmm(biases, given, weights)

        each = states.reshape(len(modules), -1, states.shape[-1])
        inner = modules[0].non_linearity(product(down, each))
        return product(up, inner).view_as(states) * modules[0].scaling + residual


def _plain(module: Adapter) -> bool:
    """Whether an adapter is two matrices with a non-linearity between, and a residual."""
    odd = module.add_layer_norm_before or module.add_layer_norm_after or module.use_gating
    matrices = isinstance(module.adapter_down[0], torch.nn.Linear)
    drops = module.dropout.p > 0 or hasattr(module, "DropPath")
    return matrices and not odd and not drops and isinstance(module.scaling, float)
