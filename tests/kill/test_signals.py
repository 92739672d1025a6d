"""Ctrl-C and SIGTERM in the middle of a run: it ends in order, and goes on when run again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from test_kill import RECIPE, start, unfinished

from adapterxlt.run.events import Follower
from adapterxlt.run.study import Study
from adapterxlt.store.maintenance import fsck
from adapterxlt.store.store import Store


def begun(store: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until a stage is in its middle."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and not unfinished(store):
        time.sleep(0.005)
    assert process.poll() is None, process.communicate()[0].decode()


def members(group: int) -> list[int]:
    """Processes of a group that are alive, also those whose parent has died."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(of) == group and state != "Z":
            found.append(int(path.parent.name))
    return found


def gone(group: int, deadline: float) -> bool:
    """Whether no process of a group is left in time."""
    while members(group) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not members(group)


@pytest.mark.parametrize(
    ("number", "workers", "code", "word"),
    [
        (signal.SIGINT, 0, 130, b"interrupted"),
        (signal.SIGINT, 2, 130, b"interrupted"),
        (signal.SIGTERM, 2, 143, b"terminated"),
    ],
)
def test_a_signal_ends_a_run_in_order(
    number: signal.Signals,
    workers: int,
    code: int,
    word: bytes,
    tiny_backbone: Path,
    tmp_path: Path,
) -> None:
    recipe, store = tmp_path / "killed.yaml", tmp_path / "store"
    recipe.write_text(RECIPE, encoding="utf-8")
    process = start(recipe, store, tiny_backbone, workers)
    begun(store, process)
    at = time.monotonic()
    os.kill(process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() - at < 5
    assert process.returncode == code and word in output and b"Traceback" not in output
    assert output.splitlines()[-1].endswith(b"run the same command to go on")
    assert gone(process.pid, at + 5)
    [log] = (store / "notes" / "events").glob("*.jsonl")
    assert Follower(log).read()[-1]["event"] == "interrupted"
    assert fsck(Store(store)).findings == () and unfinished(store)
    study = Study.open(recipe, store=store, backbone=str(tiny_backbone))
    assert not study.run(workers=0).failed


def test_a_second_signal_ends_it_at_once(tiny_backbone: Path, tmp_path: Path) -> None:
    recipe, store = tmp_path / "killed.yaml", tmp_path / "store"
    recipe.write_text(RECIPE, encoding="utf-8")
    process = start(recipe, store, tiny_backbone, 2)
    begun(store, process)
    at = time.monotonic()
    while process.poll() is None and time.monotonic() - at < 5:
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.001)
    assert process.wait(5) in (-signal.SIGINT, 130) and time.monotonic() - at < 1
    # Workers look for their parent a few times a second.
    assert gone(process.pid, at + 5)
    assert fsck(Store(store)).findings == ()
