"""Bundles: finished stages of studies as one file, to be taken to another store.

A bundle is a tar file of one form alone, so that equal content is equal bytes and other tools can
list it: objects first, then notes, then records, each under the name that it has in a store. What
is read is foreign: every header must be the one that is written here for its name and size, which
leaves no room for links, devices or other places, and every member must match its digest. Bytes
stream, and the first writer wins. Called by the command line only.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from adapterxlt.core.canon import canonical, digest
from adapterxlt.core.errors import RefusedError, StoreDamaged, UsageError
from adapterxlt.store import formats
from adapterxlt.store.files import write_blocks
from adapterxlt.store.store import Record, Store, record_of, text_of

FORM = 1
HEAD = "bundle.json"
#: Bytes of an object, of a note or record, and of a whole bundle; how many members it has.
MOST_OBJECT, MOST_TEXT, MOST_BYTES, MOST_MEMBERS = 8 << 30, 64 << 20, 1 << 40, 2_000_000

_BLOCK, _CHUNK = 512, 1 << 20
_OBJECT = re.compile(r"objects/([0-9a-f]{2})/([0-9a-f]{62})")
_RECORD = re.compile(r"records/([0-9a-f]{2})/([0-9a-f]{62})\.json")
_NOTE = re.compile(r"notes/(adopted|studies)/([0-9a-f]{32}|[0-9a-f]{64})\.json")
#: What comes after what.
_ORDER = ("objects", "notes", "records")


@dataclass(frozen=True)
class Count:
    """What a bundle has, and how much of it was new to a store."""

    records: int = 0
    objects: int = 0
    new_records: int = 0
    new_objects: int = 0


def write(
    store: Store, target: Path, keys: Iterable[str], reads: Iterable[str], studies: Iterable[str]
) -> Count:
    """Write a new file with those of the stages that are finished, in one step.

    Args:
        keys: of stages; unfinished ones are left out.
        reads: digests of objects that are taken along where the store has them.
        studies: names of notes of studies.

    Raises:
        UsageError: there is something already.
        StoreDamaged: something is not whole.
    """
    if os.path.lexists(target):
        raise UsageError("already exists", where=str(target), hint="give another name")
    found = [record for key in sorted(set(keys)) if (record := store.read(key)) is not None]
    objects = {name for record in found for name in record.files.values()}
    objects |= {name for name in reads if store.has(name)}
    notes = [("studies", name) for name in sorted(set(studies))]
    notes += [("adopted", record.key) for record in found]
    texts = {(kind, name): store.noted(kind, name) for kind, name in notes}
    kept = {at: value for at, value in texts.items() if value is not None}
    head = {"adapterxlt bundle": FORM, "members": len(objects) + len(kept) + len(found)}

    def blocks() -> Iterator[bytes]:
        yield from _member(HEAD, canonical(head).encode())
        for name in sorted(objects):
            yield from _member(f"objects/{name[:2]}/{name[2:]}", store.get(name))
        for (kind, name), value in sorted(kept.items(), key=lambda item: item[0]):
            text = canonical(formats.noted(kind, name, value)).encode()
            yield from _member(f"notes/{kind}/{name}.json", text)
        for record in found:
            yield from _member(f"records/{record.key[:2]}/{record.key[2:]}.json", text_of(record))
        yield bytes(2 * _BLOCK)

    if not write_blocks(target.absolute(), blocks(), replace=False):
        raise UsageError("already exists", where=str(target), hint="give another name")
    return Count(len(found), len(objects))


def read(store: Store, source: Path) -> Count:
    """Take over what a bundle has and the store has not; objects first, so that no record is
    without them, also when this is broken off.

    Raises:
        UsageError: no such file.
        RefusedError: a check failed; records are taken over when everything before them has passed.
        StoreDamaged: a record that is in both is not whole in the store.
    """
    try:
        file = source.open("rb")
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(source)) from None
    with file:
        return _Import(store, file, str(source)).run()


@dataclass
class _Import:
    """One bundle on its way into a store."""

    store: Store
    file: BinaryIO
    where: str

    def run(self) -> Count:
        head = self._head()
        left, total, last = head["members"], 0, (-1, "")
        counts = dict.fromkeys(("records", "objects", "new_records", "new_objects"), 0)
        while left:
            name, size = self._header()
            at = (_ORDER.index(name.partition("/")[0]), name) if _known(name) else (-1, name)
            if at[0] < 0 or at <= last:
                raise self._refused(f"{_shown(name)} has no place in a bundle, or not there")
            total += size
            if total > MOST_BYTES:
                raise self._refused(f"more than {MOST_BYTES:,} bytes")
            last, left = at, left - 1
            if match := _OBJECT.fullmatch(name):
                counts["objects"] += 1
                counts["new_objects"] += self._object("".join(match.groups()), size)
            elif match := _RECORD.fullmatch(name):
                counts["records"] += 1
                counts["new_records"] += self._record("".join(match.groups()), self._text(size))
            elif match := _NOTE.fullmatch(name):
                self._note(match[1], match[2], self._text(size))
        if self.file.read(2 * _BLOCK + 1) != bytes(2 * _BLOCK):
            raise self._refused("it goes on after its end, or has none")
        return Count(**counts)

    def _refused(self, what: str) -> RefusedError:
        return RefusedError(what, where=self.where)

    def _head(self) -> Mapping[str, Any]:
        name, size = self._header()
        if name != HEAD or size > 1000:
            raise self._refused("not a bundle")
        with suppress(ValueError):
            head = json.loads(self._text(size))
            number = head.get("adapterxlt bundle") if isinstance(head, dict) else None
            if type(number) is int and number > FORM:
                raise UsageError(
                    f"a newer adapterxlt has made this bundle: form {number}, and this version "
                    f"reads up to {FORM}",
                    where=self.where,
                    hint="upgrade adapterxlt",
                )
            members = head.get("members") if isinstance(head, dict) else None
            if number == FORM and type(members) is int and 0 <= members <= MOST_MEMBERS:
                return dict(head)
        raise self._refused("not a bundle")

    def _header(self) -> tuple[str, int]:
        """Name and size of the next member, whose header is as `_member` writes it."""
        block = self._bytes(_BLOCK)
        try:
            info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
            same = info.size >= 0 and _header_of(info.name, info.size) == block
        except (tarfile.HeaderError, ValueError):
            same = False
        if not same:
            raise self._refused("a member that no bundle has: another kind of file, or damaged")
        most = MOST_OBJECT if info.name.startswith("objects/") else MOST_TEXT
        if info.size > most:
            raise self._refused(f"{_shown(info.name)} has more than {most:,} bytes")
        return info.name, info.size

    def _object(self, name: str, size: int) -> bool:
        """Take an object over unless it is there; whether it was not."""
        sha = sha256()

        def blocks() -> Iterator[bytes]:
            for block in self._blocks(size):
                sha.update(block)
                yield block
            if sha.hexdigest() != name:
                raise self._refused(f"object {name[:12]} does not match its digest")

        # Read also where it is there: what is in the file must be what it says.
        if self.store.keep_whole(name):
            for _ in blocks():
                pass
            return False
        return write_blocks(self.store.object_path(name), blocks(), replace=False)

    def _note(self, kind: str, name: str, text: bytes) -> None:
        try:
            value = formats.value_of(kind, name, json.loads(text))
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise self._refused(f"the note {kind} {name[:12]} is not whole")
        if self.store.noted(kind, name) is None:
            self.store.note(kind, name, value)

    def _record(self, key: str, text: bytes) -> bool:
        """Take a record over unless there is one; whether there was none."""
        record = record_of(key, text)
        if record is None or text != text_of(record) or digest("stage", record.stage) != key:
            raise self._refused(f"record {key[:12]} does not match its digest")
        self._check_files(record)
        if self.store.read(key) is not None:
            return False
        self.store.keep(record)
        try:
            self._check_files(record)
        except RefusedError:
            hint = "is something collected at the same time? read the bundle again"
            what = f"files of record {key[:12]} went while it was read"
            raise StoreDamaged(what, where=str(self.store.root), hint=hint) from None
        return True

    def _check_files(self, record: Record) -> None:
        lacking = [name for name, of in record.files.items() if not self.store.has(of)]
        if lacking:
            what = f"record {record.key[:12]} comes without {', '.join(sorted(lacking))}"
            raise self._refused(what)

    def _text(self, size: int) -> bytes:
        return b"".join(self._blocks(size))

    def _blocks(self, size: int) -> Iterator[bytes]:
        """The bytes of a member, and past what fills its last block."""
        rest = size
        while rest:
            block = self._bytes(min(rest, _CHUNK))
            rest -= len(block)
            yield block
        if any(self._bytes(-size % _BLOCK)):
            raise self._refused("bytes between two members")

    def _bytes(self, count: int) -> bytes:
        data = self.file.read(count)
        if len(data) != count:
            raise self._refused("it is cut off")
        return data


def _known(name: str) -> bool:
    return any(form.fullmatch(name) for form in (_OBJECT, _RECORD, _NOTE))


def _shown(name: str) -> str:
    return repr(name[:100])


def _header_of(name: str, size: int) -> bytes:
    """The header of a member; all of them have the same owner, mode and time."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def _member(name: str, data: bytes) -> Iterator[bytes]:
    if len(data) > (MOST_OBJECT if name.startswith("objects/") else MOST_TEXT):
        raise UsageError(f"{name} has {len(data):,} bytes, more than a bundle takes")
    yield _header_of(name, len(data))
    yield data
    yield bytes(-len(data) % _BLOCK)
