"""How long does a user wait for what is not training: help, looking at a study, running it again?

Each is the command in a process of its own. The finished study is one of the laboratory, really
run, with next to no training: running it again plans it, finds all in the store, reads and checks
every record, prints the tables and finds the report as it would be written; *report gone* writes it
anew. Medians.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from common import keep
from processes import COMMAND, show, timed

RECIPE = """\
name: finished
question: How long does a finished study take?
data: lab
source: lab-root
targets: [lab-near-high, lab-far-mid, lab-far-low]
tasks: [lab-pos, lab-nli]
regimes: [zero-shot, target-only, sequential, joint, joint-multilingual, multi-stage]
shots: [5, 10]
draws: [1, 2]
seeds: [1, 2]
budget: {steps: 2, batch: 4, lr: 1e-3}
limits: {train: 16, test: 12, text: 20}
language_adapters: {budget: {steps: 2}}
"""
BACKBONE = {"steps": 4, "batch": 8, "layers": 2, "hidden": 32, "ffn": 64}
RUNS = 9


def helps(folder: Path) -> dict[str, dict[str, float]]:
    """`--help`, of the command and of each verb."""
    from adapterxlt.cli import cli

    found = {}
    for verb in ([], *([name] for name in cli.commands)):
        what = " ".join(["adapterxlt", *verb, "--help"])
        found[what] = timed([*verb, "--help"], folder, RUNS)
        show(what, found[what])
    return found


def small(folder: Path) -> dict[str, dict[str, float]]:
    """Looking at a shipped recipe of which nothing was run."""
    found = {}
    for verb in ("validate", "plan", "status"):
        what = f"adapterxlt {verb} quickstart/lab"
        found[what] = timed([verb, "quickstart/lab", "--store", "empty"], folder, RUNS)
        show(what, found[what])
    return found


def again(folder: Path) -> dict[str, Any]:
    """A finished study, run again."""
    from adapterxlt import lab
    from adapterxlt.compute.pretraining import pretrain
    from adapterxlt.run.study import Study

    recipe, backbone = folder / "finished.yaml", folder / "backbone"
    recipe.write_text(RECIPE, encoding="utf-8")
    backbone.mkdir()
    pretrain(backbone, spec={**lab.DEFAULT_SPEC, **BACKBONE}, seed=0)
    study = Study.open(recipe, store=folder / "store", backbone=str(backbone))
    cells, stages = len(study.plan.cells), len(study.plan.stages)
    arguments = ["run", str(recipe), "--store", "store", "--backbone", str(backbone)]
    start = time.perf_counter()
    subprocess.run([COMMAND, *arguments], cwd=folder, check=True, capture_output=True)
    first = round(time.perf_counter() - start, 1)
    print(f"a study of {cells} cells and {stages} stages, run in {first} s")
    hot = timed(arguments, folder, RUNS)
    show("adapterxlt run, again", hot)
    gone = []
    for _ in range(3):
        shutil.rmtree(folder / "results")
        gone.append(timed(arguments, folder, 1))
    without = sorted(gone, key=lambda one: one["seconds"])[1]
    show("adapterxlt run, again, report gone", without)
    size = {"cells": cells, "stages": stages, "first_seconds": first}
    return {**size, "again": hot, "report_gone": without}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result = {"help": helps(folder), "small": small(folder), "finished": again(folder)}
    keep("startup", {"runs": RUNS, **result})


if __name__ == "__main__":
    main()
