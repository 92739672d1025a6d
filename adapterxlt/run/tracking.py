"""Losses and scores of a run for TensorBoard or Weights & Biases, which show them as curves.

A `Tracker` hears of stages from the scheduler, reads losses where `status` does, from the progress
notes and the records, and hands numbers to a thread of its own, the only one that calls the other
library. Whatever that does, a run goes on: what is too slow loses numbers, what raises is reported
once and switched off, what hangs is left behind. Nothing that is computed depends on it.
Called by `cli`.
"""

from __future__ import annotations

import netrc
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from adapterxlt.core.errors import UsageError, did_you_mean
from adapterxlt.core.plan import Cell
from adapterxlt.run.scheduler import Silent
from adapterxlt.run.study import Study
from adapterxlt.run.watching import notes_of

#: Numbers that wait for a slow tracker; more are dropped.
ROOM = 10_000
#: Seconds that the end of a run waits for what still waits.
PATIENCE = 5.0


@dataclass(frozen=True)
class Scalar:
    """A number with its place on a curve, and the second at which it was known."""

    tag: str
    value: float
    step: int
    time: float


class Sink(Protocol):
    """Where numbers go; made, called and closed by one thread."""

    def add(self, scalar: Scalar) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Place:
    """What ``--track`` names: a tracker, and a folder or a project of it."""

    kind: str
    name: str | None


def place_of(text: str) -> Place:
    """``tensorboard``, ``tensorboard:FOLDER``, ``wandb`` or ``wandb:PROJECT``.

    Raises:
        UsageError: it is something else, or its package is not installed.
    """
    kind, _, name = text.partition(":")
    where = f"--track {text}"
    if kind not in SINKS:
        raise UsageError("no such tracker", where=where, hint=did_you_mean(kind, SINKS))
    found = find_spec(kind)
    # A folder of that name, as wandb leaves them, is not the package.
    if found is None or found.origin is None:
        raise UsageError(f"{kind} is not installed", where=where, hint=f"pip install {kind}")
    return Place(kind, name or None)


class Tracker(Silent):
    """A listener that passes on what it hears.

    - ``loss/STAGE`` by step, while a stage trains and what is left of its curve at its end;
    - ``seconds/STAGE``;
    - ``TASK/METRIC/REGIME/N shots/TARGET`` of each cell that was evaluated, as a share in 0..1,
      with draw and seed where the study has several.

    Args:
        say: told in one line what went wrong, once.
    """

    def __init__(self, place: Place, study: Study, say: Callable[[str], None]) -> None:
        self.place, self.study, self.say = place, study, say
        self.dropped = 0
        self._off = threading.Event()
        self._ending = threading.Event()
        self._queue: queue.Queue[Scalar] = queue.Queue(ROOM)
        self._steps: dict[str, int] = {}
        """The last step of which a loss was passed on, by key."""
        labels = study.plan.labels
        twice = Counter(labels.values())
        self._names = {
            key: label if twice[label] == 1 else f"{label} {key[:6]}"
            for key, label in labels.items()
        }
        self._cells: dict[str, list[Cell]] = {}
        for cell, key in study.plan.cells.items():
            self._cells.setdefault(key, []).append(cell)
        self._thread = threading.Thread(target=self._work, daemon=True, name=f"track {place.kind}")
        self._thread.start()

    def tick(self, running: list[str]) -> None:
        if self._off.is_set():
            return
        with self._no_matter_what():
            for key, note in notes_of(self.study, running).items():
                if note.get("loss") is not None and note["step"] > self._steps.get(key, 0):
                    self._steps[key] = note["step"]
                    self._put(f"loss/{self._names[key]}", note["loss"], note["step"], note["time"])

    def finished(self, key: str, error: Exception | None) -> None:
        if self._off.is_set() or error is not None:
            return
        with self._no_matter_what():
            record = self.study.store.read(key)
            facts = record.facts if record is not None else {}
            name, now, last = self._names[key], time.time(), self._steps.pop(key, 0)
            for step, loss in facts.get("losses") or ():
                if step > last:
                    self._put(f"loss/{name}", loss, step, now)
            if "seconds" in facts:
                self._put(f"seconds/{name}", facts["seconds"], 0, now)
            for cell in self._cells.get(key, ()):
                for metric, values in facts["metrics"].items():
                    self._put(self._tag(cell, metric), values["score"], 0, now)

    def close(self) -> None:
        """Pass on what waits, for a few seconds at most."""
        self._ending.set()
        self._thread.join(PATIENCE)
        if self._thread.is_alive() and not self._off.is_set():
            self._switch_off(f"not done after {PATIENCE:.0f} s; the rest is not passed on")
        elif self.dropped:
            self.say(f"{self.place.kind}: too slow, {self.dropped} numbers were dropped")

    def _tag(self, cell: Cell, metric: str) -> str:
        recipe = self.study.recipe
        tag = f"{cell.task}/{metric}/{cell.regime}/{cell.shots} shots/{cell.target}"
        if cell.draw is not None and len(recipe.draws) > 1:
            tag += f"/draw {cell.draw}"
        return tag + (f"/seed {cell.seed}" if len(recipe.seeds) > 1 else "")

    def _put(self, tag: str, value: float, step: int, at: float) -> None:
        try:
            self._queue.put_nowait(Scalar(tag, float(value), int(step), at))
        except queue.Full:
            self.dropped += 1

    def _work(self) -> None:
        """What the thread does, until it is told to end and nothing waits."""
        with self._no_matter_what():
            sink = SINKS[self.place.kind](self.place.name, self.study, self.say)
            while not self._off.is_set():
                try:
                    sink.add(self._queue.get(timeout=0.2))
                except queue.Empty:
                    if self._ending.is_set():
                        break
            sink.close()

    def _no_matter_what(self) -> _Fence:
        return _Fence(self._switch_off)

    def _switch_off(self, why: str) -> None:
        if not self._off.is_set():
            self._off.set()
            self.say(f"{self.place.kind}: {why}; it is switched off, the run goes on")


