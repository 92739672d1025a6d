"""The shared data, whole: every row of every language is what its task says."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterxlt.core.canon import sha256_hex
from adapterxlt.core.tasks import SPLITS, TASKS
from adapterxlt.corpora import formats
from adapterxlt.corpora.sources import FolderCorpus

#: Languages, and rows of train, validation and test, from the data's own README.
SIZES = {
    "xquad": (12, 0, 0, 14_280),
    "mlqa": (7, 0, 4_199, 0),
    "tydiqa": (2, 5_321, 0, 0),
    "xcopa": (11, 400, 1_100, 5_000),
    "tatoeba": (109, 0, 0, 87_253),
    "pawsx": (7, 0, 13_815, 13_824),
    "masakhaner": (18, 95_778, 13_686, 27_343),
}
#: Sentences of XQuAD-R (google-research-datasets/lareqa, README); here they are found by rule.
XQUAD_R = {"ar": 1222, "de": 1276, "el": 1234, "en": 1180, "es": 1215, "hi": 1244, "ru": 1219}
XQUAD_R |= {"th": 852, "tr": 1167, "vi": 1209, "zh": 1196}


@pytest.mark.shared
@pytest.mark.parametrize("task", SIZES)
def test_every_row_is_what_its_task_says(shared: Path, task: str) -> None:
    corpus = FolderCorpus(shared / "data")
    languages = corpus.languages(task)
    sizes = dict.fromkeys(SPLITS, 0)
    for language in languages:
        for split in SPLITS:
            if corpus.has(task, language, split):
                sizes[split] += len(corpus.rows(task, language, split))
    assert (len(languages), *sizes.values()) == SIZES[task]
    own, language = TASKS[task], languages[0]
    split = next(split for split in SPLITS if corpus.has(task, language, split))
    info, rows = corpus.info(task, language, split), corpus.rows(task, language, split)
    assert info.rows == len(rows) and info.tokens_per_row > 2
    (path,) = (shared / "data" / task / language).glob(f"{split}.*")
    assert info.digest == sha256_hex(formats.content(path))
    assert all(column in row for row in rows for column in own.columns)


@pytest.mark.shared
def test_answers_are_where_they_are_said_to_be(shared: Path) -> None:
    corpus = FolderCorpus(shared / "data")
    for task, language, split in (("xquad", "zh", "test"), ("mlqa", "ar", "validation")):
        for row in corpus.rows(task, language, split):
            answers = row["answers"]
            for text, start in zip(answers["text"], answers["answer_start"], strict=True):
                assert row["context"][start:].startswith(text)


@pytest.mark.shared
def test_choices_and_pairs_have_labels_in_one_form(shared: Path) -> None:
    corpus = FolderCorpus(shared / "data")
    for task, language in (("xcopa", "qu"), ("pawsx", "ja")):
        labels = {row["label"] for row in corpus.rows(task, language, "test")}
        assert labels == {"0", "1"}


@pytest.mark.shared
def test_dates_of_masakhaner_are_no_entities_of_ner(shared: Path) -> None:
    corpus = FolderCorpus(shared / "data")
    own = [row["ner_tags"] for row in corpus.rows("masakhaner", "yo", "test")]
    other = [row["ner_tags"] for row in corpus.rows("ner", "yo", "test")]
    assert any("B-DATE" in tags for tags in own)
    undated = [["O" if tag.endswith("-DATE") else tag for tag in tags] for tags in own]
    assert other == undated


@pytest.mark.shared
def test_sentences_of_all_languages_answer_the_same_questions(shared: Path) -> None:
    corpus = FolderCorpus(shared / "data")
    questions = {row["id"] for row in corpus.rows("lareqa", "en", "test")}
    assert len(questions) == 1190
    for language in corpus.languages("lareqa"):
        assert {row["id"] for row in corpus.rows("lareqa", language, "test")} == questions
        candidates = corpus.rows("lareqa", language, "candidates")
        assert {name for row in candidates for name in row["answers"]} == questions
        assert len({row["id"] for row in candidates}) == len(candidates)
        if language in XQUAD_R:
            assert len(candidates) == pytest.approx(XQUAD_R[language], rel=0.05), language
        whole = "".join(row["context"] for row in corpus.rows("xquad", language, "test"))
        assert all(row["text"] in whole for row in candidates)
