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
from adapterxlt.core.errors import StoreDamaged, UsageError
from adapterxlt.store.files import read_json, write_bytes, write_json

FORMAT = 1


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
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).absolute()
        self._records: dict[str, Record] = {}
        marker = self.root / "format.json"
        found = read_json(marker)
        if found is None:
            try:
                foreign = self.root.exists() and any(
                    not path.name.startswith(".tmp-") for path in self.root.iterdir()
                )
                # Another process may have made the store since the marker was looked for.
                if foreign and read_json(marker) is None:
                    raise UsageError(
                        "not a store, and not empty",
                        where=str(self.root),
                        hint="give another --store",
                    )
                if not foreign:
                    write_json(marker, {"adapterxlt store": FORMAT})
            except OSError as error:
                raise UsageError(f"no store can be here: {error}", where=str(self.root)) from None
            found = read_json(marker)
        if not isinstance(found, dict) or found.get("adapterxlt store") != FORMAT:
            raise UsageError(
                f"store format {found}, this version reads {FORMAT}", where=str(self.root)
            )

    def object_path(self, digest_hex: str) -> Path:
        return self.root / "objects" / digest_hex[:2] / digest_hex[2:]

    def record_path(self, key: str) -> Path:
        return self.root / "records" / key[:2] / f"{key[2:]}.json"

    def put(self, data: bytes) -> str:
        """Keep bytes; returns their SHA-256. Keeping the same bytes twice is one object."""
        name = sha256_hex(data)
        path = self.object_path(name)
        if not write_bytes(path, data, replace=False) and sha256_hex(path.read_bytes()) != name:
            # What is there was damaged; the first whole writer wins.
            write_bytes(path, data)
        return name

    def get(self, digest_hex: str) -> bytes:
        """The bytes with this digest; raises ``StoreDamaged`` when they are missing or differ."""
        path = self.object_path(digest_hex)
        try:
            data = path.read_bytes()
        except OSError:
            raise _damaged("is missing", path) from None
        if sha256_hex(data) != digest_hex:
            raise _damaged("does not match its digest", path)
        return data

    def has(self, digest_hex: str) -> bool:
        """Whether there is an object with this digest."""
        return self.object_path(digest_hex).is_file()

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
        """Publish a finished stage: files first, the record last; the first writer wins."""
        named = {name: self.put(data) for name, data in sorted(files.items())}
        return self.keep(Record(key, stage, named, facts))

    def keep(self, record: Record) -> Record:
        """Keep a record whose files are here already; the first writer wins."""
        body = record.body()
        text = canonical({**body, "check": digest("record", body)}) + "\n"
        write_bytes(self.record_path(record.key), text.encode(), replace=False)
        return self.read(record.key) or record

    def read(self, key: str) -> Record | None:
        """The record of a stage, or ``None``; raises ``StoreDamaged`` when it is not whole."""
        if key in self._records:
            return self._records[key]
        path = self.record_path(key)
        try:
            body = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            raise _damaged("cannot be read", path) from None
        check = body.pop("check", None) if isinstance(body, dict) else None
        try:
            whole = check is not None and check == digest("record", body)
        except (ValueError, TypeError):
            whole = False  # NaN or infinity, which no record that was written has
        if not whole or body.get("key") != key or not _plain(body["files"]):
            raise _damaged("does not match its digest", path)
        record = Record(body["key"], body["stage"], body["files"], body["facts"])
        self._records[key] = record
        return record

    def __contains__(self, key: str) -> bool:
        return key in self._records or self.record_path(key).exists()

    def present(self, keys: Iterable[str]) -> set[str]:
        """Those of the keys that have a record; looks once into each folder, not for each key."""
        by_folder: dict[str, set[str]] = {}
        for key in keys:
            by_folder.setdefault(key[:2], set()).add(f"{key[2:]}.json")
        found = set()
        for folder, names in by_folder.items():
            with suppress(FileNotFoundError):
                there = names.intersection(os.listdir(self.root / "records" / folder))
                found |= {folder + name.removesuffix(".json") for name in there}
        return found

    def __iter__(self) -> Iterator[str]:
        """Keys of all records, sorted."""
        for path in sorted((self.root / "records").glob("??/*.json")):
            yield path.parent.name + path.stem

    def objects(self) -> Iterator[str]:
        """Digests of all objects, named by a record or not, sorted."""
        for path in sorted((self.root / "objects").glob("??/*")):
            if not path.name.startswith(".tmp-"):
                yield path.parent.name + path.name

    def materialize(self, record: Record) -> Path:
        """A folder with the record's files under their names, for libraries that want folders.

        Kept under ``work/`` and made anew when its files are not all there.
        """
        folder = self.root / "work" / "folders" / record.key[:32]
        for name, digest_hex in record.files.items():
            path = folder / name
            if not path.exists() or sha256_hex(path.read_bytes()) != digest_hex:
                write_bytes(path, self.get(digest_hex))
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

        path = self.root / "work" / "locks" / f"{key}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path):
            yield

    def note(self, kind: str, name: str, value: Any) -> None:
        """Keep a small JSON note (a study, a cached inspection); the last writer wins."""
        write_json(self.root / "notes" / kind / f"{name}.json", value)

    def noted(self, kind: str, name: str) -> Any:
        """A note, or ``None``."""
        return read_json(self.root / "notes" / kind / f"{name}.json")

    def forget(self, key: str) -> None:
        """Take a damaged or unwanted record out of use; it is kept under ``quarantine/``."""
        self._records.pop(key, None)
        path = self.record_path(key)
        if path.exists():
            aside = self.root / "quarantine" / f"{key}.json"
            aside.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, aside)


def _plain(files: Mapping[str, str]) -> bool:
    """Whether names and digests of files are just that: both become parts of paths."""
    return all(
        re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) and re.fullmatch(r"[0-9a-f]{64}", digest_hex)
        for name, digest_hex in files.items()
    )


def _damaged(what: str, path: Path) -> StoreDamaged:
    return StoreDamaged(
        f"stored file {what}", where=str(path), hint="run `adapterxlt fsck --mend`, then run again"
    )
