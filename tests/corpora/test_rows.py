"""Rows by kind: what is brought into form, and the words for each wrong input."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterxlt.core.errors import DataError
from adapterxlt.core.tasks import TASKS, Task
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


def task(kind: str, **more: Any) -> Task:
    return Task.model_validate({"name": "own", "kind": kind, **more}).filled()


TAGGING = task("tagging", labels=["O", "B-PER"])
TOPIC = task("classification", labels=["a", "b"])
QUESTIONS = {"cause": "Why?", "effect": "What then?"}
CHOICE = task("choice", questions=QUESTIONS)
QA = task("qa")
RETRIEVAL = task("retrieval")
RANKING = task("ranking")

CONTEXT = "In 1066 the Normans came; in 1066."
GOOD: dict[str, tuple[Task, dict[str, Any]]] = {
    "tagging": (TAGGING, {"tokens": ["a"], "tags": ["O"]}),
    "classification": (TOPIC, {"text": "x", "label": "a"}),
    "choice": (
        CHOICE,
        {"premise": "p", "question": "cause", "choice1": "1", "choice2": "2", "label": 1},
    ),
    "qa": (
        QA,
        {
            "context": CONTEXT,
            "question": "q",
            "answers": {"text": ["Normans"], "answer_start": [12]},
        },
    ),
    "retrieval": (RETRIEVAL, {"source": "a", "target": "b"}),
    "ranking": (RANKING, {"query": "q", "answer": "a"}),
}


def one(own: Task, row: dict[str, Any], split: str = "test", **more: Any) -> dict[str, Any]:
    return check("f", own, [{**row, "#": 7}], split, **more)[0]


def fault(own: Task, row: dict[str, Any], split: str = "test", **more: Any) -> str:
    with pytest.raises(DataError) as caught:
        one(own, row, split, **more)
    assert caught.value.where == "f:7" and "\n" not in str(caught.value)
    return str(caught.value).removeprefix("f:7: ")


@pytest.mark.parametrize("kind", GOOD)
def test_a_missing_column_names_those_there_are(kind: str) -> None:
    own, row = GOOD[kind]
    one(own, row, "train")
    for column in own.columns:
        rest = {k: v for k, v in row.items() if k != column}
        text = fault(own, {**rest, column + "s": 1}, "train")
        there = ", ".join([*rest, column + "s"])
        assert text == f"no column {column!r}; there is {there}; did you mean '{column}s'?"
    with pytest.raises(DataError, match="f: the split is empty"):
        check("f", own, [], "train")


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize("value", [None, 5.5, True, {"a": 1}])
def test_no_column_takes_any_value(kind: str, value: Any) -> None:
    own, row = GOOD[kind]
    for column in own.columns:
        assert fault(own, {**row, column: value}, "train")


# Tagging


def test_lists_of_a_table_are_json_or_words_between_spaces() -> None:
    for tokens in ('["a", "b"]', "a b", " a  b "):
        row = one(TAGGING, {"tokens": tokens, "tags": "O B-PER"}, cells=True)
        assert row["tokens"] == ["a", "b"] and row["tags"] == ["O", "B-PER"]
    assert one(TAGGING, {"tokens": "a\u00a0b c", "tags": "O O"}, cells=True)["tokens"] == [
        "a\u00a0b",
        "c",
    ]
    row = {"tokens": "a b", "tags": ["O", "O"]}
    assert fault(TAGGING, row) == "tokens and labels are lists of strings"
    for tokens in ("[a b]", "[1, 2]", '["a", null]'):
        row = {"tokens": tokens, "tags": "O O"}
        assert fault(TAGGING, row, cells=True) == "tokens and labels are lists of strings"
    row = {"tokens": "a b c", "tags": "O O"}
    assert fault(TAGGING, row, cells=True) == "3 tokens but 2 labels"


def test_tags_are_those_of_the_task() -> None:
    row = {"tokens": ["a", "b"], "tags": ["O", "B-PRE"]}
    words = "label 'B-PRE' is outside the label set of own; did you mean 'B-PER'?"
    assert fault(TAGGING, row) == words
    assert one(TAGGING, row, relabel={"B-PRE": "B-PER"})["tags"] == ["O", "B-PER"]
    assert one(TAGGING.model_copy(update={"labels": ()}), row)["tags"] == ["O", "B-PRE"]


# Classification


def test_numbers_are_labels_where_they_are_labels() -> None:
    numbers = task("classification", labels=["0", "1"])
    assert [one(numbers, {"text": "x", "label": v})["label"] for v in (0, "1")] == ["0", "1"]
    assert "label 2 is outside" in fault(numbers, {"text": "x", "label": 2})
    assert "label 0 is outside" in fault(TOPIC, {"text": "x", "label": 0})
    assert one(TOPIC, {"text": "x", "label": 0}, relabel={"0": "a"})["label"] == "a"
    unknown = task("classification")
    assert [one(unknown, {"text": "x", "label": v})["label"] for v in (3, "x")] == ["3", "x"]
    for value in (True, 1.0, None, ["a"]):
        assert "outside the label set" in fault(unknown, {"text": "x", "label": value})


def test_labels_are_inferred_in_order() -> None:
    rows = [{"text": "x", "label": label} for label in ("b", "a", "c", "a")]
    assert infer_labels(TOPIC, rows) == ("a", "b", "c")
    tagged = [{"tags": ["B-PER", "O"]}, {"tags": ["B-LOC"]}, {"tags": []}]
    assert infer_labels(TAGGING, tagged) == ("O", "B-LOC", "B-PER")
    assert numbered(CHOICE).labels == ("0", "1")


# Choice


@pytest.mark.parametrize(("label", "read"), [(0, "0"), (1, "1"), ("0", "0"), ("1", "1")])
def test_the_label_is_the_number_of_a_choice(label: Any, read: str) -> None:
    own, row = GOOD["choice"]
    assert one(own, {**row, "label": label})["label"] == read
    declared = own.model_copy(update={"labels": ("0", "1")})
    assert one(declared, {**row, "label": label})["label"] == read


@pytest.mark.parametrize("label", [2, -1, "2", "01", "choice1", True, None, 1.0])
def test_no_other_label_is(label: Any) -> None:
    own, row = GOOD["choice"]
    text = fault(own, {**row, "label": label})
    assert text == f"label {label!r} is no number of one of 2 choices; they are 0, 1"
    wider = task("choice", choices=["choice1", "choice2", "choice3"], questions=QUESTIONS)
    if label in (2, "2"):
        assert one(wider, {**row, "choice3": "3", "label": label})["label"] == "2"


def test_a_task_may_have_names_of_its_own_for_the_numbers() -> None:
    own, row = GOOD["choice"]
    named = own.model_copy(update={"labels": ("1", "2")})
    assert [one(named, {**row, "label": v})["label"] for v in (1, "2")] == ["1", "2"]
    assert fault(named, {**row, "label": 0}).endswith("they are 1, 2")


def test_labels_from_one_are_relabelled() -> None:
    own, row = GOOD["choice"]
    shift = {"1": "0", "2": "1"}
    read = [one(own, {**row, "label": v}, relabel=shift)["label"] for v in (1, 2, "2")]
    assert read == ["0", "1", "1"]


def test_a_question_is_one_of_those_of_the_task() -> None:
    own, row = GOOD["choice"]
    text = fault(own, {**row, "question": "causes"})
    assert text == "question 'causes' is none of the task's; did you mean 'cause'?"
    assert one(task("choice"), {**row, "question": "Why so?"})["question"] == "Why so?"
    assert fault(own, {**row, "choice2": 4}) == "column 'choice2' is not text"


# Question answering


def qa(answers: Any, split: str = "test", **more: Any) -> Any:
    row = {"context": CONTEXT, "question": "q", "answers": answers}
    return one(QA, row, split, **more)["answers"]


def qa_fault(answers: Any, split: str = "test", **more: Any) -> str:
    row = {"context": CONTEXT, "question": "q", "answers": answers}
    return fault(QA, row, split, **more)


def test_answers_in_any_form_are_read_as_one() -> None:
    lists = {"text": ["Normans", "1066"], "answer_start": [12, 29]}
    rows = [{"text": "Normans", "answer_start": 12}, {"text": "1066", "answer_start": 29}]
    for given_ in (lists, rows):
        assert qa(given_, "train") == lists
        assert qa(json.dumps(given_), "train", cells=True) == lists
    first = {"text": ["1066"], "answer_start": [3]}
    assert qa("1066") == qa(["1066"]) == qa("1066", cells=True) == first
    assert qa({"text": "1066", "answer_start": 3}) == first
    assert qa("the Normans", cells=True)["answer_start"] == [8]


@pytest.mark.parametrize("answers", [[], {"text": [], "answer_start": []}])
def test_only_training_needs_an_answer(answers: Any) -> None:
    assert qa(answers) == qa(answers, "validation") == {"text": [], "answer_start": []}
    assert qa("", cells=True) == {"text": [], "answer_start": []}
    assert qa_fault(answers, "train") == "no answer, which a row of train needs"


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (
            {"text": ["Normans"], "answer_start": [11]},
            "answer 'Normans' is not at 11 of the context, which has ' Norman' there; it is at 12",
        ),
        (
            {"text": ["1066"], "answer_start": [27]},
            "answer '1066' is not at 27 of the context, which has 'n 10' there; it is at 29",
        ),
        (
            {"text": ["1066"], "answer_start": [5]},
            "answer '1066' is not at 5 of the context, which has '66 t' there; it is at 3",
        ),
        (
            {"text": ["Saxons"], "answer_start": [12]},
            "answer 'Saxons' is not at 12 of the context, which has 'Norman' there; "
            "it is nowhere in the context",
        ),
        ({"text": ["1066"], "answer_start": [-5]}, "is not at -5 of the context"),
        ({"text": ["1066"], "answer_start": [999]}, "which has '' there; it is at 29"),
        ({"text": ["a", "b"], "answer_start": [1]}, "2 answers but 1 places"),
        ({"text": ["1066"], "answer_start": ["3"]}, "answer_start '3' is not a whole number"),
        ({"text": ["1066"], "answer_start": [True]}, "answer_start True is not a whole number"),
        ({"text": [""], "answer_start": [3]}, "answer '' is not text"),
        ({"text": [5], "answer_start": [3]}, "answer 5 is not text"),
        ({"text": ["1066"]}, "column 'answers' has no answers; {text: [...]"),
        ([{"text": "1066"}], "column 'answers' has no answers"),
        (12, "column 'answers' has no answers"),
        ("Saxons", "answer 'Saxons' is nowhere in the context"),
        ("", "answer '' is not text"),
    ],
)
def test_wrong_answers_say_what_is_there(answers: Any, words: str) -> None:
    assert words in qa_fault(answers)


@pytest.mark.parametrize(("said", "found"), [(31, 29), (27, 3), (12, 3), (0, 3), (99, 29), (-4, 3)])
def test_answers_are_realigned_where_the_place_says_so(said: int, found: int) -> None:
    answers = {"text": ["1066"], "answer_start": [said]}
    assert "is not at" in qa_fault(answers)
    assert qa(answers, realign=True)["answer_start"] == [found]
    nowhere = {"text": ["1067"], "answer_start": [said]}
    assert "it is nowhere in the context" in qa_fault(nowhere, realign=True)


@given(st.text(max_size=30), st.data())
def test_every_answer_that_is_there_is_taken(context: str, data: Any) -> None:
    start = data.draw(st.integers(0, max(0, len(context) - 1)))
    end = data.draw(st.integers(start + 1, max(start + 1, len(context))))
    text = context[start:end]
    row = {
        "context": context,
        "question": "q",
        "answers": {"text": [text], "answer_start": [start]},
    }
    if text:
        assert one(QA, row, "train")["answers"]["answer_start"] == [start]


# Retrieval and ranking


def test_what_is_searched_is_not_empty() -> None:
    for column in ("source", "target"):
        row = {"source": "a", "target": "b", column: " \u00a0"}
        assert fault(RETRIEVAL, row) == f"column {column!r} is empty"
    for column in ("query", "answer"):
        row = {"query": "a", "answer": "b", column: ""}
        assert fault(RANKING, row, "train") == f"column {column!r} is empty"


def test_each_split_of_ranking_has_its_own_columns() -> None:
    query = {"id": 1, "query": "q", "relevant": ["c1", "c2", "c1"]}
    assert one(RANKING, query)["relevant"] == ["c1", "c2"]
    assert one(RANKING, {**query, "relevant": [3]})["relevant"] == ["3"]
    for cell in ('["c1", "c2"]', "c1 c2"):
        row = one(RANKING, {**query, "relevant": cell}, cells=True)
        assert row["relevant"] == ["c1", "c2"]
    assert one(RANKING, query)["id"] == "1"
    found = one(RANKING, {"id": 4, "text": "t", "answers": [1, "2"]}, "candidates")
    assert (found["id"], found["answers"]) == ("4", ["1", "2"])
    assert "no column 'id'" in fault(RANKING, {"query": "q", "relevant": ["c1"]})
    assert "no column 'relevant'" in fault(RANKING, {"id": "1", "query": "q", "answer": "a"})
    assert "no column 'answer'" in fault(RANKING, query, "validation")
    assert "no column 'id'" in fault(RANKING, {"text": "t"}, "candidates")
    assert "no column 'text'" in fault(RANKING, {"id": "1", "query": "t"}, "candidates")


@pytest.mark.parametrize("relevant", [[], "c1", None, 5, {"c1": 1}])
def test_relevant_is_a_list_of_ids(relevant: Any) -> None:
    row = {"id": "1", "query": "q", "relevant": relevant}
    empty = "no candidate is relevant; 'relevant' lists ids of candidates"
    assert fault(RANKING, row) == (empty if relevant == [] else "'relevant' is no list of ids")
    if relevant not in (5, "c1"):
        assert fault(RANKING, {**row, "relevant": [relevant]}) == f"id {relevant!r} is not text"


def test_candidates_have_ids_of_their_own() -> None:
    rows = [{"id": name, "text": "t", "#": n} for n, name in enumerate(("1", "2", 1), 1)]
    with pytest.raises(DataError, match=r"f:3: candidate '1' is there twice"):
        check("f", RANKING, rows, "candidates")
    for value in (None, "", True):
        row = {"id": value, "text": "t"}
        assert fault(RANKING, row, "candidates") == f"id {value!r} is not text"
    assert fault(RANKING, {"id": "1", "text": ""}, "candidates") == "column 'text' is empty"


def test_rows_of_text() -> None:
    assert check_text("f", [{"text": "", "#": 1}])
    with pytest.raises(DataError, match="f:2: a row of text has a string 'text'"):
        check_text("f", [{"text": "a", "#": 1}, {"line": "a", "#": 2}])


# Sizes, shares and names


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("tagging", 2),
        ("classification", 1),
        ("choice", 2 * (1 + 5) + 2),
        ("qa", len(CONTEXT) + 1),
        ("retrieval", 2),
        ("ranking", 2),
    ],
)
def test_all_that_is_encoded_is_counted(kind: str, count: int) -> None:
    own, row = GOOD[kind]
    assert characters(own, row) == count
    assert characters(RANKING, {"id": "1", "text": "four"}) == 4


@given(
    st.integers(0, 500),
    st.lists(st.integers(1, 20), min_size=1, max_size=3),
)
def test_shares_are_disjoint_and_whole(n: int, weights: list[int]) -> None:
    names = ("train", "validation", "test")[: len(weights)]
    shares = {name: w / sum(weights) for name, w in zip(reversed(names), weights, strict=True)}
    found = parts(n, shares)
    assert [i for name in names for i in found[name]] == list(range(n))
    for name, share in shares.items():
        assert abs(len(found[name]) - share * n) <= 1


def test_languages_that_may_have_been_meant_come_first() -> None:
    there = ["am", "de", "en", "sw", "zh"]
    assert nearest("fi", there) == "am de en sw zh"
    assert nearest("swa", there) == "sw am de en zh"
    assert nearest("zh-CN", there).startswith("zh ")
    assert nearest("German", there).startswith("de ")
    many = [f"x{i:02}" for i in range(40)]
    assert nearest("x39", many[:39]).endswith(" and 24 more")


def test_rows_of_one_language_are_kept() -> None:
    rows = [{"id": name, "#": n} for n, name in enumerate(("fi-1", "sw-1", "fi-2"), 1)]
    assert [row["#"] for row in kept("f", rows, {"id": "fi-"})] == [1, 3]
    assert kept("f", rows, {}) == rows and kept("f", [], {"id": "fi-"}) == []
    with pytest.raises(DataError, match="f: no row whose 'id' begins with 'de-'"):
        kept("f", rows, {"id": "de-"})
    with pytest.raises(DataError, match=r"f:1: no text in a column 'lang'.*there is id"):
        kept("f", rows, {"lang": "fi"})


def test_every_shipped_task_says_what_its_rows_need() -> None:
    for name, own in TASKS.items():
        with pytest.raises(DataError, match="f:7: no column"):
            one(own, {}, "train")
        assert own.name == name
