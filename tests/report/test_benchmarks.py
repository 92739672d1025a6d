"""XTREME-R's score: means against pandas, what counts, what lacks, and what is not its protocol."""

import math
import random
from typing import Any

import pandas as pd
import pytest

from adapterxlt.console import show_tables
from adapterxlt.core.tasks import TASKS, XTREME_R
from adapterxlt.report.benchmarks import SHOTS_MARK, benchmark_table
from adapterxlt.report.html import build
from adapterxlt.report.tables import NO_SCORE, Table, text_table

Row = dict[str, Any]


@pytest.fixture
def whole(row_of: Any) -> list[Row]:
    """All ten tasks in all of their languages, two seeds, zero-shot and with shots."""
    noise = random.Random(5)
    rows = []
    for task in XTREME_R:
        for language in TASKS[task].languages or ():
            for regime, shots in (("zero-shot", 0), ("joint", 10)):
                for seed in (1, 2):
                    changes: Row = {
                        "task": task,
                        "metric": TASKS[task].primary,
                        "regime": regime,
                        "source": "en",
                        "target": language,
                        "role": "source" if language == "en" else "target",
                        "shots": shots,
                        "draw": None if shots == 0 else 1,
                        "seed": seed,
                        "score": round(noise.uniform(0.2, 0.9), 4),
                        "lab": False,
                        "n": 100 + len(language),
                    }
                    rows.append(row_of(**changes))
    return rows


def cells(table: Table | None, regime: str = "zero-shot") -> dict[str, str]:
    assert table is not None
    (line,) = (line for line in table.body if line[0].split(" ")[0] == regime)
    return dict(zip(table.header, line, strict=True))


def test_scores_agree_with_pandas(whole: list[Row]) -> None:
    table = benchmark_table(whole)
    means = pd.DataFrame(whole).groupby(["regime", "task", "target"]).score.mean()
    means = means.groupby(["regime", "task"]).mean()
    assert table is not None and table.header == ("regime", "shots", *XTREME_R, "overall")
    for regime in ("zero-shot", "joint"):
        found = cells(table, regime)
        for task in XTREME_R:
            assert abs(float(found[task]) - 100 * means[regime, task]) <= 0.05 + 1e-9
        assert abs(float(found["overall"]) - 100 * means[regime].mean()) <= 0.05 + 1e-9
    assert [line[1] for line in table.body] == ["0", "10"] and table.missing == 0
    assert not any(note.startswith(("*", NO_SCORE)) for note in table.notes)
    assert "em_f1 of xquad, mlqa, tydiqa" in table.notes[0]
    assert "pos_f1 of udpos" in table.notes[0] and "mean of exact match and F1" in table.notes[0]


def test_order_of_rows_does_not_matter(whole: list[Row]) -> None:
    assert benchmark_table(random.Random(1).sample(whole, len(whole))) == benchmark_table(whole)


def test_other_languages_and_metrics_do_not_count(whole: list[Row]) -> None:
    xnli = next(r for r in whole if r["task"] == "xnli")
    more = [
        {**xnli, "target": "am", "score": 0.0, "evaluate_key": "1"},
        {**xnli, "metric": "macro_f1", "primary": False, "score": 0.0, "evaluate_key": "2"},
        {**xnli, "task": "pawsx", "score": 0.0, "evaluate_key": "3"},
    ]
    table = benchmark_table([*whole, *more])
    assert cells(table) == cells(benchmark_table(whole))
    assert table is not None and any("do not count: xnli am." in note for note in table.notes)


def test_a_lacking_language_is_counted_and_takes_the_overall_score(whole: list[Row]) -> None:
    few = {"af", "ar", "bg", "de", "el", "en"}
    kept = [r for r in whole if r["task"] != "udpos" or r["target"] in few]
    kept = [r for r in kept if r["task"] != "tatoeba"]
    table = benchmark_table(kept)
    found = cells(table)
    of_six = [r["score"] for r in kept if (r["task"], r["regime"]) == ("udpos", "zero-shot")]
    assert found["udpos"] == f"{100 * sum(of_six) / 12:.1f}* 6/38"
    assert found["overall"] == NO_SCORE and "tatoeba" not in found
    assert found["xnli"] == cells(benchmark_table(whole))["xnli"]
    assert table is not None
    (said,) = (note for note in table.notes if note.startswith(NO_SCORE))
    assert "not in the study: tatoeba;" in said and "not complete in every line: udpos." in said


