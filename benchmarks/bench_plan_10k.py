"""How long does planning a study of 10,000 cells take, as a command and in its parts?

The command is `adapterxlt plan RECIPE`, from the start of its process to its end: imports, reading
and checking the recipe, lowering, looking into the store, costs (with the calibration of the
machine) and printing. Lowering alone is timed in this process. Medians.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from common import keep
from processes import show, timed

from adapterxlt import lab
from adapterxlt.core.loading import load_recipe
from adapterxlt.core.lowering import lower
from adapterxlt.corpora.backbones import lab_backbone
from adapterxlt.corpora.sources import LabCorpus
from adapterxlt.run.study import Study

RECIPE = """\
name: plan
data: lab
backbone: lab
source: lab-root
targets: {targets}
tasks: [lab-pos, lab-nli]
regimes: [zero-shot, target-only, sequential, joint, joint-multilingual, multi-stage]
shots: [10, 20, 50, 100, 200]
draws: {draws}
seeds: [1, 2, 3, 4, 5]
"""
RUNS = 7


def median(function: Callable[[], Any]) -> float:
    """Processor seconds of this process, for a call."""
    seconds = []
    for _ in range(RUNS):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return round(statistics.median(seconds), 3)


def fill(recipe: Path, store: Path) -> None:
    """Publish a record for every stage, as if it had been run; nothing waits for the disk."""
    study = Study.open(recipe, store=store)
    with patch("os.fsync", lambda handle: None):
        for key, stage in study.plan.stages.items():
            study.store.publish(key, stage.canonical(), {}, {"seconds": 1.0})


def measure(recipe: Path, folder: Path) -> dict[str, Any]:
    loaded = load_recipe(recipe).recipe
    plan = lower(loaded, LabCorpus(), lab_backbone())
    print(f"{len(plan.cells)} cells, {len(plan.stages)} stages")
    command = ["plan", str(recipe), "--store"]
    empty = timed([*command, "empty"], folder, RUNS)
    show("adapterxlt plan, nothing in the store", empty)
    fill(recipe, folder / "full")
    full = timed([*command, "full"], folder, RUNS)
    show("adapterxlt plan, all in the store", full)
    alone = median(lambda: lower(loaded, LabCorpus(), lab_backbone()))
    print(f"{'lowering alone':40} {'':8}  processor {alone:6.2f} s")
    size = {"cells": len(plan.cells), "stages": len(plan.stages)}
    return {**size, "nothing_stored": empty, "all_stored": full, "lowering_processor": alone}


def main() -> None:
    rows = []
    targets = [code for code in lab.LANGUAGES if code != lab.SOURCE]
    for draws in (1, 5):
        text = RECIPE.format(targets=targets, draws=list(range(1, draws + 1)))
        with tempfile.TemporaryDirectory() as name:
            recipe = Path(name) / "plan.yaml"
            recipe.write_text(text, encoding="utf-8")
            rows.append(measure(recipe, Path(name)))
    assert "torch" not in sys.modules
    keep("plan_10k", {"runs": RUNS, "plans": rows})


if __name__ == "__main__":
    main()
