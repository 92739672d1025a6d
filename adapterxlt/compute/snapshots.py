"""Snapshots of a run in progress: everything it needs to go on as if it had never stopped.

Bytes only; where they are kept is the caller's affair. Shared by the training loop and the
pretraining of the laboratory's backbone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import safetensors.torch
import torch

# Raised when what a snapshot holds changes; one of another form is as good as none.
_FORM = 2


@dataclass
class Snapshots:
    """Where snapshots go and come from; ``every`` is seconds between two."""

    save: Callable[[bytes], None] = lambda data: None
    load: Callable[[], bytes | None] = lambda: None
    every: float = 20.0


@dataclass
class Outcome:
    """What a run tells besides its last weights: the loss curve, the work done, earlier weights.

    ``tokens`` and ``examples`` count the sub-words and rows of all batches, a row each time that it
    is read. ``kept`` holds copies of the trained parameters, on the CPU, at the steps that the
    budget's ``snapshots`` names, without the last one.
    """

    losses: list[tuple[int, float]] = field(default_factory=list)
    tokens: int = 0
    examples: int = 0
    seconds: float = 0.0
    resumed_at: int = 0
    kept: list[dict[str, torch.Tensor]] = field(default_factory=list)

    @property
    def final_loss(self) -> float:
        """Mean of the last tenth of the curve."""
        tail = self.losses[-max(1, len(self.losses) // 10) :]
        return sum(loss for _, loss in tail) / len(tail)


def snapshot(
    step: int,
    parameters: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.AdamW,
    outcome: Outcome,
) -> bytes:
    """Everything a run needs to go on, as safetensors bytes."""
    facts = {
        "form": _FORM,
        "step": step,
        "losses": outcome.losses,
        "tokens": outcome.tokens,
        "examples": outcome.examples,
        "seconds": outcome.seconds,
        "kept": len(outcome.kept),
    }
    text = json.dumps(facts).encode()
    tensors = {"facts": torch.frombuffer(bytearray(text), dtype=torch.uint8)}
    for name, parameter in parameters.items():
        tensors[f"value/{name}"] = parameter.detach()
        for slot, value in optimizer.state[parameter].items():
            tensors[f"{slot}/{name}"] = value
        for i, weights in enumerate(outcome.kept):
            tensors[f"kept/{i}/{name}"] = weights[name]
    return bytes(safetensors.torch.save(tensors))


def restore(
    data: bytes | None,
    parameters: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.AdamW,
    outcome: Outcome,
) -> int:
    """Load a snapshot; the step to go on with, 0 without one or with one of another form."""
    if data is None:
        return 0
    tensors = safetensors.torch.load(data)
    facts = json.loads(tensors.pop("facts").numpy().tobytes())
    if facts.get("form") != _FORM:
        return 0
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"value/{name}"])
            # What no batch has worn yet has no state, and AdamW leaves it alone.
            if f"step/{name}" not in tensors:
                continue
            # The count of steps stays where AdamW keeps it, the moments go with the parameter.
            optimizer.state[parameter] = {"step": tensors[f"step/{name}"].clone()} | {
                slot: tensors[f"{slot}/{name}"].to(parameter.device, copy=True)
                for slot in ("exp_avg", "exp_avg_sq")
            }
    outcome.losses = [tuple(pair) for pair in facts["losses"]]
    outcome.tokens, outcome.examples = facts["tokens"], facts["examples"]
    outcome.seconds = facts["seconds"]
    outcome.kept = [
        {name: tensors[f"kept/{i}/{name}"] for name in parameters} for i in range(facts["kept"])
    ]
    return int(facts["step"])
