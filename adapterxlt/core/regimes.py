"""Regimes as data: named lists of phases, read from YAML, checked, never executed here.

A phase says which tasks and whose data it trains on, which language adapter a batch wears and what
it goes on from; `core.lowering` turns a regime and a cell into stages. Users write the same fields
inline in a recipe or in a file of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from adapterxlt.core.adapters import AdapterSpec
from adapterxlt.core.adoption import Adopt, as_entry, short_schema
from adapterxlt.core.catalogs import Catalog
from adapterxlt.core.errors import did_you_mean
from adapterxlt.core.specs import Budget, Closed, Positive

#: Words a phase may use in `languages` besides codes of languages and names of resource classes.
LANGUAGE_WORDS = ("source", "target", "targets", "intermediate")
#: Words a phase may use in `tasks` besides names of tasks.
TASK_WORDS = ("task", "intermediate")

#: The order in which regimes are listed; others follow by name.
ORDER = (
    *("zero-shot", "zero-shot-average", "zero-shot-oracle", "run-average"),
    *("target-only", "sequential", "sequential-source-dev"),
    *("joint", "joint-last", "joint-oracle", "joint-micro", "joint-mixup", "joint-surgery"),
    *("joint-multilingual", "joint-multilingual-micro"),
    *("multi-stage", "multi-stage-last", "multi-stage-stack"),
    *("intermediate", "intermediate-multilingual"),
    *("intermediate-multilingual-stack", "intermediate-multilingual-fuse"),
    *("multitask", "multitask-multilingual", "multitask-proportional", "multitask-temperature"),
    *("multitask-then-task", "target-ready", "bad-x", "mad-x-2", "adapter-drop"),
    *("ada-merge", "full-fine-tuning"),
)


def _kind(value: Any) -> str:
    """Which branch of a union a value written in a recipe belongs to."""
    if isinstance(value, dict | Closed):
        return "<mapping>"
    if isinstance(value, list | tuple):
        return "<list>"
    return "<word>" if isinstance(value, str) else "<number>"


def tuples(value: Any) -> Any:
    """Lists as they come from YAML, also inside a mapping, as tuples."""
    if isinstance(value, dict):
        return {key: tuples(inner) for key, inner in value.items()}
    return tuple(value) if isinstance(value, list) else value


Words = Annotated[tuple[str, ...], Field(min_length=1)]
Count = Positive
#: Phases of a regime; none has more than five.
MAX_PHASES = 20
Shots = Annotated[
    Annotated[Literal["grid", "all"], Tag("<word>")] | Annotated[Count, Tag("<number>")],
    Discriminator(_kind),
]
Snapshot = Annotated[
    Annotated[Literal["last", "average", "oracle", "source-dev"], Tag("<word>")]
    | Annotated[Count, Tag("<number>")],
    Discriminator(_kind),
]
Drop = Annotated[
    Annotated[Literal["random"], Tag("<word>")] | Annotated[Count, Tag("<number>")],
    Discriminator(_kind),
]


class Temperature(Closed):
    """Streams are drawn in proportion to the T-th root of their rows."""

    temperature: Annotated[float, Field(ge=1)]


def _phase_schema(schema: dict[str, Any]) -> None:
    """For editors: what is adopted for short; an adopted phase names no languages."""
    adopt = schema["properties"]["adopt"]
    of = short_schema(adopt.pop("additionalProperties"))
    adopt["anyOf"] = [*of["anyOf"], {"type": adopt.pop("type"), "additionalProperties": of}]
    schema["required"].remove("languages")


#: Fields that an adopted phase may have: all others are of training.
_OF_ADOPTION = frozenset({"name", "adopt", "adapter", "wear"})


class Phase(Closed):
    """One training phase of a regime; or an adopted adapter in the place of one."""

    model_config = ConfigDict(json_schema_extra=_phase_schema)

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    """What a recipe's `budgets` calls this phase."""
    tasks: Words = ("task",)
    """`task` (the cell's own), `intermediate` (the recipe's, the cell's own left out), or names.
    Several tasks share the adapter and have a head each."""
    languages: Annotated[
        Annotated[Words, Tag("<list>")] | Annotated[dict[str, Words], Tag("<mapping>")],
        Discriminator(_kind),
    ]
    """Whose data: source, target, targets, intermediate, a resource class, or codes; one list, or
    one for each of `tasks`."""
    shots: Shots | None = None
    """How many rows of each non-source language: the recipe's shots, all, or a number. Left out,
    it is `grid` for the cell's own task and `all` for others."""
    wear: Annotated[
        Annotated[Literal["own", "source", "none", "cycle", "pair"], Tag("<word>")]
        | Annotated[Words, Tag("<list>")],
        Discriminator(_kind),
    ] = "own"
    """The language adapter a batch wears: its own language's, the source's, none, those of source
    and targets in turn (cycle) or of the languages of a list in turn, or the bilingual one of
    source and target (pair)."""
    adapter: Literal["continue", "new", "stack", "fuse"] = "continue"
    """Go on with the previous phase's task adapter, start a new one, freeze what there is and
    stack a new one on it, or fuse the adapters of the phases before."""
    head: Literal["keep", "new", "freeze"] | None = None
    """Keep the heads there are, reset them, or keep them untrained. Left out, `new` for a new
    adapter and `keep` otherwise. A task without a head always gets a new one."""
    objective: Literal["macro", "micro", "mixup", "surgery"] = "macro"
    """macro: the mean over tasks of the mean over their languages' losses; micro: the loss over the
    union; mixup: source and target states interpolated; surgery: macro without conflicting parts of
    gradients."""
    sampling: Annotated[
        Annotated[Literal["balanced", "proportional"], Tag("<word>")]
        | Annotated[Temperature, Tag("<mapping>")],
        Discriminator(_kind),
    ] = "balanced"
    """balanced: one batch of every task and language a step; otherwise as many batches, each from
    a stream drawn in proportion to its rows, or to a root of them."""
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Loss weights of `tasks`, 1 where left out; a task's languages share it evenly."""
    start: Snapshot = "last"
    """Which snapshot of the previous phase to go on from: the last, the average of all, the n-th,
    the best on the source's validation split, or the best on the target's test set (oracle)."""
    runs: Annotated[int, Field(gt=0, le=100)] = 1
    """Trained so often, with other orders and dropout; the average of the runs goes on."""
    drop: Drop | None = None
    """Adapters of the first so many layers are skipped in training, or of a random number."""
    task_adapter: AdapterSpec | None = None
    """What differs from the regime's or recipe's; for a new or stacked adapter."""
    budget: Budget = Budget()
    """What differs from the recipe's budget."""
    adopt: dict[str, Adopt] = Field(default_factory=dict)
    """A task adapter that somebody else trained, with its head, in the place of training: as
    `language_adapters.adopt`, or one for each of the recipe's tasks."""

    @model_validator(mode="before")
    @classmethod
    def _adopted(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not value.get("adopt"):
            return value
        of = value["adopt"]
        if isinstance(of, str) or (isinstance(of, dict) and "adapter" in of):
            of = {"task": of}
        if isinstance(of, dict):
            of = {task: as_entry(one) for task, one in of.items()}
        # It was trained somewhere else; what it is evaluated on is the cell's.
        return {"languages": ["source"], **value, "adopt": of}

    @field_validator("tasks", "languages", "wear", mode="before")
    @classmethod
    def _sequences(cls, value: Any) -> Any:
        return tuples(value)

    @model_validator(mode="after")
    def _fits(self) -> Phase:
        if self.adopt:
            trained = self.model_fields_set - _OF_ADOPTION - {"languages"}
            if trained:
                raise ValueError(f"an adopted phase is not trained: take {min(trained)} out")
            if any(one.adapter == "auto" for one in self.adopt.values()):
                raise ValueError("auto is for language adapters: name the task adapter")
            if self.adapter in ("stack", "fuse"):
                raise ValueError("an adopted phase is an adapter of its own: write adapter: new")
        if isinstance(self.languages, dict) and set(self.languages) != set(self.tasks):
            raise ValueError(f"languages by task must name {', '.join(self.tasks)}")
        if set(self.weights) - set(self.tasks):
            raise ValueError(f"weights must be of {', '.join(self.tasks)}")
        if self.objective in ("mixup", "surgery") and self.sampling != "balanced":
            raise ValueError(f"{self.objective} needs balanced sampling")
        if self.objective == "mixup" and len(self.tasks) > 1:
            raise ValueError("mixup is for one task")
        alone = all(words in (("source",), ("target",)) for _, words, _ in self.parts)
        if self.objective in ("mixup", "surgery") and len(self.tasks) == 1 and alone:
            raise ValueError(f"{self.objective} needs two languages or tasks")
        return self

    @property
    def parts(self) -> Iterator[tuple[str, tuple[str, ...], str | int]]:
        """(task word, language words, shots), one for each of the phase's tasks."""
        for task in self.tasks:
            words = self.languages[task] if isinstance(self.languages, dict) else self.languages
            yield task, words, self.shots or ("grid" if task == "task" else "all")

    @property
    def foreign_shots(self) -> set[str | int]:
        """The numbers of shots read of languages other than the source."""
        return {shots for _, words, shots in self.parts if set(words) - {"source"}}

    @property
    def per_target(self) -> bool:
        """Whether the phase differs from target to target."""
        wear = self.wear if isinstance(self.wear, tuple) else (self.wear,)
        spoken = any("target" in words for _, words, _ in self.parts)
        return spoken or "target" in wear or "pair" in wear or self.start == "oracle"

    @property
    def heads(self) -> str:
        """`keep`, `new` or `freeze`."""
        return self.head or ("new" if self.adapter == "new" else "keep")

    def describe(self) -> str:
        """One line for plans and reports."""
        if self.adopt:
            of = "; ".join(f"{task}: {one.adapter}" for task, one in self.adopt.items())
            return f"{self.name}: adopted, {of.removeprefix('task: ')}"
        verbs = {"new": "new adapter", "stack": "stack on", "fuse": "fuse", "continue": "continue"}
        parts = []
        for task, words, shots in self.parts:
            of = "" if task == "task" else f"{task}: "
            foreign = set(words) - {"source"}
            parts.append(f"{of}{' + '.join(words)}{f', shots {shots}' if foreign else ''}")
        wear = " > ".join(self.wear) if isinstance(self.wear, tuple) else self.wear
        more = [f"wear {wear}"]
        if self.objective != "macro":
            more.append(self.objective)
        if self.sampling != "balanced":
            kind = self.sampling
            more.append(kind if isinstance(kind, str) else f"temperature {kind.temperature:g}")
        if self.heads == "freeze":
            more.append("head frozen")
        if self.start != "last":
            more.append(f"from {self.start}")
        if self.runs > 1:
            more.append(f"average of {self.runs} runs")
        if self.drop is not None:
            more.append(f"drop {self.drop}")
        return f"{self.name}: {verbs[self.adapter]} on {'; '.join(parts)}, {', '.join(more)}"


class Regime(Closed):
    """A named list of phases; the first starts a new adapter whatever it says."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    summary: str = ""
    phases: tuple[Phase, ...] = Field(min_length=1, max_length=MAX_PHASES)
    finish: Annotated[
        Annotated[Literal["last", "average", "oracle", "source-dev"], Tag("<word>")]
        | Annotated[Count, Tag("<number>")]
        | Annotated[dict[str, float], Tag("<mapping>")],
        Discriminator(_kind),
    ] = "last"
    """Which snapshot of the last phase is evaluated, values as of a phase's `start`; or a weighted
    sum of the adapters of phases by name, with the heads of the last."""
    drop: Count | None = None
    """Adapters of the first so many layers are skipped when it is evaluated."""
    task_adapter: AdapterSpec | None = None
    """What differs from the recipe's task adapter."""
    language_adapter: AdapterSpec | None = None
    """What differs from the recipe's language adapters."""

    @field_validator("phases", mode="before")
    @classmethod
    def _sequence(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _connected(self) -> Regime:
        for i, phase in enumerate(self.phases):
            say = f"phase {phase.name!r}: "
            first = i == 0
            if first and phase.adapter in ("stack", "fuse"):
                raise ValueError(f"{say}adapter {phase.adapter} needs a phase before it")
            if phase.start != "last" and (first or phase.adapter in ("new", "fuse")):
                raise ValueError(f"{say}start {phase.start} needs a phase to go on from")
            if phase.task_adapter and not (first or phase.adapter in ("new", "stack")):
                raise ValueError(f"{say}task_adapter is for a new or stacked adapter")
            if phase.heads == "freeze" and first:
                raise ValueError(f"{say}there is no head to freeze yet")
            if phase.adapter == "fuse":
                ends = self.builds_on(i)
                if len(ends) < 2:
                    raise ValueError(f"{say}fuse needs two phases with adapters of their own")
                if any(p.adapter in ("stack", "fuse") for p in self.phases[:i]):
                    raise ValueError(f"{say}fuse takes phases of one adapter each")
            if self.fused(i) and phase.objective in ("mixup", "surgery"):
                raise ValueError(f"{say}a fusion is trained with macro or micro")
            if phase.start != "last" and self.phases[i - 1].adopt:
                raise ValueError(f"{say}an adopted adapter has no snapshots; start from last")
            if phase.adopt and not (first or phase.adapter == "new"):
                raise ValueError(f"{say}an adopted adapter continues nothing; write adapter: new")
            if phase.start != "last" and self.phases[i - 1].runs > 1:
                raise ValueError(f"{say}the phase before is an average of runs; start from last")
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError("every phase needs a name of its own")
        if isinstance(self.finish, dict):
            for name in self.finish:
                if name not in names:
                    raise ValueError(f"finish: no phase {name!r}; {did_you_mean(name, names)}")
            kinds = {phase.adapter for phase in self.phases}
            if names[-1] not in self.finish or kinds & {"stack", "fuse"}:
                raise ValueError("finish sums single adapters, the last phase's among them")
        elif self.finish != "last" and (self.phases[-1].runs > 1 or self.phases[-1].adopt):
            raise ValueError("the last phase has no snapshots; finish with last")
        return self

    def builds_on(self, i: int) -> tuple[int, ...]:
        """Indices of the phases whose adapters phase ``i`` goes on from, stacks on or fuses."""
        kind = self.phases[i].adapter
        if i == 0 or kind == "new":
            return ()
        if kind == "fuse":
            return tuple(j for j in range(i) if j + 1 == i or self.phases[j + 1].adapter == "new")
        return (i - 1,)

    def adopted(self, i: int) -> Phase | None:
        """The adopted phase whose adapter phase ``i`` is or goes on with."""
        phase, before = self.phases[i], self.builds_on(i)
        if phase.adopt:
            return phase
        return self.adopted(before[0]) if phase.adapter == "continue" and before else None

    def fused(self, i: int) -> bool:
        """Whether what phase ``i`` trains is a fusion, its own or one it goes on with."""
        before, kind = self.builds_on(i), self.phases[i].adapter
        return kind == "fuse" or (kind == "continue" and bool(before) and self.fused(before[0]))

    def head_from(self, i: int) -> int | None:
        """Index of the phase whose heads a phase with a new adapter keeps."""
        phase = self.phases[i]
        return i - 1 if i and phase.adapter == "new" and phase.heads != "new" else None

    @property
    def needed(self) -> tuple[int, ...]:
        """Indices of the phases that the last one depends on, in order, itself included."""
        wanted: set[int] = set()
        summed = self.finish if isinstance(self.finish, dict) else {}
        todo = [i for i, p in enumerate(self.phases) if p.name in summed]
        todo.append(len(self.phases) - 1)
        while todo:
            i = todo.pop()
            wanted.add(i)
            head = self.head_from(i)
            todo += [*self.builds_on(i), *([] if head is None else [head])]
        return tuple(sorted(wanted))

    @property
    def uses_shots(self) -> bool:
        """Whether the recipe's grid of shots makes more than one cell of this regime."""
        return any("grid" in phase.foreign_shots for phase in self.phases)

    @property
    def draws_shots(self) -> bool:
        """Whether a sample of shots is drawn at all."""
        return any(phase.foreign_shots - {"all"} for phase in self.phases)

    @property
    def per_target(self) -> bool:
        """Whether training differs from target to target."""
        return self.finish == "oracle" or any(phase.per_target for phase in self.phases)

    @property
    def upper_bound(self) -> bool:
        """Whether anything is chosen with the labels it is scored on."""
        return any(how == "oracle" for how in (self.finish, *(p.start for p in self.phases)))

    def describe(self) -> list[str]:
        """A line for each phase, and one for what differs besides."""
        finish: Any = self.finish
        if isinstance(finish, dict):
            finish = " + ".join(f"{weight:g} x {name}" for name, weight in finish.items())
        said = {
            "evaluated": None if finish == "last" else finish,
            "layers dropped in evaluation": self.evaluation_drop,
            "task adapter": self.task_adapter and self.task_adapter.describe(),
            "language adapter": self.language_adapter and self.language_adapter.describe(),
        }
        more = [f"{what}: {value}" for what, value in said.items() if value is not None]
        return [*(phase.describe() for phase in self.phases), *more]

    @property
    def evaluation_drop(self) -> int | None:
        """How many layers' adapters are skipped when it is evaluated."""
        last = self.phases[-1].drop
        return self.drop or (last if isinstance(last, int) else None)


_REGIMES = Catalog("regimes", lambda name, value: Regime.model_validate(value), ORDER)


def builtin_regimes() -> Mapping[str, Regime]:
    """The shipped regimes by name, in the order of `ORDER`."""
    return _REGIMES
