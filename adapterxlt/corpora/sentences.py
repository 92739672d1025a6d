"""Ranking made of question answering: which sentence, of those of all languages, has the answer.

As LAReQA (Roy et al. 2020) makes XQuAD-R: queries are the questions, candidates the sentences of
the contexts. Where sentences end is found by rule, one for all languages; pure functions of rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from adapterxlt.core.errors import DataError
from adapterxlt.core.tasks import Task
from adapterxlt.corpora.formats import Row

#: The columns that rows of question answering have here.
QA = Task(name="qa", kind="qa").filled()

_CLOSING = "\"'”’»)\\]」』）"
#: A mark that ends a sentence: before a space, or (of Chinese and Japanese) wherever it stands. The
#: Greek question mark is a semicolon.
_END = re.compile(
    rf"[.!?؟۔।॥…\u037e]+[{_CLOSING}]*(?=\s)|[。！？]+[{_CLOSING}]*|(?<=[\u0370-\u03ff]);(?=\s)"
)
#: What stands before a full stop that ends no sentence: initials, numbers of a list, titles.
_ABBREVIATION = re.compile(
    r"(?:^|[\s(.])(?:\w|\d{1,2}|Dr|Mr|Mrs|Ms|St|Sr|Jr|vs|No|Prof|Gen|Sgt|Mt|Ft|ca|bzw|Nr|Sra?|Dra)\.$"
)
#: Thai writes no marks: a space ends a sentence once it has so many characters.
_THAI, _LONG = re.compile(r"(?<=[\u0e00-\u0e7f]) +(?=[\u0e00-\u0e7f])"), 190


def ranked(where: str, rows: list[Row], split: str, language: str) -> list[Row]:
    """Rows of ranking from checked rows of question answering.

    train, validation: ``query`` and ``answer``, the sentence where the first answer starts; test:
    ``id`` and ``query``; candidates: ``id``, ``text`` and ``answers``, the ids of the questions
    that the sentence answers. Ids of questions are the same in all languages; questions without
    an answer are left out.

    Raises:
        DataError: a question without an id that it needs, or no row with an answer.
    """
    contexts: dict[str, list[Row]] = {}
    for row in rows:
        if split in ("test", "candidates") and not isinstance(row.get("id"), str):
            hint = "sentences of all languages are found by the question's id"
            raise DataError("no column 'id'", where=f"{where}:{row['#']}", hint=hint)
        contexts.setdefault(row["context"], []).append(row)
    made: dict[int, Row] = {}
    candidates: list[Row] = []
    for number, (context, asked) in enumerate(contexts.items()):
        spans = _sentences(context, [span for row in asked for span in _spans(row)])
        for begin, end in spans:
            answers = (
                [r["id"] for r in asked if any(begin <= at < end for at, _ in _spans(r))]
                if split == "candidates"
                else []
            )
            name = f"{language}-{number}-{begin}"
            text = context[begin:end].strip()
            at = asked[0]["#"]
            if text:
                candidates.append({"id": name, "text": text, "answers": answers, "#": at})
        for row in asked:
            for at, _ in _spans(row)[:1]:
                begin, end = next(span for span in spans if span[0] <= at < span[1])
                made[row["#"]] = {
                    **{k: row[k] for k in ("id", "#") if k in row},
                    "query": row["question"],
                    "answer": context[begin:end].strip(),
                }
    found = candidates if split == "candidates" else [made[at] for at in sorted(made)]
    if not found:
        raise DataError("no question has an answer", where=where)
    if split == "test":
        return [{k: v for k, v in row.items() if k != "answer"} for row in found]
    return found


def _spans(row: Row) -> list[tuple[int, int]]:
    answers: dict[str, Any] = row["answers"]
    pairs = zip(answers["text"], answers["answer_start"], strict=True)
    return [(start, start + len(text)) for text, start in pairs]


def _sentences(text: str, whole: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Where each sentence begins and ends; none ends within an answer, whose places are given, and
    none is without a letter or a digit."""
    found: list[tuple[int, int]] = []
    begin = 0
    for end in _ends(text):
        within = any(first < end < last for first, last in whole)
        if not within and any(map(str.isalnum, text[begin:end])):
            found.append((begin, end))
            begin = end
    if found and not any(map(str.isalnum, text[begin:])):
        begin = found.pop()[0]
    return [*found, (begin, len(text))]


def _ends(text: str) -> Iterator[int]:
    last = 0
    marks = [(m.end(), True) for m in _END.finditer(text)]
    marks += [(m.end(), False) for m in _THAI.finditer(text)]
    for end, marked in sorted(marks):
        after = text[end:].lstrip()[:1]
        if marked and (after.islower() or _ABBREVIATION.search(text[max(0, end - 12) : end])):
            continue
        if marked or end - last >= _LONG:
            yield end
            last = end
