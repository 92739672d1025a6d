"""Corpora: rows of a task, language and split, checked, with the digest of their content.

A `Corpus` reads the places that tasks name: a data folder, files of a recipe's own, what was
fetched from a hub. A `LabCorpus` has the laboratory's languages. Both serve planning (`info`) and
workers (`rows`, `text`). Nothing is written but notes about files already checked, through the
mapping given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from adapterxlt.core.canon import digest, sha256_hex, shuffled
from adapterxlt.core.errors import DataError, UsageError, did_you_mean
from adapterxlt.core.plan import DataInfo
from adapterxlt.core.tasks import KINDS, TASKS, Place, Task
from adapterxlt.corpora import formats, unpacking
from adapterxlt.corpora.formats import Row
from adapterxlt.corpora.hub import HubSplit, Shelf
from adapterxlt.corpora.laboratory import LabCorpus
from adapterxlt.corpora.places import Finder, Origin
from adapterxlt.corpora.rows import (
    characters,
    check,
    check_text,
    infer_labels,
    kept,
    nearest,
    numbered,
    parts,
)
from adapterxlt.corpora.sentences import QA, ranked

__all__ = ["Corpus", "FolderCorpus", "LabCorpus", "Notes"]

#: Characters per sub-word, for estimates only.
CHARACTERS_PER_TOKEN = 3.5
#: What is assumed of a hub's split before it is fetched: rows where none are declared; sub-words.
HUB_ROWS, HUB_TOKENS = 1000, 40.0
FETCH = "run adapterxlt fetch RECIPE"


#: Checks rows and brings them into form, or raises.
Judge = Callable[[list[Row]], list[Row]]


class Notes(Protocol):
    """Small remembered values; a store is one."""

    def note(self, kind: str, name: str, value: Any) -> None: ...
    def noted(self, kind: str, name: str) -> Any: ...


class Corpus:
    """The places that tasks name.

    Args:
        tasks: the tasks there are, by name.
        data: data folder, for `folder` places and text in ``mono``; without it none is looked at.
        base: what relative paths of `files` start from.
        source: the language whose training data tell the labels of a task that names none.
        notes: remembers checked files by path, size and time, so planning twice reads them once.
        shelf: where fetched splits of hubs lie.
        text: places of monolingual text, instead of the data folder's.
        hub: whether hubs are looked at.

    Raises:
        UsageError: the data folder is not there.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task],
        *,
        data: Path | None,
        base: Path,
        source: str = "",
        notes: Notes | None = None,
        shelf: Shelf | None = None,
        text: tuple[Place, ...] = (),
        hub: bool = False,
    ) -> None:
        if data is not None and not Path(data).is_dir():
            raise UsageError("no such data folder", where=str(data), hint="see --data")
        self.tasks, self.source, self.notes, self.shelf = tasks, source, notes, shelf
        data = Path(data).absolute() if data is not None else None
        self.name = data.name if data is not None else "hub" if hub else "files"
        self.finder = Finder(data, Path(base).absolute(), hub)
        self.text_places = text or ((Place(folder="mono"),) if data is not None else ())
        self._rows: dict[tuple[str, str, str], list[Row]] = {}
        # A plan asks the same questions for each of thousands of cells.
        self._tasks: dict[str, Task] = {}
        self._infos: dict[tuple[str, ...], DataInfo] = {}
        self._origins: dict[tuple[str, str], list[tuple[Place, dict[str, Origin]]]] = {}

    def task(self, name: str) -> Task:
        """The task with its labels; those of the source's training data where it names none."""
        if name not in self._tasks:
            task = self._declared(name)
            if KINDS[task.kind].labelled and not task.labels:
                labels = numbered(task).labels if task.kind == "choice" else self._labels(task)
                task = task.model_copy(update={"labels": labels})
            self._tasks[name] = task
        return self._tasks[name]

    def rows(self, task: str, language: str, split: str) -> Sequence[Row]:
        """Checked rows of a split, in file order; raises ``DataError`` naming file and row."""
        at = (task, language, split)
        if at not in self._rows:
            origin = self._origin(task, language, split)
            self._rows[at] = self._read(origin, self._check(origin, self.task(task), split))[0]
        return self._rows[at]

    def info(self, task: str, language: str, split: str) -> DataInfo:
        """Digest and size of a split; of a hub's without looking whether it was fetched."""
        at = (task, language, split)
        if at not in self._infos:
            origin = self._origin(task, language, split)
            if origin.hub is not None:
                self._infos[at] = _hub_info(origin, split)
            else:
                own = self.task(task)
                judge, what = self._check(origin, own, split), {**_meaning(own), "split": split}
                self._infos[at] = self._inspect(origin, judge, what, partial(characters, own))
        return self._infos[at]

    def has(self, task: str, language: str, split: str) -> bool:
        """Whether a place that may be looked at has a split of a language."""
        places = self._declared(task).places
        if not any(self.finder.usable(place) for place in places):
            return False
        return any(split in found for _, found in self._found(task, language))

    def languages(self, task: str) -> list[str]:
        """Languages that a task's places are known to have, by code."""
        own = self._declared(task)
        places = [place for place in own.places if self.finder.usable(place)]
        found = {code for place in places for code in self.finder.languages(place)}
        if any(place.hub is not None and place.languages is None for place in places):
            found |= set(own.languages or ())
        return sorted(found)

    def shots_split(self, task: str, language: str) -> str:
        """Which split shots come from: what the task says, else train, else validation."""
        wanted = self._declared(task).shots
        if wanted is not None:
            return wanted
        for split in ("train", "validation"):
            if self.has(task, language, split):
                return split
        raise self._missing(task, language, "train", "train or validation")

    def wanted(self, task: str, language: str, split: str) -> tuple[HubSplit, ...]:
        """The splits of a hub that `rows` reads, which have to be fetched; none where files do.

        The task and the split of monolingual text are both called ``text``.
        """
        if (task, split) == ("text", "text"):
            return tuple(o.hub for o in self._texts(language, None) if o.hub is not None)
        hub = self._origin(task, language, split).hub
        return () if hub is None else (hub,)

    def labels_from(self, task: str) -> tuple[HubSplit, ...]:
        """The splits of a hub that tell the labels of a task that names none; nothing where that
        cannot be said: `task` says why."""
        own = self._declared(task)
        if own.labels or own.kind == "choice" or not KINDS[own.kind].labelled or not self.source:
            return ()
        try:
            return self.wanted(task, self.source, "train")
        except DataError:
            return ()

    def text(self, language: str, texts: tuple[str, ...] | None) -> Sequence[str]:
        """Lines of monolingual text, the files in order of their names."""
        lines = []
        for origin in self._texts(language, texts):
            rows, _ = self._read(origin, partial(check_text, origin.label))
            lines += [row["text"] for row in rows]
        return lines

    def text_info(self, language: str, texts: tuple[str, ...] | None) -> DataInfo:
        infos = [self._text_info(origin) for origin in self._texts(language, texts)]
        rows = sum(info.rows for info in infos)
        tokens = sum(info.rows * info.tokens_per_row for info in infos) / max(1, rows)
        exact = all(info.exact for info in infos)
        return DataInfo(digest("texts", [info.digest for info in infos]), rows, tokens, exact)

    # --- finding -------------------------------------------------------------------------------

    def _declared(self, name: str) -> Task:
        """The task as written, under the name it has here."""
        if name not in self.tasks:
            raise DataError(f"unknown task {name!r}", hint=did_you_mean(name, self.tasks))
        task = self.tasks[name]
        return task if task.name == name else task.model_copy(update={"name": name})

    def _found(self, name: str, language: str) -> list[tuple[Place, dict[str, Origin]]]:
        """What each place that may be looked at has of a language, in order."""
        if (name, language) not in self._origins:
            task = self._declared(name)
            places = [place for place in task.places if self.finder.usable(place)]
            if not places:
                ways = ["give --data DIR"] if any(p.folder for p in task.places) else []
                ways += ["say data: hub"] if any(p.hub for p in task.places) else []
                hint = "data: lab" if task.lab else ", or ".join(ways) or "the task has no places"
                raise DataError(f"{name}: nowhere to read it from", hint=hint)
            found = [(place, self.finder.origins(place, task, language)) for place in places]
            self._origins[name, language] = found
        return self._origins[name, language]

    def _origin(self, name: str, language: str, split: str) -> Origin:
        """What is read: the first place's that has the split."""
        for _, found in self._found(name, language):
            if split in found:
                return found[split]
        raise self._missing(name, language, split, split)

    def _missing(self, name: str, language: str, split: str, say: str) -> DataError:
        """The error of a split that is not there: the splits that are, or the languages."""
        found = self._found(name, language)
        have = [f"{_place(p, language)} has {', '.join(sorted(o))}" for p, o in found if o]
        known = self.languages(name)
        if have:
            hint = "; ".join(have)
        elif language in known:
            hint = "its files have other names: say splits, e.g. {validation: dev}"
        else:
            hint = self._elsewhere([place for place, _ in found])
            hint = f"languages with {name}: {nearest(language, known)}" if known else hint
        where = self.finder.expected(found[0][0], language, split)
        return DataError(f"{name}: no {say} data for {language!r}", where=where, hint=hint)

    @staticmethod
    def _elsewhere(places: Sequence[Place]) -> str:
        """What to look at when places have nothing at all."""
        if not places:
            return "see --data, or language_adapters.places in the recipe"
        return "see --data" if any(place.folder for place in places) else "see files in the recipe"

    def _texts(self, language: str, texts: tuple[str, ...] | None) -> list[Origin]:
        places = [place for place in self.text_places if self.finder.usable(place)]
        every = (self.finder.texts(place, language) for place in places)
        found = next((found for found in every if found), {})
        where = ""
        if places:
            where = self.finder.expected(places[0], language, "train")
            where = str(Path(where).parent) if places[0].folder else where
        if texts is None:
            if found:
                return list(found.values())
            known = sorted({code for place in places for code in self.finder.languages(place)})
            raise DataError(
                f"no monolingual text for {language!r}, which its language adapter needs",
                where=where,
                hint=f"languages with text: {nearest(language, known)}"
                if known
                else self._elsewhere(self.text_places),
            )
        chosen = [found[name] for name in texts if name in found]
        if not chosen:
            raise DataError(
                f"none of the texts {', '.join(texts)} for {language!r}",
                where=where,
                hint=f"there is {', '.join(found)}" if found else "there is none at all",
            )
        return chosen

    # --- reading -------------------------------------------------------------------------------

    def _read(self, origin: Origin, judge: Judge) -> tuple[list[Row], str]:
        """Checked rows of an origin, and the digest of what they are made from."""
        if origin.hub is not None:
            if self.shelf is None or not self.shelf.has(origin.hub):
                raise DataError(f"{origin.hub.label} has not been fetched", hint=FETCH)
            rows = formats.read(self.shelf.path(origin.hub), "parquet")
            content: Any = origin.hub.digest
        else:
            data = {column: unpacking.content(path) for column, path in origin.files.items()}
            content = {column: sha256_hex(part) for column, part in data.items()}
            if "" in data:
                rows, content = formats.parse(origin.path, data[""], origin.format), content[""]
            else:
                rows = formats.aligned(origin.files, data)
        rows = formats.renamed(kept(origin.label, rows, origin.where), origin.place.columns)
        return judge(_part(origin, rows)), origin.digest(content)

    def _check(self, origin: Origin, task: Task, split: str) -> Judge:
        place, cells = origin.place, origin.format in formats.CELLS
        how: dict[str, Any] = {"cells": cells, "realign": place.realign, "relabel": place.relabel}
        how |= {"columns": place.columns}
        if task.kind == "ranking" and place.from_qa:
            return lambda rows: ranked(
                origin.label, check(origin.label, QA, rows, split, **how), split, origin.language
            )
        return lambda rows: check(origin.label, task, rows, split, **how)

    def _labels(self, task: Task) -> tuple[str, ...]:
        """The labels of the source's training data."""
        if not self.source:
            raise DataError(f"{task.name} names no labels", hint="declare labels: [...]")
        origin = self._origin(task.name, self.source, "train")
        if origin.hub is not None and not (self.shelf and self.shelf.has(origin.hub)):
            what = f"{task.name} names no labels, and {origin.hub.label} has not been fetched"
            raise DataError(what, hint=f"declare labels: [...], or {FETCH}")
        name = self._note_name(origin, {**_meaning(task), "of": "labels"})
        known = self.notes.noted("files", name) if self.notes is not None else None
        if known is not None:
            return tuple(known["labels"])
        labels = infer_labels(task, self._read(origin, self._check(origin, task, "train"))[0])
        if self.notes is not None:
            self.notes.note("files", name, {"labels": list(labels)})
        return labels

    def _text_info(self, origin: Origin) -> DataInfo:
        if origin.hub is not None:
            return _hub_info(origin, "train")
        at = ("", *(str(path) for path in origin.files.values()))
        if at not in self._infos:
            judge, size = partial(check_text, origin.label), _text_length
            self._infos[at] = self._inspect(origin, judge, {"of": "text"}, size)
        return self._infos[at]

    def _inspect(
        self,
        origin: Origin,
        judge: Judge,
        what: Mapping[str, Any],
        size: Callable[[Row], int],
    ) -> DataInfo:
        """Digest and size of files, from the notes where they were checked for the same before."""
        name = self._note_name(origin, what)
        known = self.notes.noted("files", name) if self.notes is not None else None
        if known is not None:
            return DataInfo(known["digest"], known["rows"], known["tokens_per_row"])
        rows, content = self._read(origin, judge)
        tokens = 2 + sum(size(row) for row in rows) / CHARACTERS_PER_TOKEN / len(rows)
        if self.notes is not None:
            value = {"digest": content, "rows": len(rows), "tokens_per_row": tokens}
            self.notes.note("files", name, value)
        return DataInfo(content, len(rows), tokens)

    def _note_name(self, origin: Origin, what: Mapping[str, Any]) -> str:
        """Changes with the files, with how they are read and with what is asked of them."""
        try:
            status = [(str(path), path.stat()) for path in origin.files.values()]
        except OSError as error:
            raise DataError(f"cannot be read: {error}", where=origin.label) from None
        files = [[path, of.st_size, of.st_mtime_ns] for path, of in status]
        content = origin.hub.digest if origin.hub is not None else files
        return digest("file", [origin.digest(digest("as it is", content)), dict(what)])


