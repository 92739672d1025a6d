"""Tidy rows with provenance, read back from the store; and what is missing.

Rows are what tables, exports and the page are pure functions of. Nothing here computes or guesses:
a cell without a finished evaluation gives no row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adapterxlt.core.plan import Cell
from adapterxlt.report import adopted, costs, cuts
from adapterxlt.report.licences import licence
from adapterxlt.run.scheduler import Outcome
from adapterxlt.run.study import Study

Row = dict[str, Any]


def collect(study: Study, wanted: Callable[[Cell], bool] | None = None) -> list[Row]:
    """One row per cell and metric, in the plan's order; scores are shares in 0..1.

    What a row's costs count is said at `report.costs.of_cell`.

    Args:
        wanted: of which cells; of all when left out.
    """
    rows = []
    recipe = study.recipe
    bounds = upper_bounds(study)
    spent: dict[str, Row] = {}
    for cell, key in study.plan.cells.items():
        record = study.store.read(key) if wanted is None or wanted(cell) else None
        if record is None:
            continue
        # Regimes may share an evaluation.
        if key not in spent:
            spent[key] = costs.of_cell(study, key, cell.task)
        for metric, values in record.facts["metrics"].items():
            rows.append(
                {
                    "study": recipe.name,
                    "task": cell.task,
                    "metric": metric,
                    "primary": metric == study.corpus.task(cell.task).primary,
                    "regime": cell.regime,
                    "upper_bound": cell.regime in bounds,
                    "source": recipe.source,
                    "target": cell.target,
                    "role": cell.role,
                    "resource_class": _class(study, cell),
                    "distance": recipe.distance_of(cell.target),
                    "shots": cell.shots,
                    "draw": cell.draw,
                    "seed": cell.seed,
                    "score": values["score"],
                    "n": record.facts["n"],
                    "baseline": values["baseline"],
                    "lab": study.corpus.task(cell.task).lab,
                    **spent[key],
                    "evaluate_key": key,
                    "train_key": record.stage["inputs"].get("trained", ""),
                    "rows_cut": record.facts.get("rows_cut"),
                }
            )
    return rows


def upper_bounds(study: Study) -> set[str]:
    """Names of the regimes in which something is chosen by target labels."""
    regimes = study.recipe.regime_list
    return {regime.name for regime in regimes if regime.upper_bound}


def missing(study: Study, outcome: Outcome | None = None) -> list[Row]:
    """Cells without a score, each with the reason."""
    rows = []
    bounds, done = upper_bounds(study), study.done()
    for cell, key in study.plan.cells.items():
        if key in done:
            continue
        reason = "not run yet"
        if outcome is not None:
            culprit = outcome.blocked.get(key, key)
            if culprit in outcome.failed:
                reason = f"{study.plan.labels[culprit]} failed: {outcome.failed[culprit]}"
        rows.append(
            {
                "task": cell.task,
                "regime": cell.regime,
                "upper_bound": cell.regime in bounds,
                "target": cell.target,
                "role": cell.role,
                "resource_class": _class(study, cell),
                "shots": cell.shots,
                "draw": cell.draw,
                "seed": cell.seed,
                "reason": reason,
            }
        )
    return rows


def describe(study: Study, outcome: Outcome | None = None) -> dict[str, Any]:
    """What the page says of a study besides its rows: recipe, regimes, stages, versions, data."""
    plan, recipe = study.plan, study.recipe
    bounds = upper_bounds(study)
    stages, versions = [], {}
    for key, stage in plan.stages.items():
        record = study.store.read(key)
        facts = record.facts if record is not None else {}
        versions.update(facts.get("environment", {}))
        state = "missing" if record is None else "done"
        if outcome is not None and key in outcome.failed:
            state = "failed"
        work = study.work(key)
        stages.append(
            {
                "key": key,
                "kind": _kind(stage),
                "group": _group(study, key),
                "inputs": list(stage.inputs.values()),
                "label": plan.labels[key],
                "state": state,
                "cells": plan.sharing[key],
                "seconds": facts.get("seconds"),
                "steps": facts.get("steps"),
                "tokens": facts.get("tokens"),
                "parameters": facts.get("parameters"),
                "flops": work.flops,
                "final_loss": facts.get("final_loss"),
            }
        )
    return {
        "name": recipe.name,
        "question": recipe.question,
        "recipe": study.loaded.document.text,
        "overrides": list(study.loaded.overrides),
        "resolved": study.loaded.resolved_text(),
        "regimes": [
            {
                "name": r.name,
                "upper_bound": r.name in bounds,
                "phases": r.describe(),
            }
            for r in recipe.regime_list
        ],
        "stages": stages,
        "missing": missing(study, outcome),
        "versions": versions,
        "data": _data(study),
        "cuts": cuts.of_study(study),
        "adopted": adopted.of_study(study),
        "max_length": recipe.max_length,
        "backbone": {
            "name": study.backbone.name,
            "digest": (study.backbone.digests or {}).get("weights", ""),
            "parameters": study.backbone.parameters,
        },
        "lab": recipe.is_lab or any(recipe.task(task).lab for task in recipe.tasks),
        "precision": recipe.precision,
        "shortcuts": recipe.shortcuts.said(),
        "asked": bool(recipe.claims),
        "claims": [claim.model_dump(mode="json") for claim in recipe.claim_list],
    }


def _class(study: Study, cell: Cell) -> str:
    return "source" if cell.role == "source" else study.recipe.class_of(cell.target)


def _kind(stage: Any) -> str:
    if stage.kind == "train":
        return "language adapter" if stage.params["objective"] == "mlm" else "task adapter"
    return str(stage.kind)


def _group(study: Study, key: str) -> str:
    """What a stage's picture calls it: its label without languages, shots, draws and seeds."""
    stage = study.plan.stages[key]
    kind = _kind(stage)
    if kind != "task adapter":
        return kind
    tasks = {*study.recipe.tasks, *study.recipe.intermediate}
    words = study.plan.labels[key].split(" ")
    # Phases come first, then the tasks that it is trained on.
    ends = [i for i, word in enumerate(words) if i and tasks.issuperset(word.split("+"))]
    return " ".join(words[: ends[0]]) if ends else " ".join(words).partition(",")[0]


def _data(study: Study) -> list[dict[str, Any]]:
    """Every split that was read, once."""
    found = {}
    for stage in study.plan.stages.values():
        params = stage.params
        used = [*params.get("streams", ()), params.get("data"), *(params.get("pool") or ())]
        for data in used:
            if isinstance(data, dict):
                at = (data["task"], data["language"], data["split"])
                rows = study.plan.data[data["data"]].rows
                found[at] = {
                    "task": at[0],
                    "language": at[1],
                    "split": at[2],
                    "rows": rows,
                    "licence": licence(study, at[0], (at[1],)),
                    "digest": data["data"],
                }
    return [found[at] for at in sorted(found)]
