"""Two studies side by side against figures by hand and SciPy, and what does not pair."""

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from adapterxlt.core.errors import UsageError
from adapterxlt.report.comparing import differences, records, sentences, signed, table
from adapterxlt.report.matching import RUN, pair
from adapterxlt.report.summaries import UPPER_BOUND
from adapterxlt.report.tables import text_table

Row = dict[str, Any]
RowOf = Callable[..., Row]


@pytest.fixture
def by_hand(row_of: RowOf) -> tuple[list[Row], list[Row]]:
    """Three runs of one language and two of another: +5, +1, +12 and 0, +4 points."""
    first = {"fi": (0.50, 0.60, 0.40), "sw": (0.30, 0.30)}
    second = {"fi": (0.55, 0.61, 0.52), "sw": (0.30, 0.34)}

    def study(name: str, scores: dict[str, tuple[float, ...]]) -> list[Row]:
        classes = {"fi": "high", "sw": "low"}
        return [
            row_of(study=name, target=t, resource_class=classes[t], draw=draw, score=score)
            | {"evaluate_key": f"{name} {t} {draw}"}
            for t, those in scores.items()
            for draw, score in enumerate(those)
        ]

    return study("small", first), study("large", second)


@pytest.fixture
def other(rows: list[Row]) -> list[Row]:
    """The same study with another backbone: higher by about three points."""
    noise = random.Random(3)
    return [
        {
            **row,
            "study": "larger",
            "score": row["score"] + noise.gauss(0.03, 0.02),
            "evaluate_key": row["evaluate_key"][::-1],
        }
        for row in rows
    ]


def test_figures_by_hand(by_hand: tuple[list[Row], list[Row]]) -> None:
    found = pair(*by_hand)
    assert (found.count, found.only_a, found.only_b) == (5, 0, 0)
    (line,) = differences(found.usable)
    # A language weighs the same with three runs as with two: over runs it would be +4.4.
    assert (line.mean_a, line.mean_b) == pytest.approx((0.40, 0.44))
    assert line.difference == pytest.approx(0.04)
    assert (line.languages, line.pairs, line.higher, line.equal) == (2, 5, 4, 1)
    # 12.706 x the standard deviation of 6 and 2 points / sqrt(2).
    assert line.over == "languages" and line.interval is not None
    assert line.interval.low == pytest.approx(0.04 - 0.25412, abs=1e-5)
    assert line.interval.high == pytest.approx(0.04 + 0.25412, abs=1e-5)
    shown = table([line])
    assert shown.header[-5:] == ("B - A", "95 % over languages", "languages", "pairs", "B higher")
    assert shown.body == (
        ("joint", "10", "40.0", "44.0", "+4.0", "[-21.4, +29.4]", "2", "5", "4 of 5"),
    )
    assert "In 1 pair both scores are equal." in shown.notes
    assert shown.title == "B - A, tagging: accuracy x 100 (lab)"


def test_one_language_has_an_interval_over_runs(by_hand: tuple[list[Row], list[Row]]) -> None:
    lines = differences(pair(*by_hand).usable, "target")
    assert [(line.part, line.over, line.pairs) for line in lines] == [
        ("fi", "runs", 3),
        ("sw", "runs", 2),
    ]
    # 4.303 x the standard deviation of 5, 1 and 12 points (5.568) / sqrt(3).
    assert lines[0].interval is not None
    assert lines[0].interval.low == pytest.approx(0.06 - 0.13832, abs=1e-4)
    assert "95 % over runs" in table(lines, "target").header
    both = [line for part in (None, "target") for line in differences(pair(*by_hand).usable, part)]
    mixed = table(both)
    assert "95 % over languages (r: runs)" in mixed.header
    assert [line[5].endswith(" r") for line in mixed.body] == [False, True, True]
    # A single run of a single language.
    (single,) = differences(pair(*(rows[:1] for rows in by_hand)).usable)
    assert single.interval is None and table([single]).body[0][5] == "–"
    assert records([single])[0]["over"] is None


