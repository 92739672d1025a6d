"""Many processes on one store: what is published is published once, and nobody reads half of it."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from worlds import World

from adapterxlt.core.canon import digest, sha256_hex
from adapterxlt.core.errors import StoreDamaged
from adapterxlt.run.events import Follower
from adapterxlt.store.collecting import collect
from adapterxlt.store.maintenance import fsck
from adapterxlt.store.store import Store

WRITERS = 8


def stage(n: int, writer: int | None) -> dict[str, Any]:
    return {"kind": "train", "params": {"n": n, "writer": writer}, "inputs": {}}


def write(root: str, writer: int, keys: int, locked: bool, barrier: Any) -> dict[str, list[Any]]:
    """Publish keys that everybody publishes, and own ones, and read what others do meanwhile."""
    barrier.wait(120)
    store, told = Store(root), {}
    for n in range(keys):
        for own in (None, writer):
            made = stage(n, own)
            key = digest("stage", made)
            files = {"own": b"%d " % writer * 2000, "shared": b"%d" % n * 50_000}
            with store.lock(key) if locked else nullcontext():
                known = store.read(key) if locked else None
                record = known or store.publish(key, made, files, {"writer": writer})
            told[key] = [record.facts["writer"], known is None]
        look(root)
    return told


def look(root: str) -> int:
    """Read everything there is as if it was seen for the first time; how much that was."""
    store, count = Store(root), 0
    for key in list(store):
        record = store.read(key)
        assert record is not None
        for digest_hex in record.files.values():
            assert sha256_hex(store.get(digest_hex)) == digest_hex
            count += 1
    return count


def watch(root: str, barrier: Any, seconds: float) -> int:
    """Read, check and collect garbage until the time is over."""
    barrier.wait(120)
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        count += look(root)
        assert fsck(Store(root)).findings == ()
        assert collect(Store(root), grace=1) == []
    return count


def race(root: Path, keys: int, locked: bool, seconds: float) -> Counter[str]:
    context = multiprocessing.get_context("spawn")
    Store(root)
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(WRITERS + 1, mp_context=context) as pool,
    ):
        barrier = manager.Barrier(WRITERS + 1)
        reading = pool.submit(watch, str(root), barrier, seconds)
        writing = [pool.submit(write, str(root), i, keys, locked, barrier) for i in range(WRITERS)]
        answers = [future.result(600) for future in writing]
        read = reading.result(600)
    store = Store(root)
    assert len(list(store)) == keys * (1 + WRITERS)
    made: Counter[str] = Counter()
    for answer in answers:
        for key, (winner, here) in answer.items():
            record = store.read(key)
            assert record is not None and record.facts["writer"] == winner, "all saw one winner"
            assert store.get(record.files["own"]) == b"%d " % winner * 2000
            made[key] += here
    if locked:
        assert set(made.values()) == {1}, "a stage was computed by one of them"
    assert fsck(Store(root)).findings == () and not list(root.rglob(".tmp-*"))
    return Counter(keys=len(made), published=made.total(), files_read_meanwhile=read)


@pytest.mark.parametrize("locked", [True, False])
def test_eight_processes_publish_at_once(locked: bool, tmp_path: Path) -> None:
    counts = race(tmp_path / "store", 4, locked, 1.0)
    print(f"\nrace, {locked=}: {dict(counts)}")


@pytest.mark.slow
@pytest.mark.parametrize("locked", [True, False])
def test_eight_processes_publish_for_a_while(locked: bool, tmp_path: Path) -> None:
    counts = race(tmp_path / "store", 60, locked, 20.0)
    print(f"\nrace, {locked=}: {dict(counts)}")


def damage_and_heal(root: str, writer: int, rounds: int, barrier: Any) -> None:
    """Put the same bytes that somebody damages again and again."""
    store = Store(root)
    for n in range(rounds):
        data = b"%d" % n * 1000
        barrier.wait(120)
        if writer == 0:
            path = store.object_path(sha256_hex(data))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.write_bytes(b"damaged")
        barrier.wait(120)
        assert store.put(data) == sha256_hex(data)
        barrier.wait(120)
        assert store.get(sha256_hex(data)) == data


def test_many_heal_one_object_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(4, mp_context=context) as pool:
        barrier = manager.Barrier(4)
        root = str(tmp_path / "store")
        told = [pool.submit(damage_and_heal, root, i, 25, barrier) for i in range(4)]
        for future in told:
            future.result(300)
    assert fsck(Store(root)).findings == ()


# Two runs of one study

TWO = """
import json, sys, time
from contextlib import contextmanager
from pathlib import Path

from adapterxlt.store.store import Store

if {free}:
    # Also in the workers that are spawned, which read this file.
    @contextmanager
    def lock(self, key):
        yield

    Store.lock = lock

if __name__ == "__main__":
    from adapterxlt.run import worker
    from adapterxlt.run.pools import ProcessPool, SerialPool
    from adapterxlt.run.study import Study
    import torch, adapters

    study = Study.open(sys.argv[1], store=sys.argv[2], backbone=sys.argv[3])
    Path(sys.argv[4]).write_text("")
    while not Path(sys.argv[5]).exists():
        time.sleep(0.01)
    pool = SerialPool() if sys.argv[6] == "serial" else ProcessPool(2)
    outcome = study.run(pool=pool, snapshot_every=0)
    print(json.dumps([outcome.failed, sorted(outcome.computed)]))
"""


def two_runs(world: World, folder: Path, free: bool) -> Counter[str]:
    """A run in one process and one in two workers at once; how often each stage was finished."""
    folder.mkdir()
    program = folder / "two.py"
    program.write_text(TWO.format(free=free), encoding="utf-8")
    marks = [folder / name for name in ("serial", "processes")]
    runs = []
    for mine, other in (marks, marks[::-1]):
        arguments = [world.recipe, folder / "store", world.backbone, mine, other, mine.name]
        runs.append(
            subprocess.Popen(
                [sys.executable, str(program), *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        )
    for run in runs:
        out, err = run.communicate(timeout=300)
        assert run.returncode == 0, err.decode()
        failed, computed = json.loads(out)
        assert failed == {} and len(computed) == len(world.outcome[1])
    world.check(folder / "store")
    log = folder / "store" / "notes" / "events" / "tortured.jsonl"
    finished = [e for e in Follower(log).read() if e["event"] == "finished"]
    return Counter(e["key"] for e in finished if not e.get("elsewhere"))


def test_two_runs_at_once_train_each_stage_once(world: World, tmp_path: Path) -> None:
    made = two_runs(world, tmp_path / "two", free=False)
    assert made.keys() == world.outcome[1].keys() and set(made.values()) == {1}


@pytest.mark.slow
@pytest.mark.parametrize("free", [False, True])
def test_two_runs_at_once_again_and_again(free: bool, world: World, tmp_path: Path) -> None:
    twice = 0
    for n in range(8):
        made = two_runs(world, tmp_path / f"two{n}", free)
        assert made.keys() == world.outcome[1].keys()
        twice += sum(count - 1 for count in made.values())
        assert free or set(made.values()) == {1}
    print(f"\ntwo runs at once, {free=}: {twice} stages were computed twice and published once")


def test_the_races_can_fail(tmp_path: Path) -> None:
    """A reader of what is written in place sees half of it."""
    store = Store(tmp_path / "s")
    record = store.publish("ab" * 32, {}, {"f": b"x" * 1000}, {})
    store.object_path(record.files["f"]).write_bytes(b"x" * 500)
    with pytest.raises(StoreDamaged):
        look(str(store.root))
