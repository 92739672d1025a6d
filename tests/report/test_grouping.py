"""Groups of rows against pandas, and which rows enter them."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from adapterxlt.core.errors import UsageError
from adapterxlt.report.grouping import groups, records, table
from adapterxlt.report.summaries import UPPER_BOUND

Row = dict[str, Any]


def test_figures_by_hand(row_of: Callable[..., Row]) -> None:
    scores = {("fi", 0): 0.4, ("fi", 1): 0.6, ("sw", 0): 0.1, ("sw", 1): 0.1}
    rows = [row_of(target=t, draw=d, score=s, n=50) for (t, d), s in scores.items()]
    assert records(groups(rows, ["shots"])) == [
        # sd: the root mean square of the languages' own, 0.1414 and 0.
        {"shots": 10, "mean": 0.3, "sd": pytest.approx(0.1), "lowest": 0.1, "highest": 0.6}
        | {"runs": 4, "n": 100}
    ]
    shown = table(groups(rows, ["shots", "target"]), ["shots", "target"], rows)
    assert shown.header == ("shots", "target", "mean", "sd", "lowest", "highest", "runs", "n")
    assert shown.body == (
        ("10", "fi", "50.0", "14.1", "40.0", "60.0", "2", "50"),
        ("10", "sw", "10.0", "0.0", "10.0", "10.0", "2", "50"),
    )


def test_groups_agree_with_pandas(rows: list[Row]) -> None:
    found = records(groups(rows, ("target", "shots", "regime")))
    frame = pd.DataFrame(rows)
    frame = frame[frame.role == "target"]
    scores = frame.groupby(["target", "shots", "regime"]).score
    expected = scores.agg(["mean", "std", "min", "max", "size"])
    assert len(found) == len(expected) == 66
    for one, (key, values) in zip(found, expected.iterrows(), strict=True):
        assert (one["target"], one["shots"], one["regime"]) == key
        numbers = [one[name] for name in ("mean", "sd", "lowest", "highest", "runs")]
        assert numbers == pytest.approx(list(values))
        assert one["upper_bound"] is (one["regime"] == "oracle-stop")


def test_classes_stand_from_high_to_unseen(rows: list[Row]) -> None:
    found = groups(rows, ("resource_class", "draw"))
    assert [value.group for value in found[::3]] == [
        (("resource_class", name), ("draw", None)) for name in ("high", "mid", "low", "unseen")
    ]
    body = table(found, ("resource_class", "draw"), rows).body
    assert [line[1] for line in body[:3]] == ["none", "0", "1"]


def test_what_enters_is_said(rows: list[Row]) -> None:
    plain = table(groups(rows, ["seed"]), ["seed"], rows, missing=3)
    assert any("source's own test set is left out" in note for note in plain.notes)
    assert any("Upper bounds are left out" in note for note in plain.notes)
    assert "Runs that have no row, left out of every mean: 3." in plain.notes
    without = [r for r in rows if not r["upper_bound"] and r["role"] != "source"]
    assert groups(rows, ["seed"]) == groups(without, ["seed"])
    by = ("role", "regime")
    named = table(groups(rows, by), by, rows)
    assert [line[:2] for line in named.body if "oracle" in line[1]] == [
        ("source", f"oracle-stop {UPPER_BOUND}"),
        ("target", f"oracle-stop {UPPER_BOUND}"),
    ]
    assert not any("left out" in note for note in named.notes) and named.left == 2
    gap = [{**r, "score": None} if r["target"] == "lab-ava" and r["seed"] else r for r in rows]
    lacking = table(groups(gap, ["resource_class"]), ["resource_class"], gap)
    assert [line[1].endswith("*") for line in lacking.body] == [True, False, False, False]
    assert any(note.startswith("* mean over the runs") for note in lacking.notes)


def test_metrics(rows: list[Row]) -> None:
    macro = [{**r, "metric": "macro_f1", "primary": False, "score": r["score"] / 2} for r in rows]
    both = [*rows, *macro]
    means = [one.mean for one in groups(rows, ["shots"])]
    assert [one.mean for one in groups(both, ["shots"])] == means
    assert [one.mean for one in groups(macro, ["shots"])] == pytest.approx([m / 2 for m in means])
    by_metric = groups(both, ["shots", "metric"])
    assert [dict(one.group)["metric"] for one in by_metric] == ["accuracy", "macro_f1"] * 3
    assert [one.mean for one in by_metric[1::2]] == pytest.approx([m / 2 for m in means])
    third = [{**r, "metric": "f1"} for r in macro]
    with pytest.raises(UsageError, match="none is primary; add metric to --by"):
        groups([*macro, *third], ["shots"])
    assert groups([], ["shots"]) == []
