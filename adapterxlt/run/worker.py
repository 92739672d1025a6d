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
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterxlt.core.canon import sha256_hex
from adapterxlt.core.plan import Stage
from adapterxlt.core.tasks import TASKS
from adapterxlt.run.desk import HEAD, TASK, Desk, Places, desk_for
from adapterxlt.store.files import write_bytes, write_json

if TYPE_CHECKING:
    from adapterxlt.compute.backbone import Backbone
    from adapterxlt.compute.snapshots import Snapshots
    from adapterxlt.compute.training import Stream

Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Request:
    """One stage to compute, as it travels to a worker."""

    key: str
    label: str
    stage: Stage
    places: Places


def initialize(parent: int | None) -> None:
    """Prepare a worker process: it leaves Ctrl-C to its parent, and ends when its parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if parent is not None:

        def watch() -> None:
            while os.getppid() == parent:
                time.sleep(0.3)
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def run_stage(request: Request, progress: Progress | None = None) -> bool:
    """Compute and publish a stage unless the store has it; returns whether it was computed."""
    desk = desk_for(request.places)
    store = desk.store
    with store.lock(request.key):
        if store.read(request.key) is not None:
            return False
        notes = _Notes(store.work(request.key), request.label, progress)
        notes(0, 1, None)
        started = time.monotonic()
        try:
            files, facts = _KINDS[request.stage.kind](desk, request, notes)
        finally:
            desk.reset()
        facts = {"seconds": round(time.monotonic() - started, 3), **facts}
        facts["environment"] = environment()
        store.publish(request.key, request.stage.canonical(), files, facts)
        store.clean(request.key)
        return True


class _Notes:
    """Progress of a stage: to the caller, and at most twice a second to a file others can read."""

    def __init__(self, folder: Path, label: str, progress: Progress | None) -> None:
        self.path, self.label, self.progress = folder / "progress.json", label, progress
        self.last = 0.0

    def __call__(self, step: int, steps: int, loss: float | None) -> None:
        if self.progress is not None and loss is not None:
            self.progress(step, steps, loss)
        now = time.monotonic()
        if now - self.last >= 0.5:
            self.last = now
            note = {
                "label": self.label,
                "step": step,
                "steps": steps,
                "loss": loss,
                "time": time.time(),
            }
            write_json(self.path, note, durable=False)


def _pretrain(
    desk: Desk, request: Request, notes: _Notes
) -> tuple[dict[str, bytes], dict[str, Any]]:
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


def _train(desk: Desk, request: Request, notes: _Notes) -> tuple[dict[str, bytes], dict[str, Any]]:
    import safetensors.torch

    from adapterxlt.compute.training import train

    stage, params = request.stage, request.stage.params
    backbone = desk.backbone(stage)
    streams, parts = _streams(desk, backbone, stage)
    parameters = backbone.trainable(parts.values())
    outcome = train(
        backbone,
        parameters,
        streams,
        params["budget"],
        seed=params["seed"],
        precision=params["precision"],
        micro_batch=desk.places.micro_batch,
        snapshots=_snapshots(desk, request),
        progress=notes,
    )
    files = {
        f"{part}.safetensors": safetensors.torch.save(backbone.weights(name))
        for part, name in parts.items()
    }
    facts = {
        "losses": outcome.losses,
        "final_loss": outcome.final_loss,
        "steps": params["budget"]["steps"],
        "tokens": outcome.tokens,
        "training_seconds": round(outcome.seconds, 3),
        "resumed_at": outcome.resumed_at,
        "parameters": sum(p.numel() for p in parameters.values()),
        "rows_cut": sum(stream.data.cut for stream in streams),
    }
    return files, facts


def _streams(desk: Desk, backbone: Backbone, stage: Stage) -> tuple[list[Stream], dict[str, str]]:
    """What a train stage trains on, and the names of what it trains, by part."""
    from adapterxlt.compute.data import Masking, Order
    from adapterxlt.compute.training import Stream

    params = stage.params
    mlm = params["objective"] == "mlm"
    stacks = desk.add_languages(backbone, stage)
    weights: dict[str, Any] = {}
    if "previous" in stage.inputs:
        previous = desk.record(stage.inputs["previous"])
        weights = {part: desk.tensors(previous, part) for part in ("adapter", "head")}
    parts = {"adapter": TASK}
    backbone.add_adapter(
        TASK, params["adapter"], seed=params["seed"], weights=weights.get("adapter")
    )
    masking = None
    if mlm:
        tokenizer = backbone.tokenizer
        masking = Masking(params["mask"], tokenizer.mask_token_id, len(tokenizer))
        logits = backbone.lm_logits
    else:
        parts["head"] = HEAD
        kept = None if params.get("new_head") else weights.get("head")
        backbone.add_head(HEAD, params["head"], seed=params["seed"], weights=kept)
        logits = partial(backbone.head_logits, HEAD)

    streams = []
    for data in params["streams"]:
        encoded = desk.encoded(backbone, data, params["max_length"])
        name = f"{data['task']}:{data['language']}"
        order = Order(encoded.lengths(), params["budget"]["batch"], params["seed"], name)
        stack = (*stacks[data.get("wear")], TASK)
        streams.append(Stream(name, encoded, order, stack, logits, masking))
    return streams, parts


def _evaluate(
    desk: Desk, request: Request, notes: _Notes
) -> tuple[dict[str, bytes], dict[str, Any]]:
    import json

    from adapterxlt.compute.evaluation import gold_and_predicted, predict, score

    stage, params = request.stage, request.stage.params
    data = params["data"]
    backbone, stack, labels = desk.compose(stage)
    encoded = desk.encoded(backbone, data, params["max_length"])
    answers = predict(backbone, HEAD, stack, encoded, labels, precision=params["precision"])
    task, rows = TASKS[data["task"]], desk.rows(data)
    gold = [row[task.label] if task.kind == "tagging" else [row[task.label]] for row in rows]
    flat_gold, flat = gold_and_predicted(gold, answers)
    lines = (
        json.dumps([row.get("id"), [answer.get(i) for i in range(len(wanted))]])
        for row, answer, wanted in zip(rows, answers, gold, strict=True)
    )
    facts = {
        "metrics": score(flat_gold, flat, params["metrics"]),
        "n": len(flat_gold),
        "rows": len(rows),
        "rows_cut": encoded.cut,
    }
    return {"predictions.jsonl": ("\n".join(lines) + "\n").encode()}, facts


def predict_rows(places: Places, stage: Stage, rows: list[dict[str, Any]]) -> list[dict[int, str]]:
    """Labels for new rows through the composition of a finished evaluate stage."""
    from adapterxlt.compute.data import encode
    from adapterxlt.compute.evaluation import predict

    desk = desk_for(places)
    task = TASKS[stage.params["data"]["task"]]
    try:
        backbone, stack, labels = desk.compose(stage)
        encoded = encode(
            backbone.tokenizer,
            task.kind,
            task.inputs,
            None,
            labels,
            rows,
            stage.params["max_length"],
        )
        answers: list[dict[int, str]] = predict(
            backbone, HEAD, stack, encoded, labels, precision=stage.params["precision"]
        )
        return answers
    finally:
        desk.reset()


def _snapshots(desk: Desk, request: Request) -> Snapshots:
    """Snapshots of a stage, kept in its scratch folder with a digest."""
    from adapterxlt.compute.snapshots import Snapshots

    path = desk.store.work(request.key) / "snapshot"
    return Snapshots(
        lambda data: _save_snapshot(path, data),
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
    names = ("adapterxlt", "torch", "transformers", "adapters", "tokenizers", "numpy")
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


_KINDS: dict[str, Callable[[Desk, Request, _Notes], tuple[dict[str, bytes], dict[str, Any]]]] = {
    "pretrain": _pretrain,
    "train": _train,
    "evaluate": _evaluate,
}
