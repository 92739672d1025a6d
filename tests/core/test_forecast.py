"""The time left: planted cases, placing on workers, and how often the bar holds the truth."""

from __future__ import annotations

import math
import random
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from adapterxlt.core.forecast import (
    COVERAGE,
    OVERDUE,
    Forecast,
    Sample,
    Todo,
    forecast,
    span,
    student,
)


def test_estimates_are_taken_as_they_are_before_a_stage_has_finished() -> None:
    todo = {"a": Todo("task", 10.0), "b": Todo("task", 5.0, ("a",))}
    assert forecast(todo, []) == Forecast(15.0, None, None, 0)


def test_what_is_left_is_scaled_by_how_finished_stages_turned_out() -> None:
    todo = {"a": Todo("task", 10.0), "b": Todo("task", 20.0)}
    # 30 s for 15 estimated, mostly by the large one.
    samples = [Sample("task", 1.0, 9.0), Sample("task", 14.0, 21.0)]
    known = forecast(todo, samples)
    assert known == Forecast(60.0, None, None, 2)
    exact = forecast(todo, [Sample("task", 4.0, 8.0)] * 3)
    assert exact.seconds == exact.low == exact.high == pytest.approx(60.0)
    assert exact.samples == 3


def test_a_kind_of_work_has_a_scale_of_its_own_once_enough_of_it_has_finished() -> None:
    trained = [Sample("task", 10.0, 30.0)] * 3
    scored = [Sample("evaluate", 10.0, 1.0)] * 3
    todo = {"t": Todo("task", 10.0), "e": Todo("evaluate", 10.0), "m": Todo("mlm", 10.0)}
    pooled = (30 * 3 + 1 * 3) / 60 * 10
    assert forecast(todo, trained + scored).seconds == pytest.approx(30 + 1 + pooled)
    few = forecast({"e": todo["e"]}, trained + scored[:2])
    assert few.seconds == pytest.approx(10 * (90 + 2) / 50)


def test_running_stages_have_less_left_and_go_by_their_own_pace() -> None:
    samples = [Sample("task", 10.0, 20.0)] * 3
    for stage, left in (
        (Todo("task", 10.0, spent=5.0), 15.0),
        (Todo("task", 10.0, spent=5.0, pace=3.0), 3.0),
        # It has taken longer than was believed: not over at once.
        (Todo("task", 10.0, spent=40.0), 40 * OVERDUE),
    ):
        assert forecast({"a": stage}, samples).seconds == pytest.approx(left)


def test_no_stage_left_is_no_time_left() -> None:
    assert forecast({}, []) == Forecast(0.0, 0.0, 0.0, 0)


def test_later_less_is_left() -> None:
    known = Forecast(10.0, 8.0, 14.0, 5)
    assert known.after(9.0) == Forecast(1.0, 0.0, 5.0, 5)
    assert Forecast(10.0, None, None, 1).after(20.0) == Forecast(0.0, None, None, 1)


def test_the_bar_is_wider_the_more_the_ratios_spread_and_the_fewer_they_are() -> None:
    todo = {str(i): Todo("task", 10.0) for i in range(4)}

    def width(*ratios: float) -> float:
        known = forecast(todo, [Sample("task", 10.0, 10 * ratio) for ratio in ratios])
        assert known.low is not None and known.high is not None
        assert known.low < known.seconds < known.high
        assert known.high * known.low == pytest.approx(known.seconds**2)
        return math.log(known.high / known.low)

    assert width(0.9, 1.0, 1.1) < width(0.7, 1.0, 1.3) < width(0.3, 1.0, 1.7)
    assert width(*[0.7, 1.0, 1.3] * 5) < width(*[0.7, 1.0, 1.3] * 2) < width(0.7, 1.0, 1.3)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("noise", [0.1, 0.3, 0.6])
