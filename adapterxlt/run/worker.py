"""One stage: verified inputs, computation, publication. The only bridge from run to compute.

A worker process keeps the backbone and the encoded data between stages; everything else comes from
the store and goes back to it. torch is imported when the first stage starts, not before.
"""

from __future__ import annotations

import errno
import os
import platform
import shutil
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

from adapterxlt.core.errors import AdapterXLTError, StageError, StoreUnwritable
from adapterxlt.core.exports import Export
from adapterxlt.core.plan import Stage
from adapterxlt.run.desk import Desk, Places, desk_for
from adapterxlt.run.requests import CohortFailed, Notes, Progress, Request, Result
from adapterxlt.run.trainings import snapshots_of, train_cohort, train_stage

if TYPE_CHECKING:
    pass


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
    try:
        return _run_and_publish(desk, request, progress)
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        hint = "make room or give rights, then run again: what is finished stays"
        what = f"cannot be written: {error.strerror}"
        raise StoreUnwritable(what, where=str(desk.store.root), hint=hint) from None


#: What no stage after this one would be spared: a full disk, a quota, a disk that is only read.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


def _run_and_publish(desk: Desk, request: Request, progress: Progress | None) -> bool:
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
        notes = [Notes(store.work(one.key), one.label, progress, ranks.first) for one in missing]
        for note in notes:
            note(0, 1, None)
        failed: dict[str, StageError] = {}
        try:
            results: list[Result | StageError] = []
            if len(missing) > 1:
                results += train_cohort(desk, missing, notes)
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
            where = {"device": desk.device_name, "threads": str(desk.places.threads)}
            facts = {"seconds": seconds, **facts, "environment": environment() | where}
            if ranks.first:
                store.publish(one.key, one.stage.canonical(), files, facts)
                store.clean(one.key)
    if len(requests) == 1 and failed:
        raise failed[request.key]
    if failed:
        raise CohortFailed(failed)
    return bool(missing)


def _pretrain(desk: Desk, request: Request, notes: Notes) -> Result:
    from adapterxlt.compute.pretraining import pretrain

    folder = desk.store.work(request.key) / "backbone"
    params = request.stage.params
    # What a killed process was writing would be published with the rest.
    shutil.rmtree(folder, ignore_errors=True)
    facts = pretrain(
        folder,
        spec=params["spec"],
        seed=params["seed"],
        on_step=notes,
        snapshots=snapshots_of(desk, request),
    )
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    shutil.rmtree(folder)
    return files, {"final_loss": facts["loss"], "steps": facts["steps"], "tokens": facts["tokens"]}


def _adopt(desk: Desk, request: Request, notes: Notes) -> Result:
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


def _merge(desk: Desk, request: Request, notes: Notes) -> Result:
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


def _evaluate(desk: Desk, request: Request, notes: Notes) -> Result:
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


@lru_cache(maxsize=1)
def environment() -> dict[str, str]:
    """Versions that shape results."""
    names = ("adapterxlt", "torch", "transformers", "adapters", "peft", "tokenizers", "numpy")
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


_KINDS: dict[str, Callable[[Desk, Request, Notes], Result]] = {
    "pretrain": _pretrain,
    "adopt": _adopt,
    "train": train_stage,
    "merge": _merge,
    "evaluate": _evaluate,
}
