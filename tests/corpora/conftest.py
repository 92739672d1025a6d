"""A small data folder, written by the tests that need one."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Write = Callable[..., Path]


def pos(number: int) -> dict[str, Any]:
    return {"id": f"s-{number}", "tokens": ["Kissa", f"on{number}"], "upos": ["NOUN", "VERB"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    return path


@pytest.fixture
def write(folder: Path) -> Write:
    """``write("udpos/fi/train", rows, plain=..., mtime=...)`` puts a split into the folder."""

    def put(name: str, rows: list[Any] | bytes, *, plain: bool = False, mtime: int = 0) -> Path:
        data = rows if isinstance(rows, bytes) else _lines(rows)
        path = folder / f"{name}.jsonl{'' if plain else '.gz'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if plain else gzip.compress(data, mtime=mtime))
        return path

    return put


def _lines(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


@pytest.fixture
def sentences() -> Callable[[int], list[dict[str, Any]]]:
    """So many tagged rows, all different."""
    return lambda count: [pos(i) for i in range(count)]
