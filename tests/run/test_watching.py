"""What is seen of a study from its log, its notes and its records; no model runs."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from adapterxlt.core.cost import EFFICIENCY
from adapterxlt.run import watching
from adapterxlt.run.events import Log, born
from adapterxlt.run.requests import Notes
from adapterxlt.run.scheduler import Silent
from adapterxlt.run.study import Study
from adapterxlt.run.watching import Story, Watcher
from adapterxlt.store.files import write_json

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "quickstart" / "lab.yaml"
NOW = 1_000_000.0
RATES = dict.fromkeys(EFFICIENCY, 1e9)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study.open(RECIPE, store=tmp_path / "s", overrides=["seeds=[1]", "shots=[10]"])


class Told:
    """Writes what a run of this process would have told."""

    def __init__(self, study: Study, name: str = "r", **more: Any) -> None:
        self.log, self.name = Log(study.events), name
        me = {"host": platform.node(), "pid": os.getpid(), "born": born(os.getpid())}
        known = {"needed": len(study.plan.stages), "workers": 2, "rates": RATES, "versions": {}}
        self("run", -100.0, **{**me, **known, **more})

    def __call__(self, event: str, at: float = 0.0, **more: Any) -> None:
        self.log.write({"time": NOW + at, "event": event, "run": self.name, **more})

    def finish(self, study: Study, key: str, at: float, seconds: float, **facts: Any) -> None:
        stage = study.plan.stages[key]
        study.store.publish(key, stage.canonical(), {}, {"seconds": seconds, **facts})
        self("started", at - seconds, key=key, label="")
        self("finished", at, key=key, seconds=seconds)


def note(study: Study, key: str, at: float, **more: Any) -> None:
    value = {"label": "x", "step": 0, "steps": 1, "loss": None, "rate": None, "time": NOW + at}
    write_json(study.store.work(key) / "progress.json", {**value, **more})


def estimate(study: Study, key: str) -> float:
    return study.work(key).flops / 1e9 + 0.2


def keys(study: Study, kind: str) -> list[str]:
    return [key for key, stage in study.plan.stages.items() if stage.kind == kind]


def test_nothing_is_seen_of_a_study_that_has_not_run(study: Study) -> None:
    sight = Watcher(study).look(NOW)
    assert sight.cells == (0, len(study.plan.cells)) and not sight.going
    assert sight.stages == {
        kind: [0, len(keys(study, kind))] for kind in ("pretrain", "train", "evaluate")
    }
    assert (sight.running, sight.finished, sight.failed, sight.runs, sight.left) == (
        *([], [], [], []),
        None,
    )


def test_a_run_is_seen_while_it_goes_on(study: Study) -> None:
    run, watcher = Told(study), Watcher(study)
    (base,), (language, other, *_) = keys(study, "pretrain"), keys(study, "train")
    run.finish(study, base, -50.0, 40.0, final_loss=2.5)
    run("started", -10.0, key=language, label="")
    run("started", -8.0, key=other, label="")
    note(study, language, -1.5, step=30, steps=100, loss=1.25, rate=5.0)
    # Left by a run before this one.
    note(study, other, -99.0, step=3, steps=9, loss=9.0, rate=1.0)
    sight = watcher.look(NOW)
    assert sight.going and sight.stages["pretrain"] == [1, 1]
    work = study.work(language)
    first, second = sight.running
    assert first == {
        "key": language[:12],
        "label": study.plan.labels[language],
        "state": "running",
        "step": 30,
        "steps": 100,
        "loss": 1.25,
        "age": 1.5,
        "seconds": 10.0,
        "rate": 5.0,
        "tokens_per_second": round(5 * work.tokens / work.steps),
    }
    assert second["state"] == "running" and second["seconds"] == 8.0
    assert second["step"] is second["loss"] is second["age"] is None
    assert [(row["label"], row["seconds"], row["loss"]) for row in sight.finished] == [
        (study.plan.labels[base], 40.0, 2.5)
    ]
    assert sight.left is not None and sight.left["samples"] == 1 and sight.left["low"] is None
    (seen,) = sight.runs
    assert seen.items() >= {"state": "running", "finished": 1, "workers": 2}.items()
    # Looking again reads what was added.
    (study.store.work(language) / "progress.json").unlink()
    run.finish(study, language, 0.0, 10.0, final_loss=1.0)
    run("failed", 1.0, key=other, reason="StageError: gone")
    run("interrupted", 2.0)
    after = watcher.look(NOW + 5)
    assert not after.going and after.left is None and after.runs[0]["state"] == "interrupted"
    assert [row["reason"] for row in after.failed] == ["StageError: gone"]
    assert [row["loss"] for row in after.finished] == [2.5, 1.0]


def test_the_time_left_is_of_estimates_scaled_by_what_has_finished(study: Study) -> None:
    run = Told(study, workers=1)
    evaluations, trains = keys(study, "evaluate"), keys(study, "train")
    for key in (*keys(study, "pretrain"), *trains):
        run.finish(study, key, -1.0, 3 * estimate(study, key))
    for key in evaluations[:4]:
        run.finish(study, key, -1.0, 7 * estimate(study, key), metrics={"accuracy": {"score": 1}})
    left = Watcher(study).look(NOW).left
    assert left is not None and left["samples"] == 5 + len(trains)
    rest = 7 * sum(estimate(study, key) for key in evaluations[4:])
    assert left["seconds"] == pytest.approx(rest)
    assert left["low"] == pytest.approx(rest) == left["high"] and left["coverage"] == 0.8


def test_a_stage_that_tells_its_steps_goes_by_them(study: Study) -> None:
    run = Told(study, workers=1)
    *before, last = study.plan.stages
    for key in before:
        run.finish(study, key, -20.0, estimate(study, key))
    run("started", -10.0, key=last, label="")
    note(study, last, -2.0, step=10, steps=100, rate=5.0)
    left = Watcher(study).look(NOW).left
    assert left is not None and left["seconds"] == pytest.approx(90 / 5 - 2)


def test_what_failed_and_what_needs_it_is_not_waited_for(study: Study) -> None:
    run = Told(study, workers=1)
    (base,) = keys(study, "pretrain")
    run.finish(study, base, -20.0, 1.0)
    source = next(key for key in keys(study, "train") if "source" in study.plan.labels[key])
    for key in keys(study, "train"):
        if key != source:
            run.finish(study, key, -1.0, estimate(study, key))
    run("started", -9.0, key=source, label="")
    run("failed", -5.0, key=source, reason="odd")
    left = Watcher(study).look(NOW).left
    free = [
        key
        for key in keys(study, "evaluate")
        if source not in study.plan.stages[key].inputs.values()
    ]
    assert left is not None and 0 < len(free) < len(keys(study, "evaluate"))
    pooled = (1.0 + sum(estimate(study, key) for key in keys(study, "train") if key != source)) / (
        sum(estimate(study, key) for key in (base, *keys(study, "train")) if key != source)
    )
    assert left["seconds"] == pytest.approx(pooled * sum(estimate(study, key) for key in free))


def test_single_stages_are_waited_for_alone_and_runs_at_once_together(study: Study) -> None:
    first, second, third = keys(study, "train")[:3]
    Told(study, "a", only=[first], workers=1)
    Told(study, "b", only=[second, third], workers=1)
    sight = Watcher(study).look(NOW)
    assert [run["run"] for run in sight.runs] == ["a", "b"] and sight.left is not None
    a, b, c = (estimate(study, key) for key in (first, second, third))
    assert sight.left["seconds"] == pytest.approx(max(a, b, min(a, b) + c))
    Told(study, "c", workers=1)
    every = Watcher(study).look(NOW).left
    assert every is not None and every["seconds"] > sight.left["seconds"]


def test_a_killed_run_is_told_from_one_that_goes_on(study: Study) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run = Told(study, pid=process.pid, born=born(process.pid))
    key = keys(study, "train")[0]
    run("started", -10.0, key=key, label="")
    note(study, key, -1.0, step=1, steps=9)
    sight = Watcher(study).look(NOW)
    assert sight.going and sight.running[0]["state"] == "running"
    process.kill()
    process.wait()
    gone = Watcher(study).look(NOW)
    assert not gone.going and gone.runs[0]["state"] == "gone"
    assert gone.running[0]["state"] == "stopped" and gone.left is None


def test_another_process_with_the_number_of_a_killed_run_is_not_it(study: Study) -> None:
    Told(study, pid=os.getpid(), born="1")
    assert Watcher(study).look(NOW).runs[0]["state"] == "gone"


def test_a_run_on_another_machine_is_there_while_it_gives_signs(study: Study) -> None:
    run = Told(study, host="elsewhere", pid=1)
    key = keys(study, "train")[0]
    run("started", -90.0, key=key, label="")
    late = NOW + watching.SILENT
    assert Watcher(study).look(NOW).going
    assert Watcher(study).look(late).runs[0]["state"] == "silent"
    note(study, key, watching.SILENT - 60)
    assert Watcher(study).look(late).going


def test_runs_of_another_study_of_the_name_are_not_shown(study: Study) -> None:
    run = Told(study)
    run("started", key="0" * 64, label="theirs")
    sight = Watcher(study).look(NOW)
    assert sight.runs == [] and not sight.going


@pytest.mark.parametrize(
    "event",
    [
        {"event": "run", "workers": "many"},
        {"event": "run"},
        {"event": "started"},
        {"event": "finished", "key": "k", "seconds": None},
        {"event": "failed", "key": ["k"], "reason": "x"},
        {"event": "something new", "key": "k"},
    ],
)
def test_events_that_are_not_as_they_should_be_are_skipped(event: dict[str, Any]) -> None:
    story = Story()
    good = {"workers": 1, "needed": 1, "pid": 1, "host": "h"}
    story.take({"time": 1, "event": "run", "run": "a", **good})
    story.take({"time": 2, "run": "a" if event["event"] != "run" else "b", **event})
    assert list(story.runs) == ["a"]
    run = story.runs["a"]
    assert (run.finished, run.failed, run.running, run.rates) == ({}, {}, {}, None)


def test_notes_of_what_is_odd_are_skipped(study: Study) -> None:
    first, second, third = keys(study, "train")[:3]
    for key, value in ((first, [1]), (second, {"step": 1}), (third, {"time": "x"})):
        write_json(study.store.work(key) / "progress.json", value)
    assert watching.notes_of(study, keys(study, "train")) == {}
    assert Watcher(study).look(NOW).running == []


def test_a_note_tells_the_rate_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("adapterxlt.run.requests.time.monotonic", lambda: clock[0])
    notes = Notes(tmp_path, "label", None)

    def told(step: int, after: float) -> dict[str, Any]:
        clock[0] += after
        notes(step, 100, 0.5)
        return dict(watching.read_json(tmp_path / "progress.json"))

    assert told(0, 0.0)["rate"] is None
    # It goes on from step 40; what it took to load is not of the steps.
    assert told(41, 30.0)["rate"] is None
    assert told(42, 0.1)["step"] == 41
    assert told(51, 1.9).items() >= {"step": 51, "rate": 5.0, "loss": 0.5}.items()


def test_a_real_run_tells_the_log_what_its_listener_hears(
    tiny_backbone: Path, small_text: str, tmp_path: Path
) -> None:
    (tmp_path / "small.yaml").write_text(small_text, encoding="utf-8")
    few = ["targets=[lab-near-high]", "regimes=[zero-shot]"]
    given: dict[str, Any] = {"store": tmp_path / "s", "backbone": str(tiny_backbone)}
    study = Study.open(tmp_path / "small.yaml", overrides=few, **given)

    class Hearing(Silent):
        def __init__(self) -> None:
            self.story, self.seen = Story(), []

        def told(self, event: dict[str, Any]) -> None:
            self.story.take(event)
            self.seen.append((event["event"], Watcher(study).look().going))

    heard = Hearing()
    study.run(workers=0, listener=heard)
    (run,) = heard.story.runs.values()
    assert run.rates is not None and run.rates.per_kind == study.speed.per_kind
    assert run.versions["adapterxlt"] and run.needed == len(study.plan.stages)
    assert list(run.finished) == list(study.plan.stages)
    for key, (_, seconds) in run.finished.items():
        record = study.store.read(key)
        assert record is not None and seconds >= record.facts["seconds"] - 0.01
    assert [going for _, going in heard.seen] == [True] * (len(heard.seen) - 1) + [False]
    sight = Watcher(study).look()
    assert sight.running == [] and sight.cells[0] == sight.cells[1]
    # It says the task's own metric of what is scored, and the loss of what is trained.
    assert {"loss", "score"} <= {name for row in sight.finished for name in row}
