"""Score tables as Markdown and LaTeX: what is bold, what is escaped, and that columns add up."""

import html
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from adapterxlt.report.grouping import groups, table
from adapterxlt.report.pivots import pivot
from adapterxlt.report.summaries import UPPER_BOUND
from adapterxlt.report.tables import BASELINE
from adapterxlt.report.typeset import (
    BOLD,
    latex_text,
    markdown_text,
    plain,
    score_table,
    score_tables,
)

Row = dict[str, Any]
NASTY = "a&b%c$d#e_f{g}h~i^j\\k<l>m|n*o`p[q]"


def cells(text: str, fmt: str) -> list[list[str]]:
    """The lines of a table as cells; those of LaTeX without commands for rules."""
    if fmt == "markdown":
        lines = [line for line in text.splitlines() if line.startswith("| ")]
        return [line[2:-2].split(" | ") for line in [lines[0], *lines[2:]]]
    lines = [line.removesuffix(r" \\") for line in text.splitlines() if line.endswith(r"\\")]
    return [re.split(r"(?<!\\) & ", line) for line in lines if r"\multicolumn" not in line]


def bold(text: str, fmt: str) -> dict[tuple[str, str, str], str]:
    """What is bold, by line, shots and column."""
    pattern = r"\*\*([^*]+)\*\*" if fmt == "markdown" else r"\\textbf\{([^}]+)\}"
    header, *body = cells(text, fmt)
    return {
        (line[0], line[1], name.partition(" (")[0]): found[1]
        for line in body
        for name, cell in zip(header, line, strict=True)
        if (found := re.search(pattern, cell))
    }


def check_latex(text: str) -> None:
    """Braces and environments balance, and every line has as many columns as were announced."""
    bare = re.sub(r"\\[\\{}&%$#_]", "", text)
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0 and bare.count("$") % 2 == 0
    assert re.findall(r"\\begin\{(\w+)\}", text) == re.findall(r"\\end\{(\w+)\}", text)[::-1]
    for part in text.split(r"\begin{tabular}")[1:]:
        width = len(re.match(r"\{([lr]+)\}", part)[1])  # type: ignore[index]
        lines = [line for line in part.splitlines() if line.endswith(r" \\")]
        assert len(lines) > 1
        for line in lines:
            spans = [int(n) for n in re.findall(r"\\multicolumn\{(\d+)\}", line)]
            assert len(re.findall(r"(?<!\\)&", line)) + 1 + sum(spans) - len(spans) == width
            assert not line.startswith(("[", "*"))
        assert [part.count(rf"\{name}rule") for name in ("top", "bottom")] == [1, 1]
        ends = [(int(a), int(b)) for a, b in re.findall(r"\\cmidrule\(lr\)\{(\d+)-(\d+)\}", part)]
        assert all(a <= b <= width for a, b in ends)
        assert [a for a, _ in ends[1:]] == [b + 1 for _, b in ends[:-1]]


@pytest.fixture
def tied(row_of: Callable[..., Row]) -> list[Row]:
    """Two languages; at 10 shots a tie that shows only, at 100 an upper bound above all."""
    scores = {
        ("zero", 0): (0.9, 0.9),
        ("one", 10): (0.50012, 0.30),
        ("two", 10): (0.50044, 0.40),
        ("one", 100): (0.60, 0.70),
        ("two", 100): (0.50, 0.80),
        ("oracle", 100): (0.95, 0.95),
    }
    return [
        row_of(regime=regime, shots=shots, target=target, score=score, baseline=0.99)
        | {"upper_bound": regime == "oracle", "evaluate_key": f"{regime}{shots}{target}"}
        for (regime, shots), both in scores.items()
        for target, score in zip(("fi", "sw"), both, strict=True)
    ]


