"""`export`: what it writes and prints, and what it says when it cannot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adapterxlt.run.study import Study

Call = Callable[..., Any]

RECIPE = """\
name: small
data: lab
source: lab-root
targets: [lab-mid-mid]
tasks: [lab-pos]
regimes: [zero-shot]
seeds: [1, 2]
language_adapters: {budget: {steps: 2, batch: 8, lr: 1e-3}}
task_adapter: {method: seq_bn}
budget: {steps: 2, batch: 8, lr: 1e-3}
limits: {train: 20, test: 8, text: 20}
"""


def test_help(call: Call) -> None:
    answer = call("export", "--help")
    assert answer.code == 0 and "adapterxlt export [OPTIONS] RECIPE DEST" in answer.out
    assert "composition|language|task" in answer.out
    assert "\n  export " in call("--help").out


def test_it_asks_for_a_finished_cell_as_predict_does(call: Call, study: list[str]) -> None:
    recipe, *where = study
    for wanted in (
        ["--language", "fi"],
        ["--language", "fii"],
        ["--language", "en", "--regime", "sequential"],
        ["--language", "fi", "--regime", "sequental"],
    ):
        export = call("export", recipe, "out", *where, *wanted)
        predict = call("predict", recipe, *where, *wanted, "a b")
        assert export.code == predict.code == 2
        assert export.refusal == predict.refusal
    assert not Path("out").exists()


def test_export_and_refusals(call: Call, tiny_backbone: Path, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE, encoding="utf-8")
    study = Study.open(tmp_path / "r.yaml", store=tmp_path / "s", backbone=str(tiny_backbone))
    assert not study.run(workers=0).failed
    given = ["--language", "lab-mid-mid", "--store", "s", "--backbone", tiny_backbone]
    answer = call("export", "r.yaml", "out", *given)
    assert answer.code == 0, answer.err
    assert answer.out == "out\n" and "with lab-pos zero-shot lab-mid-mid seed 1" in answer.err
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| 2 |" in card and "[" in card.partition("## Scores")[2].partition("## Data")[0]
    again = call("export", "r.yaml", "out", *given)
    assert again.code == 2
    assert again.err.splitlines()[-1] == (
        "adapterxlt: out: already exists, and is not an empty folder; give another folder"
    )
    part = call("export", "r.yaml", "fi", *given, "--part", "language", "--seed", 2)
    assert part.code == 0 and "seed 2" in part.err
    assert json.loads((tmp_path / "fi" / "adapterxlt.json").read_text())["role"] == "language"
    none = call(
        "export", "r.yaml", "none", *given, "--part", "language", "--set", "language_adapters=null"
    )
    assert none.code == 2 and "not finished" in none.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fi", "out", "r.yaml", "s"]
