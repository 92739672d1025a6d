"""Means, spreads and intervals of tidy result rows, with the standard library alone.

It says what a mean is over and what a spread is of; it never guesses a score that is not there and
never judges significance. `report.tables` arranges what is computed here. The quantile of Student's
t is SciPy's, which is imported when the first interval is asked for.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

Row = Mapping[str, Any]

UPPER_BOUND = "(upper bound)"
CLASS_ORDER = ("high", "mid", "low", "unseen")

# What is fixed within one cell: its rows differ in `draw` and `seed` only.
CELL: tuple[str, ...] = ("study", "task", "metric", "regime", "source", "target", "role")
CELL += ("resource_class", "shots", "upper_bound", "lab")


@dataclass(frozen=True)
class Summary:
    """One number of a table with what stands behind it; scores are fractions (0..1).

    `mean` is the mean of the cell means: every language weighs the same, however many its runs.
    `sd` is the root mean square of the cells' own sample standard deviations over their runs
    (draws x seeds): how far a single run of a single language strays from its language's mean, and
    for one cell simply its sample standard deviation. It is None where no cell has two runs, and it
    is not an error bar of the mean. `low` and `high` are the lowest and highest single run,
    `count` the runs with a score, `missing` the runs without one, `cells` the cells with a score,
    `absent` the cells without any, and `n` the items behind one run, summed over the cells.
    `scores` and `keys` (evaluate keys) run in the order of language, draw and seed.
    """

    group: tuple[tuple[str, Any], ...]
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    count: int
    missing: int
    cells: int
    absent: int
    n: int
    scores: tuple[float, ...]
    keys: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing that should stand behind the mean is lacking."""
        return self.missing == 0 and self.absent == 0


@dataclass(frozen=True)
class Runs:
    """A mean over languages, run by run: what an interval of it is computed from.

    `values` has one fraction a run (draw and seed), the plain mean over the languages of the
    column in that run, in the order of draw and seed; `left_out` counts the runs that lack a
    language and have no value.
    """

    values: tuple[float, ...]
    left_out: int


@dataclass(frozen=True)
class Interval:
    """A confidence interval of the mean over runs, by Student's t; fractions, not clipped."""

    mean: float
    low: float
    high: float


def runs_of(rows: Iterable[Row], languages: Iterable[str], lacking: Iterable[Row] = ()) -> Runs:
    """The runs of one line and column; `lacking` has the runs that a language has no row for."""
    wanted = set(languages)
    found: dict[tuple[Any, ...], dict[str, float | None]] = {}
    for row in sorted(rows, key=run_order):
        run = (value_order(row["draw"]), value_order(row["seed"]))
        found.setdefault(run, {})[str(row["target"])] = score_of(row)
    for entry in lacking:
        if "seed" in entry:
            run = (value_order(entry.get("draw")), value_order(entry["seed"]))
            found.setdefault(run, {})[str(entry["target"])] = None
    values = []
    for run in sorted(found):
        scores = [found[run].get(language) for language in sorted(wanted)]
        whole = [score for score in scores if score is not None]
        if whole and len(whole) == len(wanted):
            values.append(mean_of(whole))
    return Runs(tuple(values), len(found) - len(values))


def interval_of(values: Sequence[float], level: float = 0.95) -> Interval | None:
    """Student's t interval of the mean of independent runs; None with fewer than two.

    It answers how much seeds and draws move the mean for these languages, not how it would be for
    other languages.
    """
    if len(values) < 2:
        return None
    mean = mean_of(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    reach = _quantile(level, len(values) - 1) * math.sqrt(variance / len(values))
    return Interval(mean, mean - reach, mean + reach)


@lru_cache(maxsize=256)
def _quantile(level: float, freedom: int) -> float:
    # What `scipy.stats.t.ppf` gives, without the half second that importing `scipy.stats` takes.
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + level / 2))


