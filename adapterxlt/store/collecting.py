"""Garbage collection: what no study needs goes, and nothing that a run needs or has just written.

What stays begins with keys of stages, finished or not, and what their stages name. What is younger
than a time of grace stays too: a run touches what it finds, writes objects before the record that
names them, and looks once more afterwards. Called by the command line only.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapterxlt.core.canon import canonical
from adapterxlt.core.errors import StoreDamaged
from adapterxlt.store.files import clear, is_plain
from adapterxlt.store.store import Store

#: Hours; what was used or written later is not looked at.
GRACE = 24.0
_DIGESTS = re.compile(r'"([0-9a-f]{64})"')


@dataclass(frozen=True)
class Roots:
    """What stays with all that it needs."""

    keys: frozenset[str]
    """Of stages, finished or not."""
    reads: frozenset[str]
    """Digests that the stages name: of data, and of adapters that are adopted."""


@dataclass(frozen=True)
class Item:
    """Something that goes."""

    kind: str
    """`study`, `record`, `note`, `object`, `scratch`, `rest`, `quarantine`."""
    path: Path
    size: int
    """Bytes, of a folder those of all files in it."""


def named_in(stages: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Every digest that stages name, whatever it is of."""
    return frozenset(name for stage in stages for name in _DIGESTS.findall(canonical(stage)))


def texts_of(note: Any, field: str) -> set[str]:
    """The texts that a list in the note of a study has."""
    found = note.get(field) if isinstance(note, dict) else None
    return {text for text in found if isinstance(text, str)} if isinstance(found, list) else set()


def collect(
    store: Store, roots: Roots | None = None, *, grace: float = GRACE, dry: bool = False
) -> list[Item]:
    """Remove what neither the roots need nor anything that is younger than ``grace`` hours.

    Args:
        roots: without them every study that was ever run against the store is one. With them a
            study that runs, or was begun within the time of grace, is one too.
        dry: remove nothing.

    Returns:
        What went, or with ``dry`` would go.

    Raises:
        StoreDamaged: a record or the note of a study is not whole, so that what it needs is not
            known; nothing was removed.
    """
    _give_back(store)
    gone = _Collector(store, time.time() - grace * 3600, dry)
    keys, reads = gone.roots(roots)
    live = gone.records(keys)
    reads |= named_in(record.stage for record in live.values())
    gone.objects(live.keys() | keys, reads)
    gone.scratch(live.keys(), keys)
    return gone.items


