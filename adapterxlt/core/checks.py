"""Faults of recipes in words: what the schema refuses, and what no schema can know.

Each names its line and, where a name is not known, the nearest one that is. Called by
`core.recipe` only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

from adapterxlt import lab
from adapterxlt.core import languages, yamlio
from adapterxlt.core.adapters import AdapterSpec
from adapterxlt.core.adoption import ANY
from adapterxlt.core.claims import builtin_claims
from adapterxlt.core.errors import Fault, did_you_mean
from adapterxlt.core.methods import METHODS, clash
from adapterxlt.core.regimes import LANGUAGE_WORDS, TASK_WORDS, Phase, Regime, builtin_regimes
from adapterxlt.core.tasks import KINDS, PLACE_FIELDS, TASKS, Task

if TYPE_CHECKING:
    from adapterxlt.core.recipe import Recipe

#: Faults of form, and of meaning, that are put in words: many look for a name that was meant.
MOST = 200
#: Cells of a study: a plan of so many takes a minute and some gigabytes.
MAX_CELLS = 500_000


def schema_faults(
    errors: Iterable[Any], document: yamlio.Document, root: type[BaseModel]
) -> list[Fault]:
    """pydantic's errors as faults, without those that only follow from others; of very many the
    first ones."""
    found = list(errors)[:MOST]
    places = [error["loc"] for error in found]

    def follows(error: Any) -> bool:
        at = error["loc"]
        if error["type"] != "too_short":
            return False
        return any(loc != at and loc[: len(at)] == at for loc in places)

    return [_fault(error, document, root) for error in found if not follows(error)]


def _fault(error: Any, document: yamlio.Document, root: type[BaseModel]) -> Fault:
    *outer, last = error["loc"] or ("",)
    # Branches of unions have tags such as <name>, which stand nowhere in the recipe.
    path = tuple(part for part in outer if not str(part).startswith("<"))
    if error["type"] == "extra_forbidden" or not str(last).startswith("<"):
        path = (*path, last) if error["loc"] else path
    path = _as_written(path, document)
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
    if kind == "value_error" and isinstance(got, dict):
        return Fault(f"{field}: {message}" if field else message, where)
    return Fault(f"{field}: {message}, not {shown}" if field else message, where)


def _as_written(path: tuple[str | int, ...], document: yamlio.Document) -> tuple[str | int, ...]:
    """The path as it stands in the file: a task's only place may be in the task itself."""
    for i in range(len(path) - 1):
        if path[i : i + 2] == ("places", 0) and path[: i + 1] not in document.lines:
            return (*path[:i], *path[i + 2 :])
    return path


def _fields_at(root: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """Names of the fields at a place of the schema, for suggestions."""
    model = root
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return [*model.model_fields, *(PLACE_FIELDS if model is Task else ())]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation such as ``tuple[Phase, ...] | None`` holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(inner) for inner in get_args(annotation))
    return next((model for model in found if model is not None), None)


@lru_cache(maxsize=1000)
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

    given = list(_targets(recipe))
    for path, code in [(("source",), recipe.source), *given]:
        hint = _language_fault(code)
        if hint is not None:
            yield fault(f"unknown language {code!r}", hint, *path)
    if isinstance(recipe.classes, dict):
        for name, members in recipe.classes.items():
            for i, code in enumerate(members):
                hint = _language_fault(code)
                if hint is not None:
                    yield fault(f"unknown language {code!r}", hint, "classes", name, i)
    for code in recipe.language_adapters.adopt if recipe.language_adapters is not None else ():
        hint = _language_fault(code) if code != ANY else None
        if hint is not None:
            beside = ("language_adapters", code) in document.lines
            at = ("language_adapters", *(() if beside else ("adopt",)), code)
            yield fault(f"unknown language {code!r}", hint, *at)
    for path, target in given:
        if target == recipe.source:
            yield fault(f"target {target!r} is the source", "take it out", *path)
    lists: list[tuple[tuple[str | int, ...], Any]] = [
        ((name,), getattr(recipe, name)) for name in ("tasks", "shots", "draws", "seeds", "regimes")
    ]
    if isinstance(recipe.targets, dict):
        lists += [(("targets", task), codes) for task, codes in recipe.targets.items()]
    elif isinstance(recipe.targets, tuple):
        lists.append((("targets",), recipe.targets))
    for path, members in lists:
        values = [r.name if isinstance(r, Regime) else r for r in members]
        before: set[Any] = set()
        for i, item in enumerate(values):
            if item in before:
                yield fault(f"{item!r} stands twice in {path[-1]}", "take one out", *path, i)
            before.add(item)
    yield from _task_faults(recipe, fault)
    cells = max(1, len(recipe.shots))
    for several in (recipe.regimes, recipe.tasks, recipe.draws, recipe.seeds, recipe.all_targets):
        cells *= max(1, len(several))
    if cells > MAX_CELLS:
        what = f"up to {cells:,} cells, more than {MAX_CELLS:,}"
        yield fault(what, "make several recipes", "name")
    for task, members in recipe.intermediate.items():
        for i, code in enumerate(members):
            hint = _language_fault(code)
            if hint is not None:
                yield fault(f"unknown language {code!r}", hint, "intermediate", task, i)
    specs: list[tuple[tuple[str | int, ...], AdapterSpec]] = [
        (("task_adapter",), recipe.task_adapter)
    ]
    if recipe.language_adapters is not None:
        if isinstance(recipe.language_budget().batch, dict):
            what = "a language adapter has no tasks to give batches to"
            yield fault(what, "write language_adapters.budget.batch: 32", "budget", "batch")
        specs.append((("language_adapters", "adapter"), recipe.language_adapters.adapter))
        for code, parts in recipe.language_adapters.combine.items():
            for name in (code, *parts):
                hint = _language_fault(name)
                if hint is not None:
                    place = ("language_adapters", "combine", code)
                    yield fault(f"unknown language {name!r}", hint, *place)
    yield from _spec_faults(specs, fault)
    yield from _regime_faults(recipe, fault)
    yield from _claim_faults(recipe, fault)


