"""Stages and plans: what has to be computed, once each, in which order, and for which cells.

A stage is a kind, parameters and the keys of its inputs; its key is their digest, so equal stages
are one stage. Nothing here knows paths, devices, workers or labels inside a key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from adapterxlt.core.canon import digest
from adapterxlt.core.specs import Shape


@dataclass(frozen=True, slots=True)
class DataInfo:
    """What planning needs of one split: digest of its content, rows, sub-words per row (est.)."""

    digest: str
    rows: int
    tokens_per_row: float
    exact: bool = True
    """False where the rows are a guess: of a hub's split whose size is not declared."""


@dataclass(frozen=True, slots=True)
class BackboneInfo:
    """What planning needs of a backbone: its sizes, and its digests or how it is pretrained."""

    name: str
    shape: Shape
    parameters: int
    digests: Mapping[str, str] | None = None
    pretraining: Mapping[str, Any] | None = None
    positions: int | None = None
    """The longest sequence, where it is known."""
    model_type: str = "xlm-roberta"
    names: frozenset[str] = frozenset()
    """What it is called, in lower case and without organizations."""


#: Bumped by hand when the meaning of a kind's code changes: old results are then not reused.
#: Language adapters count for themselves.
EPOCHS = {"pretrain": 1, "adopt": 1, "train": 5, "train mlm": 6, "merge": 1, "evaluate": 2}


@dataclass(frozen=True, slots=True)
class Stage:
    """One unit of work. ``inputs`` maps a role (backbone, previous, language:xx) to a key."""

    kind: str
    params: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    key: str = field(init=False, repr=False, compare=False)
    """64 hex digits: the digest of everything that shapes the result."""

    def __post_init__(self) -> None:
        if self.kind == "train":
            for stream in self.params["streams"]:
                if stream["split"] == "test":
                    raise AssertionError("a test split must never reach a train stage")
        object.__setattr__(self, "key", digest("stage", self.canonical()))

    def reads(self) -> Iterator[Mapping[str, Any]]:
        """The data that it reads, with repetitions."""
        yield from self.params.get("streams", ())
        yield from self.params.get("pool") or ()
        if self.params.get("data"):
            yield self.params["data"]

    def canonical(self) -> dict[str, Any]:
        """What the key is the digest of; stored in the record, so a record explains itself."""
        return {
            "kind": self.kind,
            "epoch": EPOCHS.get(f"{self.kind} {self.params.get('objective')}", EPOCHS[self.kind]),
            "params": dict(self.params),
            "inputs": dict(self.inputs),
        }


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One place in the table of results: a regime on a target, with its shots and its seeds."""

    task: str
    regime: str
    target: str
    shots: int
    draw: int | None
    seed: int
    role: str = "target"

    def label(self) -> str:
        sample = f" {self.shots} shots draw {self.draw}" if self.draw is not None else ""
        return f"{self.task} {self.regime} {self.target}{sample} seed {self.seed}"


@dataclass
class Plan:
    """Distinct stages in an order in which inputs come first, and the cells they are for."""

    stages: dict[str, Stage] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    cells: dict[Cell, str] = field(default_factory=dict)
    """The key of the evaluate stage of each cell."""
    data: dict[str, DataInfo] = field(default_factory=dict)
    """By digest; for cost and reports only, never in a key."""

    def add(self, stage: Stage, label: str) -> str:
        """Add a stage unless an equal one is there; its inputs must be there already."""
        key = stage.key
        if key not in self.stages:
            missing = [k for k in stage.inputs.values() if k not in self.stages]
            if missing:
                raise AssertionError(f"{label}: inputs must be added first")
            self.stages[key] = stage
            self.labels[key] = label
        return key

    def ancestors(self, key: str) -> Iterator[str]:
        """The key itself and the keys of everything it depends on, each once."""
        seen: set[str] = set()
        todo = [key]
        while todo:
            current = todo.pop()
            if current not in seen:
                seen.add(current)
                yield current
                todo += self.stages[current].inputs.values()

    @cached_property
    def sharing(self) -> dict[str, int]:
        """How many cells need each stage."""
        counts = dict.fromkeys(self.stages, 0)
        for key in self.cells.values():
            for ancestor in self.ancestors(key):
                counts[ancestor] += 1
        return counts

    def states(self, done: Mapping[str, Any] | set[str]) -> dict[str, tuple[str, str]]:
        """State and reason of every stage.

        ``cached`` (the store has it), ``ready`` (its inputs are there) or ``waiting`` (for the
        named input). A cached stage needs nothing of its inputs.
        """
        result = {}
        place = {key: i for i, key in enumerate(self.stages)}
        for key, stage in self.stages.items():
            if key in done:
                result[key] = ("cached", "the store has it")
                continue
            blocked = [k for k in stage.inputs.values() if k not in done]
            if blocked:
                # The input that comes last in plan order is what is being waited for in the end.
                first = self.labels[max(blocked, key=place.__getitem__)]
                more = f" and {len(blocked) - 1} more" if len(blocked) > 1 else ""
                result[key] = ("waiting", f"needs {first}{more}")
            else:
                result[key] = ("ready", "not in the store; inputs are there")
        return result

    def needed(self, done: Mapping[str, Any] | set[str], lost: Iterable[str] = ()) -> list[str]:
        """Keys to compute, inputs first: missing evaluations and the missing stages under them.

        Args:
            lost: keys of stages that were done and are damaged; they are missed whatever is done.
        """
        wanted: set[str] = set()
        missed = (*self.cells.values(), *(key for key in lost if key in self.stages))
        todo = [key for key in missed if key not in done]
        while todo:
            key = todo.pop()
            if key not in wanted:
                wanted.add(key)
                todo += [k for k in self.stages[key].inputs.values() if k not in done]
        return [key for key in self.stages if key in wanted]

    def waves(self, keys: Iterable[str]) -> dict[str, int]:
        """In which wave each of the keys can be computed, from 1 on: one after all of its inputs
        among them.

        Args:
            keys: inputs first, as of `needed`.
        """
        found: dict[str, int] = {}
        for key in keys:
            below = (found.get(k, 0) for k in self.stages[key].inputs.values())
            found[key] = 1 + max(below, default=0)
        return found
