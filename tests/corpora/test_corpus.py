"""Places of tasks: which one is read, how files are divided, what is known of a hub's splits."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterxlt.core.canon import sha256_hex
from adapterxlt.core.errors import DataError, UsageError
from adapterxlt.core.tasks import Place, Task
from adapterxlt.corpora import unpacking
from adapterxlt.corpora.hub import HubSplit, Shelf
from adapterxlt.corpora.laboratory import LabCorpus
from adapterxlt.corpora.sources import Corpus
from adapterxlt.store.store import Store

Write = Callable[..., Path]
REVISION = "0123456789" * 4


def task(kind: str = "classification", **more: Any) -> Task:
    return Task.model_validate({"name": "own", "kind": kind, **more}).filled()


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Corpus]:
    """``opened(task, data=..., hub=...)``: a corpus with one task; files start in ``tmp_path``."""

    def make(own: Task, **more: Any) -> Corpus:
        return Corpus({"own": own}, **{"data": None, "base": tmp_path, "source": "en", **more})

    return make


def put(path: Path, labels: str, start: int = 0) -> Path:
    """A tsv with a row for each letter, which is its label."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"t{start + i}\t{label}\n" for i, label in enumerate(labels)]
    path.write_text("text\tlabel\n" + "".join(lines))
    return path


def texts(corpus: Corpus, split: str, language: str = "en") -> list[str]:
    return [row["text"] for row in corpus.rows("own", language, split)]


def fault(read: Callable[[], Any]) -> str:
    with pytest.raises(DataError) as caught:
        read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


Opened = Callable[..., Corpus]


# Files of one's own


def test_files_by_language_and_split(opened: Opened, tmp_path: Path) -> None:
    for language, split in (("eng", "train"), ("eng", "dev"), ("fin", "test"), ("fin", "other")):
        put(tmp_path / "my" / f"{language}_{split}.tsv", "ab")
    place = {
        "files": "my/{language}_{split}.tsv",
        "languages": {"en": "eng", "fi": "fin", "sw": "swa"},
        "splits": {"train": "train", "validation": "dev", "test": "test"},
    }
    corpus = opened(task(labels=["a", "b"], **{k: v for k, v in place.items() if k != "languages"}))
    assert corpus.languages("own") == ["eng", "fin"]
    corpus = opened(task(labels=["a", "b"], places=[place]))
    assert texts(corpus, "validation") == ["t0", "t1"]
    assert corpus.languages("own") == ["en", "fi"]
    assert corpus.has("own", "fi", "test") and not corpus.has("own", "fi", "train")
    text = fault(lambda: corpus.info("own", "fi", "train"))
    assert text.startswith(f"{tmp_path}/my/fin_train.tsv: own: no train data for 'fi'")
    assert text.endswith("the task's own place has test")
    assert "languages with own: en fi" in fault(lambda: corpus.info("own", "sw", "test"))
    assert "languages with own: en fi" in fault(lambda: corpus.info("own", "eng", "test"))


def test_names_of_languages_are_found_in_paths(opened: Opened, tmp_path: Path) -> None:
    put(tmp_path / "de" / "x-de.test.tsv", "ab")
    put(tmp_path / "en" / "x-sw.test.tsv", "ab")
    put(tmp_path / "sw" / "x-sw.other.tsv", "ab")
    corpus = opened(task(labels=["a", "b"], files="{language}/x-{language}.{split}.tsv"))
    assert corpus.languages("own") == ["de"]
    assert texts(corpus, "test", "de") == ["t0", "t1"]


def test_a_path_without_a_language_is_not_everybodys(opened: Opened, tmp_path: Path) -> None:
    put(tmp_path / "train.tsv", "ab")
    text = fault(lambda: opened(task(files="{split}.tsv")).info("own", "en", "train"))
    assert text.startswith("{split}.tsv: own: no {language}") and "languages: [en]" in text
    place = {"files": "{split}.tsv", "languages": ["en"]}
    corpus = opened(task(places=[place], labels=["a", "b"]))
    assert texts(corpus, "train") == ["t0", "t1"] and corpus.languages("own") == ["en"]
    assert not corpus.has("own", "fi", "train")
    hub = {"hub": "o/n", "revision": REVISION}
    assert "languages: [en]" in fault(
        lambda: opened(task(**hub), hub=True).info("own", "en", "test")
    )