@pytest.mark.parametrize("how", ["nan", "missing"])
def test_a_lacking_run_is_marked(whole: list[Row], how: str) -> None:
    def hole(r: Row) -> bool:
        return (r["task"], r["regime"], r["target"], r["seed"]) == ("xcopa", "zero-shot", "qu", 2)

    entry = {"task": "xcopa", "regime": "zero-shot", "target": "qu", "shots": 0, "draw": None}
    if how == "nan":
        table = benchmark_table([{**r, "score": math.nan} if hole(r) else r for r in whole])
    else:
        table = benchmark_table([r for r in whole if not hole(r)], missing=[{**entry, "seed": 2}])
    left = [r for r in whole if not hole(r) and (r["task"], r["regime"]) == ("xcopa", "zero-shot")]
    mean = pd.DataFrame(left).groupby("target").score.mean().mean()
    assert cells(table)["xcopa"] == f"{100 * mean:.1f}*"
    assert cells(table)["overall"] == NO_SCORE
    assert cells(table, "joint")["overall"] == cells(benchmark_table(whole), "joint")["overall"]


def test_a_task_without_any_score_yet_is_a_task_of_the_study(whole: list[Row]) -> None:
    kept = [r for r in whole if r["task"] == "xnli"]
    assert benchmark_table(kept) is None
    entries = [
        {"task": "mlqa", "regime": "zero-shot", "target": "de", "shots": 0, "seed": 1},
        {"task": "pawsx", "regime": "zero-shot", "target": "de", "shots": 0, "seed": 1},
    ]
    table = benchmark_table(kept, missing=entries)
    assert table is not None and table.header[2:] == ("xnli", "mlqa", "overall")
    assert cells(table)["mlqa"] == NO_SCORE and table.missing == 1
    assert benchmark_table(kept, missing=entries[1:]) is None
    assert benchmark_table([{**r, "metric": "macro_f1", "primary": False} for r in whole]) is None


def test_what_is_not_the_protocol_is_said(whole: list[Row]) -> None:
    table = benchmark_table(whole)
    assert table is not None
    assert [line[0] for line in table.body] == ["zero-shot", f"joint {SHOTS_MARK}"]
    assert any("zero-shot from English" in note for note in table.notes)
    plain = benchmark_table([r for r in whole if r["shots"] == 0])
    assert plain is not None and not any("zero-shot" in note for note in plain.notes)
    # A fixed number of shots is in no grid, but it is drawn.
    fixed = benchmark_table([{**r, "shots": 0, "draw": 1} for r in whole if r["shots"]])
    assert fixed is not None and fixed.body[0][0] == f"joint {SHOTS_MARK}"
    german = benchmark_table([{**r, "source": "de"} for r in whole])
    assert german is not None and any("The source is de;" in note for note in german.notes)
    chosen = benchmark_table([{**r, "upper_bound": r["shots"] > 0} for r in whole])
    assert chosen is not None and chosen.body[1][0] == f"joint (upper bound) {SHOTS_MARK}"
    assert any("chosen with target labels" in note for note in chosen.notes)


def test_items_scored_are_told(whole: list[Row]) -> None:
    rows = [{**r, "n": 5010} if r["task"] == "xnli" and r["target"] == "sw" else r for r in whole]
    table = benchmark_table(rows)
    assert table is not None and any("xnli 102 to 5,010, xcopa 102," in n for n in table.notes)


def test_console_and_page_show_it_where_two_tasks_are_there(
    whole: list[Row], study_of: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    two = [r for r in whole if r["task"] in ("xcopa", "lareqa")]
    table = benchmark_table(two)
    assert table is not None
    show_tables(two)
    assert text_table(table) in capsys.readouterr().out
    page = build(two, study_of(two, lab=False))
    assert page.count("<h3>XTREME-R</h3>") == 1 and "XTREME-R: task scores x 100<" in page
    one = [r for r in two if r["task"] == "xcopa"]
    show_tables(one)
    assert "XTREME-R" not in capsys.readouterr().out
    assert "<h3>XTREME-R" not in build(one, study_of(one, lab=False))
