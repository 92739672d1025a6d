"""Checking a store: every record, object and note against its digest, and nothing else there.

Finds what is damaged and, when asked to mend, takes it out of use so that the next run makes it
again. Scratch of unfinished stages is not looked at: what reads it checks it, and it is never a
result. Called by the command line only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from adapterxlt.core.errors import StoreDamaged
from adapterxlt.store.files import is_plain
from adapterxlt.store.store import Store

#: What the folders of a store hold: names of folders in them, and of files in those.
_NAMES = {
    "records": (r"[0-9a-f]{2}", r"[0-9a-f]{62}\.json"),
    "objects": (r"[0-9a-f]{2}", r"[0-9a-f]{62}"),
    "notes": (r"[a-z]+", r"[^.].*\.json"),
}


@dataclass(frozen=True)
class Health:
    """Outcome of a check: how much was read, and what is wrong, one line each."""

    records: int
    objects: int
    damaged: tuple[str, ...]
    """Keys of records that cannot be used."""
    findings: tuple[str, ...]


def fsck(store: Store, *, mend: bool = False) -> Health:
    """Read everything once; with ``mend``, put what is damaged in quarantine."""
    findings: list[str] = []
    damaged: list[str] = []
    bad_objects: list[str] = []
    strangers = list(_strangers(store.root))
    findings += [f"{path}: no file of a store" for path in strangers]
    keys, objects = list(store), list(store.objects())
    # Also objects that no record names: left by a killed run, they would be taken as written.
    for digest_hex in objects:
        try:
            store.get(digest_hex)
        except StoreDamaged as error:
            bad_objects.append(digest_hex)
            findings.append(str(error))
    usable = set(objects) - set(bad_objects)
    for key in keys:
        try:
            record = store.read(key)
        except StoreDamaged as error:
            findings.append(str(error))
            damaged.append(key)
            continue
        # One that is gone was collected meanwhile.
        named = record.files.items() if record is not None else ()
        lost = sorted(name for name, digest_hex in named if digest_hex not in usable)
        if lost:
            findings.append(f"record {key[:12]}: damaged or missing: {', '.join(lost)}")
            damaged.append(key)
    notes = list(_bad_notes(store))
    findings += [f"{path}: note does not match its digest" for path in notes]
    if mend:
        for key in damaged:
            # What was made with it may be whole, so that nothing else would miss it.
            store.note("lost", key, {})
            store.forget(key)
        aside = [(store.object_path(digest_hex), digest_hex) for digest_hex in bad_objects]
        for path, name in (*aside, *((path, path.name) for path in (*notes, *strangers))):
            with suppress(FileNotFoundError):
                store.aside(path, name)
    return Health(len(keys), len(objects), tuple(damaged), tuple(findings))


def _bad_notes(store: Store) -> Iterator[Path]:
    """Notes that are not whole, or are not the ones that their names say."""
    for folder in sorted((store.root / "notes").glob("*/")):
        for name in store.notes(folder.name) if folder.name != "events" else ():
            path = store.note_path(folder.name, name)
            if is_plain(path) and store.noted(folder.name, name) is None:
                yield path


def _strangers(root: Path) -> Iterator[Path]:
    """What lies where only files of a store do, and is none: by its name, or no plain file."""
    for top, (folder_name, file_name) in _NAMES.items():
        # A link to a folder on another disk will do.
        if not (root / top).is_dir():
            if os.path.lexists(root / top):
                yield root / top
            continue
        for folder in sorted((root / top).iterdir()):
            if folder.name.startswith(".tmp-"):
                continue
            if not re.fullmatch(folder_name, folder.name) or not folder.is_dir():
                yield folder
                continue
            if (top, folder.name) == ("notes", "events"):
                continue
            for path in sorted(folder.iterdir()):
                if path.name.startswith(".tmp-"):
                    continue
                known = re.fullmatch(file_name, path.name)
                # Records and objects that are something else are found when they are read.
                if not known or (top == "notes" and not is_plain(path)):
                    yield path
