"""`status` beside a run, from its log and notes; `run --track`."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from adapterxlt.core.cost import EFFICIENCY
from adapterxlt.run.events import Log, born
from adapterxlt.run.study import Study
from adapterxlt.store.files import write_json

Call = Callable[..., Any]
RECIPE = """\
name: followed
data: lab
source: lab-root
targets: [lab-far-low]
tasks: [lab-pos]
regimes: [zero-shot, sequential]
shots: [4]
budget: {steps: 3, batch: 4}
language_adapters: {budget: {steps: 2, batch: 4}}
limits: {train: 20, test: 8, text: 20}
"""


class Run:
    """Tells what a run of this process would."""

    def __init__(self, study: Study, finished: int) -> None:
        self.study, self.log = study, Log(study.events)
        me = {"host": platform.node(), "pid": os.getpid(), "born": born(os.getpid())}
        rates = dict.fromkeys(EFFICIENCY, 1e6)
        self("run", 200, needed=len(study.plan.stages), workers=1, rates=rates, versions={}, **me)
        for key in list(study.plan.stages)[:finished]:
            stage = study.plan.stages[key]
            study.store.publish(key, stage.canonical(), {}, {"seconds": 9.0, "final_loss": 0.5})
            self("started", 100, key=key, label="")
            self("finished", 90, key=key, seconds=9.0)

    def __call__(self, event: str, ago: float = 0.0, **more: Any) -> None:
        self.log.write({"time": time.time() - ago, "event": event, "run": "1a2b3c4d", **more})

    def train(self, key: str, step: int) -> None:
        self("started", 30, key=key, label="")
        path = self.study.store.work(key) / "progress.json"
        note = {"label": "x", "step": step, "steps": 100, "loss": 1.25, "rate": 2.0}
        write_json(path, {**note, "time": time.time()})


@pytest.fixture
def train_keys(opened: Study) -> list[str]:
    return [key for key, stage in opened.plan.stages.items() if stage.kind == "train"]


def test_json_has_everything(call: Call, study: list[str], opened: Study) -> None:
    run = Run(opened, finished=3)
    *_, failing, last = opened.plan.stages
    run.train(last, 40)
    run("failed", key=failing, reason="StageError: the loss is nan")
    answer = call("status", *study, "--json")
    assert answer.code == 0 and answer.err == ""
    seen = json.loads(answer.out)
    assert seen["cells"][1] == 3 and sum(done for done, _ in seen["stages"].values()) == 3
    (row,) = seen["running"]
    assert row["key"] == last[:12] and row["label"] == opened.plan.labels[last]
    assert (row["step"], row["steps"], row["loss"], row["rate"]) == (40, 100, 1.25, 2.0)
    assert 0 <= row["age"] < 20 and 30 <= row["seconds"] < 50
    assert [one["loss"] for one in seen["finished"]] == [0.5] * 3
    assert seen["finished"][0]["seconds"] == 9.0
    assert seen["failed"] == [
        {
            "key": failing[:12],
            "label": opened.plan.labels[failing],
            "reason": "StageError: the loss is nan",
        }
    ]
    assert seen["runs"][0].items() >= {"run": "1a2b3c4d", "state": "running", "failed": 1}.items()
    left = seen["left"]
    assert left["samples"] == 3 and 0 < left["low"] <= left["seconds"] <= left["high"]


def test_as_text(call: Call, study: list[str], opened: Study, train_keys: list[str]) -> None:
    run = Run(opened, finished=2)
    run.train(train_keys[-1], 40)
    answer = call("status", *study)
    assert answer.code == 0
    assert re.search(r"run 1a2b3c4d  running for .* with 1 at once: 2 of 7 stages", answer.out)
    assert "(no range yet: too few stages have finished)" in answer.out
    assert re.search(r"\nstep +loss .* note +running\n40 of 100 +1\.250 .* ago +\w", answer.out)
    assert re.search(r"\ntook +result +finished\n9\.0 s +loss 0\.500 +\w", answer.out)
    key = next(key for key in opened.plan.stages if key not in opened.store)
    stage = opened.plan.stages[key]
    opened.store.publish(key, stage.canonical(), {}, {"seconds": 30.0})
    run("finished", key=key, seconds=30.0)
    assert re.search(
        r"left about .*, .* to .* \(8 times in 10 or more\)", call("status", *study).out
    )
    run("failed", key=train_keys[-1], reason="odd")
    run("interrupted")
    out = call("status", *study).out
    assert "was interrupted 0 s ago: 3 of 7 stages finished, 1 failed" in out
    assert f"({train_keys[-1][:12]}): odd" in out and "left about" not in out


@pytest.mark.parametrize("as_json", [False, True])
def test_watching_ends_when_the_run_has(
    call: Call, study: list[str], opened: Study, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    monkeypatch.setattr("adapterxlt.watch.EVERY", 0.05)
    run = Run(opened, finished=1)
    ending = threading.Timer(0.5, run, ["ended"])
    ending.start()
    started = time.monotonic()
    answer = call("status", *study, "--watch", *["--json"][: int(as_json)])
    ending.join()
    assert answer.code == 0 and 0.5 <= time.monotonic() - started < 20
    if as_json:
        states = [json.loads(line)["runs"][0]["state"] for line in answer.out.splitlines()]
        assert len(states) > 2 and set(states[:-1]) == {"running"} and states[-1] == "ended"
    else:
        shown = answer.out.split("\n\ncells ")
        assert len(shown) > 2 and "ended 0 s ago" in shown[-1] and "running for" in shown[-2]


def test_watching_what_does_not_run_shows_it_once(call: Call, study: list[str]) -> None:
    answer = call("status", *study, "--watch")
    assert answer.code == 0 and answer.out.count("cells") == 1


def test_one_who_stops_watching_does_not_fail(
    call: Call, study: list[str], opened: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    Run(opened, finished=1)

    def stopped(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("adapterxlt.watch.time.sleep", stopped)
    answer = call("status", *study, "--watch")
    assert answer.code == 0 and answer.err == "" and "running for" in answer.out


def test_on_a_terminal_it_is_drawn_over(
    call: Call, study: list[str], opened: Study, tmp_path: Path
) -> None:
    """Through a pseudo-terminal, since only there rich draws."""
    pty = pytest.importorskip("pty")
    run = Run(opened, finished=1)
    program = "from adapterxlt.cli import main; main()"
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", program, "status", *study, "--watch"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm"},
        stdout=child,
        stderr=child,
    )
    os.close(child)
    seen = b""
    while b"running for" not in seen:
        seen += os.read(parent, 4096)
    run("ended")
    while True:
        try:
            data = os.read(parent, 4096)
        except OSError:
            break
        if not data:
            break
        seen += data
    os.close(parent)
    assert process.wait(timeout=30) == 0 and b"ended" in seen and b"\x1b[" in seen


# run --track


@pytest.fixture
def followed(tmp_path: Path, tiny_backbone: Path) -> list[str]:
    (tmp_path / "followed.yaml").write_text(RECIPE, encoding="utf-8")
    return ["followed.yaml", "--backbone", str(tiny_backbone), "--store", "s"]


@pytest.mark.parametrize("where", ["tensorbord", "wandb"])
def test_a_tracker_that_is_not_there_is_refused_before_anything_runs(
    call: Call, study: list[str], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr("adapterxlt.run.tracking.find_spec", lambda name: None)
    answer = call("run", *study, "--track", where)
    assert answer.code == 2
    wanted = "pip install wandb" if where == "wandb" else "did you mean 'tensorboard'?"
    assert wanted in answer.refusal and not Path(".adapterxlt").exists()


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="TensorBoard is not installed")
def test_a_run_is_tracked_and_its_results_are_the_same(
    call: Call, followed: list[str], tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    answer = call("run", *followed, "--workers", 0, "--track", "tensorboard:tb")
    assert answer.code == 0 and "tensorboard" not in answer.err
    plain = [*followed[:-1], "plain"]
    assert call("run", *plain, "--workers", 0).code == 0
    kept = [
        Study.open("followed.yaml", backbone=followed[2], store=name) for name in ("s", "plain")
    ]
    read = EventAccumulator(str(tmp_path / "tb"))
    read.Reload()
    tags, wanted = set(read.Tags()["scalars"]), set()
    study = kept[0]
    for key, label in study.plan.labels.items():
        tracked, alone = (one.store.read(key) for one in kept)
        assert tracked is not None and alone is not None
        assert (tracked.key, tracked.files) == (alone.key, alone.files)
        assert tracked.facts.keys() == alone.facts.keys()
        wanted.add(f"seconds/{label}")
        if "losses" in tracked.facts:
            wanted.add(f"loss/{label}")
            curve = read.Scalars(f"loss/{label}")
            known = dict(tracked.facts["losses"])
            assert {one.step: one.value for one in curve} == pytest.approx(known)
    for cell, key in study.plan.cells.items():
        record = study.store.read(key)
        assert record is not None
        for metric, values in record.facts["metrics"].items():
            tag = f"lab-pos/{metric}/{cell.regime}/{cell.shots} shots/{cell.target}"
            wanted.add(tag)
            assert read.Scalars(tag)[0].value == pytest.approx(values["score"])
    assert tags == wanted


def test_a_tracker_that_fails_does_not_fail_the_run(
    call: Call, followed: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "wandb.py").write_text("def init(**given): raise OSError('no room')\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    # It is imported from there, and gone afterwards.
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.delitem(sys.modules, "wandb")
    answer = call("run", *followed, "--workers", 0, "--track", "wandb")
    assert answer.code == 0 and "sequential" in answer.out
    assert answer.err.count("wandb: OSError: no room; it is switched off, the run goes on") == 1
