"""What share of a study's time is neither training nor evaluation, where trainings are not tiny?

The study of `bench_study` with one draw and one seed (six regimes, six targets, three numbers of
shots) as `adapterxlt run` on an empty store, from its start to its end, and few-shot trainings of
40 steps in the place of 8, which is less than anybody takes. What a stage costs beside its steps
and its forward passes does not grow with them. Nor does starting up, which weighs more here: it is
the same for a small study as for a large one. Reckoned as `bench_study` says.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from bench_study import RECIPE, TARGETS, Place, overhead, run_ours
from common import keep
from setting import arguments, table, wait_for_quiet

STEPS = 40


def recipe_of(*, quick: bool) -> dict[str, Any]:
    """The study's recipe with longer few-shot trainings, and fewer of them."""
    budgets = {phase: {**budget, "steps": STEPS} for phase, budget in RECIPE["budgets"].items()}
    some: dict[str, Any] = {"targets": ["fi", "mt"], "shots": [10]} if quick else {}
    smaller = {"draws": [1], "seeds": [1], "budgets": budgets, **some}
    return {**RECIPE, "name": "bench-overhead", **smaller}


def main() -> None:
    given = arguments(__doc__)
    workers = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as name:
        recipe = recipe_of(quick=given.quick)
        place = Place(given.data.absolute(), given.backbone.absolute(), Path(name), recipe)
        wait_for_quiet()
        took = run_ours(place)
        found = overhead(place.study(), took["seconds"], workers)
    whole = workers * took["seconds"]
    table(
        f"{took['seconds']:.0f} s of {workers} workers; others took {took['others']:.0%} of the "
        f"cores; {found['stages']['train']} trainings, {found['stages']['evaluate']} evaluations",
        [{"seconds of": n, "seconds": s, "share": s / whole} for n, s in found["seconds"].items()],
        {"seconds of": "", "seconds": ".1f", "share": ".1%"},
    )
    wanted = TARGETS["overhead"]
    print(f"\noverhead: {found['share']:.1%}, wanted {wanted:.0%}")
    if not given.quick:
        result = {"recipe": recipe, "wall": took["seconds"], "others": took["others"], **found}
        keep("overhead", {**result, "target": wanted})


if __name__ == "__main__":
    main()