class _Fence:
    """Lets nothing out but what ends the program."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.tell = tell

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if error is None or (
            threading.current_thread() is threading.main_thread()
            and not isinstance(error, Exception)
        ):
            return False
        self.tell(" ".join(f"{type(error).__name__}: {error}".split()))
        return True


class TensorBoard:
    """Event files in a folder, ``runs/STUDY`` unless it is named; runs of a study add to it."""

    def __init__(self, name: str | None, study: Study, say: Callable[[str], None]) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder = Path(name) if name is not None else Path("runs") / study.recipe.name
        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._writer = EventFileWriter(str(folder), flush_secs=5)

    def add(self, scalar: Scalar) -> None:
        value = self._summary.Value(tag=scalar.tag, simple_value=scalar.value)
        summary = self._summary(value=[value])
        event = self._event(wall_time=scalar.time, step=scalar.step, summary=summary)
        self._writer.add_event(event)

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A run of a project, ``adapterxlt`` unless it is named; offline where there is no key, so that
    nothing is asked. It is told the study's name and the numbers; not the recipe, nor what it would
    find out by itself of the machine, its paths and its load."""

    def __init__(self, name: str | None, study: Study, say: Callable[[str], None]) -> None:
        import wandb

        mode = os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
        if mode == "offline":
            say("wandb: offline; `wandb sync` uploads the folder that it leaves under wandb/")
        off = ["disable_git", "disable_code"]
        off += ["x_disable_meta", "x_disable_stats", "x_disable_machine_info"]
        settings = {"console": "off", "silent": True, **dict.fromkeys(off, True)}
        self._run = wandb.init(
            project=name or "adapterxlt", name=study.recipe.name, mode=mode, settings=settings
        )
        self._run.define_metric("loss/*", step_metric="step")

    def add(self, scalar: Scalar) -> None:
        self._run.log({scalar.tag: scalar.value, "step": scalar.step})

    def close(self) -> None:
        self._run.finish()


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    with suppress(OSError, netrc.NetrcParseError):
        base = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
        host = base.partition("://")[2].strip("/")
        return netrc.netrc().authenticators(host) is not None
    return False


SINKS: dict[str, Callable[[str | None, Study, Callable[[str], None]], Sink]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
}
