"""How long a phase trains, and the shape of a backbone: frozen, closed values of recipes.

What is trained is said by `core.methods`; nothing here knows of torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator


class Closed(BaseModel):
    """A frozen value with no unknown fields, NaN nowhere and no silent type conversion."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


#: What is counted: nothing that can be meant is more, and sums and products stay numbers.
Positive = Annotated[int, Field(gt=0, lt=2**31)]


class Shortcuts(Closed):
    """What is computed otherwise than the method says, to save time. Off unless asked for; results
    are others, and the report names it."""

    corpus_softmax: bool = False
    """Language adapters predict among the pieces of their text, not of the whole vocabulary."""
    frozen_dropout_off: bool = False
    """No dropout below the first layer that is trained, so that its input is computed once."""

    def of(self, *names: str) -> dict[str, bool] | None:
        """Those of the names that are on, as they enter a key."""
        return {name: True for name in names if getattr(self, name)} or None

    def said(self) -> list[str]:
        """What those that are on do, for readers of results."""
        fields = type(self).model_fields.items()
        return [str(field.description) for name, field in fields if getattr(self, name)]


#: The fields of a budget that say how long.
LENGTHS = frozenset({"steps", "epochs", "examples"})


class Budget(Closed):
    """How long and how a phase trains. One of `steps`, `epochs` and `examples`."""

    steps: Positive | None = None
    """Optimizer steps."""
    epochs: Positive | None = None
    """Passes over the source data (over the longest stream where there is no source)."""
    examples: Positive | None = None
    """Rows of all streams together, about: as many steps as it takes to see so many."""
    batch: (
        Annotated[
            Annotated[Positive, Tag("<number>")] | Annotated[dict[str, Positive], Tag("<mapping>")],
            Discriminator(lambda value: "<mapping>" if isinstance(value, dict) else "<number>"),
        ]
        | None
    ) = None
    """Rows per language per step: the effective batch; memory is a matter of --micro-batch. Of a
    phase with several tasks also one for each, e.g. {task: 32, intermediate: 4}."""
    lr: Annotated[float, Field(gt=0)] | None = None
    """Peak learning rate of AdamW."""
    schedule: Literal["linear", "constant"] | None = None
    """After the warm-up: linear decay to zero, or constant."""
    warmup: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of the steps with a linearly rising rate."""
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    """Not applied to biases and LayerNorm."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest L2 norm of the gradient."""
    snapshots: Annotated[int, Field(gt=0, le=1000)] | None = None
    """Evenly spaced snapshots that are kept, the end among them; see a phase's `start`."""

    @model_validator(mode="after")
    def _one_length(self) -> Budget:
        if sum(getattr(self, name) is not None for name in LENGTHS) > 1:
            raise ValueError("give one of steps, epochs and examples")
        return self

    def over(self, base: Budget) -> Budget:
        """This budget's fields over those of ``base``; a length given here replaces the other."""
        mine = self.model_dump(exclude_none=True)
        theirs = base.model_dump(exclude_none=True)
        if LENGTHS & mine.keys():
            theirs = {name: value for name, value in theirs.items() if name not in LENGTHS}
        return Budget(**{**theirs, **mine})


def resolve_budget(budget: Budget, longest: int, per_step: int) -> dict[str, Any]:
    """The complete budget as it enters a key: its length becomes steps.

    An epoch is ``ceil(longest / batch)`` steps, ``examples`` are seen ``per_step`` at a time. No
    more snapshots are kept than there are steps.
    """
    batch = budget.batch if isinstance(budget.batch, int) else 1
    steps = budget.steps or (budget.epochs or 1) * math.ceil(longest / batch)
    if budget.examples is not None:
        steps = math.ceil(budget.examples / per_step)
    values = budget.model_dump(exclude={"steps", "epochs", "examples"})
    kept = min(budget.snapshots or 1, steps)
    return {**values, "snapshots": kept if kept > 1 else None, "batch": batch, "steps": steps}


#: The paper's optimizer settings, with a learning rate for adapters.
BASE_BUDGET = Budget(
    epochs=10,
    batch=32,
    lr=1e-4,
    schedule="linear",
    warmup=0.1,
    weight_decay=0.05,
    clip=1.0,
)


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a transformer encoder that cost is computed from."""

    layers: int
    hidden: int
    ffn: int
    vocabulary: int

    @property
    def block_parameters(self) -> int:
        """Matrix parameters outside the embeddings."""
        return self.layers * (4 * self.hidden * self.hidden + 2 * self.hidden * self.ffn)
