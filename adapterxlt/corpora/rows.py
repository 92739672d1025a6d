"""Rows as a task wants them: every kind's columns checked and brought into one form.

`check` is the only judge of rows; encoders and scorers rely on what it lets through. Pure functions
of rows; files are read in `corpora.formats`, and `corpora.sources` says which.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, get_args

from adapterxlt.core.errors import DataError, did_you_mean
from adapterxlt.core.showing import shortened
from adapterxlt.core.tasks import Split, Task
from adapterxlt.corpora.formats import Row

_SHOWN = 40


class _Wrong(Exception):
    """A fault of one row: what, and a hint."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what, self.hint = what, hint


def check(
    where: str,
    task: Task,
    rows: list[Row],
    split: str,
    *,
    relabel: Mapping[str, str] | None = None,
    cells: bool = False,
    realign: bool = False,
    columns: Mapping[str, str] | None = None,
) -> list[Row]:
    """The rows of a split, each brought into its kind's form (in place).

    tagging: lists of words and of tags; classification: texts and a label, a string; choice: the
    label is the alternative's number from 0, or the task's name for it, as a string; qa:
    ``answers`` has lists ``text`` and ``answer_start``; ranking: ``relevant`` (and ``answers`` of a
    candidate, where it has any) is a list of ids, and ids are strings.

    Args:
        where: the file, for messages.
        task: columns, kind and labels; labels are not compared where the task has none yet.
        rows: as read, with their line under ``"#"``.
        split: ours; ranking has other columns in each, and train must have answers.
        relabel: labels that are read as others.
        cells: whether lists may be written as strings, as in csv.
        realign: whether an answer that is not where it should be is taken from where it is, before
            that place or else after.
        columns: what the file calls columns that were renamed, for messages.

    Raises:
        DataError: at the first row that is not what the task says, with its line.
    """
    if not rows:
        raise DataError("the split is empty", where=where)
    checker = _Checker(task, split, relabel or {}, cells, realign, columns or {})
    for row in rows:
        try:
            checker.check(row)
        except _Wrong as fault:
            raise DataError(fault.what, where=f"{where}:{row['#']}", hint=fault.hint) from None
    return rows


def check_text(where: str, rows: list[Row]) -> list[Row]:
    """Rows of monolingual text, each with a string ``text``."""
    if not rows:
        raise DataError("the text is empty", where=where)
    for row in rows:
        if not isinstance(row.get("text"), str):
            raise DataError("a row of text has a string 'text'", where=f"{where}:{row['#']}")
    return rows


