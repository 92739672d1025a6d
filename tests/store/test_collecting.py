"""gc: what no study needs goes; nothing that a run needs, has touched or has just written."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from adapterxlt.core.canon import digest
from adapterxlt.core.errors import StoreDamaged
from adapterxlt.store import collecting
from adapterxlt.store.collecting import Roots, collect, named_in
from adapterxlt.store.maintenance import fsck
from adapterxlt.store.store import Store

DATA, OTHER = digest("data", "one"), digest("data", "other")


def publish(store: Store, name: str, *inputs: str, data: str = DATA) -> str:
    stage = {"kind": "train", "params": {"name": name, "data": data}, "inputs": {}}
    stage["inputs"] = {f"input {n}": key for n, key in enumerate(inputs)}
    key = digest("stage", stage)
    store.publish(key, stage, {"own": name.encode(), "shared": b"shared"}, {"name": name})
    return key


def old(root: Path, hours: float = 100) -> None:
    """Make everything as if it had been written long ago."""
    then = time.time() - hours * 3600
    for path in [*root.rglob("*"), root]:
        os.utime(path, (then, then), follow_symlinks=False)


def note(store: Store, name: str, keys: list[str], data: str = DATA) -> None:
    store.note("studies", name, {"name": name, "recipe": "", "keys": keys, "reads": [data]})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def two(store: Store) -> dict[str, str]:
    """Two studies that share a stage, and one stage that is nobody's."""
    keys = {"base": publish(store, "base")}
    keys["a"] = publish(store, "a", keys["base"])
    keys["b"] = publish(store, "b", keys["base"], data=OTHER)
    keys["lost"] = publish(store, "lost", keys["base"], data=OTHER)
    note(store, "one", [keys["base"], keys["a"]])
    note(store, "two", [keys["base"], keys["b"]], OTHER)
    old(store.root)
    return keys


def kinds(items: Any) -> dict[str, int]:
    return dict(Counter(item.kind for item in items))


def paths(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if path.is_file()}


def test_without_roots_every_study_that_was_run_stays(store: Store, two: dict[str, str]) -> None:
    before = paths(store.root)
    would = collect(store, dry=True)
    assert paths(store.root) == before, "looking removes nothing"
    gone = collect(store)
    assert gone == would and kinds(gone) == {"record": 1, "object": 1}
    assert before - paths(store.root) == {item.path for item in gone}
    assert sum(item.size for item in gone) > 200
    assert set(Store(store.root)) == set(two.values()) - {two["lost"]}
    assert two["lost"] not in store and store.read(two["lost"]) is None
    assert fsck(Store(store.root)).findings == () and collect(store) == []


def test_with_roots_only_theirs_stay(store: Store, two: dict[str, str]) -> None:
    roots = Roots(frozenset([two["base"], two["a"]]), frozenset([DATA]))
    gone = collect(store, roots)
    assert kinds(gone) == {"study": 1, "record": 2, "object": 2}
    assert set(store) == {two["base"], two["a"]} and list(store.notes("studies")) == ["one"]
    assert fsck(Store(store.root)).findings == ()


def test_what_a_stage_was_made_from_stays_with_it(store: Store, two: dict[str, str]) -> None:
    collect(store, Roots(frozenset([two["a"]]), frozenset()))
    assert set(store) == {two["base"], two["a"]}


def test_what_is_young_stays_with_what_it_was_made_from(store: Store, two: dict[str, str]) -> None:
    os.utime(store.record_path(two["lost"]))
    lonely = store.put(b"just written, and no record names it yet")
    assert collect(store) == [] and store.has(lonely)
    assert kinds(collect(store, grace=0)) == {"record": 1, "object": 2}


def test_what_is_put_again_is_young(store: Store) -> None:
    name = store.put(b"left by a killed run")
    old(store.root)
    assert kinds(collect(store, dry=True)) == {"object": 1}
    assert store.put(b"left by a killed run") == name
    assert collect(store) == []


def test_a_study_that_runs_stays_whatever_the_roots_are(store: Store, two: dict[str, str]) -> None:
    roots = Roots(frozenset([two["base"], two["a"]]), frozenset())
    with store.lock(two["b"]):
        old(store.root)
        assert kinds(collect(store, roots, dry=True)) == {"record": 1, "object": 1}
    assert kinds(collect(store, roots, dry=True))["record"] == 2
    os.utime(store.note_path("studies", "two"))
    assert "study" not in kinds(collect(store, roots, dry=True))


