"""Recipes: the closed schema, its reading with line numbers, overrides and semantic checks.

A recipe is pure data: reading one touches no data file and no model. Every fault is reported
at once, each with its line and a suggestion.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from adapterxlt import lab
from adapterxlt.core import languages, yamlio
from adapterxlt.core.errors import Fault, RecipeError, UsageError, did_you_mean
from adapterxlt.core.regimes import LANGUAGE_WORDS, Regime, builtin_regimes
from adapterxlt.core.specs import BASE_BUDGET, METHODS, AdapterSpec, Budget, Closed
from adapterxlt.core.tasks import TASKS

Seed = Annotated[int, Field(ge=0, lt=2**31)]
RegimeEntry = Annotated[
    Annotated[str, Tag("name")] | Annotated[Regime, Tag("regime")],
    Discriminator(lambda value: "name" if isinstance(value, str) else "regime"),
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

    @field_validator("texts", mode="before")
    @classmethod
    def _sequence(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


class Limits(Closed):
    """Upper bounds on the rows read, first rows first; for studies with little compute."""

    train: Annotated[int, Field(gt=0)] | None = None
    """Rows of the source's training split."""
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
    regimes: tuple[RegimeEntry, ...] = Field(min_length=1)
    """Names of built-in regimes, paths of regime files (*.yaml), or regimes written out."""
    shots: tuple[Annotated[int, Field(gt=0)], ...] = ()
    draws: tuple[Seed, ...] = (1,)
    """Seeds of the choice of shots."""
    seeds: tuple[Seed, ...] = (1,)
    """Seeds of training: initialization and order."""
    classes: Literal["joshi", "cc100"] | dict[str, tuple[str, ...]] = "joshi"
    """Resource classes: a scheme of `adapterxlt ls languages`, or class: [codes]."""
    language_adapters: LanguageAdapters | None = LanguageAdapters()
    """`null` for none: task adapters then work on the bare backbone."""
    task_adapter: AdapterSpec = AdapterSpec(method="seq_bn")
    budget: Budget = Budget()
    """Of every phase; what is left out is the paper's."""
    budgets: dict[str, Budget] = Field(default_factory=dict)
    """Of single phases, by the phase's name; goes before what the regime says."""
    limits: Limits = Limits()
    max_length: Annotated[int, Field(ge=8, le=8192)] = 128
    """Sub-words per sequence; longer tagging rows are split, longer texts cut."""
    precision: Literal["fp32", "bf16"] = "fp32"

    @field_validator("targets", "tasks", "regimes", "shots", "draws", "seeds", mode="before")
    @classmethod
    def _sequence(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("classes", mode="before")
    @classmethod
    def _class_lists(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
        return value

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

    def members(self, word: str) -> tuple[str, ...]:
        """Languages that a word of a phase's `languages` stands for, `target` left aside."""
        if word == "source":
            return (self.source,)
        if word == "targets":
            return self.targets
        members = tuple(t for t in self.targets if self.class_of(t) == word)
        return members or (word,)

    def phase_budget(self, phase_name: str, of_regime: Budget) -> Budget:
        """The complete budget of a phase: recipe's own entry, regime's, recipe's, paper's."""
        budget = of_regime.over(self.budget.over(BASE_BUDGET))
        return self.budgets.get(phase_name, Budget()).over(budget)

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

        out = io.StringIO()
        writer = YAML(typ="safe", pure=True)
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
        key = tuple(override.partition("=")[0].removesuffix("+").split("."))
        document.lines.update({p: 0 for p in document.lines if p[: len(key)] == key})
    value, faults = _read_regime_files(value, document)
    try:
        recipe = Recipe.model_validate(value)
    except ValidationError as error:
        faults += [_fault(item, document) for item in error.errors()]
        raise RecipeError(_in_order(faults)) from None
    faults += list(_semantic_faults(recipe, document))
    if faults:
        raise RecipeError(_in_order(faults))
    return LoadedRecipe(recipe, document, tuple(overrides))


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
        old = place.get(path[-1], [])
        if not isinstance(old, list):
            raise UsageError(f"{key.removesuffix('+')} is not a list", hint="use = instead of +=")
        item = old + (item if isinstance(item, list) else [item])
    place[path[-1]] = item
    return result


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
            faults += [_fault(item, inner, Regime) for item in error.errors()]
    if faults:
        raise RecipeError(faults)
    return {**value, "regimes": read}, faults


def _in_order(faults: Iterable[Fault]) -> list[Fault]:
    def line(fault: Fault) -> int:
        tail = fault.where.rpartition(":")[2]
        return int(tail) if tail.isdigit() else 0

    return sorted(dict.fromkeys(faults), key=line)


def _fault(error: Any, document: yamlio.Document, root: type[BaseModel] = Recipe) -> Fault:
    path = tuple(part for part in error["loc"] if part not in ("regime", "name-tag"))
    if "name" in error["loc"][2:3] and error["loc"][:1] == ("regimes",):
        path = error["loc"][:2]
    field = ".".join(str(part) for part in path)
    kind, where = error["type"], document.where(path)
    if kind == "extra_forbidden":
        hint = did_you_mean(str(path[-1]), _fields_at(root, path[:-1]))
        return Fault(f"unknown field {field!r}", where, hint)
    if kind == "missing":
        return Fault(f"field {field!r} is missing", where)
    got = error.get("input")
    shown = repr(got) if isinstance(got, (str, int, float, bool)) else type(got).__name__
    message = error["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    message = message.replace("valid tuple", "list").replace("valid dictionary", "mapping")
    return Fault(f"{field}: {message}, not {shown}" if field else message, where)


def _fields_at(root: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """Names of the fields at a place of the schema, for suggestions."""
    model: type[BaseModel] = root
    named: dict[str, type[BaseModel]] = {
        "regimes": Regime,
        "phases": _phase_model(),
        "budget": Budget,
        "budgets": Budget,
        "limits": Limits,
        "language_adapters": LanguageAdapters,
        "task_adapter": AdapterSpec,
        "adapter": AdapterSpec,
    }
    for part in path:
        if isinstance(part, str) and part in named:
            model = named[part]
    return list(model.model_fields)


def _phase_model() -> type[BaseModel]:
    from adapterxlt.core.regimes import Phase

    return Phase


def _language_fault(code: str) -> str | None:
    """A suggestion for an unknown language, or ``None`` when it is known."""
    if code in lab.LANGUAGES:
        return None
    if code.startswith("lab-"):
        return did_you_mean(code, lab.LANGUAGES)
    try:
        known = languages.canonical(code)
    except languages.UnknownLanguage as error:
        near = error.suggestions
        return f"did you mean {near[0]!r}?" if near else "see `adapterxlt ls languages`"
    return None if known == code else f"write {known!r}"


def _semantic_faults(recipe: Recipe, document: yamlio.Document) -> Iterable[Fault]:
    def fault(what: str, hint: str, *path: str | int) -> Fault:
        return Fault(what, document.where(path), hint)

    for path, code in [(("source",), recipe.source)] + [
        (("targets", i), target) for i, target in enumerate(recipe.targets)
    ]:
        hint = _language_fault(code)
        if hint is not None:
            yield fault(f"unknown language {code!r}", hint, *path)
    for i, target in enumerate(recipe.targets):
        if target == recipe.source:
            yield fault(f"target {target!r} is the source", "take it out", "targets", i)
    for name in ("targets", "tasks", "shots", "draws", "seeds", "regimes"):
        values = [r.name if isinstance(r, Regime) else r for r in getattr(recipe, name)]
        for i, item in enumerate(values):
            if item in values[:i]:
                yield fault(f"{item!r} stands twice in {name}", "take one out", name, i)
    for i, task in enumerate(recipe.tasks):
        if task not in TASKS:
            yield fault(f"unknown task {task!r}", did_you_mean(task, TASKS), "tasks", i)
    methods = [("task_adapter", recipe.task_adapter)]
    if recipe.language_adapters is not None:
        methods.append(("language_adapters", recipe.language_adapters.adapter))
    for place, spec in methods:
        if spec.method not in METHODS:
            hint = did_you_mean(spec.method, METHODS)
            yield fault(f"unknown method {spec.method!r}", hint, place, "method")
    if recipe.task_adapter.method in METHODS and recipe.task_adapter.row.invertible:
        yield fault(
            f"{recipe.task_adapter.method!r} has an invertible block, which only a language "
            "adapter can use",
            "write seq_bn",
            "task_adapter",
            "method",
        )
    yield from _regime_faults(recipe, fault)


def _regime_faults(recipe: Recipe, fault: Any) -> Iterable[Fault]:
    classes = {recipe.class_of(t) for t in recipe.targets if _language_fault(t) is None}
    # A budget for a built-in phase that no regime here uses is harmless: overrides drop regimes.
    phases = {phase.name for r in builtin_regimes().values() for phase in r.phases}
    for i, entry in enumerate(recipe.regimes):
        if isinstance(entry, str) and entry not in builtin_regimes():
            hint = did_you_mean(entry, builtin_regimes())
            yield fault(f"unknown regime {entry!r}", hint, "regimes", i)
            continue
        regime = entry if isinstance(entry, Regime) else builtin_regimes()[entry]
        phases |= {phase.name for phase in regime.phases}
        if regime.uses_shots and not recipe.shots:
            yield fault(
                f"regime {regime.name!r} needs shots", "add e.g. shots: [10, 100]", "regimes", i
            )
        for j, phase in enumerate(regime.phases):
            for word in phase.languages:
                known = word in LANGUAGE_WORDS or word in classes or _language_fault(word) is None
                if not known:
                    yield fault(
                        f"phase {phase.name!r}: {word!r} is no language, class or group",
                        did_you_mean(word, [*LANGUAGE_WORDS, *classes]),
                        "regimes",
                        i,
                        "phases",
                        j,
                        "languages",
                    )
            if isinstance(phase.shots, int) and phase.shots <= 0:
                yield fault(
                    f"phase {phase.name!r}: shots are positive", "", "regimes", i, "phases", j
                )
    for name in recipe.budgets:
        if name not in phases:
            hint = did_you_mean(name, phases)
            yield fault(f"no regime has a phase {name!r}", hint, "budgets", name)