def _claim_faults(recipe: Recipe, fault: Any) -> Iterable[Fault]:
    """Claims and regimes in them that nobody knows; one that this study lacks is not measured."""
    own = [entry.name if isinstance(entry, Regime) else entry for entry in recipe.regimes]
    regimes = [*own, *builtin_regimes()]
    for i, entry in enumerate(recipe.claims):
        if isinstance(entry, str):
            if entry not in builtin_claims():
                hint = did_you_mean(entry, builtin_claims())
                yield fault(f"unknown claim {entry!r}", hint, "claims", i)
            continue
        for j, part in enumerate(entry.parts):
            for name in (*part.regime, *(part.than or ())):
                if name not in regimes:
                    what = f"claim {entry.name!r}: unknown regime {name!r}"
                    yield fault(what, did_you_mean(name, regimes), "claims", i, "parts", j)


def _targets(recipe: Recipe) -> Iterable[tuple[tuple[str | int, ...], str]]:
    """Every target that is written, with its place."""
    if isinstance(recipe.targets, dict):
        for task, codes in recipe.targets.items():
            yield from ((("targets", task, i), code) for i, code in enumerate(codes))
    elif isinstance(recipe.targets, tuple):
        yield from ((("targets", i), code) for i, code in enumerate(recipe.targets))


def _task_faults(recipe: Recipe, fault: Any) -> Iterable[Fault]:
    """Tasks that are not known, or have no targets."""
    known = [*recipe.datasets, *TASKS]
    for i, task in enumerate(recipe.tasks):
        if not recipe.knows(task):
            yield fault(f"unknown task {task!r}", did_you_mean(task, known), "tasks", i)
        elif isinstance(recipe.targets, dict) and not recipe.targets.get(task):
            yield fault(f"task {task!r} has no targets", f"add {task}: [...]", "targets")
        elif not recipe.targets_of(task):
            hint = "list targets: the task names no languages of its own"
            yield fault(f"task {task!r} has no targets", hint, "targets")
    if isinstance(recipe.targets, dict):
        for task in recipe.targets:
            if task not in recipe.tasks:
                hint = did_you_mean(task, recipe.tasks)
                yield fault(f"targets of {task!r}, which is no task here", hint, "targets", task)
    for task in recipe.intermediate:
        if not recipe.knows(task):
            hint = did_you_mean(task, known)
            yield fault(f"unknown task {task!r}", hint, "intermediate", task)
        elif not recipe.task(task).trains:
            what = f"nothing is trained on {task!r}"
            yield fault(what, "take it out", "intermediate", task)


def _spec_faults(specs: Iterable[tuple[Any, AdapterSpec]], fault: Any) -> Iterable[Fault]:
    for place, spec in specs:
        for field, what, hint in spec.faults():
            yield fault(what, hint, *place, field)