class _Checker:
    def __init__(
        self,
        task: Task,
        split: str,
        relabel: Mapping[str, str],
        cells: bool,
        realign: bool,
        columns: Mapping[str, str],
    ) -> None:
        self.task, self.split, self.relabel = task, split, relabel
        self.cells, self.realign, self.columns = cells, realign, columns
        self.known = frozenset(task.labels)
        self.choices: tuple[str, ...] = tuple(task.options.get("choices", ()))
        self.numbers = (
            (task.labels or numbered(task).labels)[: len(self.choices)] if self.choices else ()
        )
        self.questions: Mapping[str, str] = task.options.get("questions") or {}
        self.ids: set[str] = set()
        kinds: dict[str, Callable[[Row], None]] = {
            "tagging": self._tagging,
            "choice": self._choice,
            "qa": self._qa,
            "retrieval": self._retrieval,
            "ranking": self._ranking,
        }
        self.kind = kinds.get(task.kind, self._classification)
        self.needed = task.columns
        if task.kind == "ranking" and split == "test":
            self.needed = ("id", task.inputs[0], "relevant")
        elif task.kind == "ranking" and split == "candidates":
            self.needed = ("id", "text")

    def check(self, row: Row) -> None:
        for column in self.needed:
            if column not in row:
                have = [self.columns.get(name, name) for name in row if name != "#"]
                their = self.columns.get(column, column)
                near = did_you_mean(their, have)
                hint = f"there is {', '.join(have)}" if have else "the row is empty"
                hint += f"; {near}" if near.startswith("did") else ""
                ours = f" for {column!r}" if their != column else ""
                raise _Wrong(f"no column {their!r}{ours}", hint)
        self.kind(row)

    # --- kinds with labels ---------------------------------------------------------------------

    def _tagging(self, row: Row) -> None:
        column = self.task.inputs[0]
        tokens, labels = self._strings(row[column]), self._strings(row[self.task.label])
        if tokens is None or labels is None:
            raise _Wrong("tokens and labels are lists of strings")
        if len(tokens) != len(labels):
            raise _Wrong(f"{len(tokens)} tokens but {len(labels)} labels")
        if self.relabel:
            labels = [self.relabel.get(label, label) for label in labels]
        row[column], row[self.task.label] = tokens, labels
        if self.known:
            for label in labels:
                if label not in self.known:
                    raise self._outside(label)

    def _classification(self, row: Row) -> None:
        self._texts(row, self.task.inputs)
        label = self._label(row)
        if isinstance(label, str) and (label in self.known or not self.known):
            row[self.task.label] = label
        else:
            raise self._outside(row[self.task.label])

    def _choice(self, row: Row) -> None:
        self._texts(row, (*self.task.inputs, *self.choices))
        for column in self.task.inputs[1:] if self.questions else ():
            if row[column] not in self.questions:
                hint = did_you_mean(row[column], self.questions)
                raise _Wrong(f"{column} {_shown(row[column])} is none of the task's", hint)
        label = self._label(row)
        if label not in self.numbers:
            given = _value(row[self.task.label])
            what = f"label {given} is no number of one of {len(self.choices)} choices"
            raise _Wrong(what, f"they are {', '.join(self.numbers)}")
        row[self.task.label] = label

    def _label(self, row: Row) -> Any:
        """A row's label, a number as its decimal string where that is a label."""
        label = row[self.task.label]
        if isinstance(label, int) and not isinstance(label, bool):
            text = self.relabel.get(str(label), str(label))
            # A task of named labels must not take numbers for them.
            return text if not self.known or text in self.known else label
        return self.relabel.get(label, label) if isinstance(label, str) else label

    def _outside(self, label: Any) -> _Wrong:
        what = f"label {_value(label)} is outside the label set of {self.task.name}"
        return _Wrong(what, did_you_mean(str(label), self.known) if _is_word(label) else "")

    # --- kinds without labels ------------------------------------------------------------------

    def _qa(self, row: Row) -> None:
        self._texts(row, self.task.inputs)
        context = row[self.task.inputs[0]]
        texts, starts = self._answers(row[self.task.label], context)
        if len(texts) != len(starts):
            raise _Wrong(f"{len(texts)} answers but {len(starts)} places where they start")
        if not texts and self.split == "train":
            raise _Wrong("no answer, which a row of train needs")
        for i, (text, start) in enumerate(zip(texts, starts, strict=True)):
            if not isinstance(text, str) or not text:
                raise _Wrong(f"answer {_value(text)} is not text")
            if not isinstance(start, int) or isinstance(start, bool):
                raise _Wrong(f"answer_start {_value(start)} is not a whole number")
            there = context[start : start + len(text)] if start >= 0 else ""
            if there != text and self.realign:
                before = context.rfind(text, 0, max(start, 0) + len(text))
                starts[i] = before if before >= 0 else context.find(text, max(start, 0))
            if there != text and (not self.realign or starts[i] < 0):
                what = f"answer {_shown(text)} is not at {start} of the context, which has"
                raise _Wrong(f"{what} {_shown(there)} there", _nearest(context, text, start))
        row[self.task.label] = {"text": texts, "answer_start": starts}

    def _answers(self, given: Any, context: str) -> tuple[list[Any], list[Any]]:
        """Texts and where they start, of any of the forms that data sets have."""
        if self.cells and isinstance(given, str):
            if not given:
                return [], []
            given = _json(given, given)
        if isinstance(given, str):
            given = [given]
        if isinstance(given, dict) and {"text", "answer_start"} <= given.keys():
            texts, starts = given["text"], given["answer_start"]
            if isinstance(texts, list) and isinstance(starts, list):
                return list(texts), list(starts)
            if isinstance(texts, str):
                return [texts], [starts]
        if isinstance(given, list) and all(isinstance(item, str) for item in given):
            starts = [context.find(text) for text in given]
            for text, start in zip(given, starts, strict=True):
                if start < 0:
                    raise _Wrong(f"answer {_shown(text)} is nowhere in the context")
            return list(given), starts
        if isinstance(given, list) and all(
            isinstance(item, dict) and {"text", "answer_start"} <= item.keys() for item in given
        ):
            return [item["text"] for item in given], [item["answer_start"] for item in given]
        what = f"column {self.task.label!r} has no answers"
        raise _Wrong(what, "{text: [...], answer_start: [...]}, or text that is in the context")

    def _retrieval(self, row: Row) -> None:
        self._filled(row, (*self.task.inputs, self.task.label))

    def _ranking(self, row: Row) -> None:
        if self.split == "candidates":
            row["id"] = self._id(row["id"])
            if row["id"] in self.ids:
                raise _Wrong(f"candidate {_shown(row['id'])} is there twice", "ids are unique")
            self.ids.add(row["id"])
            self._filled(row, ("text",))
            if "answers" in row:
                row["answers"] = self._list_of_ids(row["answers"], "answers")
            return
        self._filled(row, self.task.inputs)
        if self.split != "test":
            self._filled(row, (self.task.label,))
            return
        row["id"] = self._id(row["id"])
        row["relevant"] = self._list_of_ids(row["relevant"], "relevant")
        if not row["relevant"]:
            raise _Wrong("no candidate is relevant", "'relevant' lists ids of candidates")

    def _list_of_ids(self, given: Any, column: str) -> list[str]:
        if self.cells and isinstance(given, str):
            found = _json(given, None)
            given = found if isinstance(found, list) else given.split()
        if not isinstance(given, list):
            raise _Wrong(f"{column!r} is no list of ids")
        return list(dict.fromkeys(self._id(item) for item in given))

    # --- values --------------------------------------------------------------------------------

    def _texts(self, row: Row, columns: Sequence[str]) -> None:
        for column in columns:
            if not isinstance(row[column], str):
                raise _Wrong(f"column {column!r} is not text")

    def _filled(self, row: Row, columns: Sequence[str]) -> None:
        self._texts(row, columns)
        for column in columns:
            if not row[column].strip():
                raise _Wrong(f"column {column!r} is empty")

    def _id(self, value: Any) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str) or not value:
            raise _Wrong(f"id {_value(value)} is not text")
        return value

    def _strings(self, value: Any) -> list[str] | None:
        if self.cells and isinstance(value, str):
            value = (
                _json(value, None) if value.startswith("[") else re.split(" +", value.strip(" "))
            )
        is_list = isinstance(value, list) and all(isinstance(item, str) for item in value)
        return list(value) if is_list else None


