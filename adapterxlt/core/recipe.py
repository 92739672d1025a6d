"""Recipes: the closed schema, and what follows from its fields.

A recipe is pure data; `core.loading` reads one from a file.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from adapterxlt import lab
from adapterxlt.core import languages
from adapterxlt.core.adapters import AdapterSpec
from adapterxlt.core.adoption import ANY, Adopt, as_entry, short_schema
from adapterxlt.core.claims import Claim, builtin_claims
from adapterxlt.core.regimes import Phase, Regime, builtin_regimes, tuples
from adapterxlt.core.specs import BASE_BUDGET, Budget, Closed, Positive, Shortcuts
from adapterxlt.core.tasks import PLACE_FIELDS, TASKS, Place, Task

Seed = Annotated[int, Field(ge=0, lt=2**31)]
MAX_REGIMES = 100
RegimeEntry = Annotated[
    Annotated[str, Tag("<name>")] | Annotated[Regime, Tag("<regime>")],
    Discriminator(lambda value: "<name>" if isinstance(value, str) else "<regime>"),
]
ClaimEntry = Annotated[
    Annotated[str, Tag("<name>")] | Annotated[Claim, Tag("<claim>")],
    Discriminator(lambda value: "<name>" if isinstance(value, str) else "<claim>"),
]
Classes = Annotated[
    Annotated[Literal["joshi", "cc100", "wikipedia"], Tag("<scheme>")]
    | Annotated[dict[str, tuple[str, ...]], Tag("<lists>")],
    Discriminator(lambda value: "<lists>" if isinstance(value, dict) else "<scheme>"),
]

Codes = tuple[str, ...]
Targets = Annotated[
    Annotated[Literal["all"], Tag("<all>")]
    | Annotated[Annotated[Codes, Field(min_length=1)], Tag("<list>")]
    | Annotated[Annotated[dict[str, Codes], Field(min_length=1)], Tag("<by task>")],
    Discriminator(
        lambda value: (
            "<by task>" if isinstance(value, dict) else "<all>" if value == "all" else "<list>"
        )
    ),
]


def _or_names(schema: dict[str, Any]) -> None:
    """For editors: a mapping whose keys may be given alone, as a list."""
    mapping = {word: schema.pop(word) for word in ("type", "additionalProperties")}
    schema["anyOf"] = [mapping, {"type": "array", "items": {"type": "string"}}]


def _or_auto(schema: dict[str, Any]) -> None:
    """For editors: the word that stands for adopting all there is."""
    schema["anyOf"].append({"const": "auto"})


def _languages_schema(schema: dict[str, Any]) -> None:
    """For editors: references for short, `auto` for all, and languages beside the other fields."""
    of = short_schema(schema["properties"]["adopt"]["additionalProperties"])
    adopt = {"anyOf": [{"const": "auto"}, {"type": "object", "additionalProperties": of}]}
    schema["properties"]["adopt"] = {
        **adopt,
        "description": schema["properties"]["adopt"]["description"],
    }
    schema["additionalProperties"] = of


class LanguageAdapters(Closed):
    """How a language adapter for each language is trained, by masked language modelling; or had."""

    model_config = ConfigDict(json_schema_extra=_languages_schema)

    adapter: AdapterSpec = AdapterSpec(method="seq_bn_inv")
    budget: Budget = Budget()
    seed: Seed = 0
    """One adapter serves every seed of the study; this is its own."""
    mask: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of sub-words predicted: 80 % masked, 10 % replaced, 10 % kept."""
    texts: tuple[str, ...] | None = None
    """Which monolingual texts of the data folder, e.g. [bible]; all when left out."""
    places: tuple[Place, ...] = ()
    """Text of your own in the place of the data folder's, e.g. [{files: "text/{language}.txt"}]."""
    combine: dict[str, Annotated[dict[str, float], Field(min_length=1)]] = Field(
        default_factory=dict
    )
    """Languages whose adapter is a weighted sum of trained ones, e.g. yo: {yo: 0.7, sw: 0.3}
    (language arithmetic)."""

    adopt: dict[str, Adopt] = Field(default_factory=dict)
    """Languages whose adapter somebody else trained, e.g. tr: hub:organization/name@revision, sw:
    ./folder, de: auto (from the table of `adapterxlt ls adapters`); or `auto` for all that it has.
    They may stand beside the other fields."""
    missing: Literal["train", "error"] = "train"
    """What becomes of languages that `auto` has nothing for."""
    allow_pickle: bool = False
    """Whether adopted weights may be pickles; each is opened in a process of its own, once."""

    @field_validator("texts", "places", mode="before")
    @classmethod
    def _sequence(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="before")
    @classmethod
    def _adopted(cls, value: Any) -> Any:
        """Languages beside the fields, and `auto` alone, are `adopt`."""
        if value == "auto":
            value = {"adopt": "auto"}
        if not isinstance(value, dict):
            return value
        beside = {k: v for k, v in value.items() if k not in cls.model_fields and is_code(k)}
        adopt = value.get("adopt", {})
        if adopt == "auto":
            adopt = {ANY: "auto"}
        if not beside and not isinstance(adopt, dict):
            return value
        rest = {k: v for k, v in value.items() if k not in beside}
        return {**rest, "adopt": {k: as_entry(v) for k, v in {**adopt, **beside}.items()}}


