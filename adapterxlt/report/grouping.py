"""Rows by groups of a user's choice: a line a group, with its mean, spread and range.

The numbers are those of `report.summaries.summarize`; nothing is guessed and nothing judged. The
verb `results` prints them.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from adapterxlt.core.errors import UsageError
from adapterxlt.report.summaries import (
    UPPER_BOUND,
    Row,
    Summary,
    class_rank,
    summarize,
    value_order,
)
from adapterxlt.report.tables import NO_SCORE, Table, bound_note, percent, score_text

NUMBERS = ("mean", "sd", "lowest", "highest", "runs", "n")


def groups(rows: Sequence[Row], by: Sequence[str]) -> list[Summary]:
    """A summary a group, in the order of the values; resource classes from high to unseen.

    Of each task's primary metric, unless all rows are of one metric or `by` names `metric`: then of
    every one. With `regime` stands whether it is an upper bound. UsageError where there are several
    metrics and none is primary.
    """
    if "regime" in by and "upper_bound" not in by:
        after = list(by).index("regime") + 1
        by = (*by[:after], "upper_bound", *by[after:])
    metrics = sorted({str(row["metric"]) for row in rows})
    if "metric" in by or len(metrics) == 1:
        found = [one for metric in metrics for one in summarize(rows, by, metric)]
    elif metrics and not any(row["primary"] for row in rows):
        raise UsageError("several metrics, and none is primary", hint="add metric to --by")
    else:
        found = summarize(rows, by)
    return sorted(found, key=_order)


def records(found: Iterable[Summary]) -> list[dict[str, Any]]:
    """The groups as plain values, for CSV and JSON; scores are fractions."""
    return [
        {
            **dict(one.group),
            "mean": one.mean,
            "sd": one.sd,
            "lowest": one.low,
            "highest": one.high,
            "runs": one.count,
            "n": one.n,
        }
        for one in found
    ]


def table(
    found: Sequence[Summary], by: Sequence[str], rows: Sequence[Row], missing: int = 0
) -> Table:
    """The groups as strings, scores x 100, with what a reader must know of `rows` beneath.

    `missing` counts the runs that have no row.
    """
    body = [
        (
            *(_shown(name, dict(one.group)) for name in by),
            score_text(one),
            *(percent(value) for value in (one.sd, one.low, one.high)),
            str(one.count),
            str(one.n),
        )
        for one in found
    ]
    lacking = missing + sum(one.missing for one in found)
    lab = " (lab)" if any(row["lab"] for row in rows) else ""
    return Table(
        title=f"scores x 100 by {', '.join(by)}{lab}",
        groups=(),
        header=(*by, *NUMBERS),
        body=tuple(body),
        notes=tuple(_notes(found, by, rows, missing)),
        missing=lacking,
        left=len(by),
    )


def _notes(
    found: Sequence[Summary], by: Sequence[str], rows: Sequence[Row], missing: int
) -> list[str]:
    out = [
        "mean: of the languages' means over their runs; sd: over the runs (draws x seeds) of one "
        "language, over several the root mean square of theirs; lowest, highest: single runs."
    ]
    tasks = {row["task"] for row in rows}
    if len(tasks) > 1 and "task" not in by:
        out.append(f"{len(tasks)} tasks are in one mean; their metrics need not be one quantity.")
    if "role" not in by and any(row["role"] == "source" for row in rows):
        out.append("The source's own test set is left out unless --by names role.")
    if any(row["upper_bound"] for row in rows):
        if "regime" in by:
            out.append(bound_note())
        elif "upper_bound" not in by:
            out.append("Upper bounds are left out unless --by names regime or upper_bound.")
    if any(not one.complete for one in found):
        out.append("* mean over the runs and languages that have a score; some are lacking.")
    if any(one.sd is None for one in found):
        out.append(f"{NO_SCORE} under sd: no language has two runs.")
    if missing:
        out.append(f"Runs that have no row, left out of every mean: {missing}.")
    return out


def _order(one: Summary) -> tuple[Any, ...]:
    return tuple(
        class_rank(str(value)) if name == "resource_class" else value_order(value)
        for name, value in one.group
    )


def _shown(name: str, group: dict[str, Any]) -> str:
    value = group[name]
    if name == "regime" and group["upper_bound"]:
        return f"{value} {UPPER_BOUND}"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
