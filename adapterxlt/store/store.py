"""The content-addressed store: objects by digest, records by stage key, published once.

Bytes are written before the record that names them, a record says its own digest, and every read
is checked, so a record that can be read is complete. It knows nothing of recipes or models.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterxlt.core.canon import canonical, digest, sha256_hex
from adapterxlt.core.errors import StoreDamaged
from adapterxlt.store import formats
from adapterxlt.store.files import (
    clear,
    is_plain,
    move_aside,
    read_bytes,
    read_json,
    write_bytes,
    write_json,
)
from adapterxlt.store.formats import settle

_DIGEST, _NAME = re.compile(r"[0-9a-f]{64}"), re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Record:
    """What a finished stage left: the digests of its files, and facts about it."""

    key: str
    stage: Mapping[str, Any]
    files: Mapping[str, str]
    """Digest of each file, by name."""
    facts: Mapping[str, Any]
    """Metrics, losses, seconds, versions: whatever the stage says of itself."""

    def body(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "stage": self.stage,
            "files": dict(self.files),
            "facts": self.facts,
        }


class Store:
    """A folder that holds finished stages.

    Args:
        root: made when it is not there.

    Raises:
        UsageError: the folder is something else, of a newer format, or cannot be written.
        StoreDamaged: what says its format is not whole.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).absolute()
        self._records: dict[str, Record] = {}
        settle(self.root)

    def object_path(self, digest_hex: str) -> Path:
        return self.root / "objects" / digest_hex[:2] / digest_hex[2:]

    def record_path(self, key: str) -> Path:
        return self.root / "records" / key[:2] / f"{key[2:]}.json"

    def put(self, data: bytes) -> str:
        """Keep bytes; returns their SHA-256. Keeping the same bytes twice is one object."""
        name = sha256_hex(data)
        while not self.keep_whole(name):
            if write_bytes(self.object_path(name), data, replace=False):
                break
        return name

    def keep_whole(self, digest_hex: str) -> bool:
        """Whether there is a whole object; it is then in use, and what is damaged is put aside."""
        path = self.object_path(digest_hex)
        if not os.path.lexists(path):
            return False
        try:
            self.get(digest_hex)
        except StoreDamaged:
            with suppress(FileNotFoundError):
                self.aside(path, digest_hex)
            return False
        with suppress(OSError):
            # Nobody collects what is younger than a run may need.
            os.utime(path)
        return True

    def get(self, digest_hex: str) -> bytes:
        """The bytes with this digest; raises ``StoreDamaged`` when they are missing or differ."""
        path = self.object_path(digest_hex)
        try:
            data = read_bytes(path)
        except FileNotFoundError:
            raise _damaged("is missing", path) from None
        except OSError:
            raise _damaged("cannot be read", path) from None
        if sha256_hex(data) != digest_hex:
            raise _damaged("does not match its digest", path)
        return data

    def has(self, digest_hex: str) -> bool:
        """Whether there is an object with this digest."""
        return is_plain(self.object_path(digest_hex))

    def path(self, digest_hex: str) -> Path:
        """Where an object lies, read and found whole, for what is mapped into memory."""
        self.get(digest_hex)
        return self.object_path(digest_hex)

    def publish(
        self,
        key: str,
        stage: Mapping[str, Any],
        files: Mapping[str, bytes],
        facts: Mapping[str, Any],
    ) -> Record:
        """Publish a finished stage: files first, the record last; the first writer wins.

        Raises:
            ValueError: a file's name is none that a record may have.
        """
        if not all(_NAME.fullmatch(name) for name in files):
            raise ValueError(f"no names for files of a record: {sorted(files)}")
        named = {name: self.put(data) for name, data in sorted(files.items())}
        record = self.keep(Record(key, stage, named, facts))
        # Bytes that were there before it may have been collected just before they were named.
        for name, data in files.items():
            if record.files.get(name) == named[name] and not self.has(named[name]):
                self.put(data)
        return record

    def keep(self, record: Record) -> Record:
        """Keep a record whose files are here already; the first writer wins."""
        write_bytes(self.record_path(record.key), text_of(record), replace=False)
        return self.read(record.key) or record

    def read(self, key: str) -> Record | None:
        """The record of a stage, or ``None``; raises ``StoreDamaged`` when it is not whole."""
        if key in self._records:
            return self._records[key]
        path = self.record_path(key)
        try:
            data = read_bytes(path)
        except FileNotFoundError:
            return None
        except OSError:
            raise _damaged("cannot be read", path) from None
        record = record_of(key, data)
        if record is None:
            raise _damaged("does not match its digest", path)
        self._records[key] = record
        return record

    def __contains__(self, key: str) -> bool:
        return key in self._records or os.path.lexists(self.record_path(key))

    def present(self, keys: Iterable[str]) -> set[str]:
        """Those of the keys that have a record; looks once into each folder, not for each key."""
        by_folder: dict[str, set[str]] = {}
        for key in keys:
            by_folder.setdefault(key[:2], set()).add(f"{key[2:]}.json")
        found = set()
        for folder, names in by_folder.items():
            with suppress(FileNotFoundError):
                try:
                    there = names.intersection(os.listdir(self.root / "records" / folder))
                except NotADirectoryError:
                    path = self.root / "records" / folder
                    raise _damaged("is where a folder should be", path) from None
                found |= {folder + name.removesuffix(".json") for name in there}
        return found

    def __iter__(self) -> Iterator[str]:
        """Keys of all records, sorted."""
        for path in sorted((self.root / "records").glob("??/*.json")):
            if _DIGEST.fullmatch(path.parent.name + path.stem):
                yield path.parent.name + path.stem

    def objects(self) -> Iterator[str]:
        """Digests of all objects, named by a record or not, sorted."""
        for path in sorted((self.root / "objects").glob("??/*")):
            if _DIGEST.fullmatch(path.parent.name + path.name):
                yield path.parent.name + path.name

    def materialize(self, record: Record) -> Path:
        """A folder with the record's files under their names, for libraries that want folders.

        Kept under ``work/`` and made anew when its files are not all there, or others are.
        """
        folder = self.root / "work" / "folders" / record.key[:32]
        if not folder.is_dir() or folder.is_symlink():
            clear(folder)
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name not in record.files and not path.name.startswith(".tmp-"):
                clear(path)
        for name, digest_hex in record.files.items():
            path = folder / name
            try:
                whole = sha256_hex(read_bytes(path)) == digest_hex
            except OSError:
                whole = False
            if not whole:
                data = self.get(digest_hex)
                if not is_plain(path):
                    clear(path)
                write_bytes(path, data)
        return folder

    def work(self, key: str) -> Path:
        """Scratch of an unfinished stage: snapshot, progress, lock. Never trusted as a result."""
        return self.root / "work" / "stages" / key

    def clean(self, key: str) -> None:
        """Remove the scratch of a finished stage."""
        shutil.rmtree(self.work(key), ignore_errors=True)

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """One process works on a stage at a time. Saves work only; correctness never needs it."""
        from filelock import FileLock

        path = self.lock_path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path) and not is_plain(path):
            clear(path)
        with FileLock(path):
            yield

    def busy(self, key: str) -> bool:
        """Whether a process holds the lock of a stage."""
        from filelock import FileLock, Timeout

        if not is_plain(self.lock_path(key)):
            return False
        try:
            with FileLock(self.lock_path(key), timeout=0):
                return False
        except Timeout:
            return True

    def lock_path(self, key: str) -> Path:
        return self.root / "work" / "locks" / f"{key}.lock"

    def note_path(self, kind: str, name: str) -> Path:
        return self.root / "notes" / kind / f"{name}.json"

    def note(self, kind: str, name: str, value: Any) -> None:
        """Keep a small JSON note (a study, a cached inspection); the last writer wins.

        One that only saves work is given up where it cannot be written, so that a store can be
        looked at by those who may not write to it.
        """
        path = self.note_path(kind, name)
        try:
            if os.path.lexists(path) and not is_plain(path):
                self.aside(path)
            write_json(path, formats.noted(kind, name, value))
        except OSError:
            if kind not in formats.SAVING:
                raise

    def noted(self, kind: str, name: str) -> Any:
        """A note, or ``None`` where there is none or it is not whole."""
        return formats.value_of(kind, name, read_json(self.note_path(kind, name)))

    def notes(self, kind: str) -> Iterator[str]:
        """Names of all notes of a kind, whole or not, sorted."""
        for path in sorted((self.root / "notes" / kind).glob("*.json")):
            yield path.stem

    def forget(self, key: str) -> None:
        """Take a damaged or unwanted record out of use; it is kept under ``quarantine/``."""
        self.drop(key)
        path = self.record_path(key)
        with suppress(FileNotFoundError):
            self.aside(path, f"{key}.json")

    def lost(self) -> list[str]:
        """Keys of records that were taken out of use because of damage, also those made again."""
        return list(self.notes("lost"))

    def drop(self, key: str) -> None:
        """Read a record again when it is next asked for."""
        self._records.pop(key, None)

    def aside(self, path: Path, name: str = "") -> None:
        """Take what is damaged out of use; it is kept under ``quarantine/``."""
        move_aside(path, self.root / "quarantine", name or path.name)

    def touch(self, keys: Iterable[str]) -> None:
        """Say that records are in use: nobody collects what is younger than a run may need."""
        for key in keys:
            with suppress(OSError):
                os.utime(self.record_path(key))


