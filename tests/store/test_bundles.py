"""Bundles: the same bytes for the same content, everything checked, and nothing else let in."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from adapterxlt.core.canon import canonical, digest, sha256_hex
from adapterxlt.core.errors import RefusedError, StoreDamaged, UsageError
from adapterxlt.store import bundles, formats
from adapterxlt.store.bundles import Count, read, write
from adapterxlt.store.maintenance import fsck
from adapterxlt.store.store import Record, Store, text_of


def publish(store: Store, name: str, *inputs: str) -> str:
    stage = {"kind": "train", "params": {"name": name}, "inputs": {}}
    stage["inputs"] = {f"input {n}": key for n, key in enumerate(inputs)}
    key = digest("stage", stage)
    store.publish(key, stage, {"own": name.encode() * 300, "shared": b"shared"}, {"name": name})
    return key


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def keys(store: Store) -> list[str]:
    first = publish(store, "first")
    keys = [first, publish(store, "second", first)]
    store.note("studies", "5" * 32, {"name": "s", "recipe": "é", "keys": keys, "reads": []})
    store.note("adopted", first, {"reference": "hub:o/n", "revision": None})
    publish(store, "not asked for")
    return keys


@pytest.fixture
def bundle(store: Store, keys: list[str], tmp_path: Path) -> Path:
    count = write(store, tmp_path / "b.tar", keys, [sha256_hex(b"none")], ["5" * 32])
    assert count == Count(2, 3)
    return tmp_path / "b.tar"


def contents(root: Path) -> dict[str, bytes]:
    tops = ("records", "objects", "notes")
    found = (path for top in tops for path in (root / top).rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


def test_a_study_moves_whole(store: Store, keys: list[str], bundle: Path, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    assert read(other, bundle) == Count(2, 3, 2, 3)
    assert set(other) == set(keys) and fsck(other).findings == ()
    for key in keys:
        assert other.read(key) == store.read(key)
    assert other.noted("studies", "5" * 32) == store.noted("studies", "5" * 32)
    assert other.noted("adopted", keys[0])["reference"] == "hub:o/n"
    assert read(Store(other.root), bundle) == Count(2, 3, 0, 0)


def test_equal_content_is_equal_bytes(bundle: Path, keys: list[str], tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    read(other, bundle)
    write(other, tmp_path / "again.tar", reversed(keys), [], ["5" * 32])
    assert (tmp_path / "again.tar").read_bytes() == bundle.read_bytes()


def test_other_tools_can_list_it(bundle: Path) -> None:
    with tarfile.open(bundle) as tar:
        names = tar.getnames()
        assert names[0] == "bundle.json" and len(names) == 8
        assert all(m.isreg() and (m.mtime, m.uid, m.mode) == (0, 0, 0o644) for m in tar)
    assert [n.partition("/")[0] for n in names[1:]] == ["objects"] * 3 + ["notes"] * 2 + [
        "records"
    ] * 2


def test_a_bundle_is_written_in_one_step_over_nothing(
    store: Store, keys: list[str], bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = bundle.read_bytes()
    with pytest.raises(UsageError, match="already exists"):
        write(store, bundle, keys, [], [])
    assert bundle.read_bytes() == before
    record = store.read(keys[1])
    assert record is not None
    path = store.object_path(record.files["own"])
    path.write_bytes(b"damaged")
    with pytest.raises(StoreDamaged):
        write(store, bundle.with_name("new.tar"), keys, [], [])
    assert sorted(p.name for p in bundle.parent.iterdir()) == ["b.tar", "store"]


def test_the_first_writer_wins(keys: list[str], bundle: Path, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    stage = {"kind": "train", "params": {"name": "first"}, "inputs": {}}
    mine = other.publish(keys[0], stage, {"own": b"mine"}, {"name": "mine"})
    other.note("studies", "5" * 32, {"name": "mine", "keys": []})
    assert read(other, bundle) == Count(2, 3, 1, 3)
    assert Store(other.root).read(keys[0]) == mine
    assert other.noted("studies", "5" * 32)["name"] == "mine"


def test_a_damaged_object_in_the_store_is_healed(bundle: Path, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    name = other.put(b"shared")
    other.object_path(name).write_bytes(b"SHARED")
    assert read(other, bundle).new_objects == 3
    assert other.get(name) == b"shared" and fsck(other).findings == ()


# What is refused


def member(name: str, data: bytes = b"", **more: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    for field, value in more.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


def made(*members: bytes, end: bytes = bytes(1024)) -> bytes:
    head = canonical({"adapterxlt bundle": 1, "members": len(members)}).encode()
    return member("bundle.json", head) + b"".join(members) + end


def at(data: bytes) -> str:
    name = sha256_hex(data)
    return f"objects/{name[:2]}/{name[2:]}"


def record(stage: dict[str, object] | None = None, key: str = "", **files: str) -> bytes:
    stage = stage or {"kind": "train", "params": {}, "inputs": {}}
    key = key or digest("stage", stage)
    text = text_of(Record(key, stage, files, {}))
    return member(f"records/{key[:2]}/{key[2:]}.json", text)


def note(name: str = "5" * 32, value: object = None) -> bytes:
    value = {"keys": []} if value is None else value
    return member(
        f"notes/studies/{name}.json", canonical(formats.noted("studies", name, value)).encode()
    )


GOOD = member(at(b"x"), b"x")
CASES: dict[str, bytes] = {
    "empty": b"",
    "not a tar": b"PK\x03\x04" * 300,
    "zeros": bytes(4096),
    "no head": member(at(b"x"), b"x") + bytes(1024),
    "head that is no JSON": member("bundle.json", b"{") + bytes(1024),
    "head without members": member("bundle.json", b'{"adapterxlt bundle":1}') + bytes(1024),
    "head with many members": member("bundle.json", b'{"adapterxlt bundle":1,"members":9999999}'),
    "long head": member("bundle.json", b" " * 2000),
    "no end": made(GOOD, end=b""),
    "half an end": made(GOOD, end=bytes(512)),
    "goes on": made(GOOD, end=bytes(1024) + b"x"),
    "more members than said": made(GOOD, end=member(at(b"y"), b"y") + bytes(1024)),
    "cut in a header": made(GOOD)[:1400],
    "cut in a member": made(member(at(b"x" * 900), b"x" * 900))[:1700],
    "other bytes": made(member(at(b"x"), b"y")),
    "bytes after a member": made(GOOD[:-1] + b"x"),
    "wrong sum of a header": made(bytes([GOOD[0] ^ 1]) + GOOD[1:]),
    "twice": made(GOOD, GOOD),
    "out of order": made(*sorted([GOOD, member(at(b"y"), b"y")], reverse=at(b"x") < at(b"y"))),
    "objects after notes": made(note(), GOOD),
    "path up": made(member("objects/../../../etc/x", b"x")),
    "absolute path": made(member("/" + at(b"x"), b"x")),
    "dotted path": made(member("./" + at(b"x"), b"x")),
    "other folder": made(member("work/stages/x/snapshot", b"x")),
    "marker": made(member("format.json", b'{"adapterxlt store": 99}')),
    "note of another kind": made(member("notes/files/" + "5" * 32 + ".json", b"{}")),
    "upper case": made(member(at(b"x").upper().replace("OBJECTS", "objects"), b"x")),
    "symbolic link": made(member(at(b"x"), type=tarfile.SYMTYPE, linkname="/etc/passwd")),
    "hard link": made(member(at(b"x"), type=tarfile.LNKTYPE, linkname="/etc/passwd")),
    "device": made(member(at(b"x"), type=tarfile.CHRTYPE, devmajor=1)),
    "pipe": made(member(at(b"x"), type=tarfile.FIFOTYPE)),
    "folder": made(member(at(b"x"), type=tarfile.DIRTYPE)),
    "long name": made(member(at(b"x"), b"x", type=tarfile.GNUTYPE_LONGNAME)),
    "extended header": made(member(at(b"x"), b"9 size=9\n", type=tarfile.XHDTYPE)),
    "sparse": made(member(at(b"x"), b"x", type=tarfile.GNUTYPE_SPARSE)),
    "set-uid": made(member(at(b"x"), b"x", mode=0o4755)),
    "an owner": made(member(at(b"x"), b"x", uid=1000)),
    "a time": made(member(at(b"x"), b"x", mtime=1)),
    "huge record": made(member("records/ab/" + "c" * 62 + ".json", size=1 << 30)),
    "object of more bytes than there are": made(member(at(b"x"), size=1 << 30)),
    "note that is no JSON": made(member("notes/studies/" + "5" * 32 + ".json", b"{")),
    "note of another name": made(note().replace(b'"name":"55', b'"name":"65')),
    "note that is a list": made(note(value=[])),
    "record without its files": made(GOOD, record(own=sha256_hex(b"y"))),
    "record of another key": made(record(key="ab" * 32)),
    "record that is spelt otherwise": made(record().replace(b'"facts":{}', b'"facts": {}')),
    "record whose files are paths": made(record(**{"../x": sha256_hex(b"x")})),
    "record whose digest is a path": made(record(own="../../x")),
    "record of an odd stage": made(record(stage={"kind": ["x"]}, key="cd" * 32)),
}


@pytest.mark.parametrize("name", CASES)
def test_what_no_bundle_has_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "b.tar"
    file.write_bytes(CASES[name])
    store = Store(tmp_path / "in" / "store")
    with pytest.raises(RefusedError) as told:
        read(store, file)
    assert told.value.exit_code == 5 and "\n" not in str(told.value)
    assert str(file) in str(told.value)
    assert list(store) == [] and not list(store.root.rglob(".tmp-*"))
    assert fsck(store).findings == ()
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_symlink()) == []
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["b.tar", "store"]


def test_what_is_made_here_is_a_bundle_but_for_its_fault(tmp_path: Path) -> None:
    """The cases above would be taken without the one thing that each is named for."""
    (tmp_path / "b.tar").write_bytes(made(GOOD, note(), record(own=sha256_hex(b"x"))))
    store = Store(tmp_path / "store")
    assert read(store, tmp_path / "b.tar") == Count(1, 1, 1, 1)
    (tmp_path / "c.tar").write_bytes(made())
    assert read(store, tmp_path / "c.tar") == Count()


def test_a_newer_form_is_refused(tmp_path: Path) -> None:
    head = member("bundle.json", b'{"adapterxlt bundle":2,"members":0}')
    (tmp_path / "b.tar").write_bytes(head + bytes(1024))
    with pytest.raises(UsageError, match="form 2, and this version reads up to 1"):
        read(Store(tmp_path / "s"), tmp_path / "b.tar")
    with pytest.raises(UsageError, match="cannot be read"):
        read(Store(tmp_path / "s"), tmp_path / "none.tar")


@pytest.mark.parametrize("limit", ["MOST_BYTES", "MOST_OBJECT", "MOST_MEMBERS", "MOST_TEXT"])
def test_limits(limit: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    least = {"MOST_BYTES": 500, "MOST_OBJECT": 100, "MOST_MEMBERS": 3, "MOST_TEXT": 60}
    monkeypatch.setattr(bundles, limit, least[limit])
    with pytest.raises(RefusedError):
        read(Store(tmp_path / "other"), bundle)


def test_every_flipped_bit_is_refused_or_means_the_same(bundle: Path, tmp_path: Path) -> None:
    data = bundle.read_bytes()
    whole = Store(tmp_path / "whole")
    read(whole, bundle)
    for i in range(0, len(data), 37):
        changed = bytearray(data)
        changed[i] ^= 1 << (i % 8)
        file = tmp_path / "changed.tar"
        file.write_bytes(changed)
        store = Store(tmp_path / f"s{i}")
        with pytest.raises((RefusedError, UsageError)):
            read(store, file)
        assert contents(store.root).items() <= contents(whole.root).items()


def test_cut_anywhere_it_is_refused_and_the_rest_can_be_read_later(
    bundle: Path, tmp_path: Path
) -> None:
    data, store = bundle.read_bytes(), Store(tmp_path / "other")
    for length in [*range(0, len(data), 511), len(data) - 1]:
        (tmp_path / "cut.tar").write_bytes(data[:length])
        with pytest.raises(RefusedError):
            read(store, tmp_path / "cut.tar")
        assert fsck(Store(store.root)).findings == ()
    read(store, bundle)
    assert len(list(store)) == 2


KILLED = """
import os, sys
from pathlib import Path
from adapterxlt.store import files
from adapterxlt.store.bundles import read
from adapterxlt.store.store import Store

