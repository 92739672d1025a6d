"""Data files of any content, in every format: rows, or one line with file and row, soon."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mutating import Watch, mutated_bytes, mutated_value, numbered

from adapterxlt.core.tasks import TASKS, Task
from adapterxlt.corpora import formats
from adapterxlt.corpora.rows import check, check_text, infer_labels
from adapterxlt.corpora.sentences import QA, ranked

OWN = Task(name="own", kind="classification").filled()
TAGS = Task(name="tags", kind="tagging").filled()
CHOICE = TASKS["xcopa"]


def _lines(*rows: Any) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


QUESTION = {"id": "q1", "context": "One. Two is here! Three?", "question": "Who?"}
ANSWER = {"text": ["Two"], "answer_start": [5]}
WORDS = "\n".join(
    "\t".join([str(n), word, word, tag, "_", "_", "0", "root", "_", "_"])
    for n, (word, tag) in enumerate([("Kissa", "NOUN"), ("on", "VERB"), ("täällä", "ADV")], 1)
)
#: A valid file for each reader, and the task whose rows it has.
FILES: dict[str, tuple[bytes, Task | None]] = {
    "pos.jsonl": (
        _lines(
            {"tokens": ["Kissa", "on"], "upos": ["NOUN", "VERB"]}, {"tokens": ["ä"], "upos": ["X"]}
        ),
        TASKS["udpos"],
    ),
    "own.jsonl": (_lines({"text": "a", "label": "x"}, {"text": "b", "label": 1}), OWN),
    "choice.jsonl": (
        _lines(
            {"premise": "p", "question": "cause", "choice1": "a", "choice2": "b", "label": 0},
        ),
        CHOICE,
    ),
    "qa.jsonl": (_lines({**QUESTION, "answers": ANSWER}, {**QUESTION, "answers": ["Three"]}), QA),
    "own.csv": (b'text,label\n"one, ""two""\nthree",x\nfour,y\n', OWN),
    "qa.csv": (
        b"id,context,question,answers\n"
        b'1,One two.,Who?,"{""text"": [""two""], ""answer_start"": [4]}"\n',
        QA,
    ),
    "own.tsv": (b'text\tlabel\n"Yes" he said\tx\nno\ty\n', OWN),
    "tags.conllu": (f"# sent_id = 1\n{WORDS}\n\n{WORDS}\n\n".encode(), TASKS["udpos"]),
    "tags.iob2": (b"-DOCSTART- O\n\nEU B-ORG\nis O\n\n# x\nBonn B-LOC\n", TAGS),
    "text.txt": ("eine Zeile\n\nzwei\u2028drei\r\n".encode(), None),
    "pairs.mewslix": (
        _lines(
            {
                "contextual_mention": {
                    "context": {
                        "text": "Bonn is here.",
                        "sentence_spans": [{"start": 0, "end": 13}],
                    },
                    "mention": {"mention_span": {"start": 0, "end": 4, "text": "Bonn"}},
                },
                "entity": {"entity_id": "Q1", "description": "A city.", "sentence_spans": []},
            }
        ),
        TASKS["mewslix"],
    ),
}
FORMATS: dict[str, Any] = {"mewslix": "mewslix"}


def _parquet() -> bytes:
    import pyarrow
    from pyarrow import parquet

    label = {"names": ["no", "yes"], "_type": "ClassLabel"}
    about = {b"huggingface": json.dumps({"info": {"features": {"label": label}}}).encode()}
    table = pyarrow.table({"text": ["a", "b", "c"], "label": [0, 1, -1]})
    out = io.BytesIO()
    parquet.write_table(table.replace_schema_metadata(about), out)
    return out.getvalue()


def _mutated(draw: random.Random, name: str, data: bytes) -> bytes:
    others = [content for content, _ in FILES.values()]
    if name.endswith((".jsonl", ".mewslix")) and draw.random() < 0.5:
        rows = [json.loads(line) for line in data.splitlines()]
        every = [[json.loads(line) for line in FILES["qa.jsonl"][0].splitlines()], rows]
        changed = mutated_value(draw, rows, every)
        return _lines(*(changed if isinstance(changed, list) else [changed]))
    return mutated_bytes(draw, [data, data, data, draw.choice(others)])


def _read(path: Path, task: Task | None, split: str) -> Callable[[], None]:
    def run() -> None:
        format = formats.format_of(path, FORMATS.get(path.name.split(".")[-1]))
        rows = formats.parse(path, formats.content(path), format)
        if task is None:
            check_text(str(path), rows)
            return
        checked = check(str(path), task, rows, split, cells=format in formats.CELLS)
        if task is QA:
            ranked(str(path), checked, split, "en")
        elif not task.labels and task.kind in ("tagging", "classification"):
            infer_labels(task, checked)

    return run


def _fuzz(count: int, folder: Path) -> None:
    files = {**FILES, "own.parquet": (_parquet(), OWN)}
    watch = Watch()
    for name, draw in numbered(count, "data"):
        chosen = draw.choice(list(files))
        data, task = files[chosen]
        packed = draw.random() < 0.15 and not chosen.endswith(".parquet")
        data = _mutated(draw, chosen, data)
        if packed:
            data = gzip.compress(data, mtime=0)
            data = mutated_bytes(draw, [data]) if draw.random() < 0.5 else data
        path = folder / (f"{chosen}.gz" if packed else chosen)
        path.write_bytes(data)
        split = draw.choice(["train", "test", "candidates"])
        watch.case(f"{name} ({chosen})", _read(path, task, split))
    watch.over(count)


def test_every_seed_is_valid(tmp_path: Path) -> None:
    for name, (data, task) in {**FILES, "own.parquet": (_parquet(), None)}.items():
        path = tmp_path / name
        path.write_bytes(data)
        if name != "own.parquet":
            _read(path, task, "train")()
        else:
            assert [row["label"] for row in formats.read(path)] == ["no", "yes", -1]


def test_mutated_data_files_are_read_or_told_what_is_wrong(tmp_path: Path) -> None:
    _fuzz(600, tmp_path)


@pytest.mark.slow
@pytest.mark.torture
def test_twenty_thousand_mutated_data_files(tmp_path: Path) -> None:
    _fuzz(20_000, tmp_path)
