"""What comes with the package and what is registered: recipes, regimes, tasks, languages, methods.

Answers `new`, `ls` and `show`; reads files, writes none, imports no torch.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from adapterxlt.core.errors import UsageError, did_you_mean
from adapterxlt.core.showing import json_text

Listing = list[dict[str, Any]]


def recipe_folder() -> Path:
    """Where the shipped recipes are: in the checkout, or where an installation put them."""
    checkout = Path(__file__).resolve().parent.parent / "recipes"
    return checkout if checkout.is_dir() else Path(sys.prefix) / "share" / "adapterxlt" / "recipes"


def recipes() -> dict[str, Path]:
    """Shipped recipes by name: their path in the folder of recipes, without ``.yaml``."""
    folder = recipe_folder()
    return {
        str(path.relative_to(folder).with_suffix("")): path
        for path in sorted(folder.rglob("*.yaml"))
    }


def find(name: str) -> Path:
    """A recipe file by path, or a shipped one by name."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = recipes()
    if name in shipped:
        return shipped[name]
    raise UsageError(
        f"no recipe file and no shipped recipe {name!r}", hint=did_you_mean(name, shipped)
    )


def listing(what: str, store: str | None = None, backbone: str | None = None) -> Listing:
    """Rows of `adapterxlt ls WHAT`."""
    if what == "adapters":
        return _adapters(backbone, store)
    return _LISTINGS[what]() if what != "stages" else _stages(store)


def show(name: str, store: str | None = None) -> str:
    """A shipped recipe, regime or task as its file, a method in words, a stage's record as JSON."""
    from importlib import resources

    from adapterxlt.core.claims import builtin_claims
    from adapterxlt.core.methods import METHODS
    from adapterxlt.core.regimes import builtin_regimes
    from adapterxlt.core.tasks import TASKS

    if name in METHODS:
        return _method(name)
    if name in builtin_regimes():
        file = resources.files("adapterxlt") / "regimes" / f"{name}.yaml"
        return file.read_text(encoding="utf-8")
    if name in builtin_claims():
        file = resources.files("adapterxlt") / "claims" / f"{name}.yaml"
        return file.read_text(encoding="utf-8")
    if name in TASKS and not TASKS[name].lab:
        file = resources.files("adapterxlt") / "tasks" / f"{name}.yaml"
        return file.read_text(encoding="utf-8")
    shipped = recipes()
    if name in shipped:
        return shipped[name].read_text(encoding="utf-8")
    found = _record(name, store) if len(name) >= 6 else None
    if found is not None:
        return found
    known = [*builtin_regimes(), *builtin_claims(), *shipped, *METHODS, *TASKS]
    raise UsageError(f"nothing is called {name!r}", hint=did_you_mean(name, known))


def _record(prefix: str, store: str | None) -> str | None:
    from adapterxlt.run.study import store_root
    from adapterxlt.store.store import Store

    if not store_root(store).is_dir():
        return None
    opened = Store(store_root(store))
    keys = [key for key in opened if key.startswith(prefix)]
    if len(keys) > 1:
        raise UsageError(f"{len(keys)} stages begin with {prefix!r}", hint="give more digits")
    record = opened.read(keys[0]) if keys else None
    return json_text(record.body(), indent=1) + "\n" if record else None


def _adapters(backbone: str | None, store: str | None) -> Listing:
    """Language adapters that are known for a backbone by name: fetched, or in the store."""
    from adapterxlt.core.bases import BASES
    from adapterxlt.core.known import known_adapters
    from adapterxlt.run.hub import adapters
    from adapterxlt.run.study import store_root
    from adapterxlt.store.store import Store

    opened = Store(store_root(store)) if store_root(store).is_dir() else None
    stored: dict[str, tuple[str, str]] = {}
    for key in opened or ():
        record = opened.read(key) if opened is not None else None
        if record is not None and record.stage["kind"] == "adopt":
            of = record.facts["adopted"]
            stored[str(of["reference"])] = key[:12], of.get("made_for") or ""

    def row(base: str, language: str, reference: str) -> dict[str, Any]:
        place, _, name = reference.partition(":")
        key, made_for = stored.pop(reference, ("", ""))
        return {
            "backbone": base or made_for,
            "language": language,
            "adapter": reference,
            "fetched": "yes" if place in ("hub", "peft") and adapters.cached(name) else "",
            "in the store": key,
        }

    rows = [
        row(base, language, f"hub:{repository}")
        for base in ([backbone] if backbone is not None else BASES)
        for language, repository in sorted(known_adapters(base).items())
    ]
    return rows + [row("", "", reference) for reference in sorted(stored)]


