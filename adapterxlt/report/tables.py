"""Score tables: regime by target, arranged from summaries of tidy result rows.

It never reads the store, never guesses a score that is not there, and never judges significance.
The command line prints its tables after a run; `report.plots` and `report.html` show its pivots.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from adapterxlt.report.summaries import Row, Summary, class_rank, mean_of, one_cell, per_cell, pool

LineKey = tuple[str, str, int]

NO_SCORE = "–"
UPPER_BOUND = "(upper bound)"
BASELINE = "most frequent label"


@dataclass(frozen=True)
class Column:
    """A column of a pivot; `kind` is 'target', 'class', 'overall' or 'source'."""

    kind: str
    name: str
    resource_class: str


@dataclass(frozen=True)
class Line:
    """A line of a pivot: one regime at one number of shots, a summary for each column."""

    regime: str
    source: str
    shots: int
    upper_bound: bool
    label: str
    cells: tuple[Summary, ...]


@dataclass(frozen=True)
class Pivot:
    """Regime x shots lines by target columns, for one task and metric.

    `baseline` has one fraction or None a column; `missing` counts the runs without a score and
    `empty` the line-by-target cells in which there is no score at all (a regime trained for one
    target has none on the source, and lacks nothing).
    """

    task: str
    metric: str
    lab: bool
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    baseline: tuple[float | None, ...]
    missing: int
    empty: int


@dataclass(frozen=True)
class Table:
    """A table of strings: `groups` spans the header with (name, columns); `notes` go beneath."""

    title: str
    groups: tuple[tuple[str, int], ...]
    header: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    missing: int


def pivot(
    rows: Iterable[Row],
    task: str,
    metric: str | None = None,
    *,
    missing: Iterable[Row] = (),
    regimes: Sequence[str] = (),
) -> Pivot:
    """Arrange one task's rows: lines by shots, then regime; targets by resource class, then means.

    `missing` has the runs that have no row (task, regime, target, shots), so that they are counted
    where they belong. `regimes` orders the regimes, the rest follow by name; upper bounds stand
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
    bounds = {str(row["regime"]) for row in kept if row["upper_bound"]}
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
            label=_label(key, key[0] in bounds, len(sources) > 1),
            cells=_line_cells(columns, grid[key], holes.get(key, {})),
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
    )


def score_table(
    rows: Iterable[Row],
    task: str,
    *,
    metric: str | None = None,
    spread: bool = False,
    missing: Iterable[Row] = (),
    regimes: Sequence[str] = (),
) -> Table:
    """One task's scores x 100 with one decimal, ready for a terminal; arguments as in `pivot`.

    Zero-shot lines come first, then by shots, the baseline last. `spread` adds ± the standard
    deviation of `Summary`. A "–" has no score; a "*" marks a mean that lacks runs or languages.
    """
    data = pivot(rows, task, metric, missing=missing, regimes=regimes)
    body = [
        (line.label, str(line.shots), *(score_text(cell, spread=spread) for cell in line.cells))
        for line in data.lines
    ]
    if any(value is not None for value in data.baseline):
        body.append((BASELINE, "", *(percent(value) for value in data.baseline)))
    lab = " (lab)" if data.lab else ""
    return Table(
        title=f"{data.task}: {data.metric} x 100{lab}",
        groups=(("", 2), *column_groups(data.columns)),
        header=("regime", "shots", *(column_name(column) for column in data.columns)),
        body=tuple(body),
        notes=notes(data, spread=spread),
        missing=data.missing,
    )


