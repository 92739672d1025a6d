"""The log of runs: lines that are whole, whoever writes at the same time and whatever was left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adapterxlt.run import events
from adapterxlt.run.events import Follower, Log, aside_of, born

WRITER = """
import sys
from pathlib import Path
from adapterxlt.run.events import Log
log = Log(Path(sys.argv[1]))
for i in range(300):
    log.write({"time": i, "event": "started", "run": sys.argv[2], "label": sys.argv[2] * i})
"""


def event(name: str, n: int = 0, **more: object) -> dict[str, object]:
    return {"time": n, "event": name, "run": "r", **more}


def test_what_is_written_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "notes" / "x.jsonl"
    follower, log = Follower(path), Log(path)
    assert follower.read() == []
    first, second = event("run", label="ä\u2028b"), event("ended", 2)
    log.write(first)
    assert follower.read() == [first]
    assert follower.read() == []
    log.write(second)
    assert follower.read() == [second]
    assert Follower(path).read() == [first, second]
    assert path.read_bytes().count(b"\n") == 2


def test_runs_at_once_do_not_tear_each_others_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    root = Path(__file__).resolve().parents[2]
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, path, name], cwd=root) for name in "abc"
    ]
    follower, found = Follower(path), []
    while any(writer.poll() is None for writer in writers):
        found += follower.read()
        time.sleep(0.01)
    found += follower.read()
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert len(path.read_bytes().splitlines()) == 900
    for name in "abc":
        own = [line for line in found if line["run"] == name]
        assert [line["time"] for line in own] == list(range(300))
        assert all(line["label"] == name * line["time"] for line in own)


def test_torn_and_foreign_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    good = event("run")
    foreign: list[object] = [[1], "text", 7, None, {}, {"event": "run"}, {**good, "time": "now"}]
    foreign += [{**good, "run": 3}, {**good, "event": None}]
    torn = json.dumps(good).encode()
    lines = [b"", b"\xff\xfe", torn[:-5], b"{" * 9, *(json.dumps(one).encode() for one in foreign)]
    path.write_bytes(b"\n".join([*lines, json.dumps(good).encode(), b""]))
    assert Follower(path).read() == [good]


def test_a_line_that_is_not_whole_yet_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    data = json.dumps(event("run")).encode() + b"\n"
    follower = Follower(path)
    for cut in (0, 1, 20, len(data) - 1):
        path.write_bytes(data[:cut])
        assert follower.read() == []
    path.write_bytes(data)
    assert follower.read() == [event("run")]


def test_a_run_does_not_go_on_with_the_torn_line_of_another(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(json.dumps(event("run")).encode() + b'\n{"time": 3, "ev')
    follower = Follower(path)
    assert follower.read() == [event("run")]
    Log(path).write(event("run", 5))
    assert follower.read() == [event("run", 5)]
    assert Follower(path).read() == [event("run"), event("run", 5)]


def test_what_a_full_disk_cut_off_costs_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.jsonl"
    log, write = Log(path), os.write
    log.write(event("run", 1))
    monkeypatch.setattr(events.os, "write", lambda handle, data: write(handle, data[:9]))
    log.write(event("started", 2))
    monkeypatch.setattr(events.os, "write", write)
    log.write(event("ended", 3))
    assert [line["time"] for line in Follower(path).read()] == [1, 3]


def test_a_large_log_is_put_aside_when_a_run_starts(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    for n in range(3):
        log = Log(path, limit=200)
        for i in range(5):
            log.write(event("started", 10 * n + i, label="some label"))
    # No more than what is aside and the last run's is kept, in order.
    assert [line["time"] for line in Follower(path).read()] == [10, 11, 12, 13, 14, *range(20, 25)]
    assert {p.name for p in tmp_path.iterdir()} == {"x.jsonl", "x.jsonl.1"}
    assert aside_of(path).stat().st_size > 200


def test_one_who_follows_misses_nothing_when_the_log_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    first, follower = Log(path, limit=100), Follower(path)
    for i in range(3):
        first.write(event("started", i, label="some label"))
    assert len(follower.read()) == 3
    first.write(event("finished", 3))
    second = Log(path, limit=100)
    second.write(event("run", 4))
    # The run before goes on, in the new file.
    first.write(event("finished", 5))
    assert [line["time"] for line in follower.read()] == [3, 4, 5]
    path.unlink()
    Log(path).write(event("run", 6))
    assert [line["time"] for line in follower.read()] == [6]


def test_a_lock_left_behind_does_not_keep_a_log_growing(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n" * 300)
    lock = tmp_path / "x.jsonl.lock"
    lock.write_text("")
    Log(path, limit=200)
    assert not aside_of(path).exists()
    os.utime(lock, (0, 0))
    Log(path, limit=200)
    assert aside_of(path).exists() and not lock.exists()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
def test_processes_are_told_apart_also_from_dead_ones() -> None:
    process = subprocess.Popen(["sleep", "60"])
    first = born(process.pid)
    assert first == born(process.pid) != born(os.getpid())
    process.kill()
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    assert born(process.pid) is None
    process.wait()
    assert born(process.pid) is None