def is_code(name: Any) -> bool:
    """Whether a name is that of a language, known or in the laboratory."""
    if not isinstance(name, str):
        return False
    try:
        languages.get(name)
    except languages.UnknownLanguage:
        return name in lab.LANGUAGES
    return True


class Limits(Closed):
    """Upper bounds on the rows read, first rows first; for studies with little compute."""

    train: Positive | None = None
    """Rows of a training split that is read whole: the source's, or one with `shots: all`."""
    test: Positive | None = None
    """Rows of each test split."""
    text: Positive | None = None
    """Lines of each language's monolingual text."""


class Recipe(Closed):
    """One study: what is compared, on which data, from which backbone, for how long."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    """Names the folder of results."""
    question: str = ""
    """What the study answers, in one sentence."""
    backbone: str | None = None
    """`lab`, or a folder in the format of transformers; --backbone gives it too."""
    data: str | None = None
    """`lab`, `hub`, or a data folder; --data gives it too. Not needed by `files` of `datasets`."""
    datasets: dict[str, Task] = Field(default_factory=dict)
    """Tasks of your own, or what differs from the shipped task of a name."""
    source: str
    targets: Targets
    """Languages; or those of each task, e.g. {xnli: [sw, ur], xcopa: [qu]}; or `all`, the languages
    of each task's benchmark."""
    tasks: tuple[str, ...] = Field(min_length=1)
    intermediate: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, json_schema_extra=_or_names
    )
    """What regimes call `intermediate`: tasks and whose data for them, e.g. nli: [en, de]; or a
    list of tasks, for the source and all targets."""
    regimes: tuple[RegimeEntry, ...] = Field(min_length=1, max_length=MAX_REGIMES)
    """Names of built-in regimes, paths of regime files (*.yaml), or regimes written out."""
    shots: tuple[Positive, ...] = ()
    draws: tuple[Seed, ...] = (1,)
    """Seeds of the choice of shots."""
    seeds: tuple[Seed, ...] = (1,)
    """Seeds of training: initialization and order."""
    classes: Classes = "joshi"
    """Resource classes: a scheme of `adapterxlt ls languages`, or class: [codes]."""
    language_adapters: LanguageAdapters | None = Field(
        default=LanguageAdapters(),
        json_schema_extra=_or_auto,
    )
    """`null` for none: task adapters then work on the bare backbone. `auto` for `adopt: auto`."""
    task_adapter: AdapterSpec = AdapterSpec(method="seq_bn")
    budget: Budget = Budget()
    """Of every phase; what is left out is the paper's."""
    budgets: dict[str, Budget] = Field(default_factory=dict)
    """Of single phases, by the phase's name or as regime/phase; go before what the regime says."""
    limits: Limits = Limits()
    max_length: Annotated[int, Field(ge=8, le=8192)] = 128
    """Sub-words per sequence; longer tagging rows are split, longer texts cut."""
    precision: Literal["fp32", "bf16"] = "fp32"
    shortcuts: Shortcuts = Shortcuts()
    claims: tuple[ClaimEntry, ...] = ()
    """What the report gives verdicts on, the first as its answer: names of shipped claims, paths of
    claim files (*.yaml), or claims written out. When left out, all shipped ones that apply."""

    @field_validator("tasks", "regimes", "shots", "draws", "seeds", "claims", mode="before")
    @classmethod
    def _sequence(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("targets", mode="before")
    @classmethod
    def _targets(cls, value: Any) -> Any:
        return tuples(value) if isinstance(value, dict) else cls._sequence(value)

    @field_validator("datasets", mode="before")
    @classmethod
    def _over_shipped(cls, value: Any) -> Any:
        """An entry with the name of a shipped task says what differs from it."""
        if not isinstance(value, dict):
            return value
        return {name: _over_shipped(name, entry) for name, entry in value.items()}

    @field_validator("intermediate", mode="before")
    @classmethod
    def _intermediate(cls, value: Any) -> Any:
        names = isinstance(value, list) and all(isinstance(name, str) for name in value)
        return dict.fromkeys(value, ()) if names else tuples(value)

    @field_validator("classes", mode="before")
    @classmethod
    def _class_lists(cls, value: Any) -> Any:
        return tuples(value) if isinstance(value, dict) else value

    @property
    def regime_list(self) -> tuple[Regime, ...]:
        """The regimes in full, in the recipe's order; names are resolved when it is loaded."""
        return tuple(r if isinstance(r, Regime) else builtin_regimes()[r] for r in self.regimes)

    @property
    def claim_list(self) -> tuple[Claim, ...]:
        """The claims in full, in the recipe's order; of shipped ones, all that apply."""
        if self.claims:
            return tuple(c if isinstance(c, Claim) else builtin_claims()[c] for c in self.claims)
        regimes = [regime.name for regime in self.regime_list]
        return tuple(c for c in builtin_claims().values() if c.applies(regimes))

    def task(self, name: str) -> Task:
        """The task of a name: the recipe's own or the shipped one; labels may be left to its data.

        Raises:
            KeyError: there is none.
        """
        return self.datasets[name].filled() if name in self.datasets else TASKS[name]

    def knows(self, task: str) -> bool:
        """Whether there is a task of this name."""
        return task in self.datasets or task in TASKS

    @cached_property
    def all_targets(self) -> tuple[str, ...]:
        """Every target of any task, once."""
        by_task = self.targets if isinstance(self.targets, dict) else self.tasks
        found = (code for task in by_task for code in self.targets_of(task))
        return tuple(dict.fromkeys(found))

    def targets_of(self, task: str) -> tuple[str, ...]:
        """Targets of a task; of one that is only trained on, those of its benchmark or of all."""
        if isinstance(self.targets, tuple):
            return self.targets
        if isinstance(self.targets, dict):
            own = self.targets.get(task)
            return self.all_targets if own is None else own
        spoken = (self.task(task).languages if self.knows(task) else None) or ()
        return tuple(code for code in spoken if code != self.source)

    def scores_source(self, task: str) -> bool:
        """Whether the source is scored on a task: not where its benchmark is without it, nor where
        its own sentences are what translations are found by."""
        own = self.task(task)
        if own.kind == "retrieval":
            return False
        return own.languages is None or self.source in own.languages

    @property
    def is_lab(self) -> bool:
        """Whether anything in the study comes from the laboratory."""
        return "lab" in (self.data, self.backbone)

    def class_of(self, language: str) -> str:
        """Resource class of a language: high, mid, low, unseen, or the recipe's own name."""
        if isinstance(self.classes, dict):
            for name, members in self.classes.items():
                if language in members:
                    return name
            return "other"
        if language in lab.LANGUAGES:
            return lab.LANGUAGES[language].resource
        return languages.resource_class(language, self.classes)

    def distance_of(self, language: str) -> int | None:
        """Steps from the source: of the laboratory's languages as they were made, of others by the
        rule of `languages.distance`; None between the two."""
        if language in lab.LANGUAGES:
            return lab.steps(language, self.source)
        return None if self.source in lab.LANGUAGES else languages.distance(self.source, language)

    def members(self, word: str, task: str, target: str) -> tuple[str, ...]:
        """Languages that a word of a phase stands for, for a task and the cell's target."""
        if word == "source":
            return (self.source,)
        if word == "target":
            return (target,)
        if word == "targets":
            return self.targets_of(task)
        if word == "intermediate":
            return self.intermediate[task] or (self.source, *self.targets_of(task))
        members = tuple(t for t in self.targets_of(task) if self.class_of(t) == word)
        return members or (word,)

    def tasks_of(self, word: str, task: str) -> tuple[str, ...]:
        """Tasks that a word of a phase stands for, in a cell of ``task``."""
        if word == "task":
            return (task,)
        if word == "intermediate":
            return tuple(name for name in self.intermediate if name != task)
        return (word,)

    def trained_on(self, word: str, task: str) -> tuple[str, ...]:
        """As `tasks_of`, without tasks that nothing is trained on."""
        return tuple(name for name in self.tasks_of(word, task) if self.task(name).trains)

    def phase_budget(self, regime: Regime, phase: Phase) -> Budget:
        """The complete budget of a phase: recipe's own entries, regime's, recipe's, paper's.

        A phase keeps snapshots when any phase of its name does, so that regimes that need them
        and regimes that do not train it once.
        """
        budget = self._single_budget(regime, phase)
        # Regimes that are not known are told elsewhere, with the other faults.
        regimes = (builtin_regimes().get(r) if isinstance(r, str) else r for r in self.regimes)
        named = ((r, p) for r in regimes if r for p in r.phases if p.name == phase.name)
        kept = [budget.snapshots, *(self._single_budget(r, p).snapshots for r, p in named)]
        return Budget(snapshots=max((n for n in kept if n), default=None)).over(budget)

    def _single_budget(self, regime: Regime, phase: Phase) -> Budget:
        """The budget of a phase when no other one asks for snapshots of its name."""
        budget = phase.budget.over(self.budget.over(BASE_BUDGET))
        for name in (phase.name, f"{regime.name}/{phase.name}"):
            budget = self.budgets.get(name, Budget()).over(budget)
        return budget

    def phase_adapter(self, regime: Regime, i: int) -> AdapterSpec:
        """The task adapter that phase ``i`` trains: that of the phase which began it."""
        before = regime.builds_on(i)
        if regime.phases[i].adapter == "continue" and before:
            return self.phase_adapter(regime, before[0])
        spec = self.task_adapter
        for over in (regime.task_adapter, regime.phases[i].task_adapter):
            spec = over.over(spec) if over is not None else spec
        return spec

    def language_adapter(self, regime: Regime) -> AdapterSpec | None:
        """The language adapters that a regime's batches wear."""
        if self.language_adapters is None:
            return None
        spec, over = self.language_adapters.adapter, regime.language_adapter
        return over.over(spec) if over is not None else spec

    def adopts(self, language: str) -> Adopt | None:
        """What a language's adapter is adopted from, as the recipe says it; `auto` unresolved."""
        wanted = self.language_adapters
        if wanted is None or "+" in language or language in wanted.combine:
            return None
        found = wanted.adopt.get(language) or wanted.adopt.get(ANY)
        if found is None or found.allow_pickle or not wanted.allow_pickle:
            return found
        return found.model_copy(update={"allow_pickle": True})

    def language_budget(self) -> Budget:
        """The complete budget of a language adapter."""
        assert self.language_adapters is not None
        return self.language_adapters.budget.over(self.budget.over(BASE_BUDGET))


def _over_shipped(name: Any, entry: Any) -> Any:
    if not isinstance(entry, dict) or name not in TASKS:
        return {**entry, "name": name} if isinstance(entry, dict) else entry
    base = TASKS[name].model_dump(mode="json", exclude_unset=True)
    if PLACE_FIELDS & entry.keys() or "places" in entry:
        base.pop("places", None)
    return {**base, **entry, "name": name}
