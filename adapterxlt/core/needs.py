"""What stages need of a machine: bytes of disk that they leave, bytes of memory while they run.

Closed forms from the plan and the backbone's sizes, as `core.cost`; no file and no machine is
looked at. `run.preflight` compares them with what there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from adapterxlt.core.adapters import adapter_parameters
from adapterxlt.core.cost import Work
from adapterxlt.core.plan import DataInfo, Plan, Stage
from adapterxlt.core.specs import Shape

#: Bytes of a worker before it has read anything: Python, torch and the libraries.
PROCESS = 700 << 20
#: Numbers that a frozen layer keeps of a sub-word for the gradient, in hidden sizes and in sizes
#: of the feed-forward layer; and attention weights of a pair of sub-words and a head.
OF_HIDDEN, OF_FFN, OF_PAIR = 14, 3, 3
#: Width of a head, which no plan knows.
HEAD = 64
#: Bytes of a sub-word and of a row that is tokenized; of a sub-word and of a row of predictions.
TOKEN, ROW, SAID, PREDICTED = 18, 70, 4, 30
#: Bytes of a record with its losses, in blocks of a file system.
RECORD = 16_384


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes, all of them estimates.

    Attributes:
        left: of disk, what stages leave in the store.
        scratch: of disk, while they run: snapshots of as many as run at once.
        shared: of memory, once for all workers: the weights' file.
        worker: of memory, for each worker besides.
    """

    left: int
    scratch: int
    shared: int
    worker: int

    @property
    def disk(self) -> int:
        return self.left + self.scratch

    def memory(self, workers: int) -> int:
        """Of memory, when so many run at once."""
        return self.shared + workers * self.worker


def needs(
    plan: Plan,
    keys: Iterable[str],
    works: Mapping[str, Work],
    shape: Shape,
    parameters: int,
    *,
    workers: int = 1,
    micro_batch: int | None = None,
    cohort: int = 1,
) -> Needs:
    """What the stages need that have these keys.

    Measured on the laboratory's backbone and on a small real one, disk is within a factor of 3 of
    this, and the memory of a worker too (`tests/run/test_preflight.py`).

    Args:
        works: as `core.cost.work_of` of each.
        parameters: of the backbone.
        workers: how many run at once.
        micro_batch: rows at once; whole batches when left out.
        cohort: trainings that share the passes over the backbone.
    """
    left, scratch, worker = 0, 0, PROCESS
    splits: dict[tuple[Any, ...], int] = {}
    for key in keys:
        stage, work = plan.stages[key], works[key]
        left += RECORD + _leaves(plan, key, works, shape, parameters)
        for read in stage.reads():
            if read.get("shots") is not None:
                # Tokenized where they are read, and not kept.
                continue
            info, limit = plan.data[read["data"]], read.get("limit")
            length = stage.params.get("max_length")
            at = (read["data"], length, read["task"], read.get("side"), limit)
            splits[at] = encoded(info, limit)
        trained = cohort * 16 * work.parameters
        scratch = max(scratch, 12 * work.parameters)
        data = sum(encoded(plan.data[one["data"]], _count(one)) for one in stage.reads())
        rows = _activations(stage, plan.data, shape, micro_batch)
        worker = max(worker, PROCESS + trained + data + cohort * rows)
    return Needs(left + sum(splits.values()), workers * scratch, 4 * parameters, worker)


def _count(read: Mapping[str, Any]) -> int | None:
    """How many rows of a split a stage reads; ``None`` for all."""
    return read.get("limit") if read.get("shots") is None else read["shots"]


def encoded(info: DataInfo, limit: int | None = None) -> int:
    """Bytes of a split that is tokenized, or of its first rows."""
    rows = info.rows if limit is None else min(limit, info.rows)
    return int(rows * (ROW + TOKEN * info.tokens_per_row))


def _leaves(plan: Plan, key: str, works: Mapping[str, Work], shape: Shape, parameters: int) -> int:
    """Bytes of the files of a stage."""
    stage = plan.stages[key]
    params = stage.params
    if stage.kind == "pretrain":
        return 4 * parameters
    if stage.kind == "evaluate":
        info = plan.data[params["data"]["data"]]
        rows = min(params["data"].get("limit") or info.rows, info.rows)
        return int(rows * (PREDICTED + SAID * info.tokens_per_row))
    if stage.kind == "train":
        snapshots = params["budget"].get("snapshots") or 0
        return 4 * works[key].parameters * (1 + snapshots)
    if stage.kind == "merge":
        # As large as what it is made from, at most.
        return _leaves(plan, stage.inputs["member:0"], works, shape, parameters)
    return 4 * adapter_parameters(params["adapter"], shape)


def _activations(
    stage: Stage, data: Mapping[str, DataInfo], shape: Shape, micro_batch: int | None
) -> int:
    """Bytes of what is kept for the gradient of the largest batch; of an evaluation, of a layer."""
    params, most = stage.params, 0
    if stage.kind not in ("train", "evaluate"):
        return 0
    trained = stage.kind == "train"
    for read in stage.reads():
        batch = (read.get("batch") or params["budget"]["batch"]) if trained else 32
        rows = min(batch, micro_batch or batch, data[read["data"]].rows)
        # Rows are padded to the longest of a batch.
        length = min(params["max_length"], 2 * data[read["data"]].tokens_per_row)
        pairs = OF_PAIR * length * max(1, shape.hidden // HEAD)
        numbers = OF_HIDDEN * shape.hidden + OF_FFN * shape.ffn + pairs
        most = max(most, int(rows * length * numbers * 4 * (shape.layers if trained else 2)))
    return most
