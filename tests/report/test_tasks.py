"""Studies with several tasks: a table each, and the plain mean over tasks where nothing lacks."""

import math
from typing import Any

import pandas as pd
import pytest

from adapterxlt.console import show_tables
from adapterxlt.report.html import build
from adapterxlt.report.overviews import tasks_table
from adapterxlt.report.pivots import pivot
from adapterxlt.report.tables import NO_SCORE

Row = dict[str, Any]


@pytest.fixture
def two(rows: list[Row]) -> list[Row]:
    """A second task with another primary metric and scores that are half as high."""
    more = [
        {
            **r,
            "task": "choice",
            "metric": "span_f1",
            "score": r["score"] / 2,
            "evaluate_key": r["evaluate_key"][::-1],
        }
        for r in rows
    ]
    return [*rows, *more]


def test_means_over_tasks_agree_with_pandas(two: list[Row]) -> None:
    table = tasks_table([pivot(two, task) for task in ("choice", "tagging")])
    frame = pd.DataFrame(two)
    frame = frame[frame.role == "target"]
    cells = frame.groupby(["task", "regime", "shots", "resource_class", "target"]).score.mean()
    classes = cells.groupby(["task", "regime", "shots", "resource_class"]).mean()
    classes = classes.groupby(["regime", "shots", "resource_class"]).mean()
    assert table.header == (
        *("regime", "shots", "mean high", "mean mid", "mean low", "mean unseen", "mean"),
    )
    assert len(table.body) == 11
    for line in table.body:
        regime, shots = line[0].split(" ")[0], int(line[1])
        for name, text in zip(("high", "mid", "low", "unseen"), line[2:6], strict=True):
            assert abs(float(text) - 100 * classes.loc[regime, shots, name]) <= 0.05 + 1e-9
    assert "unweighted" in table.title and "XTREME-R" in table.notes[0]
    assert "span_f1 of choice, accuracy of tagging" in table.notes[0]


def test_a_dash_where_a_task_lacks_a_cell(two: list[Row]) -> None:
    def lines(kept: list[Row], missing: list[Row]) -> dict[tuple[str, str], dict[str, str]]:
        pivots = [pivot(kept, task, missing=missing) for task in ("choice", "tagging")]
        table = tasks_table(pivots)
        assert any("not every task" in note for note in table.notes)
        return {x[:2]: dict(zip(table.header, x, strict=True)) for x in table.body}

    def hole(r: Row) -> bool:
        where = (r["task"], r["regime"], r["shots"], r["target"])
        return where == ("choice", "joint", 10, "lab-eno") and r["seed"] == 1

    entry = {"task": "choice", "regime": "joint", "shots": 10, "target": "lab-eno"}
    nan = [{**r, "score": math.nan} if hole(r) else r for r in two]
    gone = [r for r in two if not hole(r)]
    for found in (lines(nan, []), lines(gone, [{**entry, "draw": 0, "seed": 1}])):
        line = found["joint", "10"]
        assert line["mean low"] == line["mean"] == NO_SCORE
        assert NO_SCORE not in (line["mean high"], line["mean unseen"])
        assert NO_SCORE not in found["joint", "100"].values()
    # A regime that one task has no line of at all.
    found = lines([r for r in two if (r["task"], r["regime"]) != ("choice", "sequential")], [])
    assert set(list(found["sequential", "100"].values())[2:]) == {NO_SCORE}


def test_console_shows_each_task_then_the_mean(
    two: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    show_tables(two)
    titles = [line for line in capsys.readouterr().out.splitlines() if "x 100" in line]
    assert [title.split(":")[0] for title in titles] == ["tagging", "choice", "mean over 2 tasks"]
    show_tables([r for r in two if r["task"] == "choice"], cost=True)
    titles = [line for line in capsys.readouterr().out.splitlines() if "x 100" in line]
    assert [title.split(":")[0] for title in titles] == ["choice", "choice"]
    assert "cost beside score" in titles[1]


def test_rows_of_another_metric_alone_are_shown(
    two: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    show_tables([{**r, "metric": "macro_f1", "primary": False} for r in two], cost=True)
    titles = [line for line in capsys.readouterr().out.splitlines() if "x 100" in line]
    assert titles == ["tagging: macro_f1 x 100 (lab)", "choice: macro_f1 x 100 (lab)"]


def test_page_has_the_mean_over_tasks_once(two: list[Row], rows: list[Row], study: Row) -> None:
    page = build(two, study)
    assert page.count("<h3>Mean over tasks") == 1 and page.count("<figure>") == 13
    assert "mean over 2 tasks: primary metrics x 100, unweighted (lab)" in page
    assert "Mean over tasks" not in build(rows, study)
