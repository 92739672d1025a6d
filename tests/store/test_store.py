"""The store: published once, read verified, shared by processes, never somebody else's folder."""

from __future__ import annotations

import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from adapterxlt.core.canon import sha256_hex
from adapterxlt.core.errors import StoreDamaged, UsageError
from adapterxlt.store.store import Store

KEY = "ab" + "0" * 62
STAGE = {"kind": "train", "epoch": 1, "params": {"lr": 0.0001, "none": None}, "inputs": {}}
FILES = {"adapter.safetensors": b"weights" * 10, "head.safetensors": b"head"}
FACTS = {"seconds": 1.5, "final_loss": 0.25, "steps": 12345, "text": 'é "\n'}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_what_is_published_is_read_back(store: Store) -> None:
    assert KEY not in store and store.read(KEY) is None and list(store) == []
    record = store.publish(KEY, STAGE, FILES, FACTS)
    for reader in (store, Store(store.root)):
        again = reader.read(KEY)
        assert again == record and KEY in reader and list(reader) == [KEY]
        assert again is not None
        assert {name: reader.get(d) for name, d in again.files.items()} == FILES
        assert again.files == {name: sha256_hex(data) for name, data in FILES.items()}
        assert again.facts == FACTS and again.stage["params"] == {"lr": 0.0001}


def test_many_keys_are_looked_up_with_one_look_a_folder(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"{i % 4:02x}{i:062x}" for i in range(40)]
    assert store.present(keys) == set()
    for key in keys[::3]:
        store.publish(key, STAGE, {}, {})
    (store.record_path(keys[1]).parent / f".tmp-{keys[1][2:]}.json").write_text("{")
    looked: list[Any] = []
    monkeypatch.setattr(
        os, "listdir", lambda path, list=os.listdir: looked.append(path) or list(path)
    )
    for reader in (store, Store(store.root)):
        looked.clear()
        assert reader.present(keys) == set(keys[::3]) == {key for key in keys if key in reader}
        assert len(looked) == 4
    assert store.present(keys[:2]) == {keys[0]} and store.present([]) == set()
    store.forget(keys[0])
    assert keys[0] not in store.present(keys)


def test_the_first_writer_wins(store: Store) -> None:
    first = store.publish(KEY, STAGE, FILES, FACTS)
    for writer in (store, Store(store.root)):
        assert (
            writer.publish(KEY, STAGE, {"adapter.safetensors": b"other"}, {"seconds": 9}) == first
        )
    assert Store(store.root).read(KEY) == first


