"""Trackers: what TensorBoard reads back, and that no tracker can fail or hold up a run."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from adapterxlt.core.errors import UsageError
from adapterxlt.run import tracking
from adapterxlt.run.study import Study
from adapterxlt.run.tracking import Place, Scalar, Tracker, place_of
from adapterxlt.store.files import write_json

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "quickstart" / "lab.yaml"
FAKE = """
import json, pathlib

class Run:
    def __init__(self, **given): self.log_of, self.given = [], given
    def define_metric(self, name, step_metric): self.metric = name, step_metric
    def log(self, values): self.log_of.append(values)
    def finish(self): pathlib.Path("seen.json").write_text(
        json.dumps({"given": self.given, "metric": self.metric, "log": self.log_of}))

def init(**given):
    return Run(**given)
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(tmp_path)
    return Study.open(RECIPE, store=tmp_path / "s", overrides=["shots=[10]"])


class Kept:
    """A tracker in memory."""

    def __init__(self) -> None:
        self.scalars: list[Scalar] = []
        self.closed = False

    def add(self, scalar: Scalar) -> None:
        self.scalars.append(scalar)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def tracked(study: Study, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """``tracked(sink)``: a tracker that passes on to it, and what it says."""

    def make(sink: Any) -> tuple[Tracker, list[str]]:
        said: list[str] = []
        made = sink if callable(sink) else lambda: sink
        monkeypatch.setitem(tracking.SINKS, "test", lambda name, study, say: made())
        return Tracker(Place("test", None), study, said.append), said

    return make


def train_and_score(study: Study, tracker: Tracker) -> tuple[str, str]:
    """What a tracker hears of a training and of the evaluations of one, as of a run."""
    key = next(k for k, s in study.plan.stages.items() if s.kind == "train")
    note = {"label": "x", "steps": 100, "rate": 1.0}
    tracker.started(key)
    for step, loss in ((0, None), (1, 3.0), (1, 3.0), (40, 2.0)):
        path = study.store.work(key) / "progress.json"
        write_json(path, {**note, "step": step, "loss": loss, "time": 50.0 + step})
        tracker.tick([key])
    study.store.clean(key)
    tracker.tick([key])
    losses = [[1, 3.0], [39, 2.1], [40, 2.0], [41, 1.9], [100, 1.0]]
    publish(study, tracker, key, losses=losses, steps=100, final_loss=1.0)
    scored = study.cell(regime="joint", target="lab-far-low", seed=2)[1]
    metrics = {name: {"score": score} for name, score in (("accuracy", 0.5), ("macro_f1", 0.25))}
    publish(study, tracker, scored, metrics=metrics)
    return key, scored


def publish(study: Study, tracker: Tracker, key: str, **facts: Any) -> None:
    stage = study.plan.stages[key]
    study.store.publish(key, stage.canonical(), {}, {"seconds": 4.0, **facts})
    tracker.finished(key, None)


def test_losses_scores_and_seconds_are_passed_on(study: Study, tracked: Any) -> None:
    sink = Kept()
    tracker, said = tracked(sink)
    key, scored = train_and_score(study, tracker)
    bad = next(k for k, s in study.plan.stages.items() if s.kind == "train" and k != key)
    tracker.finished(bad, ValueError("odd"))
    tracker.close()
    name = study.plan.labels[key]
    found: dict[str, list[tuple[int, float]]] = {}
    for scalar in sink.scalars:
        found.setdefault(scalar.tag, []).append((scalar.step, scalar.value))
    assert found == {
        # From the notes as they were seen, then what the record has beyond them.
        f"loss/{name}": [(1, 3.0), (40, 2.0), (41, 1.9), (100, 1.0)],
        f"seconds/{name}": [(0, 4.0)],
        f"seconds/{study.plan.labels[scored]}": [(0, 4.0)],
        "lab-pos/accuracy/joint/10 shots/lab-far-low/seed 2": [(0, 0.5)],
        "lab-pos/macro_f1/joint/10 shots/lab-far-low/seed 2": [(0, 0.25)],
    }
    assert [scalar.time for scalar in sink.scalars[:2]] == [51.0, 90.0]
    assert sink.closed and said == []


def test_every_cell_of_a_shared_evaluation_has_its_score(study: Study, tracked: Any) -> None:
    twin = "{name: twin, summary: Another name., phases: [{name: source, languages: [source]}]}"
    more = Study.open(
        study.loaded.document.name,
        store=study.store.root,
        overrides=[f"regimes=[zero-shot, {twin}]", "seeds=[3]"],
    )
    assert len(set(more.plan.cells.values())) < len(more.plan.cells)
    sink, said = Kept(), []
    tracked(sink)
    tracker = Tracker(Place("test", None), more, said.append)
    for key in dict.fromkeys(more.plan.cells.values()):
        publish(more, tracker, key, metrics={"accuracy": {"score": 0.5}})
    tracker.close()
    tags = [one.tag for one in sink.scalars if not one.tag.startswith("seconds/")]
    assert len(tags) == len(set(tags)) == len(more.plan.cells)
    for name in ("zero-shot", "twin"):
        assert f"lab-pos/accuracy/{name}/0 shots/lab-mid-mid" in tags


def test_stages_of_one_label_have_curves_of_their_own(study: Study, tracked: Any) -> None:
    first, second = [k for k, s in study.plan.stages.items() if s.kind == "train"][:2]
    study.plan.labels[second] = study.plan.labels[first]
    sink = Kept()
    tracker, _ = tracked(sink)
    for key in (first, second):
        publish(study, tracker, key, losses=[[1, 2.0]])
    tracker.close()
    assert len({one.tag for one in sink.scalars if one.tag.startswith("loss/")}) == 2


@pytest.mark.parametrize("where", ["init", "add", "close"])
@pytest.mark.parametrize("error", [OSError("disk\nfull"), SystemExit(3), KeyboardInterrupt()])
def test_a_tracker_that_raises_is_switched_off_and_said_once(
    study: Study, tracked: Any, where: str, error: BaseException
) -> None:
    class Raising(Kept):
        def __init__(self) -> None:
            super().__init__()
            if where == "init":
                raise error

        def add(self, scalar: Scalar) -> None:
            if where == "add":
                raise error

        def close(self) -> None:
            raise error

    tracker, said = tracked(Raising)
    train_and_score(study, tracker)
    tracker.close()
    tracker.tick([])
    tracker.close()
    assert len(said) == 1 and said[0].startswith(f"test: {type(error).__name__}")
    assert "switched off" in said[0] and "\n" not in said[0]


def test_what_cannot_be_read_switches_a_tracker_off_too(study: Study, tracked: Any) -> None:
    sink = Kept()
    tracker, said = tracked(sink)
    key = next(iter(study.plan.stages))
    study.store.record_path(key).parent.mkdir(parents=True)
    study.store.record_path(key).write_text("{")
    tracker.finished(key, None)
    tracker.finished(key, None)
    tracker.close()
    assert len(said) == 1 and "StoreDamaged" in said[0] and sink.scalars == []


def test_a_tracker_that_hangs_holds_up_nothing(
    study: Study, tracked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "PATIENCE", 0.5)
    monkeypatch.setattr(tracking, "ROOM", 3)
    release = threading.Event()

    class Hanging(Kept):
        def add(self, scalar: Scalar) -> None:
            release.wait(60)

    tracker, said = tracked(Hanging())
    started = time.monotonic()
    train_and_score(study, tracker)
    assert time.monotonic() - started < 0.5
    # One is being added and three wait, of eight.
    assert tracker.dropped >= 4
    tracker.close()
    assert time.monotonic() - started < 3
    assert len(said) == 1 and "not done after" in said[0]
    release.set()


def test_a_slow_tracker_loses_numbers_and_says_how_many(
    study: Study, tracked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "ROOM", 2)
    gate = threading.Event()

    class Slow(Kept):
        def add(self, scalar: Scalar) -> None:
            gate.wait(60)
            super().add(scalar)

    sink = Slow()
    tracker, said = tracked(sink)
    train_and_score(study, tracker)
    gate.set()
    tracker.close()
    assert tracker.dropped and len(sink.scalars) + tracker.dropped == 8
    assert said == [f"test: too slow, {tracker.dropped} numbers were dropped"] and sink.closed


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="TensorBoard is not installed")
def test_tensorboard_reads_back_what_was_passed_on(study: Study, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    said: list[str] = []
    tracker = Tracker(place_of("tensorboard:tb"), study, said.append)
    key, _ = train_and_score(study, tracker)
    tracker.close()
    assert said == []
    read = EventAccumulator(str(tmp_path / "tb"))
    read.Reload()
    losses = read.Scalars(f"loss/{study.plan.labels[key]}")
    assert [(one.step, round(one.value, 5)) for one in losses] == [
        *((1, 3.0), (40, 2.0)),
        *((41, 1.9), (100, 1.0)),
    ]
    assert losses[1].wall_time == 90.0
    (score,) = read.Scalars("lab-pos/accuracy/joint/10 shots/lab-far-low/seed 2")
    assert score.value == 0.5
    # Another run goes on in the same folder; without a name it is that of the study.
    for name in ("tb", None):
        again = Tracker(Place("tensorboard", name), study, said.append)
        again.close()
    assert len(list((tmp_path / "tb").iterdir())) == 2
    assert (tmp_path / "runs" / "quickstart").is_dir() and said == []


@pytest.fixture
def fake_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "wandb.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    # It is imported from there, and gone afterwards.
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.delitem(sys.modules, "wandb")


@pytest.mark.usefixtures("fake_wandb")
@pytest.mark.parametrize("key", ["", "variable", "netrc"])
def test_wandb_is_given_numbers_and_no_paths(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    if key == "variable":
        monkeypatch.setenv("WANDB_API_KEY", "k")
    elif key == "netrc":
        (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password k\n")
        (tmp_path / ".netrc").chmod(0o600)
    said: list[str] = []
    tracker = Tracker(place_of("wandb:mine"), study, said.append)
    trained, _ = train_and_score(study, tracker)
    tracker.close()
    text = (tmp_path / "seen.json").read_text()
    seen = json.loads(text)
    assert seen["given"]["project"] == "mine" and seen["given"]["name"] == "quickstart"
    # Offline where there is no key: it would ask for one.
    assert seen["given"]["mode"] == ("online" if key else "offline")
    assert len(said) == (0 if key else 1)
    # Or it would send the command line, paths and load of this machine.
    for what in ("meta", "stats", "machine_info"):
        assert seen["given"]["settings"][f"x_disable_{what}"] is True
    assert seen["metric"] == ["loss/*", "step"] and str(tmp_path) not in text
    curve = f"loss/{study.plan.labels[trained]}"
    assert {curve: 1.9, "step": 41} in seen["log"] and len(seen["log"]) == 8


@pytest.mark.parametrize("text", ["tensorbord", "", ":x", "wandb2"])
def test_other_trackers_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no such tracker"):
        place_of(text)


@pytest.mark.parametrize("kind", ["tensorboard", "wandb"])
def test_what_is_not_installed_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=f"{kind} is not installed; pip install {kind}"):
        place_of(f"{kind}:x")
    # A folder that wandb left here is not wandb.
    monkeypatch.undo()
    (tmp_path / kind).mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, kind, raising=False)
    with pytest.raises(UsageError, match="is not installed"):
        place_of(kind)


@pytest.mark.usefixtures("fake_wandb")
def test_places() -> None:
    assert place_of("wandb") == Place("wandb", None) == place_of("wandb:")
    assert place_of("wandb:a:b") == Place("wandb", "a:b")
