"""The atomic writes that everything durable goes through, of a file and of a folder.

Bytes appear under their final name complete and on disk, or not at all. Used by the store and by
nothing that could leave half a file behind.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
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
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
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


def read_json(path: Path) -> Any:
    """The JSON value at ``path``, or ``None`` when there is no readable one."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
