"""Train stages: what the desk has becomes a run, and what a run leaves becomes files and facts.

Called by `run.worker`; with it the only bridge from run to compute.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterxlt.core.canon import derive, sha256_hex
from adapterxlt.core.errors import StageError
from adapterxlt.core.plan import Stage
from adapterxlt.run.desk import HEAD, Desk
from adapterxlt.run.requests import Notes, Request, Result
from adapterxlt.store.files import clear, is_plain, read_bytes, write_bytes

if TYPE_CHECKING:
    from adapterxlt.compute.backbone import Backbone
    from adapterxlt.compute.snapshots import Snapshots
    from adapterxlt.compute.steps import Stream
    from adapterxlt.compute.training import Run


def train_stage(desk: Desk, request: Request, notes: Notes) -> Result:
    """Train with as many rows at once as memory holds: where it is short, in micro-batches of half
    as many, from the last snapshot on. The batch that a step takes stays what it is.

    Raises:
        StageError: memory does not hold one row.
    """
    from adapterxlt.compute.memory import release

    given = desk.places.micro_batch
    while True:
        found = _trained_with(desk, request, notes)
        if found is not None:
            files, facts = found
            rows = request.rows
            return files, facts if rows == given else {**facts, "micro_batch": rows}
        desk.reset()
        release(desk.backbone(request.stage).device)
        less = request.smaller()
        if less is None or desk.ranks.count > 1:
            what = "out of memory, and its batches cannot be made smaller"
            raise StageError(what, hint="a smaller max_length or batch, or a larger machine")
        request = less


def _trained_with(desk: Desk, request: Request, notes: Notes) -> Result | None:
    """A train stage with as many rows at once as requested; nothing where memory is short."""
    from adapterxlt.compute.memory import is_short, peak
    from adapterxlt.compute.training import finish

    try:
        run, parts = _run(desk, request, notes)
        with peak(run.backbone.device) as memory:
            finish(run)
        return _trained(request, run, parts, memory.bytes)
    except (MemoryError, RuntimeError) as error:
        if not is_short(error):
            raise
    return None


def train_cohort(
    desk: Desk, requests: Sequence[Request], notes: Sequence[Notes]
) -> list[Result | StageError]:
    """What `_train` gives of each request, or why it failed; too many for an accelerator's memory
    are trained in halves."""
    import torch

    from adapterxlt.compute.cohort import train_together
    from adapterxlt.compute.memory import peak

    try:
        each = [
            _run(desk, request, note, f"_{n}")
            for n, (request, note) in enumerate(zip(requests, notes, strict=True))
        ]
        runs, backbone = [run for run, _ in each], each[0][0].backbone
        data = [stream.data for run in runs for stream in run.streams]
        backbone.read(data, masked=not all(_closed(one.stage.params) for one in requests))
        backbone.trainable(name for run in runs for name in run.trained)
        with peak(backbone.device) as memory:
            found = train_together(backbone, runs)
    except torch.OutOfMemoryError:
        desk.reset()
        half = len(requests) // 2
        if not half:
            raise
        return [
            *train_cohort(desk, requests[:half], notes[:half]),
            *train_cohort(desk, requests[half:], notes[half:]),
        ]
    results: list[Result | StageError] = []
    for request, (run, parts), outcome in zip(requests, each, found, strict=True):
        if isinstance(outcome, StageError):
            results.append(outcome)
            continue
        outcome.seconds /= len(runs)
        files, facts = _trained(request, run, parts, memory.bytes)
        results.append((files, {**facts, "cohort": len(runs)}))
    return results


def _run(desk: Desk, request: Request, notes: Notes, tag: str = "") -> tuple[Run, dict[str, str]]:
    """A train stage ready to be run, and the names of its parts.

    Args:
        tag: at the end of all names that are the stage's own.
    """
    from adapterxlt.compute.training import Run

    stage, params = request.stage, request.stage.params
    backbone = desk.backbone(stage)
    streams, parts, frozen = _streams(desk, backbone, stage, tag)
    fused = isinstance(streams[0].stacks[0][-1], tuple)
    run = Run(
        backbone,
        backbone.trainable(name for part, name in parts.items() if part not in frozen),
        streams,
        params["budget"],
        seed=_order_seed(params),
        objective="macro" if params["objective"] == "mlm" else params["objective"],
        sampling=params.get("sampling"),
        drop=params.get("drop"),
        regularizer=backbone.fusion_loss if fused else None,
        precision=params["precision"],
        micro_batch=request.rows,
        memory=desk.memory,
        quiet="frozen_dropout_off" in (params.get("shortcuts") or {}),
        ranks=desk.ranks,
        snapshots=snapshots_of(desk, request),
        progress=notes,
    )
    return run, parts


def _trained(request: Request, run: Run, parts: Mapping[str, str], peak: int | None) -> Result:
    """The files and facts of a run that has ended."""
    import safetensors.torch

    backbone, outcome, params = run.backbone, run.outcome, request.stage.params
    files = {}
    for part, name in parts.items():
        final = backbone.weights(name)
        files[f"{part}.safetensors"] = safetensors.torch.save(final)
        for n, kept in enumerate(outcome.kept, start=1):
            # What is not trained is at every snapshot what it is at the end.
            then = {tensor: kept.get(f"{name}:{tensor}", final[tensor]) for tensor in final}
            files[f"{part}.{n}.safetensors"] = safetensors.torch.save(then)
    facts = {
        "losses": outcome.losses,
        "final_loss": outcome.final_loss,
        "steps": params["budget"]["steps"],
        "examples": outcome.examples,
        "tokens": outcome.tokens,
        "training_seconds": round(outcome.seconds, 3),
        "peak_memory": peak,
        "resumed_at": outcome.resumed_at,
        "parameters": sum(p.numel() for p in run.parameters.values()),
        "rows_cut": sum(len(stream.data.cut) for stream in run.streams),
    }
    return files, facts


def _closed(params: Mapping[str, Any]) -> bool:
    """Whether a train stage sees no other sub-words than its data have."""
    return params["objective"] != "mlm" or "corpus_softmax" in (params.get("shortcuts") or {})


def _order_seed(params: Mapping[str, Any]) -> int:
    """Seed of order, masks and dropout; runs of one phase share only their initialization."""
    run = params.get("run")
    return int(params["seed"] if run is None else derive(params["seed"], "run", run))


def _streams(
    desk: Desk, backbone: Backbone, stage: Stage, tag: str
) -> tuple[list[Stream], dict[str, str], set[str]]:
    """What a train stage trains on, the names of its parts, and the parts that stay as they are."""
    from adapterxlt.compute.backbone import fusion_name
    from adapterxlt.compute.criteria import ITEMS, criterion_of
    from adapterxlt.compute.data import Order, pieces_of
    from adapterxlt.compute.masking import masked_lm
    from adapterxlt.compute.steps import Stream

    params = stage.params
    stacks = desk.add_languages(backbone, stage)
    layers, heads = desk.begin(backbone, stage, tag)
    top = layers[-1]
    parts = {"adapter": top if isinstance(top, str) else fusion_name(top)}
    frozen: set[str] = set()
    logits: dict[str, Any] = {"text": backbone.lm_states}
    for i, (task, head) in enumerate(params.get("heads", {}).items()):
        kept = heads.get(task) if params.get("head") != "new" else None
        weights = desk.head(kept.key, task) if kept else None
        part, name = f"head-{task}", f"{HEAD}{tag}_{i}"
        form = (kept.spec if kept else None) or head
        backbone.add_head(name, form, seed=params["seed"], weights=weights)
        parts[part] = name
        if kept and params.get("head") == "freeze":
            frozen.add(part)
        logits[task] = partial(backbone.head_logits, name)

    data_of = [desk.encoded(backbone, stage, data) for data in params["streams"]]
    masking, text = None, ITEMS
    closed = _closed(params)
    backbone.read(data_of, masked=not closed)
    if params["objective"] == "mlm":
        pieces = pieces_of(data_of) if closed else None
        masking, text = masked_lm(backbone, params["mask"], params["precision"], pieces)
    streams = []
    for data, encoded in zip(params["streams"], data_of, strict=True):
        name = f"{data['task']}:{data['language']}"
        batch = data.get("batch") or params["budget"]["batch"]
        order = Order(len(encoded.rows), batch, _order_seed(params), name)
        wear = data.get("wear")
        worn = tuple((*stacks[w], *layers) for w in (wear if isinstance(wear, list) else [wear]))
        head = params.get("heads", {}).get(data["task"])
        streams.append(
            Stream(
                name,
                encoded,
                order,
                worn,
                logits[data["task"]],
                masking,
                weight=data.get("weight") or 1.0,
                criterion=criterion_of(head) if head else text,
            )
        )
    return streams, parts, frozen


def snapshots_of(desk: Desk, request: Request) -> Snapshots:
    """Snapshots of a stage, kept in its scratch folder with a digest."""
    from adapterxlt.compute.snapshots import Snapshots

    key, path = request.key, desk.store.work(request.key) / "snapshot"
    return Snapshots(
        partial(_save_snapshot, path, key) if desk.ranks.first else (lambda data: None),
        lambda: _load_snapshot(path, key),
        desk.places.snapshot_every,
    )


def _save_snapshot(path: Path, key: str, data: bytes) -> None:
    if os.path.lexists(path) and not is_plain(path):
        clear(path)
    write_bytes(path, _sum(key, data) + data)


def _load_snapshot(path: Path, key: str) -> bytes | None:
    """The snapshot, or ``None`` when there is none, it is not whole, or is another stage's."""
    with suppress(OSError):
        data = read_bytes(path)
        if _sum(key, data[64:]) == data[:64]:
            return data[64:]
    return None


def _sum(key: str, data: bytes) -> bytes:
    """Of a snapshot and the stage that it is of: stages have parameters of the same names."""
    return sha256_hex(key.encode() + data).encode()