def _regime_faults(recipe: Recipe, fault: Any) -> Iterable[Fault]:
    classes = {recipe.class_of(t) for t in recipe.all_targets if _language_fault(t) is None}
    regimes: dict[str, Regime] = {}
    for i, entry in enumerate(recipe.regimes):
        if isinstance(entry, str) and entry not in builtin_regimes():
            hint = did_you_mean(entry, builtin_regimes())
            yield fault(f"unknown regime {entry!r}", hint, "regimes", i)
            continue
        regime = entry if isinstance(entry, Regime) else builtin_regimes()[entry]
        regimes[regime.name] = regime
        if regime.uses_shots and not recipe.shots:
            yield fault(
                f"regime {regime.name!r} needs shots", "add e.g. shots: [10, 100]", "regimes", i
            )
        yield from _untrained_faults(recipe, regime, i, fault)
        specs = [
            ("task_adapter", regime.task_adapter),
            ("language_adapter", regime.language_adapter),
        ]
        given: list[tuple[tuple[str | int, ...], AdapterSpec]] = [
            (("regimes", i, name), spec) for name, spec in specs if spec is not None
        ]
        for j, phase in enumerate(regime.phases):
            at: tuple[str | int, ...] = ("regimes", i, "phases", j)
            if phase.task_adapter is not None:
                given.append(((*at, "task_adapter"), phase.task_adapter))
            yield from _phase_faults(recipe, regime, j, classes, fault, at)
        spec_faults = list(_spec_faults(given, fault))
        yield from spec_faults or _method_faults(recipe, regime, i, fault)
    odd = recipe.budgets.keys() - _phase_names(regimes)
    # A budget for a built-in phase that no regime here uses is harmless: overrides drop regimes.
    phases = _phase_names({**builtin_regimes(), **regimes}) if odd else set()
    for name in recipe.budgets:
        if name in odd and name not in phases:
            hint = did_you_mean(name, phases)
            yield fault(f"no regime has a phase {name!r}", hint, "budgets", name)


def _phase_names(regimes: Mapping[str, Regime]) -> set[str]:
    """What a recipe's `budgets` may be of."""
    of = [(regime.name, phase.name) for regime in regimes.values() for phase in regime.phases]
    return {phase for _, phase in of} | {f"{name}/{phase}" for name, phase in of}


def _untrained_faults(recipe: Recipe, regime: Regime, at: int, fault: Any) -> Iterable[Fault]:
    """What a regime asks of a task that cannot give it: training where there is none, mixtures."""
    place = ("regimes", at)
    for task in (name for name in recipe.tasks if recipe.knows(name)):
        kind = recipe.task(task).kind
        mixes = any(p.objective == "mixup" and "task" in p.tasks for p in regime.phases)
        if mixes and not KINDS[kind].items:
            what = f"regime {regime.name!r} mixes items, which {task!r} ({kind}) has none of"
            yield fault(what, "take the regime or the task out", *place)
        if KINDS[kind].trains:
            continue
        untrained = [p for p in regime.phases if not _trained(recipe, p, task)]
        wants: list[Any] = [p.start for p in regime.phases if p in untrained]
        wants += [regime.finish] if regime.phases[-1] in untrained else []
        fuses = any(phase.adapter == "fuse" for phase in regime.phases)
        if regime.uses_shots or fuses or any(want != "last" for want in wants):
            what = f"regime {regime.name!r} trains the task, and nothing is trained on {task!r}"
            yield fault(what, "zero-shot and intermediate training are possible", *place)


def _trained(recipe: Recipe, phase: Phase, task: str) -> bool:
    names = (name for word in phase.tasks for name in recipe.tasks_of(word, task))
    # Names that nobody knows are told elsewhere, with the other faults.
    return any(recipe.task(name).trains for name in names if recipe.knows(name))


def _method_faults(recipe: Recipe, regime: Regime, at: int, fault: Any) -> Iterable[Fault]:
    """Adapters that cannot do what a regime asks of them: their part, their place in a stack."""
    language = recipe.language_adapter(regime)
    if any(spec.faults() for spec in (recipe.task_adapter, language) if spec is not None):
        return
    own = regime.task_adapter is not None or any(p.task_adapter for p in regime.phases)
    place: tuple[str | int, ...] = ("regimes", at) if own else ("task_adapter", "method")
    if language is not None and "language" not in language.row.roles:
        what = f"{language.method!r} cannot be a language adapter"
        yield fault(what, "write seq_bn_inv", "language_adapters", "adapter", "method")
        return
    for i, phase in enumerate(regime.phases):
        if regime.adopted(i) is not None:
            continue  # what its adapter is, is known when it has been looked at
        method = recipe.phase_adapter(regime, i).method
        if "task" not in METHODS[method].roles:
            yield fault(f"{method!r} is for language adapters only", "write seq_bn", *place)
            return
        trained = [j for j in regime.builds_on(i) if regime.adopted(j) is None]
        below = [recipe.phase_adapter(regime, j).method for j in trained]
        if phase.adapter == "fuse":
            for name in below:
                if not METHODS[name].fusible:
                    hint = "write seq_bn, or take the regime out"
                    yield fault(f"{name!r} cannot be fused, as {regime.name!r} asks", hint, *place)
        lower = below if phase.adapter == "stack" else []
        if language is not None and phase.wear != "none":
            lower = [language.method, *lower]
        for name in lower:
            reason = clash(name, method)
            if reason:
                what = f"{method!r} cannot be stacked on {name!r}: {reason}"
                hint = "write wear: none, language_adapters: null, or another method"
                yield fault(what, hint, *place)


