"""Every class of file in a store, damaged in every way: noticed, never used, mended, made again."""

from __future__ import annotations

import os
import random
import shutil
import signal
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from worlds import Outcome, World

from adapterxlt.core.errors import AdapterXLTError, StoreDamaged
from adapterxlt.store import formats
from adapterxlt.store.maintenance import fsck
from adapterxlt.store.store import Store

#: Classes whose files are never a result: what reads them checks them, and fsck passes them by.
SCRATCH = ("snapshot", "progress", "lock", "events")
Damage = Callable[[Path, random.Random, list[Path]], None]


def classes(world: World) -> dict[str, list[Path]]:
    """The files of the half-finished store by class, relative to it."""
    store, found = Store(world.half), dict[str, list[Path]]()

    def add(kind: str, path: Path) -> None:
        found.setdefault(kind, []).append(path.relative_to(world.half))

    for key in store:
        record = store.read(key)
        assert record is not None
        add(f"record of {record.stage['kind']}", store.record_path(key))
        for name, digest_hex in record.files.items():
            add(f"object {name.partition('-')[0].partition('.')[0]}", store.object_path(digest_hex))
    for kind in (*formats.SAVING, *formats.KEPT):
        for name in store.notes(kind):
            add(f"note {kind}", store.note_path(kind, name))
            value = store.noted(kind, name)
            if "object" in value:
                add(f"object {kind}", store.object_path(value["object"]))
    known = {path for paths in found.values() for path in paths}
    for digest_hex in store.objects():
        path = store.object_path(digest_hex)
        if path.relative_to(world.half) not in known:
            add("object of nobody", path)
    for kind, pattern in (
        ("snapshot", "work/stages/*/snapshot"),
        ("progress", "work/stages/*/progress.json"),
        ("lock", "work/locks/*.lock"),
        ("events", "notes/events/*"),
        ("format", "format.json"),
    ):
        for path in sorted(world.half.glob(pattern)):
            add(kind, path)
    return found


# How files are damaged


def flip(path: Path, draw: random.Random, others: list[Path]) -> None:
    data = bytearray(path.read_bytes() or b"\0")
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def truncate(path: Path, draw: random.Random, others: list[Path]) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(max(1, len(data)))])


def empty(path: Path, draw: random.Random, others: list[Path]) -> None:
    path.write_bytes(b"")


def zeros(path: Path, draw: random.Random, others: list[Path]) -> None:
    """As file systems leave it that lost power before the bytes were on disk."""
    path.write_bytes(bytes(path.stat().st_size or 9))


def torn(path: Path, draw: random.Random, others: list[Path]) -> None:
    data = path.read_bytes()
    half = len(data) // 2
    path.write_bytes(data[:half] + bytes(len(data) - half))


def longer(path: Path, draw: random.Random, others: list[Path]) -> None:
    path.write_bytes(path.read_bytes() + draw.randbytes(draw.randint(1, 40)))


def swap(path: Path, draw: random.Random, others: list[Path]) -> None:
    other = draw.choice(others)
    one, two = path.read_bytes(), other.read_bytes()
    path.write_bytes(two)
    other.write_bytes(one)


def link(path: Path, draw: random.Random, others: list[Path]) -> None:
    """To the same bytes, to others, or to nowhere."""
    aside = path.with_name(f".tmp-{path.name[:9]}")
    targets = [aside, *others[:1], Path("/nowhere"), Path("/dev/zero")]
    os.replace(path, aside)
    path.symlink_to(draw.choice(targets))


def folder(path: Path, draw: random.Random, others: list[Path]) -> None:
    path.unlink()
    path.mkdir()
    if draw.random() < 0.5:
        (path / "x").write_bytes(b"x")


def pipe(path: Path, draw: random.Random, others: list[Path]) -> None:
    path.unlink()
    os.mkfifo(path)


def device(path: Path, draw: random.Random, others: list[Path]) -> None:
    path.unlink()
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    except OSError:
        os.mkfifo(path)


def gone(path: Path, draw: random.Random, others: list[Path]) -> None:
    path.unlink()


def mode(path: Path, draw: random.Random, others: list[Path]) -> None:
    """None of these matters to root; others cannot read the first."""
    path.chmod(draw.choice([0o000, 0o200, 0o4777, 0o1666]))


DAMAGES: dict[str, Damage] = {
    one.__name__: one
    for one in (flip, truncate, empty, zeros, torn, longer, swap, link, folder, pipe, device)
}
DAMAGES |= {one.__name__: one for one in (gone, mode)}


# What has to become of it


