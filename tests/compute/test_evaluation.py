"""Metrics of labels by hand, and what a missing prediction counts; oracles: `test_metrics.py`."""

from __future__ import annotations

import pytest

from adapterxlt.compute.metrics import accuracy, macro_f1, span_f1, spans
from adapterxlt.compute.scoring import NONE, answers_of, score
from adapterxlt.core.tasks import TASKS

Tags = list[list[str]]


def test_spans_by_hand() -> None:
    row = ["B-PER", "I-PER", "B-PER", "O", "I-LOC", "I-LOC", "I-ORG", "B-ORG"]
    found = [("PER", 0, 2), ("PER", 2, 3), ("LOC", 4, 6), ("ORG", 6, 7), ("ORG", 7, 8)]
    assert spans(row) == found
    assert spans([]) == spans(["O", "O"]) == []


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


def test_a_missing_prediction_is_no_span() -> None:
    gold = [["B-PER", "I-PER"], ["B-LOC"]]
    filled = answers_of(gold, [{0: "B-PER"}, {0: "B-LOC"}])
    assert filled == [["B-PER", NONE], ["B-LOC"]]
    assert span_f1(gold, filled) == span_f1(gold, [["B-PER", "O"], ["B-LOC"]]) == 0.5


def test_a_missing_prediction_is_wrong_whatever_the_label() -> None:
    gold = [["O", "B-PER"], ["O"]]
    assert answers_of(gold, [{1: "B-PER"}, {}]) == [[NONE, "B-PER"], [NONE]]
    assert accuracy(gold, answers_of(gold, [{1: "B-PER"}, {}])) == pytest.approx(1 / 3)
    assert all(NONE not in task.labels for task in TASKS.values())


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
