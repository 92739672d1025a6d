"""Scores arranged: regime x shots lines by target columns, from summaries of tidy result rows.

It never reads the store, never guesses a score that is not there, and makes no text but labels.
`report.tables`, `report.plots` and `report.html` show its pivots.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from adapterxlt.report.summaries import (
    UPPER_BOUND,
    Row,
    Runs,
    Summary,
    class_rank,
    mean_of,
    one_cell,
    per_cell,
    pool,
    runs_of,
)

LineKey = tuple[str, str, int]


@dataclass(frozen=True)
class Column:
    """A column of a pivot; `kind` is 'target', 'class', 'overall' or 'source'."""

    kind: str
    name: str
    resource_class: str


@dataclass(frozen=True)
class Line:
    """A line of a pivot: one regime at one number of shots; a summary, and runs, a column."""

    regime: str
    source: str
    shots: int
    upper_bound: bool
    label: str
    cells: tuple[Summary, ...]
    runs: tuple[Runs, ...]


@dataclass(frozen=True)
class Pivot:
    """Regime x shots lines by target columns, for one task and metric.

    `baseline` has one fraction or None a column; `missing` counts the runs without a score and
    `empty` the line-by-target cells in which there is no score at all (a regime trained for one
    target has none on the source, and lacks nothing). `cut` has the rows of a language's test
    data that lost text to the length limit, where any did.
    """

    task: str
    metric: str
    lab: bool
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    baseline: tuple[float | None, ...]
    missing: int
    empty: int
    cut: tuple[tuple[str, int], ...] = ()


def pivot(
    rows: Iterable[Row],
    task: str,
    metric: str | None = None,
    *,
    missing: Iterable[Row] = (),
    regimes: Sequence[str] = (),
) -> Pivot:
    """Arrange one task's rows: lines by shots, then regime; targets by resource class, then means.

    `missing` has the runs that have no row (task, regime, target, shots; where they are known also
    draw, seed, role, resource_class and upper_bound), so that they are counted where they belong.
    `regimes` orders the regimes, the rest follow by name; upper bounds stand
    last among equal shots. ValueError where the task has no row or, with `metric` None, has
    several primary metrics.
    """
    of_task = [row for row in rows if row["task"] == task]
    metric = metric or _primary_metric(of_task, task)
    kept = [row for row in of_task if row["metric"] == metric]
    if not kept:
        raise ValueError(f"task {task!r} has no rows with the metric {metric!r}")
    lacking = [entry for entry in missing if entry["task"] == task]
    sources = sorted({str(row["source"]) for row in kept})
    grid: dict[LineKey, dict[Column, list[Row]]] = {}
    bounds = {str(row["regime"]) for row in [*kept, *lacking] if row.get("upper_bound")}
    for row in kept:
        line = (str(row["regime"]), str(row["source"]), int(row["shots"]))
        grid.setdefault(line, {}).setdefault(_column(row), []).append(row)
    holes = _place_missing(lacking, grid, sources)
    columns = _columns(grid, holes)
    rank = {name: place for place, name in enumerate(regimes)}
    ordered = sorted(
        grid, key=lambda k: (k[2], k[0] in bounds, rank.get(k[0], len(rank)), k[0], k[1])
    )
    lines = tuple(
        Line(
            regime=key[0],
            source=key[1],
            shots=key[2],
            upper_bound=key[0] in bounds,
            label=line_label(key, key[0] in bounds, len(sources) > 1),
            cells=_line_cells(columns, grid[key], holes.get(key, {})),
            runs=tuple(_runs(c, columns, grid[key], holes.get(key, {})) for c in columns),
        )
        for key in ordered
    )
    targets = [i for i, column in enumerate(columns) if column.kind == "target"]
    languages = [*targets, *(i for i, column in enumerate(columns) if column.kind == "source")]
    return Pivot(
        task=task,
        metric=metric,
        lab=any(row["lab"] for row in kept),
        columns=columns,
        lines=lines,
        baseline=_baselines(columns, kept),
        missing=sum(line.cells[i].missing for line in lines for i in languages),
        empty=sum(line.cells[i].absent for line in lines for i in targets),
        cut=_cut(columns, kept),
    )


def _primary_metric(rows: Sequence[Row], task: str) -> str:
    names = sorted({str(row["metric"]) for row in rows if row["primary"]})
    if len(names) != 1:
        found = ", ".join(names) or "none"
        raise ValueError(f"task {task!r} needs one primary metric but has {found}; pass metric=")
    return names[0]


def _column(row: Row) -> Column:
    kind = "source" if row["role"] == "source" else "target"
    return Column(kind, str(row["target"]), str(row["resource_class"]))


def line_label(key: LineKey, bound: bool, several_sources: bool) -> str:
    """The name of a line: its regime, where from if sources differ, and its mark."""
    origin = f" from {key[1]}" if several_sources and key[1] else ""
    return f"{key[0]}{origin}{' ' + UPPER_BOUND if bound else ''}"


def _place_missing(
    lacking: Sequence[Row], grid: dict[LineKey, dict[Column, list[Row]]], sources: list[str]
) -> dict[LineKey, dict[Column, list[Row]]]:
    """Sort the absent runs by line and column, and give a line to those that have none yet."""
    known = {(column.kind, column.name): column for column in _ordered(grid)}
    holes: dict[LineKey, dict[Column, list[Row]]] = {}
    for entry in lacking:
        origin = sources[0] if len(sources) == 1 else ""
        line = (str(entry["regime"]), origin, int(entry["shots"] or 0))
        target = str(entry["target"])
        kind = "source" if entry.get("role") == "source" else "target"
        fresh = Column(kind, target, str(entry.get("resource_class", "unknown")))
        column = known.get((kind, target), fresh)
        grid.setdefault(line, {})
        holes.setdefault(line, {}).setdefault(column, []).append(entry)
    return holes


def _columns(
    grid: Mapping[LineKey, Mapping[Column, object]],
    holes: Mapping[LineKey, Mapping[Column, object]],
) -> tuple[Column, ...]:
    targets = [column for column in _ordered(grid, holes) if column.kind == "target"]
    sources = [column for column in _ordered(grid, holes) if column.kind == "source"]
    classes = list(dict.fromkeys(column.resource_class for column in targets))
    means = [Column("class", name, name) for name in classes] if len(classes) > 1 else []
    return (*targets, *means, Column("overall", "mean", ""), *sources)


def _ordered(*parts: Mapping[LineKey, Mapping[Column, object]]) -> list[Column]:
    found = {column for part in parts for line in part.values() for column in line}
    return sorted(found, key=lambda column: (class_rank(column.resource_class), column.name))


def _line_cells(
    columns: Sequence[Column],
    found: Mapping[Column, Sequence[Row]],
    holes: Mapping[Column, Sequence[Row]],
) -> tuple[Summary, ...]:
    single: dict[Column, Summary] = {}
    for column in columns:
        if column.kind in ("target", "source"):
            runs = per_cell(found.get(column, ()))
            whole = pool(runs) if runs else one_cell(())
            single[column] = replace(whole, missing=whole.missing + len(holes.get(column, ())))
    return tuple(
        single[column]
        if column in single
        else pool([single[member] for member in _members(column, columns)])
        for column in columns
    )


def _runs(
    column: Column,
    columns: Sequence[Column],
    found: Mapping[Column, Sequence[Row]],
    holes: Mapping[Column, Sequence[Row]],
) -> Runs:
    members = [column] if column.kind in ("target", "source") else _members(column, columns)
    rows = [row for member in members for row in found.get(member, ())]
    lacking = [entry for member in members for entry in holes.get(member, ())]
    return runs_of(rows, [member.name for member in members], lacking)


def _members(mean: Column, columns: Sequence[Column]) -> list[Column]:
    """The target columns that a class mean or the overall mean is taken over."""
    wanted = mean.resource_class
    return [c for c in columns if c.kind == "target" and wanted in ("", c.resource_class)]


def _cut(columns: Sequence[Column], rows: Sequence[Row]) -> tuple[tuple[str, int], ...]:
    """The most rows that one run cut, by language; runs may be of backbones that cut elsewhere."""
    found: dict[str, int] = {}
    for row in rows:
        target = str(row["target"])
        found[target] = max(found.get(target, 0), int(row.get("rows_cut") or 0))
    return tuple((c.name, found[c.name]) for c in columns if found.get(c.name))


def _baselines(columns: Sequence[Column], rows: Sequence[Row]) -> tuple[float | None, ...]:
    found: dict[Column, set[float]] = {}
    for row in rows:
        if row["baseline"] is not None and not math.isnan(row["baseline"]):
            found.setdefault(_column(row), set()).add(float(row["baseline"]))
    out: list[float | None] = []
    for column in columns:
        single = column.kind in ("target", "source")
        members = [column] if single else _members(column, columns)
        values = [found.get(member) for member in members]
        whole = [mean_of(sorted(value)) for value in values if value]
        # A mean over some of the languages would not be comparable with the line above it.
        out.append(mean_of(whole) if whole and len(whole) == len(members) else None)
    return tuple(out)