def text_table(table: Table) -> str:
    """The table as plain aligned text, ending in a newline; names left, numbers right."""
    lines = [table.header, *table.body]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.header))]
    out = [table.title]
    for place, line in enumerate(lines):
        padded = [line[0].ljust(widths[0])]
        padded += [text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)]
        out.append("  ".join(padded).rstrip())
        if place == 0:
            out.append("-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join([*out, *table.notes]) + "\n"


def percent(value: float | None) -> str:
    """A fraction as x 100 with one decimal, or the dash that stands for no score."""
    return NO_SCORE if value is None or math.isnan(value) else f"{100 * value:.1f}"


def score_text(cell: Summary, *, spread: bool = False) -> str:
    """The mean as text, "*" where it lacks something, and with `spread` its standard deviation."""
    if cell.mean is None:
        return NO_SCORE
    mark = "" if cell.complete else "*"
    tail = f" ±{percent(cell.sd)}" if spread and cell.sd is not None else ""
    return f"{percent(cell.mean)}{mark}{tail}"


def column_name(column: Column) -> str:
    """The heading of a column, understandable without the spanning group above it."""
    if column.kind == "class":
        return f"mean {column.name}"
    return f"{column.name} (source)" if column.kind == "source" else column.name


def column_groups(columns: Sequence[Column]) -> tuple[tuple[str, int], ...]:
    """(name, columns spanned) for the heading above: resource classes, then means, then source."""
    spans: list[tuple[str, int]] = []
    for column in columns:
        name = "means" if column.kind in ("class", "overall") else column.resource_class
        if spans and spans[-1][0] == name:
            spans[-1] = (name, spans[-1][1] + 1)
        else:
            spans.append((name, 1))
    return tuple(spans)


def notes(data: Pivot, *, spread: bool) -> tuple[str, ...]:
    """What a reader must know beside the numbers of this pivot, one sentence a note."""
    out = []
    cells = [cell for line in data.lines for cell in line.cells]
    if spread and any(cell.sd is not None for cell in cells):
        out.append(
            "± is the sample standard deviation over runs (draws x seeds) of one language; under a "
            "mean over languages, the root mean square of theirs. It is not an error bar."
        )
    elif spread:
        out.append("No cell has more than one run, so no spread can be given.")
    if data.missing or data.empty:
        out.append(
            f"{NO_SCORE} no score. Runs without a score, left out of every mean: {data.missing}; "
            f"places of the table without any: {data.empty}."
        )
    if any(cell.mean is not None and not cell.complete for cell in cells):
        out.append("* mean over the runs and languages that have a score; some are lacking.")
    if any(line.upper_bound for line in data.lines):
        out.append(f"{UPPER_BOUND}: chosen with target labels, not a result of the protocol.")
    return tuple(out)


def _primary_metric(rows: Sequence[Row], task: str) -> str:
    names = sorted({str(row["metric"]) for row in rows if row["primary"]})
    if len(names) != 1:
        found = ", ".join(names) or "none"
        raise ValueError(f"task {task!r} needs one primary metric but has {found}; pass metric=")
    return names[0]


def _column(row: Row) -> Column:
    kind = "source" if row["role"] == "source" else "target"
    return Column(kind, str(row["target"]), str(row["resource_class"]))


def _label(key: LineKey, bound: bool, several_sources: bool) -> str:
    origin = f" from {key[1]}" if several_sources and key[1] else ""
    return f"{key[0]}{origin}{' ' + UPPER_BOUND if bound else ''}"


def _place_missing(
    lacking: Sequence[Row], grid: dict[LineKey, dict[Column, list[Row]]], sources: list[str]
) -> dict[LineKey, dict[Column, int]]:
    """Count the absent runs by line and column, and give a line to those that have none yet."""
    known = {column.name: column for column in _ordered(grid)}
    holes: dict[LineKey, dict[Column, int]] = {}
    for entry in lacking:
        origin = sources[0] if len(sources) == 1 else ""
        line = (str(entry["regime"]), origin, int(entry["shots"] or 0))
        target = str(entry["target"])
        column = known.get(target, Column("target", target, "unknown"))
        grid.setdefault(line, {})
        counts = holes.setdefault(line, {})
        counts[column] = counts.get(column, 0) + 1
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
    holes: Mapping[Column, int],
) -> tuple[Summary, ...]:
    single: dict[Column, Summary] = {}
    for column in columns:
        if column.kind in ("target", "source"):
            runs = per_cell(found.get(column, ()))
            whole = pool(runs) if runs else one_cell(())
            single[column] = replace(whole, missing=whole.missing + holes.get(column, 0))
    return tuple(
        single[column]
        if column in single
        else pool([single[member] for member in _members(column, columns)])
        for column in columns
    )


def _members(mean: Column, columns: Sequence[Column]) -> list[Column]:
    """The target columns that a class mean or the overall mean is taken over."""
    wanted = mean.resource_class
    return [c for c in columns if c.kind == "target" and wanted in ("", c.resource_class)]


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