def test_aligned_files_are_a_place(opened: Opened, tmp_path: Path) -> None:
    (tmp_path / "t.fi").write_text("yksi\nkaksi\n")
    (tmp_path / "t.fi-en").write_text("one\ntwo\n")
    files = {"source": "t.{language}", "target": "t.{language}-en"}
    corpus = opened(task("retrieval", files=files))
    # Nothing is trained on it, so all of its rows are for the test.
    assert [row["target"] for row in corpus.rows("own", "fi", "test")] == ["one", "two"]
    assert not corpus.has("own", "fi", "train") and corpus.languages("own") == ["fi"]
    before = corpus.info("own", "fi", "test")
    (tmp_path / "t.fi-en").write_text("one\nthree\n")
    assert opened(task("retrieval", files=files)).info("own", "fi", "test").digest != before.digest
    (tmp_path / "t.fi-en").write_text("one\n")
    text = fault(lambda: opened(task("retrieval", files=files)).info("own", "fi", "test"))
    assert text.startswith(f"{tmp_path}/t.fi-en: 1 lines, but {tmp_path}/t.fi has 2")
    (tmp_path / "t.fi-en").unlink()
    text = fault(lambda: opened(task("retrieval", files=files)).info("own", "fi", "test"))
    assert text.startswith(f"{tmp_path}/t.fi-en: own: no test data for 'fi'")


def test_a_fault_is_at_the_line_of_the_file(opened: Opened, tmp_path: Path) -> None:
    path = put(tmp_path / "en.train.tsv", "abx")
    corpus = opened(task(files="{language}.{split}.tsv", labels=["a", "b"]))
    for read in (corpus.info, corpus.rows):
        text = fault(lambda read=read: read("own", "en", "train"))  # type: ignore[misc]
        assert text.startswith(f"{path}:4: label 'x' is outside the label set of own")
    shifted = task(files="{language}.{split}.tsv", labels=["a", "b"], relabel={"x": "b"})
    assert [row["label"] for row in opened(shifted).rows("own", "en", "train")] == ["a", "b", "b"]


# Files of several languages, and sentences that answer questions


def test_rows_are_told_by_how_a_column_begins(opened: Opened, tmp_path: Path) -> None:
    path = tmp_path / "all.test.tsv"
    path.write_text("text\tlabel\nen-1\ta\nsw-1\tb\nen-2\tb\n")
    own = task(files="all.{split}.tsv", labels=["a", "b"], where={"text": "{language}-"})
    corpus = opened(own)
    assert texts(corpus, "test") == ["en-1", "en-2"]
    assert texts(corpus, "test", "sw") == ["sw-1"]
    assert corpus.info("own", "en", "test").digest != corpus.info("own", "sw", "test").digest
    text = fault(lambda: corpus.info("own", "fi", "test"))
    assert text == f"{path}: no row whose 'text' begins with 'fi-'"


