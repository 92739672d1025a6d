"""What share of a study's time is neither training nor evaluation, by the length of its trainings?

The study of `bench_study` with one draw and one seed: six regimes, six targets, three numbers of
shots, as `adapterxlt run` on an empty store, from its start to its end. Few-shot trainings have
eight steps, which is less than anybody takes, or forty. What a stage costs beside its steps and
its forward passes does not grow with them, nor does starting up, which a small study has as often
as a large one. Reckoned as `bench_study` says.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from bench_study import RECIPE, TARGETS, Place, overhead, run_ours
from common import keep
from setting import arguments, table, wait_for_quiet

STEPS = (8, 40)


def recipe_of(steps: int, *, quick: bool) -> dict[str, Any]:
    """The study's recipe with few-shot trainings of so many steps."""
    budgets = {phase: {**budget, "steps": steps} for phase, budget in RECIPE["budgets"].items()}
    some: dict[str, Any] = {"targets": ["fi", "mt"], "shots": [10]} if quick else {}
    smaller = {"draws": [1], "seeds": [1], "budgets": budgets, **some}
    return {**RECIPE, "name": f"bench-overhead-{steps}", **smaller}


def main() -> None:
    given = arguments(__doc__)
    rows, workers = [], os.cpu_count() or 1
    for steps in STEPS:
        with tempfile.TemporaryDirectory() as name:
            recipe = recipe_of(steps, quick=given.quick)
            place = Place(given.data.absolute(), given.backbone.absolute(), Path(name), recipe)
            wait_for_quiet()
            took = run_ours(place)
            found = overhead(place.study(), took["seconds"], workers)
        rows.append({"steps": steps, "wall": took["seconds"], "others": took["others"], **found})
    table(
        f"seconds of {workers} workers",
        [{**row, **row["seconds"], **row["stages"]} for row in rows],
        {
            "steps": "d", "wall": ".0f", "others": ".0%", "train": "d", "evaluate": "d",
            **dict.fromkeys(rows[0]["seconds"], ".1f"), "share": ".1%",
        },
    )  # fmt: skip
    reached = {str(row["steps"]): row["share"] for row in rows}
    print(f"\nwanted: {TARGETS['overhead']:.0%}")
    if not given.quick:
        keep("overhead", {"studies": rows, "target": TARGETS["overhead"], "reached": reached})


if __name__ == "__main__":
    main()