store, left = Store(sys.argv[1]), int(sys.argv[3])
for name in ("link", "unlink", "fsync"):
    def step(*given, real=getattr(os, name), **more):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return real(*given, **more)
    setattr(os, name, step)
read(store, Path(sys.argv[2]))
"""


@pytest.mark.parametrize("step", [0, 1, 3, 7, 12, 18, 23])
def test_killed_at_any_step_the_store_is_whole(step: int, bundle: Path, tmp_path: Path) -> None:
    root = tmp_path / "other"
    run = subprocess.run([sys.executable, "-c", KILLED, str(root), str(bundle), str(step)])
    assert run.returncode == 9
    store = Store(root)
    assert fsck(store).findings == ()
    read(store, bundle)
    assert len(list(store)) == 2 and fsck(Store(root)).findings == ()


def test_it_streams(tmp_path: Path) -> None:
    """The parts of a bundle are never in memory together."""
    import tracemalloc

    store = Store(tmp_path / "s")
    stage = {"kind": "train", "params": {}, "inputs": {}}
    files = {f"f{i}": os.urandom(4 << 20) for i in range(8)}
    key = digest("stage", stage)
    store.publish(key, stage, files, {})
    tracemalloc.start()
    write(store, tmp_path / "b.tar", [key], [], [])
    read(Store(tmp_path / "o"), tmp_path / "b.tar")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
