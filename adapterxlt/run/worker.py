"""One stage: verified inputs, computation, publication. The only bridge from run to compute.

A worker process keeps the backbone and the encoded data between stages; everything else comes from
the store and goes back to it. torch is imported when the first stage starts, not before.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterxlt.core.canon import derive, sha256_hex
from adapterxlt.core.errors import AdapterXLTError, StageError
from adapterxlt.core.exports import Export
from adapterxlt.core.plan import Stage
from adapterxlt.run.desk import HEAD, Desk, Places, desk_for
from adapterxlt.store.files import write_bytes, write_json

if TYPE_CHECKING:
    from adapterxlt.compute.backbone import Backbone
    from adapterxlt.compute.snapshots import Snapshots
    from adapterxlt.compute.training import Run, Stream

Progress = Callable[[int, int, float], None]
Result = tuple[dict[str, bytes], dict[str, Any]]
"""The files of a stage by name, and facts about it."""


@dataclass(frozen=True)
class Request:
    """One stage to compute, as it travels to a worker."""

    key: str
    label: str
    stage: Stage
    places: Places
    cohort: tuple[Request, ...] = ()
    """Train stages that are trained in one pass with it."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Its key and those of its cohort."""
        return (self.key, *(one.key for one in self.cohort))


class CohortFailed(Exception):
    """Why some stages of a cohort failed, by key."""

    def __init__(self, reasons: dict[str, StageError]) -> None:
        super().__init__(reasons)
        self.reasons = reasons


def initialize(parent: int | None) -> None:
    """Prepare a worker process: it leaves Ctrl-C to its parent, and ends when its parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if parent is not None:

        def watch() -> None:
            while os.getppid() == parent:
                time.sleep(0.3)
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def agree(places: Places, value: Any) -> Any:
    """The first process's value, in all that train together."""
    return desk_for(places).ranks.agree(value)


def run_stage(request: Request, progress: Progress | None = None) -> bool:
    """Compute and publish a stage unless the store has it; returns whether it was computed.

    Of several processes that train together the first publishes, and what becomes of the stage is
    what became of it there.

    Raises:
        CohortFailed: some of a cohort failed; the others were published.
    """
    desk = desk_for(request.places)
    if desk.ranks.count == 1:
        return _run_stage(desk, request, progress)
    done, failed = False, None
    try:
        done = _run_stage(desk, request, progress)
    except AdapterXLTError as error:
        failed = error
    except Exception as error:
        # The others may be in the midst of a sum that now has no end.
        raise SystemExit(f"{request.label}: {error}") from error
    reason = desk.ranks.agree(failed and str(failed))
    if reason is not None:
        raise failed or StageError(reason)
    return done


def _run_stage(desk: Desk, request: Request, progress: Progress | None) -> bool:
    store, ranks, started = desk.store, desk.ranks, time.monotonic()
    with ExitStack() as locks:
        # In one order, so that two processes do not wait for each other.
        requests = sorted((request, *request.cohort), key=lambda one: one.key)
        for one in requests if ranks.first else ():
            locks.enter_context(store.lock(one.key))
        wanted = ranks.agree([one.key for one in requests if store.read(one.key) is None])
        if not ranks.first and request.stage.kind != "train":
            wanted = []
        missing = [one for one in requests if one.key in wanted]
        notes = [_Notes(store.work(one.key), one.label, progress, ranks.first) for one in missing]
        for note in notes:
            note(0, 1, None)
        failed: dict[str, StageError] = {}
        try:
            results: list[Result | StageError] = []
            if len(missing) > 1:
                results += _train_together(desk, missing, notes)
            elif missing:
                results.append(_KINDS[missing[0].stage.kind](desk, missing[0], notes[0]))
        finally:
            desk.reset()
        seconds = round((time.monotonic() - started) / max(1, len(missing)), 3)
        for one, result in zip(missing, results, strict=True):
            if isinstance(result, StageError):
                failed[one.key] = result
                continue
            files, facts = result
            facts = {"seconds": seconds, **facts, "environment": environment()}
            if ranks.first:
                store.publish(one.key, one.stage.canonical(), files, facts)
                store.clean(one.key)
    if len(requests) == 1 and failed:
        raise failed[request.key]
    if failed:
        raise CohortFailed(failed)
    return bool(missing)


