"""Tables beside the score tables: what scores cost, and means over tasks.

Pure functions of rows and pivots, like `report.tables`, whose `Table` they give; the command line
and the page show them.
"""

import math
from collections.abc import Callable, Iterable, Sequence

from adapterxlt.report.pivots import Column, Line, Pivot, pivot
from adapterxlt.report.summaries import Row, Summary, class_rank, mean_of
from adapterxlt.report.tables import NO_SCORE, Table, bound_notes, column_name, percent, score_text

COST_NOTE = (
    "Costs are of all trainings on tasks that a score depends on, each in full, also where cells "
    "share it: means over runs, then over targets; of peak MB the largest. Parameters are the "
    "trainable ones of the last training. Language adapters and the backbone's pretraining are "
    "left out of every cost but stored kB, the files that a cell needs besides the backbone."
)
ESTIMATE_NOTE = (
    "Examples are rows and tokens sub-words, as often as they were seen; TFLOPs (10^12 operations) "
    "are estimated from the tokens; seconds are of the machine that trained."
)


def cost_table(
    rows: Iterable[Row],
    task: str,
    *,
    missing: Iterable[Row] = (),
    regimes: Sequence[str] = (),
) -> Table:
    """Mean score over the targets and what it cost, a line a regime and shots; see `COST_NOTE`.

    Arguments as in `report.pivots.pivot`. "–" where a record behind the line lacks the figure.
    """
    kept = [row for row in rows if row["task"] == task]
    data = pivot(kept, task, missing=missing, regimes=regimes)
    place = next(i for i, column in enumerate(data.columns) if column.kind == "overall")
    spent = behind(kept, data)
    body = []
    for line in data.lines:
        those = spent.get((line.regime, line.source, line.shots), [])
        costs = [_cost(those, name, scale, text) for _, name, scale, text in _COSTS]
        body.append((line.label, str(line.shots), score_text(line.cells[place]), *costs))
    notes = [COST_NOTE, ESTIMATE_NOTE]
    if any(NO_SCORE in line[3:] for line in body):
        notes.append(f"{NO_SCORE} under a cost: a record behind it does not tell.")
    if any(line[2].endswith("*") for line in body):
        notes.append("* mean over the runs and languages that have a score; some are lacking.")
    return Table(
        title=f"{task}: cost beside score, mean {data.metric} x 100{_lab(data)}",
        groups=(),
        header=("regime", "shots", "mean score", *(heading for heading, _, _, _ in _COSTS)),
        body=tuple(body),
        notes=(*notes, *bound_notes(data.lines)),
        missing=data.missing,
    )


def behind(rows: Iterable[Row], data: Pivot) -> dict[tuple[str, str, int], list[Row]]:
    """The rows behind the mean over targets of each line of a pivot: regime, source, shots."""
    found: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        if (row["task"], row["metric"]) == (data.task, data.metric) and row["role"] != "source":
            key = (str(row["regime"]), str(row["source"]), int(row["shots"]))
            found.setdefault(key, []).append(row)
    return found


def tasks_table(pivots: Sequence[Pivot]) -> Table:
    """The plain mean over tasks by regime, shots and resource class, from a pivot a task.

    A place has a number where every task has every cell of it, and else a dash: means over fewer
    tasks or languages are other quantities.
    """
    columns = sorted(
        {c for data in pivots for c in data.columns if c.kind in ("class", "overall")},
        key=lambda c: (c.kind == "overall", class_rank(c.resource_class)),
    )
    lines: dict[tuple[str, str, int], Line] = {}
    for data in pivots:
        for line in data.lines:
            lines.setdefault((line.regime, line.source, line.shots), line)
    bounds = {line.regime for data in pivots for line in data.lines if line.upper_bound}
    # Sorting is stable: among equal shots the order of the pivots stays.
    ordered = sorted(lines.items(), key=lambda item: (item[1].shots, item[1].regime in bounds))
    body = []
    for key, line in ordered:
        cells = [[_cell(data, key, column) for data in pivots] for column in columns]
        body.append((line.label, str(line.shots), *(_task_mean(those) for those in cells)))
    metrics = ", ".join(f"{data.metric} of {data.task}" for data in pivots)
    notes = [
        f"The unweighted mean of the tasks' primary metrics ({metrics}), as XTREME-R averages "
        "tasks; each is over its targets alone. They need not be one quantity."
    ]
    if any(NO_SCORE in line for line in body):
        notes.append(f"{NO_SCORE} where not every task has all its scores.")
    return Table(
        title=f"mean over {len(pivots)} tasks: primary metrics x 100, unweighted{_lab(*pivots)}",
        groups=(),
        header=("regime", "shots", *(column_name(column) for column in columns)),
        body=tuple(body),
        notes=(*notes, *bound_notes([line for _, line in ordered])),
        missing=sum(data.missing for data in pivots),
    )


def _lab(*pivots: Pivot) -> str:
    return " (lab)" if any(data.lab for data in pivots) else ""


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _digits(value: float) -> str:
    """Three digits that count, and thousands written out."""
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.3g}"


# (heading, column of a row, its unit in the heading's, how it is written)
_COSTS: tuple[tuple[str, str, float, Callable[[float], str]], ...] = (
    ("parameters", "parameters", 1, _count),
    ("stored kB", "stored_bytes", 1e3, _count),
    ("steps", "steps", 1, _count),
    ("examples", "examples", 1, _count),
    ("tokens", "tokens", 1, _count),
    ("TFLOPs", "flops", 1e12, _digits),
    ("seconds", "seconds", 1, _digits),
    ("peak MB", "peak_memory", 1e6, _count),
)


def _cost(rows: Sequence[Row], name: str, scale: float, text: Callable[[float], str]) -> str:
    by_target: dict[str, list[float]] = {}
    for row in rows:
        value = row[name]
        if value is None or math.isnan(value):
            return NO_SCORE
        by_target.setdefault(str(row["target"]), []).append(float(value))
    if not by_target:
        return NO_SCORE
    if name == "peak_memory":
        return text(max(max(values) for values in by_target.values()) / scale)
    return text(mean_of([mean_of(values) for values in by_target.values()]) / scale)


def _cell(data: Pivot, key: tuple[str, str, int], column: Column) -> Summary | None:
    if column not in data.columns:
        return None
    place = data.columns.index(column)
    lines = [line for line in data.lines if (line.regime, line.source, line.shots) == key]
    return lines[0].cells[place] if lines else None


def _task_mean(cells: Sequence[Summary | None]) -> str:
    means = [cell.mean for cell in cells if cell is not None and cell.complete]
    whole = [mean for mean in means if mean is not None]
    return percent(mean_of(whole)) if whole and len(whole) == len(cells) else NO_SCORE
