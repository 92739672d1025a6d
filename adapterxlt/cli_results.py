"""Verbs that print scores: the rows of a study, and two studies side by side; as `cli`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from adapterxlt.core.errors import UsageError
from adapterxlt.options import open_study, say, study_options


@click.command()
@study_options
@click.option(
    "--format",
    "fmt",
    type=click.Choice(["table", "csv", "json", "parquet", "markdown", "latex"]),
    default="table",
    show_default=True,
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--spread", is_flag=True, help="Standard deviations in the table.")
@click.option("--interval", is_flag=True, help="95 % intervals over seeds and draws in the table.")
@click.option("--cost", is_flag=True, help="Also a table of what the scores cost.")
@click.option(
    "--by",
    metavar="COLUMN[,COLUMN]...",
    help="A line a group: mean, sd over runs, lowest, highest, runs, n.",
)
@click.option(
    "--where",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Only these rows; also A=X,Y, A!=X, A>=N and A<=N.",
)
@click.option("--output", "-o", type=click.Path(path_type=Path), help="A file, not stdout.")
def results(
    fmt: str,
    as_json: bool,
    spread: bool,
    interval: bool,
    cost: bool,
    by: str | None,
    where: tuple[str, ...],
    output: Path | None,
    **given: Any,
) -> None:
    """Print the rows of a study, its score tables, or groups of its rows.

    Markdown and LaTeX are score tables for a page or a paper, the highest number of each column and
    shots in bold.
    """
    from adapterxlt import console
    from adapterxlt.report import choosing, export, typeset
    from adapterxlt.report.results import collect, missing

    if spread and interval:
        raise UsageError("--spread or --interval, not both")
    fmt = "json" if as_json else fmt
    if by is not None and (spread or interval or cost):
        raise UsageError("--by has columns of its own", hint="without --spread, --interval, --cost")
    if by is not None and fmt == "parquet":
        raise UsageError("--by is not written as Parquet", hint="use csv or json")
    conditions = [choosing.Condition.parse(text) for text in where]
    names = choosing.columns(by) if by is not None else ()
    study = open_study(**given)
    rows = choosing.choose(collect(study), conditions)
    if names:
        gaps = choosing.choose_known(missing(study), conditions)
        _put(_grouped(rows, names, fmt, len(gaps)), output)
    elif fmt in ("table", "markdown", "latex"):
        shown: dict[str, Any] = {
            "spread": spread,
            "interval": interval,
            "cost": cost,
            "missing": choosing.choose_known(missing(study), conditions),
            "regimes": [regime.name for regime in study.recipe.regime_list],
        }
        if fmt == "table":
            console.show_tables(rows, **shown)
        elif rows:
            _put(typeset.score_tables(rows, fmt, **shown), output)
        else:
            say("no results yet")
    elif output is None and fmt == "parquet":
        raise UsageError("Parquet is binary", hint="give --output FILE")
    else:
        export.write(rows, fmt, output if output is not None else sys.stdout)


@click.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--metric", help="[default: each task's primary one]")
@click.option(
    "--by", type=click.Choice(["class", "target"]), help="A line a resource class, or a target."
)
@click.option(
    "--format",
    "fmt",
    type=click.Choice(["table", "csv", "json", "markdown", "latex"]),
    default="table",
    show_default=True,
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def compare(a: str, b: str, metric: str | None, by: str | None, fmt: str, as_json: bool) -> None:
    """Print what changed from study A to study B, run by run.

    Each is a file that `results` wrote (CSV, JSON, Parquet) or the folder that `run` wrote. Runs
    pair where task, metric, regime, source, target, shots, draw and seed are the same.
    """
    from adapterxlt.report import comparing, matching, reading

    fmt = "json" if as_json else fmt
    found = matching.pair(reading.read(a), reading.read(b), metric)
    lines = comparing.differences(found.usable, by)
    words = [f"A is {a}, B is {b}.", *comparing.sentences(found)]
    if fmt == "json":
        counts = {
            "pairs": found.count,
            "only_a": found.only_a,
            "only_b": found.only_b,
            "of_source": found.of_source,
            "unscored": found.unscored,
        }
        value = {"a": a, "b": b, **counts, "differs": found.words}
        _put(_json({**value, "lines": comparing.records(lines, by)}))
    elif fmt == "csv":
        for line in words:
            say(line)
        _put(_csv(comparing.records(lines, by)))
    else:
        _put(_table(comparing.table(lines, by, notes=words), fmt))


@click.command()
@study_options
@click.option(
    "--claim",
    "named",
    multiple=True,
    metavar="NAME|FILE",
    help="This one, shipped or a *.yaml, in place of the recipe's.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON, with the keys behind each number.")
def claims(named: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Print what a study says of its claims: effects, intervals, verdicts, and how much more would
    decide what is undecided."""
    from adapterxlt import console
    from adapterxlt.core.loading import read_claim
    from adapterxlt.report.claims import judge_all
    from adapterxlt.report.claims_view import claims_text, claims_view
    from adapterxlt.report.results import collect

    asked = [read_claim(name) for name in named]
    study = open_study(**given)
    rows = collect(study)
    shown = claims_view(judge_all(asked or study.recipe.claim_list, rows))
    if as_json:
        console.show_json(shown)
    elif not rows:
        say("no results yet")
    else:
        lab = study.recipe.is_lab or any(row["lab"] for row in rows)
        click.echo(claims_text(shown, lab=lab), nl=False)


def _grouped(rows: Sequence[Any], by: Sequence[str], fmt: str, missing: int) -> str:
    from adapterxlt.report import grouping

    found = grouping.groups(rows, by)
    if fmt in ("csv", "json"):
        records = grouping.records(found)
        return _json(records) if fmt == "json" else _csv(records)
    if not found:
        say("no results yet")
        return ""
    return _table(grouping.table(found, by, rows, missing), fmt)


def _table(table: Any, fmt: str) -> str:
    from adapterxlt.report import tables, typeset

    return tables.text_table(table) if fmt == "table" else typeset.plain(table, fmt)


def _json(value: Any) -> str:
    import json

    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _csv(records: Sequence[dict[str, Any]]) -> str:
    from adapterxlt.report.export import csv_text

    return csv_text(list(records[0]) if records else [], records)


def _put(text: str, output: Path | None = None) -> None:
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")


VERBS = (results, claims, compare)