class _Notes:
    """Progress of a stage: to the caller, and at most twice a second to a file others can read."""

    def __init__(
        self, folder: Path, label: str, progress: Progress | None, writes: bool = True
    ) -> None:
        self.path, self.label, self.progress = folder / "progress.json", label, progress
        self.writes, self.last = writes, 0.0

    def __call__(self, step: int, steps: int, loss: float | None) -> None:
        if self.progress is not None and loss is not None:
            self.progress(step, steps, loss)
        now = time.monotonic()
        if self.writes and now - self.last >= 0.5:
            self.last = now
            note = {
                "label": self.label,
                "step": step,
                "steps": steps,
                "loss": loss,
                "time": time.time(),
            }
            write_json(self.path, note, durable=False)


def _pretrain(desk: Desk, request: Request, notes: _Notes) -> Result:
    from adapterxlt.compute.pretraining import pretrain

    folder = desk.store.work(request.key) / "backbone"
    params = request.stage.params
    facts = pretrain(
        folder,
        spec=params["spec"],
        seed=params["seed"],
        on_step=notes,
        snapshots=_snapshots(desk, request),
    )
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    shutil.rmtree(folder)
    return files, {"final_loss": facts["loss"], "steps": facts["steps"], "tokens": facts["tokens"]}


def _train(desk: Desk, request: Request, notes: _Notes) -> Result:
    from adapterxlt.compute.memory import peak
    from adapterxlt.compute.training import finish

    run, parts = _run(desk, request, notes)
    with peak(run.backbone.device) as memory:
        finish(run)
    return _trained(request, run, parts, memory.bytes)


