"""The real thing, short: English tags learnt and carried over on the shared data and backbone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adapterxlt.core.errors import UsageError
from adapterxlt.report.results import collect
from adapterxlt.run.study import Study

COMMAND = [sys.executable, "-c", "from adapterxlt.cli import main; main()"]
REPOSITORY = Path(__file__).resolve().parents[2]


def scores(study: Study) -> dict[tuple[str, str], tuple[float, float]]:
    rows = [row for row in collect(study) if row["primary"]]
    return {(row["regime"], row["target"]): (row["score"], row["baseline"]) for row in rows}


@pytest.mark.shared
def test_tags_of_real_languages_beat_the_majority(shared: Path, tmp_path: Path) -> None:
    study = Study.open(
        REPOSITORY / "recipes" / "local" / "udpos.yaml",
        store=tmp_path / "store",
        data=str(shared / "data"),
        backbone=str(shared / "models" / "mini"),
        overrides=[
            "targets=[id]", "regimes=[zero-shot, sequential]", "shots=[100]", "draws=[1]",
            "seeds=[1]", "language_adapters=null", "budget.steps=60", "limits.test=100",
        ],
    )  # fmt: skip
    assert not study.run(workers=1).failed
    found = scores(study)
    english, baseline = found["zero-shot", "en"]
    assert english > 0.6 and baseline < 0.2
    transferred, baseline = found["zero-shot", "id"]
    assert transferred > baseline + 0.1
    few_shot, _ = found["sequential", "id"]
    assert few_shot > transferred + 0.05


@pytest.mark.shared
def test_a_backbone_that_is_not_whole_is_refused(shared: Path, tmp_path: Path) -> None:
    recipe = REPOSITORY / "recipes" / "local" / "udpos.yaml"
    data = str(shared / "data")

    def opened(change: str) -> Study:
        folder = tmp_path / change
        shutil.copytree(shared / "models" / "mini", folder)
        os.chmod(folder, 0o755)
        if change.endswith(("json", "safetensors")):
            (folder / change).unlink()
        if change == "pickle":
            (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        if change == "torn":
            (folder / "config.json").unlink()
            (folder / "config.json").write_text('{"model_type": "xlm-rob', encoding="utf-8")
        return Study.open(recipe, store=tmp_path / "s", data=data, backbone=str(folder))

    for change, message in {
        "tokenizer.json": "no tokenizer.json",
        "model.safetensors": "no model.safetensors",
        "pickle": "convert its pickled weights",
        "torn": "not JSON",
    }.items():
        with pytest.raises(UsageError) as caught:
            opened(change)
        assert message in str(caught.value)


def test_the_quickstart_runs_offline_from_nothing(tmp_path: Path) -> None:
    """The README's command with fewer cells: pretraining, language adapters, tasks, report."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "ADAPTERXLT_STORE": str(tmp_path / "s")}
    command = [
        *COMMAND, "run", "quickstart/lab", "targets=[lab-near-high]",
        "regimes=[zero-shot]", "tasks=[lab-pos]",
    ]  # fmt: skip
    first = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert first.returncode == 0, first.stderr
    assert "left about" in first.stderr and "loss" in first.stderr
    assert "lab-near-high" in first.stdout
    page = tmp_path / "results" / "quickstart" / "report.html"
    assert "laboratory" in page.read_text(encoding="utf-8")
    again = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert "nothing to run" in again.stderr
    assert again.stdout == first.stdout
