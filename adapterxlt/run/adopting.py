"""Adopting one adapter without a recipe: looked at, fetched, checked on its backbone, kept.

What the command line's `adopt` does, through the same doors as a study.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adapterxlt.core.adoption import Adopt, Adoption, Reference
from adapterxlt.core.adoption_stage import adopt_stage, misfit
from adapterxlt.core.errors import RefusedError, UsageError
from adapterxlt.core.plan import BackboneInfo, Stage
from adapterxlt.core.tasks import TASKS, Task
from adapterxlt.corpora.reading import Reading
from adapterxlt.run.adoptions import bring, check, folder_of, provenance
from adapterxlt.run.desk import Places
from adapterxlt.run.keeping import remember
from adapterxlt.run.looking import look, look_at
from adapterxlt.run.requests import Request
from adapterxlt.run.study import backbone_at, store_root
from adapterxlt.run.worker import run_stage
from adapterxlt.store.store import Store

Tell = Callable[[str], None]


def adopt_one(
    reference: str,
    backbone: str,
    *,
    store: str | None = None,
    task: str | None = None,
    labels: tuple[str, ...] | None = None,
    base: str | None = None,
    allow_pickle: bool = False,
    base_folder: Path,
    listener: Tell,
) -> dict[str, Any]:
    """Take an adapter over into the store; what it is, and the key that it goes by.

    Args:
        reference: as `Reference.parse`.
        backbone: `lab`, or a folder.
        task: of a task adapter, the shipped task that its head is for.
        base_folder: what a relative path begins at.

    Raises:
        UsageError: no such reference or task.
        RefusedError: a check failed.
    """
    try:
        said = Adopt(adapter=reference, allow_pickle=allow_pickle, base=base, labels=labels)
        place = Reference.parse(reference)
    except (ValidationError, ValueError) as error:
        raise UsageError(f"no adapter is called {reference!r}", hint=_said(error)) from None
    if task is not None and task not in TASKS:
        raise UsageError(f"unknown task {task!r}", hint="see adapterxlt ls tasks")
    opened = Store(store_root(store))
    where = backbone if backbone == "lab" else str(Path(backbone).absolute())
    info = backbone_at(where, opened)
    one = _find(opened, place, said, info, base_folder, listener)
    base_stage = Stage("pretrain", dict(info.pretraining)) if info.pretraining else None
    inputs = {"backbone": base_stage.key} if base_stage is not None else {}
    own: Task | None = TASKS[task] if task is not None else None
    said_not = misfit(one, own) if own is not None and own.trains else None
    if said_not is not None:
        raise RefusedError(said_not)
    stage = adopt_stage(one, info, inputs, own)
    stages = {made.key: made for made in (base_stage, stage) if made is not None}
    remember(opened, one.label, "", stages)
    bring(opened, [(stage.key, one)], base_folder, listener)
    places = Places(opened.root, Reading(None), where)
    if base_stage is not None:
        run_stage(Request(base_stage.key, "pretrain the lab's backbone", base_stage, places))
    run_stage(Request(stage.key, f"adopt from {one.label}", stage, places))
    record = opened.read(stage.key)
    assert record is not None
    head = one.adopted.head
    return {
        "key": stage.key,
        "adapter": dict(stage.params["adapter"]),
        "parameters": record.facts["parameters"],
        "head": head.model_dump(mode="json") if head is not None else None,
        **provenance(one),
    }


def _find(
    store: Store, place: Reference, said: Adopt, info: BackboneInfo, base: Path, tell: Tell
) -> Adoption:
    if place.hub:
        from adapterxlt.run.hub import adapters

        commit, sizes = adapters.resolve(place.name, place.revision, tell)
        files = adapters.download(place.name, commit, sorted(sizes), tell)
        found = look(store, files, info, said, str(place))
        found = found.model_copy(update={"commit": commit})
    else:
        found = look_at(store, folder_of(place, base), info, said, str(place))
    check(found, info, said, place)
    return Adoption(place, found, said)


def _said(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return str(error.errors()[0]["msg"]).removeprefix("Value error, ")
    return str(error)
