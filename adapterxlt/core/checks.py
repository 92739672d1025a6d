"""Faults of recipes in words: what the schema refuses, and what no schema can know.

Each names its line and, where a name is not known, the nearest one that is. Called by
`core.recipe` only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

from adapterxlt import lab
from adapterxlt.core import languages, yamlio
from adapterxlt.core.errors import Fault, did_you_mean
from adapterxlt.core.regimes import LANGUAGE_WORDS, Regime, builtin_regimes
from adapterxlt.core.specs import METHODS
from adapterxlt.core.tasks import TASKS

if TYPE_CHECKING:
    from adapterxlt.core.recipe import Recipe


def schema_faults(
    errors: Iterable[Any], document: yamlio.Document, root: type[BaseModel]
) -> list[Fault]:
    """pydantic's errors as faults, without those that only follow from others."""
    found = list(errors)
    places = [error["loc"] for error in found]

    def follows(error: Any) -> bool:
        at = error["loc"]
        deeper = any(loc != at and loc[: len(at)] == at for loc in places)
        return error["type"] == "too_short" and deeper

    return [_fault(error, document, root) for error in found if not follows(error)]


def _fault(error: Any, document: yamlio.Document, root: type[BaseModel]) -> Fault:
    *outer, last = error["loc"] or ("",)
    # Branches of unions have tags such as <name>, which stand nowhere in the recipe.
    path = tuple(part for part in outer if not str(part).startswith("<"))
    if error["type"] == "extra_forbidden" or not str(last).startswith("<"):
        path = (*path, last) if error["loc"] else path
    field = ".".join(str(part) for part in path)
    kind, where = error["type"], document.where(path)
    if kind == "extra_forbidden":
        hint = did_you_mean(str(path[-1]), _fields_at(root, path[:-1]))
        return Fault(f"unknown field {field!r}", where, hint)
    if kind == "missing":
        return Fault(f"field {field!r} is missing", where)
    got = error.get("input")
    shown = repr(got) if isinstance(got, (str, int, float, bool)) else type(got).__name__
    if kind == "too_short":
        return Fault(f"{field}: the list is empty", where)
    message = error["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    message = message.replace("valid tuple", "list").replace("valid dictionary", "mapping")
    return Fault(f"{field}: {message}, not {shown}" if field else message, where)


def _fields_at(root: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """Names of the fields at a place of the schema, for suggestions."""
    model = root
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation such as ``tuple[Phase, ...] | None`` holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(inner) for inner in get_args(annotation))
    return next((model for model in found if model is not None), None)


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


def semantic_faults(recipe: Recipe, document: yamlio.Document) -> Iterable[Fault]:
    def fault(what: str, hint: str, *path: str | int) -> Fault:
        return Fault(what, document.where(path), hint)

    for path, code in [(("source",), recipe.source)] + [
        (("targets", i), target) for i, target in enumerate(recipe.targets)
    ]:
        hint = _language_fault(code)
        if hint is not None:
            yield fault(f"unknown language {code!r}", hint, *path)
    if isinstance(recipe.classes, dict):
        for name, members in recipe.classes.items():
            for i, code in enumerate(members):
                hint = _language_fault(code)
                if hint is not None:
                    yield fault(f"unknown language {code!r}", hint, "classes", name, i)
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
    for name in recipe.budgets:
        if name not in phases:
            hint = did_you_mean(name, phases)
            yield fault(f"no regime has a phase {name!r}", hint, "budgets", name)
