"""The atomic write: whole or not at all, first writer wins where asked, nothing left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from adapterxlt.store.files import read_json, write_bytes, write_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_bytes_appear_under_their_name_and_nothing_else_does(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    assert write_bytes(path, b"one") is True
    assert path.read_bytes() == b"one" and names(path.parent) == ["file"]
    assert write_bytes(path, b"two") is True
    assert path.read_bytes() == b"two" and names(path.parent) == ["file"]


@pytest.mark.parametrize("durable", [True, False])
def test_the_first_writer_wins_where_asked(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "file"
    assert write_bytes(path, b"one", replace=False, durable=durable) is True
    assert write_bytes(path, b"two", replace=False, durable=durable) is False
    assert path.read_bytes() == b"one" and names(tmp_path) == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace", "link"])
def test_an_error_leaves_the_old_bytes_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "file"
    if step != "link":
        path.write_bytes(b"old")

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="no space left"):
        write_bytes(path, b"new", replace=step != "link")
    monkeypatch.undo()
    assert names(tmp_path) == (["file"] if step != "link" else [])
    assert step == "link" or path.read_bytes() == b"old"


def test_json_is_sorted_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"b": "é", "a": [1, None]})
    assert path.read_text(encoding="utf-8") == '{\n "a": [\n  1,\n  null\n ],\n "b": "é"\n}\n'
    assert read_json(path) == {"a": [1, None], "b": "é"}


def test_json_that_is_not_there_or_not_json_is_none(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"{")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xfd")
    (tmp_path / "folder").mkdir()
    assert [read_json(tmp_path / name) for name in ("bad", "binary", "folder", "none")] == [
        None
    ] * 4