def test_notes_of_work_saved_go_with_what_they_are_of(store: Store, two: dict[str, str]) -> None:
    for name, of in (("a", DATA), ("b", OTHER), ("c", digest("data", "nobody's"))):
        store.note("encoded", name, {"object": store.put(name.encode()), "of": of})
    store.note("adopted", two["a"], {"reference": "x"})
    store.note("adopted", digest("stage", "none"), {"reference": "x"})
    store.note("unpickled", DATA, {"object": store.put(b"converted")})
    store.note("files", "x", {"rows": 1})
    old(store.root)
    gone = collect(store)
    assert kinds(gone) == {"record": 1, "note": 2, "object": 2}
    assert list(store.notes("encoded")) == ["a", "b"] and list(store.notes("files")) == ["x"]
    assert list(store.notes("adopted")) == [two["a"]]
    assert list(store.notes("unpickled")) == [DATA]
    for name in ("a", "b"):
        assert store.get(store.noted("encoded", name)["object"]) == name.encode()


def test_bytes_that_a_stage_adopts_stay(store: Store) -> None:
    raw = store.put(b"a stranger's adapter")
    stage = {"kind": "adopt", "params": {"files": {"weights": raw}}, "inputs": {}}
    key = digest("stage", stage)
    store.publish(key, stage, {"adapter": b"ours"}, {})
    store.note("studies", "s", {"keys": [key], "reads": []})
    other = store.put(b"wanted by a stage that has not run")
    store.note("studies", "t", {"keys": [], "reads": sorted(named_in([{"x": [other]}]))})
    old(store.root)
    assert collect(store) == []


def test_scratch_and_what_was_left_behind(store: Store, two: dict[str, str]) -> None:
    unfinished = digest("stage", "not finished")
    note(store, "three", [unfinished])
    for key in (two["a"], unfinished, digest("stage", "nobody's")):
        store.work(key).mkdir(parents=True)
        (store.work(key) / "snapshot").write_bytes(b"x" * 10)
    record = store.read(two["lost"])
    assert record is not None
    store.materialize(record)
    (store.root / "objects" / ".tmp-abc").write_bytes(b"rest")
    (store.root / "quarantine").mkdir()
    (store.root / "quarantine" / "x").write_bytes(b"bad")
    with store.lock("encoded-abc"):
        pass
    young = store.root / "records" / ".tmp-young"
    old(store.root)
    young.write_bytes(b"being written")
    gone = collect(store)
    assert kinds(gone) == {"record": 1, "object": 1, "scratch": 4, "rest": 1, "quarantine": 1}
    assert store.work(unfinished).is_dir() and young.exists()
    assert not store.work(two["a"]).exists()
    assert not list((store.root / "work" / "folders").iterdir())


def test_damage_stops_a_collection_before_it_removes(store: Store, two: dict[str, str]) -> None:
    path = store.record_path(two["a"])
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    before = paths(store.root)
    with pytest.raises(StoreDamaged, match="does not match"):
        collect(Store(store.root))
    path.write_bytes(whole)
    store.note_path("studies", "two").write_bytes(b"{")
    with pytest.raises(StoreDamaged, match="the note of a study is not whole"):
        collect(Store(store.root))
    assert paths(store.root) == before


def test_what_is_touched_at_the_last_moment_is_put_back(
    store: Store, two: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run may find a record just before it is moved; then it has touched it."""
    real, path = os.replace, store.record_path(two["lost"])

    def replace(source: Any, target: Any) -> None:
        if Path(source) == path:
            os.utime(path)
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    gone = collect(store)
    assert "record" not in kinds(gone) and two["lost"] in set(store)
    # Its objects were named again by then.
    assert fsck(Store(store.root)).findings == () and kinds(gone) == {}


def test_a_collection_that_is_killed_gives_back_what_it_held(
    store: Store, two: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(path: Path) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(collecting, "clear", killed)
        with pytest.raises(Killed):
            collect(store)
    assert two["lost"] not in set(store)
    os.utime(store.root / "work" / "gone" / f"records-{two['lost']}")
    assert collect(store) == [] and two["lost"] in set(store)
    assert fsck(Store(store.root)).findings == ()


def test_an_object_that_is_collected_while_it_is_published_is_written_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = store.put(b"own")
    real = store.keep

    def keep(record: Any) -> Any:
        store.object_path(name).unlink()
        return real(record)

    monkeypatch.setattr(store, "keep", keep)
    record = store.publish("ab" * 32, {}, {"f": b"own"}, {})
    assert store.get(record.files["f"]) == b"own"