def text_of(record: Record) -> bytes:
    """A record as it is written."""
    body = record.body()
    return (canonical({**body, "check": digest("record", body)}) + "\n").encode()


def record_of(key: str, data: bytes) -> Record | None:
    """The record that was written as these bytes, or nothing where they are not those of one."""
    try:
        body = json.loads(data)
        check = body.pop("check", None) if isinstance(body, dict) else None
        whole = check is not None and check == digest("record", body)
    except (ValueError, TypeError, RecursionError):
        return None  # also NaN or infinity, which no record that was written has
    if not whole or body.keys() != _FIELDS or body["key"] != key:
        return None
    said = all(isinstance(body[name], dict) for name in ("stage", "files", "facts"))
    if not said or not _plain(body["files"]):
        return None
    return Record(key, body["stage"], body["files"], body["facts"])


_FIELDS = {"key", "stage", "files", "facts"}


def _plain(files: Mapping[str, Any]) -> bool:
    """Whether names and digests of files are just that: both become parts of paths."""
    return all(
        isinstance(digest_hex, str) and _NAME.fullmatch(name) and _DIGEST.fullmatch(digest_hex)
        for name, digest_hex in files.items()
    )


def _damaged(what: str, path: Path) -> StoreDamaged:
    return StoreDamaged(
        f"stored file {what}", where=str(path), hint="run `adapterxlt fsck --mend`, then run again"
    )