def test_ranking_of_sentences_is_made_of_questions(opened: Opened, folder: Path) -> None:
    def asked(name: str, context: str, *answers: tuple[str, str]) -> None:
        path = folder / "qa" / name / "test.jsonl"
        path.parent.mkdir(parents=True)
        rows = [
            {"id": f"q{i}", "context": context, "question": question, "answers": answer}
            for i, (question, answer) in enumerate(answers)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    asked("en", "Dr. B. Old came in 1.5 hours. He won! Why?", ("Who?", "Old"), ("What?", "won"))
    asked("zh", "他来了。他赢了！", ("谁", "他来"), ("什么", "赢"))
    splits = {"train": "test", "test": "test", "candidates": "test"}
    corpus = opened(task("ranking", folder="qa", splits=splits, from_qa=True), data=folder)
    train = corpus.rows("own", "en", "train")
    assert [(row["query"], row["answer"]) for row in train] == [
        ("Who?", "Dr. B. Old came in 1.5 hours."),
        ("What?", "He won!"),
    ]
    test = corpus.rows("own", "en", "test")
    assert [(row["id"], row["query"]) for row in test] == [("q0", "Who?"), ("q1", "What?")]
    assert all("answer" not in row for row in test)
    there = [*corpus.rows("own", "en", "candidates"), *corpus.rows("own", "zh", "candidates")]
    assert [(row["text"], row["answers"]) for row in there] == [
        ("Dr. B. Old came in 1.5 hours.", ["q0"]),
        ("He won!", ["q1"]),
        ("Why?", []),
        ("他来了。", ["q0"]),
        ("他赢了！", ["q1"]),
    ]
    assert len({row["id"] for row in there}) == 5
    infos = [corpus.info("own", "en", split) for split in splits]
    assert [info.rows for info in infos] == [2, 2, 3]
    assert len({info.digest for info in infos}) == 3


# Dividing


def test_a_file_is_divided_once_and_for_all(opened: Opened, tmp_path: Path) -> None:
    put(tmp_path / "en.tsv", "ab" * 25)
    own = task(files="{language}.tsv", labels=["a", "b"])
    corpus = opened(own)
    split = {name: texts(corpus, name) for name in ("train", "validation", "test")}
    assert {name: len(rows) for name, rows in split.items()} == {
        "train": 40,
        "validation": 5,
        "test": 5,
    }
    every = [text for rows in split.values() for text in rows]
    assert sorted(every) == sorted(f"t{i}" for i in range(50)) and every != sorted(every)
    again = opened(own)
    assert {name: texts(again, name) for name in split} == split
    infos = {name: corpus.info("own", "en", name) for name in split}
    assert {name: info.rows for name, info in infos.items()} == {
        "train": 40,
        "validation": 5,
        "test": 5,
    }
    assert len({info.digest for info in infos.values()}) == 3
    other = opened(
        own.model_copy(update={"places": (Place(files="{language}.tsv", divide_seed=2),)})
    )
    assert texts(other, "train") != split["train"]
    assert other.info("own", "en", "train").digest != infos["train"].digest
    put(tmp_path / "fi.tsv", "ab" * 25)
    assert texts(corpus, "train", "fi") != split["train"]


@pytest.mark.parametrize(
    ("place", "sizes"),
    [
        ({"divide": {"train": 0.25, "test": 0.75}}, {"train": 5, "test": 15}),
        ({"divide": {"test": 0.33, "train": 0.67}}, {"train": 13, "test": 7}),
        ({"splits": {"test": "test"}}, {"test": 20}),
        ({"splits": {"train": "x", "test": "x"}}, {"train": 18, "test": 2}),
    ],
)
def test_shares_are_as_asked(
    opened: Opened, tmp_path: Path, place: dict[str, Any], sizes: dict[str, int]
) -> None:
    put(tmp_path / "en.tsv", "ab" * 10)
    corpus = opened(task(files="{language}.tsv", labels=["a", "b"], **place))
    there = [s for s in ("train", "validation", "test") if corpus.has("own", "en", s)]
    assert {split: corpus.info("own", "en", split).rows for split in there} == sizes
    found = Counter(text for split in there for text in texts(corpus, split))
    assert len(found) == 20 and set(found.values()) == {1}


@pytest.mark.parametrize("kind", ["folder", "files"])
def test_only_a_single_split_is_divided(
    opened: Opened, tmp_path: Path, folder: Path, kind: str
) -> None:
    path = folder / "x" / "en" / "train.tsv"
    put(path, "ab" * 10)
    place: dict[str, Any] = {"divide": {"train": 0.5, "test": 0.5}}
    place |= {"folder": "x"} if kind == "folder" else {"files": "data/x/{language}/{split}.tsv"}
    own = task(labels=["a", "b"], **place)
    corpus = opened(own, data=folder)
    assert corpus.info("own", "en", "train").rows == corpus.info("own", "en", "test").rows == 10
    put(path.with_name("validation.tsv"), "ab")
    corpus = opened(own, data=folder)
    assert texts(corpus, "train") == [f"t{i}" for i in range(20)]
    assert corpus.has("own", "en", "validation") and not corpus.has("own", "en", "test")


def test_a_share_without_rows_is_an_error(opened: Opened, tmp_path: Path) -> None:
    path = put(tmp_path / "en.tsv", "abab")
    corpus = opened(task(files="{language}.tsv", labels=["a", "b"]))
    assert len(texts(corpus, "train")) == 3
    text = fault(
        lambda: corpus.info("own", "en", "test") and corpus.info("own", "en", "validation")
    )
    assert text.startswith(f"{path}: 4 rows are too few to have a share for ")
    path.write_text("text\tlabel\n")
    assert fault(lambda: opened(corpus.tasks["own"]).info("own", "en", "train")) == (
        f"{path}: the split is empty"
    )


# Which place


def test_the_first_place_that_has_a_split_is_read(
    opened: Opened, tmp_path: Path, folder: Path
) -> None:
    put(tmp_path / "own" / "en.train.tsv", "ab", 10)
    for split in ("train", "test"):
        put(folder / "shared" / "en" / f"{split}.tsv", "ab", 20)
    hub = {"hub": "o/n", "revision": REVISION, "config": "{language}"}
    places = [{"files": "own/{language}.{split}.tsv"}, {"folder": "shared"}, hub]
    own = task(labels=["a", "b"], places=places)
    corpus = opened(own, data=folder)
    assert texts(corpus, "train") == ["t10", "t11"] and texts(corpus, "test") == ["t20", "t21"]
    assert not corpus.has("own", "en", "validation") and not corpus.has("own", "sw", "test")
    assert corpus.wanted("own", "en", "test") == ()
    corpus = opened(own, hub=True)
    assert texts(corpus, "train") == ["t10", "t11"]
    assert corpus.wanted("own", "en", "test") == (HubSplit("o/n", REVISION, "en", "test"),)
    corpus = opened(own)
    assert corpus.has("own", "en", "train") and not corpus.has("own", "en", "test")


def test_a_task_that_may_not_be_looked_at_says_what_to_give(opened: Opened, folder: Path) -> None:
    hub = {"hub": "o/n", "revision": REVISION, "config": "{language}"}
    for places, words in (
        ([{"folder": "x"}], "give --data DIR"),
        ([hub], "say data: hub"),
        ([{"folder": "x"}, hub], "give --data DIR, or say data: hub"),
        ([], "the task has no places"),
    ):
        corpus = opened(task(labels=["a"], places=places))
        assert fault(lambda c=corpus: c.info("own", "en", "test")).endswith(words)  # type: ignore[misc]
        assert not corpus.has("own", "en", "test")
    with pytest.raises(DataError, match="unknown task 'owl'; did you mean 'own'"):
        corpus.rows("owl", "en", "test")
    with pytest.raises(UsageError, match="no such data folder"):
        opened(task(), data=folder / "none")


def test_shots_are_drawn_from_what_the_task_says(opened: Opened, tmp_path: Path) -> None:
    for name in ("en.train", "en.validation", "fi.validation", "sw.test"):
        put(tmp_path / f"{name}.tsv", "ab")
    own = task(files="{language}.{split}.tsv", labels=["a", "b"])
    corpus = opened(own)
    assert [corpus.shots_split("own", code) for code in ("en", "fi")] == ["train", "validation"]
    assert opened(own.model_copy(update={"shots": "validation"})).shots_split("own", "en") == (
        "validation"
    )
    text = fault(lambda: corpus.shots_split("own", "sw"))
    assert "no train or validation data for 'sw'" in text and "has test" in text


def test_other_names_of_splits_are_pointed_at(opened: Opened, folder: Path) -> None:
    put(folder / "x" / "en" / "dev.tsv", "ab")
    corpus = opened(task(folder="x", labels=["a", "b"]), data=folder)
    assert "say splits, e.g. {validation: dev}" in fault(lambda: corpus.info("own", "en", "test"))
    named = task(folder="x", labels=["a", "b"], splits={"validation": "dev"})
    assert texts(opened(named, data=folder), "validation") == ["t0", "t1"]


@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl", "parquet"])
def test_a_data_folder_takes_every_format(opened: Opened, folder: Path, suffix: str) -> None:
    path = folder / "x" / "en" / f"test.{suffix}"
    if suffix == "parquet":
        path.parent.mkdir(parents=True)
        parquet(path, {"text": ["t0"], "label": ["a"]})
    elif suffix == "jsonl":
        put(path, "").write_text('{"text": "t0", "label": "a"}\n')
    else:
        put(path, "a").write_text("text\tlabel\nt0\ta\n".replace("\t", ",\t"[suffix == "tsv"]))
    corpus = opened(task(folder="x", labels=["a"]), data=folder)
    assert texts(corpus, "test") == ["t0"] and corpus.languages("own") == ["en"]
    plain = corpus.info("own", "en", "test").digest == sha256_hex(path.read_bytes())
    assert plain == (suffix == "jsonl")


def test_tagged_files_of_other_columns(opened: Opened, folder: Path) -> None:
    path = folder / "x" / "de" / "test.conllu"
    path.parent.mkdir(parents=True)
    path.write_text("1\tJa\tja\tINTJ\t_\t_\t0\troot\t_\t_\n")
    own = task("tagging", folder="x", label="upos", labels=["INTJ"])
    assert opened(own, data=folder).rows("own", "de", "test")[0]["upos"] == ["INTJ"]
    path.with_suffix(".bio").write_text("Ja B-X\n")
    path.unlink()
    own = task("tagging", folder="x", label="ner", labels=["B-X"], columns={"ner": "tags"})
    assert opened(own, data=folder).rows("own", "de", "test")[0]["ner"] == ["B-X"]


# Labels


def test_labels_are_those_of_the_sources_training_data(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "en.train.tsv", "cab")
    put(tmp_path / "fi.test.tsv", "ca")
    path = put(tmp_path / "sw.test.tsv", "cd")
    own, store = task(files="{language}.{split}.tsv"), Store(tmp_path / "store")
    corpus = opened(own, notes=store)
    assert corpus.task("own").labels == ("a", "b", "c")
    assert texts(corpus, "test", "fi") == ["t0", "t1"]
    text = fault(lambda: corpus.info("own", "sw", "test"))
    assert text.startswith(f"{path}:3: label 'd' is outside the label set of own")
    info = corpus.info("own", "fi", "test")
    monkeypatch.setattr(unpacking, "content", lambda path: pytest.fail(f"read {path} again"))
    again = opened(own, notes=Store(store.root))
    assert again.task("own").labels == ("a", "b", "c") and again.info("own", "fi", "test") == info
    # Declared labels are something else to check, so the note of the others says nothing.
    with pytest.raises(pytest.fail.Exception):
        opened(own.model_copy(update={"labels": ("c", "a")}), notes=store).info("own", "fi", "test")


def test_labels_that_cannot_be_had_have_to_be_declared(opened: Opened, tmp_path: Path) -> None:
    put(tmp_path / "fi.train.tsv", "cab")
    own = task(files="{language}.{split}.tsv")
    assert "no train data for 'en'" in fault(lambda: opened(own).task("own"))
    assert "declare labels" in fault(lambda: opened(own, source="").task("own"))
    hub = task(hub="o/n", revision=REVISION, config="{language}")
    text = fault(lambda: opened(hub, hub=True).task("own"))
    assert "o/n en train @0123456 has not been fetched; declare labels" in text
    assert "adapterxlt fetch RECIPE" in text
    assert opened(task("choice", folder="x")).task("own").labels == ("0", "1")
    assert opened(task("qa", folder="x")).task("own").labels == ()


# Hubs

HUB = {"hub": "o/n", "revision": REVISION, "config": "x-{language}"}


def parquet(path: Path, columns: dict[str, Any], names: list[str] | None = None) -> None:
    import pyarrow
    from pyarrow import parquet as files

    features = {"label": {"names": names, "_type": "ClassLabel"}} if names else {}
    said = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    files.write_table(pyarrow.table(columns).replace_schema_metadata(said), path)


def test_a_hub_is_planned_without_its_data(opened: Opened) -> None:
    own = task(**HUB, labels=["a"], rows={"train": 77}, splits={"train": "train", "test": "dev"})
    corpus = opened(own, hub=True)
    train, test = (corpus.info("own", "sw", split) for split in ("train", "test"))
    assert (train.rows, train.exact, train.tokens_per_row) == (77, True, 40.0)
    assert (test.rows, test.exact) == (1000, False)
    split = HubSplit("o/n", REVISION, "x-sw", "dev")
    assert corpus.wanted("own", "sw", "test") == (split,) and test.digest == split.digest
    assert not corpus.has("own", "sw", "validation")
    text = fault(lambda: corpus.info("own", "sw", "validation"))
    assert text == "o/n: own: no validation data for 'sw'; o/n has test, train"
    renamed = opened(own.model_copy(update={"places": ()}), hub=True)
    assert not renamed.has("own", "sw", "test")
    columns = task(**HUB, labels=["a"], columns={"text": "sentence"})
    assert opened(columns, hub=True).info("own", "sw", "test").digest != test.digest


def test_languages_of_a_hub_are_those_that_are_named(opened: Opened) -> None:
    place = {**HUB, "languages": {"sw": "swa", "fi": "fin"}}
    corpus = opened(task(labels=["a"], places=[place]), hub=True)
    assert corpus.languages("own") == ["fi", "sw"]
    assert "languages with own: fi sw" in fault(lambda: corpus.info("own", "de", "test"))
    assert opened(task(labels=["a"], languages=["sw"], **HUB), hub=True).languages("own") == ["sw"]


def test_fetched_rows_are_read_from_the_shelf(opened: Opened, tmp_path: Path) -> None:
    own = task(**HUB, columns={"text": "sentence"}, relabel={"yes": "good"})
    shelf = Shelf(tmp_path / "store")
    corpus = opened(own, hub=True, shelf=shelf)
    for closed in (corpus, opened(own.model_copy(update={"labels": ("good", "no")}), hub=True)):
        text = fault(lambda closed=closed: closed.rows("own", "en", "train"))  # type: ignore[misc]
        assert "o/n x-en train @0123456 has not been fetched" in text
        assert "run adapterxlt fetch RECIPE" in text
    assert corpus.info("own", "en", "train").rows == 1000
    (split,) = corpus.wanted("own", "en", "train")
    shelf.root.mkdir(parents=True)
    parquet(shelf.path(split), {"sentence": ["x", "y"], "label": [1, 0]}, ["no", "yes"])
    assert corpus.task("own").labels == ("good", "no")
    rows = corpus.rows("own", "en", "train")
    assert [(row["text"], row["label"], row["#"]) for row in rows] == [
        ("x", "good", 1),
        ("y", "no", 2),
    ]
    (test,) = corpus.wanted("own", "en", "test")
    parquet(shelf.path(test), {"sentence": ["x", "y"], "label": ["no", "maybe"]})
    text = fault(lambda: corpus.rows("own", "en", "test"))
    assert text.startswith("o/n x-en test @0123456:2: label 'maybe' is outside")


def test_a_hubs_only_split_is_divided(opened: Opened, tmp_path: Path) -> None:
    shares = {"train": 0.75, "test": 0.25}
    own = task(**HUB, labels=["a"], divide=shares, splits={"test": "all"}, rows={"test": 8})
    shelf = Shelf(tmp_path / "store")
    corpus = opened(own, hub=True, shelf=shelf)
    train, test = (corpus.info("own", "en", split) for split in ("train", "test"))
    assert (train.rows, test.rows, train.exact, test.exact) == (6, 2, True, True)
    split = HubSplit("o/n", REVISION, "x-en", "all")
    assert corpus.wanted("own", "en", "train") == corpus.wanted("own", "en", "test") == (split,)
    assert len({train.digest, test.digest, split.digest}) == 3
    shelf.root.mkdir(parents=True)
    parquet(shelf.path(split), {"text": [f"t{i}" for i in range(8)], "label": ["a"] * 8})
    assert len(texts(corpus, "train")) == 6
    assert sorted(texts(corpus, "train") + texts(corpus, "test")) == [f"t{i}" for i in range(8)]
    plain = opened(task(**HUB, labels=["a"], divide=shares), hub=True)
    assert plain.wanted("own", "en", "test") == (HubSplit("o/n", REVISION, "x-en", "train"),)
    assert plain.info("own", "en", "test").rows == 250


def test_candidates_of_a_hub_are_a_configuration(opened: Opened) -> None:
    own = task("ranking", hub="o/n", revision=REVISION, config="{split}-{language}")
    own = own.model_copy(
        update={"places": (own.places[0].model_copy(update={"splits": {"candidates": "pool"}}),)}
    )
    corpus = opened(own, hub=True)
    (found,) = corpus.wanted("own", "sw", "candidates")
    assert found == HubSplit("o/n", REVISION, "pool-sw", "pool")
    assert not corpus.has("own", "sw", "test")


# Text


def test_text_of_ones_own_is_read_instead(opened: Opened, folder: Path, write: Write) -> None:
    write("mono/fi/bible", [{"text": "alussa"}])
    (folder / "mono" / "fi" / "news.txt").write_text("uutiset\n\nsää\n")
    (folder.parent / "fin.txt").write_text("eka\ntoka\n")
    corpus = opened(task(), data=folder)
    assert corpus.text("fi", None) == ["alussa", "uutiset", "sää"]
    place = Place(files="{language}.txt", languages={"fi": "fin", "sw": "swa"})
    corpus = opened(task(), data=folder, text=(place,))
    assert corpus.text("fi", None) == corpus.text("fi", ("fin",)) == ["eka", "toka"]
    info = corpus.text_info("fi", None)
    assert (info.rows, info.tokens_per_row) == (2, pytest.approx(2 + 7 / 2 / 3.5))
    assert corpus.wanted("text", "fi", "text") == ()
    text = fault(lambda: corpus.text_info("sw", None))
    assert "no monolingual text for 'sw'" in text and "languages with text: fi" in text
    assert "there is fin" in fault(lambda: corpus.text("fi", ("bible",)))
    assert "see --data" in fault(lambda: opened(task()).text("fi", None))


def test_text_of_a_hub(opened: Opened, tmp_path: Path) -> None:
    place = Place(
        hub="o/wiki", revision=REVISION, config="{language}", columns={"text": "body"},
        rows={"train": 9},
    )  # fmt: skip
    shelf = Shelf(tmp_path / "store")
    corpus = opened(task(), text=(place,), hub=True, shelf=shelf)
    info = corpus.text_info("fi", None)
    assert (info.rows, info.tokens_per_row, info.exact) == (9, 40.0, True)
    (split,) = corpus.wanted("text", "fi", "text")
    assert "has not been fetched" in fault(lambda: corpus.text("fi", None))
    shelf.root.mkdir(parents=True)
    parquet(shelf.path(split), {"body": ["a", "b"]})
    assert corpus.text("fi", None) == ["a", "b"]
    closed = opened(task(), text=(place,))
    assert "no monolingual text for 'fi'" in fault(lambda: closed.text_info("fi", None))


# The laboratory


def test_the_laboratory_answers_like_any_corpus() -> None:
    corpus = LabCorpus()
    assert corpus.task("lab-choice").labels == ("0", "1")
    assert {row["label"] for row in corpus.rows("lab-choice", "lab-root", "test")} == {"0", "1"}
    text = fault(lambda: corpus.info("lab-bitext", "lab-far-low", "train"))
    assert text == "lab-bitext has no train data for 'lab-far-low'"
    assert fault(lambda: corpus.rows("lab-bitext", "lab-far-low", "train")) == text
    assert not corpus.has("lab-bitext", "lab-far-low", "train")
    assert corpus.has("lab-ranking", "lab-far-low", "candidates")
    assert not corpus.has("lab-pos", "fi", "test")
    assert corpus.shots_split("lab-pos", "lab-far-low") == "train"
    assert "no train or validation" in fault(
        lambda: corpus.shots_split("lab-bitext", "lab-far-low")
    )
    assert "lab-root" not in corpus.languages("lab-bitext") and corpus.languages("lab-pos")
    with pytest.raises(DataError, match=r"the lab has no task 'udpos'"):
        corpus.task("udpos")


def test_all_of_the_laboratory_is_as_its_tasks_say() -> None:
    from adapterxlt import lab

    corpus = LabCorpus()
    for own, of in lab.TASKS.items():
        for language in corpus.languages(own)[-1:]:
            for split in of.splits:
                info, rows = corpus.info(own, language, split), corpus.rows(own, language, split)
                assert info.rows == len(rows) > 0 and info.exact
