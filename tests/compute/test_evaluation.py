"""Metrics, each against an independent implementation, and what a missing prediction counts."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from seqeval.metrics import f1_score as seqeval_f1
from seqeval.metrics.sequence_labeling import get_entities
from sklearn.metrics import accuracy_score, f1_score

from adapterxlt.compute.metrics import accuracy, macro_f1, span_f1, spans
from adapterxlt.compute.scoring import NONE, answers_of, score
from adapterxlt.core.tasks import TASKS

Tags = list[list[str]]
NER_LABELS = TASKS["ner"].labels

#: Any order of labels: most such rows are broken, an I- standing where nothing began.
BROKEN = st.lists(st.sampled_from([*NER_LABELS, "B", "I", "I-PER-X"]), max_size=12)
#: Tags without B-, as older data sets have them.
IO = st.lists(st.sampled_from(["O", "I-PER", "I-LOC"]), max_size=12)


@st.composite
def iob2(draw: st.DrawFn) -> list[str]:
    """A row as an annotator leaves it: every span begins with B-."""
    row: list[str] = []
    for name, length in draw(
        st.lists(st.tuples(st.sampled_from(["", "PER", "LOC", "ORG"]), st.integers(1, 3)))
    ):
        inside = [f"I-{name}"] * (length - 1)
        row += [f"B-{name}", *inside] if name else ["O"] * length
    return row


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tags, Tags]:
    """Gold and predicted rows of equal lengths, the prediction often right."""
    gold, predicted = [], []
    for row in draw(st.lists(st.one_of(iob2(), IO, BROKEN), min_size=1, max_size=5)):
        gold.append(row)
        label = st.sampled_from(NER_LABELS)
        predicted.append([draw(st.one_of(st.just(tag), label)) for tag in row])
    return gold, predicted


def reference(gold: Tags, predicted: Tags) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sides without a span
        return float(seqeval_f1(gold, predicted))


@given(st.one_of(iob2(), IO, BROKEN))
def test_spans_are_those_of_seqeval(row: list[str]) -> None:
    assert spans(row) == [(name, first, last + 1) for name, first, last in get_entities(row)]


def test_spans_by_hand() -> None:
    row = ["B-PER", "I-PER", "B-PER", "O", "I-LOC", "I-LOC", "I-ORG", "B-ORG"]
    found = [("PER", 0, 2), ("PER", 2, 3), ("LOC", 4, 6), ("ORG", 6, 7), ("ORG", 7, 8)]
    assert spans(row) == found
    assert spans([]) == spans(["O", "O"]) == []


@given(pairs())
@example(([["O"]], [["O"]]))
@example(([["B-PER"], ["I-PER"]], [["B-PER"], ["I-PER"]]))
def test_span_f1_is_that_of_seqeval(both: tuple[Tags, Tags]) -> None:
    gold, predicted = both
    assert span_f1(gold, predicted) == pytest.approx(reference(gold, predicted), abs=1e-12)


def test_span_f1_by_hand() -> None:
    gold = [["B-PER", "I-PER", "O"], ["B-LOC", "O"], ["B-ORG"]]
    # Right, half of a span, the wrong type, and one where there is none.
    predicted = [["B-PER", "I-PER", "O"], ["O", "B-LOC"], ["B-LOC"]]
    assert span_f1(gold, predicted) == pytest.approx(2 * 1 / (3 + 3))
    assert span_f1([["B-PER", "I-PER"]], [["B-PER", "O"]]) == 0.0
    assert span_f1(gold, gold) == 1.0


def test_a_span_ends_with_its_row() -> None:
    """In one row it would go on; the rows stand apart."""
    assert span_f1([["B-PER"], ["I-PER"]], [["B-PER"], ["B-PER"]]) == 1.0
    assert span_f1([["B-PER", "I-PER"]], [["B-PER", "B-PER"]]) == 0.0


@given(pairs(), st.data())
def test_a_missing_prediction_is_no_span(both: tuple[Tags, Tags], data: st.DataObject) -> None:
    gold, predicted = both
    kept = [[data.draw(st.booleans()) for _ in row] for row in predicted]
    answers = [
        {i: tag for i, tag in enumerate(row) if keep[i]}
        for row, keep in zip(predicted, kept, strict=True)
    ]
    filled = answers_of(gold, answers)
    for row, answer in zip(filled, answers, strict=True):
        assert row == [answer.get(i, NONE) for i in range(len(row))]
    outside = [[tag or "O" for tag in row] for row in filled]
    assert span_f1(gold, filled) == pytest.approx(reference(gold, outside), abs=1e-12)


def test_a_missing_prediction_is_wrong_whatever_the_label() -> None:
    gold = [["O", "B-PER"], ["O"]]
    assert answers_of(gold, [{1: "B-PER"}, {}]) == [[NONE, "B-PER"], [NONE]]
    assert accuracy(gold, answers_of(gold, [{1: "B-PER"}, {}])) == pytest.approx(1 / 3)
    assert all(NONE not in task.labels for task in TASKS.values())


@given(pairs())
def test_accuracy_and_macro_f1_are_those_of_scikit_learn(both: tuple[Tags, Tags]) -> None:
    gold, predicted = both
    flat = [tag for row in gold for tag in row]
    if not flat:
        return
    answers = [tag for row in predicted for tag in row]
    assert accuracy(gold, predicted) == pytest.approx(accuracy_score(flat, answers))
    labels = sorted(set(flat))
    each = f1_score(flat, answers, labels=labels, average=None, zero_division=0)
    assert macro_f1(gold, predicted) == pytest.approx(sum(each) / len(each))


def test_labels_that_occur_in_predictions_alone_are_no_label_of_macro_f1() -> None:
    assert macro_f1([["a"], ["a"]], [["a"], ["b"]]) == pytest.approx(2 / 3)


def test_rows_of_different_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        answers_of([["O"]], [])
    with pytest.raises(ValueError, match="zip"):
        accuracy([["O", "O"]], [["O"]])


def test_the_baseline_is_the_most_frequent_gold_label() -> None:
    gold = [["O", "O", "B-PER"], ["O"]]
    found = score(gold, [["O", "O", "B-PER"], ["B-PER"]], ("span_f1", "accuracy"))
    assert list(found) == ["span_f1", "accuracy"]
    assert found["accuracy"] == {"score": 0.75, "baseline": 0.75}
    assert found["span_f1"] == {"score": pytest.approx(2 / 3), "baseline": 0.0}