def numbered(task: Task) -> Task:
    """A task of choice, whose labels are the numbers of the alternatives."""
    return task.model_copy(update={"labels": tuple(map(str, range(len(task.options["choices"]))))})


def kept(where: str, rows: list[Row], beginnings: Mapping[str, str]) -> list[Row]:
    """The rows whose columns begin as they should, of a file that is of several languages.

    Raises:
        DataError: there is none, or a row without such a column.
    """
    for column, beginning in beginnings.items():
        found = []
        for row in rows:
            if not isinstance(row.get(column), str):
                have = ", ".join(name for name in row if name != "#")
                what = f"no text in a column {column!r}, which tells whose the row is"
                raise DataError(what, where=f"{where}:{row['#']}", hint=f"there is {have}")
            if row[column].startswith(beginning):
                found.append(row)
        if rows and not found:
            raise DataError(f"no row whose {column!r} begins with {beginning!r}", where=where)
        rows = found
    return rows


def infer_labels(task: Task, rows: Sequence[Row]) -> tuple[str, ...]:
    """The labels of checked rows, sorted; "O" comes first where words are tagged."""
    if task.kind != "tagging":
        return tuple(sorted({row[task.label] for row in rows}))
    found = {label for row in rows for label in row[task.label]}
    return tuple(sorted(found, key=lambda label: (label != "O", label)))


def characters(task: Task, row: Row) -> int:
    """Characters that are encoded for a row, all of its sequences together; for estimates."""
    inputs = sum(_length(row[column]) for column in task.inputs if column in row)
    if task.kind == "choice":
        choices = task.options["choices"]
        return len(choices) * inputs + sum(_length(row[column]) for column in choices)
    if task.kind in ("retrieval", "ranking"):
        return inputs + _length(row.get(task.label, "")) + _length(row.get("text", ""))
    return inputs


def parts(n: int, shares: Mapping[str, float]) -> dict[str, range]:
    """Where each split's share of n rows is, in the order train, validation, test."""
    names: list[str] = [name for name in get_args(Split) if name in shares]
    found, begin, share = {}, 0, 0.0
    for name in names:
        share += shares[name]
        end = n if name == names[-1] else round(share * n)
        found[name] = range(begin, end)
        begin = end
    return found


def nearest(asked: str, there: Sequence[str], most: int = 15) -> str:
    """Languages that are there, those that may have been meant first, the rest counted."""
    from difflib import get_close_matches

    near = [*_meant(asked), *get_close_matches(asked, there, n=3)]
    listed = list(dict.fromkeys([*(code for code in near if code in there), *sorted(there)]))
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return " ".join(listed[:most]) + more


@cache
def _meant(code: str) -> tuple[str, ...]:
    from adapterxlt.core import languages

    try:
        found = languages.get(code)
    except languages.UnknownLanguage as unknown:
        return unknown.suggestions
    return (found.code, found.iso639_3, *found.aliases)


def _nearest(context: str, text: str, start: int) -> str:
    """Where an answer is, next to where it should be."""
    before = context.rfind(text, 0, max(start, 0) + len(text))
    after = context.find(text, max(start, 0))
    found = [at for at in (before, after) if at >= 0]
    if not found:
        return "it is nowhere in the context"
    return f"it is at {min(found, key=lambda at: abs(at - start))}"


def _json(text: str, otherwise: Any) -> Any:
    """The list or object that a cell holds, else what is given."""
    if not text.startswith(("[", "{")):
        return otherwise
    try:
        found = json.loads(text)
        if "\\ud" in text.lower():
            json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair is no text
        return found
    except (ValueError, RecursionError):
        return otherwise


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str) else sum(len(word) + 1 for word in value)


def _is_word(value: Any) -> bool:
    return isinstance(value, str | int)


def _value(value: Any) -> str:
    """Any value of a row for a message, as far as it is short and shallow."""
    return _shown(value) if isinstance(value, str) else shortened(reprlib.repr(value), _SHOWN)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")
