"""Windows of every kind of task, against windows laid out by hand from single sub-words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from adapterxlt import lab
from adapterxlt.compute.data import Encoded, Window
from adapterxlt.compute.encoding import LONGEST_QUESTION, encode
from adapterxlt.core.tasks import TASKS

QA, CHOICE = TASKS["lab-qa"], TASKS["lab-choice"]
Row = dict[str, Any]


def bytewise() -> PreTrainedTokenizerFast:
    """A sub-word for every byte: several for most characters."""
    names = ["<s>", "<pad>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, cls_token="<s>", sep_token="</s>", pad_token="<pad>"
    )


@pytest.fixture(scope="module", params=["joined", "apart", "bytes"])
def tokenizer(request: pytest.FixtureRequest, tiny_backbone: Path) -> Any:
    """The lab's, in which a space belongs to the word after it; one in which spaces belong to
    nothing, as in XLM-R's; and one of bytes."""
    if request.param == "bytes":
        return bytewise()
    found = AutoTokenizer.from_pretrained(tiny_backbone)
    if request.param == "apart":
        found.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
        )
    return found


@pytest.fixture(scope="module")
def plain(tiny_backbone: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_backbone)


def pieces(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def framed(tokenizer: Any, *parts: list[int]) -> list[int]:
    """Sub-words as XLM-R frames them: <s> a </s>, or <s> a </s> </s> b </s>."""
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    ids = [cls, *parts[0], sep]
    return [*ids, sep, *parts[1], sep] if len(parts) == 2 else ids


def shortened(first: list[int], second: list[int], room: int) -> tuple[list[int], list[int]]:
    """Taken away from the longer one, sub-word by sub-word; of equal ones from the second."""
    while len(first) + len(second) > room:
        if len(first) > len(second):
            first = first[:-1]
        else:
            second = second[:-1]
    return first, second


# --- choice --------------------------------------------------------------------------------------


def choice_rows(count: int) -> list[Row]:
    return [{**r, "label": str(r["label"])} for r in lab.rows("lab-choice", "lab-root", "train")][
        :count
    ]


def test_a_choice_is_a_window_for_each_alternative(plain: Any) -> None:
    asked = {"cause": "what was before", "effect": "and then"}
    for questions in (None, asked, {"cause": "why"}):
        task = CHOICE.model_copy(update={"questions": questions})
        rows = choice_rows(20)
        assert {row["question"] for row in rows} == {"cause", "effect"}
        data = encode(plain, task, rows, 128)
        assert data.cut == frozenset() and len(data.rows) == 20
        for row, windows in zip(rows, data.rows, strict=True):
            text = (questions or {}).get(row["question"], row["question"])
            first = pieces(plain, f"{row['premise']} {text}")
            wanted = [
                Window(framed(plain, first, pieces(plain, row["choice1"])), [0], [], [0]),
                Window(framed(plain, first, pieces(plain, row["choice2"])), [0], [], [0]),
            ]
            wanted[0].labels.append(int(row["label"]))
            assert list(windows) == wanted


def test_a_choice_may_have_more_alternatives_and_no_question(plain: Any) -> None:
    columns = ("a", "b", "c", "d")
    task = CHOICE.model_copy(
        update={"choices": columns, "inputs": ("premise",), "labels": ("0", "1", "2", "3")}
    )
    rows = [
        {"premise": "dud sofu", "a": "x", "b": "y", "c": "z", "d": "dud", "label": "3"},
        {"premise": "sofu", "a": "1", "b": "2", "c": "3", "d": "4", "label": "1"},
    ]
    data = encode(plain, task, rows, 32)
    for row, windows in zip(rows, data.rows, strict=True):
        texts = [
            framed(plain, pieces(plain, row["premise"]), pieces(plain, row[c])) for c in columns
        ]
        assert [window.ids for window in windows] == texts
        assert [window.labels for window in windows] == [[int(row["label"])], [], [], []]
    new = [{k: v for k, v in row.items() if k != "label"} for row in rows]
    blind = encode(plain, task, new, 32, labelled=False)
    assert [row[0].labels for row in blind.rows] == [[0], [0]]
    assert [[w.ids for w in row] for row in blind.rows] == [[w.ids for w in r] for r in data.rows]


@pytest.mark.parametrize("column", ["premise", "choice1", "choice2"])
def test_a_choice_too_long_is_cut_where_it_is_longest_and_counted_once(
    plain: Any, column: str
) -> None:
    rows = choice_rows(6)
    rows[4] = {**rows[4], column: " ".join([rows[4][column]] * 14)}
    data = encode(plain, CHOICE, rows, 48)
    assert data.cut == {4}
    for row, windows in zip(rows, data.rows, strict=True):
        for name, window in zip(("choice1", "choice2"), windows, strict=True):
            first = pieces(plain, f"{row['premise']} {row['question']}")
            both = shortened(first, pieces(plain, row[name]), 48 - 4)
            assert window.ids == framed(plain, *both)
    assert max(len(w.ids) for w in data.rows[4]) == 48


# --- question answering --------------------------------------------------------------------------


def check_questions(
    tokenizer: Any, rows: list[Row], max_length: int, stride: int | None = None
) -> Encoded:
    """Every window of every row, against windows laid out by hand."""
    task = QA.model_copy(update={"stride": stride})
    data = encode(tokenizer, task, rows, max_length)
    longest = min(LONGEST_QUESTION, max_length // 3)
    shared = min(stride or max_length // 3, (max_length - longest - 4) // 2)
    cut = set()
    for i, (row, windows) in enumerate(zip(rows, data.rows, strict=True)):
        question = pieces(tokenizer, row["question"])
        asked = windows[0].ids[1 : windows[0].ids.index(tokenizer.sep_token_id)]
        if len(question) > longest:
            cut.add(i)
            # A character is not taken apart.
            assert longest <= len(asked) <= longest + 3 and question[: len(asked)] == asked
        else:
            assert asked == question
        whole = tokenizer(row["context"], add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = whole["input_ids"], whole["offset_mapping"]
        room, start, parts = max_length - 4 - len(asked), 0, []
        while True:
            parts.append(range(start, min(start + room, len(ids))))
            if start + room >= len(ids):
                break
            start += room - shared
        assert len(windows) == len(parts)
        for window, part in zip(windows, parts, strict=True):
            assert len(window.ids) <= max_length
            assert window.ids == framed(tokenizer, asked, [ids[n] for n in part])
            at = len(asked) + 3
            assert window.positions == [0, *range(at, at + len(part))]
            assert list(window.spans) == [(0, 0), *(tuple(offsets[n]) for n in part)]
            assert window.items == []
            assert window.labels == gold_labels(row, offsets, part)
    assert data.cut == cut
    return data


def gold_labels(row: Row, offsets: list[tuple[int, int]], part: range) -> list[int]:
    """By characters: is each that has a sub-word, of those of the answer, in this part?"""
    if not row["answers"]["text"]:
        return [0, 0]
    begin = row["answers"]["answer_start"][0]
    answer = set(range(begin, begin + len(row["answers"]["text"][0])))
    sounds = {c for a, b in offsets for c in range(a, b)} & answer
    here = {c for n in part for c in range(*offsets[n])} & answer
    if not sounds or here != sounds:
        return [0, 0]
    inside = [k for k, n in enumerate(part) if set(range(*offsets[n])) & answer]
    return [inside[0] + 1, inside[-1] + 1]


def qa_row(context: str, begin: int, end: int, question: str = "ba dud") -> Row:
    answers = {"text": [context[begin:end]], "answer_start": [begin]}
    return {"context": context, "question": question, "answers": answers}


@pytest.mark.parametrize(("max_length", "stride"), [(128, None), (40, None), (40, 5), (24, 50)])
def test_questions_of_the_lab(tokenizer: Any, max_length: int, stride: int | None) -> None:
    rows = [dict(r) for r in lab.rows("lab-qa", "lab-mid-mid", "train")[:25]]
    data = check_questions(tokenizer, rows, max_length, stride)
    answered = 0
    for row, windows in zip(rows, data.rows, strict=True):
        for window in windows:
            first, last = window.labels
            if last:
                said = row["context"][window.spans[first][0] : window.spans[last][1]]
                assert said.strip() == row["answers"]["text"][0]
                answered += 1
    assert answered >= 5
    if max_length == 24:
        assert any(len(windows) > 2 for windows in data.rows)


WORDS = (
    "dud ", "sofu", " ", "  ", "\n", ".", "ze zosal", "السلام عليكم", "سَلَامٌ", "สวัสดีครับ", "ภาษาไทย",
    "世界", "こんにちは", "😀", "👩‍👩‍👧", "🇫🇮", "é", "e\u0301", "\u200b", "ß", "ﬁ", "\u00a0",
)  # fmt: skip


@st.composite
def contexts(draw: st.DrawFn) -> str:
    """From 1 to 5000 characters of any script."""
    if draw(st.booleans()):
        return draw(st.text(min_size=1, max_size=80))
    some = "".join(draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=20)))
    length = draw(st.one_of(st.integers(1, 200), st.integers(1, 5000)))
    return (some * (length // len(some) + 1))[:length]


@given(contexts(), st.data())
@settings(max_examples=25)
def test_questions_in_any_script_and_of_any_length(
    tokenizer: Any, context: str, data: st.DataObject
) -> None:
    begin = data.draw(st.integers(0, len(context) - 1))
    size = data.draw(st.one_of(st.integers(1, 12), st.integers(1, len(context))))
    question = data.draw(st.sampled_from(["", "ba dud", "สวัสดี 😀", "sofu dud " * 30]))
    row = qa_row(context, begin, min(begin + size, len(context)), question)
    lengths = [(48, 7), (128, None), (128, 1)] + [(16, None)] * (len(context) < 300)
    length, stride = data.draw(st.sampled_from(lengths))
    check_questions(tokenizer, [row], length, stride)


def test_answers_at_the_very_ends_are_labelled_in_the_windows_that_have_them(
    tokenizer: Any,
) -> None:
    context = " ".join(f"dud sofu ze{i}" for i in range(40))
    size = len(context)
    rows = [qa_row(context, 0, 3), qa_row(context, size - 4, size), qa_row(context, 0, size)]
    data = check_questions(tokenizer, rows, 64)
    first, last, all_of_it = data.rows
    assert len(first) > 3
    assert [bool(w.labels[1]) for w in first] == [True] + [False] * (len(first) - 1)
    assert first[0].labels[0] == 1
    assert not any(w.labels[1] for w in last[:-1]) and last[-1].labels[1] == len(last[-1].spans) - 1
    assert all(w.labels == [0, 0] for w in all_of_it)
    short = check_questions(tokenizer, [qa_row("sofu dud", 0, 8)], 64)
    assert short.rows[0][0].labels == [1, len(short.rows[0][0].spans) - 1]


@pytest.mark.parametrize("text", [" sofu", "sofu ", " sofu ", "\n sofu  "])
def test_white_space_around_an_answer_does_not_lose_it(tokenizer: Any, text: str) -> None:
    """In many tokenizers it has no sub-word."""
    context = f"dud dud{text}ze varo"
    data = check_questions(tokenizer, [qa_row(context, 7, 7 + len(text))], 64)
    first, last = data.rows[0][0].labels
    assert 0 < first <= last
    spans = data.rows[0][0].spans
    assert "sofu" in context[spans[first][0] : spans[last][1]]
    assert "dud" not in context[spans[first][0] : spans[last][1]]


def test_an_answer_without_a_sub_word_and_no_answer_are_not_in_any_window(tokenizer: Any) -> None:
    rows = [qa_row("dud   sofu", 4, 5), qa_row("dud", 0, 3)]
    rows[1]["answers"] = {"text": [], "answer_start": []}
    check_questions(tokenizer, rows, 64)
    labels = [row[0].labels for row in encode(tokenizer, QA, rows[1:], 64).rows]
    assert labels == [[0, 0]]


def test_only_the_first_answer_is_learnt(plain: Any) -> None:
    row = qa_row("dud sofu dud varo", 9, 12)
    row["answers"] = {"text": ["dud", "dud", "varo"], "answer_start": [9, 0, 13]}
    (window,) = check_questions(plain, [row], 64).rows[0]
    first, last = window.labels
    assert (window.spans[first][0], window.spans[last][1]) == (8, 12)


def test_an_empty_context_is_one_window_without_answers(tokenizer: Any) -> None:
    row = {"context": "", "question": "dud", "answers": {"text": [], "answer_start": []}}
    data = check_questions(tokenizer, [row, qa_row("sofu", 0, 4)], 32)
    (window,) = data.rows[0]
    assert window.positions == [0] and list(window.spans) == [(0, 0)] and window.labels == [0, 0]


@pytest.mark.parametrize(("max_length", "longest"), [(128, 42), (30, 10)])
def test_long_questions_are_cut_and_counted(plain: Any, max_length: int, longest: int) -> None:
    words = ["dud"] * 200
    rows = [
        qa_row("dud sofu ze varo", 4, 8, " ".join(words[:count]))
        for count in (longest, longest + 1, 200, 1)
    ]
    data = check_questions(plain, rows, max_length)
    assert data.cut == {1, 2}
    asked = [row[0].ids.index(plain.sep_token_id) - 1 for row in data.rows]
    assert asked == [longest, longest, longest, 1]


def test_a_question_is_no_longer_than_xtreme_has_it(plain: Any) -> None:
    data = check_questions(plain, [qa_row("sofu", 0, 4, " ".join(["dud"] * 200))], 384)
    assert data.rows[0][0].ids.index(plain.sep_token_id) - 1 == LONGEST_QUESTION == 64


def test_new_questions_need_no_answers(plain: Any) -> None:
    rows = [dict(r) for r in lab.rows("lab-qa", "lab-root", "test")[:5]]
    known = encode(plain, QA, rows, 40)
    blind = encode(plain, QA, [{k: r[k] for k in QA.inputs} for r in rows], 40, labelled=False)
    for ours, theirs in zip(blind.rows, known.rows, strict=True):
        assert [(w.ids, w.positions, w.spans) for w in ours] == [
            (w.ids, w.positions, w.spans) for w in theirs
        ]
        assert all(w.labels == [0, 0] for w in ours)


# --- search --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "split", "side"),
    [
        ("lab-bitext", "test", "source"),
        ("lab-bitext", "test", "target"),
        ("lab-ranking", "test", "query"),
        ("lab-ranking", "candidates", "text"),
    ],
)
def test_what_is_searched_is_one_side_alone(plain: Any, task: str, split: str, side: str) -> None:
    rows = [dict(r) for r in lab.rows(task, "lab-mid-mid", split)[:10]]
    rows[3][side] = " ".join([rows[3][side]] * 9)
    data = encode(plain, TASKS[task], rows, 40, side=side)
    assert data.cut == {3}
    for row, windows in zip(rows, data.rows, strict=True):
        wanted = framed(plain, pieces(plain, row[side])[: 40 - 2])
        assert windows == (Window(wanted, [0], [], [0]),)


@pytest.mark.parametrize("column", ["query", "answer"])
def test_a_ranking_row_to_train_on_has_both_sides(plain: Any, column: str) -> None:
    rows = [dict(r) for r in lab.rows("lab-ranking", "lab-root", "train")[:8]]
    rows[5][column] = " ".join([rows[5][column]] * 9)
    data = encode(plain, TASKS["lab-ranking"], rows, 40)
    assert data.cut == {5}
    for row, windows in zip(rows, data.rows, strict=True):
        wanted = [framed(plain, pieces(plain, row[c])[:38]) for c in ("query", "answer")]
        assert [window.ids for window in windows] == wanted
        assert all((w.positions, w.labels) == ([0], []) for w in windows)


# --- the kinds with labels -----------------------------------------------------------------------


@pytest.mark.parametrize("max_length", [14, 128])
def test_every_word_is_tagged_once_at_its_first_sub_word(plain: Any, max_length: int) -> None:
    task = TASKS["lab-pos"]
    rows = [dict(r) for r in lab.rows("lab-pos", "lab-far-low", "train")[:20]]
    rows[2] = {**rows[2], "tokens": [], "upos": []}
    data = encode(plain, task, rows, max_length)
    for row, windows in zip(rows, data.rows, strict=True):
        assert [item for w in windows for item in w.items] == list(range(len(row["tokens"])))
        assert [task.labels[n] for w in windows for n in w.labels] == row["upos"]
        firsts = [w.ids[p] for w in windows for p in w.positions]
        assert firsts == [pieces(plain, word)[0] for word in row["tokens"]]
        inner = [piece for w in windows for piece in w.ids[1:-1]]
        assert inner == [piece for word in row["tokens"] for piece in pieces(plain, word)]
        assert all(len(w.ids) <= max_length for w in windows)
    assert data.cut == frozenset()
    assert max_length == 128 or any(len(windows) > 1 for windows in data.rows)


def test_a_word_too_long_for_a_window_is_cut_and_counted(plain: Any) -> None:
    words = ["dud", "qwxyz" * 5, "sofu"]
    row = {"tokens": words, "upos": ["DET", "NOUN", "VERB"]}
    data = encode(plain, TASKS["lab-pos"], [{**row, "tokens": ["dud"] * 3}, row], 12)
    assert data.cut == {1}
    assert [item for w in data.rows[1] for item in w.items] == [0, 1, 2]
    assert [w.ids[1:-1] for w in data.rows[1]][1] == pieces(plain, words[1])[:10]


@pytest.mark.parametrize("task", ["lab-topic", "lab-nli"])
def test_texts_and_pairs_are_scored_at_the_first_sub_word(plain: Any, task: str) -> None:
    rows = [dict(r) for r in lab.rows(task, "lab-root", "train")[:10]]
    of = TASKS[task]
    rows[7][of.inputs[-1]] = " ".join([rows[7][of.inputs[-1]]] * 20)
    data = encode(plain, of, rows, 100)
    assert data.cut == {7}
    for row, (window,) in zip(rows, data.rows, strict=True):
        parts = [pieces(plain, row[column]) for column in of.inputs]
        parts = list(shortened(*parts, 96)) if len(parts) == 2 else [parts[0][:98]]
        wanted = framed(plain, *parts)
        assert window == Window(wanted, [0], [of.labels.index(row["label"])], [0])


@given(st.sampled_from(["lab-pos", "lab-nli", "lab-choice", "lab-qa", "lab-ranking", "lab-bitext"]))
@example("lab-topic")
@settings(max_examples=6)
def test_no_rows_are_no_windows(plain: Any, task: str) -> None:
    assert encode(plain, TASKS[task], [], 64) == Encoded([])