@pytest.mark.parametrize("fmt", ["markdown", "latex"])
def test_the_highest_of_a_column_and_shots_is_bold(fmt: str, tied: list[Row]) -> None:
    text = score_table(pivot(tied, "tagging"), fmt)
    assert bold(text, fmt) == {
        # A tie by what is shown; the line without shots has nothing beside it.
        ("one", "10", "fi"): "50.0",
        ("two", "10", "fi"): "50.0",
        ("two", "10", "sw"): "40.0",
        ("two", "10", "mean"): "45.0",
        ("one", "100", "fi"): "60.0",
        ("two", "100", "sw"): "80.0",
        ("one", "100", "mean"): "65.0",
        ("two", "100", "mean"): "65.0",
    }
    assert f"{BOLD}, upper bounds apart." in text
    assert [line[0] for line in cells(text, fmt)[-2:]] == [f"oracle {UPPER_BOUND}", BASELINE]
    alone = score_table(pivot([r for r in tied if r["shots"] == 0], "tagging"), fmt)
    assert not bold(alone, fmt) and "Bold" not in alone


@pytest.mark.parametrize("fmt", ["markdown", "latex"])
def test_a_mean_that_lacks_a_language_is_not_bold(fmt: str, tied: list[Row]) -> None:
    gap = [
        {**r, "score": math.nan}
        if (r["regime"], r["shots"], r["target"]) == ("two", 100, "fi")
        else r
        for r in tied
    ]
    text = score_table(pivot(gap, "tagging"), fmt)
    found = {key: value for key, value in bold(text, fmt).items() if key[1] == "100"}
    # Of one language the mean is 80.0, which is another quantity.
    assert found == {
        ("one", "100", "fi"): "60.0",
        ("two", "100", "sw"): "80.0",
        ("one", "100", "mean"): "65.0",
    }
    star = {"markdown": r"80.0\*", "latex": "80.0*"}[fmt]
    line = next(line for line in cells(text, fmt) if line[:2] == ["two", "100"])
    assert line[-1] == star and line[2] == {"markdown": "–", "latex": "--"}[fmt]


@pytest.mark.parametrize("fmt", ["markdown", "latex"])
def test_numbers_are_those_of_the_plain_table(fmt: str, rows: list[Row]) -> None:
    from adapterxlt.report.tables import score_table as plain_table

    for spread, interval in ((False, False), (True, False), (False, True)):
        found = cells(
            score_table(pivot(rows, "tagging"), fmt, spread=spread, interval=interval), fmt
        )
        expected = plain_table(rows, "tagging", spread=spread, interval=interval)
        undressed = [
            [
                re.sub(r"\\textbf\{([^}]+)\}|\*\*([^*]+)\*\*", r"\1\2", cell)
                .replace(r"$\pm$", "±")
                .replace(r"\[", "[")
                .replace(r"\]", "]")
                for cell in line
            ]
            for line in found[1:]
        ]
        assert undressed == [list(line) for line in expected.body]


def test_latex_in_the_style_of_the_field(rows: list[Row]) -> None:
    text = score_table(pivot(rows, "tagging"), "latex", spread=True)
    check_latex(text)
    assert r"\begin{tabular}{lrrrrrrrrrrrrr}" in text and "|" not in text
    assert (
        r" &  & \multicolumn{2}{c}{high} & \multicolumn{2}{c}{mid} & \multicolumn{1}{c}{low} & "
        r"\multicolumn{1}{c}{unseen} & \multicolumn{5}{c}{means} & \multicolumn{1}{c}{source} \\"
    ) in text
    assert r"\cmidrule(lr){3-4} \cmidrule(lr){5-6} \cmidrule(lr){7-7}" in text
    # Under the header, between 0, 10 and 100 shots, and above the trivial answer.
    assert text.count(r"\midrule") == 4
    caption = re.search(r"\\caption\{(.*)\}\n", text)
    assert caption and r"$\pm$ is the standard deviation over runs" in caption[1]
    assert r"\label{tab:tagging-accuracy-x-100-lab}" in text
    assert "standard deviation" not in score_table(pivot(rows, "tagging"), "latex")


