"""How far a study is: what its runs have told, what runs now, what is left and for how long.

Reads the log of runs (`run.events`), the progress notes of running stages and the records of
finished ones; writes nothing, so that it can look from another terminal. `status` shows a `Sight`;
the progress of `run` folds the events that it hears into the same `Story` and asks the same `left`.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from adapterxlt.core.cost import EFFICIENCY, Rates
from adapterxlt.core.errors import StoreDamaged
from adapterxlt.core.forecast import COVERAGE, Forecast, Sample, Todo, forecast
from adapterxlt.run.events import Event, Follower, born
from adapterxlt.run.study import Study
from adapterxlt.store.files import read_json

#: Seconds after which a note of no known run is taken to be of a stage that was stopped.
STALE = 60.0
#: Seconds without a sign after which a run on another machine is taken to be gone.
SILENT = 1800.0
#: So many finished stages are shown, the newest.
RECENT = 8


@dataclass
class RunState:
    """What a run has told of itself so far."""

    name: str
    since: float
    workers: int
    needed: int
    pid: int
    host: str
    born: str | None
    rates: Rates | None
    only: tuple[str, ...]
    versions: Mapping[str, str]
    last: float
    """When it told something last."""
    end: str | None = None
    """``ended`` or ``interrupted``, once it has told so."""
    running: dict[str, float] = field(default_factory=dict)
    """Since when, by key."""
    finished: dict[str, tuple[float, float]] = field(default_factory=dict)
    """When, and the seconds of a worker, of what it computed itself; by key, the newest last."""
    failed: dict[str, str] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)

    def state(self, now: float, seen: float = 0.0) -> str:
        """``running``, ``ended``, ``interrupted``, ``gone`` (killed) or ``silent`` (another
        machine's, without a sign for long).

        Args:
            seen: when there was another sign of it.
        """
        if self.end is not None:
            return self.end
        if self.host != platform.node() or os.name != "posix":
            return "running" if now - max(self.last, seen) < SILENT else "silent"
        if self.born is not None:
            return "running" if born(self.pid) == self.born else "gone"
        with suppress(PermissionError):
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return "gone"
        return "running"


class Story:
    """The runs of a study, by name, in the order in which they started."""

    def __init__(self) -> None:
        self.runs: dict[str, RunState] = {}

    def take(self, event: Event) -> None:
        """Fold in an event; one that is not as `run.events` says is skipped."""
        with suppress(KeyError, TypeError, ValueError):
            if event["event"] == "run":
                self.runs[event["run"]] = _run_of(event)
            elif event["run"] in self.runs:
                _take(self.runs[event["run"]], event)


def _run_of(event: Event) -> RunState:
    rates = event.get("rates")
    whole = isinstance(rates, dict) and EFFICIENCY.keys() <= rates.keys()
    return RunState(
        name=event["run"],
        since=float(event["time"]),
        workers=int(event["workers"]),
        needed=int(event["needed"]),
        pid=int(event["pid"]),
        host=str(event["host"]),
        born=event.get("born"),
        rates=Rates({k: float(v) for k, v in rates.items()}, "") if whole and rates else None,
        only=tuple(event.get("only") or ()),
        versions=dict(event.get("versions") or {}),
        last=float(event["time"]),
    )


def _take(run: RunState, event: Event) -> None:
    what, at = event["event"], float(event["time"])
    run.last = max(run.last, at)
    if what in ("ended", "interrupted"):
        run.end = what
    elif what == "started":
        run.running[event["key"]] = at
    elif what == "retried":
        run.running.pop(event["key"], None)
    elif what == "blocked":
        run.blocked[event["key"]] = str(event["by"])
    elif what in ("finished", "failed"):
        key = event["key"]
        run.running.pop(key, None)
        if what == "failed":
            run.failed[key] = str(event["reason"])
        elif not event.get("elsewhere"):
            run.finished[key] = at, float(event["seconds"])


def notes_of(study: Study, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The progress notes of stages that have one; see `run.requests.Notes`."""
    found = {}
    for key in keys:
        note = read_json(study.store.work(key) / "progress.json")
        with suppress(KeyError, TypeError):
            note["time"] + note["step"] + note["steps"]
            found[key] = note
    return found


def left(
    study: Study,
    runs: Sequence[RunState],
    missing: Sequence[str],
    notes: Mapping[str, Mapping[str, Any]],
    now: float,
) -> Forecast | None:
    """How long runs that are going on will need yet, from how their finished stages turned out; see
    `core.forecast`. Nothing where none of them has said what its estimates are from.

    Args:
        missing: keys that they have not computed, inputs first; what failed in them, and what needs
            that, is left out.
        notes: of `notes_of`, of running stages.
    """
    rates = next((run.rates for run in reversed(runs) if run.rates is not None), None)
    if rates is None:
        return None
    stages = study.plan.stages
    lost = {key for run in runs for key in run.failed}
    since = since_of(runs)
    todo = {}
    for key in missing:
        needs = tuple(stages[key].inputs.values())
        if key in lost or lost.intersection(needs):
            lost.add(key)
            continue
        work = study.work(key)
        spent = max(0.0, now - since[key]) if key in since else None
        pace = _pace(notes.get(key), since.get(key), now)
        todo[key] = Todo(work.work_kind, rates.seconds(work), needs, spent, pace)
    samples = [
        Sample(study.work(key).work_kind, rates.seconds(study.work(key)), seconds)
        for run in runs
        for key, (_, seconds) in run.finished.items()
        if key in stages
    ]
    return forecast(todo, samples, sum(run.workers for run in runs))


def _pace(note: Mapping[str, Any] | None, since: float | None, now: float) -> float | None:
    """Seconds that a running stage has left by its steps; a note from before it started is old."""
    if note is None or since is None or note["time"] < since or not note.get("rate"):
        return None
    rest = (note["steps"] - note["step"]) / note["rate"] - (now - note["time"])
    return float(max(0.0, rest))


def result_of(study: Study, key: str) -> dict[str, Any]:
    """What a finished stage has to tell: its last ``loss``, or its ``metric`` and ``score``, or the
    snapshot that was ``chosen`` of how many."""
    try:
        record = study.store.read(key)
    except StoreDamaged:
        return {}
    facts = record.facts if record is not None else {}
    if "metrics" in facts:
        task = study.plan.stages[key].params["data"]["task"]
        name = study.recipe.task(task).primary
        return {"metric": name, "score": facts["metrics"][name]["score"]}
    if "chosen" in facts:
        return {"chosen": facts["chosen"], "of": len(facts["scores"])}
    return {"loss": facts["final_loss"]} if "final_loss" in facts else {}


def since_of(runs: Iterable[RunState]) -> dict[str, float]:
    """When what runs now was started, by key."""
    return {key: at for run in runs for key, at in run.running.items()}


def running_rows(
    study: Study,
    since: Mapping[str, float],
    notes: Mapping[str, Mapping[str, Any]],
    now: float,
    dropped: Iterable[str] = (),
) -> list[dict[str, Any]]:
    """A row for each stage that runs or has a note, as `Sight.running` says, in the plan's order.

    Args:
        since: of `since_of`.
        dropped: what was running in runs that are over.
    """
    rows = []
    for key in study.plan.stages:
        if key not in since and key not in notes:
            continue
        note = notes.get(key)
        if note is not None and key in since and note["time"] < since[key]:
            note = None  # of a run before this one
        age = None if note is None else round(max(0.0, now - note["time"]), 1)
        note = note or {}
        work, rate = study.work(key), note.get("rate")
        fast = rate * work.tokens / work.steps if rate and work.steps else None
        fresh = key not in dropped and (age or 0.0) < STALE
        rows.append(
            {
                "key": key[:12],
                "label": study.plan.labels[key],
                "state": "running" if key in since or fresh else "stopped",
                # A stage that has no step yet, or none at all, says 0 of 1.
                "step": note.get("step") or None,
                "steps": note["steps"] if note.get("step") else None,
                "loss": note.get("loss"),
                "age": age,
                "seconds": round(max(0.0, now - since[key]), 1) if key in since else None,
                "rate": rate,
                "tokens_per_second": round(fast) if fast is not None else None,
            }
        )
    return rows


@dataclass(frozen=True)
class Sight:
    """How far a study is at one moment, as plain values."""

    cells: tuple[int, int]
    """Finished ones, and all."""
    stages: dict[str, list[int]]
    """The same by kind of stage."""
    running: list[dict[str, Any]]
    """``key``, ``label``, ``state`` (or ``stopped``, where a note is left of a stage that nobody
    computes), ``step``, ``steps``, ``loss``, ``age`` of the note in seconds, ``seconds`` since it
    started, ``rate`` in steps a second, ``tokens_per_second``; nothing where it is not known."""
    finished: list[dict[str, Any]]
    """The newest of the runs that go on, or of the latest: ``key``, ``label``, ``seconds``,
    ``time`` and what `result_of` says."""
    failed: list[dict[str, Any]]
    """``key``, ``label`` and ``reason``, of the same runs."""
    runs: list[dict[str, Any]]
    left: dict[str, Any] | None
    """``seconds``, ``low``, ``high``, ``coverage`` of these two, finished stages as ``samples``."""

    @property
    def going(self) -> bool:
        """Whether a run is going on."""
        return any(run["state"] == "running" for run in self.runs)


class Watcher:
    """Looks at a study again and again; of its log it reads what was added."""

    def __init__(self, study: Study) -> None:
        self.study, self.story = study, Story()
        self._follower = Follower(study.events)

    def look(self, now: float | None = None) -> Sight:
        now = time.time() if now is None else now
        for event in self._follower.read():
            self.story.take(event)
        study = self.study
        plan, done = study.plan, study.done()
        counts: dict[str, list[int]] = {}
        for key, stage in plan.stages.items():
            at = counts.setdefault(stage.kind, [0, 0])
            at[0] += key in done
            at[1] += 1
        notes = notes_of(study, _at_work(study) - done)
        runs = [run for run in self.story.runs.values() if self._of_plan(run)]
        seen = {
            run.name: max((notes[key]["time"] for key in run.running if key in notes), default=0.0)
            for run in runs
        }
        states = {run.name: run.state(now, seen[run.name]) for run in runs}
        live = [run for run in runs if states[run.name] == "running"]
        current = live or runs[-1:]
        if live and all(run.only for run in live):
            wanted = {key for run in live for key in run.only}
            missing = [key for key in plan.stages if key in wanted - done]
        else:
            missing = plan.needed(done, study.store.lost())
        ahead = left(study, live, missing, notes, now) if live else None
        dropped = set(since_of(runs)) - set(since_of(live))
        return Sight(
            cells=(sum(key in done for key in plan.cells.values()), len(plan.cells)),
            stages=counts,
            running=running_rows(study, since_of(live), notes, now, dropped),
            finished=self._finished(current),
            failed=[
                {"key": key[:12], "label": plan.labels[key], "reason": reason}
                for run in current
                for key, reason in run.failed.items()
                if key in plan.labels and key not in done
            ],
            runs=[_told(run, states[run.name]) for run in current],
            left={**asdict(ahead), "coverage": COVERAGE} if ahead is not None else None,
        )

    def _of_plan(self, run: RunState) -> bool:
        """Whether a run is of this study, not of another one of its name."""
        keys = (*run.running, *run.finished, *run.failed)
        return not keys or any(key in self.study.plan.stages for key in keys)

    def _finished(self, runs: Sequence[RunState]) -> list[dict[str, Any]]:
        every = [
            (at, key, seconds)
            for run in runs
            for key, (at, seconds) in list(run.finished.items())[-RECENT:]
            if key in self.study.plan.stages
        ]
        return [
            {
                "key": key[:12],
                "label": self.study.plan.labels[key],
                "seconds": seconds,
                "time": at,
                **result_of(self.study, key),
            }
            for at, key, seconds in sorted(every)[-RECENT:]
        ]


def _at_work(study: Study) -> set[str]:
    """Stages that have a folder of scratch."""
    with suppress(OSError):
        return set(os.listdir(study.store.work(""))) & study.plan.stages.keys()
    return set()


def _told(run: RunState, state: str) -> dict[str, Any]:
    return {
        "run": run.name,
        "state": state,
        "since": run.since,
        "last": run.last,
        "host": run.host,
        "workers": run.workers,
        "needed": run.needed,
        "finished": len(run.finished),
        "failed": len(run.failed),
        "blocked": len(run.blocked),
        "versions": dict(run.versions),
    }