def summarize(
    rows: Iterable[Row],
    by: Sequence[str] = ("task", "regime", "shots", "target"),
    metric: str | None = None,
) -> list[Summary]:
    """Summaries of the groups that `by` makes, in the order of their values; see `Summary`.

    `metric` None takes each task's primary metric. The source language's own test set is left out
    unless `by` names `role`, so that it never enters a mean over targets; so are upper bounds
    unless `by` names `regime` or `upper_bound`, so that they enter no mean with others.
    ValueError on a column that the rows do not have.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        unknown = [name for name in by if name not in row]
        if unknown:
            raise ValueError(f"no column {unknown[0]!r} in the rows; there are {', '.join(row)}")
        if not (row["primary"] if metric is None else row["metric"] == metric):
            continue
        if row["role"] == "source" and "role" not in by:
            continue
        if row["upper_bound"] and not {"regime", "upper_bound"} & set(by):
            continue
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    ordered = sorted(groups, key=lambda values: tuple(value_order(value) for value in values))
    return [pool(per_cell(groups[key]), tuple(zip(by, key, strict=True))) for key in ordered]


def class_rank(name: str) -> tuple[int, str]:
    """Sort key of resource classes: high, mid, low, unseen, then others by name, source last."""
    if name == "source":
        return (len(CLASS_ORDER) + 1, name)
    return (CLASS_ORDER.index(name) if name in CLASS_ORDER else len(CLASS_ORDER), name)


def run_order(row: Row) -> tuple[Any, ...]:
    """Sort key of rows: cells in reading order, and a cell's runs side by side."""
    return (
        str(row["task"]),
        not row["primary"],
        str(row["metric"]),
        int(row["shots"]),
        str(row["regime"]),
        class_rank(str(row["resource_class"])),
        str(row["target"]),
        value_order(row["draw"]),
        value_order(row["seed"]),
        str(row["evaluate_key"]),
    )


def value_order(value: Any) -> tuple[int, Any]:
    """Sort key of the values of any column: none, then numbers, then names."""
    if value is None:
        return (0, 0)
    return (1, value) if isinstance(value, int | float) else (2, str(value))


def score_of(row: Row) -> float | None:
    """The score of a row, or None where it does not exist."""
    value = row["score"]
    return None if value is None or math.isnan(value) else float(value)


def mean_of(values: Sequence[float]) -> float:
    """Plain mean of at least one value."""
    # fsum is exact, so the order of the rows cannot change a digit.
    return math.fsum(values) / len(values)


def per_cell(rows: Iterable[Row]) -> list[Summary]:
    """One summary a cell. The same row given twice is one run."""
    cells: dict[tuple[Any, ...], dict[tuple[Any, ...], Row]] = {}
    for row in rows:
        run = (row["draw"], row["seed"], row["evaluate_key"])
        cells.setdefault(tuple(row[name] for name in CELL), {})[run] = row
    ordered = sorted(cells.values(), key=lambda runs: run_order(min(runs.values(), key=run_order)))
    return [one_cell(sorted(runs.values(), key=run_order)) for runs in ordered]


def one_cell(runs: Sequence[Row]) -> Summary:
    """Summary of the runs of one cell; of none at all, an absent cell."""
    scored = [(score, row) for row in runs if (score := score_of(row)) is not None]
    scores = tuple(score for score, _ in scored)
    mean = mean_of(scores) if scores else None
    sd = None
    if mean is not None and len(scores) > 1:
        sd = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / (len(scores) - 1))
    return Summary(
        group=(),
        mean=mean,
        sd=sd,
        low=min(scores, default=None),
        high=max(scores, default=None),
        count=len(scores),
        missing=len(runs) - len(scores),
        cells=1 if scores else 0,
        absent=0 if scores else 1,
        n=min((int(row["n"]) for _, row in scored), default=0),
        scores=scores,
        keys=tuple(str(row["evaluate_key"]) for _, row in scored),
    )


def pool(cells: Sequence[Summary], group: tuple[tuple[str, Any], ...] = ()) -> Summary:
    """Summary over cells: mean of their means, root mean square of their spreads."""
    means = [cell.mean for cell in cells if cell.mean is not None]
    squares = [cell.sd**2 for cell in cells if cell.sd is not None]
    return Summary(
        group=group,
        mean=mean_of(means) if means else None,
        sd=math.sqrt(mean_of(squares)) if squares else None,
        low=min((cell.low for cell in cells if cell.low is not None), default=None),
        high=max((cell.high for cell in cells if cell.high is not None), default=None),
        count=sum(cell.count for cell in cells),
        missing=sum(cell.missing for cell in cells),
        cells=sum(cell.cells for cell in cells),
        absent=sum(cell.absent for cell in cells),
        n=sum(cell.n for cell in cells),
        scores=tuple(score for cell in cells for score in cell.scores),
        keys=tuple(key for cell in cells for key in cell.keys),
    )