@contextmanager
def soon(seconds: int = 900) -> Iterator[None]:
    """Nothing waits for ever at a pipe."""

    def late(*_: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def noticed_by_fsck(store: Path) -> bool:
    try:
        return bool(fsck(Store(store)).findings)
    except StoreDamaged:
        return True


def run(world: World, store: Path) -> str:
    """Run in spite of the damage: refused with a word what to do, or the results are right."""
    try:
        failed = world.run(store)
    except AdapterXLTError as error:
        assert error.exit_code == 3 and "fsck --mend" in str(error), error
        return "run refused"
    if failed:
        assert all("fsck --mend" in reason for reason in failed), failed
        return "stage refused"
    try:
        # Sizes are of the files that lie there, whatever is in them.
        assert sizeless(world.found(store)) == sizeless(world.outcome)
    except StoreDamaged:
        return "result refused"
    return "run made it again or had no need of it"


def sizeless(outcome: Outcome) -> Outcome:
    rows, stages = outcome
    return [row | {"stored_bytes": None} for row in rows], stages


def case(world: World, store: Path, kind: str, damage: str, draw: random.Random) -> list[str]:
    """One file damaged, in a copy of the store; what was seen of it."""
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(world.half, store)
    by_class = {kind: [store / path for path in paths] for kind, paths in classes(world).items()}
    path = draw.choice(by_class[kind])
    alike = [p for p in by_class[kind] if p != path]
    others = alike or [p for paths in by_class.values() for p in paths if p != path]
    DAMAGES[damage](path, draw, others)
    seen = []
    with soon():
        if kind not in SCRATCH and noticed_by_fsck(store):
            seen.append("fsck found it")
        # Half of them are mended before anything runs.
        if draw.random() < 0.5:
            seen.append(run(world, store))
        formats.mend(store)
        fsck(Store(store), mend=True)
        assert world.run(store) == []
        world.check(store)
    return seen


def harmless(kind: str, damage: str) -> bool:
    """What fsck need not find: nothing is lost, or it means the same."""
    lost = damage == "gone" and kind.startswith(("note", "object of", "object enc"))
    return kind in SCRATCH or damage == "mode" or lost


def torture(world: World, store: Path, rounds: int, seed: int, most: int = 0) -> Counter[str]:
    """Every damage to every class of file, ``rounds`` times; or so many of these cases."""
    counts: Counter[str] = Counter()
    every = [(n, k, d) for n in range(rounds) for k in classes(world) for d in DAMAGES]
    # A record that is gone is a stage that is not in the store, which is no damage.
    every = [one for one in every if not (one[1].startswith("record") and one[2] == "gone")]
    random.Random(seed).shuffle(every)
    missed = []
    for n, kind, damage in every[: most or None]:
        try:
            seen = case(world, store, kind, damage, random.Random(f"{seed} {n} {kind} {damage}"))
        except BaseException as error:
            raise AssertionError(f"{kind}, {damage}, round {n}: {error!r}") from error
        counts["cases"] += 1
        counts.update(seen)
        if not harmless(kind, damage) and "fsck found it" not in seen:
            missed.append(f"{kind}, {damage}, round {n}")
    # A bit of a text can change its spelling alone: e for E, one kind of blank for another.
    assert len(missed) <= rounds * 2, missed
    assert all(", flip," in one for one in missed), missed
    counts["another spelling of the same"] = len(missed)
    return counts


def test_every_class_of_file_damaged_in_every_way(world: World, tmp_path: Path) -> None:
    wanted = {"record of adopt", "record of train", "record of evaluate", "object adapter"}
    wanted |= {"object head", "object predictions", "object encoded", "object of nobody"}
    wanted |= {"note studies", "note adopted", "note encoded", "note files", "note looked"}
    assert set(classes(world)) == wanted | {*SCRATCH, "format"}
    counts = torture(world, tmp_path / "store", 1, 0, most=40)
    print(f"\n{report(counts)}")
    assert counts["cases"] == 40 and counts["fsck found it"] > 15


@pytest.mark.slow
def test_a_thousand_cases(world: World, tmp_path: Path) -> None:
    counts = torture(world, tmp_path / "store", 5, 1)
    print(f"\n{report(counts)}")
    assert counts["cases"] >= 1000


def report(counts: Counter[str]) -> str:
    return "damage: " + ", ".join(f"{count} {name}" for name, count in counts.most_common())


def test_two_at_once(world: World, tmp_path: Path) -> None:
    """The marker and a note: what is mended with the one does not take the other for whole."""
    store = tmp_path / "store"
    shutil.copytree(world.half, store)
    (store / "format.json").write_bytes(b"")
    for path in (store / "notes" / "encoded").iterdir():
        path.write_bytes(path.read_bytes().replace(b'"check"', b'"cheek"'))
    assert formats.mend(store)
    fsck(Store(store), mend=True)
    assert world.run(store) == []
    world.check(store)


def test_the_torture_can_fail(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With checks taken out it is seen that damage is used."""

    def trusting(self: Any, digest_hex: str) -> bytes:
        return self.object_path(digest_hex).read_bytes()

    monkeypatch.setattr(Store, "get", trusting)
    with pytest.raises(AssertionError):
        for n in range(20):
            case(world, tmp_path / "store", "object adapter", "flip", random.Random(n))
