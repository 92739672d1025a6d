"""What the page says in sentences: which regime had the highest mean, and what spread is known.

Facts about the runs that were made; never a judgement of significance. `report.html` shows them.
"""

from collections.abc import Sequence

from adapterxlt.report import tables
from adapterxlt.report.pivots import Line, Pivot
from adapterxlt.report.summaries import Row


def leaders(data: Pivot) -> tuple[Line, ...]:
    """The lines with the highest mean over all targets, upper bounds apart; several on a tie.

    Only lines with a score for every target are compared: a mean over fewer languages is not the
    same quantity.
    """
    place = overall(data)
    means = {
        line: mean
        for line in data.lines
        if not line.upper_bound
        and line.cells[place].absent == 0
        and (mean := line.cells[place].mean) is not None
    }
    return tuple(line for line, mean in means.items() if mean == max(means.values()))


def headline(data: Pivot) -> str:
    """One sentence of fact about a task: which regime had the highest mean, at which shots."""
    place = overall(data)
    first = leaders(data)
    where = f"{data.task}{' (lab)' if data.lab else ''}"
    if not first:
        return f"On {where}, no regime has a score for every target language yet."
    who = " and ".join(
        line.label + (f" at {line.shots} shots" if line.shots else "") for line in first
    )
    best = first[0].cells[place]
    scored = " and ".join(_counted(line.cells[place].count, "scored run") for line in first)
    lacking = sum(line.cells[place].missing for line in first)
    return (
        f"On {where}, the highest mean {data.metric} x 100 over "
        f"{_counted(best.cells, 'target language')} is {tables.percent(best.mean)}, by {who}, over "
        f"{scored}{f' ({lacking} lacking)' if lacking else ''}"
        f"{', upper bounds apart' if any(line.upper_bound for line in data.lines) else ''}."
    )


def spread_words(rows: Sequence[Row]) -> tuple[str, ...]:
    """What the number of seeds and of draws lets the page say about spread."""
    seeds = {row["seed"] for row in rows}
    draws = {row["draw"] for row in rows if row["draw"] is not None}
    out = []
    if len(seeds) == 1:
        out.append("There is one training seed, so no spread over seeds can be given.")
    if len(draws) == 1:
        out.append("There is one draw of shots, so no spread over draws can be given.")
    if len(seeds) > 1 or len(draws) > 1:
        several = [_counted(len(seeds), "training seed")]
        several += [_counted(len(draws), "draw") + " of shots"] if draws else []
        out.append(f"Numbers stand on {' and '.join(several)}.")
    return tuple(out)


def overall(data: Pivot) -> int:
    return next(i for i, column in enumerate(data.columns) if column.kind == "overall")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
