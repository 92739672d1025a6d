"""An export handed over: the files that load it, and a card, in a folder written at once.

It reads study and store, and leaves the files to `run.exporting` and the words to `report.card`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from adapterxlt import lab
from adapterxlt.core import languages
from adapterxlt.core.composition import compose
from adapterxlt.core.errors import UsageError
from adapterxlt.core.exports import Export, Piece, Role
from adapterxlt.core.plan import Cell
from adapterxlt.report.card import card
from adapterxlt.report.licences import licence
from adapterxlt.report.results import collect, upper_bounds
from adapterxlt.run.exporting import SCRIPT, Exported, export_cell
from adapterxlt.run.study import Study
from adapterxlt.store.files import write_folder

CARD = "README.md"


def hand_over(study: Study, cell: Cell, role: Role, folder: Path) -> Path:
    """Write a finished cell, or its language or task adapter, as a folder; returns the folder.

    Raises:
        UsageError: something is in the folder; or as `run.exporting.export_cell`.
    """
    _check_empty(folder)
    exported = export_cell(study, study.plan.cells[cell], role)
    rows = collect(study, lambda other: _alike(other) == _alike(cell))
    text = card(describe(study, cell, exported), rows)
    try:
        write_folder(folder.absolute(), {**exported.files, CARD: text.encode()})
    except OSError:
        # Somebody else was faster, or the folder cannot be written, which has its own message.
        _check_empty(folder)
        raise
    return folder


def _check_empty(folder: Path) -> None:
    there = folder.is_symlink() or folder.exists()
    if there and (not folder.is_dir() or any(folder.iterdir())):
        what = "already exists, and is not an empty folder"
        raise UsageError(what, where=str(folder), hint="give another folder")


def _alike(cell: Cell) -> tuple[Any, ...]:
    """What runs of one cell have in common: all but draw and seed."""
    return cell.task, cell.regime, cell.target, cell.shots


def describe(study: Study, cell: Cell, exported: Exported) -> dict[str, Any]:
    """What the card says besides scores; holds no place of this machine."""
    export, recipe = exported.export, study.recipe
    key = study.plan.cells[cell]
    regime = next(r for r in recipe.regime_list if r.name == cell.regime)
    record = study.store.read(key)
    spoken = _spoken(export, cell)
    task = None
    if export.task is not None:
        of = study.corpus.task(export.task)
        task = {
            "kind": of.kind,
            "columns": list(of.inputs),
            "options": of.options,
            "labels": export.labels,
        }
    return {
        "role": export.role,
        "study": recipe.name,
        "source": recipe.source,
        "cell": {
            "task": cell.task,
            "regime": cell.regime,
            "target": cell.target,
            "shots": cell.shots,
            "draw": cell.draw,
            "seed": cell.seed,
        },
        "upper_bound": cell.regime in upper_bounds(study),
        "lab": recipe.is_lab or any(code in lab.LANGUAGES for code in spoken),
        "language": export.language or "",
        "languages": _codes(spoken),
        "libraries": export.libraries,
        "pieces": [_piece(study, export, one) for piece in export.pieces for one in piece.all()],
        "below": _below(study, key) if export.role == "task" else [],
        "task": task,
        "backbone": {
            "name": exported.backbone,
            "digest": (study.backbone.digests or {}).get("weights", ""),
        },
        "max_length": recipe.max_length,
        "precision": recipe.precision,
        "shortcuts": recipe.shortcuts.said(),
        "script": exported.files[SCRIPT].decode(),
        "data": _data(study, key, export),
        "phases": [p.describe() if not p.adopt else f"{p.name}: adopted" for p in regime.phases],
        "keys": exported.manifest["keys"],
        "versions": record.facts.get("environment", {}) if record is not None else {},
        "recipe": study.loaded.portable_text(),
        "overrides": [one.partition("=")[0].removesuffix("+") for one in study.loaded.overrides],
    }


def _spoken(export: Export, cell: Cell) -> list[str]:
    """The languages that an export is for."""
    worn = (export.language or "").split("+") if export.language else []
    return list(dict.fromkeys([*worn, *([] if export.role == "language" else [cell.target])]))


def _codes(spoken: Iterable[str]) -> list[str]:
    """Those of them that a hub knows as languages."""
    found = []
    for code in spoken:
        try:
            found.append(languages.get(code).code)
        except languages.UnknownLanguage:
            continue
    return list(dict.fromkeys(found))


def _piece(study: Study, export: Export, piece: Piece) -> dict[str, str]:
    head = " with its head" if piece is export.top and export.head is not None else ""
    what = {
        "language": f"language adapter: {export.language}",
        "task": f"task adapter{head}",
    }[piece.role]
    if piece.members:
        what = f"fusion of {', '.join(member.name for member in piece.members)}{head}"
    record = study.store.read(piece.part.key)
    adopted = record.facts.get("adopted") if record is not None else None
    if adopted:
        # A folder of this machine is told by its name alone.
        reference = str(adopted["reference"])
        what += f", adopted from {reference if ':' in reference else Path(reference).name}"
    flat = export.role != "composition" and piece is export.top
    return {
        "folder": "." if flat else piece.name,
        "what": what,
        "method": _method(piece.part.spec),
        "library": piece.library,
    }


def _method(spec: Mapping[str, Any] | None) -> str:
    """A method with its parameters, in words."""
    if spec is None:
        return "AdapterFusion"
    rest = (f"{k} {v}" for k, v in spec.items() if k != "method" and v is not None)
    return ", ".join([str(spec["method"]), *rest])


def _below(study: Study, key: str) -> list[str]:
    """What a cell wears under its task adapter."""
    stage = study.plan.stages[key]
    worn = stage.params["data"].get("wear")
    stages = study.plan.stages
    made = compose(stage.inputs["trained"], lambda one: stages[one].canonical())
    found = [f"the language adapter {worn}"] if worn is not None else []
    return [*found, *(f"a task adapter of {_method(part.spec)}" for part in made.frozen)]


def _data(study: Study, key: str, export: Export) -> list[dict[str, Any]]:
    """What an export was made from and scored on, by task, with the languages and splits."""
    plan = study.plan
    whole = export.role == "composition"
    roots = plan.ancestors(key if whole else export.top.part.key)
    read = [one for root in roots for one in _reads(plan.stages[root].params)]
    if export.role == "task":
        read += _reads(plan.stages[key].params)
    found: dict[str, tuple[set[str], set[str]]] = {}
    for data in read:
        spoken, splits = found.setdefault(data["task"], (set(), set()))
        spoken.add(data["language"])
        splits.add(data["split"])
    return [
        {
            "name": "plain text" if task == "text" else task,
            "languages": sorted(spoken),
            "splits": sorted(splits),
            "licence": licence(study, task, spoken),
        }
        for task, (spoken, splits) in sorted(found.items())
    ]


def _reads(params: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    used = [*params.get("streams", ()), params.get("data"), *(params.get("pool") or ())]
    return [data for data in used if data is not None]
