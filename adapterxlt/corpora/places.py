"""Which files, or which split of a hub, a place of a task stands for; nothing is read here.

`corpora.sources` asks for the origin of a task's language and split, and reads what it is told.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from adapterxlt.core.canon import digest
from adapterxlt.core.errors import DataError
from adapterxlt.core.tasks import KINDS, Format, Place, Split, Task
from adapterxlt.corpora import formats
from adapterxlt.corpora.hub import HubSplit, hub_split

#: Shares of a file that is all there is of a language, where nothing is said.
SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the rows of one split are: files (one for each column, or one alone) or a hub's."""

    place: Place
    files: Mapping[str, Path]
    hub: HubSplit | None = None
    divide: Mapping[str, Any] | None = None
    """Shares, seed, of what, and which part of it this is; all of the rows when left out."""
    language: str = ""
    split: str = ""

    @property
    def where(self) -> dict[str, str]:
        """What columns of its rows begin with."""
        name = self.place.name_of(self.language) or self.language
        return {k: v.replace("{language}", name) for k, v in self.place.where.items()}

    @property
    def path(self) -> Path:
        """The file, the first one of several."""
        return next(iter(self.files.values()))

    @property
    def label(self) -> str:
        """As in messages."""
        return self.hub.label if self.hub is not None else str(self.path)

    @property
    def format(self) -> Format:
        """The format of its files."""
        if self.hub is not None:
            return "parquet"
        aligned = isinstance(self.place.files, dict)
        return "text" if aligned else formats.format_of(self.path, self.place.format)

    def digest(self, content: Any) -> str:
        """The digest of its rows, given that of the bytes: just this where it says all."""
        reading = self.place.reading()
        as_it_is = self.hub is not None or self.format == "jsonl"
        if as_it_is and not reading and self.divide is None:
            return str(content)
        how: dict[str, Any] = {"reading": reading, "divide": self.divide, "format": self.format}
        # The same bytes may be rows of several languages, and of several splits.
        how |= {"where": self.where} if self.where else {}
        how |= {"of": [self.language, self.split]} if self.place.from_qa else {}
        return digest("rows", {"bytes": content, **how})


