"""What stages cost: trainable parameters, sub-words, floating-point operations, seconds.

Closed forms from the plan and the backbone's sizes; seconds come from past records of the same
kind of work where the store has some, else from a short matrix-product calibration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from adapterxlt.core.adapters import adapter_parameters
from adapterxlt.core.plan import DataInfo, Plan, Stage
from adapterxlt.core.specs import Shape

#: Share of the matrix-product rate that training reaches; measured on two CPU cores.
EFFICIENCY = {"pretrain": 0.35, "mlm": 0.45, "task": 0.45, "evaluate": 0.45}
#: Bytes of a worker besides weights: Python, the libraries, encoded data, one batch of rows.
HEADROOM = 3 << 29


@dataclass(frozen=True, slots=True)
class Work:
    """Cost of one stage, seconds left out."""

    work_kind: str
    parameters: int
    steps: int
    tokens: float
    flops: float


def work_of(stage: Stage, shape: Shape, data: Mapping[str, DataInfo]) -> Work:
    """Estimated work of a stage.

    Per sub-word, a forward pass costs two operations a matrix parameter, and the gradient with
    respect to activations (frozen weights need no more) as many again.
    """
    params = stage.params
    block = shape.block_parameters
    if stage.kind == "pretrain":
        spec = params["spec"]
        tokens = float(spec["steps"] * spec["batch"] * 24)
        head = shape.hidden * shape.vocabulary * spec["mask_share"]
        return Work(
            "pretrain",
            block + shape.hidden * shape.vocabulary,
            spec["steps"],
            tokens,
            6 * tokens * (block + head),
        )
    if stage.kind == "evaluate":
        tokens = 0.0
        for read in (params["data"], *(params.get("pool") or ())):
            info = data[read["data"]]
            tokens += info.tokens_per_row * (read.get("limit") or info.rows)
        return Work("evaluate", 0, 0, tokens, 2 * tokens * block)
    if stage.kind in ("merge", "adopt"):
        return Work("evaluate", 0, 0, 0.0, 0.0)
    spec = params["adapter"]
    # A fusion has a query, a key and a value matrix a layer.
    fusion = shape.layers * (3 * shape.hidden**2 + 2 * shape.hidden)
    adapter = adapter_parameters(spec, shape) if spec else fusion
    steps, batch = params["budget"]["steps"], params["budget"]["batch"]
    tokens = 0.0
    for stream in params["streams"]:
        per_step = stream.get("batch") or batch
        rows = min(per_step, stream.get("shots") or per_step)
        tokens += steps * rows * min(data[stream["data"]].tokens_per_row, params["max_length"])
    mlm = params["objective"] == "mlm"
    head = shape.hidden * shape.vocabulary * params["mask"] if mlm else 0
    labels = sum(_columns(head, shape) for head in params.get("heads", {}).values())
    trainable = adapter + (shape.hidden + 1) * labels
    # With the backbone itself trained, its gradients cost as much as those of activations.
    own = 0 if spec and spec["method"] == "full" else 6 * adapter
    flops = tokens * ((4 if own else 6) * (block + head) + own)
    return Work("mlm" if mlm else "task", trainable, steps, tokens, flops)


def _columns(head: Mapping[str, Any], shape: Shape) -> int:
    """How many columns a head has."""
    special = {"qa": 2, "choice": 1, "ranking": shape.hidden}
    return special.get(head["kind"], len(head["labels"]))


@dataclass(frozen=True, slots=True)
class Rates:
    """Estimated operations a second for each kind of work, and where the figure is from."""

    per_kind: Mapping[str, float]
    origin: str

    def seconds(self, work: Work) -> float:
        return work.flops / self.per_kind[work.work_kind] + 0.2


def rates(plan: Plan, shape: Shape, seconds_of: Mapping[str, float]) -> Rates:
    """Rates from the seconds of stages already done, completed by a calibration.

    Args:
        seconds_of: measured seconds by stage key, of stages of this plan.
    """
    spent: dict[str, float] = {}
    done: dict[str, float] = {}
    for key, seconds in seconds_of.items():
        work = work_of(plan.stages[key], shape, plan.data)
        spent[work.work_kind] = spent.get(work.work_kind, 0.0) + seconds
        done[work.work_kind] = done.get(work.work_kind, 0.0) + work.flops
    measured = {kind: done[kind] / spent[kind] for kind in spent if spent[kind] > 0}
    missing = EFFICIENCY.keys() - measured.keys()
    if not missing:
        return Rates(measured, "past runs")
    product = matrix_rate()
    calibrated = {kind: product * EFFICIENCY[kind] for kind in missing}
    origin = "past runs and a calibration" if measured else "a calibration of this machine"
    return Rates({**calibrated, **measured}, origin)


def matrix_rate(size: int = 384, repeats: int = 5) -> float:
    """Operations a second of a single-precision matrix product on one thread, best of several."""
    import time

    import numpy
    from threadpoolctl import threadpool_limits

    left = numpy.ones((size, size), dtype=numpy.float32)
    best = float("inf")
    with threadpool_limits(1):
        for _ in range(repeats):
            start = time.perf_counter()
            left @ left
            best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def memory(works: Iterable[Work], parameters: int) -> int:
    """Bytes that a worker should have for any of the works, as far as a plan tells.

    Four for each of the backbone's ``parameters``; sixteen for each parameter that the largest
    work trains (itself, its gradient and AdamW's two moments); `HEADROOM` for all else. Activations
    grow with the rows at once (``--micro-batch``) and are not known here.
    """
    return 4 * parameters + 16 * max((work.parameters for work in works), default=0) + HEADROOM


def total(works: Iterable[Work], speed: Rates) -> float:
    """Seconds of all works one after another."""
    return sum(speed.seconds(work) for work in works)