@pytest.mark.parametrize(("finished", "missing"), [(3, 1), (3, 30), (6, 10), (20, 3), (20, 50)])
@pytest.mark.parametrize("sizes", [0.0, 1.0])
def test_the_bar_holds_the_truth_as_often_as_it_says(
    workers: int, noise: float, finished: int, missing: int, sizes: float
) -> None:
    """Estimates off by a factor that nobody knows, and each stage by one of its own."""
    draw = random.Random(f"{workers} {noise} {finished} {missing} {sizes}")
    held, shown, times = 0, 0, 300
    for _ in range(times):
        bias = math.exp(draw.gauss(0, 0.7))
        stages = [
            (estimate, estimate * bias * math.exp(draw.gauss(0, noise)))
            for estimate in (draw.lognormvariate(3, sizes) for _ in range(finished + missing))
        ]
        samples = [Sample("task", estimate, seconds) for estimate, seconds in stages[:finished]]
        rest = {str(i): stage for i, stage in enumerate(stages[finished:])}
        todo = {key: Todo("task", estimate) for key, (estimate, _) in rest.items()}
        truth = span({key: seconds for key, (_, seconds) in rest.items()}, {}, workers)
        known = forecast(todo, samples, workers)
        if known.low is not None and known.high is not None:
            shown += 1
            held += known.low <= truth <= known.high
    # Sizes that differ by much may leave one stage that is nearly all.
    assert shown == times if sizes == 0 else shown > times / 3
    # Two standard errors.
    assert held / shown >= COVERAGE - 2 * math.sqrt(COVERAGE * (1 - COVERAGE) / shown)


def test_a_stage_that_is_nearly_all_that_was_done_gives_no_bar() -> None:
    todo = {"a": Todo("task", 10.0)}
    samples = [Sample("pretrain", 100.0, 300.0), *[Sample("task", 0.5, 0.7)] * 2]
    known = forecast(todo, samples)
    assert known.low is known.high is None and known.samples == 3
    assert forecast(todo, [*samples, Sample("task", 0.5, 0.9)]).low is not None


def test_stages_are_placed_as_the_scheduler_places_them() -> None:
    seconds = {"base": 4.0, "a": 3.0, "b": 2.0, "c": 2.0, "top": 1.0}
    needs = {"a": ["base"], "b": ["base"], "c": [], "top": ["a", "b", "done long ago"]}
    assert span(seconds, needs, 1) == 12.0
    # base and c; a and b; top.
    assert span(seconds, needs, 2) == 8.0
    assert span(seconds, needs, 9) == 8.0
    # What runs is placed first, also where there are more than workers.
    assert span(seconds, needs, 1, ["c", "base"]) == 4 + 3 + 2 + 1
    assert span({}, {}, 2) == 0.0


@given(st.data())
def test_a_span_is_within_its_bounds(data: st.DataObject) -> None:
    seconds, needs, chain = {}, {}, {}
    for i in range(data.draw(st.integers(1, 12))):
        key = str(i)
        seconds[key] = data.draw(st.floats(0, 100))
        needs[key] = data.draw(st.lists(st.sampled_from(list(chain)), unique=True)) if chain else []
        chain[key] = seconds[key] + max((chain[below] for below in needs[key]), default=0.0)
    workers = data.draw(st.integers(1, 4))
    found, total, longest = (
        span(seconds, needs, workers),
        sum(seconds.values()),
        max(chain.values()),
    )
    assert found >= max(longest, total / workers) - 1e-6
    # Graham (1969).
    assert found <= total / workers + (1 - 1 / workers) * longest + 1e-6


def test_ten_thousand_stages_take_less_than_a_second() -> None:
    keys = [str(i) for i in range(10_000)]
    todo = {"0": Todo("mlm", 9.0)} | {
        key: Todo("task", 1.0, (before, "0")) for before, key in pairwise(keys)
    }
    started = time.monotonic()
    assert forecast(todo, [Sample("task", 1.0, 1.0)] * 1000, 4).seconds == pytest.approx(10_008)
    assert time.monotonic() - started < 1.0


@pytest.mark.parametrize("freedom", [1, 1.5, 2, 4, 10, 100])
@pytest.mark.parametrize("share", [0.8, 0.9, 0.925])
def test_student_is_that_of_scipy(share: float, freedom: float) -> None:
    assert student(share, freedom) == pytest.approx(stats.t.ppf(share, freedom), rel=0.07)
