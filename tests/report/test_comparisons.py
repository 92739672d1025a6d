"""Regimes beside the first one, what scores spread over, and pictures of both and of the plan."""

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats as scipy

from adapterxlt.report import comparisons, effect_plots, stats
from adapterxlt.report.flow import flow_of
from adapterxlt.report.pivots import pivot

REGIMES = ["zero-shot", "target-only", "sequential", "joint", "joint-multilingual", "oracle-stop"]


@pytest.fixture
def scored(rows):
    return [row for row in rows if row["role"] != "source"]


@pytest.fixture
def found(scored):
    return comparisons.compare(scored, REGIMES)


def texts(svg):
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("text")]


def test_differences_are_those_of_the_languages_means(scored, found):
    joint = next(one for one in found if (one.regime, one.shots) == ("joint", 100))

    def means(regime, shots):
        targets = sorted({row["target"] for row in scored})
        return np.array(
            [
                np.mean(
                    [
                        row["score"]
                        for row in scored
                        if (row["regime"], row["shots"], row["target"]) == (regime, shots, target)
                    ]
                )
                for target in targets
            ]
        )

    differences = means("joint", 100) - means("zero-shot", 0)
    assert joint.effect.value == pytest.approx(differences.mean())
    assert [value for _, value in joint.effect.by_language] == pytest.approx(list(differences))
    signs = scipy.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=1000
    )
    assert joint.flips == pytest.approx(signs.pvalue)


def test_every_regime_and_number_of_shots_has_a_line_and_bounds_come_last(found):
    assert [(one.regime, one.shots) for one in found][:5] == [
        *((name, 10) for name in REGIMES[1:]),
    ]
    assert len(found) == 10 and found[4].upper_bound
    corrected = stats.holm([one.effect.p for one in found])
    assert [one.corrected for one in found] == corrected


def test_the_first_regime_with_scores_is_what_others_are_held_against(scored):
    assert comparisons.reference(scored, REGIMES) == "zero-shot"
    later = [row for row in scored if row["regime"] != "zero-shot"]
    assert comparisons.reference(later, REGIMES) == "target-only"
    assert comparisons.compare([], REGIMES) == []


def test_table_says_what_it_stands_on(found):
    table = comparisons.comparison_table("t", found, "zero-shot")
    assert len(table.body) == 10
    assert table.body[0][0] == "target-only" and table.body[0][2].startswith("\N{MINUS SIGN}")
    assert "(upper bound)" in table.body[4][0]
    assert not any("cannot be below" in note for note in table.notes)
    few = replace(found[0].effect, by_language=found[0].effect.by_language[:5])
    table = comparisons.comparison_table("t", [replace(found[0], effect=few)], "zero-shot")
    assert any("cannot be below 0.062" in note for note in table.notes)


def test_spread_table_has_the_parts_of_the_study(scored):
    table = comparisons.spread_table("tagging", scored, REGIMES)
    zero, *others = table.body
    # No draws in zero-shot: neither they nor what is left beside them can be told.
    assert (zero[5], zero[8]) == ("–", "–") and zero[4] == "20.7"
    assert all("–" not in line[4:] for line in others)
    assert "[" in zero[2]
    one = [row for row in scored if (row["seed"], row["draw"]) in ((0, None), (0, 0))]
    table = comparisons.spread_table("tagging", one, REGIMES)
    assert all(line[5:] == ("–",) * 4 for line in table.body)
    single = [row for row in one if row["target"] == "lab-ava"]
    assert comparisons.spread_table("tagging", single, REGIMES) is None


def test_forest_draws_every_line_with_its_interval(found):
    picture = effect_plots.forest_picture("tagging", found, "zero-shot", "f1", True)
    assert "joint, 10 shots" in texts(picture.svg) and "(lab)" in picture.title
    assert picture == effect_plots.forest_picture("tagging", found, "zero-shot", "f1", True)
    assert "http" not in picture.svg and "0a0b" not in picture.svg
    assert effect_plots.forest_picture("tagging", [], "zero-shot", "f1", True) is None


def test_cost_picture_has_plain_numbers_and_a_front(rows):
    for row in rows:
        row["flops"] = 1e11 * (1 + REGIMES.index(row["regime"])) * (1 + row["shots"])
    picture = effect_plots.cost_picture(pivot(rows, "tagging"), rows, "f1")
    assert "mathdefault" not in picture.svg
    assert {"0.1", "1", "10"} <= set(texts(picture.svg))
    for row in rows:
        row["flops"] = None
    assert effect_plots.cost_picture(pivot(rows, "tagging"), rows, "f1") is None


def test_front_is_what_nothing_cheaper_reaches():
    points = [(1.0, 5.0), (2.0, 4.0), (2.0, 6.0), (3.0, 6.0), (4.0, 9.0)]
    assert effect_plots._front(points) == [(1.0, 5.0), (2.0, 6.0), (4.0, 9.0)]


STAGES = [
    ("b", "pretrain", "pretrain", [], "done", 9),
    ("l1", "language adapter", "language adapter", ["b"], "done", 6),
    ("l2", "language adapter", "language adapter", ["b"], "missing", 3),
    ("s", "task adapter", "source", ["b", "l1"], "cached", 4),
    ("t", "task adapter", "shots after source", ["b", "l2", "s"], "missing", 2),
    ("e", "evaluate", "evaluate", ["b", "t", "l2"], "missing", 1),
    ("f", "evaluate", "evaluate", ["b", "s"], "trained", 1),
]


def test_flow_groups_stages_and_leaves_out_ways_that_others_stand_for():
    names = ("key", "kind", "group", "inputs", "state", "cells")
    flow = flow_of([dict(zip(names, stage, strict=True)) for stage in STAGES])
    groups = {group.name: group for group in flow.groups}
    levels = [groups[name].level for name in ("pretrain", "language adapter", "source", "evaluate")]
    assert levels == [0, 1, 2, 4]
    assert (groups["language adapter"].stages, groups["language adapter"].done) == (2, 1)
    assert groups["evaluate"].done == 1 and groups["pretrain"].uses == 9
    # Everything needs the backbone and the language adapters by way of what is drawn.
    assert [(one, other) for one, other, _ in flow.edges] == [
        ("pretrain", "language adapter"),
        ("language adapter", "source"),
        ("source", "shots after source"),
        ("shots after source", "evaluate"),
    ]
    picture = effect_plots.flow_picture(flow, "ff", False)
    assert "1 of 2, for 9" in texts(picture.svg)
    assert effect_plots.flow_picture(flow_of([]), "ff", False) is None
