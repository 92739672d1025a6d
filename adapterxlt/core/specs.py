"""What is trained and how long: adapter methods, budgets, and the shape of a backbone.

Frozen, closed pydantic values that recipes are made of, with the closed forms the cost model
needs. `compute.methods` turns an `AdapterSpec` into modules; nothing here knows of torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Closed(BaseModel):
    """A frozen value with no unknown fields, NaN nowhere and no silent type conversion."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


@dataclass(frozen=True, slots=True)
class Method:
    """One adapter method: its fields' defaults and how many parameters it adds."""

    name: str
    summary: str
    reduction_factor: float
    non_linearity: str
    adapters_per_layer: int
    invertible: bool = False


METHODS: dict[str, Method] = {
    row.name: row
    for row in (
        Method("seq_bn", "bottleneck after the feed-forward block (Pfeiffer)", 16.0, "relu", 1),
        Method("seq_bn_inv", "seq_bn with an invertible block (MAD-X)", 2.0, "relu", 1, True),
        Method("double_seq_bn", "bottleneck after attention and feed-forward", 16.0, "swish", 2),
        Method("par_bn", "bottleneck beside the feed-forward block", 2.0, "relu", 1),
    )
}

Positive = Annotated[int, Field(gt=0)]


class AdapterSpec(Closed):
    """The modules of one adapter. Fields left out take the method's defaults."""

    method: str = "seq_bn"
    """One of `adapterxlt ls methods`."""
    reduction_factor: Annotated[float, Field(gt=0)] | None = None
    """Hidden size divided by bottleneck size."""
    non_linearity: Literal["relu", "gelu", "swish", "tanh"] | None = None
    leave_out: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Layers without an adapter, counted from 0; the last one for MAD-X 2.0."""

    @model_validator(mode="before")
    @classmethod
    def _sequence(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("leave_out"), list):
            return {**value, "leave_out": tuple(value["leave_out"])}
        return value

    @property
    def row(self) -> Method:
        return METHODS[self.method]

    def resolved(self) -> dict[str, Any]:
        """The complete specification as it enters a key: defaults filled in."""
        return {
            "method": self.method,
            "reduction_factor": float(self.reduction_factor or self.row.reduction_factor),
            "non_linearity": self.non_linearity or self.row.non_linearity,
            "leave_out": sorted(set(self.leave_out)) if self.leave_out else None,
        }


class Budget(Closed):
    """How long and how a phase trains. `steps` or `epochs`, not both."""

    steps: Positive | None = None
    """Optimizer steps."""
    epochs: Positive | None = None
    """Passes over the source data (over the longest stream where there is no source)."""
    batch: Positive | None = None
    """Rows per language per step: the effective batch; memory is a matter of --micro-batch."""
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

    @model_validator(mode="after")
    def _one_length(self) -> Budget:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give steps or epochs, not both")
        return self

    def over(self, base: Budget) -> Budget:
        """This budget's fields over those of ``base``; a length given here replaces the other."""
        mine = self.model_dump(exclude_none=True)
        theirs = base.model_dump(exclude_none=True)
        if {"steps", "epochs"} & mine.keys():
            theirs.pop("steps", None)
            theirs.pop("epochs", None)
        return Budget(**{**theirs, **mine})


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


def adapter_parameters(spec: dict[str, Any], shape: Shape) -> int:
    """Trainable parameters of a bottleneck adapter, biases and invertible block included.

    Closed form of the modules of `adapters` 1.3.0; a test compares it with the real modules.
    """
    method = METHODS[spec["method"]]
    width = max(1, int(shape.hidden / spec["reduction_factor"]))
    layers = shape.layers - len(set(spec.get("leave_out") or ()) & set(range(shape.layers)))
    bottleneck = 2 * shape.hidden * width + width + shape.hidden
    total = layers * method.adapters_per_layer * bottleneck
    if method.name == "par_bn":
        total += 0
    if method.invertible:
        half, inner = shape.hidden // 2, max(1, shape.hidden // 2 // 2)
        total += 2 * (2 * half * inner + inner + half)
    return total