@pytest.mark.parametrize("by", [None, "class"])
def test_lines_agree_with_pandas_and_scipy(
    by: str | None, rows: list[Row], other: list[Row]
) -> None:
    keys = [*("regime", "shots"), *(["resource_class"] if by else [])]
    frame = pd.DataFrame(rows).assign(gap=np.array([r["score"] for r in other]))
    frame = frame[frame.role == "target"].assign(gap=lambda f: f.gap - f.score)
    lines = differences(pair(rows, other).usable, by)
    assert len(lines) == (44 if by else 11)
    for line in lines:
        key = (line.regime, line.shots, line.part)[: len(keys)]
        mine = frame[(frame[keys] == list(key)).all(axis=1)]
        values = mine.groupby("target").gap.mean()
        over = "languages" if len(values) > 1 else "runs"
        values = values if over == "languages" else mine.gap
        expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert line.over == over and line.interval is not None
        assert (line.interval.low, line.interval.high) == pytest.approx(tuple(expected))
        assert line.difference == pytest.approx(mine.groupby("target").gap.mean().mean())
        assert line.mean_a == pytest.approx(mine.groupby("target").score.mean().mean())
        assert (line.pairs, line.higher) == (len(mine), int((mine.gap > 0).sum()))


def test_lines_stand_in_the_order_of_the_study(rows: list[Row], other: list[Row]) -> None:
    lines = differences(pair(rows, other).usable)
    assert [line.shots for line in lines] == [0, *[10] * 5, *[100] * 5]
    assert [line.regime for line in lines[1:6]] == [
        *("target-only", "sequential", "joint", "joint-multilingual", "oracle-stop"),
    ]
    shown = table(lines)
    assert shown.body[5][0] == f"oracle-stop {UPPER_BOUND}" and UPPER_BOUND in shown.notes[-1]
    parts = [line.part for line in differences(pair(rows, other).usable, "class")[:4]]
    assert parts == ["high", "mid", "low", "unseen"]
    assert len({len(line) for line in text_table(shown).splitlines()[1:14]}) == 1


def test_the_source_enters_no_mean(rows: list[Row], other: list[Row]) -> None:
    shifted = [{**r, "score": 0.0} if r["role"] == "source" else r for r in other]
    one, two = pair(rows, other), pair(rows, shifted)
    assert one.of_source == 42 and one.count == 42 + len(one.usable) == len(rows)
    assert differences(one.usable, "class") == differences(two.usable, "class")
    assert "42 on the source's own test set stay out of every mean." in sentences(one)


def test_what_does_not_pair_is_counted_and_named(rows: list[Row], other: list[Row]) -> None:
    a = [r for r in rows if r["regime"] != "joint"]
    b = [r for r in other if r["target"] != "lab-fir" and not (r["draw"] == 1 and r["shots"] == 10)]
    found = pair(a, b)
    mine, theirs = ({tuple(r[name] for name in RUN) for r in part} for part in (a, b))
    assert found.count == len(mine & theirs)
    assert (found.only_a, found.only_b) == (len(mine - theirs), len(theirs - mine))
    assert sentences(found)[0] == (
        f"{found.count} pairs of runs; {found.only_a} only in A, {found.only_b} only in B."
    )
    assert found.words == (
        "The study is six-regimes in A and larger in B.",
        "Only in A: target lab-fir.",
        "Only in B: regime joint.",
    )


def test_what_differs_within_pairs_is_said(rows: list[Row]) -> None:
    b = [{**r, "n": 400, "evaluate_key": r["evaluate_key"][::-1]} if r["seed"] else r for r in rows]
    b = [{**r, "resource_class": "low"} if r["target"] == "lab-cid" else r for r in b]
    words = pair(rows, b).words
    half, whole = len(rows) // 2, len(rows)
    assert f"In {half} of {whole} pairs the number of test items differs" in words[0]
    assert words[1].endswith("differ for lab-cid (mid, low in B).")
    assert words[2] == f"In {half} of {whole} pairs both are one evaluation: nothing differs."
    assert pair(rows, rows).words == (
        f"In {whole} of {whole} pairs both are one evaluation: nothing differs.",
    )


