"""The command line timed as a user starts it: whole processes, from their start to their end.

Processor seconds are shown beside those of the clock: they stay about the same when others work on
the machine.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

#: What `pip install` puts beside the interpreter.
COMMAND = Path(sys.executable).with_name("adapterxlt")


def timed(arguments: Sequence[str], folder: Path, runs: int) -> dict[str, float]:
    """Medians of so many runs, started in ``folder``: ``seconds`` and ``processor`` seconds; and
    the fastest and the slowest run."""
    wall, processor = [], []
    for _ in range(runs):
        start, before = time.perf_counter(), _spent()
        done = subprocess.run([COMMAND, *arguments], cwd=folder, capture_output=True, text=True)
        wall.append(time.perf_counter() - start)
        processor.append(_spent() - before)
        if done.returncode:
            raise RuntimeError(f"adapterxlt {' '.join(arguments)}: {done.stderr}")
    return {
        "seconds": round(statistics.median(wall), 3),
        "processor": round(statistics.median(processor), 3),
        "fastest": round(min(wall), 3),
        "slowest": round(max(wall), 3),
    }


def show(what: str, times: dict[str, float]) -> None:
    """One line of a table."""
    print(
        f"{what:40} {times['seconds']:6.2f} s  processor {times['processor']:6.2f} s  "
        f"({times['fastest']:.2f} to {times['slowest']:.2f})"
    )


def _spent() -> float:
    """Processor seconds of all children that have ended."""
    of = resource.getrusage(resource.RUSAGE_CHILDREN)
    return of.ru_utime + of.ru_stime