def _recipes() -> Listing:
    from adapterxlt.core.yamlio import parse

    rows = []
    for name, path in recipes().items():
        value = parse(path.read_text(encoding="utf-8"), str(path)).value
        rows.append({"recipe": name, "question": " ".join(str(value.get("question", "")).split())})
    return rows


def _tasks() -> Listing:
    from adapterxlt.core.tasks import TASKS

    return [
        {
            "task": t.name,
            "kind": t.kind,
            "languages": len(t.languages) if t.languages else "",
            "labels": len(t.labels) or "",
            "metrics": " ".join(t.metrics),
            "hub": " ".join(dict.fromkeys(p.hub for p in t.places if p.hub)),
            "what": t.summary,
        }
        for t in TASKS.values()
    ]


def _languages() -> Listing:
    from adapterxlt import lab
    from adapterxlt.core import languages

    rows: Listing = [
        {
            "code": row.code,
            "name": "laboratory",
            "script": row.script,
            "family": f"distance {row.distance}",
            "joshi": row.resource,
            "cc100": row.resource,
            "wikipedia": row.resource,
        }
        for row in lab.LANGUAGES.values()
    ]
    for language in languages.all_languages():
        rows.append(
            {
                "code": language.code,
                "name": language.name,
                "script": language.script,
                "family": language.family,
                "joshi": languages.resource_class(language.code, "joshi"),
                "cc100": languages.resource_class(language.code, "cc100"),
                "wikipedia": languages.resource_class(language.code, "wikipedia"),
            }
        )
    return rows


def _methods() -> Listing:
    from adapterxlt.core.methods import METHODS

    return [
        {
            "method": m.name,
            "library": m.library,
            "role": " ".join(m.roles),
            "parameters": " ".join(f"{n}={_value(p.default)}" for n, p in m.parameters.items()),
            "what": m.summary,
        }
        for m in METHODS.values()
    ]


def _value(value: Any) -> str:
    """A value as a recipe writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _method(name: str) -> str:
    """A method's row in words."""
    from adapterxlt.core.methods import METHODS, clash

    row = METHODS[name]
    apart = [other for other in METHODS if clash(other, name) or clash(name, other)]
    facts = {
        "library": row.library,
        "role": " or ".join(f"{role} adapter" for role in row.roles),
        "invertible": "yes" if row.invertible else "no",
        "fusion": "yes" if row.fusible else "no",
        "leave_out": "yes" if row.leaves_out else "no",
        "not with": ", ".join(apart) or "-",
    }
    lines = [f"{row.name}: {row.summary}", ""]
    lines += [f"{what:11} {text}" for what, text in facts.items()]
    for parameter, about in row.parameters.items():
        more = f" ({about.range})" if about.range else ""
        lines += ["", f"{parameter}: {_value(about.default)}", f"    {about.doc}{more}"]
    return "\n".join(lines) + "\n"


def _regimes() -> Listing:
    from adapterxlt.core.regimes import builtin_regimes

    return [
        {"regime": r.name, "phases": " > ".join(p.name for p in r.phases), "what": r.summary}
        for r in builtin_regimes().values()
    ]


def _claims() -> Listing:
    from adapterxlt.core.claims import builtin_claims

    return [
        {
            "claim": c.name,
            "measures": " ".join(dict.fromkeys(part.measure for part in c.parts)),
            "what": c.claim,
        }
        for c in builtin_claims().values()
    ]


def _stages(store: str | None) -> Listing:
    from adapterxlt.run.study import store_root
    from adapterxlt.store.store import Store

    if not store_root(store).is_dir():
        raise UsageError("no store", where=str(store_root(store)), hint="see --store")
    opened = Store(store_root(store))
    rows = []
    for key in opened:
        record = opened.read(key)
        assert record is not None
        params = record.stage["params"]
        data = params.get("streams") or [params.get("data")]
        about = " + ".join(f"{d['task']}:{d['language']}" for d in data if d)
        rows.append(
            {
                "key": key[:12],
                "kind": record.stage["kind"],
                "data": about,
                "seconds": record.facts.get("seconds"),
            }
        )
    return rows


_LISTINGS = {
    "recipes": _recipes,
    "tasks": _tasks,
    "languages": _languages,
    "methods": _methods,
    "regimes": _regimes,
    "claims": _claims,
}