@dataclass
class _Collector:
    """One collection: what is older than ``before``, seconds since 1970, may go."""

    store: Store
    before: float
    dry: bool
    items: list[Item] = field(default_factory=list)

    def roots(self, given: Roots | None) -> tuple[set[str], set[str]]:
        """Keys and digests that stay; notes of studies that are not among them go."""
        keys = set(given.keys) if given else set()
        reads = set(given.reads) if given else set()
        for name in self.store.notes("studies"):
            path, note = self.store.note_path("studies", name), self.store.noted("studies", name)
            if note is None:
                hint = "run `adapterxlt fsck --mend`, and that study again before collecting"
                raise StoreDamaged("the note of a study is not whole", where=str(path), hint=hint)
            own = texts_of(note, "keys")
            if given is None or own <= given.keys or self._young(path) or self._busy(own):
                keys |= own
                reads |= texts_of(note, "reads")
            else:
                self._take("study", path)
        return keys, reads

    def _busy(self, keys: set[str]) -> bool:
        """Whether one of the stages is being computed."""
        locks = self.store.root / "work" / "locks"
        names = os.listdir(locks) if locks.is_dir() else ()
        there = {name.removesuffix(".lock") for name in names}
        return any(self.store.busy(key) for key in there & keys)

    def records(self, keys: set[str]) -> dict[str, Any]:
        """The records that stay, by key: of the keys, young ones, and what those were made from."""
        every = {key: self.store.read(key) for key in self.store}
        found = {key: record for key, record in every.items() if record is not None}
        todo = [k for k in found if k in keys or self._young(self.store.record_path(k))]
        live: dict[str, Any] = {}
        while todo:
            key = todo.pop()
            if key not in live:
                live[key] = found[key]
                todo += [k for k in found[key].stage.get("inputs", {}).values() if k in found]
        for key in found.keys() - live.keys():
            self._take("record", self.store.record_path(key), f"records-{key}")
            if not self.dry:
                self.store.drop(key)
        return live

    def objects(self, keys: set[str], reads: set[str]) -> None:
        """Notes of what does not stay, and objects that nothing names."""
        named = set(reads)
        for kind in ("adopted", "encoded", "unpickled"):
            for name in self.store.notes(kind):
                path, note = self.store.note_path(kind, name), self.store.noted(kind, name)
                made_of = name if kind != "encoded" else (note or {}).get("of")
                wanted = keys if kind == "adopted" else reads
                if made_of in wanted or self._young(path):
                    named.add(str((note or {}).get("object")))
                else:
                    self._take("note", path)
        for name in self.store.notes("lost"):
            path = self.store.note_path("lost", name)
            if (name in self.store or name not in keys) and not self._young(path):
                self._take("note", path)
        going = {item.path for item in self.items}
        # Also of records that were published meanwhile.
        for key in self.store:
            record = self.store.read(key)
            if record is not None and self.store.record_path(key) not in going:
                named |= set(record.files.values())
        for digest_hex in self.store.objects():
            path = self.store.object_path(digest_hex)
            if digest_hex not in named and not self._young(path):
                self._take("object", path, f"objects-{digest_hex}")

    def scratch(self, live: Iterable[str], keys: set[str]) -> None:
        """Scratch of stages that are finished or that no study has, and what was left behind."""
        work, finished = self.store.root / "work", set(live)
        for path in _in(work / "stages"):
            done = path.name in finished or path.name not in keys
            if done and not self._young(path) and not self.store.busy(path.name):
                self._take("scratch", path)
        used = {key[:32] for key in finished}
        for path in _in(work / "folders"):
            if path.name not in used and not self._young(path):
                self._take("scratch", path)
        for path in _in(work / "locks"):
            if not self._young(path) and not self.store.busy(path.name.removesuffix(".lock")):
                self._take("scratch", path)
        for top in ("records", "objects", "notes", "work"):
            for path in (self.store.root / top).rglob(".tmp-*"):
                if not self._young(path):
                    self._take("rest", path)
        for path in _in(self.store.root / "quarantine"):
            if not self._young(path):
                self._take("quarantine", path)

    def _young(self, path: Path) -> bool:
        """Whether something was used or written within the time of grace; of a folder, anything
        in it. What is gone is: it is somebody else's affair."""
        try:
            if path.lstat().st_mtime >= self.before:
                return True
            return not path.is_symlink() and any(map(self._young, _in(path)))
        except OSError:
            return True

    def _take(self, kind: str, path: Path, name: str = "") -> None:
        try:
            item = Item(kind, path, _size(path))
            if not self.dry and not self._removed(path, name):
                return
        except FileNotFoundError:
            return
        self.items.append(item)

    def _removed(self, path: Path, name: str) -> bool:
        """Remove something, unless somebody has begun to use it meanwhile."""
        if not name:
            clear(path)
            return True
        aside = _gone(self.store) / name
        aside.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, aside)
        if self._young(aside):
            _link_back(aside, path)
            return False
        clear(aside)
        return True


def _gone(store: Store) -> Path:
    """Where something is between being looked at for the last time and being removed."""
    return store.root / "work" / "gone"


def _give_back(store: Store) -> None:
    """Put back what a collection that was killed had not removed yet."""
    for aside in _in(_gone(store)):
        kind, _, name = aside.name.partition("-")
        path = store.record_path(name) if kind == "records" else store.object_path(name)
        _link_back(aside, path)


def _link_back(aside: Path, path: Path) -> None:
    """Put a file back, unless there is one by now."""
    if is_plain(aside):
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.link(aside, path)
    clear(aside)


def _in(folder: Path) -> Iterator[Path]:
    """What is in a folder; nothing where there is none."""
    return iter(sorted(folder.iterdir()) if folder.is_dir() else ())


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(one.lstat().st_size for one in path.rglob("*") if is_plain(one))
