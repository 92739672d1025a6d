"""SIGKILL at every step of a run and at any time: whole stores, and the same results afterwards."""

from __future__ import annotations

import random
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest
from crashing import End, Order, Runner
from worlds import World

from adapterxlt.store.maintenance import fsck
from adapterxlt.store.store import Store


def order(world: World, store: Path, **more: object) -> Order:
    arguments = [str(world.recipe), str(store), str(world.backbone)]
    return Order(arguments, str(store), **more)  # type: ignore[arg-type]


def whole_run(world: World, runner: Runner, store: Path) -> End:
    """An undisturbed run: its steps, and how long it takes."""
    shutil.rmtree(store, ignore_errors=True)
    end = runner(order(world, store))
    assert end.code == 0, end.err
    return end


def survive(world: World, runner: Runner, store: Path, **more: object) -> Counter[str]:
    """A run that is killed, and what it left; it is run again to its end."""
    shutil.rmtree(store, ignore_errors=True)
    end = runner(order(world, store, **more))
    assert end.code in (-signal.SIGKILL, 0), end.err
    killed = end.code != 0
    done = 0
    if (store / "format.json").exists():
        assert fsck(Store(store)).findings == (), more
        done = len(list(Store(store)))
    again = runner(order(world, store))
    assert again.code == 0, again.err
    world.check(store)
    middle = bool(killed and 0 < done < len(world.outcome[1]))
    return Counter(cases=1, killed=killed, in_the_middle_of_the_study=middle)


def test_kills_at_some_steps(world: World, runner: Runner, tmp_path: Path) -> None:
    steps = whole_run(world, runner, tmp_path / "store").steps
    kinds = set(steps)
    # Publishing, snapshots, scheduling and adoption are among them.
    for step in ("link objects", "link records", "fsync records", "replace snapshot"):
        assert step in kinds, sorted(kinds)
    for step in ("write notes/events", "replace notes/studies", "replace notes/adopted"):
        assert step in kinds, sorted(kinds)
    counts: Counter[str] = Counter()
    draw = random.Random(0)
    places: dict[str, list[int]] = {}
    for n, name in enumerate(steps, start=1):
        places.setdefault(name, []).append(n)
    for name in sorted(places)[::6]:
        counts += survive(world, runner, tmp_path / "store", at=draw.choice(places[name]))
    assert counts["killed"] == counts["cases"] > 5
    print(f"\nkills at some of {len(steps)} steps: {dict(counts)}")


@pytest.fixture(scope="module")
def steps(world: World, runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return whole_run(world, runner, tmp_path_factory.mktemp("steps") / "store").steps


@pytest.mark.slow
@pytest.mark.parametrize("tenth", range(10))
def test_kills_at_every_step(
    tenth: int, steps: list[str], world: World, runner: Runner, tmp_path: Path
) -> None:
    numbers = range(1 + len(steps) * tenth // 10, 1 + len(steps) * (tenth + 1) // 10)
    counts: Counter[str] = Counter()
    for n in numbers:
        counts += survive(world, runner, tmp_path / "store", at=n)
    assert counts["killed"] == len(numbers)
    kinds = Counter(steps[n - 1] for n in numbers).most_common()
    print(f"\nkills at steps {numbers[0]} to {numbers[-1]}: {dict(counts)}; {dict(kinds)}")


def at_times(world: World, runner: Runner, store: Path, count: int) -> Counter[str]:
    seconds = whole_run(world, runner, store).seconds
    draw, counts = random.Random(count), Counter[str]()
    # A run that ends before its time was not killed; it may not be so for ever. Where the machine
    # was busy at first, that is more than every second one.
    while counts["killed"] < count and counts["cases"] < 4 * count + 10:
        counts += survive(world, runner, store, after=draw.uniform(0.01, seconds))
    return counts


def test_kills_at_some_times(world: World, runner: Runner, tmp_path: Path) -> None:
    counts = at_times(world, runner, tmp_path / "store", 5)
    print(f"\nkills at random times: {dict(counts)}")
    assert counts["killed"] == 5


@pytest.mark.slow
def test_kills_at_two_hundred_times(world: World, runner: Runner, tmp_path: Path) -> None:
    counts = at_times(world, runner, tmp_path / "store", 200)
    print(f"\nkills at random times: {dict(counts)}")
    assert counts["killed"] == 200 and counts["in_the_middle_of_the_study"] > 50


def test_a_run_goes_on_from_the_snapshot_of_a_kill(
    world: World, runner: Runner, tmp_path: Path
) -> None:
    steps = whole_run(world, runner, tmp_path / "store").steps
    # The second snapshot of the second training is not there yet, and the first one is.
    at = [n for n, name in enumerate(steps, start=1) if name == "replace snapshot"][3]
    survive(world, runner, tmp_path / "store", at=at)
    records = [Store(tmp_path / "store").read(key) for key in world.outcome[1]]
    assert any(record and record.facts.get("resumed_at") for record in records)


def test_two_runs_have_the_same_steps(
    steps: list[str], world: World, runner: Runner, tmp_path: Path
) -> None:
    kinds = [
        Counter(name for name in of if ".tmp-" not in name)
        for of in (steps, whole_run(world, runner, tmp_path / "store").steps)
    ]
    assert kinds[0] == kinds[1]


def test_the_kills_can_fail(world: World, runner: Runner, tmp_path: Path) -> None:
    """A store that a kill left with half an object is told from a whole one."""
    store = tmp_path / "store"
    shutil.copytree(world.whole, store)
    path = next((store / "objects").glob("??/*"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(AssertionError):
        world.check(store)
