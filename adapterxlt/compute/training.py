"""The training loop: several streams a step, their mean loss, AdamW, snapshots, exact resume.

A function of its inputs and the seed alone: order, masks and dropout are derived from (seed, step),
so a run that goes on from a snapshot is the run that was never stopped.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from adapterxlt.compute.backbone import Backbone
from adapterxlt.compute.data import Batch, Encoded, Masking, Order, Window, collate, mask_seed
from adapterxlt.compute.snapshots import Outcome, Snapshots, restore, snapshot
from adapterxlt.core.canon import derive
from adapterxlt.core.errors import StageError

Progress = Callable[[int, int, float], None]


@dataclass
class Stream:
    """One language's batches in a phase: its rows, their order, and what its batches wear."""

    name: str
    data: Encoded
    order: Order
    stack: tuple[str, ...]
    logits: Callable[[torch.Tensor], torch.Tensor]
    masking: Masking | None = None

    def windows(self, step: int, seed: int) -> list[Window]:
        """The windows of a step, masked when the stream is text."""
        rows = [self.data.rows[i] for i in self.order.rows(step)]
        windows = [window for row in rows for window in row]
        if self.masking is not None:
            return self.masking.apply(windows, mask_seed(seed, self.name, step))
        return windows


def learning_rate(budget: Mapping[str, Any], step: int) -> float:
    """Rate of a step counted from 0: linear warm-up, then linear decay to zero or constant."""
    steps, peak = budget["steps"], budget["lr"]
    warm = int(budget["warmup"] * steps)
    if step < warm:
        return float(peak * (step + 1) / warm)
    if budget["schedule"] == "constant":
        return float(peak)
    return float(peak * (steps - step) / (steps - warm))


def train(
    backbone: Backbone,
    parameters: Mapping[str, torch.nn.Parameter],
    streams: Sequence[Stream],
    budget: Mapping[str, Any],
    *,
    seed: int,
    precision: str = "fp32",
    micro_batch: int | None = None,
    snapshots: Snapshots | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Train ``parameters`` in place.

    Each step takes one batch of every stream; the loss is the plain mean of the streams' mean
    losses ("macro", Schmidt et al. 2022). ``micro_batch`` splits a batch to save memory and does
    not change the gradient.

    Raises:
        StageError: the loss is not finite.
    """
    snapshots = snapshots or Snapshots()
    optimizer = _optimizer(parameters, budget)
    outcome = Outcome()
    first = restore(snapshots.load(), parameters, optimizer, outcome)
    outcome.resumed_at = first
    steps = budget["steps"]
    stride = max(1, steps // 100)
    started = saved = time.monotonic()
    before = outcome.seconds
    backbone.model.train()
    for step in range(first, steps):
        torch.manual_seed(derive(seed, "dropout", step))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(budget, step)
        optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        for stream in streams:
            windows = stream.windows(step, seed)
            part, tokens = _backward(
                backbone, stream, windows, len(streams), precision, micro_batch
            )
            loss += part / len(streams)
            outcome.tokens += tokens
        if not math.isfinite(loss):
            raise StageError(
                f"the loss is {loss} at step {step + 1} of {steps}", hint="lower the learning rate"
            )
        if budget.get("clip"):
            torch.nn.utils.clip_grad_norm_(list(parameters.values()), budget["clip"])
        optimizer.step()
        if step % stride == 0 or step == steps - 1:
            outcome.losses.append((step + 1, round(loss, 6)))
        if progress is not None:
            progress(step + 1, steps, loss)
        now = time.monotonic()
        outcome.seconds = before + now - started
        if now - saved >= snapshots.every and step + 1 < steps:
            snapshots.save(snapshot(step + 1, parameters, optimizer, outcome))
            saved = now
    backbone.model.eval()
    return outcome


def _backward(
    backbone: Backbone,
    stream: Stream,
    windows: list[Window],
    streams: int,
    precision: str,
    micro_batch: int | None,
) -> tuple[float, int]:
    """Mean loss of one stream's batch, its gradient accumulated; and its sub-words."""
    scored = sum(len(window.labels) for window in windows)
    if scored == 0:
        return 0.0, 0
    backbone.activate(stream.stack)
    size = micro_batch or len(windows)
    pad = backbone.tokenizer.pad_token_id
    total, tokens = 0.0, 0
    for start in range(0, len(windows), size):
        batch = collate(windows[start : start + size], pad).to(backbone.device)
        tokens += batch.tokens
        if len(batch.labels) == 0:
            continue
        with amp(precision, backbone.device):
            loss = _summed_loss(backbone, stream, batch) / scored
        (loss / streams).backward()
        total += float(loss.detach())
    return total, tokens


def _summed_loss(backbone: Backbone, stream: Stream, batch: Batch) -> torch.Tensor:
    states = backbone.hidden(batch.ids, batch.mask)[batch.index]
    logits = stream.logits(states).float()
    return torch.nn.functional.cross_entropy(logits, batch.labels, reduction="sum")


def amp(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Mixed precision for ``bf16`` (weights and optimizer stay fp32); nothing for ``fp32``."""
    if precision == "bf16":
        half: contextlib.AbstractContextManager[Any] = torch.autocast(
            device.type, dtype=torch.bfloat16
        )
        return half
    return contextlib.nullcontext()


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
