"""Checking a store: every record and every object against its digest.

Finds what is damaged and, when asked to mend, takes it out of use so that the next run makes it
again. Called by the command line only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from adapterxlt.core.errors import StoreDamaged
from adapterxlt.store.store import Store


@dataclass(frozen=True)
class Health:
    """Outcome of a check: how much was read, and what is wrong, one line each."""

    records: int
    objects: int
    damaged: tuple[str, ...]
    """Keys of records that cannot be used."""
    findings: tuple[str, ...]


def fsck(store: Store, *, mend: bool = False) -> Health:
    """Read everything once; with ``mend``, put damaged objects and records in quarantine."""
    findings: list[str] = []
    damaged: list[str] = []
    bad_objects: list[str] = []
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
        assert record is not None
        lost = sorted(name for name, digest_hex in record.files.items() if digest_hex not in usable)
        if lost:
            findings.append(f"record {key[:12]}: damaged or missing: {', '.join(lost)}")
            damaged.append(key)
    if mend:
        for key in damaged:
            store.forget(key)
        for digest_hex in bad_objects:
            path = store.object_path(digest_hex)
            if path.exists():
                aside = store.root / "quarantine" / digest_hex
                aside.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, aside)
    return Health(len(keys), len(objects), tuple(damaged), tuple(findings))
