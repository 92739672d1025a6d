"""Texts that were cut are told: in a study's description, on the page, and beneath its tables."""

from types import SimpleNamespace
from typing import Any

import pytest

from adapterxlt.core.plan import DataInfo, Plan, Stage
from adapterxlt.report import cuts
from adapterxlt.report.html import build
from adapterxlt.report.tables import score_table

Row = dict[str, Any]


class World(SimpleNamespace):
    """What `cuts.of_study` reads of a study: its plan and the facts of finished stages."""

    def __init__(self) -> None:
        super().__init__(plan=Plan(), facts={})
        self.store = SimpleNamespace(read=self.read)

    def read(self, key: str) -> Any:
        return SimpleNamespace(facts=self.facts[key]) if key in self.facts else None

    def data(self, language: str, split: str, rows: int, **more: Any) -> Row:
        self.plan.data[f"{language}-{split}"] = DataInfo(f"{language}-{split}", rows, 20.0)
        at = {"task": "xnli", "language": language, "split": split}
        return at | {"data": f"{language}-{split}"} | more

    def add(self, kind: str, facts: Row | None, **params: Any) -> None:
        key = self.plan.add(Stage(kind, params), f"{kind} {len(self.plan.stages)}")
        if facts is not None:
            self.facts[key] = facts


@pytest.fixture
def world() -> Any:
    return World()


def test_what_was_cut_is_told_with_what_was_read(world: Any) -> None:
    test = world.data("sw", "test", 5010)
    world.add("evaluate", {"rows": 5010, "rows_cut": 12}, data=test, seed=1)
    world.add("evaluate", {"rows": 5010, "rows_cut": 12}, data=test, seed=2)
    world.add("evaluate", {"rows": 5010, "rows_cut": 0}, data=world.data("de", "test", 5010))
    pooled = {"rows": 7, "rows_cut": 1, "pool_rows": 300, "pool_cut": 40}
    searched = [world.data(code, "candidates", 150) for code in ("ar", "en")]
    world.add("evaluate", pooled, data=world.data("ar", "test", 7), pool=searched)
    # Ranking searches the same candidates whatever the language of the queries.
    world.add("evaluate", {**pooled, "rows_cut": 0}, data=test, pool=searched)
    turned = [world.data("el", "test", 9, side="target")]
    world.add("evaluate", {**pooled, "rows_cut": 0, "pool_rows": 9}, data=test, pool=turned)
    world.add("evaluate", None, data=world.data("fr", "test", 5010))
    assert cuts.of_study(world) == [
        {"what": "xnli ar + en candidates", "cut": 40, "rows": 300},
        {"what": "xnli ar test", "cut": 1, "rows": 7},
        {"what": "xnli el test, other side", "cut": 40, "rows": 9},
        {"what": "xnli sw test", "cut": 12, "rows": 5010},
    ]


def test_trainings_count_the_rows_that_they_read(world: Any) -> None:
    source = world.data("en", "train", 9000, limit=2000)
    for draw, cut in ((1, 3), (2, 5), (3, 4)):
        shots = world.data("sw", "train", 2490, shots=100, draw=draw)
        world.add("train", {"rows_cut": cut}, streams=[source, shots])
    every = [world.data("de", "train", 50), world.data("en", "train", 9000)]
    world.add("train", {"rows_cut": 2}, streams=every)
    world.add("train", {}, streams=[world.data("fr", "train", 10)])
    assert cuts.of_study(world) == [
        {"what": "training on xnli de + en", "cut": 2, "rows": 9050},
        {"what": "training on xnli en and xnli sw (100 shots)", "cut": 5, "rows": 2100},
    ]


def test_the_page_says_it_beside_the_data(rows: list[Row], study: Row) -> None:
    told = [{"what": "xnli <sw> test", "cut": 1012, "rows": 5010}]
    page = build(rows, {**study, "cuts": told, "max_length": 128})
    assert "xnli &lt;sw&gt; test: 1,012 of 5,010 rows lost text to max_length" in page
    assert "max_length (128 sub-words)" in page
    assert "lost text" not in build(rows, study) + build(rows, {**study, "cuts": []})


def test_tables_say_it_beneath(rows: list[Row], study: Row) -> None:
    cut = {"lab-fir": 1200, "lab-ava": 3}
    told = [{**r, "rows_cut": cut.get(r["target"], 0)} for r in rows]
    said = "Rows of the test data that lost text to max_length: lab-ava 3, lab-fir 1,200."
    assert said in score_table(told, "tagging").notes
    assert said in build(told, study)
    assert not any("max_length" in note for note in score_table(rows, "tagging").notes)
    # Records of before the count was kept say nothing of it.
    old = [{**r, "rows_cut": None} for r in rows]
    assert score_table(old, "tagging") == score_table(rows, "tagging")
