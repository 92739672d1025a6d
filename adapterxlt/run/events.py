"""The log of a study's runs: a line of JSON for each event, to be followed while it grows.

What a run tells (all have ``time``, in seconds since 1970, ``event`` and ``run``, the run's name):

- ``run``: it starts; ``needed`` stages, ``workers``, ``host``, ``pid`` and when that was ``born``,
  ``versions``, ``rates`` (operations a second that estimates are from) and with ``run --only`` the
  keys as ``only``;
- ``started``: ``key``, ``label``; ``finished``: ``key``, ``seconds`` of a worker, and ``elsewhere``
  where another run computed it; ``failed``: ``key``, ``reason``, and as ``tail`` the end of the
  traceback of what was not foreseen; ``retried``: ``key``, ``reason``, the worker has died and it
  is begun again, as it was ``tries`` times; ``blocked``: ``key``, ``by``;
- ``ended``, with the counts ``computed``, ``failed`` and ``blocked``; or ``interrupted``.

Steps and losses are not in it: a running stage's are in its progress note, which is replaced twice
a second, and a finished one's in its record, so that the log grows with stages and not with steps.
A line is one write at the end of the file, so that runs at once do not tear each other's. It is
kept small when a run starts: a large one is put aside as ``NAME.jsonl.1``. The scheduler writes it,
`run.watching` reads it; nothing that is computed depends on it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

#: A log of more bytes is put aside when a run starts.
LIMIT = 20 << 20

Event = dict[str, Any]


class Log:
    """The end of a log, for one run. A log that cannot be written is no reason to stop working."""

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        self.path = path
        # What a run left that was killed while it wrote, or whose disk was full.
        self._torn = True
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and path.stat().st_size > limit:
                _put_aside(path, limit)

    def write(self, event: Mapping[str, Any]) -> None:
        data = (json.dumps(event) + "\n").encode()
        with suppress(OSError):
            handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                if self._torn and not _ends_whole(handle):
                    data = b"\n" + data
                self._torn = os.write(handle, data) < len(data)
            finally:
                os.close(handle)


class Follower:
    """Reads a log from its beginning, then what was added since; what is no event is skipped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self._offset = 0

    def read(self) -> list[Event]:
        """Events that were not read yet, in the order in which they were written."""
        aside, found = aside_of(self.path), []
        if self._file is None:
            found += self._from(aside)
            self._offset = 0
        elif _number(self.path) != self._file:
            # It was put aside since; its end was not read yet.
            found += self._from(aside) if _number(aside) == self._file else []
            self._offset = 0
        return found + self._from(self.path)

    def _from(self, path: Path) -> list[Event]:
        try:
            with path.open("rb") as file:
                state = os.fstat(file.fileno())
                self._file = state.st_ino
                # A shorter one is another one, by chance with the same number.
                self._offset = self._offset if state.st_size >= self._offset else 0
                file.seek(self._offset)
                # A line without its end may be in the midst of being written.
                lines = file.read().rpartition(b"\n")[0]
        except OSError:
            return []
        self._offset += len(lines) + 1 if lines else 0
        return [event for line in lines.split(b"\n") for event in [_event(line)] if event]


def born(pid: int) -> str | None:
    """When a process began, in ticks of the kernel: of two with one number it tells which. Nothing
    where there is none (also none that has died and was not waited for), or on other systems."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[19] if fields[0] != "Z" else None


def aside_of(path: Path) -> Path:
    """Where a large log is put; no study's own log can have this name."""
    return path.with_name(path.name + ".1")


def _event(line: bytes) -> Event | None:
    with suppress(ValueError):
        event = json.loads(line)
        if isinstance(event, dict) and isinstance(event.get("time"), int | float):
            known = isinstance(event.get("event"), str) and isinstance(event.get("run"), str)
            return event if known else None
    return None


def _put_aside(path: Path, limit: int) -> None:
    """One of the runs that start at once does it; a lock that was left behind is broken."""
    lock = path.with_name(path.name + ".lock")
    with suppress(FileNotFoundError):
        if time.time() - lock.stat().st_mtime > 60:
            lock.unlink()
    with suppress(FileExistsError):
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
        try:
            if path.stat().st_size > limit:
                os.replace(path, aside_of(path))
        finally:
            lock.unlink()


def _ends_whole(handle: int) -> bool:
    """Whether a file is empty or ends with the end of a line."""
    size = os.lseek(handle, 0, os.SEEK_END)
    if not size:
        return True
    os.lseek(handle, size - 1, os.SEEK_SET)
    return os.read(handle, 1) == b"\n"


def _number(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None
