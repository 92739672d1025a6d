"""A folder is written whole or not at all, also when the writer is killed."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from adapterxlt.store import files
from adapterxlt.store.files import write_folder

FILES = {"a.txt": b"a", "deep/er/b.txt": b"b", "c.txt": b"c"}

KILLED = """
import os, sys
from pathlib import Path
from adapterxlt.store import files

real, left = files.write_bytes, int(sys.argv[2])

def write(path, data, **how):
    global left
    if left == 0:
        os._exit(9)
    left -= 1
    return real(path, data, **how)

files.write_bytes = write
files.write_folder(Path(sys.argv[1]), {"a.txt": b"a", "deep/er/b.txt": b"b", "c.txt": b"c"})
"""


def read(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_all_files_under_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    write_folder(folder, FILES)
    assert read(folder) == FILES
    assert [path.name for path in folder.parent.iterdir()] == ["out"]
    made = tmp_path / "made"
    made.mkdir()
    if os.name == "posix":
        assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(made.stat().st_mode)


def test_an_empty_folder_gives_way_and_others_do_not(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    write_folder(folder, FILES)
    with pytest.raises(OSError):
        write_folder(folder, {"d.txt": b"d"})
    assert read(folder) == FILES
    file = tmp_path / "file"
    file.write_bytes(b"mine")
    with pytest.raises(OSError):
        write_folder(file, FILES)
    assert file.read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out"]


def test_an_error_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(files, "write_bytes", full)
    with pytest.raises(OSError, match="no space"):
        write_folder(tmp_path / "out", FILES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("written", range(len(FILES) + 1))
def test_killed_after_any_file_there_is_no_half_folder(written: int, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    run = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(written)])
    assert run.returncode == (9 if written < len(FILES) else 0)
    assert folder.exists() == (written == len(FILES))
    write_folder(tmp_path / "again", FILES)
    assert read(tmp_path / "again") == FILES