@dataclass(frozen=True, slots=True)
class Finder:
    """Finds what places stand for. ``data`` is the data folder, ``base`` where relative paths of
    `files` start, ``hub`` whether hubs are asked for."""

    data: Path | None
    base: Path
    hub: bool

    def usable(self, place: Place) -> bool:
        """Whether a place may be looked at."""
        if place.hub is not None:
            return self.hub
        return place.folder is None or self.data is not None

    def origins(self, place: Place, task: Task, language: str) -> dict[str, Origin]:
        """What a place has of a task in a language, by our names of splits."""
        found = self._origins(place, task, language)
        return {s: replace(origin, language=language, split=s) for s, origin in found.items()}

    def _origins(self, place: Place, task: Task, language: str) -> dict[str, Origin]:
        name = place.name_of(language)
        if name is None:
            return {}
        named = place.splits
        ours = {s: s if named is None else named.get(s) for s in get_args(Split)}
        theirs = {split: their for split, their in ours.items() if their is not None}
        if theirs.keys() - {"candidates"}:
            _spoken(place, task.name)
        if place.hub is not None:
            found = {
                split: Origin(place, {}, hub_split(place, language, split)) for split in theirs
            }
            # A hub cannot be listed: one of whose splits nothing is said has train.
            wanted = [found["train"]] if named is None else _but_candidates(found)
        elif place.folder is not None:
            there = formats.stems(self.folder(place, name))
            found = {s: _file(place, there[t]) for s, t in theirs.items() if t in there}
            kept = set(theirs.values()) if named is not None else set(there)
            kept -= {theirs.get("candidates", "candidates")}
            wanted = [_file(place, path) for stem, path in there.items() if stem in kept]
        elif any("{split}" in path for path in _templates(place)):
            found = {s: self._filled(place, name, t) for s, t in theirs.items()}
            found = {s: origin for s, origin in found.items() if _there(origin)}
            wanted = _but_candidates(found)
        else:
            origin = self._filled(place, name, "")
            return self._of_one(origin, task, language) if _there(origin) else {}
        if place.divide is None or len(wanted) != 1:
            return found
        aside = {s: origin for s, origin in found.items() if s == "candidates"}
        return {**_divided(wanted[0], place.divide, task, language), **aside}

    def _of_one(self, origin: Origin, task: Task, language: str) -> dict[str, Origin]:
        """The splits of a file that is all there is: shares of it, unless it can be but one."""
        place = origin.place
        if place.divide is not None:
            return _divided(origin, place.divide, task, language)
        named = set(SHARES) if place.splits is None else {str(split) for split in place.splits}
        if place.splits is None and not KINDS[task.kind].trains:
            named = {"test"}
        if len(named) == 1:
            return dict.fromkeys(named, origin)
        shares = {split: share for split, share in SHARES.items() if split in named}
        total = sum(shares.values())
        return _divided(origin, {s: share / total for s, share in shares.items()}, task, language)

    def texts(self, place: Place, language: str) -> dict[str, Origin]:
        """A place's monolingual texts by name, in the order of names."""
        found = self._texts(place, language)
        return {stem: replace(origin, language=language) for stem, origin in found.items()}

    def _texts(self, place: Place, language: str) -> dict[str, Origin]:
        name = place.name_of(language)
        if name is None or not self.usable(place):
            return {}
        _spoken(place, "text")
        if place.hub is not None:
            split = hub_split(place, language, "train")
            return {place.hub.rpartition("/")[2]: Origin(place, {}, split)} if split else {}
        if place.folder is not None:
            there = formats.stems(self.folder(place, name))
            return {stem: _file(place, path) for stem, path in there.items()}
        split_name = "train" if place.splits is None else place.splits.get("train", "train")
        origin = self._filled(place, name, split_name)
        return {origin.path.name.partition(".")[0]: origin} if _there(origin) else {}

    def languages(self, place: Place) -> set[str]:
        """Languages that a place is known to have; of a hub, those it names."""
        if place.hub is not None:
            return set(place.languages or ())
        if place.folder is not None:
            folder = self.folder(place, "")
            there = folder.iterdir() if folder.is_dir() else ()
            names = {path.name for path in there if formats.stems(path)}
        else:
            names = self._named_by_files(place)
        if place.languages is None:
            return names
        return {ours for ours, their in place.languages.items() if their in names}

    def expected(self, place: Place, language: str, split: str) -> str:
        """Where a split would be, for messages."""
        name = place.name_of(language) or language
        their = (place.splits or {}).get(split, split)  # type: ignore[call-overload]
        if place.hub is not None:
            return place.hub
        if place.folder is not None:
            return str(self.folder(place, name) / f"{their}.jsonl")
        files = self._filled(place, name, their).files.values()
        return str(next((path for path in files if not path.is_file()), next(iter(files))))

    def folder(self, place: Place, name: str) -> Path:
        """The folder of a language (``""``: of all) in the data folder."""
        assert self.data is not None and place.folder is not None
        return self.data / place.folder / name

    def _filled(self, place: Place, name: str, split: str) -> Origin:
        """A `files` place with its paths, whether they are there or not."""
        columns = list(place.files) if isinstance(place.files, dict) else [""]
        paths = [t.replace("{split}", split).replace("{language}", name) for t in _templates(place)]
        files = {c: self.base / path for c, path in zip(columns, paths, strict=True)}
        return Origin(place, files)

    def _named_by_files(self, place: Place) -> set[str]:
        """What stands for `{language}` in the names of files that are there."""
        template = _templates(place)[0]
        if "{language}" not in template:
            there = glob.glob(glob.escape(str(self.base / template)).replace("{split}", "*"))
            return set((place.languages or {}).values()) if there else set()
        whole = str(self.base / template)
        named = get_args(Split) if place.splits is None else place.splits.values()
        splits = "|".join(map(re.escape, named))
        first, *rest = re.escape(whole).split(re.escape("{language}"))
        pattern = first + "(?P<code>[^/]+)" + "(?P=code)".join(rest)
        pattern = pattern.replace(re.escape("{split}"), f"(?:{splits})")
        names = glob.escape(whole).replace("{language}", "*").replace("{split}", "*")
        found = (re.fullmatch(pattern, path) for path in glob.glob(names))
        codes = {match["code"] for match in found if match}
        if "{split}" in template:
            return codes
        return {code for code in codes if _there(self._filled(place, code, ""))}


def _templates(place: Place) -> list[str]:
    assert place.files is not None
    return [place.files] if isinstance(place.files, str) else list(place.files.values())


def _spoken(place: Place, what: str) -> None:
    """A path without a language must not serve all of them: all would be scored on one's rows."""
    if place.languages is not None or place.folder is not None:
        return
    of_hub = [place.config or "", *(place.splits or {}).values()]
    texts = [*(_templates(place) if place.files else of_hub), *place.where.values()]
    if not any("{language}" in text for text in texts):
        where = place.hub or _templates(place)[0]
        say = f"{what}: no {{language}} in the place, and no languages are named"
        raise DataError(say, where=where, hint="say whose rows they are, e.g. languages: [en]")


def _file(place: Place, path: Path) -> Origin:
    return Origin(place, {"": path})


def _there(origin: Origin) -> bool:
    return all(path.is_file() for path in origin.files.values())


def _but_candidates(found: Mapping[str, Origin]) -> list[Origin]:
    return [origin for split, origin in found.items() if split != "candidates"]


def _divided(
    origin: Origin, shares: Mapping[Any, float], task: Task, language: str
) -> dict[str, Origin]:
    how = {"shares": dict(shares), "seed": origin.place.divide_seed, "of": [task.name, language]}
    return {split: replace(origin, divide={**how, "part": split}) for split in shares}