def test_markdown_says_the_class_of_a_column(rows: list[Row]) -> None:
    text = score_table(pivot(rows, "tagging"), "markdown", spread=True)
    header, *body = cells(text, "markdown")
    assert header[:4] == ["regime", "shots", "lab-ava (high)", "lab-bel (high)"]
    assert header[-2:] == ["mean", "lab-src (source)"]
    assert {len(line) for line in body} == {14}
    assert "\n| --- | ---: | ---: |" in text and "± is the standard deviation over runs" in text
    assert text.startswith("**tagging: accuracy x 100 (lab)**\n\n| regime")


@pytest.mark.parametrize("fmt", ["markdown", "latex"])
def test_marks_stand_above_the_numbers_they_name(fmt: str, rows: list[Row]) -> None:
    marks = {
        ("joint", 100, "lab-ava"): "a",
        (f"oracle-stop {UPPER_BOUND}", 10, "mean high"): "b_1",
        ("joint", 100, "nowhere"): "never",
        (BASELINE, 0, "lab-ava"): "never",
    }
    data = pivot(rows, "tagging")
    dress = {"marks": marks, "notes": ["a is p < 0.05."]}
    text = score_table(data, fmt, spread=True, **dress)
    header, *body = cells(text, fmt)
    found = {
        (line[0], line[1], header[place].partition(" (")[0]): cell
        for line in body
        for place, cell in enumerate(line)
        if "sup" in cell
    }
    shape = {
        "markdown": r"^(\*\*)?\d\d\.\d(\*\*)?<sup>{}</sup> ±\d\.\d$",
        "latex": r"^(\\textbf\{{)?\d\d\.\d(\}})?\\textsuperscript\{{{}\}} \$\\pm\$\d\.\d$",
    }[fmt]
    assert set(found) == {
        ("joint", "100", "lab-ava"),
        (f"oracle-stop {UPPER_BOUND}", "10", "mean high"),
    }
    one, two = found.values()
    mark = re.escape(r"b\_1")
    assert {bool(re.match(shape.format("a"), c)) for c in (one, two)} == {True, False}
    assert {bool(re.match(shape.format(mark), c)) for c in (one, two)} == {True, False}
    assert {"markdown": r"a is p \< 0.05.", "latex": r"a is p \textless{} 0.05."}[fmt] in text
    assert "never" not in text


def test_escapes() -> None:
    assert latex_text(NASTY) == (
        r"a\&b\%c\$d\#e\_f\{g\}h\textasciitilde{}i\textasciicircum{}j\textbackslash{}k"
        r"\textless{}l\textgreater{}m\textbar{}n*o`p[q]"
    )
    assert markdown_text(NASTY) == (r"a\&b%c\$d\#e\_f\{g\}h\~i^j\\k\<l\>m\|n\*o\`p\[q\]")
    for escape in (latex_text, markdown_text):
        assert escape("a\x00b\x1b[0m\tc\r\nd\u2028e\u202ef\ud800 язык") in (
            "a?b?[0m c d e?f? язык",
            r"a?b?\[0m c d e?f? язык",
        )


@given(st.text())
def test_any_text_is_read_as_itself(text: str) -> None:
    shown = " ".join(
        "".join(" " if c.isspace() else c if c.isprintable() else "?" for c in text).split()
    )
    assert re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", markdown_text(text)) == shown
    back = {
        r"\textasciitilde{}": "~",
        r"\textasciicircum{}": "^",
        r"\textbackslash{}": "\\",
        r"\textless{}": "<",
        r"\textgreater{}": ">",
        r"\textbar{}": "|",
        r"$\pm$": "±",
        r"$\times$": "×",
        "--": "–",
    }
    pattern = "|".join([*(re.escape(one) for one in back), r"\\[&%$#_{}]"])
    if "--" not in text:
        read = re.sub(pattern, lambda m: back.get(m[0], m[0][-1]), latex_text(text))
        assert read == shown


