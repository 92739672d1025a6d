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
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterxlt.core.canon import sha256_hex
from adapterxlt.core.errors import StageError
from adapterxlt.core.plan import Stage
from adapterxlt.core.tasks import TASKS
from adapterxlt.corpora.sources import FolderCorpus, LabCorpus, select
from adapterxlt.store.files import write_bytes, write_json
from adapterxlt.store.store import Record, Store

if TYPE_CHECKING:
    from adapterxlt.compute.backbone import Backbone
    from adapterxlt.compute.data import Encoded
    from adapterxlt.compute.training import Stream

Progress = Callable[[int, int, float], None]
TASK, HEAD = "xlt_task", "xlt_head"


@dataclass(frozen=True)
class Places:
    """Where this machine keeps what a plan names by digest, and how it is to work."""

    store: Path
    data: str
    """`lab` or a folder."""
    backbone: str
    """`lab` or a folder."""
    threads: int = 1
    micro_batch: int | None = None
    snapshot_every: float = 20.0


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
    desk = _desk(request.places)
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


class _Desk:
    """What a worker process keeps at hand: the store, the corpus, one backbone, encoded data."""

    def __init__(self, places: Places) -> None:
        import torch

        torch.set_num_threads(places.threads)
        torch.use_deterministic_algorithms(True, warn_only=True)
        self.places = places
        self.store = Store(places.store)
        self.corpus: FolderCorpus | LabCorpus = (
            LabCorpus() if places.data == "lab" else FolderCorpus(Path(places.data), self.store)
        )
        self._backbone: tuple[str, Backbone] | None = None
        self._encoded: dict[tuple[Any, ...], Encoded] = {}

    def record(self, key: str) -> Record:
        record = self.store.read(key)
        if record is None:
            raise StageError("an input is not in the store", where=key[:12])
        return record

    def backbone(self, stage: Stage) -> Backbone:
        """The backbone a stage is for; loaded once as long as stages want the same one."""
        from adapterxlt.compute.backbone import Backbone

        if "backbone" in stage.inputs:
            name = stage.inputs["backbone"]
            if self._backbone is None or self._backbone[0] != name:
                folder = self.store.materialize(self.record(name))
                self._backbone = (name, Backbone(folder))
        else:
            name = stage.params["backbone"]["weights"]
            if self._backbone is None or self._backbone[0] != name:
                folder = Path(self.places.backbone)
                if sha256_hex((folder / "model.safetensors").read_bytes()) != name:
                    raise StageError("the backbone's weights have changed", where=str(folder))
                self._backbone = (name, Backbone(folder))
        backbone = self._backbone[1]
        if stage.params["max_length"] > backbone.max_length:
            raise StageError(
                f"max_length {stage.params['max_length']} is more than the backbone's "
                f"{backbone.max_length} positions"
            )
        return backbone

    def encoded(self, backbone: Backbone, data: Mapping[str, Any], max_length: int) -> Encoded:
        """Rows of a stream or an evaluation as windows, from data that matches its digest."""
        from adapterxlt.compute.data import encode, encode_text

        at = (data["data"], data.get("limit"), data.get("shots"), data.get("draw"), max_length)
        if at in self._encoded:
            return self._encoded[at]
        language = data["language"]
        if data["task"] == "text":
            texts = tuple(data["texts"]) if data.get("texts") else None
            self._same(self.corpus.text_info(language, texts).digest, data)
            lines = self.corpus.text(language, texts)[: data.get("limit")]
            encoded = encode_text(backbone.tokenizer, lines, max_length)
        else:
            task = TASKS[data["task"]]
            rows = self.rows(data)
            encoded = encode(
                backbone.tokenizer,
                task.kind,
                task.inputs,
                task.label,
                task.labels,
                rows,
                max_length,
            )
        if len(self._encoded) > 64:
            self._encoded.clear()
        self._encoded[at] = encoded
        return encoded

    def rows(self, data: Mapping[str, Any]) -> list[dict[str, Any]]:
        task, language, split = data["task"], data["language"], data["split"]
        self._same(self.corpus.info(task, language, split).digest, data)
        return select(self.corpus.rows(task, language, split), dict(data))

    def _same(self, digest: str, data: Mapping[str, Any]) -> None:
        if digest != data["data"]:
            where = f"{data['task']}/{data['language']}"
            raise StageError("the data have changed since planning", where=where, hint="run again")

    def add_languages(self, backbone: Backbone, stage: Stage) -> dict[str | None, tuple[str, ...]]:
        """Put the stage's language adapters on; the stack under the task adapter, by language."""
        stacks: dict[str | None, tuple[str, ...]] = {None: ()}
        roles = sorted(role for role in stage.inputs if role.startswith("language:"))
        for i, role in enumerate(roles):
            record = self.record(stage.inputs[role])
            name = f"xlt_language_{i}"
            spec = record.stage["params"]["adapter"]
            backbone.add_adapter(name, spec, weights=self.tensors(record, "adapter"))
            stacks[role.partition(":")[2]] = (name,)
        return stacks

    def tensors(self, record: Record, name: str) -> dict[str, Any]:
        import safetensors.torch

        data = self.store.get(record.files[f"{name}.safetensors"])
        return dict(safetensors.torch.load(data))

    def reset(self) -> None:
        if self._backbone is not None:
            self._backbone[1].reset()


