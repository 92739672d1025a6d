"""Means against pandas, what is missing, and the order and marks of the score table."""

import math
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterxlt.report import plots
from adapterxlt.report.pivots import pivot
from adapterxlt.report.summaries import UPPER_BOUND, summarize
from adapterxlt.report.tables import BASELINE, NO_SCORE, score_table, text_table

Row = dict[str, Any]
RowOf = Callable[..., Row]


def frame_of(rows: list[Row]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    return frame[(frame.role == "target") & frame.primary]


def test_cell_means_and_sds_agree_with_pandas(rows: list[Row]) -> None:
    expected = frame_of(rows).groupby(["regime", "shots", "target"]).score.agg(["mean", "std"])
    found = summarize(rows, by=("regime", "shots", "target"))
    assert len(found) == len(expected) == 66
    for summary in found:
        mean, sd = expected.loc[tuple(value for _, value in summary.group)]
        assert summary.mean == pytest.approx(mean, abs=1e-12)
        assert summary.sd == pytest.approx(sd, abs=1e-12)


def test_class_means_weigh_languages_and_pool_their_variances(rows: list[Row]) -> None:
    # Unequal runs a language: a plain mean over rows would differ.
    kept = [r for r in rows if not (r["target"] == "lab-ava" and r["draw"] == 1)]
    cells = frame_of(kept).groupby(["regime", "shots", "resource_class", "target"]).score
    per_cell = cells.agg(["mean", "var"]).reset_index()
    grouped = per_cell.groupby(["regime", "shots", "resource_class"])
    for summary in summarize(kept, by=("regime", "shots", "resource_class")):
        key = tuple(value for _, value in summary.group)
        assert summary.mean == pytest.approx(grouped["mean"].mean().loc[key], abs=1e-12)
        assert summary.sd == pytest.approx(math.sqrt(grouped["var"].mean().loc[key]), abs=1e-12)


def test_source_test_set_stays_out_unless_asked_for(rows: list[Row]) -> None:
    assert all(dict(s.group)["target"] != "lab-src" for s in summarize(rows, by=("target",)))
    assert ("role", "source") in [s.group[0] for s in summarize(rows, by=("role",))]


def test_one_run_has_no_sd_and_nan_is_counted_not_averaged(row_of: RowOf) -> None:
    (single,) = summarize([row_of(score=0.4)])
    assert (single.mean, single.sd, single.count) == (0.4, None, 1)
    (mixed,) = summarize([row_of(seed=0, score=0.4), row_of(seed=1, score=math.nan)])
    assert (mixed.mean, mixed.count, mixed.missing, mixed.complete) == (0.4, 1, 1, False)
    (none,) = summarize([row_of(score=math.nan)])
    assert (none.mean, none.count, none.absent) == (None, 0, 1)


def test_the_same_row_twice_is_one_run(row_of: RowOf) -> None:
    (summary,) = summarize([row_of(seed=0), row_of(seed=0), row_of(seed=1)])
    assert summary.count == 2


def test_metric_chooses_rows(row_of: RowOf) -> None:
    rows = [row_of(score=0.8), row_of(metric="macro_f1", primary=False, score=0.3)]
    assert [s.mean for s in summarize(rows)] == [0.8]
    assert [s.mean for s in summarize(rows, metric="macro_f1")] == [0.3]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12), st.randoms(use_true_random=False))
def test_order_of_rows_never_changes_a_digit(
    row_of: RowOf, scores: list[float], rng: random.Random
) -> None:
    rows = [row_of(seed=i, score=score, target=f"lab-{i % 3}") for i, score in enumerate(scores)]
    shuffled = rng.sample(rows, len(rows))
    assert summarize(rows, by=("regime",)) == summarize(shuffled, by=("regime",))
    assert pivot(rows, "tagging") == pivot(shuffled, "tagging")


def test_table_order_marks_and_baseline(rows: list[Row]) -> None:
    table = score_table(rows, "tagging")
    assert table.header[2:8] == ("lab-ava", "lab-bel", "lab-cid", "lab-dor", "lab-eno", "lab-fir")
    assert table.header[8:] == (
        *("mean high", "mean mid", "mean low", "mean unseen", "mean"),
        "lab-src (source)",
    )
    assert sum(span for _, span in table.groups) == len(table.header)
    assert [line[1] for line in table.body] == ["0", *["10"] * 5, *["100"] * 5, ""]
    assert table.body[0][0] == "zero-shot" and table.body[-1][0] == BASELINE
    assert table.body[5][0] == table.body[10][0] == f"oracle-stop {UPPER_BOUND}"
    assert any("target labels" in note for note in table.notes)
    assert "(lab)" in table.title