def test_scores_that_do_not_exist_stay_out(by_hand: tuple[list[Row], list[Row]]) -> None:
    a, b = by_hand
    a = [{**r, "score": math.nan} if (r["target"], r["draw"]) == ("fi", 2) else r for r in a]
    found = pair(a, b)
    assert (found.unscored, len(found.usable), found.count) == (1, 4, 5)
    (line,) = differences(found.usable)
    assert line.difference == pytest.approx((0.03 + 0.02) / 2)
    assert "1 in which a score does not exist stay out of every mean." in sentences(found)
    with pytest.raises(UsageError, match="no run on a target has a score in both"):
        pair([{**r, "score": None} for r in a], b)


def test_upper_bounds_pair_with_upper_bounds(row_of: RowOf) -> None:
    a = [row_of(upper_bound=False), row_of(regime="other")]
    b = [row_of(upper_bound=True), row_of(regime="other")]
    found = pair(a, b)
    assert (found.count, found.only_a, found.only_b) == (1, 1, 1)


def test_no_matching_run_says_what_differs(rows: list[Row], row_of: RowOf) -> None:
    def said(a: list[Row], b: list[Row], metric: str | None = None) -> str:
        with pytest.raises(UsageError) as caught:
            pair(a, b, metric)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    few = [r for r in rows if r["shots"]]
    five = [{**r, "shots": 5} for r in few if r["shots"] == 10]
    assert said(few, five) == "no run is in both A and B; A has shots 10, 100; B has 5"
    words = said(few, [{**r, "metric": "f1", "draw": None} for r in few if not r["draw"]])
    assert words.endswith("A has metric accuracy; B has f1; A has draw 0, 1; B has none")
    crossed = [row_of(seed=1, draw=2), row_of(seed=2, draw=1)]
    straight = [row_of(seed=1, draw=1), row_of(seed=2, draw=2)]
    assert said(crossed, straight).endswith("each has other combinations of the same values")
    assert "give --metric" in said(rows, [{**r, "primary": False} for r in rows])
    assert said(rows, rows, "acuracy") == "no metric 'acuracy' in both; did you mean 'accuracy'?"
    twice = [row_of(score=0.1, evaluate_key="x"), row_of(score=0.2, evaluate_key="y")]
    assert said([row_of()], twice) == (
        "B has two scores of one run (tagging joint lab-ava, 10 shots, draw 0, seed 0); "
        "give a file with one study"
    )
    assert pair([row_of(), row_of()], [row_of()]).count == 1


def test_another_metric_and_several_tasks(rows: list[Row], other: list[Row]) -> None:
    def doubled(part: list[Row]) -> list[Row]:
        macro = [
            {**r, "metric": "macro_f1", "primary": False, "score": r["score"] / 2} for r in part
        ]
        topics = [{**r, "task": "topics", "metric": "macro_f1"} for r in part]
        return [*part, *macro, *topics]

    primary = differences(pair(doubled(rows), doubled(other)).usable)
    assert [line.task for line in primary] == ["tagging"] * 11 + ["topics"] * 11
    shown = table(primary)
    assert shown.header[:3] == ("task", "regime", "shots") and shown.left == 2
    assert "Metrics: accuracy of tagging, macro_f1 of topics." in shown.notes
    halved = differences(pair(doubled(rows), doubled(other), "macro_f1").usable)
    assert [line.metric for line in halved] == ["macro_f1"] * 22
    for whole, half, topics in zip(primary[:11], halved[:11], halved[11:], strict=True):
        assert half.difference == pytest.approx(whole.difference / 2)
        assert topics.difference == whole.difference


def test_signs() -> None:
    assert [signed(v) for v in (0.0, 0.0123, -0.5, 0.0001, -0.0001)] == [
        *("0.0", "+1.2", "-50.0", "+0.0", "-0.0"),
    ]