@pytest.mark.parametrize("fmt", ["markdown", "latex"])
def test_foreign_names_stay_in_their_cells(fmt: str, row_of: Callable[..., Row]) -> None:
    rows = [
        row_of(task=NASTY, metric="f_1", regime=regime, target=target, resource_class=NASTY)
        | {"score": 0.5, "evaluate_key": f"{regime}{target}"}
        for regime in (f"[{NASTY}", "*\n& x \\\\", "|")
        for target in (NASTY, "}{", "$")
    ]
    text = score_tables(rows, fmt, spread=True, cost=True)
    if fmt == "latex":
        check_latex(text)
        assert text.count(r"\begin{table}") == 2
    lines = [line for line in cells(text, fmt) if len(line) == 6]
    assert len(lines) == 5
    label = re.search(r"\\label\{tab:([^}]*)\}", text)
    assert fmt == "markdown" or (label and re.fullmatch(r"[a-z0-9-]+", label[1]))


def rendered(text: str) -> list[list[str]]:
    """The cells of a table as another program reads the Markdown."""
    page = MarkdownIt("commonmark").enable("table").render(text)
    lines = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    found = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line, re.DOTALL) for line in lines]
    return [[html.unescape(cell) for cell in line] for line in found]


def test_another_program_reads_the_markdown(row_of: Callable[..., Row]) -> None:
    names = ["a|b", "\\|", "**x**", "_y_", "[z](u)", "<b>", "&amp;", "`c`", "~~d~~", "\\", "язык"]
    rows = [
        row_of(regime=name, target=target, score=0.5 + place / 100, seed=place)
        | {"evaluate_key": f"{name}{target}"}
        for place, name in enumerate(names)
        for target in (NASTY, "|")
    ]
    header, *body = rendered(score_table(pivot(rows, "tagging"), "markdown"))
    assert header == ["regime", "shots", f"{NASTY} (high)", "| (high)", "mean"]
    assert sorted(line[0] for line in body[:-1]) == sorted(names)
    shown = {line[0]: line[2:] for line in body}
    assert shown["<b>"] == ["55.0"] * 3
    assert shown["язык"] == ["<strong>60.0</strong>"] * 3


@pytest.mark.parametrize("fmt", ["markdown", "latex"])
def test_other_tables(fmt: str, rows: list[Row]) -> None:
    by = ("resource_class", "draw")
    text = plain(table(groups(rows, by), by, rows), fmt)
    assert cells(text, fmt)[0][:3] == [
        {"markdown": r"resource\_class", "latex": r"resource\_class"}[fmt],
        "draw",
        "mean",
    ]
    assert len(cells(text, fmt)) == 13 and not bold(text, fmt)
    if fmt == "latex":
        check_latex(text)
        assert r"\begin{tabular}{llrrrrrr}" in text and r"\cmidrule" not in text
    else:
        assert "\n| --- | --- | ---: |" in text


def test_each_task_has_a_table(rows: list[Row]) -> None:
    topics = [{**r, "task": "topics", "metric": "f1"} for r in rows]
    others = [
        {**r, "task": "other", "metric": m, "primary": False} for r in rows for m in ("x", "y")
    ]
    text = score_tables([*rows, *topics, *others], "latex", cost=True)
    check_latex(text)
    assert re.findall(r"\\label\{tab:([^}]*)\}", text) == [
        "tagging-accuracy-x-100-lab",
        "tagging-cost-beside-score-mean-accuracy-x-100-lab",
        "topics-f1-x-100-lab",
        "topics-cost-beside-score-mean-f1-x-100-lab",
        "other-x-x-100-lab",
        "other-y-x-100-lab",
    ]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex here")
def test_latex_compiles(rows: list[Row], tmp_path: Path) -> None:
    tables = score_tables(rows, "latex", spread=True, cost=True)
    tables += score_tables([{**r, "task": NASTY} for r in rows], "latex", interval=True)
    head = "\\documentclass{article}\n\\usepackage[T1]{fontenc}\n\\usepackage{booktabs}\n"
    text = f"{head}\\begin{{document}}\n{tables}\\end{{document}}\n"
    (tmp_path / "t.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
