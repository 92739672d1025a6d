"""The atomic writes that everything durable goes through, of a file and of a folder.

Bytes appear under their final name complete and on disk, or not at all. Used by the store and by
nothing that could leave half a file behind. What is read back is a plain file or nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

# What a plain open() would give new files; asked once, because asking means setting it.
_MASK = os.umask(0o077)
os.umask(_MASK)


def write_bytes(path: Path, data: bytes, *, replace: bool = True, durable: bool = True) -> bool:
    """Write ``data`` to ``path`` in one step.

    Args:
        replace: overwrite what is there; without it the first writer wins.
        durable: wait until the bytes are on disk (off for progress notes).

    Returns:
        Whether this call's bytes are the ones under ``path``.
    """
    return write_blocks(path, (data,), replace=replace, durable=durable)


def write_blocks(
    path: Path, blocks: Iterable[bytes], *, replace: bool = True, durable: bool = True
) -> bool:
    """As `write_bytes`, of bytes that come in blocks; an error of theirs leaves nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            for block in blocks:
                file.write(block)
            if os.name == "posix":
                os.fchmod(file.fileno(), 0o666 & ~_MASK)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        if replace:
            os.replace(name, path)
        else:
            try:
                os.link(name, path)
            except FileExistsError:
                return False
        if durable:
            _sync_folder(path.parent)
        return True
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a new folder in one step: it is there whole and on disk, or not at all.

    Args:
        folder: not there yet, or empty.
        files: by path in it, with ``/``.

    Raises:
        OSError: something else is there.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder.parent))
    try:
        for name, data in files.items():
            write_bytes(scratch / name, data)
        if os.name == "posix":
            scratch.chmod(0o777 & ~_MASK)
        elif folder.is_dir():
            folder.rmdir()
        # An empty folder gives way, another one does not.
        os.replace(scratch, folder)
        _sync_folder(folder.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Write a JSON value in one step, readable by people, sorted."""
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode(), durable=durable)


def read_bytes(path: Path) -> bytes:
    """The bytes of a plain file: neither through a link, nor waiting at a pipe or a device.

    Raises:
        OSError: it is not there, cannot be read, or is something else.
    """
    careful = ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_CLOEXEC")
    handle = os.open(path, os.O_RDONLY | sum(getattr(os, name, 0) for name in careful))
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(f"not a plain file: {path}")
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(handle)


def is_plain(path: Path) -> bool:
    """Whether there is a plain file, and no link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def read_json(path: Path) -> Any:
    """The JSON value at ``path``, or ``None`` when there is no readable one."""
    try:
        return json.loads(read_bytes(path))
    except (OSError, ValueError, RecursionError):
        return None


def clear(path: Path) -> None:
    """Remove whatever is there, a folder with all that is in it; nothing there is fine."""
    try:
        path.unlink()
    except FileNotFoundError:
        return
    except OSError:
        if path.is_symlink() or not path.is_dir():
            raise
        shutil.rmtree(path)


def move_aside(path: Path, folder: Path, name: str) -> Path:
    """Move whatever is there into a folder, under a name that is free; returns where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    aside, n = folder / name, 0
    while os.path.lexists(aside):
        n += 1
        aside = folder / f"{name}.{n}"
    os.replace(path, aside)
    return aside


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