def _train_together(
    desk: Desk, requests: Sequence[Request], notes: Sequence[_Notes]
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
            *_train_together(desk, requests[:half], notes[:half]),
            *_train_together(desk, requests[half:], notes[half:]),
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


def _run(desk: Desk, request: Request, notes: _Notes, tag: str = "") -> tuple[Run, dict[str, str]]:
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
        micro_batch=desk.places.micro_batch,
        memory=desk.memory,
        quiet="frozen_dropout_off" in (params.get("shortcuts") or {}),
        ranks=desk.ranks,
        snapshots=_snapshots(desk, request),
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
    from adapterxlt.compute.training import Stream

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
        order = Order(encoded.lengths(), batch, _order_seed(params), name)
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


def _adopt(desk: Desk, request: Request, notes: _Notes) -> Result:
    import safetensors.torch

    from adapterxlt.compute.adoption import adopt
    from adapterxlt.run.unpickling import unpickled
    from adapterxlt.store.safeload import tensors_of

    stage, params = request.stage, request.stage.params
    where = request.label.partition(" from ")[2] or request.label
    pickled = params.get("pickled") or ()

    def opened(role: str) -> dict[str, Any]:
        """The tensors of a file; a pickle's are converted once and kept."""
        data = desk.store.get(params["files"][role])
        return tensors_of(unpickled(desk.store, data, where) if role in pickled else data, where)

    backbone = desk.backbone(stage)
    head = None
    heads = dict(params.get("heads") or {})
    for form in heads.values():
        order = params.get("order") or list(range(len(form["labels"])))
        head = (form, order, opened("head") if "head" in params["files"] else {})
    taken, of_head = adopt(backbone, params["adapter"], opened("weights"), head, where)
    files = {"adapter.safetensors": safetensors.torch.save(taken)}
    files |= {f"head-{t}.safetensors": safetensors.torch.save(of_head) for t in heads if of_head}
    facts = {
        "parameters": sum(tensor.numel() for tensor in taken.values()),
        "adopted": desk.store.noted("adopted", request.key) or {"reference": where},
    }
    return files, facts


def _merge(desk: Desk, request: Request, notes: _Notes) -> Result:
    import safetensors.torch

    from adapterxlt.compute.merging import weighted

    params, inputs = request.stage.params, request.stage.inputs
    members, shares, chosen = list(params["members"]), params.get("weights"), None
    if params["how"] == "best":
        scores = [
            desk.record(inputs[f"score:{n}"]).facts["metrics"][params["metric"]]["score"]
            for n in range(len(members))
        ]
        # Of equal ones the earliest.
        chosen = max(range(len(scores)), key=lambda n: (scores[n], -n))
        members = [members[chosen]]
    shares = shares or [1 / len(members)] * len(members)
    first = desk.record(inputs["member:0"])
    parts = [name.removesuffix(".safetensors") for name in first.files if name.count(".") == 1]
    files = {}
    for part in parts:
        # A sum is one of adapters: other phases may have other heads.
        own = members[:1] if params["how"] == "sum" and part != "adapter" else members
        tensors = [desk.tensors(inputs[m["input"]], part, m.get("snapshot")) for m in own]
        factors = shares if len(own) == len(members) else [1.0]
        files[f"{part}.safetensors"] = safetensors.torch.save(weighted(tensors, factors))
    facts: dict[str, Any] = {"members": len(members)}
    if chosen is not None:
        facts |= {"chosen": chosen + 1, "scores": scores}
    return files, facts


def _evaluate(desk: Desk, request: Request, notes: _Notes) -> Result:
    import json

    from adapterxlt.compute.scoring import Candidates, Test, evaluate

    stage, params = request.stage, request.stage.params
    data = params["data"]
    model, labels, stacks = desk.compose(stage)
    rows, encoded = desk.rows(data), desk.encoded(model.backbone, stage, data)
    test = Test(desk.corpus.task(data["task"]), data["language"], rows, encoded, labels)
    pool = [
        Candidates(
            desk.rows(part),
            desk.encoded(model.backbone, stage, part),
            stacks[part.get("wear")],
            *remembered,
        )
        for part, remembered in zip(params.get("pool") or (), desk.vectors_of(stage), strict=True)
    ]
    model.backbone.read([encoded, *(part.encoded for part in pool)])
    scored = evaluate(model, test, params["metrics"], pool)
    lines = (
        json.dumps([row.get("id"), said], ensure_ascii=False)
        for row, said in zip(rows, scored.predictions, strict=True)
    )
    facts = {
        "metrics": scored.metrics,
        "n": scored.n,
        "rows": len(rows),
        "rows_cut": len(encoded.cut),
    }
    if pool:
        facts |= {
            "pool_rows": sum(len(part.rows) for part in pool),
            "pool_cut": sum(len(part.encoded.cut) for part in pool),
        }
    return {"predictions.jsonl": ("\n".join(lines) + "\n").encode()}, facts


def predict_rows(places: Places, stage: Stage, rows: list[dict[str, Any]]) -> list[Any]:
    """Labels or answers for new rows through the composition of a finished evaluate stage."""
    from adapterxlt.compute.encoding import encode
    from adapterxlt.compute.scoring import Test, predict

    desk, data = desk_for(places), stage.params["data"]
    task = desk.corpus.task(data["task"])
    try:
        model, labels, _ = desk.compose(stage)
        length = stage.params["max_length"]
        encoded = encode(model.backbone.tokenizer, task, rows, length, labelled=False)
        model.backbone.read([encoded])
        return predict(model, Test(task, data["language"], rows, encoded, labels))
    finally:
        desk.reset()


def export_files(
    places: Places, stage: Stage, export: Export, name: str
) -> dict[str, dict[str, bytes]]:
    """The libraries' files of each piece of an export, by the piece's name.

    Args:
        stage: the evaluate stage that the export is of.
        name: what the files call the backbone.
    """
    from adapterxlt.compute.exporting import files_of

    desk, head = desk_for(places), export.head
    try:
        backbone = desk.backbone(stage)
        weights = desk.head(head.key, export.task or "") if head is not None else None
        return files_of(
            backbone, export, lambda part: desk.tensors(part.key, "adapter"), weights, name
        )
    finally:
        desk.reset()


def _snapshots(desk: Desk, request: Request) -> Snapshots:
    """Snapshots of a stage, kept in its scratch folder with a digest."""
    from adapterxlt.compute.snapshots import Snapshots

    path = desk.store.work(request.key) / "snapshot"
    return Snapshots(
        (lambda data: _save_snapshot(path, data)) if desk.ranks.first else (lambda data: None),
        lambda: _load_snapshot(path),
        desk.places.snapshot_every,
    )


def _save_snapshot(path: Path, data: bytes) -> None:
    write_bytes(path, sha256_hex(data).encode() + data)


def _load_snapshot(path: Path) -> bytes | None:
    """The snapshot, or ``None`` when there is none or it is not whole."""
    with suppress(FileNotFoundError):
        data = path.read_bytes()
        if sha256_hex(data[64:]).encode() == data[:64]:
            return data[64:]
    return None


@lru_cache(maxsize=1)
def environment() -> dict[str, str]:
    """Versions that shape results."""
    names = ("adapterxlt", "torch", "transformers", "adapters", "peft", "tokenizers", "numpy")
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


_KINDS: dict[str, Callable[[Desk, Request, _Notes], Result]] = {
    "pretrain": _pretrain,
    "adopt": _adopt,
    "train": _train,
    "merge": _merge,
    "evaluate": _evaluate,
}
