"""Lock files of any content: ours, or one line that says how to get a new one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from adapterxlt.core.errors import UsageError
from adapterxlt.run.adoptions import MOST_LOCK, LockFile

BAD: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "too large": lambda path: path.write_bytes(b" " * (MOST_LOCK + 1)),
    "too deep": lambda path: path.write_bytes(b'{"a":' * 100_000),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe{\0}\0"),
    "no JSON": lambda path: path.write_text("\x1b[2J"),
    "a list": lambda path: path.write_text("[]"),
    "a key twice": lambda path: path.write_text('{"adapterxlt lock": 1, "adapterxlt lock": 1}'),
    "adapters of no kind": lambda path: path.write_text('{"adapterxlt lock": 1, "adapters": [1]}'),
    "a strange name": lambda path: path.write_text(
        '{"adapterxlt lock": 1, "adapters": {"\\u001b[2J": {"x": 1}}}'
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_lock_file_is_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.lock.json"
    BAD[name](path)
    with pytest.raises(UsageError) as caught:
        LockFile.read(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: not a lock file: ") and text.isprintable() and len(text) < 900
    assert text.endswith("write it anew with adapterxlt lock")
