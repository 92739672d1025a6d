"""Conditions on columns against plain Python, and what is said of those that are none."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from adapterxlt.core.errors import UsageError
from adapterxlt.report.choosing import Condition, choose, choose_known, columns
from adapterxlt.report.export import select

Row = dict[str, Any]


def chosen(rows: list[Row], *texts: str) -> list[Row]:
    return choose(rows, [Condition.parse(text) for text in texts])


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (["shots=10"], lambda r: r["shots"] == 10),
        (["shots=0,100"], lambda r: r["shots"] in (0, 100)),
        (["regime=joint, zero-shot"], lambda r: r["regime"] in ("joint", "zero-shot")),
        (["regime!=joint"], lambda r: r["regime"] != "joint"),
        (["regime!=joint,zero-shot"], lambda r: r["regime"] not in ("joint", "zero-shot")),
        (["shots>=10"], lambda r: r["shots"] >= 10),
        (["shots>=1", "shots<=99.5"], lambda r: r["shots"] == 10),
        (
            ["score<=0.5", "target!=lab-eno"],
            lambda r: r["score"] <= 0.5 and r["target"] != "lab-eno",
        ),
        (["draw=none"], lambda r: r["draw"] is None),
        (["draw!=none"], lambda r: r["draw"] is not None),
        (["draw>=0"], lambda r: r["draw"] is not None),
        (["upper_bound=TRUE"], lambda r: r["upper_bound"]),
        (["role=source", " shots = 10"], lambda r: r["role"] == "source" and r["shots"] == 10),
        (["shots=10", "shots=100"], lambda r: False),
        ([], lambda r: True),
    ],
)
def test_rows_are_chosen(texts: list[str], wanted: Callable[[Row], bool], rows: list[Row]) -> None:
    expected = [row for row in rows if wanted(row)]
    assert chosen(rows, *texts) == expected
    assert bool(expected) is (texts != ["shots=10", "shots=100"])


def test_one_value_is_what_select_chooses(rows: list[Row]) -> None:
    for column, value in (("draw", "none"), ("lab", "true"), ("target", "lab-cid"), ("seed", "1")):
        assert chosen(rows, f"{column}={value}") == select(rows, {column: value}) != []


def test_values_with_a_comma_or_a_sign_in_them(row_of: Callable[..., Row]) -> None:
    rows = [row_of(regime="a,b"), row_of(regime="a"), row_of(regime="x=y"), row_of(regime="")]
    assert chosen(rows, "regime=a,b") == rows[:2]
    assert chosen(rows, "regime=x=y") == [rows[2]]
    assert chosen(rows, "regime=") == [rows[3]]


def test_a_score_that_does_not_exist_is_on_no_side(row_of: Callable[..., Row]) -> None:
    rows = [row_of(score=math.nan), row_of(score=None), row_of(score=0.0)]
    assert chosen(rows, "score>=0") == chosen(rows, "score<=0") == [rows[2]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("regmie=joint", "no column 'regmie'; did you mean 'regime'?"),
        ("shot>=1", "no column 'shot'; did you mean 'shots'?"),
        ("zzzzzz=1", "no column 'zzzzzz'; the columns are study, task, "),
        ("=1", "no column ''; the columns are"),
        ("shots", "'shots' is no condition; write COLUMN=VALUE"),
        ("shots>10", "'shots>10' is no condition; write COLUMN=VALUE"),
        ("shots>=many", "shots>=many: 'many' is no number"),
        ("regime>=1", "regime>=1: 'regime' has no numbers; use = or !="),
        ("lab<=1", "lab<=1: 'lab' has no numbers"),
    ],
)
def test_what_is_no_condition(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        Condition.parse(text)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_missing_runs_follow_the_choice_of_rows() -> None:
    entries = [{"task": t, "regime": r, "shots": n} for t in "ab" for r in "xy" for n in (1, 2)]

    def known(*texts: str) -> list[Row]:
        return list(choose_known(entries, [Condition.parse(text) for text in texts]))

    assert known("task=a", "metric=f1", "primary=true") == entries[:4]
    assert known("shots>=2", "regime!=x") == [entries[3], entries[7]]
    assert known("score=0.5") == [] == choose_known([], [Condition.parse("metric=f1")])
    assert known() == entries


def test_columns() -> None:
    assert columns("regime, shots,regime") == ("regime", "shots")
    with pytest.raises(UsageError, match="no column 'class'; the columns are"):
        columns("class")
    with pytest.raises(UsageError, match=r"no column 'targt'; did you mean 'target'\?"):
        columns("shots,targt")