def _phase_faults(
    recipe: Recipe, regime: Regime, j: int, classes: set[str], fault: Any, at: tuple[str | int, ...]
) -> Iterable[Fault]:
    phase = regime.phases[j]
    say = f"phase {phase.name!r}"
    if phase.adopt:
        lacking = [task for task in recipe.tasks if not {task, "task"} & phase.adopt.keys()]
        strange = [task for task in phase.adopt if task not in ("task", *recipe.tasks)]
        for task in lacking:
            yield fault(f"{say} adopts nothing for {task!r}", f"add {task}: hub:…", *at)
        for task in strange:
            hint = did_you_mean(task, recipe.tasks)
            yield fault(f"{say} adopts for {task!r}, which is no task of it", hint, *at, "adopt")
    for task, words, _ in phase.parts:
        if task not in TASK_WORDS and not recipe.knows(task):
            hint = did_you_mean(task, [*TASK_WORDS, *recipe.datasets, *TASKS])
            yield fault(f"{say}: unknown task {task!r}", hint, *at, "tasks")
        if task == "intermediate":
            for own in recipe.tasks:
                if not recipe.tasks_of(task, own):
                    what = f"regime {regime.name!r} needs an intermediate task besides {own!r}"
                    hint = f"add e.g. intermediate: {{nli: [{recipe.source}]}}"
                    yield fault(what, hint, *at[:2])
        yield from _word_faults(words, say, classes, fault, (*at, "languages"))
        if "intermediate" in words and task != "intermediate":
            hint = "write source, targets or codes"
            yield fault(f"{say}: languages 'intermediate' of {task!r}", hint, *at, "languages")
    if isinstance(phase.wear, tuple):
        if "intermediate" in phase.wear:
            hint = "write source, targets or codes"
            yield fault(f"{say}: languages 'intermediate' to wear", hint, *at, "wear")
        yield from _word_faults(phase.wear, say, classes, fault, (*at, "wear"))
    batch = recipe.phase_budget(regime, phase).batch
    if isinstance(batch, dict) and set(batch) != set(phase.tasks):
        what = f"regime {regime.name!r}: batches of phase {phase.name!r} by task"
        names = ", ".join(f"{task}: 8" for task in phase.tasks)
        yield fault(what, f"write batch: {{{names}}}", *at)
    wants = [phase.start] if j else []
    before = regime.phases[j - 1]
    yield from _snapshot_faults(recipe, regime, before, wants, fault, at)
    if j == len(regime.phases) - 1 and not isinstance(regime.finish, dict):
        yield from _snapshot_faults(recipe, regime, phase, [regime.finish], fault, at[:2])


def _snapshot_faults(
    recipe: Recipe, regime: Regime, phase: Phase, wants: list[Any], fault: Any, at: Any
) -> Iterable[Fault]:
    kept = recipe.phase_budget(regime, phase).snapshots or 1
    for want in wants:
        needs = want if isinstance(want, int) else 1 if want == "last" else 2
        if needs > kept:
            what = f"regime {regime.name!r} wants the snapshot {want} of phase {phase.name!r}"
            hint = f"add budgets: {{{phase.name}: {{snapshots: 10}}}}"
            yield fault(f"{what}, which keeps {kept}", hint, *at)
        if want in ("oracle", "source-dev") and "task" not in phase.tasks:
            what = f"regime {regime.name!r}: {want} needs phase {phase.name!r} to train the task"
            yield fault(what, "write start: last", *at)


def _word_faults(
    words: Iterable[str], say: str, classes: set[str], fault: Any, at: tuple[str | int, ...]
) -> Iterable[Fault]:
    for word in words:
        known = word in LANGUAGE_WORDS or word in classes or _language_fault(word) is None
        if not known:
            hint = did_you_mean(word, [*LANGUAGE_WORDS, *classes])
            yield fault(f"{say}: {word!r} is no language, class or group", hint, *at)
