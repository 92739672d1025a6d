"""Full disks, disks that are only read, dead workers and clocks that jump: one message, no ruin."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from crashing import HOW, End, Order, Runner
from worlds import World

from adapterxlt.store.maintenance import fsck
from adapterxlt.store.store import Store


def command(world: World, store: Path, *arguments: str) -> list[str]:
    more = ["--store", str(store), "--backbone", str(world.backbone)]
    return [arguments[0], str(world.recipe), *arguments[1:], *more]


def running(world: World, store: Path, folder: Path) -> list[str]:
    out = ["--out", str(folder / "out"), "--workers", "0", "--snapshot-every", "0"]
    return command(world, store, "run", *out)


def one_message(end: End, words: tuple[str, ...]) -> None:
    """That a run ended with one line of why, and no other failure."""
    lines = [line for line in end.err.splitlines() if line.startswith("adapterxlt: ")]
    assert end.code in (1, 2) and len(lines) == 1, end
    assert "Traceback" not in end.err and any(word in lines[0] for word in words), end


def fails(world: World, runner: Runner, folder: Path, at: int, how: str) -> Counter[str]:
    """A run for which the disk is full, or may not be written to, from a step on; then as ever."""
    store = folder / "store"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    end = runner(Order(running(world, store, folder), str(store), at=at, how=how, cli=True))
    if end.code != 0:
        one_message(end, (os.strerror(HOW[how]),))
    if (store / "format.json").exists():
        assert fsck(Store(store)).findings == ()
    again = runner(Order([str(world.recipe), str(store), str(world.backbone)], str(store)))
    assert again.code == 0, again.err
    world.check(store)
    return Counter(cases=1, ended_with_one_message=end.code != 0, went_on=end.code == 0)


@pytest.fixture(scope="module")
def steps(world: World, runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> int:
    folder = tmp_path_factory.mktemp("steps")
    store = folder / "store"
    end = runner(Order(running(world, store, folder), str(store), cli=True))
    assert end.code == 0, end.err
    return len(end.steps)


@pytest.mark.parametrize("how", HOW)
def test_a_disk_that_fills_at_some_steps(
    how: str, world: World, runner: Runner, steps: int, tmp_path: Path
) -> None:
    counts: Counter[str] = Counter()
    for n in range(3):
        counts += fails(world, runner, tmp_path / "at", 1 + n * (steps - 1) // 3, how)
    print(f"\n{how} from some steps on: {dict(counts)}")
    assert counts["ended_with_one_message"] >= 2


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
def test_a_disk_that_fills_at_steps_of_all_kinds(
    how: str, world: World, runner: Runner, steps: int, tmp_path: Path
) -> None:
    counts: Counter[str] = Counter()
    # Seven has no factor with the steps of a stage, so that it meets all of them in turn.
    for n in range(1, steps + 1, 7):
        counts += fails(world, runner, tmp_path / "at", n, how)
    print(f"\n{how} from every seventh step on: {dict(counts)}")


# Real ones


@contextmanager
def disk(folder: Path, options: str) -> Iterator[Path]:
    """A disk in memory, where one can be mounted."""
    folder.mkdir(exist_ok=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True
    )
    if made.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts")
@pytest.mark.parametrize("size", ["64k", "200k"])
def test_a_real_disk_that_is_full(size: str, world: World, runner: Runner, tmp_path: Path) -> None:
    with disk(tmp_path / "disk", f"size={size}") as folder:
        store = folder / "store"
        refused = runner(Order(running(world, store, tmp_path), str(store), cli=True))
        one_message(refused, ("the store will grow by",))
        arguments = [*running(world, store, tmp_path), "--no-preflight"]
        end = runner(Order(arguments, str(store), cli=True))
        one_message(end, ("No space left on device",))
        if (store / "format.json").exists():
            assert fsck(Store(store)).findings == ()
        remount(folder, "size=50m")
        again = runner(Order([str(world.recipe), str(store), str(world.backbone)], str(store)))
        assert again.code == 0, again.err
        world.check(store)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts")
def test_a_real_disk_that_is_only_read(world: World, runner: Runner, tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "size=1g") as folder:
        store, half = folder / "whole", folder / "half"
        shutil.copytree(world.whole, store)
        shutil.copytree(world.half, half)
        remount(folder, "ro")
        end = runner(Order(running(world, half, tmp_path), str(half), cli=True))
        one_message(end, ("Read-only file system",))
        # What is finished can be looked at.
        for arguments in (
            command(world, store, "plan"),
            command(world, store, "status"),
            command(world, store, "results"),
            command(world, store, "report", "--out", str(tmp_path / "report")),
            running(world, store, tmp_path),
            ["fsck", "--store", str(store)],
            ["bundle", str(tmp_path / "b.tar"), "--store", str(store)],
        ):
            end = runner(Order(arguments, str(store), cli=True))
            assert end.code == 0, (arguments, end.err)
        remount(folder, "rw")
        assert world.run(half) == []
        world.check(half)


# Workers and clocks


def test_a_worker_that_is_killed(world: World, tmp_path: Path) -> None:
    store = tmp_path / "store"
    program = "from adapterxlt.cli import main; main()"
    arguments = running(world, store, tmp_path)
    arguments[arguments.index("--workers") + 1] = "1"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    locks, deadline = store / "work" / "stages", time.monotonic() + 120
    while time.monotonic() < deadline and not (locks.is_dir() and os.listdir(locks)):
        time.sleep(0.005)
    for worker in workers_of(process.pid):
        os.kill(worker, signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err.decode()
    assert b": a worker process died" in out + err and b"Traceback" not in err
    world.check(store)


def workers_of(parent: int) -> list[int]:
    """The processes of a pool that compute: its children but for what tracks resources."""
    found = []
    for task in Path(f"/proc/{parent}/task").iterdir():
        for child in (task / "children").read_text().split():
            words = Path(f"/proc/{child}/cmdline").read_bytes()
            if b"spawn_main" in words:
                found.append(int(child))
    return found


@pytest.mark.parametrize("seconds", [3600.0, 400 * 86400.0])
def test_a_clock_that_jumps(seconds: float, world: World, runner: Runner, tmp_path: Path) -> None:
    store = tmp_path / "store"
    arguments = [str(world.recipe), str(store), str(world.backbone)]
    killed = runner(Order(arguments, str(store), at=150, clock=seconds))
    assert killed.code == -signal.SIGKILL
    end = runner(Order(arguments, str(store), clock=seconds))
    assert end.code == 0, end.err
    # Garbage too is what it was before the clock went wrong.
    gone = runner(Order(["gc", "--store", str(store)], str(store), cli=True, clock=seconds))
    assert gone.code == 0, gone.err
    world.check(store)