@lru_cache(maxsize=1)
def _desk(places: Places) -> _Desk:
    return _Desk(places)


def _pretrain(
    desk: _Desk, request: Request, notes: _Notes
) -> tuple[dict[str, bytes], dict[str, Any]]:
    from adapterxlt.compute.pretraining import pretrain

    folder = desk.store.work(request.key) / "backbone"
    params = request.stage.params
    facts = pretrain(folder, spec=params["spec"], seed=params["seed"], on_step=notes)
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    shutil.rmtree(folder)
    return files, {"final_loss": facts["loss"], "steps": facts["steps"], "tokens": facts["tokens"]}


def _train(desk: _Desk, request: Request, notes: _Notes) -> tuple[dict[str, bytes], dict[str, Any]]:
    import safetensors.torch

    from adapterxlt.compute.training import Snapshots, train

    stage, params = request.stage, request.stage.params
    backbone = desk.backbone(stage)
    streams, parts = _streams(desk, backbone, stage)
    parameters = backbone.trainable(parts.values())
    path = desk.store.work(request.key) / "snapshot"
    snapshots = Snapshots(
        lambda data: _save_snapshot(path, data),
        lambda: _load_snapshot(path),
        desk.places.snapshot_every,
    )
    outcome = train(
        backbone,
        parameters,
        streams,
        params["budget"],
        seed=params["seed"],
        precision=params["precision"],
        micro_batch=desk.places.micro_batch,
        snapshots=snapshots,
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


def _streams(desk: _Desk, backbone: Backbone, stage: Stage) -> tuple[list[Stream], dict[str, str]]:
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

        def logits(states: Any) -> Any:
            return backbone.head_logits(HEAD, states)

    streams = []
    for data in params["streams"]:
        encoded = desk.encoded(backbone, data, params["max_length"])
        name = f"{data['task']}:{data['language']}"
        order = Order(encoded.lengths(), params["budget"]["batch"], params["seed"], name)
        stack = (*stacks[data.get("wear")], TASK)
        streams.append(Stream(name, encoded, order, stack, logits, masking))
    return streams, parts


def _evaluate(
    desk: _Desk, request: Request, notes: _Notes
) -> tuple[dict[str, bytes], dict[str, Any]]:
    import json

    from adapterxlt.compute.evaluation import gold_and_predicted, predict, score

    stage, params = request.stage, request.stage.params
    data = params["data"]
    backbone, stack, labels = compose(desk, stage)
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


def compose(desk: _Desk, stage: Stage) -> tuple[Backbone, tuple[str, ...], list[str]]:
    """The composition an evaluate stage scores: backbone, stack of adapters, labels of the head."""
    backbone = desk.backbone(stage)
    stacks = desk.add_languages(backbone, stage)
    trained = desk.record(stage.inputs["trained"])
    params = trained.stage["params"]
    backbone.add_adapter(TASK, params["adapter"], weights=desk.tensors(trained, "adapter"))
    backbone.add_head(HEAD, params["head"], weights=desk.tensors(trained, "head"))
    stack = (*stacks[stage.params["data"].get("wear")], TASK)
    return backbone, stack, list(params["head"]["labels"])


def predict_rows(places: Places, stage: Stage, rows: list[dict[str, Any]]) -> list[dict[int, str]]:
    """Labels for new rows through the composition of a finished evaluate stage."""
    from adapterxlt.compute.data import encode
    from adapterxlt.compute.evaluation import predict

    desk = _desk(places)
    task = TASKS[stage.params["data"]["task"]]
    try:
        backbone, stack, labels = compose(desk, stage)
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


_KINDS: dict[str, Callable[[_Desk, Request, _Notes], tuple[dict[str, bytes], dict[str, Any]]]] = {
    "pretrain": _pretrain,
    "train": _train,
    "evaluate": _evaluate,
}
