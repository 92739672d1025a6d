"""What a worker process keeps at hand between stages: store, corpus, one backbone, encoded data.

It turns the names in a stage's parameters (digests, keys, languages) into things, and checks on
the way that they are the ones the plan meant. Used by `run.worker` alone.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterxlt.core.canon import digest
from adapterxlt.core.composition import Composition, Part, beginning, compose
from adapterxlt.core.errors import StageError
from adapterxlt.core.plan import Stage
from adapterxlt.corpora.backbones import folder_backbone
from adapterxlt.corpora.reading import Reading, selection
from adapterxlt.store.store import Record, Store

if TYPE_CHECKING:
    from adapterxlt.compute.backbone import Backbone
    from adapterxlt.compute.data import Encoded
    from adapterxlt.compute.evaluation import Composed

#: What the task adapter and its head go by on the backbone.
TASK, HEAD = "xlt_task", "xlt_head"

#: Bytes of vectors of pools that are kept between stages, besides those of the last pool.
MOST_VECTORS = 2 << 30

#: An adapter's name in a stack, or the names of several that are fused.
Layer = str | tuple[str, ...]
Stack = tuple[Layer, ...]


@dataclass(frozen=True)
class Places:
    """Where this machine keeps what a plan names by digest, and how it is to work."""

    store: Path
    reading: Reading
    backbone: str
    """`lab` or a folder."""
    threads: int = 1
    device: str = "cpu"
    micro_batch: int | None = None
    snapshot_every: float = 20.0
    num_proc: int = 1
    """Threads that tokenize."""


class Desk:
    """What a worker process keeps at hand: the store, the corpus, one backbone, encoded data."""

    def __init__(self, places: Places) -> None:
        # The tokenizers' own threads; read when the first text is tokenized.
        os.environ["TOKENIZERS_PARALLELISM"] = "true" if places.num_proc > 1 else "false"
        os.environ["RAYON_NUM_THREADS"] = str(places.num_proc)
        import torch

        from adapterxlt.compute.ranks import ranks
        from adapterxlt.compute.remembered import Memory

        torch.set_num_threads(places.threads)
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Else torch writes NaN into all memory that it takes, 7 % of a step; no result reads it.
        torch.utils.deterministic.fill_uninitialized_memory = False
        if places.device == "cuda" and not torch.cuda.is_available():
            raise StageError("there is no CUDA device", hint="use --device cpu")
        self.places = places
        #: The accelerator by its name, or the processor's kind.
        self.device_name = (
            torch.cuda.get_device_name() if places.device == "cuda" else places.device
        )
        self.store = Store(places.store)
        self.corpus = places.reading.open(self.store, places.store)
        self._loaded: tuple[str, Backbone] | None = None
        self._encoded: dict[str, Encoded] = {}
        self._vectors: dict[str, Any] = {}
        self.memory = Memory()
        self.ranks = ranks(places.device)

    def record(self, key: str) -> Record:
        record = self.store.read(key)
        if record is None:
            raise StageError("an input is not in the store", where=key[:12])
        return record

    def backbone(self, stage: Stage) -> Backbone:
        """The backbone a stage is for; loaded once as long as stages want the same one."""
        if "backbone" in stage.inputs:
            name = stage.inputs["backbone"]
            if self._loaded is None or self._loaded[0] != name:
                self._load(name, self.store.materialize(self.record(name)))
        else:
            name = stage.params["backbone"]["weights"]
            if self._loaded is None or self._loaded[0] != name:
                folder = Path(self.places.backbone)
                if folder_backbone(folder).digests != stage.params["backbone"]:
                    what = "the backbone has changed since planning"
                    raise StageError(what, where=str(folder), hint="run again")
                self._load(name, folder)
        assert self._loaded is not None
        backbone = self._loaded[1]
        if (stage.params.get("max_length") or 0) > backbone.max_length:
            raise StageError(
                f"max_length {stage.params['max_length']} is more than the backbone's "
                f"{backbone.max_length} positions"
            )
        return backbone

    def _load(self, name: str, folder: Path) -> None:
        """Load a backbone. What lives from now on as long as the process is left out of the search
        for garbage, which every training asks for and which would take a third of a second.
        """
        from adapterxlt.compute.backbone import Backbone
        from adapterxlt.compute.remembered import Memory

        gc.unfreeze()
        self._loaded, self.memory = None, Memory()
        self._loaded = (name, Backbone(folder, self.places.device))
        gc.collect()
        gc.freeze()

    def encoded(self, backbone: Backbone, stage: Stage, data: Mapping[str, Any]) -> Encoded:
        """The rows that a stream or an evaluation reads, as windows.

        A split is tokenized once for each tokenizer and length, as far as it is read; what is kept
        in the store is mapped into memory by every stage and process. Shots are a few of many rows,
        and sooner tokenized than looked for.
        """
        from adapterxlt.compute.packing import from_file, to_bytes

        if data.get("shots") is not None:
            return self._encode(backbone, stage, data)
        name = self._encoding(stage, data)
        if name not in self._encoded:
            with self.store.lock(f"encoded-{name[:32]}"):
                known = self.store.noted("encoded", name)
                if known is None or not self.store.keep_whole(known["object"]):
                    made = self.store.put(to_bytes(self._encode(backbone, stage, data)))
                    known = {"object": made, "of": data["data"]}
                    self.store.note("encoded", name, known)
                if len(self._encoded) > 256:
                    self._encoded.clear()
                self._encoded[name] = from_file(self.store.object_path(known["object"]))
        whole = self._encoded[name]
        return whole.choose(selection(len(whole.rows), data))

    def _encoding(self, stage: Stage, data: Mapping[str, Any]) -> str:
        """Digest of everything that shapes the windows of a split."""
        from adapterxlt.compute import encoding

        params, texts = stage.params, data["task"] == "text"
        tokenizer = stage.inputs.get("backbone") or params["backbone"]["tokenizer"]
        task = None if texts else self.corpus.task(data["task"])
        what = {
            "version": encoding.VERSION,
            "tokenizer": tokenizer,
            "data": data["data"],
            "max_length": params["max_length"],
            "head": None if task is None else task.head,
            "columns": None if task is None else list(task.columns),
            # Splits of a ranking task differ in their columns.
            "split": data["split"] if task is not None and task.kind == "ranking" else None,
            "side": data.get("side"),
            "limit": data.get("limit"),
        }
        return digest("encoded", what)

    def _encode(self, backbone: Backbone, stage: Stage, data: Mapping[str, Any]) -> Encoded:
        """Tokenize a split, from data that match their digest."""
        from adapterxlt.compute.encoding import encode, encode_text

        max_length, language = stage.params["max_length"], data["language"]
        if data["task"] == "text":
            texts = tuple(data["texts"]) if data.get("texts") else None
            self._same(self.corpus.text_info(language, texts).digest, data)
            lines = self.corpus.text(language, texts)
            return encode_text(backbone.tokenizer, lines, max_length, data.get("limit"))
        task = self.corpus.task(data["task"])
        rows = self.rows(data)
        side = data.get("side")
        if task.kind == "retrieval":
            side = side or task.inputs[0]
        elif task.kind == "ranking" and data["split"] == "test":
            side = task.inputs[0]
        elif task.kind == "ranking" and data["split"] == "candidates":
            side = "text"
        return encode(backbone.tokenizer, task, rows, max_length, side=side)

    def vectors_of(self, stage: Stage) -> list[tuple[str, MutableMapping[str, Any]]]:
        """For each part of a stage's pool, what its vectors go by, and where they are kept.

        Too many, and those of other pools go: what is searched next is most often the same again.
        """
        params, inputs = stage.params, stage.inputs
        said = ("backbone", "max_length", "precision", "snapshot", "drop", "options")
        what = {name: params.get(name) for name in said}
        made = [inputs.get("backbone"), inputs.get("trained")]
        parts = params.get("pool") or ()
        worn = [inputs.get(f"language:{part.get('wear')}") for part in parts]
        names = [digest("vectors", [what, made, *pair]) for pair in zip(worn, parts, strict=True)]
        if sum(vectors.nbytes for vectors in self._vectors.values()) > MOST_VECTORS:
            self._vectors = {n: v for n, v in self._vectors.items() if n in names}
        return [(name, self._vectors) for name in names]

    def rows(self, data: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The rows that a stream or an evaluation reads."""
        whole = self._split(data)
        return [whole[i] for i in selection(len(whole), data)]

    def _split(self, data: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
        task, language, split = data["task"], data["language"], data["split"]
        self._same(self.corpus.info(task, language, split).digest, data)
        return self.corpus.rows(task, language, split)

    def _same(self, digest: str, data: Mapping[str, Any]) -> None:
        if digest != data["data"]:
            where = f"{data['task']}/{data['language']}"
            raise StageError("the data have changed since planning", where=where, hint="run again")

    def add_languages(self, backbone: Backbone, stage: Stage) -> dict[str | None, tuple[str, ...]]:
        """Put the stage's language adapters on; the stack under the task adapter, by language."""
        stacks: dict[str | None, tuple[str, ...]] = {None: ()}
        roles = sorted(role for role in stage.inputs if role.startswith("language:"))
        for role in roles:
            # Stages that are trained together share them.
            name = f"xlt_language_{stage.inputs[role][:16]}"
            if not backbone.has(name):
                self._put(backbone, name, self.composition(stage.inputs[role]).own)
            stacks[role.partition(":")[2]] = (name,)
        return stacks

    def composition(self, key: str) -> Composition:
        """What a finished train or merge stage gives."""
        return compose(key, lambda one: self.record(one).stage)

    def begin(
        self, backbone: Backbone, stage: Stage, tag: str = ""
    ) -> tuple[tuple[Layer, ...], Mapping[str, Part]]:
        """Put on what a train stage trains, on top of what it builds on.

        Returns the stack, its last layer the one to train, and the heads there are so far.

        Args:
            tag: at the end of names.
        """
        if "previous" in stage.inputs:
            made = self.composition(stage.inputs["previous"])
            return self.put(backbone, made, tag=tag), made.heads
        made = beginning("", stage.canonical(), lambda one: self.record(one).stage)
        frozen, own = self._put_frozen(backbone, made, tag), TASK + tag
        if made.own.members:
            names = self._put_members(backbone, own, made.own)
            backbone.add_fusion(names, seed=stage.params["seed"])
            return (*frozen, names), made.heads
        backbone.add_adapter(own, stage.params["adapter"], seed=stage.params["seed"])
        return (*frozen, own), made.heads

    def put(
        self,
        backbone: Backbone,
        made: Composition,
        snapshot: int | None = None,
        *,
        tag: str = "",
    ) -> tuple[Layer, ...]:
        """Put a composition on, its own part as of a snapshot; the stack, lowest first."""
        frozen = self._put_frozen(backbone, made, tag)
        return (*frozen, self._put(backbone, TASK + tag, made.own, snapshot=snapshot))

    def _put_frozen(self, backbone: Backbone, made: Composition, tag: str) -> list[Layer]:
        parts = enumerate(made.frozen)
        return [self._put(backbone, f"xlt_frozen{tag}_{i}", part) for i, part in parts]

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

    def compose(self, stage: Stage) -> tuple[Composed, list[str], dict[str | None, Stack]]:
        """What an evaluate stage looks through, labels of the head, and the stack to wear by
        language adapter; a task that is not trained has no head."""
        from adapterxlt.compute.evaluation import Composed

        backbone, params = self.backbone(stage), stage.params
        languages = self.add_languages(backbone, stage)
        data, at = params["data"], params.get("snapshot")
        layers: Stack = ()
        head, labels = None, []
        if "trained" in stage.inputs:
            made = self.composition(stage.inputs["trained"])
            layers = self.put(backbone, made, at)
            if self.corpus.task(data["task"]).trains:
                part = made.heads[data["task"]]
                # A head from an earlier stage has no snapshots of this one.
                at = at if part.key == made.own.key else None
                weights = self.head(part.key, data["task"], at)
                backbone.add_head(HEAD, part.spec or {}, weights=weights)
                head, labels = HEAD, list((part.spec or {})["labels"])
        stacks = {name: (*worn, *layers) for name, worn in languages.items()}
        stack = stacks[data.get("wear")]
        model = Composed(
            backbone,
            stack,
            head,
            params["precision"],
            params.get("drop"),
            memory=self.memory,
            own=frozenset(_names(layers[-1:])),
        )
        return model, labels, stacks

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


def _names(stack: Stack) -> Iterator[str]:
    """The names in a stack, and those of its fusions."""
    for layer in stack:
        if isinstance(layer, str):
            yield layer
        else:
            yield from (*layer, ",".join(layer))


@lru_cache(maxsize=1)
def desk_for(places: Places) -> Desk:
    """The process's desk; a new one when the places change."""
    return Desk(places)