class FolderCorpus(Corpus):
    """The shipped tasks in a data folder: ``<task>/<language>/<split>.jsonl.gz``."""

    def __init__(self, folder: Path, notes: Notes | None = None) -> None:
        super().__init__(TASKS, data=folder, base=Path(folder), notes=notes)


def _place(place: Place, language: str) -> str:
    if place.hub is not None:
        return place.hub
    name = place.name_of(language)
    return f"{place.folder}/{name}" if place.folder else "the task's own place"


def _part(origin: Origin, rows: list[Row]) -> list[Row]:
    """The part of a divided split that an origin stands for, in the order of the draw."""
    if origin.divide is None or not rows:
        return rows
    how = origin.divide
    order = shuffled(len(rows), how["seed"], "divide", *how["of"])
    chosen = parts(len(rows), how["shares"])[how["part"]]
    if not chosen:
        what = f"{len(rows)} rows are too few to have a share for {how['part']}"
        raise DataError(what, where=origin.label, hint="change divide, or add rows")
    return [rows[order[i]] for i in chosen]


def _hub_info(origin: Origin, split: str) -> DataInfo:
    """What is known of a hub's split without it."""
    assert origin.hub is not None
    sizes: Mapping[Any, int] = origin.place.rows
    if origin.divide is not None:
        # The place tells the size of what is divided, under our name of that split.
        named = (split for split in origin.place.splits or () if split != "candidates")
        whole = next(named, "train")
        rows = sizes.get(whole, HUB_ROWS)
        share = parts(rows, origin.divide["shares"])[split]
        return DataInfo(origin.digest(origin.hub.digest), len(share), HUB_TOKENS, whole in sizes)
    rows = sizes.get(split, HUB_ROWS)
    return DataInfo(origin.digest(origin.hub.digest), rows, HUB_TOKENS, split in sizes)


def _text_length(row: Row) -> int:
    return len(row["text"])


def _meaning(task: Task) -> dict[str, Any]:
    """What checks depend on."""
    own = {"kind": task.kind, "columns": list(task.columns), "labels": list(task.labels)}
    return {**own, "options": task.options}
