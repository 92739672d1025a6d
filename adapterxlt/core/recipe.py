"""Recipes: the closed schema, its reading with line numbers, overrides and semantic checks.

A recipe is pure data: reading one touches no data file and no model. Every fault is reported
at once, each with its line and a suggestion.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from adapterxlt import lab
from adapterxlt.core import languages, yamlio
from adapterxlt.core.adapters import AdapterSpec
from adapterxlt.core.checks import schema_faults, semantic_faults
from adapterxlt.core.errors import Fault, RecipeError, UsageError
from adapterxlt.core.regimes import Phase, Regime, builtin_regimes, tuples
from adapterxlt.core.specs import BASE_BUDGET, Budget, Closed

Seed = Annotated[int, Field(ge=0, lt=2**31)]
RegimeEntry = Annotated[
    Annotated[str, Tag("<name>")] | Annotated[Regime, Tag("<regime>")],
    Discriminator(lambda value: "<name>" if isinstance(value, str) else "<regime>"),
]
Classes = Annotated[
    Annotated[Literal["joshi", "cc100"], Tag("<scheme>")]
    | Annotated[dict[str, tuple[str, ...]], Tag("<lists>")],
    Discriminator(lambda value: "<lists>" if isinstance(value, dict) else "<scheme>"),
]


class LanguageAdapters(Closed):
    """How one language adapter per language is trained, by masked language modelling."""

    adapter: AdapterSpec = AdapterSpec(method="seq_bn_inv")
    budget: Budget = Budget()
    seed: Seed = 0
    """One adapter serves every seed of the study; this is its own."""
    mask: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of sub-words predicted: 80 % masked, 10 % replaced, 10 % kept."""
    texts: tuple[str, ...] | None = None
    """Which monolingual texts of the data folder, e.g. [bible]; all when left out."""
    combine: dict[str, Annotated[dict[str, float], Field(min_length=1)]] = Field(
        default_factory=dict
    )
    """Languages whose adapter is a weighted sum of trained ones, e.g. yo: {yo: 0.7, sw: 0.3}
    (language arithmetic)."""

    @field_validator("texts", mode="before")
    @classmethod
    def _sequence(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


class Limits(Closed):
    """Upper bounds on the rows read, first rows first; for studies with little compute."""

    train: Annotated[int, Field(gt=0)] | None = None
    """Rows of a training split that is read whole: the source's, or one with `shots: all`."""
    test: Annotated[int, Field(gt=0)] | None = None
    """Rows of each test split."""
    text: Annotated[int, Field(gt=0)] | None = None
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
    """`lab`, or a data folder; --data gives it too."""
    source: str
    targets: tuple[str, ...] = Field(min_length=1)
    tasks: tuple[str, ...] = Field(min_length=1)
    intermediate: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """What regimes call `intermediate`: tasks and whose data for them, e.g. nli: [en, de]; or a
    list of tasks, for the source and all targets."""
    regimes: tuple[RegimeEntry, ...] = Field(min_length=1)
    """Names of built-in regimes, paths of regime files (*.yaml), or regimes written out."""
    shots: tuple[Annotated[int, Field(gt=0)], ...] = ()
    draws: tuple[Seed, ...] = (1,)
    """Seeds of the choice of shots."""
    seeds: tuple[Seed, ...] = (1,)
    """Seeds of training: initialization and order."""
    classes: Classes = "joshi"
    """Resource classes: a scheme of `adapterxlt ls languages`, or class: [codes]."""
    language_adapters: LanguageAdapters | None = LanguageAdapters()
    """`null` for none: task adapters then work on the bare backbone."""
    task_adapter: AdapterSpec = AdapterSpec(method="seq_bn")
    budget: Budget = Budget()
    """Of every phase; what is left out is the paper's."""
    budgets: dict[str, Budget] = Field(default_factory=dict)
    """Of single phases, by the phase's name or as regime/phase; go before what the regime says."""
    limits: Limits = Limits()
    max_length: Annotated[int, Field(ge=8, le=8192)] = 128
    """Sub-words per sequence; longer tagging rows are split, longer texts cut."""
    precision: Literal["fp32", "bf16"] = "fp32"

    @field_validator("targets", "tasks", "regimes", "shots", "draws", "seeds", mode="before")
    @classmethod
    def _sequence(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

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

    def members(self, word: str, task: str, target: str) -> tuple[str, ...]:
        """Languages that a word of a phase stands for, for a task and the cell's target."""
        if word == "source":
            return (self.source,)
        if word == "target":
            return (target,)
        if word == "targets":
            return self.targets
        if word == "intermediate":
            return self.intermediate[task] or (self.source, *self.targets)
        members = tuple(t for t in self.targets if self.class_of(t) == word)
        return members or (word,)

    def tasks_of(self, word: str, task: str) -> tuple[str, ...]:
        """Tasks that a word of a phase stands for, in a cell of ``task``."""
        if word == "task":
            return (task,)
        if word == "intermediate":
            return tuple(name for name in self.intermediate if name != task)
        return (word,)

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

    def language_budget(self) -> Budget:
        """The complete budget of a language adapter."""
        assert self.language_adapters is not None
        return self.language_adapters.budget.over(self.budget.over(BASE_BUDGET))


@dataclass(frozen=True)
class LoadedRecipe:
    """A valid recipe with the file it came from, so that later faults can name a line."""

    recipe: Recipe
    document: yamlio.Document
    overrides: tuple[str, ...] = ()

    def where(self, *path: str | int) -> str:
        return self.document.where(path)

    @property
    def folder(self) -> FilePath:
        """Paths in the recipe are relative to this."""
        return FilePath(self.document.name).parent

    def resolved_text(self) -> str:
        """The recipe with every default filled in, as YAML that reads back equal."""
        import io

        from ruamel.yaml import YAML
        from ruamel.yaml.representer import SafeRepresenter

        out = io.StringIO()

        class Representer(SafeRepresenter):  # type: ignore[misc]
            """Quotes all text but plain words: the emitter leaves some signs bare that its own
            reader takes for structure (``[?a]``) or for a line break."""

        def text(self: Any, value: str) -> Any:
            style = None if re.fullmatch(r"[A-Za-z0-9][\w./-]*", value) else '"'
            return self.represent_scalar("tag:yaml.org,2002:str", value, style=style)

        Representer.add_representer(str, text)
        writer = YAML(typ="safe", pure=True)
        writer.Representer = Representer
        writer.default_flow_style = None
        writer.width = 100
        writer.dump(self.recipe.model_dump(mode="json", exclude_none=False), out)
        return out.getvalue()


def load_recipe(path: str | FilePath, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read, override and check a recipe file.

    Args:
        path: a YAML file.
        overrides: ``key=value``, ``key.inner=value`` or ``key+=value``, values in YAML.

    Raises:
        UsageError: the file cannot be read or an override has no ``=``.
        RecipeError: with every fault found.
    """
    path = FilePath(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        hint = "see `adapterxlt ls recipes`"
        raise UsageError("no such recipe", where=str(path), hint=hint) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(path)) from None
    return parse_recipe(text, str(path), overrides)


def parse_recipe(text: str, name: str, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """As `load_recipe`, from text."""
    document = yamlio.parse(text, name)
    if not isinstance(document.value, dict):
        raise RecipeError([Fault("a recipe is a mapping of fields", name)])
    value = document.value
    for override in overrides:
        value = _override(value, override)
        key = override.partition("=")[0].removesuffix("+").split(".")
        document.overridden[tuple(key)] = override
    value, faults = _read_regime_files(value, document)
    try:
        recipe = Recipe.model_validate(value)
    except ValidationError as error:
        faults += schema_faults(error.errors(), document, Recipe)
        faults += _faults_of_the_rest(value, {item["loc"][0] for item in error.errors()}, document)
        raise RecipeError(_in_order(faults)) from None
    faults += list(semantic_faults(recipe, document))
    if faults:
        raise RecipeError(_in_order(faults))
    return LoadedRecipe(recipe, document, tuple(overrides))


def _faults_of_the_rest(
    value: dict[str, Any], faulty: set[Any], document: yamlio.Document
) -> list[Fault]:
    """What can be said of a recipe's meaning when some of its fields are not readable."""
    if faulty & {"shots", "classes", "regimes"}:
        return []
    try:
        rest = Recipe.model_validate({k: v for k, v in value.items() if k not in faulty})
    except ValidationError:
        return []
    return list(semantic_faults(rest, document))


def json_schema() -> dict[str, Any]:
    """JSON Schema of recipes, for editors."""
    schema = TypeAdapter(Recipe).json_schema()
    schema["title"] = "adapterxlt recipe"
    return schema


def _override(value: dict[str, Any], override: str) -> dict[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(f"override {override!r} has no value", hint="write key=value")
    append = key.endswith("+")
    path = key.removesuffix("+").split(".")
    item = yamlio.parse(text, f"override {override!r}").value
    result = dict(value)
    place = result
    for name in path[:-1]:
        inner = place.get(name)
        place[name] = dict(inner) if isinstance(inner, dict) else {}
        place = place[name]
    if append:
        old = place.get(path[-1], _default_list(path))
        if not isinstance(old, list):
            raise UsageError(f"{key.removesuffix('+')} is not a list", hint="use = instead of +=")
        item = old + (item if isinstance(item, list) else [item])
    place[path[-1]] = item
    return result


def _default_list(path: list[str]) -> list[Any]:
    """What a list that the file leaves out has as its default."""
    field = Recipe.model_fields.get(path[0]) if len(path) == 1 else None
    return list(field.default) if field is not None and isinstance(field.default, tuple) else []


def _read_regime_files(
    value: dict[str, Any], document: yamlio.Document
) -> tuple[dict[str, Any], list[Fault]]:
    """Entries of `regimes` that are paths are replaced by what the file says."""
    entries = value.get("regimes")
    if not isinstance(entries, list):
        return value, []
    faults: list[Fault] = []
    read: list[Any] = []
    for i, entry in enumerate(entries):
        read.append(entry)
        if not isinstance(entry, str) or not entry.endswith((".yaml", ".yml")):
            continue
        path = FilePath(document.name).parent / entry
        try:
            inner = yamlio.parse(path.read_text(encoding="utf-8"), str(path))
            Regime.model_validate(inner.value)
            read[i] = inner.value
        except (OSError, UnicodeDecodeError) as error:
            where = document.where(("regimes", i))
            faults.append(Fault(f"regime file {entry!r} cannot be read ({error})", where))
        except RecipeError as error:
            faults += error.faults
        except ValidationError as error:
            faults += schema_faults(error.errors(), inner, Regime)
    if faults:
        raise RecipeError(_in_order(faults))
    return {**value, "regimes": read}, faults


def _in_order(faults: Iterable[Fault]) -> list[Fault]:
    def line(fault: Fault) -> int:
        tail = fault.where.rpartition(":")[2]
        return int(tail) if tail.isdigit() else 0

    return sorted(dict.fromkeys(faults), key=line)
