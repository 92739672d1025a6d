"""Trainable parameters of adapter methods in closed form, and what does not fit a backbone's sizes.

Of the modules of `adapters` 1.3.0 and `peft` 0.21.2; a test compares each with the real ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from adapterxlt.core.forms import FieldFault, Resolved
from adapterxlt.core.specs import Shape

#: Choices of `targets`; `all-linear` with the matrix after attention, which peft alone reaches.
TARGETS: dict[str, tuple[str, ...]] = {
    "query-value": ("query", "value"),
    "attention": ("query", "key", "value"),
    "attention-ffn": ("query", "key", "value", "intermediate", "output"),
    "all-linear": ("query", "key", "value", "attention-output", "intermediate", "output"),
}

#: Where each of these matrices is in a layer of a BERT or RoBERTa encoder.
MATRIX_PATHS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention-output": "attention.output.dense",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
}


def _size(matrix: str, shape: Shape) -> tuple[int, int]:
    """Inputs and outputs of a matrix."""
    if matrix == "intermediate":
        return shape.hidden, shape.ffn
    return (shape.ffn if matrix == "output" else shape.hidden), shape.hidden


def layers_of(spec: Resolved, layers: int) -> list[int]:
    """Layers with an adapter: all but `leave_out`, which counts from the end where negative."""
    out = {i + layers if i < 0 else i for i in spec.get("leave_out") or ()}
    return [i for i in range(layers) if i not in out]


def per_matrix(
    share: Callable[[Resolved, int, int], int], matrices: tuple[str, ...] = ()
) -> Callable[[Resolved, Shape], int]:
    """Count of ``share(spec, inputs, outputs)`` parameters a matrix: these, or the `targets`."""

    def count(spec: Resolved, shape: Shape) -> int:
        sizes = [_size(matrix, shape) for matrix in matrices or TARGETS[spec["targets"]]]
        return len(layers_of(spec, shape.layers)) * sum(share(spec, *size) for size in sizes)

    return count


def _width(spec: Resolved, shape: Shape) -> int:
    """Width of a bottleneck."""
    return max(1, int(shape.hidden / spec["reduction_factor"]))


def bottleneck(places: int, inverted: bool = False) -> Callable[[Resolved, Shape], int]:
    def count(spec: Resolved, shape: Shape) -> int:
        width = _width(spec, shape)
        each = 2 * shape.hidden * width + width + shape.hidden
        total = len(layers_of(spec, shape.layers)) * places * each
        if inverted:
            half, inner = shape.hidden // 2, max(1, shape.hidden // 2 // 2)
            total += 2 * (2 * half * inner + inner + half)
        return total

    return count


def compacter(places: int) -> Callable[[Resolved, Shape], int]:
    def count(spec: Resolved, shape: Shape) -> int:
        rank: int = spec["phm_rank"]
        each = (2 * rank + 1) * (_width(spec, shape) + shape.hidden)
        layers = len(layers_of(spec, shape.layers))
        rule: int = spec["phm_dim"] ** 3
        return layers * places * each + rule

    return count


def prefix(spec: Resolved, shape: Shape) -> int:
    keys_and_values = len(layers_of(spec, shape.layers)) * 2 * shape.hidden
    length: int = spec["prefix_length"]
    if spec.get("flat"):
        return length * keys_and_values
    inner: int = spec["bottleneck_size"]
    return length * shape.hidden + (shape.hidden + 1) * inner + (inner + 1) * keys_and_values


def _low_rank(spec: Resolved, inputs: int, outputs: int) -> int:
    rank: int = spec["r"]
    return rank * (inputs + outputs)


lora = per_matrix(_low_rank)
_gated_lora = per_matrix(_low_rank, ("query", "value"))


def unipelt(spec: Resolved, shape: Shape) -> int:
    gates = len(layers_of(spec, shape.layers)) * 4 * (shape.hidden + 1)
    return prefix(spec, shape) + bottleneck(1)(spec, shape) + _gated_lora(spec, shape) + gates


def ia3(spec: Resolved, shape: Shape) -> int:
    """Two vectors of attention and one of the feed-forward block's inner width."""
    return len(layers_of(spec, shape.layers)) * (2 * shape.hidden + shape.ffn)


def randlora(spec: Resolved, inputs: int, outputs: int) -> int:
    short = min(inputs, outputs)
    rank: int = spec["r"]
    return math.ceil(short / rank) * (rank + short)


def full(spec: Resolved, shape: Shape) -> int:
    """Without position and segment embeddings, whose numbers `Shape` does not hold."""
    hidden, ffn = shape.hidden, shape.ffn
    layer = 4 * (hidden * hidden + hidden) + 2 * hidden * ffn + ffn + hidden + 4 * hidden
    return shape.vocabulary * hidden + 2 * hidden + shape.layers * layer


def phm_misfits(spec: Resolved, shape: Shape) -> Iterable[FieldFault]:
    dim, width = spec["phm_dim"], _width(spec, shape)
    for size, what in ((shape.hidden, "hidden size"), (width, "bottleneck")):
        if size % dim:
            yield "phm_dim", f"phm_dim {dim} does not divide the {what} of {size}", ""


def block_misfits(spec: Resolved, shape: Shape) -> Iterable[FieldFault]:
    block = spec["block_size"]
    for size in sorted({_size(matrix, shape)[0] for matrix in TARGETS[spec["targets"]]}):
        if size % block:
            hint = "take a divisor of it"
            yield "block_size", f"block_size {block} does not divide the {size} inputs", hint


def frequency_misfits(spec: Resolved, shape: Shape) -> Iterable[FieldFault]:
    most = min(math.prod(_size(matrix, shape)) for matrix in TARGETS[spec["targets"]])
    if spec["n_frequency"] > most:
        what = f"n_frequency {spec['n_frequency']} is more than the {most} entries of a matrix"
        yield "n_frequency", what, f"take {most} or fewer"
