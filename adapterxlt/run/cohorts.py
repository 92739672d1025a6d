"""Which train stages can be trained in one pass over a trunk, and how many. No torch here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adapterxlt.core.canon import digest
from adapterxlt.core.methods import METHODS
from adapterxlt.core.plan import Plan, Stage

#: How many are trained together on an accelerator when nothing is said; fewer where memory ends.
MANY = 16


def cohort_size(given: int | None, device: str) -> int:
    """How many stages a cohort has at most.

    On a CPU they are trained one by one: measured there, a small backbone wins up to 1.6 with
    batches of four rows in bf16, and loses with larger ones.
    """
    return given or (MANY if device == "cuda" else 1)


def signature(plan: Plan, key: str) -> str | None:
    """What stages that are trained together have in common; nothing for one that has to be alone:
    another objective than a weighted loss, a method without bottlenecks, a stack on other phases.
    """
    stage = plan.stages[key]
    params = stage.params
    if stage.kind != "train" or params["objective"] not in ("macro", "micro", "mlm"):
        return None
    if params["adapter"] is None or params.get("drop") == "random":
        return None
    specs = [params["adapter"]]
    below: Stage | None = stage
    while below is not None:
        if any(role == "below" or role.startswith("fuse:") for role in below.inputs):
            return None
        below = _of(plan, below, "previous") or _of(plan, below, "member:0")
    languages = list(_languages(plan, stage))
    specs += languages
    if not all(METHODS[spec["method"]].fusible and not _draws(spec) for spec in specs):
        return None
    worn = [bool(stream.get("wear")) for stream in params["streams"]]
    if (any(worn) and not all(worn)) or len({digest("spec", spec) for spec in languages}) > 1:
        return None
    common = ("backbone", "max_length", "precision", "drop", "shortcuts", "adapter")
    what = {name: params.get(name) for name in common}
    text, trunk = params["objective"] == "mlm", stage.inputs.get("backbone")
    return digest("cohort", [what, text, trunk, languages[:1]])


def _of(plan: Plan, stage: Stage, role: str) -> Stage | None:
    return plan.stages[stage.inputs[role]] if role in stage.inputs else None


def _languages(plan: Plan, stage: Stage) -> Iterator[dict[str, Any]]:
    """The specifications of the language adapters that a stage wears."""
    for role in stage.inputs:
        if role.startswith("language:"):
            worn: Stage | None = _of(plan, stage, role)
            while worn is not None and worn.kind == "merge":
                worn = _of(plan, worn, "member:0")
            if worn is not None:
                yield worn.params["adapter"]


def _draws(spec: dict[str, Any]) -> bool:
    return bool(spec.get("dropout"))
