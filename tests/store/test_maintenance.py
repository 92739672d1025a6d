"""fsck: finds every kind of damage, and after mending the next run can make it again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from adapterxlt.core.errors import StoreDamaged
from adapterxlt.store.maintenance import fsck
from adapterxlt.store.store import Record, Store

KEYS = [f"{i:02d}" + "a" * 62 for i in range(3)]
STAGE = {"kind": "train", "epoch": 1, "params": {}, "inputs": {}}


def publish(root: Path, key: str) -> Record:
    files = {"own": key.encode(), "shared": b"shared bytes"}
    return Store(root).publish(key, STAGE, files, {"seconds": 1})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for key in KEYS:
        publish(tmp_path / "store", key)
    return tmp_path / "store"


def change(path: Path) -> None:
    path.write_bytes(b"?" + path.read_bytes()[1:])


def own(root: Path, key: str = KEYS[0], name: str = "own") -> Path:
    store = Store(root)
    record = store.read(key)
    assert record is not None
    return store.object_path(record.files[name])


def test_a_whole_store_has_no_findings(root: Path) -> None:
    health = fsck(Store(root))
    assert (health.records, health.objects) == (3, 4)
    assert health.damaged == () and health.findings == ()


def test_an_empty_store_is_whole(tmp_path: Path) -> None:
    health = fsck(Store(tmp_path / "new"))
    assert (health.records, health.objects, health.findings) == (0, 0, ())


def _object(root: Path) -> None:
    change(own(root))


def _shared(root: Path) -> None:
    change(own(root, name="shared"))


def _gone(root: Path) -> None:
    own(root).unlink()


def _cut(root: Path) -> None:
    own(root).write_bytes(b"")


def _record(root: Path) -> None:
    change(Store(root).record_path(KEYS[0]))


def _empty(root: Path) -> None:
    Store(root).record_path(KEYS[0]).write_bytes(b"")


def _both(root: Path) -> None:
    change(own(root))
    change(Store(root).record_path(KEYS[0]))


def _infinite(root: Path) -> None:
    path = Store(root).record_path(KEYS[0])
    path.write_bytes(path.read_bytes().replace(b'"seconds":1', b'"seconds":1e999'))


DAMAGE: list[tuple[Callable[[Path], None], int]] = [
    *((_object, 1), (_shared, 3), (_gone, 1), (_cut, 1)),
    *((_record, 1), (_empty, 1), (_both, 1), (_infinite, 1)),
]


@pytest.mark.parametrize(("damage", "count"), DAMAGE)
def test_damage_is_found_and_mended(root: Path, damage: Callable[[Path], None], count: int) -> None:
    damage(root)
    before = sorted(p for p in root.rglob("*") if p.is_file())
    health = fsck(Store(root))
    assert list(health.damaged) == KEYS[:count] and health.findings
    assert all("\n" not in finding for finding in health.findings)
    assert before == sorted(p for p in root.rglob("*") if p.is_file()), "looking changes nothing"

    mended = fsck(Store(root), mend=True)
    assert mended.damaged == health.damaged
    store = Store(root)
    assert [key in store for key in KEYS] == [i >= count for i in range(3)]
    assert fsck(store).findings == ()
    for key in KEYS:
        record = publish(root, key)
        assert Store(root).get(record.files["own"]) == key.encode()
        assert Store(root).get(record.files["shared"]) == b"shared bytes"
    assert fsck(Store(root)).findings == () and len(list(Store(root))) == 3


def test_damage_is_kept_aside_not_deleted(root: Path) -> None:
    path = own(root)
    change(path)
    damaged = path.read_bytes()
    fsck(Store(root), mend=True)
    aside = [p.read_bytes() for p in (root / "quarantine").iterdir()]
    assert damaged in aside and len(aside) == 2


def test_an_object_nobody_names_yet_is_checked_too(root: Path) -> None:
    """Left by a run that was killed before its record: the next run would rely on it."""
    store = Store(root)
    name = store.put(b"lonely")
    change(store.object_path(name))
    assert any(name[2:] in finding for finding in fsck(Store(root)).findings)
    fsck(Store(root), mend=True)
    fresh = Store(root)
    assert fresh.put(b"lonely") == name and fresh.get(name) == b"lonely"


def test_reading_damage_says_what_to_do(root: Path) -> None:
    change(own(root))
    store = Store(root)
    record = store.read(KEYS[0])
    assert record is not None
    with pytest.raises(StoreDamaged, match="fsck --mend"):
        store.get(record.files["own"])
