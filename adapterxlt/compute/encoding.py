"""From rows to windows: how each kind of task becomes sub-words with scored positions and labels.

Nothing is dropped in silence: long tagging rows and contexts become several windows, and what has
to be cut is counted. Called by the desk, once for a split; the result is kept in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from adapterxlt.compute.data import Encoded, Window
from adapterxlt.core.tasks import Task

Row = Mapping[str, Any]
_Spans = list[tuple[int, int]]

#: Raise when the windows of any row change: encoded splits are then made again.
VERSION = 1
#: Longest question in sub-words, as in XTREME's recipes; no more than a third of a window.
LONGEST_QUESTION = 64


def encode(
    tokenizer: Any,
    task: Task,
    rows: Sequence[Row],
    max_length: int,
    *,
    side: str | None = None,
    labelled: bool = True,
) -> Encoded:
    """Encode rows of a task.

    Args:
        side: of a task that searches, the column that is encoded alone.
        labelled: false of new rows, which have no labels; their label indices are 0.
    """
    if not rows:
        return Encoded([])
    return _ENCODERS[task.kind](_Job(tokenizer, task, rows, max_length, side, labelled))


class _Job:
    """What an encoder is given; counts the rows that lose text."""

    def __init__(
        self,
        tokenizer: Any,
        task: Task,
        rows: Sequence[Row],
        max_length: int,
        side: str | None,
        labelled: bool,
    ) -> None:
        self.tokenizer, self.task, self.rows = tokenizer, task, rows
        self.max_length, self.side, self.labelled = max_length, side, labelled
        self.number = {name: i for i, name in enumerate(task.labels)}
        self.cut: set[int] = set()

    def column(self, name: str) -> list[str]:
        return [row[name] for row in self.rows]

    def gold(self, row: Row) -> int:
        return self.number[row[self.task.label]] if self.labelled else 0

    def ids(self, *texts: Sequence[str], of: Sequence[int] | None = None) -> list[list[int]]:
        """Sub-words of texts, or of pairs of texts, with special tokens; the longest is cut first.

        Args:
            of: the row each text belongs to; each its own when left out.
        """
        full = self.tokenizer(*map(list, texts))["input_ids"]
        result = []
        for i, ids in enumerate(full):
            if len(ids) > self.max_length:
                self.cut.add(i if of is None else of[i])
                one = [column[i] for column in texts]
                ids = self.tokenizer(*one, truncation="longest_first", max_length=self.max_length)[
                    "input_ids"
                ]
            result.append(ids)
        return result


def _texts(job: _Job) -> Encoded:
    """Classification of a text or of a pair, scored at the first sub-word."""
    encoded = job.ids(*(job.column(name) for name in job.task.inputs))
    rows = zip(job.rows, encoded, strict=True)
    return Encoded(
        [(Window(ids, [0], [job.gold(row)], [0]),) for row, ids in rows], frozenset(job.cut)
    )


def _choices(job: _Job) -> Encoded:
    """A window for each alternative: the premise, with the question, and the alternative.

    The first window of a row has its label, the number of the right alternative.
    """
    columns, questions = job.task.options["choices"], job.task.options["questions"] or {}
    premise, *more = job.task.inputs
    first, second, of = [], [], []
    for i, row in enumerate(job.rows):
        asked = [str(questions.get(row[name], row[name])) for name in more]
        for name in columns:
            first.append(" ".join([row[premise], *asked]))
            second.append(row[name])
            of.append(i)
    encoded, size = job.ids(first, second, of=of), len(columns)
    rows = []
    for i, row in enumerate(job.rows):
        labels = [[job.gold(row)], *([] for _ in columns[1:])]
        windows = zip(encoded[i * size : (i + 1) * size], labels, strict=True)
        rows.append(tuple(Window(ids, [0], label, [0]) for ids, label in windows))
    return Encoded(rows, frozenset(job.cut))


def _questions(job: _Job) -> Encoded:
    """Extractive question answering: the question and a window of the context, overlapping.

    Position 0 stands for "not in this window", the others for the sub-words of the context, with
    their characters as spans. Labels are the first and last scored position of the first answer.
    """
    tokenizer, task = job.tokenizer, job.task
    context, question = task.inputs
    longest = min(LONGEST_QUESTION, job.max_length // 3)
    room = job.max_length - longest - tokenizer.num_special_tokens_to_add(pair=True)
    stride = min(task.options["stride"] or job.max_length // 3, room // 2)
    asked = []
    offsets = tokenizer(
        job.column(question), add_special_tokens=False, return_offsets_mapping=True
    )["offset_mapping"]
    for i, (text, places) in enumerate(zip(job.column(question), offsets, strict=True)):
        if len(places) > longest:
            job.cut.add(i)
            text = text[: places[longest - 1][1]]
        asked.append(text)
    encoded = tokenizer(
        asked,
        job.column(context),
        truncation="only_second",
        max_length=job.max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    found: list[list[tuple[list[int], list[int], _Spans]]] = [[] for _ in job.rows]
    for n, i in enumerate(encoded["overflow_to_sample_mapping"]):
        places = [0, *(p for p, part in enumerate(encoded.sequence_ids(n)) if part == 1)]
        spans = [(0, 0), *(tuple(encoded["offset_mapping"][n][p]) for p in places[1:])]
        found[i].append((encoded["input_ids"][n], places, spans))
    rows = []
    for row, parts in zip(job.rows, found, strict=True):
        answers = row[task.label] if job.labelled else {"text": []}
        labels = _answer(answers, [spans for _, _, spans in parts])
        windows = zip(parts, labels, strict=True)
        rows.append(tuple(Window(ids, at, gold, [], spans) for (ids, at, spans), gold in windows))
    return Encoded(rows, frozenset(job.cut))


def _answer(answers: Mapping[str, Any], windows: Sequence[_Spans]) -> list[list[int]]:
    """First and last position of the first answer in each window of a context; 0 and 0 where the
    window lacks some of the answer's sub-words. White space at its ends may have none.
    """
    begin = end = 0
    if answers["text"]:
        begin = answers["answer_start"][0]
        end = begin + len(answers["text"][0])
    inside = [
        [n for n, (a, b) in enumerate(spans) if n and a < end and b > begin] for spans in windows
    ]
    ends = [
        (spans[places[0]][0], spans[places[-1]][1]) if places else None
        for spans, places in zip(windows, inside, strict=True)
    ]
    some = [pair for pair in ends if pair]
    whole = (min(a for a, _ in some), max(b for _, b in some)) if some else ()
    return [
        [places[0], places[-1]] if pair == whole else [0, 0]
        for places, pair in zip(inside, ends, strict=True)
    ]


def _searched(job: _Job) -> Encoded:
    """A text to search with or for, scored at its first sub-word; of rows to train on, both."""
    names = [job.side] if job.side else [*job.task.inputs, job.task.label]
    sides = [job.ids(job.column(name)) for name in names]
    windows = ([Window(ids, [0], [], [0]) for ids in side] for side in sides)
    return Encoded(list(zip(*windows, strict=True)), frozenset(job.cut))


def _words(job: _Job) -> Encoded:
    """A word is scored at its first sub-word; a long row becomes several windows, cut at words."""
    tokenizer, column = job.tokenizer, job.task.inputs[0]
    encoded = tokenizer(
        [list(row[column]) for row in job.rows], is_split_into_words=True, add_special_tokens=False
    )
    room = job.max_length - 2
    result = []
    for i, row in enumerate(job.rows):
        words: dict[int, list[int]] = {}
        for piece, word in zip(encoded["input_ids"][i], encoded.word_ids(i), strict=True):
            words.setdefault(word, []).append(piece)
        windows: list[Window] = []
        ids: list[int] = []
        starts: list[tuple[int, int]] = []
        for word, pieces in words.items():
            if len(pieces) > room:
                pieces = pieces[:room]
                job.cut.add(i)
            if len(ids) + len(pieces) > room:
                windows.append(_tagged(job, ids, starts, row))
                ids, starts = [], []
            starts.append((word, len(ids) + 1))
            ids = ids + pieces
        windows.append(_tagged(job, ids, starts, row))
        result.append(tuple(windows))
    return Encoded(result, frozenset(job.cut))


def _tagged(job: _Job, ids: list[int], starts: list[tuple[int, int]], row: Row) -> Window:
    labels = row[job.task.label] if job.labelled else None
    return Window(
        [job.tokenizer.cls_token_id, *ids, job.tokenizer.sep_token_id],
        [position for _, position in starts],
        [job.number[labels[word]] if labels else 0 for word, _ in starts],
        [word for word, _ in starts],
    )


def encode_text(
    tokenizer: Any, lines: Sequence[str], max_length: int, limit: int | None = None
) -> Encoded:
    """Lines of running text; long lines become several windows. Nothing is scored yet.

    Args:
        limit: how many rows are wanted, the first ones; a line without a sub-word is none.
    """
    result: list[tuple[Window, ...]] = []
    room, size = max_length - 2, limit or len(lines)
    # Asked for once: the tokenizer looks them up each time.
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    for start in range(0, len(lines), size or 1):
        if len(result) >= size:
            break
        some = list(lines[start : start + size])
        encoded = tokenizer(some, add_special_tokens=False, return_attention_mask=False)
        for ids in encoded["input_ids"]:
            pieces = [ids[i : i + room] for i in range(0, len(ids), room)]
            if pieces:
                result.append(tuple(Window([first, *one, last], [], [], []) for one in pieces))
    return Encoded(result[:limit])


_ENCODERS: dict[str, Callable[[_Job], Encoded]] = {
    "tagging": _words,
    "classification": _texts,
    "pair-classification": _texts,
    "choice": _choices,
    "qa": _questions,
    "retrieval": _searched,
    "ranking": _searched,
}
