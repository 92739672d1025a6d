"""What a worker process keeps at hand between stages: store, corpus, one backbone, encoded data.

It turns the names in a stage's parameters (digests, keys, languages) into things, and checks on
the way that they are the ones the plan meant. Used by `run.worker` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterxlt.core.composition import Composition, Part, beginning, compose
from adapterxlt.core.errors import StageError
from adapterxlt.core.plan import Stage
from adapterxlt.core.tasks import TASKS
from adapterxlt.corpora.backbones import folder_backbone
from adapterxlt.corpora.sources import FolderCorpus, LabCorpus, select
from adapterxlt.store.store import Record, Store

if TYPE_CHECKING:
    from adapterxlt.compute.backbone import Backbone
    from adapterxlt.compute.data import Encoded

#: What the task adapter and its head go by on the backbone.
TASK, HEAD = "xlt_task", "xlt_head"


#: An adapter's name in a stack, or the names of several that are fused.
Layer = str | tuple[str, ...]


@dataclass(frozen=True)
class Places:
    """Where this machine keeps what a plan names by digest, and how it is to work."""

    store: Path
    data: str
    """`lab` or a folder."""
    backbone: str
    """`lab` or a folder."""
    threads: int = 1
    device: str = "cpu"
    micro_batch: int | None = None
    snapshot_every: float = 20.0


class Desk:
    """What a worker process keeps at hand: the store, the corpus, one backbone, encoded data."""

    def __init__(self, places: Places) -> None:
        import torch

        torch.set_num_threads(places.threads)
        torch.use_deterministic_algorithms(True, warn_only=True)
        if places.device == "cuda" and not torch.cuda.is_available():
            raise StageError("there is no CUDA device", hint="use --device cpu")
        self.places = places
        self.store = Store(places.store)
        self.corpus: FolderCorpus | LabCorpus = (
            LabCorpus() if places.data == "lab" else FolderCorpus(Path(places.data), self.store)
        )
        self._loaded: tuple[str, Backbone] | None = None
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
            if self._loaded is None or self._loaded[0] != name:
                folder = self.store.materialize(self.record(name))
                self._loaded = (name, Backbone(folder, self.places.device))
        else:
            name = stage.params["backbone"]["weights"]
            if self._loaded is None or self._loaded[0] != name:
                folder = Path(self.places.backbone)
                if folder_backbone(folder).digests != stage.params["backbone"]:
                    what = "the backbone has changed since planning"
                    raise StageError(what, where=str(folder), hint="run again")
                self._loaded = (name, Backbone(folder, self.places.device))
        backbone = self._loaded[1]
        if stage.params["max_length"] > backbone.max_length:
            raise StageError(
                f"max_length {stage.params['max_length']} is more than the backbone's "
                f"{backbone.max_length} positions"
            )
        return backbone

    def encoded(self, backbone: Backbone, data: Mapping[str, Any], max_length: int) -> Encoded:
        """Rows of a stream or an evaluation as windows, from data that matches its digest."""
        from adapterxlt.compute.data import encode, encode_text

        names = ("task", "language", "data", "limit", "shots", "draw")
        at = (*map(data.get, names), max_length)
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
            name = f"xlt_language_{i}"
            self._put(backbone, name, self.composition(stage.inputs[role]).own)
            stacks[role.partition(":")[2]] = (name,)
        return stacks

    def composition(self, key: str) -> Composition:
        """What a finished train or merge stage gives."""
        return compose(key, lambda one: self.record(one).stage)

    def begin(
        self, backbone: Backbone, stage: Stage
    ) -> tuple[tuple[Layer, ...], Mapping[str, Part]]:
        """Put on what a train stage trains, on top of what it builds on.

        Returns the stack, its last layer the one to train, and the heads there are so far.
        """
        if "previous" in stage.inputs:
            made = self.composition(stage.inputs["previous"])
            return self.put(backbone, made), made.heads
        made = beginning("", stage.canonical(), lambda one: self.record(one).stage)
        frozen = [
            self._put(backbone, f"xlt_frozen_{i}", part) for i, part in enumerate(made.frozen)
        ]
        if made.own.members:
            names = self._put_members(backbone, TASK, made.own)
            backbone.add_fusion(names, seed=stage.params["seed"])
            return (*frozen, names), made.heads
        backbone.add_adapter(TASK, stage.params["adapter"], seed=stage.params["seed"])
        return (*frozen, TASK), made.heads

    def put(
        self, backbone: Backbone, made: Composition, snapshot: int | None = None
    ) -> tuple[Layer, ...]:
        """Put a composition on, its own part as of a snapshot; the stack, lowest first."""
        frozen = [
            self._put(backbone, f"xlt_frozen_{i}", part) for i, part in enumerate(made.frozen)
        ]
        return (*frozen, self._put(backbone, TASK, made.own, snapshot=snapshot))

    def _put(
        self, backbone: Backbone, name: str, part: Part, *, snapshot: int | None = None
    ) -> Layer:
        """Put an adapter or a fusion on; what it goes by in a stack."""
        weights = self.tensors(part.key, "adapter", snapshot)
        if not part.members:
            backbone.add_adapter(name, part.spec or {}, weights=weights)
            return name
        names = self._put_members(backbone, name, part)
        backbone.add_fusion(names, weights=weights)
        return names

    def _put_members(self, backbone: Backbone, name: str, part: Part) -> tuple[str, ...]:
        """Put the adapters of a fusion on; their names."""
        for i, member in enumerate(part.members):
            self._put(backbone, f"{name}_{i}", member)
        return tuple(f"{name}_{i}" for i in range(len(part.members)))

    def compose(self, stage: Stage) -> tuple[Backbone, tuple[Layer, ...], list[str]]:
        """What an evaluate stage scores: backbone, stack of adapters, labels of the head."""
        backbone = self.backbone(stage)
        stacks = self.add_languages(backbone, stage)
        data, at = stage.params["data"], stage.params.get("snapshot")
        made = self.composition(stage.inputs["trained"])
        stack = (*stacks[data.get("wear")], *self.put(backbone, made, at))
        head = made.heads[data["task"]]
        # A head from an earlier stage has no snapshots of this one.
        at = at if head.key == made.own.key else None
        backbone.add_head(HEAD, head.spec or {}, weights=self.head(head.key, data["task"], at))
        return backbone, stack, list((head.spec or {})["labels"])

    def head(self, key: str, task: str, snapshot: int | None = None) -> dict[str, Any]:
        """Weights of a task's head, as a stage left it."""
        return self.tensors(key, f"head-{task}", snapshot)

    def tensors(self, key: str, part: str, snapshot: int | None = None) -> dict[str, Any]:
        """Tensors of a part of a finished stage, at its end or at one of its snapshots."""
        import safetensors.torch

        name = f"{part}.safetensors" if snapshot is None else f"{part}.{snapshot}.safetensors"
        return dict(safetensors.torch.load(self.store.get(self.record(key).files[name])))

    def reset(self) -> None:
        """Take everything off the backbone, so that the next stage finds it bare."""
        if self._loaded is not None:
            self._loaded[1].reset()


@lru_cache(maxsize=1)
def desk_for(places: Places) -> Desk:
    """The process's desk; a new one when the places change."""
    return Desk(places)
