"""SIGKILL in the middle of a real study, run again: the same rows and weights, nothing twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from adapterxlt.report.results import collect
from adapterxlt.run.study import Study

RECIPE = """\
name: killed
data: lab
source: lab-root
targets: [lab-near-high]
tasks: [lab-pos]
regimes: [zero-shot, sequential, joint]
shots: [10]
budget: {steps: 60, batch: 16, lr: 1e-3}
language_adapters: {budget: {steps: 40}}
limits: {train: 200, test: 20, text: 100}
"""
COMMAND = [sys.executable, "-c", "from adapterxlt.cli import main; main()"]


def start(recipe: Path, store: Path, backbone: Path, workers: int) -> subprocess.Popen[bytes]:
    arguments = [
        "run", str(recipe), "--store", str(store), "--backbone", str(backbone),
        "--workers", str(workers), "--snapshot-every", "0", "--out", str(store) + "-out",
    ]  # fmt: skip
    return subprocess.Popen(
        COMMAND + arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip


def unfinished(store: Path) -> int:
    """Stages that have a snapshot and no record: what a run after a kill goes on with."""
    keys = [path.parent.name for path in store.glob("work/stages/*/snapshot")]
    return sum(not (store / "records" / key[:2] / f"{key[2:]}.json").exists() for key in keys)


def outcome(recipe: Path, store: Path, backbone: Path) -> tuple[list[dict], dict[str, dict]]:
    study = Study.open(recipe, store=store, backbone=str(backbone))
    # Time and memory are the machine's, all else is the study's.
    rows = [row | {"seconds": None, "peak_memory": None} for row in collect(study)]
    files = {key: dict(study.store.read(key).files) for key in study.plan.stages}  # type: ignore[union-attr]
    return rows, files


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_run_again(workers: int, tiny_backbone: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "killed.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    whole = start(recipe, tmp_path / "whole", tiny_backbone, workers)
    output, _ = whole.communicate(timeout=300)
    assert whole.returncode == 0, output.decode()

    store = tmp_path / "killed"
    # First the parent alone: its workers have to notice by themselves. Then parent and workers at
    # once, again if need be, until a stage is left in its middle: on a quick machine the kill may
    # come just after its end.
    for group in (False, True, True, True, True, True):
        process = start(recipe, store, tiny_backbone, workers)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None and not unfinished(store):
            time.sleep(0.002)
        with suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
        if group and unfinished(store):
            break
    assert unfinished(store) > 0, "no kill came in the middle of a stage"
    last = start(recipe, store, tiny_backbone, workers)
    output, _ = last.communicate(timeout=300)
    assert last.returncode == 0, output.decode()
    assert outcome(recipe, store, tiny_backbone) == outcome(
        recipe, tmp_path / "whole", tiny_backbone
    )
    study = Study.open(recipe, store=store, backbone=str(tiny_backbone))
    facts = [study.store.read(key).facts for key in study.plan.stages]  # type: ignore[union-attr]
    assert any(fact.get("resumed_at", 0) > 0 for fact in facts), "nothing went on from a snapshot"
    again = start(recipe, store, tiny_backbone, workers)
    output, _ = again.communicate(timeout=300)
    assert b"nothing to run" in output
