"""How long does planning take, and does it import torch? 10,000 cells in the laboratory.

Prints one line a size and keeps them in ``benchmarks/results/plan.json``.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

from adapterxlt import lab
from adapterxlt.core.loading import parse_recipe
from adapterxlt.core.lowering import lower
from adapterxlt.corpora.backbones import lab_backbone
from adapterxlt.corpora.sources import LabCorpus

RECIPE = """\
name: plan
source: lab-root
targets: {targets}
tasks: [lab-pos, lab-nli]
regimes: [zero-shot, target-only, sequential, joint, joint-multilingual, multi-stage]
shots: [10, 20, 50, 100, 200]
draws: {draws}
seeds: [1, 2, 3, 4, 5]
"""


def main() -> None:
    rows = []
    targets = [code for code in lab.LANGUAGES if code != lab.SOURCE]
    for draws in (1, 5):
        text = RECIPE.format(targets=targets, draws=list(range(1, draws + 1)))
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            plan = lower(parse_recipe(text, "plan.yaml").recipe, LabCorpus(), lab_backbone())
            seconds.append(time.perf_counter() - start)
        median = statistics.median(seconds)
        rows.append(
            {"cells": len(plan.cells), "stages": len(plan.stages), "seconds": round(median, 3)}
        )
        print("{cells:6} cells  {stages:6} stages  {seconds:6.2f} s".format(**rows[-1]))
    assert "torch" not in sys.modules
    out = Path(__file__).parent / "results" / "plan.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
