"""`results` with groups, conditions, Markdown and LaTeX, and `compare`, on rows from a store."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterxlt.run.study import Study

Call = Callable[..., Any]
SCORES = {
    # regime, target and seed: percent.
    ("zero-shot", "fi"): (50, 54),
    ("zero-shot", "en"): (90, 90),
    ("sequential", "fi"): (60, 70),
}


def finish(study: Study, lift: float = 0.0, lacking: int = 0) -> None:
    """Put evaluations with the scores of `SCORES` in the store, but for the last ``lacking``."""
    cells = list(study.plan.cells.items())
    for cell, key in cells[: len(cells) - lacking]:
        score = SCORES[cell.regime, cell.target][cell.seed - 1] / 100 + lift
        primary = study.corpus.task(cell.task).primary
        metrics = {
            primary: {"score": score, "baseline": 0.25},
            "accuracy": {"score": score / 2, "baseline": 0.2},
        }
        stage = study.plan.stages[key]
        study.store.publish(key, stage.canonical(), {}, {"metrics": metrics, "n": 40})


@pytest.fixture
def done(call: Call, study: list[str]) -> list[str]:
    """A study of two seeds with every score."""
    given = [*study, "seeds=[1,2]"]
    finish(opened(given))
    return given


def opened(given: list[str], **changes: Any) -> Study:
    options = {"data": given[2], "backbone": given[4], "overrides": tuple(given[5:]), **changes}
    return Study.open(given[0], **options)


def test_groups_in_every_format(call: Call, done: list[str]) -> None:
    shown = call("results", *done, "--by", "regime,target")
    assert shown.code == 0 and shown.err == ""
    body = [line.split() for line in shown.out.splitlines()[3:5]]
    assert body == [
        ["sequential", "fi", "65.0", "7.1", "60.0", "70.0", "2", "40"],
        ["zero-shot", "fi", "52.0", "2.8", "50.0", "54.0", "2", "40"],
    ]
    found = json.loads(call("results", *done, "--by", "regime,role", "--json").out)
    # By regime, then role: the source's own test set is named, so it is there.
    assert [(one["regime"], one["role"]) for one in found] == [
        ("sequential", "target"),
        ("zero-shot", "source"),
        ("zero-shot", "target"),
    ]
    assert [one["mean"] for one in found] == pytest.approx([0.65, 0.9, 0.52])
    assert found[0] | {"mean": None, "sd": None} == {
        "regime": "sequential",
        "upper_bound": False,
        "role": "target",
        "mean": None,
        "sd": None,
        "lowest": 0.6,
        "highest": 0.7,
        "runs": 2,
        "n": 40,
    }
    text = call("results", *done, "--by", "shots", "--format", "csv").out
    (two, nought) = list(csv.DictReader(io.StringIO(text)))[::-1]
    assert (two["shots"], nought["shots"]) == ("2", "0")
    assert [float(one["mean"]) for one in (two, nought)] == pytest.approx([0.65, 0.52])
    assert "| sequential | 65.0 |" in call("results", *done, "--by=regime", "--format=markdown").out
    call("results", *done, "--by=regime", "--format=latex", "-o", "t.tex")
    assert "sequential & 65.0 & 7.1 &" in Path("t.tex").read_text()


def test_groups_of_what_is_chosen(call: Call, done: list[str]) -> None:
    answer = call("results", *done, "--by", "regime", "--where", "metric=accuracy", "--json")
    assert [one["mean"] for one in json.loads(answer.out)] == pytest.approx([0.325, 0.26])
    answer = call("results", *done, "--by", "task,metric", "--where", "score>=0.6", "--json")
    assert [(one["metric"], one["runs"]) for one in json.loads(answer.out)] == [("pos_f1", 2)]
    none = call("results", *done, "--by", "regime", "--where", "shots=7")
    assert (none.code, none.out, none.err) == (0, "", "no results yet\n")
    assert json.loads(call("results", *done, "--by=regime", "--where=shots=7", "--json").out) == []


def test_missing_runs_of_groups_are_counted(call: Call, study: list[str]) -> None:
    given = [*study, "seeds=[1,2]"]
    finish(opened(given), lacking=3)
    lost = [cell.regime for cell in opened(given).plan.cells][-3:]
    assert set(lost) == {"zero-shot", "sequential"}
    words = "Runs that have no row, left out of every mean: "
    assert f"{words}3." in call("results", *given, "--by", "seed").out
    for regime in ("zero-shot", "sequential"):
        chosen = call("results", *given, "--by", "seed", "--where", f"regime!={regime}").out
        assert chosen == "" or f"{words}{3 - lost.count(regime)}." in chosen


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        (["shots=0,2", "primary=true"], 6),
        (["shots!=0", "primary=true"], 2),
        (["shots>=1", "shots<=2"], 4),
        (["target=en,fi", "score>=0.7", "metric=pos_f1"], 3),
        (["draw=none"], 8),
    ],
)
def test_conditions(call: Call, done: list[str], where: list[str], rows: int) -> None:
    options = [part for one in where for part in ("--where", one)]
    assert len(json.loads(call("results", *done, "--json", *options).out)) == rows


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--where", "shot=1"], "no column 'shot'; did you mean 'shots'?"),
        (["--where", "shots>1"], "'shots>1' is no condition; write COLUMN=VALUE"),
        (["--where", "regime>=1"], "'regime' has no numbers"),
        (["--by", "regimen"], "no column 'regimen'; did you mean 'regime'?"),
        (["--by", "regime", "--spread"], "--by has columns of its own"),
        (["--by", "regime", "--format", "parquet", "-o", "x"], "--by is not written as Parquet"),
        (["--spread", "--interval"], "--spread or --interval, not both"),
    ],
)
def test_refusals(call: Call, done: list[str], options: list[str], words: str) -> None:
    answer = call("results", *done, *options)
    assert answer.code == 2 and words in answer.refusal
    assert not Path("x").exists()


def test_score_tables_for_a_paper(call: Call, done: list[str]) -> None:
    text = call("results", *done, "--format", "latex", "--spread").out
    assert r"sequential & 2 & 65.0 $\pm$7.1 & 65.0 $\pm$7.1 & -- \\" in text
    assert r"\caption{udpos: pos\_f1 x 100." in text and r"\toprule" in text
    assert r"$\pm$ is the standard deviation over runs" in text
    page = call("results", *done, "--format", "markdown", "--cost").out
    assert "| zero-shot | 0 | 52.0 | 52.0 | 90.0 |" in page
    assert page.count("\n| regime | shots |") == 2 and "cost beside score" in page
    assert call("results", *done, "--format", "markdown", "-o", "t.md").out == ""
    assert Path("t.md").read_text() == call("results", *done, "--format", "markdown").out


def test_before_a_run_there_is_nothing_to_typeset(call: Call, study: list[str]) -> None:
    for fmt in ("markdown", "latex"):
        answer = call("results", *study, "--format", fmt)
        assert (answer.code, answer.out, answer.err) == (0, "", "no results yet\n")


@pytest.fixture
def two(call: Call, done: list[str]) -> None:
    """The folders of two studies in which B is three points higher and lacks the last run."""
    for name in "ab":
        Path(name).mkdir()
    call("results", *done, "--format=csv", "-o", "a/results.csv")
    other = ["name=other", "seeds=[1,2]"]
    finish(opened(done, store="s", overrides=tuple(other)), lift=0.03, lacking=1)
    call("results", *done[:5], *other, "--store=s", "--format=csv", "-o", "b/results.csv")


def test_compare(call: Call, two: None, done: list[str]) -> None:
    shown = call("compare", "a", "b")
    assert shown.code == 0 and shown.err == ""
    title, header, _, *body = shown.out.splitlines()
    assert title == "B - A, udpos: pos_f1 x 100" and "95 % over runs" in header
    assert body[0].split() == [
        *("zero-shot", "0", "52.0", "55.0", "+3.0", "[+3.0,", "+3.0]", "1", "2", "2", "of", "2"),
    ]
    assert body[1].split()[:7] == ["sequential", "2", "60.0", "63.0", "+3.0", "–", "1"]
    assert (
        "A is a, B is b." in shown.out and "5 pairs of runs; 1 only in A, 0 only in B." in shown.out
    )
    assert "The study is small in A and other in B." in shown.out
    assert "2 on the source's own test set stay out of every mean." in shown.out
    found = json.loads(call("compare", "a/results.csv", "b", "--by", "target", "--json").out)
    assert (found["pairs"], found["only_a"], found["of_source"]) == (5, 1, 2)
    assert [line["target"] for line in found["lines"]] == ["fi", "fi"]
    assert [line["difference"] for line in found["lines"]] == pytest.approx([0.03, 0.03])
    half = json.loads(call("compare", "a", "b", "--metric", "accuracy", "--json").out)
    assert half["lines"][0]["difference"] == pytest.approx(0.015)


def test_compare_in_other_formats(call: Call, two: None, done: list[str]) -> None:
    answer = call("compare", "a", "b", "--by", "class", "--format", "csv")
    lines = list(csv.DictReader(io.StringIO(answer.out)))
    assert [line["resource_class"] for line in lines] == ["high", "high"]
    assert lines[1]["low"] == "" and "5 pairs of runs" in answer.err
    assert "\n| zero-shot | 0 | 52.0 |" in call("compare", "a", "b", "--format", "markdown").out
    text = call("compare", "a", "b", "--format", "latex").out
    assert re.search(r"\nzero-shot & 0 & 52\.0 & 55\.0 & \+3\.0 & \[\+3\.0, \+3\.0\]", text)
    for fmt in ("json", "parquet"):
        call("results", *done, "--format", fmt, "-o", f"rows.{fmt}")
        assert call("compare", f"rows.{fmt}", "b").out == call("compare", "a", "b").out.replace(
            "A is a,", f"A is rows.{fmt},"
        )


def test_compare_refuses(call: Call, two: None) -> None:
    Path("bad.csv").write_text(Path("a/results.csv").read_text().replace(",40,", ",x,", 1))
    Path("five.csv").write_text(
        "".join(
            re.sub(r"(,target,\w+,\d?),2,", r"\1,5,", line)
            for line in Path("a/results.csv").read_text().splitlines(keepends=True)
            if "zero-shot" not in line
        )
    )
    for arguments, words in (
        (["none", "b"], "none: no such file; give a results file or its folder"),
        (["a", "data"], "data: no results.csv in this folder"),
        (["a", "r.yaml"], "r.yaml: not a results file by its name; known: .csv, .json, .parquet"),
        (["bad.csv", "b"], "bad.csv:2: n is no number: 'x'"),
        (["five.csv", "b"], "no run is in both A and B; A has shots 5; B has 0, 2"),
        (
            ["a", "b", "--metric", "acuracy"],
            "no metric 'acuracy' in both; did you mean 'accuracy'?",
        ),
    ):
        answer = call("compare", *arguments)
        assert answer.code == 2 and answer.refusal.startswith(words)