def test_overall_mean_of_the_table_is_over_targets_alone(rows: list[Row]) -> None:
    table = score_table(rows, "tagging")
    expected = frame_of(rows).groupby(["regime", "shots"]).score.mean()
    place = table.header.index("mean")
    for line in table.body[:-1]:
        mean = expected.loc[(line[0].split(" ")[0], int(line[1]))]
        assert abs(float(line[place]) - 100 * mean) <= 0.05 + 1e-9


def test_holes_are_dashes_and_marked_means(rows: list[Row]) -> None:
    gone = [
        {**r, "score": math.nan} if r["regime"] == "joint" and r["target"] == "lab-cid" else r
        for r in rows
    ]
    lacking = [
        {"task": "tagging", "regime": regime, "target": "lab-bel", "shots": 10}
        for regime in ("sequential", "two-stage")
    ]
    table = score_table(gone, "tagging", missing=lacking)
    lines = {(line[0], line[1]): dict(zip(table.header, line, strict=True)) for line in table.body}
    assert lines["joint", "10"]["lab-cid"] == NO_SCORE
    assert lines["joint", "10"]["mean"].endswith("*")
    assert lines["sequential", "10"]["lab-bel"].endswith("*")
    assert lines["sequential", "100"]["lab-bel"][-1] != "*"
    assert set(list(lines["two-stage", "10"].values())[2:]) == {NO_SCORE}
    assert table.missing == 10
    assert any("10" in note and NO_SCORE in note for note in table.notes)


def test_spread_and_its_words(rows: list[Row], rows_of: Callable[..., list[Row]]) -> None:
    assert "±" in score_table(rows, "tagging", spread=True).body[0][2]
    single = score_table(rows_of(draws=[0], seeds=[0]), "tagging", spread=True)
    assert not any("±" in text for line in single.body for text in line)
    assert any("no spread can be given" in note for note in single.notes)


def test_two_sources_are_two_lines(row_of: RowOf) -> None:
    rows = [row_of(source="lab-aaa", score=0.2), row_of(source="lab-bbb", score=0.6)]
    assert [line[0] for line in score_table(rows, "tagging").body[:-1]] == [
        "joint from lab-aaa",
        "joint from lab-bbb",
    ]


def test_unclear_tasks_and_columns_are_refused(row_of: RowOf) -> None:
    with pytest.raises(ValueError, match="primary metric"):
        pivot([row_of(), row_of(metric="macro_f1")], "tagging")
    with pytest.raises(ValueError, match="primary metric but has none"):
        pivot([row_of()], "other")
    with pytest.raises(ValueError, match="no column 'regimen'"):
        summarize([row_of()], by=("regimen",))


def test_text_table_is_aligned(rows: list[Row]) -> None:
    lines = text_table(score_table(rows, "tagging", spread=True)).splitlines()
    assert len({len(line) for line in lines[1:14]}) == 1


def test_import_is_light() -> None:
    code = "import sys, adapterxlt.report.tables as t; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {"numpy", "pandas", "matplotlib", "jinja2", "torch", "scipy"}
    assert not heavy & set(loaded.stdout.split())


@pytest.mark.parametrize(
    ("task", "metric", "said"),
    [
        ("udpos", "pos_f1", "the most frequent label"),
        ("xnli", "accuracy", "the most frequent label"),
        ("xcopa", "accuracy", "the most frequent label"),
        ("tatoeba", "accuracy", "chance"),
        ("lab-bitext", "accuracy", "chance"),
        ("mine", "accuracy", "the most frequent label, or chance in retrieval"),
        ("mine", "macro_f1", "the most frequent label"),
        ("xquad", "em_f1", "the first words of the context"),
        ("xquad", "f1", "the first words of the context"),
        ("mine", "exact_match", "the first words of the context"),
        ("lareqa", "map@20", "chance"),
    ],
)
def test_what_the_trivial_answer_is(task: str, metric: str, said: str, row_of: RowOf) -> None:
    rows = [row_of(task=task, metric=metric)]
    assert f"{BASELINE}: {said}." in score_table(rows, task).notes
    bare = score_table([{**r, "baseline": None} for r in rows], task)
    assert not any(BASELINE in note for note in bare.notes)
    assert BASELINE not in [line[0] for line in bare.body]
    assert f"a {BASELINE}, {said}." in plots.shots_picture(pivot(rows, task), "f1").caption
