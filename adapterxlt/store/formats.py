"""The format of a store: which one a folder has, and how an older one becomes this one.

`Store` calls it when a folder is opened. An upgrade loses no result and may be broken off: what it
has done is the same when it is done again, and the marker is written last.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from adapterxlt.core.canon import digest
from adapterxlt.core.errors import StoreDamaged, UsageError
from adapterxlt.store.files import clear, is_plain, read_json, write_json

#: 1: notes were bare values. 2: a note says its kind, its name and its digest, as records do.
FORMAT = 2
MARKER, _FIELD = "format.json", "adapterxlt store"
#: Folders that only a store has.
_OURS = ("records", "objects", "notes")
#: Notes that are remembered work, which is done again where it is lost; and the others.
SAVING, KEPT = ("encoded", "files", "looked", "unpickled"), ("adopted", "lost", "studies")


def settle(root: Path) -> None:
    """Make a folder a store of this format, if it may be one.

    Raises:
        UsageError: it is something else, of a newer format, or cannot be written.
        StoreDamaged: it is a store, and what says its format is not whole.
    """
    number = _number(root)
    if number is None:
        _begin(root)
        number = _number(root)
    if number is None:
        raise _unknown(root)
    if number > FORMAT:
        raise UsageError(
            f"a newer adapterxlt has made this store: it has format {number}, and this version "
            f"reads up to {FORMAT}",
            where=str(root),
            hint="upgrade adapterxlt, or give another --store",
        )
    if number < FORMAT:
        _upgrade(root)


def mend(root: Path) -> bool:
    """Write the marker of a store again where it is not whole; whether it was not.

    It then says the first format, so that everything is upgraded that was not before.
    """
    if _number(root) is not None or not any((root / name).is_dir() for name in _OURS):
        return False
    clear(root / MARKER)
    write_json(root / MARKER, {_FIELD: 1})
    return True


def noted(kind: str, name: str, value: Any) -> dict[str, Any]:
    """A note as it is written."""
    body = {"kind": kind, "name": name, "value": value}
    return {**body, "check": digest("note", body)}


def value_of(kind: str, name: str, found: Any) -> Any:
    """The value of a note that was read, or ``None`` where it is not whole or is another one."""
    if not isinstance(found, dict) or set(found) != {"kind", "name", "value", "check"}:
        return None
    try:
        whole = noted(kind, name, found["value"])["check"]
    except (ValueError, TypeError, RecursionError):
        return None
    return found["value"] if [kind, name, whole] == [found[n] for n in _NAMED] else None


_NAMED = ("kind", "name", "check")


def _number(root: Path) -> int | None:
    """The format that the marker says; nothing where it says none."""
    found = read_json(root / MARKER)
    number = found.get(_FIELD) if isinstance(found, dict) else None
    return number if type(number) is int and number > 0 else None


def _begin(root: Path) -> None:
    """Make an empty folder a store."""
    try:
        there = os.listdir(root) if root.exists() else []
        if any(not name.startswith(".tmp-") for name in there):
            # Another process may have made the store since the marker was looked for.
            if _number(root) is not None:
                return
            if any(name in there for name in _OURS):
                raise _unknown(root)
            what, hint = "not a store, and not empty", "give another --store"
            raise UsageError(what, where=str(root), hint=hint)
        write_json(root / MARKER, {_FIELD: FORMAT})
    except OSError as error:
        raise UsageError(f"no store can be here: {error}", where=str(root)) from None


def _unknown(root: Path) -> StoreDamaged:
    what, hint = "does not say the format of the store", "run `adapterxlt fsck --mend`"
    return StoreDamaged(what, where=str(root / MARKER), hint=hint)


def _upgrade(root: Path) -> None:
    """From format 1 to 2: notes say what they are; those that only save work are made anew."""
    try:
        for path in sorted((root / "notes").glob("*/*.json")):
            kind, name = path.parent.name, path.stem
            found = read_json(path)
            if value_of(kind, name, found) is not None:
                continue
            bare = kind in KEPT and isinstance(found, dict) and "check" not in found
            if bare and is_plain(path):
                write_json(path, noted(kind, name, found))
            elif kind in SAVING:
                clear(path)
        write_json(root / MARKER, {_FIELD: FORMAT})
    except OSError as error:
        what = f"a store of an older format cannot be upgraded: {error.strerror or error}"
        raise UsageError(what, where=str(root)) from None
