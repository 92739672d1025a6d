"""The training loop: several streams a step, an objective, AdamW, snapshots, exact resume.

A function of its inputs and the seed alone: order, masks, dropout and every draw of an objective
are derived from (seed, step), so a run that goes on from a snapshot is the run that was never
stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from adapterxlt.compute.backbone import Backbone
from adapterxlt.compute.data import Mixture
from adapterxlt.compute.objectives import deconflict, draw_partners, mixup_loss, mixup_pairs
from adapterxlt.compute.ranks import Ranks
from adapterxlt.compute.remembered import Memory, free_layers
from adapterxlt.compute.snapshots import Outcome, Snapshots, restore, snapshot
from adapterxlt.compute.steps import Lowest, Step, Stream, Way
from adapterxlt.core.canon import derive
from adapterxlt.core.errors import StageError

Progress = Callable[[int, int, float], None]


def learning_rate(budget: Mapping[str, Any], step: int) -> float:
    """Rate of a step counted from 0: linear warm-up, then linear decay to zero or constant."""
    steps, peak = budget["steps"], budget["lr"]
    warm = int(budget["warmup"] * steps)
    if step < warm:
        return float(peak * (step + 1) / warm)
    if budget["schedule"] == "constant":
        return float(peak)
    return float(peak * (steps - step) / (steps - warm))


def train(*given: Any, **how: Any) -> Outcome:
    """Train parameters in place: a `Run` of these arguments, to its end."""
    return finish(Run(*given, **how))


def finish(run: Run) -> Outcome:
    """Train a run's parameters in place, to the end of its budget.

    Raises:
        StageError: the loss is not finite.
    """
    descend = _OBJECTIVES[run.objective]
    run.prepare()
    while run.going:
        step = run.begin()
        mine = run.ranks.first or descend is _summed
        run.end(step, run.ranks.sum(descend(step) if mine else 0.0, run.parameters.values()))
    run.backbone.model.eval()
    return run.outcome


class Run:
    """One training in progress: its optimizer, its place in its budget, what it has to tell.

    What is between `begin` and `end` of a step leaves the gradient of its loss in the parameters.

    Args:
        budget: ``steps``, ``lr``, ``warmup``, ``schedule``, ``weight_decay``, ``clip``; with
            ``snapshots: N`` the steps fall into N parts, and the outcome keeps the parameters as
            they are at the end of each part but the last.
        objective: ``macro``, the weighted mean of the mean losses of a step's batches; ``micro``,
            the cross-entropy over the union of their scored items; ``mixup``, the loss of mixtures
            of the first stream with each other (all three in Schmidt et al. 2022); ``surgery``,
            macro whose gradients are freed of conflicts (Xu and Murray 2022).
        sampling: which streams give the batches of a step, see `Mixture`.
        drop: AdapterDrop (Rücklé et al. 2021): the first n layers wear no adapters; ``random``
            draws n for every step, from 0 to one less than there are layers.
        regularizer: a loss that is added once a step; macro and micro only.
        micro_batch: splits batches to save memory and does not change the gradient.
        memory: where the states of layers below the first trained one are remembered.
        quiet: whether there is no dropout in those layers.
        ranks: the processes that share the rows of each batch of macro and micro.

    Raises:
        StageError: the objective does not go with the streams.
        KeyError: an unknown objective or kind of sampling.
    """

    def __init__(
        self,
        backbone: Backbone,
        parameters: Mapping[str, torch.nn.Parameter],
        streams: Sequence[Stream],
        budget: Mapping[str, Any],
        *,
        seed: int,
        objective: str = "macro",
        sampling: Mapping[str, Any] | None = None,
        drop: int | str | None = None,
        regularizer: Callable[[], torch.Tensor] | None = None,
        precision: str = "fp32",
        micro_batch: int | None = None,
        memory: Memory | None = None,
        quiet: bool = False,
        ranks: Ranks | None = None,
        snapshots: Snapshots | None = None,
        progress: Progress | None = None,
    ) -> None:
        descend = _OBJECTIVES[objective]
        if descend in (_mixup, _surgery) and (len(streams) < 2 or sampling or regularizer):
            raise StageError(f"{objective} wants two or more streams, balanced, and no regularizer")
        self.backbone, self.parameters, self.streams = backbone, parameters, streams
        self.budget, self.seed, self.objective, self.drop = budget, seed, objective, drop
        self.regularizer, self.quiet, self.progress = regularizer, quiet, progress
        self.snapshots = snapshots or Snapshots()
        self.trained = {name.partition(":")[0] for name in parameters}
        self.optimizer = _optimizer(parameters, budget)
        self.outcome = Outcome()
        self.step = restore(self.snapshots.load(), parameters, self.optimizer, self.outcome)
        self.outcome.resumed_at = self.step
        self.steps: int = budget["steps"]
        sizes = [len(stream.data.rows) for stream in streams]
        self._mixture = Mixture(sizes, self.steps, sampling, seed)
        parts = budget.get("snapshots") or 1
        self._keep_at = [math.ceil(self.steps * i / parts) for i in range(1, parts)]
        self.ranks = ranks or Ranks()
        sharing = self.ranks if descend is _summed else Ranks()
        lowest = Lowest(backbone, memory, self.trained)
        self._way = Way(backbone, precision, micro_batch, lowest, sharing)
        self._saved = self._clock = time.monotonic()

    @property
    def going(self) -> bool:
        """Whether there are steps left."""
        return self.step < self.steps

    def prepare(self) -> None:
        """Set the backbone's mode; the clock starts."""
        backbone, drop = self.backbone, self.drop
        backbone.model.train()
        backbone.compute_in(self._way.precision)
        if self.quiet:
            backbone.activate(
                self.streams[0].stacks[0], range(drop if isinstance(drop, int) else 0)
            )
            backbone.trunk.quiet(free_layers(backbone, self.trained))
        self._saved = self._clock = time.monotonic()

    def begin(self) -> Step:
        """The batches of the next step; no gradient is left from the last one."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.budget, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        slots = self._mixture.slots(self.step)
        turns = [
            self.streams[i].turn(number, self.seed, derive(self.seed, "dropout", self.step, place))
            for place, (i, number) in enumerate(slots)
        ]
        skip = _skipped(self.drop, self.backbone, self.seed, self.step)
        return Step(self.step, self.seed, turns, self.objective, self.parameters, skip, self._way)

    def end(self, step: Step, loss: float) -> None:
        """Change the parameters by their gradients.

        Raises:
            StageError: the loss is not finite.
        """
        outcome, steps = self.outcome, self.steps
        if self.regularizer is not None:
            extra = self.regularizer()
            extra.backward()
            loss += float(extra.detach())
        self.step += 1
        if not math.isfinite(loss):
            raise StageError(
                f"the loss is {loss} at step {self.step} of {steps}", hint="lower the learning rate"
            )
        if self.budget.get("clip"):
            torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), self.budget["clip"])
        self.optimizer.step()
        outcome.tokens += sum(turn.tokens for turn in step.turns)
        outcome.examples += sum(len(turn.rows) for turn in step.turns)
        if step.number % max(1, steps // 100) == 0 or not self.going:
            outcome.losses.append((self.step, round(loss, 6)))
        # A mark may come twice: more parts were asked for than there are steps.
        for _ in range(self._keep_at.count(self.step)):
            now = {n: p.detach().to("cpu", copy=True) for n, p in self.parameters.items()}
            outcome.kept.append(now)
        if self.progress is not None:
            self.progress(self.step, steps, loss)
        clock = time.monotonic()
        outcome.seconds += clock - self._clock
        self._clock = clock
        if clock - self._saved >= self.snapshots.every and self.going and self._sound():
            self.snapshots.save(snapshot(self.step, self.parameters, self.optimizer, outcome))
            self._saved = clock

    def _sound(self) -> bool:
        """Whether there is something to go on from: the next loss tells what has diverged."""
        return all(bool(p.isfinite().all()) for p in self.parameters.values())


def _summed(step: Step) -> float:
    """Macro and micro: the loss of the step, with its gradient left in the parameters."""
    pairs = zip(step.turns, step.shares(), strict=True)
    return sum(share * step.backward(turn, share) for turn, share in pairs)


def _mixup(step: Step) -> float:
    """The weighted mean of the mixup losses of the first turn with each other.

    A pair may take any two items of two batches, so micro-batches cannot split them.
    """
    (source, *others), device = step.turns, step.way.backbone.device
    weights = step.shares()[1:]
    loss = torch.zeros((), device=device)
    with step.amp():
        step.wear(source)
        batch = step.batch(source, source.rows)
        states = step.states(source, batch)
        for i, (other, weight) in enumerate(zip(others, weights, strict=True)):
            if source.scored == 0 or other.scored == 0:
                continue
            draw = derive(step.seed, "mixup", step.number, i)
            drawn = mixup_pairs(source.scored, other.scored, draw)
            pairs, lam = (tensor.to(device) for tensor in drawn)
            step.wear(other)
            theirs = step.batch(other, other.rows)
            right = step.states(other, theirs), theirs.labels
            part = mixup_loss(source.stream.logits, states, batch.labels, *right, pairs, lam)
            loss = loss + part * (weight / sum(weights))
    if loss.requires_grad:
        loss.backward()
    return float(loss.detach())


def _surgery(step: Step) -> float:
    """Macro's loss; the gradients of the turns are freed of conflicts before they are summed.

    Each gradient has its share of the mean in it already: a projection onto another gradient does
    not depend on the length of that one, and is linear in its own.
    """
    parameters = list(step.parameters.values())
    loss, gradients, touched = 0.0, [], [False] * len(parameters)
    for turn, share in zip(step.turns, step.shares(), strict=True):
        loss += share * step.backward(turn, share)
        touched = [was or p.grad is not None for was, p in zip(touched, parameters, strict=True)]
        gradients.append(_take_gradient(parameters))
    merged = sum(deconflict(gradients, draw_partners(len(gradients), step.seed, step.number)))
    parts = merged.split([p.numel() for p in parameters])
    for parameter, part, was in zip(parameters, parts, touched, strict=True):
        # What no turn has worn stays without a gradient, so that AdamW leaves it alone.
        parameter.grad = part.view_as(parameter) if was else None
    return loss


_OBJECTIVES = {"macro": _summed, "micro": _summed, "mixup": _mixup, "surgery": _surgery}


def _take_gradient(parameters: Sequence[torch.nn.Parameter]) -> torch.Tensor:
    """The gradient as one vector (parameters,), taken off the parameters."""
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    for parameter in parameters:
        parameter.grad = None
    return torch.cat([part.flatten() for part in parts])


def _skipped(drop: int | str | None, backbone: Backbone, seed: int, step: int) -> range:
    """The layers whose adapters a step goes without."""
    if drop == "random":
        return range(derive(seed, "drop", step) % backbone.layers)
    return range(int(drop or 0))


def _optimizer(
    parameters: Mapping[str, torch.nn.Parameter], budget: Mapping[str, Any]
) -> torch.optim.AdamW:
    """AdamW with epsilon 1e-8; no weight decay on biases and LayerNorm."""
    decayed = [p for p in parameters.values() if p.dim() > 1]
    plain = [p for p in parameters.values() if p.dim() <= 1]
    groups = [
        {"params": decayed, "weight_decay": budget["weight_decay"]},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=budget["lr"], eps=1e-8)
