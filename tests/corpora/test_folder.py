"""A data folder: what is read, what is refused and where, and what its digest depends on."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterxlt.core.errors import DataError, UsageError
from adapterxlt.corpora import unpacking
from adapterxlt.corpora.reading import selection
from adapterxlt.corpora.sources import FolderCorpus, LabCorpus
from adapterxlt.store.store import Store

Write = Callable[..., Path]
Rows = Callable[[int], list[dict[str, Any]]]


def error(
    corpus: FolderCorpus, task: str = "udpos", language: str = "fi", split: str = "train"
) -> str:
    """The error of both ways into a split, which must say the same."""
    with pytest.raises(DataError) as planning:
        corpus.info(task, language, split)
    with pytest.raises(DataError) as working:
        corpus.rows(task, language, split)
    assert str(planning.value) == str(working.value)
    assert "\n" not in str(planning.value)
    return str(planning.value)


@pytest.mark.parametrize("plain", [True, False])
def test_rows_are_read_in_file_order(
    folder: Path, write: Write, sentences: Rows, plain: bool
) -> None:
    write("udpos/fi/train", sentences(5), plain=plain)
    corpus = FolderCorpus(folder)
    rows = corpus.rows("udpos", "fi", "train")
    assert [row["id"] for row in rows] == [f"s-{i}" for i in range(5)]
    info = corpus.info("udpos", "fi", "train")
    assert info.rows == 5
    # "Kissa on0" is nine letters and two blanks' worth: 2 + 10 / 3.5.
    assert info.tokens_per_row == pytest.approx(2 + 10 / 3.5)


def test_blank_lines_are_no_rows_but_count_as_lines(folder: Path, write: Write) -> None:
    good = b'{"tokens": ["a"], "upos": ["X"]}\n'
    write("udpos/fi/train", b"\n" + good + b"  \r\n" + good + b"{oops\n")
    assert re.search(r"train\.jsonl\.gz:5: not JSON", error(FolderCorpus(folder)))


def test_a_missing_language_names_those_there_are(
    folder: Path, write: Write, sentences: Rows
) -> None:
    for language in ("de", "en"):
        write(f"udpos/{language}/train", sentences(1))
    text = error(FolderCorpus(folder))
    assert "no train data for 'fi'" in text and "languages with udpos: de en" in text
    assert "--data" in error(FolderCorpus(folder), task="nli")


def test_a_missing_split_names_those_there_are(folder: Path, write: Write, sentences: Rows) -> None:
    write("udpos/fi/test", sentences(1))
    write("udpos/fi/validation", sentences(1))
    corpus = FolderCorpus(folder)
    text = error(corpus)
    assert "udpos/fi has test, validation" in text
    assert text.startswith(f"{folder}/udpos/fi/train.jsonl: udpos: no train data for 'fi'")
    assert corpus.shots_split("udpos", "fi") == "validation"
    write("udpos/fi/train", sentences(1))
    assert FolderCorpus(folder).shots_split("udpos", "fi") == "train"


def test_other_files_beside_a_split_are_not_splits(
    folder: Path, write: Write, sentences: Rows
) -> None:
    path = write("udpos/fi/validation", sentences(1))
    for name in ("train.jsonl.bak", "train.jsonl.gz.part", "train", "train.parquet.gz"):
        (path.parent / name).write_text("x")
    (path.parent / "train.csv").mkdir()
    assert FolderCorpus(folder).shots_split("udpos", "fi") == "validation"


GOOD = {"tokens": ["a", "b"], "upos": ["NOUN", "VERB"]}
BAD_ROWS: dict[str, tuple[Any, str]] = {
    "not an object": (["a"], "a row is a JSON object"),
    "no tokens": ({"upos": ["X"]}, "no column 'tokens'; there is upos"),
    "no labels": ({"tokens": ["a"], "xpos": ["X"]}, "no column 'upos'; there is tokens, xpos"),
    "tokens as text": ({"tokens": "a b", "upos": ["X", "X"]}, "lists of strings"),
    "numbers as labels": ({"tokens": ["a"], "upos": [1]}, "lists of strings"),
    "lengths": ({"tokens": ["a", "b", "c"], "upos": ["X"]}, "3 tokens but 1 labels"),
    "label outside": (
        {"tokens": ["a", "b"], "upos": ["X", "VREB"]},
        "label 'VREB' is outside the label set of udpos; did you mean 'VERB'?",
    ),
    "half a character": ({"tokens": ["\ud800"], "upos": ["X"]}, ""),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_named(folder: Path, name: str) -> None:
    import json

    row, words = BAD_ROWS[name]
    path = folder / "udpos" / "fi" / "train.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(json.dumps(item) for item in (GOOD, GOOD, row, GOOD)))
    text = error(FolderCorpus(folder))
    assert text.startswith(f"{path}:3: ") and words in text


@pytest.mark.parametrize(
    ("task", "row", "words"),
    [
        ("nli", {"premise": "a", "label": "neutral"}, "no column 'hypothesis'"),
        ("nli", {"premise": "a", "hypothesis": 3, "label": "neutral"}, "'hypothesis' is not text"),
        (
            "nli",
            {"premise": "a", "hypothesis": "b", "label": "entailed"},
            "label 'entailed' is outside the label set of nli; did you mean 'entailment'?",
        ),
        (
            "nli",
            {"premise": "a", "hypothesis": "b", "label": 0},
            "label 0 is outside the label set",
        ),
        ("nli", {"premise": "a", "hypothesis": "b", "label": ["neutral"]}, "outside the label set"),
        ("nli", {"premise": "a", "hypothesis": "b", "label": None}, "outside the label set"),
        ("sib200", {"text": "a", "category": "sport"}, "did you mean 'sports'?"),
    ],
)
def test_a_bad_row_of_classification_is_named(
    folder: Path, write: Write, task: str, row: dict[str, Any], words: str
) -> None:
    path = write(f"{task}/fi/train", [row])
    text = error(FolderCorpus(folder), task=task)
    assert text.startswith(f"{path}:1: ") and words in text


# Tasks whose rows are in several folders, are relabelled, or have numbers as labels

DATED = {"tokens": ["Ade", "ni", "ọdún", "2020"], "ner_tags": ["B-PER", "O", "B-DATE", "I-DATE"]}


def test_dates_are_outside_for_the_task_of_entities(folder: Path, write: Write) -> None:
    write("masakhaner/yo/train", [DATED])
    corpus = FolderCorpus(folder)
    assert corpus.rows("ner", "yo", "train")[0]["ner_tags"] == ["B-PER", "O", "O", "O"]
    assert corpus.rows("masakhaner", "yo", "train")[0]["ner_tags"] == DATED["ner_tags"]
    # The same bytes are other rows, so they have another digest.
    assert corpus.info("ner", "yo", "train") != corpus.info("masakhaner", "yo", "train")
    assert corpus.info("ner", "yo", "train").rows == 1


def test_only_what_a_place_says_is_relabelled(folder: Path, write: Write) -> None:
    path = write("ner/yo/train", [{"tokens": ["a"], "ner_tags": ["O"]}, DATED])
    text = error(FolderCorpus(folder), task="ner", language="yo")
    assert text.startswith(f"{path}:2: label 'B-DATE' is outside the label set of ner")


def test_the_first_folder_that_has_a_split_wins(folder: Path, write: Write) -> None:
    def named(word: str) -> list[dict[str, Any]]:
        return [{"tokens": [word], "ner_tags": ["O"]}]

    for name, word in (("ner/pt", "um"), ("masakhaner/pt", "dois"), ("masakhaner/yo", "méjì")):
        write(f"{name}/train", named(word))
    write("masakhaner/pt/test", named("dois"))
    (folder / "ner" / "yo").mkdir()
    corpus = FolderCorpus(folder)
    assert corpus.rows("ner", "pt", "train")[0]["tokens"] == ["um"]
    assert corpus.rows("ner", "yo", "train")[0]["tokens"] == ["méjì"]
    assert corpus.languages("ner") == ["pt", "yo"]
    assert corpus.rows("ner", "pt", "test")[0]["tokens"] == ["dois"]
    assert "masakhaner/yo has train" in error(corpus, "ner", "yo", "test")
    text = error(corpus, "ner", "pt", "validation")
    assert "ner/pt has train; masakhaner/pt has test, train" in text
    assert "languages with ner: pt yo" in error(corpus, "ner", "sw")


def test_a_fault_names_the_file_of_the_folder_it_is_in(folder: Path, write: Write) -> None:
    path = write("masakhaner/yo/train", [DATED, {"tokens": ["a"], "ner_tags": ["B-DAT"]}])
    text = error(FolderCorpus(folder), task="ner", language="yo")
    assert text.startswith(f"{path}:2: label 'B-DAT' is outside the label set of ner")


def test_numbers_are_labels_where_a_task_says_so(folder: Path, write: Write) -> None:
    pair = {"sentence1": "a", "sentence2": "b"}
    write("pawsx/fi/train", [{**pair, "label": label} for label in (0, 1, "0", "1")])
    corpus = FolderCorpus(folder)
    assert corpus.info("pawsx", "fi", "train").rows == 4
    labels = [row["label"] for row in corpus.rows("pawsx", "fi", "train")]
    assert labels == ["0", "1", "0", "1"]


@pytest.mark.parametrize("label", [True, False, 2, -1, 1.0, None, "yes", [1]])
def test_no_other_value_is_such_a_label(folder: Path, write: Write, label: Any) -> None:
    good = {"sentence1": "a", "sentence2": "b", "label": 1}
    path = write("pawsx/fi/train", [good, {**good, "label": label}])
    text = error(FolderCorpus(folder), task="pawsx")
    assert text.startswith(f"{path}:2: label {label!r} is outside the label set of pawsx")


@pytest.mark.parametrize("data", [b"", b"\n \n"])
def test_an_empty_split_is_an_error(folder: Path, write: Write, data: bytes) -> None:
    path = write("udpos/fi/train", data)
    assert error(FolderCorpus(folder)) == f"{path}: the split is empty"


def test_files_that_cannot_be_unpacked(folder: Path, write: Write, sentences: Rows) -> None:
    path = write("udpos/fi/train", sentences(200))
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for data in (whole[:-20], whole[:5], bytes(flipped), b"plain text", b""):
        path.write_bytes(data)
        assert error(FolderCorpus(folder)).startswith(f"{path}: ")


def test_bytes_that_are_no_utf_8_are_named(folder: Path, write: Write) -> None:
    write("udpos/fi/train", b'{"tokens": ["\xe9"], "upos": ["X"]}\n')
    assert "train.jsonl.gz:1: not JSON" in error(FolderCorpus(folder))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such data folder"):
        FolderCorpus(tmp_path / "none")


# Digests


def test_the_digest_is_that_of_the_content(folder: Path, write: Write, sentences: Rows) -> None:
    digests = []
    for options in ({"mtime": 0}, {"mtime": 1_700_000_000}, {"plain": True}):
        path = write("udpos/fi/train", sentences(3), **options)
        digests.append(FolderCorpus(folder).info("udpos", "fi", "train").digest)
        path.unlink()
    assert len(set(digests)) == 1
    write("udpos/fi/train", sentences(4))
    assert FolderCorpus(folder).info("udpos", "fi", "train").digest not in digests


def test_checked_files_are_remembered_until_they_change(
    folder: Path, write: Write, sentences: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    path = write("udpos/fi/train", sentences(3))
    first = FolderCorpus(folder, store).info("udpos", "fi", "train")

    reads: list[Path] = []
    real = unpacking.content
    monkeypatch.setattr(unpacking, "content", lambda path: (reads.append(path), real(path))[1])
    assert FolderCorpus(folder, Store(store.root)).info("udpos", "fi", "train") == first
    assert reads == []

    # Another content of the same length, written a moment later.
    changed = [{**row, "upos": ["VERB", "NOUN"]} for row in sentences(3)]
    path = write("udpos/fi/train", changed)
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    second = FolderCorpus(folder, store).info("udpos", "fi", "train")
    assert reads == [path] and second.digest != first.digest
    # Rows are read and checked, never taken from a note.
    assert FolderCorpus(folder, store).rows("udpos", "fi", "train")[0]["upos"] == ["VERB", "NOUN"]


def test_a_faulty_file_is_not_remembered_as_good(
    folder: Path, write: Write, sentences: Rows, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    write("udpos/fi/train", [{**sentences(1)[0], "upos": ["NOPE", "X"]}])
    for _ in range(2):
        with pytest.raises(DataError, match="NOPE"):
            FolderCorpus(folder, store).info("udpos", "fi", "train")


# Monolingual text


def test_texts_are_all_or_those_asked_for(folder: Path, write: Write) -> None:
    write("mono/fi/bible", [{"text": "alussa"}, {"text": "loi"}])
    write("mono/fi/wiki", [{"text": "Suomi"}], plain=True)
    corpus = FolderCorpus(folder)
    assert corpus.text("fi", None) == ["alussa", "loi", "Suomi"]
    assert corpus.text("fi", ("wiki",)) == ["Suomi"]
    assert corpus.text_info("fi", None).rows == 3 and corpus.text_info("fi", ("wiki",)).rows == 1
    assert corpus.text_info("fi", None).digest != corpus.text_info("fi", ("wiki",)).digest


def test_missing_texts_are_named(folder: Path, write: Write) -> None:
    write("mono/fi/bible", [{"text": "a"}])
    corpus = FolderCorpus(folder)
    with pytest.raises(DataError, match=r"no monolingual text for 'sw'.*languages with text: fi"):
        corpus.text_info("sw", None)
    with pytest.raises(DataError, match=r"none of the texts wiki for 'fi'.*there is bible"):
        corpus.text_info("fi", ("wiki",))
    with pytest.raises(DataError, match="there is none at all"):
        corpus.text("sw", ("wiki",))


@pytest.mark.parametrize("row", [{"text": 5}, {"txt": "a"}, {"text": None}])
def test_a_bad_row_of_text_is_named(folder: Path, write: Write, row: dict[str, Any]) -> None:
    path = write("mono/fi/bible", [{"text": "a"}, row])
    for read in (FolderCorpus(folder).text, FolderCorpus(folder).text_info):
        with pytest.raises(DataError) as caught:
            read("fi", None)
        assert str(caught.value) == f"{path}:2: a row of text has a string 'text'"
    path.write_bytes(gzip.compress(b""))
    with pytest.raises(DataError, match="the text is empty"):
        FolderCorpus(folder).text("fi", None)


# Selection


def chosen(**more: Any) -> dict[str, Any]:
    return {"task": "udpos", "language": "fi", **more}


def select(rows: list[Any], chosen: dict[str, Any]) -> list[Any]:
    return [rows[i] for i in selection(len(rows), chosen)]


@given(st.integers(1, 60), st.integers(0, 99), st.data())
def test_fewer_shots_of_a_draw_are_the_beginning_of_more(
    n: int, draw: int, data: st.DataObject
) -> None:
    rows = [{"i": i} for i in range(n)]
    more = data.draw(st.integers(0, n))
    fewer = data.draw(st.integers(0, more))
    many = select(rows, chosen(shots=more, draw=draw))
    assert select(rows, chosen(shots=fewer, draw=draw)) == many[:fewer]
    assert len({row["i"] for row in many}) == more


def test_draws_tasks_and_languages_choose_differently() -> None:
    rows = [{"i": i} for i in range(500)]
    samples = [
        select(rows, chosen(shots=20, draw=1)),
        select(rows, chosen(shots=20, draw=2)),
        select(rows, {**chosen(shots=20, draw=1), "language": "sw"}),
        select(rows, {**chosen(shots=20, draw=1), "task": "nli"}),
    ]
    sets = [frozenset(row["i"] for row in sample) for sample in samples]
    assert len(set(sets)) == 4 and sets[0] != frozenset(range(20))


def test_limits_take_the_first_rows() -> None:
    rows = [{"i": i} for i in range(5)]
    assert select(rows, chosen(limit=2)) == rows[:2]
    assert select(rows, chosen(limit=None)) == rows == select(rows, chosen())


# The laboratory


def test_the_lab_refuses_what_it_does_not_have() -> None:
    corpus = LabCorpus()
    with pytest.raises(DataError, match=r"the lab has no task 'udpos'; .*lab-pos"):
        corpus.info("udpos", "lab-root", "train")
    with pytest.raises(DataError, match=r"the lab has no language 'fi'"):
        corpus.rows("lab-pos", "fi", "test")
    with pytest.raises(DataError, match=r"'lab-rot'; did you mean 'lab-root'"):
        corpus.text_info("lab-rot", None)


def test_the_lab_says_what_its_rows_are() -> None:
    corpus = LabCorpus()
    info = corpus.info("lab-pos", "lab-far-low", "test")
    assert info.rows == len(corpus.rows("lab-pos", "lab-far-low", "test")) > 50
    assert corpus.text_info("lab-far-low", None).rows == len(corpus.text("lab-far-low", None))
    others = {
        corpus.info("lab-pos", code, split).digest
        for code in ("lab-root", "lab-far-low")
        for split in ("train", "test")
    }
    assert len(others) == 4
