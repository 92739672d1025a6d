"""Formats of a store: an old one is upgraded, a newer one refused, a damaged marker is mended."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from adapterxlt.core.errors import StoreDamaged, UsageError
from adapterxlt.store import formats
from adapterxlt.store.maintenance import fsck
from adapterxlt.store.store import Store

FIRST = Path(__file__).parent / "format-1.tar.gz"
"""A store that the first format's code has written: three stages, a note of each kind."""


@pytest.fixture
def first(tmp_path: Path) -> Path:
    with tarfile.open(FIRST) as tar:
        tar.extractall(tmp_path, filter="data")
    return tmp_path / "format-1"


def test_the_first_format_is_upgraded_and_loses_no_result(first: Path) -> None:
    assert json.loads((first / "format.json").read_bytes()) == {"adapterxlt store": 1}
    before = {path: path.read_bytes() for path in first.glob("[ro]*/??/*")}
    [old] = (first / "notes" / "studies").iterdir()
    was = json.loads(old.read_bytes())
    store = Store(first)
    assert json.loads((first / "format.json").read_bytes()) == {"adapterxlt store": formats.FORMAT}
    assert {path: path.read_bytes() for path in first.glob("[ro]*/??/*")} == before
    assert store.noted("studies", old.stem) == was and set(was["keys"]) == set(store)
    [adopted] = store.notes("adopted")
    assert store.noted("adopted", adopted)["reference"] == "hub:organization/name"
    # What only saves work was trusted as it was, and is made anew.
    assert list(store.notes("encoded")) == list(store.notes("files")) == []
    assert fsck(store).findings == () and len(list(store)) == 3


def test_an_upgrade_that_was_broken_off_is_done_again(first: Path) -> None:
    whole = Store(first)
    notes = {path: path.read_bytes() for path in (first / "notes").rglob("*.json")}
    (first / "format.json").write_text('{"adapterxlt store": 1}')
    Store(first)
    assert {path: path.read_bytes() for path in (first / "notes").rglob("*.json")} == notes
    assert fsck(whole).findings == ()


def test_a_note_that_is_damaged_is_not_upgraded_into_a_whole_one(first: Path) -> None:
    Store(first)
    [note] = (first / "notes" / "studies").iterdir()
    note.write_bytes(note.read_bytes().replace(b'"old"', b'"odd"'))
    (first / "format.json").write_text('{"adapterxlt store": 1}')
    store = Store(first)
    assert store.noted("studies", note.stem) is None
    assert any(str(note) in finding for finding in fsck(store).findings)


def test_an_upgrade_that_cannot_be_written_says_so(
    first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(formats, "write_json", full)
    with pytest.raises(UsageError, match="cannot be upgraded: Read-only file system"):
        Store(first)


def test_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "objects").mkdir()
    (tmp_path / "format.json").write_text('{"adapterxlt store": 3}')
    with pytest.raises(UsageError, match="it has format 3, and this version reads up to 2") as told:
        Store(tmp_path)
    assert "upgrade adapterxlt" in str(told.value)
    assert not formats.mend(tmp_path)
    assert (tmp_path / "format.json").read_text() == '{"adapterxlt store": 3}'


DAMAGE = ["", "{", '{"adapterxlt store"', '{"adapterxlt store": "2"}', '{"adapterxlt store": 0}']
DAMAGE += ['{"adapterxlt store": true}', '{"other": 1}', "[1]", "\0" * 24]


@pytest.mark.parametrize("text", [*DAMAGE, None])
def test_a_damaged_marker_is_noticed_and_mended(tmp_path: Path, text: str | None) -> None:
    store = Store(tmp_path / "s")
    store.publish("ab" * 32, {}, {"f": b"data"}, {})
    store.note("studies", "a", {"keys": []})
    marker = store.root / "format.json"
    marker.unlink()
    if text is not None:
        marker.write_text(text)
    with pytest.raises(StoreDamaged, match=r"does not say the format of the store.*fsck --mend"):
        Store(store.root)
    assert formats.mend(store.root) and not formats.mend(store.root)
    again = Store(store.root)
    assert again.noted("studies", "a") == {"keys": []} and "ab" * 32 in again
    assert fsck(again).findings == ()


def test_a_folder_that_is_no_store_is_not_made_one_by_mending(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    assert not formats.mend(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_note_is_of_its_kind_and_name(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    store.note("files", "a", {"rows": 1, "none": None})
    store.note("files", "b", {"rows": 2})
    assert store.noted("files", "a") == {"rows": 1, "none": None}
    a, b = store.note_path("files", "a"), store.note_path("files", "b")
    left, right = a.read_bytes(), b.read_bytes()
    a.write_bytes(right)
    b.write_bytes(left)
    assert store.noted("files", "a") is None and store.noted("files", "b") is None
    assert len(fsck(store).findings) == 2
    a.write_bytes(left)
    at = left.index(b'"rows": 1') + 8
    a.write_bytes(left[:at] + b"3" + left[at + 1 :])
    assert store.noted("files", "a") is None
    store.note("files", "a", {"rows": 1})
    assert store.noted("files", "a") == {"rows": 1}


def test_what_only_saves_work_is_given_up_where_it_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "s")

    def full(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("adapterxlt.store.store.write_json", full)
    for kind in formats.SAVING:
        store.note(kind, "a", {})
    for kind in formats.KEPT:
        with pytest.raises(OSError, match="Read-only"):
            store.note(kind, "a", {})
