"""`export`: a finished cell as files that the libraries load without this package.

It says which adapters, heads and backbone belong to a cell, and what the folder is in
``adapterxlt.json``; the worker makes the weights. `report.handing` adds the card and writes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterxlt.core.composition import Canonical
from adapterxlt.core.exports import Export, Piece, Role, assemble
from adapterxlt.run.snippets import script
from adapterxlt.run.study import Study
from adapterxlt.store.safeload import MANIFEST

#: Of ``adapterxlt.json``.
FORMAT = 1
SCRIPT = "load.py"


@dataclass(frozen=True)
class Exported:
    """Files by their path in the folder, and what they are of.

    Attributes:
        backbone: the name that the libraries load; nothing of the laboratory's own, which is in
            the folder.
    """

    export: Export
    files: Mapping[str, bytes]
    manifest: Mapping[str, Any]
    backbone: str | None


def export_cell(study: Study, key: str, role: Role) -> Exported:
    """The cell whose evaluate stage has this key, or its language or task adapter, as files.

    Raises:
        UsageError: the cell has no such part, or one that cannot be exported.
        StageError: a stage that it is made of is not in the store.
    """
    from adapterxlt.run.worker import export_files

    stage = study.plan.stages[key]
    task = study.corpus.task(stage.params["data"]["task"])
    export = assemble(stage.canonical(), _stages(study), role, task.kind, task.trains)
    ours = stage.inputs.get("backbone")
    name = None if ours else backbone_name(Path(study.places.backbone))
    made = export_files(study.places, stage, export, name or "adapterxlt-lab")
    files: dict[str, bytes] = {}
    for folder, found in made.items():
        flat = role != "composition" and folder == export.top.name
        files |= {file if flat else f"{folder}/{file}": data for file, data in found.items()}
    manifest = _manifest(study, key, export)
    files[MANIFEST] = _json(manifest)
    for piece in export.pieces:
        for one in piece.all():
            if role == "composition" or one is not export.top:
                files[f"{one.name}/{MANIFEST}"] = _json(_manifest_of(study, key, export, one))
    if ours:
        record = study.store.read(ours)
        assert record is not None, "the worker has read it"
        files |= {f"backbone/{file}": study.store.get(of) for file, of in record.files.items()}
    files[SCRIPT] = script(export, name, study.backbone.shape.layers).encode()
    return Exported(export, files, manifest, name)


def backbone_name(folder: Path) -> str:
    """What others call a backbone: the name of its folder; of a hub's cache, the repository's."""
    for part in reversed(folder.absolute().parts):
        cached = re.fullmatch(r"models--([\w.-]+?)--([\w.-]+)", part)
        if cached:
            return f"{cached[1]}/{cached[2]}"
    return folder.absolute().name


def _stages(study: Study) -> Any:
    def stage_of(key: str) -> Canonical:
        return study.plan.stages[key].canonical()

    return stage_of


def _manifest(study: Study, key: str, export: Export) -> dict[str, Any]:
    """What a whole folder is of."""
    if export.role != "composition":
        return _manifest_of(study, key, export, export.top)
    keys = {one.name: one.part.key for piece in export.pieces for one in piece.all()}
    if export.head is not None:
        keys["head"] = export.head.key
    return {
        **_common(study, key),
        "role": "composition",
        "key": key,
        "keys": {"evaluate": key, **keys},
        "task": export.task,
        "labels": export.labels,
        "head": export.head.spec if export.head is not None else None,
        "spec": {piece.name: _spec(piece) for piece in export.pieces},
    }


def _manifest_of(study: Study, key: str, export: Export, piece: Piece) -> dict[str, Any]:
    """What the folder of one piece is of."""
    head = export.head if piece is export.top else None
    keys = {one.name: one.part.key for one in piece.all()}
    return {
        **_common(study, key),
        "role": piece.role,
        "key": piece.part.key,
        "keys": {"evaluate": key, **keys, **({"head": head.key} if head is not None else {})},
        "task": export.task if head is not None else None,
        "labels": export.labels if head is not None else None,
        "head": head.spec if head is not None else None,
        "spec": _spec(piece),
    }


def _common(study: Study, key: str) -> dict[str, Any]:
    stage = study.plan.stages[key]
    return {
        "format": FORMAT,
        "backbone": stage.params.get("backbone"),
        "backbone_key": stage.inputs.get("backbone"),
    }


def _spec(piece: Piece) -> Any:
    if piece.members:
        return {"fusion": {member.name: _spec(member) for member in piece.members}}
    return piece.part.spec


def _json(value: Any) -> bytes:
    return (json.dumps(value, sort_keys=True, indent=1) + "\n").encode()
