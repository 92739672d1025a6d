"""Upper bounds are marked wherever they stand, win nothing and enter no mean with others."""

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from adapterxlt.core.regimes import Regime
from adapterxlt.report import export, plots
from adapterxlt.report.headlines import headline, leaders
from adapterxlt.report.html import build
from adapterxlt.report.overviews import cost_table, tasks_table
from adapterxlt.report.pivots import pivot
from adapterxlt.report.results import collect, describe, missing
from adapterxlt.report.summaries import UPPER_BOUND, summarize
from adapterxlt.report.tables import score_table
from adapterxlt.run.study import Study

Row = dict[str, Any]
MARKED = f"oracle-stop {UPPER_BOUND}"


@pytest.fixture
def winning(rows: list[Row]) -> list[Row]:
    """The upper bound far above everything else."""
    return [{**r, "score": 0.99} if r["upper_bound"] else r for r in rows]


def test_the_recipe_says_which_regimes_are_upper_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "name: b\nbackbone: lab\ndata: lab\nsource: lab-root\ntargets: [lab-near-high]\n"
    text += "tasks: [lab-pos]\nregimes: [zero-shot, sequential]\nshots: [10]\n"
    (tmp_path / "b.yaml").write_text(text, encoding="utf-8")
    bound = property(lambda regime: regime.name == "sequential")
    monkeypatch.setattr(Regime, "upper_bound", bound)
    study = Study.open(tmp_path / "b.yaml", store=tmp_path / "s")
    told = {row["regime"]: row["upper_bound"] for row in missing(study)}
    assert told == {"zero-shot": False, "sequential": True}
    assert {r["name"]: r["upper_bound"] for r in describe(study)["regimes"]} == told
    for cell, key in study.plan.cells.items():
        stage = study.plan.stages[key]
        score = {"score": 0.5, "baseline": 0.1}
        facts = {"metrics": {"accuracy": score, "macro_f1": score}, "n": 3, "cell": cell.label()}
        study.store.publish(key, stage.canonical(), {}, facts)
    rows = collect(study)
    assert {row["regime"]: row["upper_bound"] for row in rows} == told
    assert all(set(row) == set(export.COLUMNS) for row in rows)
    assert all(row["steps"] is None and row["stored_bytes"] is None for row in rows)


def test_every_table_marks_them(winning: list[Row]) -> None:
    data = pivot(winning, "tagging")
    for table in (
        score_table(winning, "tagging"),
        score_table(winning, "tagging", spread=True),
        score_table(winning, "tagging", interval=True),
        cost_table(winning, "tagging"),
        tasks_table([data, data]),
    ):
        named = [line[0] for line in table.body if "oracle" in line[0]]
        assert named == [MARKED, MARKED], table.title
        assert any(note.startswith(UPPER_BOUND) for note in table.notes)
    lines = [(line.shots, line.upper_bound) for line in data.lines]
    assert lines == sorted(lines), "last among equal shots"


def test_they_are_marked_before_they_have_a_row(rows: list[Row]) -> None:
    entry = {"task": "tagging", "target": "lab-bel", "shots": 10}
    lacking = [{**entry, "regime": "best-of", "upper_bound": True}]
    table = score_table(rows, "tagging", missing=lacking)
    assert f"best-of {UPPER_BOUND}" in [line[0] for line in table.body]


def test_they_win_nothing(winning: list[Row]) -> None:
    data = pivot(winning, "tagging")
    assert not any(line.upper_bound for line in leaders(data))
    assert "oracle" not in headline(data) and "upper bounds apart" in headline(data)


def test_they_enter_no_mean_with_others(winning: list[Row]) -> None:
    without = [row for row in winning if not row["upper_bound"]]
    for by in (("target",), ("shots", "resource_class"), ("task",)):
        assert summarize(winning, by=by) == summarize(without, by=by)
    apart = summarize(winning, by=("upper_bound",))
    assert [s.group for s in apart] == [(("upper_bound", False),), (("upper_bound", True),)]
    assert apart[1].mean == pytest.approx(0.99)
    shown = {line[:2]: line for line in score_table(winning, "tagging").body}
    plain = {line[:2]: line for line in score_table(without, "tagging").body}
    assert all(shown[name] == line for name, line in plain.items())


def drawn(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("text")]


@pytest.mark.parametrize("draw", [plots.shots_picture, plots.spread_picture])
def test_pictures_draw_them_hollow_and_name_them(draw: Any, winning: list[Row]) -> None:
    both = draw(pivot(winning, "tagging"), "f1")
    rest = draw(pivot([r for r in winning if not r["upper_bound"]], "tagging"), "f1")
    assert MARKED in drawn(both.svg) and "pper bound" in both.caption
    assert "oracle-stop" not in drawn(both.svg)
    hollow = r"\{[^}]*fill-opacity:0;[^}]*stroke:var\(--s\d"
    assert re.search(hollow, both.svg) and not re.search(hollow, rest.svg)
    assert "upper bound" not in rest.caption


def test_the_colours_of_the_heat_picture_are_of_results(winning: list[Row]) -> None:
    best = max(
        cell.mean or 0.0
        for line in pivot(winning, "tagging").lines
        for cell in line.cells[:6]
        if not line.upper_bound
    )
    picture = plots.heat_picture(pivot(winning, "tagging"), "f1")
    assert f"the highest ({100 * best:.1f})" in picture.caption
    assert "left out of the range" in picture.caption and MARKED in drawn(picture.svg)
    assert "99.0" in drawn(picture.svg) and "stroke-dasharray" in picture.svg
    rest = plots.heat_picture(pivot([r for r in winning if not r["upper_bound"]], "tagging"), "f1")
    assert "stroke-dasharray" not in rest.svg and "range" not in rest.caption


def test_the_page_marks_them_everywhere(winning: list[Row], study: Row) -> None:
    gap = {"task": "tagging", "regime": "oracle-stop", "target": "lab-ava", "shots": 10}
    gap |= {"draw": 1, "seed": 0, "reason": "not run yet"}
    page = build(winning, {**study, "missing": [gap]})
    named = re.findall(r"(?<!for )oracle-stop([^<]{0,14})<", page.split('<h2 id="recipe"')[0])
    labels = [tail for tail in named if not re.match(r" \d+ \d", tail)]  # the test's stage labels
    assert len(labels) > 12 and set(labels) == {f" {UPPER_BOUND}"}
    assert f"<h3>{MARKED}</h3>" in page and f'<td class="l">{MARKED}</td>' in page


def test_exports_tell_them(winning: list[Row], row_of: Callable[..., Row]) -> None:
    def written(fmt: str) -> str:
        out = io.StringIO()
        export.write(winning, fmt, out)
        return out.getvalue()

    at = export.COLUMNS.index("regime")
    assert export.COLUMNS[at + 1] == "upper_bound"
    for row in csv.DictReader(io.StringIO(written("csv"))):
        assert row["upper_bound"] == str(row["regime"] == "oracle-stop").lower()
    for row in json.loads(written("json")):
        assert row["upper_bound"] is (row["regime"] == "oracle-stop")
    lines = [line for line in written("markdown").splitlines() if "oracle-stop" in line]
    assert len(lines) == 56 and all(f"| {MARKED} | true |" in line for line in lines)
