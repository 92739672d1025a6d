"""The pictures are well-formed, deterministic, free of requests, and draw what they were given."""

import math
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from adapterxlt.report import plots
from adapterxlt.report.pivots import pivot

Row = dict[str, Any]
DRAW = [plots.shots_picture, plots.heat_picture, plots.spread_picture]


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("text")]


@pytest.mark.parametrize("draw", DRAW)
def test_same_rows_same_bytes_and_no_request(draw: Any, rows: list[Row]) -> None:
    picture = draw(pivot(rows, "tagging"), "f1")
    assert picture == draw(pivot(rows[::-1], "tagging"), "f1")
    assert "http" not in picture.svg and "<image" not in picture.svg and "0a0b" not in picture.svg
    root = ElementTree.fromstring(picture.svg)
    assert [child.tag for child in root][:2] == ["title", "desc"]
    assert "(lab)" in (root[0].text or "")
    ids = re.findall(r' id="([^"]+)"', picture.svg)
    assert len(ids) == len(set(ids)) and all(name.startswith("f1-") for name in ids)
    targets = re.findall(r'(?:href="#|url\(#)([^")]+)', picture.svg)
    assert set(targets) <= set(ids)
    rules = set(re.findall(r"\.(f1s\d+)\{", picture.svg))
    assert set(re.findall(r'class="([^"]+)"', picture.svg)) == rules


def test_spread_draws_a_dot_for_every_run(rows: list[Row]) -> None:
    # One seed less in one cell is one dot less; ticks and legend stay.
    full = plots.spread_picture(pivot(rows, "tagging"), "f1")
    some = next(r for r in rows if r["regime"] == "joint" and r["target"] == "lab-cid")
    less = plots.spread_picture(pivot([r for r in rows if r is not some], "tagging"), "f1")
    assert full is not None and less is not None
    assert full.svg.count("<use") - less.svg.count("<use") == 1
    assert "oracle-stop (upper bound)" in texts(full.svg)


def test_spread_is_left_out_for_very_many_targets(row_of: Any) -> None:
    many = [row_of(target=f"lab-{i}") for i in range(plots.WIDEST_TARGETS + 1)]
    assert plots.spread_picture(pivot(many, "tagging"), "f1") is None


def test_heat_writes_the_means_and_dashes(row_of: Any) -> None:
    rows = [
        row_of(target="lab-one", score=0.125),
        row_of(target="lab-two", score=0.5),
        row_of(target="lab-two", score=math.nan, regime="other"),
    ]
    found = texts(plots.heat_picture(pivot(rows, "tagging"), "f1").svg)
    scores = [text for text in found if re.match(r"[\d.]+\*?$|–$", text)]
    assert sorted(scores) == ["12.5", "31.2", "50.0", "–", "–", "–"]
    half = [*rows, row_of(target="lab-one", seed=1, score=math.nan)]
    marked = texts(plots.heat_picture(pivot(half, "tagging"), "f1").svg)
    assert "12.5*" in marked and "31.2*" in marked


@pytest.mark.parametrize("draw", DRAW)
@pytest.mark.parametrize("name", ['$x$ <script>"</script> & язык', '-- #0a0b00 id="f" 1.23456'])
def test_foreign_names_stay_text(draw: Any, name: str, row_of: Any) -> None:
    picture = draw(pivot([row_of(regime=name, target=name, lab=False)], "tagging"), "f1")
    assert "<script" not in picture.svg
    assert name in " ".join(texts(picture.svg))


def test_long_names_leave_room_and_keep_the_mark(row_of: Any) -> None:
    rows = [row_of(regime="r" * 300, target="t" * 300, upper_bound=True)]
    draws: list[Any] = DRAW
    for draw in draws:
        found = texts(draw(pivot(rows, "tagging"), "f1").svg)
        assert max(map(len, found)) <= 45
        assert any(text.endswith("(upper bound)") for text in found)


@pytest.mark.parametrize("draw", DRAW)
def test_no_score_at_all_still_draws(draw: Any, row_of: Any) -> None:
    ElementTree.fromstring(draw(pivot([row_of(score=math.nan)], "tagging"), "f1").svg)


def test_sharing_writes_its_numbers() -> None:
    svg = plots.sharing_picture([("train", (1294, 42, 33))], "done", "f0", False).svg
    assert {"done", "train", "1,294", "42", "33"} <= set(texts(svg))


def test_the_users_matplotlib_settings_do_not_matter(rows: list[Row]) -> None:
    import matplotlib

    before = plots.heat_picture(pivot(rows, "tagging"), "f1").svg
    with matplotlib.rc_context({"font.size": 20, "axes.grid": False, "text.usetex": True}):
        assert plots.heat_picture(pivot(rows, "tagging"), "f1").svg == before
        assert matplotlib.rcParams["font.size"] == 20