def test_a_record_is_written_after_its_files(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(data: bytes) -> str:
        raise OSError("no space left")

    monkeypatch.setattr(store, "put", fail)
    with pytest.raises(OSError, match="no space"):
        store.publish(KEY, STAGE, FILES, FACTS)
    assert KEY not in Store(store.root)


def test_facts_without_a_canonical_form_are_not_published(store: Store) -> None:
    with pytest.raises(ValueError, match="no canonical form"):
        store.publish(KEY, STAGE, FILES, {"final_loss": float("nan")})
    assert KEY not in Store(store.root)


@pytest.mark.parametrize("name", [".tmp-abc", "", "a/b", "../a", "-"])
def test_names_that_could_not_be_read_back_are_not_published(store: Store, name: str) -> None:
    with pytest.raises(ValueError, match="no names for files"):
        store.publish(KEY, STAGE, {"ok": b"x", name: b"y"}, {})
    assert KEY not in Store(store.root) and list(store.objects()) == []


def test_a_file_in_the_place_of_a_folder_of_records_is_damage(store: Store) -> None:
    (store.root / "records").mkdir()
    (store.root / "records" / KEY[:2]).write_bytes(b"")
    with pytest.raises(StoreDamaged, match="where a folder should be"):
        store.present([KEY])


def test_equal_bytes_are_one_object(store: Store) -> None:
    digests = {store.put(b"same") for _ in range(3)}
    assert len(digests) == 1
    assert len([p for p in (store.root / "objects").rglob("*") if p.is_file()]) == 1


# Damage


def flip(path: Path, at: int, value: int | None = None) -> None:
    data = bytearray(path.read_bytes())
    data[at] = data[at] ^ 1 if value is None else value
    path.write_bytes(data)


@pytest.mark.parametrize("at", [0, 3, -1])
def test_a_flipped_byte_in_an_object_is_seen(store: Store, at: int) -> None:
    name = store.put(b"some bytes")
    flip(store.object_path(name), at)
    with pytest.raises(StoreDamaged, match="does not match its digest"):
        store.get(name)


def test_an_object_that_is_cut_or_gone_is_seen(store: Store) -> None:
    name = store.put(b"some bytes")
    store.object_path(name).write_bytes(b"some")
    with pytest.raises(StoreDamaged, match="does not match"):
        Store(store.root).get(name)
    store.object_path(name).unlink()
    with pytest.raises(StoreDamaged, match="is missing"):
        Store(store.root).get(name)
    with pytest.raises(StoreDamaged, match="fsck --mend"):
        Store(store.root).get(name)


def test_every_changed_byte_of_a_record_is_seen_or_means_the_same(store: Store) -> None:
    record = store.publish(KEY, STAGE, FILES, FACTS)
    path = store.record_path(KEY)
    whole = path.read_bytes()
    same = 0
    # Changed digits leave valid JSON, and so does e, which can make a number infinite.
    for at in range(len(whole)):
        for value in {whole[at] ^ 1, ord("e")}:
            if value == whole[at]:
                continue
            flip(path, at, value)
            try:
                found = Store(store.root).read(KEY)
            except StoreDamaged as error:
                assert str(path) in str(error)
            else:
                assert found == record
                same += 1
            path.write_bytes(whole)
    # E for e in a number and a blank at the end are other spellings of the same record.
    assert same < 12


@pytest.mark.parametrize("length", [0, 1, 50, -2])
def test_a_cut_record_is_seen(store: Store, length: int) -> None:
    store.publish(KEY, STAGE, FILES, FACTS)
    path = store.record_path(KEY)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(StoreDamaged):
        Store(store.root).read(KEY)


@pytest.mark.parametrize(
    "text", [b"[]", b"null", b"{}", b'{"check": "x"}', b"NaN", b'{"a": NaN, "check": "x"}', b"\xff"]
)
def test_a_record_that_is_something_else_is_seen(store: Store, text: bytes) -> None:
    store.publish(KEY, STAGE, FILES, FACTS)
    store.record_path(KEY).write_bytes(text)
    with pytest.raises(StoreDamaged):
        Store(store.root).read(KEY)


def test_swapped_records_are_seen(store: Store) -> None:
    other = "cd" + "1" * 62
    store.publish(KEY, STAGE, FILES, FACTS)
    store.publish(other, {**STAGE, "epoch": 2}, {}, {})
    a, b = store.record_path(KEY), store.record_path(other)
    left, right = a.read_bytes(), b.read_bytes()
    a.write_bytes(right)
    b.write_bytes(left)
    for key in (KEY, other):
        with pytest.raises(StoreDamaged):
            Store(store.root).read(key)


def test_putting_the_bytes_again_heals_a_damaged_object(store: Store) -> None:
    name = store.put(b"some bytes")
    flip(store.object_path(name), 0)
    fresh = Store(store.root)
    assert fresh.put(b"some bytes") == name
    assert fresh.get(name) == b"some bytes"


# A folder for libraries


def test_materialized_files_are_checked_and_made_anew(store: Store) -> None:
    record = store.publish(KEY, STAGE, FILES, FACTS)
    folder = store.materialize(record)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == FILES
    (folder / "head.safetensors").write_bytes(b"hacked")
    (folder / "adapter.safetensors").unlink()
    assert store.materialize(record) == folder
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == FILES
    assert store.get(record.files["head.safetensors"]) == b"head"


# Scratch and notes


def test_scratch_notes_and_forgetting(store: Store) -> None:
    store.work(KEY).mkdir(parents=True)
    (store.work(KEY) / "snapshot").write_bytes(b"x")
    store.clean(KEY)
    store.clean(KEY)
    assert not store.work(KEY).exists()
    assert store.noted("kind", "a") is None
    store.note("kind", "a", {"x": 1})
    store.note("kind", "a", {"x": 2})
    assert Store(store.root).noted("kind", "a") == {"x": 2}
    store.publish(KEY, STAGE, FILES, FACTS)
    store.forget(KEY)
    store.forget(KEY)
    assert KEY not in store and store.read(KEY) is None
    aside = json.loads((store.root / "quarantine" / f"{KEY}.json").read_bytes())
    assert aside["key"] == KEY


# Which folders are stores


def test_an_empty_folder_becomes_a_store_and_is_opened_again(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    Store(tmp_path / "s").publish(KEY, STAGE, FILES, FACTS)
    assert KEY in Store(str(tmp_path / "s"))


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="not a store, and not empty"):
        Store(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError):
        Store(tmp_path / "file")
    with pytest.raises(UsageError):
        Store(tmp_path / "file" / "below")


def test_a_rest_of_a_killed_first_writer_does_not_lock_the_store(tmp_path: Path) -> None:
    (tmp_path / ".tmp-abc").write_bytes(b"{")
    Store(tmp_path).publish(KEY, STAGE, FILES, FACTS)
    assert KEY in Store(tmp_path)


@pytest.mark.parametrize("text", ['{"other": 1}', "[1]", "5", "{"])
def test_a_folder_with_another_marker_is_no_store(tmp_path: Path, text: str) -> None:
    (tmp_path / "format.json").write_text(text)
    with pytest.raises(UsageError, match="not a store, and not empty"):
        Store(tmp_path)
    assert (tmp_path / "format.json").read_text() == text


# What is no plain file


def odd(path: Path, kind: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if kind == "link":
        path.with_name("aside").write_bytes(b"some bytes")
        path.symlink_to("aside")
    elif kind == "nowhere":
        path.symlink_to("/nowhere")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)


ODD = ["link", "nowhere", "folder", *(["pipe"] if hasattr(os, "mkfifo") else [])]


@pytest.mark.parametrize("kind", ODD)
def test_objects_and_records_are_plain_files(store: Store, kind: str) -> None:
    name = store.put(b"some bytes")
    odd(store.object_path(name), kind)
    assert not store.has(name)
    with pytest.raises(StoreDamaged, match="cannot be read"):
        store.get(name)
    assert store.put(b"some bytes") == name and store.get(name) == b"some bytes"
    assert os.path.lexists(store.root / "quarantine" / name)
    store.publish(KEY, STAGE, FILES, FACTS)
    odd(store.record_path(KEY), kind)
    fresh = Store(store.root)
    assert KEY in fresh
    with pytest.raises(StoreDamaged, match="cannot be read"):
        fresh.read(KEY)
    fresh.forget(KEY)
    assert fresh.read(KEY) is None and fresh.publish(KEY, STAGE, FILES, FACTS).facts == FACTS


@pytest.mark.parametrize("kind", ODD)
def test_notes_locks_and_folders_are_made_anew_where_they_are_something_else(
    store: Store, kind: str
) -> None:
    odd(store.note_path("files", "a"), kind)
    assert store.noted("files", "a") is None
    store.note("files", "a", {"x": 1})
    assert store.noted("files", "a") == {"x": 1}
    odd(store.lock_path(KEY), kind)
    with store.lock(KEY):
        assert store.busy(KEY)
    assert not store.busy(KEY) and store.lock_path(KEY).stat().st_size == 0
    record = store.publish(KEY, STAGE, FILES, FACTS)
    folder = store.materialize(record)
    odd(folder / "head.safetensors", kind)
    (folder / "not ours.bin").write_bytes(b"x")
    store.materialize(record)
    assert {p.name: p.read_bytes() for p in folder.iterdir() if not p.is_symlink()} == FILES


def test_a_damaged_object_is_kept_when_it_is_healed(store: Store) -> None:
    name = store.put(b"some bytes")
    for n in range(3):
        store.object_path(name).write_bytes(b"damage %d" % n)
        store.put(b"some bytes")
    aside = sorted(path.read_bytes() for path in (store.root / "quarantine").iterdir())
    assert aside == [b"damage 0", b"damage 1", b"damage 2"]


# Several processes


def _publish(root: str, writer: int, barrier: Any) -> list[tuple[str, Any]]:
    barrier.wait(60)
    opened = Store(root)
    found = []
    for i in range(6):
        key = f"{i:02d}" + "e" * 62
        files = {"own": b"writer %d" % writer, "same": b"same" * 1000}
        record = opened.publish(key, STAGE, files, {"writer": writer})
        found.append((key, record.facts["writer"]))
    return found


def test_four_processes_publish_the_same_keys(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    root = str(tmp_path / "store")
    with context.Manager() as manager, ProcessPoolExecutor(4, mp_context=context) as pool:
        barrier = manager.Barrier(4)
        told = [pool.submit(_publish, root, i, barrier) for i in range(4)]
        answers = [future.result(120) for future in told]
    store = Store(root)
    assert len(list(store)) == 6
    for answer in answers:
        for key, writer in answer:
            record = store.read(key)
            assert record is not None and record.facts["writer"] == writer, "all saw one winner"
            assert store.get(record.files["own"]) == b"writer %d" % writer
    assert not list(store.root.rglob(".tmp-*"))


def _locked(root: str, path: str) -> None:
    store = Store(root)
    for _ in range(20):
        with store.lock(KEY):
            count = int(Path(path).read_text() or "0")
            Path(path).write_text(str(count + 1))


def test_one_process_at_a_time_holds_the_lock_of_a_stage(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    counter.write_text("0")
    root = str(tmp_path / "store")
    Store(root)
    context = multiprocessing.get_context("fork" if os.name == "posix" else "spawn")
    processes = [context.Process(target=_locked, args=(root, str(counter))) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert counter.read_text() == "60"


@pytest.mark.parametrize(
    "files",
    [{"../../out": "0" * 64}, {"a/b": "0" * 64}, {"a": "../../../etc/passwd"}, {"": "0" * 64}],
)
def test_a_record_whose_files_are_paths_is_damaged(tmp_path: Path, files: dict[str, str]) -> None:
    from adapterxlt.core.canon import canonical, digest

    store = Store(tmp_path / "s")
    body = {"key": "ab" * 32, "stage": {}, "files": files, "facts": {}}
    path = store.record_path("ab" * 32)
    path.parent.mkdir(parents=True)
    path.write_text(canonical({**body, "check": digest("record", body)}), encoding="utf-8")
    with pytest.raises(StoreDamaged, match="does not match"):
        store.read("ab" * 32)
