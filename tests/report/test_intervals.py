"""Intervals over runs against numpy by hand; what is left out, and what the notes say."""

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from adapterxlt.report.html import build
from adapterxlt.report.pivots import pivot
from adapterxlt.report.summaries import interval_of, runs_of
from adapterxlt.report.tables import score_table, text_table

Row = dict[str, Any]
# The 97.5 % quantiles of Student's t with 1 to 5 degrees of freedom, from a printed table.
PRINTED = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571}


def by_hand(rows: list[Row], targets: list[str]) -> tuple[float, float, float]:
    """Mean and bounds over runs of the mean over targets, with numpy and the printed quantiles."""
    runs = sorted({(row["draw"], row["seed"]) for row in rows})
    grid = np.full((len(runs), len(targets)), np.nan)
    for row in rows:
        if row["target"] in targets:
            place = runs.index((row["draw"], row["seed"])), targets.index(row["target"])
            grid[place] = row["score"]
    values = grid.mean(axis=1)
    values = values[~np.isnan(values)]
    reach = PRINTED[len(values) - 1] * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean(), values.mean() - reach, values.mean() + reach


@pytest.mark.parametrize("column", ["lab-eno", "mean high", "mean mid", "mean", "lab-src (source)"])
def test_table_agrees_with_numpy(column: str, rows: list[Row]) -> None:
    targets = {
        "mean high": ["lab-ava", "lab-bel"],
        "mean mid": ["lab-cid", "lab-dor"],
        "mean": ["lab-ava", "lab-bel", "lab-cid", "lab-dor", "lab-eno", "lab-fir"],
        "lab-src (source)": ["lab-src"],
    }.get(column, [column])
    table = score_table(rows, "tagging", interval=True)
    line = next(line for line in table.body if line[:2] == ("joint", "100"))
    shown = line[table.header.index(column)]
    mine = [r for r in rows if (r["regime"], r["shots"]) == ("joint", 100)]
    found = [float(text.strip(" ]")) for text in shown.replace("[", ",").split(",")]
    assert found == pytest.approx([100 * value for value in by_hand(mine, targets)], abs=0.06)
    # Zero-shot has no draws: two runs, the others four.
    assert "over 2 to 4 runs" in table.notes[0] and "for other languages" in table.notes[0]
    assert "Draws of one seed are treated as independent" in table.notes[0]


def test_a_value_a_run_is_a_mean_over_languages_not_over_rows() -> None:
    rng = random.Random(1)
    rows = [
        {"draw": draw, "seed": seed, "target": target, "score": rng.random()}
        for draw in (1, 2, 3)
        for seed in (1, 2)
        for target in "abc"
    ]
    full = [full_row(row) for row in rows]
    runs = runs_of(full, "abc")
    assert len(runs.values) == 6 and runs.left_out == 0
    found = interval_of(runs.values)
    assert found is not None
    expected = by_hand(rows, ["a", "b", "c"])
    assert (found.mean, found.low, found.high) == pytest.approx(expected, rel=1e-3)
    # Rows pooled as if every language were a run of its own would give another interval.
    pooled = interval_of([row["score"] for row in rows])
    assert pooled is not None and abs(pooled.low - found.low) > 0.01


def full_row(row: Row) -> Row:
    more = {"task": "t", "primary": True, "metric": "m", "shots": 1, "regime": "r"}
    return {"resource_class": "high", "evaluate_key": "", **more, **row}


def test_runs_that_lack_a_language_are_left_out_and_said(rows: list[Row]) -> None:
    def hole(row: Row) -> bool:
        where = (row["regime"], row["shots"], row["target"], row["draw"], row["seed"])
        return where == ("joint", 10, "lab-cid", 0, 1)

    nan = [{**r, "score": math.nan} if hole(r) else r for r in rows]
    gone = [r for r in rows if not hole(r)]
    entry = {"task": "tagging", "regime": "joint", "target": "lab-cid", "shots": 10}
    missing = [{**entry, "draw": 0, "seed": 1}]
    mine = [r for r in gone if (r["regime"], r["shots"]) == ("joint", 10)]
    expected = by_hand(mine, ["lab-cid", "lab-dor"])
    for table in (
        score_table(nan, "tagging", interval=True),
        score_table(gone, "tagging", interval=True),
        score_table(gone, "tagging", interval=True, missing=missing),
    ):
        line = next(line for line in table.body if line[:2] == ("joint", "10"))
        shown = line[table.header.index("mean mid")].replace("*", "")
        assert shown.startswith(f"{100 * expected[0]:.1f} [{100 * expected[1]:.1f}, ")
        assert any("left out of its interval: up to 1" in note for note in table.notes)
    assert "*" in line[table.header.index("mean mid")]


def test_a_run_without_any_row_is_left_out_too(rows: list[Row]) -> None:
    kept = [r for r in rows if not (r["regime"] == "joint" and (r["draw"], r["seed"]) == (1, 1))]
    entry = {"task": "tagging", "regime": "joint", "shots": 10, "draw": 1, "seed": 1}
    missing = [{**entry, "target": r["target"]} for r in rows[:7] if r["role"] == "target"]
    data = pivot(kept, "tagging", missing=missing)
    line = next(line for line in data.lines if (line.regime, line.shots) == ("joint", 10))
    overall = next(i for i, c in enumerate(data.columns) if c.kind == "overall")
    assert (len(line.runs[overall].values), line.runs[overall].left_out) == (3, 1)


def test_fewer_than_two_runs_have_no_interval(rows_of: Callable[..., list[Row]]) -> None:
    assert interval_of([]) is None and interval_of([0.5]) is None
    same = interval_of([0.5, 0.5])
    assert same is not None and (same.low, same.high) == (0.5, 0.5)
    single = rows_of(draws=[0], seeds=[0])
    table = score_table(single, "tagging", interval=True)
    assert "[" not in " ".join(text for line in table.body for text in line)
    assert "no interval can be given" in table.notes[0]
    mixed = [r for r in rows_of(seeds=[0]) if r["regime"] in ("zero-shot", "joint")]
    notes = score_table(mixed, "tagging", interval=True).notes
    assert any("without brackets has fewer than two runs" in note for note in notes)


def test_order_of_rows_changes_no_digit(rows: list[Row]) -> None:
    shuffled = random.Random(5).sample(rows, len(rows))
    tables = [text_table(score_table(r, "tagging", interval=True)) for r in (rows, shuffled)]
    assert tables[0] == tables[1]
    assert len({len(line) for line in tables[0].splitlines()[1:14]}) == 1


def test_page_has_class_means_with_intervals(
    rows: list[Row], study: Any, rows_of: Callable[..., list[Row]], study_of: Any
) -> None:
    page = build(rows, study)
    caption = "by resource class, with 95 % intervals over seeds and draws"
    assert caption in page and "not how it would be for other languages" in page
    mine = [r for r in rows if (r["regime"], r["shots"]) == ("joint", 100)]
    mean, low, high = by_hand(mine, ["lab-ava", "lab-bel"])
    assert f"<td>{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]</td>" in page
    single = rows_of(draws=[0], seeds=[0])
    assert caption not in build(single, study_of(single))
