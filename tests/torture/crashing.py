"""Runs that are killed, or find the disk full, at a step that is told; each in a fork of a process
that has loaded everything, since loading takes longer than the study.

As a program it reads orders, a line of JSON each, and answers with what became of a run. A step is
something done to the store's folder: a file that is begun, synced, linked, replaced or removed, a
folder that is made, a lock that is taken, a line of the log of events. It is counted before it is
done, so that a kill at step n comes after n - 1 of them.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOW = {"full": errno.ENOSPC, "read-only": errno.EROFS}


@dataclass(frozen=True)
class Order:
    """What to run, and where it ends."""

    arguments: list[str]
    """Recipe, store and backbone of a study that is run without a report; or a command line."""
    root: str
    """The store's folder."""
    at: int = 0
    """The step at which it happens; 0 for never."""
    how: str = "kill"
    """Or one of `HOW`: that step and all later ones fail."""
    after: float = 0.0
    """Seconds after which it is killed; 0 for never."""
    cli: bool = False
    clock: float = 0.0
    """Seconds by which the clock jumps, forth and back, each time that it is asked."""


@dataclass(frozen=True)
class End:
    """What became of a run."""

    code: int
    """Exit code; below zero the signal that ended it."""
    steps: list[str]
    """What it did, where it was not killed."""
    err: str
    seconds: float


class Runner:
    """The process that forks, for a `with` statement."""

    def __init__(self, recipe: Path, backbone: Path, scratch: Path) -> None:
        self.command = [sys.executable, __file__, str(recipe), str(backbone), str(scratch)]

    def __enter__(self) -> Runner:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)

    def __call__(self, order: Order) -> End:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(vars(order)) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the process that forks has died"
        return End(**json.loads(line))


# --- in the process that forks -------------------------------------------------------------------


class Steps:
    """Counts what is done to a folder, and does what was ordered when the count is reached."""

    def __init__(self, order: Order) -> None:
        self.order, self.names = order, []  # type: tuple[Order, list[str]]

    def take(self, what: str, place: str) -> None:
        root = self.order.root
        if place != root and not place.startswith(root + "/"):
            return
        self.names.append(f"{what} {kind_of(place[len(root) + 1 :])}")
        if not self.order.at or len(self.names) < self.order.at:
            return
        if self.order.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        number = HOW[self.order.how]
        raise OSError(number, os.strerror(number), place)

    def patch(self) -> None:
        """Put the count before every function that changes a folder."""
        for name, of in (("replace", -1), ("link", -1), ("unlink", 0), ("mkdir", 0)):
            self._wrap(os, name, lambda given, of=of: str(given[of]))
        self._wrap(os, "fsync", lambda given: os.readlink(f"/proc/self/fd/{given[0]}"))
        self._wrap(shutil, "rmtree", lambda given: str(given[0]))
        self._wrap(os, "write", lambda given: os.readlink(f"/proc/self/fd/{given[0]}"))
        make = tempfile.mkstemp

        def mkstemp(*given: Any, **more: Any) -> Any:
            self.take("begin", str(more.get("dir") or ""))
            return make(*given, **more)

        tempfile.mkstemp = mkstemp
        from filelock import FileLock

        acquire = FileLock.acquire

        def locked(lock: Any, *given: Any, **more: Any) -> Any:
            self.take("lock", str(lock.lock_file))
            return acquire(lock, *given, **more)

        FileLock.acquire = locked

    def _wrap(self, module: Any, name: str, place: Callable[[Any], str]) -> None:
        real = getattr(module, name)

        def wrapped(*given: Any, **more: Any) -> Any:
            self.take(name, place(given))
            return real(*given, **more)

        setattr(module, name, wrapped)


def kind_of(place: str) -> str:
    """What a file of a store is: objects, records, locks, a snapshot, an event."""
    parts = place.split("/")
    if parts[0] == "work" and len(parts) > 1:
        return "snapshot" if parts[-1] == "snapshot" else f"work/{parts[1]}"
    return "/".join(parts[:2]) if parts[0] == "notes" else parts[0] or "root"


def run(order: Order) -> int:
    """The run itself; its exit code."""
    if order.cli:
        from adapterxlt.cli import main

        sys.argv = ["adapterxlt", *order.arguments]
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0
    from adapterxlt.core.errors import AdapterXLTError
    from adapterxlt.run.study import Study

    recipe, store, backbone = order.arguments
    try:
        study = Study.open(recipe, store=store, backbone=backbone)
        outcome = study.run(workers=0, snapshot_every=0)
    except AdapterXLTError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for reason in outcome.failed.values():
        print(reason, file=sys.stderr)
    return outcome.exit_code


def fork(order: Order) -> dict[str, Any]:
    """Run in a fork; what became of it."""
    with tempfile.TemporaryDirectory() as folder:
        told, talk, begun = Path(folder, "steps"), Path(folder, "err"), time.monotonic()
        child = os.fork()
        if child == 0:
            code = 70
            try:
                with talk.open("wb") as file:
                    os.dup2(file.fileno(), 2)
                    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                steps, write = Steps(order), told.write_text
                if order.clock:
                    jump(order.clock)
                steps.patch()
                code = run(order)
                write(json.dumps(steps.names))
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        if order.after:
            time.sleep(order.after)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        return {
            "code": os.waitstatus_to_exitcode(status),
            "steps": json.loads(told.read_text()) if told.exists() else [],
            "err": talk.read_text() if talk.exists() else "",
            "seconds": time.monotonic() - begun,
        }


def jump(seconds: float) -> None:
    """Make the clock jump forth and back."""
    real, state = time.time, [1]

    def odd() -> float:
        state[0] = -state[0]
        return real() + state[0] * seconds

    time.time = odd


def main() -> None:
    """Load and warm everything with one run, then do what is ordered."""
    from adapterxlt.run import requests

    recipe, backbone, scratch = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # So that the steps of two runs are the same, however long they take.
    requests.EVERY = 0.0
    assert run(Order([recipe, f"{scratch}/warm", backbone], scratch)) == 0
    for line in sys.stdin:
        print(json.dumps(fork(Order(**json.loads(line)))), file=answers, flush=True)


if __name__ == "__main__":
    main()
