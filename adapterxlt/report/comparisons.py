"""Every regime beside the study's first one, and what its spread is made of: two tables a task.

Pure functions of rows, like `report.overviews`, on the arithmetic of `report.stats`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from adapterxlt.report import resampling, stats
from adapterxlt.report.pairs import by_regime, pairs_of, run_by_run
from adapterxlt.report.stats import Effect, Grid
from adapterxlt.report.summaries import UPPER_BOUND, Row
from adapterxlt.report.tables import NO_SCORE, Table, percent

#: Times that a statistic is drawn again for its interval.
TIMES = 400


@dataclass(frozen=True)
class Comparison:
    """A regime at some shots less the first regime, over the targets of a task, or of all tasks.

    Attributes:
        improvement: probability that a run is above one of the first regime in its language.
        flips: p by flipping the signs of the languages' differences.
        corrected: `effect.p` by Holm over all comparisons of the task.
    """

    regime: str
    shots: int
    upper_bound: bool
    effect: Effect
    improvement: float
    flips: float | None
    corrected: float | None = None

    @property
    def label(self) -> str:
        bound = f" {UPPER_BOUND}" if self.upper_bound else ""
        return f"{self.regime}{bound}" + (f", {self.shots} shots" if self.shots else "")


def reference(rows: Iterable[Row], regimes: Sequence[str]) -> str:
    """What the others are held against: the first regime of the study that has scores."""
    there = {str(row["regime"]) for row in rows if not row["upper_bound"]}
    return next((name for name in regimes if name in there), min(there, default=""))


def compare(rows: Sequence[Row], regimes: Sequence[str]) -> list[Comparison]:
    """Every regime and number of shots less `reference`, in the order of shots and regimes.

    Rows are of targets and of a metric a task. With several tasks, differences are means over those
    in which both regimes have scores.
    """
    first, every = reference(rows, regimes), by_regime(rows)
    base = every.get(first, {})
    bounds = {str(row["regime"]) for row in rows if row["upper_bound"]}
    found = []
    for name in regimes:
        scores = every.get(name, {}) if name != first else {}
        for shots in sorted({number for _, number in scores}):
            pairs = [pair for pair in pairs_of(scores, base, None) if pair[0][1] == shots]
            grids = run_by_run(scores, base, pairs) if pairs else None
            if grids is None:
                continue
            effect = stats.mean_effect(grids[0] - grids[1])
            flips = resampling.sign_flips(
                [value for _, value in effect.by_language], np.random.default_rng(0)
            )
            improvement = resampling.improvement(*grids)
            found.append(Comparison(name, shots, name in bounds, effect, improvement, flips))
    corrected = stats.holm([one.effect.p for one in found])
    found = [replace(one, corrected=p) for one, p in zip(found, corrected, strict=True)]
    rank = {name: place for place, name in enumerate(regimes)}
    return sorted(found, key=lambda one: (one.shots, one.upper_bound, rank[one.regime]))


def comparison_table(title: str, found: Sequence[Comparison], first: str) -> Table:
    """The comparisons as strings; scores x 100."""
    body = [
        (
            one.regime + (f" {UPPER_BOUND}" if one.upper_bound else ""),
            str(one.shots),
            points(one.effect.value),
            f"{points(one.effect.low)} to {points(one.effect.high)}"
            if one.effect.known
            else NO_SCORE,
            p_text(one.effect.p),
            p_text(one.corrected),
            p_text(one.flips),
            f"{one.improvement:.2f}",
            "/".join(map(str, one.effect.shape)),
        )
        for one in found
    ]
    notes = [
        f"Difference: mean over languages of the regime less {first} in the same runs (language, "
        "draw and seed), points. 95 %: Student's t interval with languages, draws and seeds as "
        "samples (one language: its runs). p: of no difference; by Holm: corrected for all lines "
        "of the table; by signs: by flipping the signs of the languages' differences, which asks "
        "for no distribution. P(above): probability that a run is above one of the other regime in "
        "its language, ties half. On: languages/draws/seeds that both have in full."
    ]
    few = [one for one in found if len(one.effect.by_language) < 6]
    if few:
        least = 2 / 2 ** min(len(one.effect.by_language) for one in few)
        notes.append(f"With so few languages p by signs cannot be below {least:.2g}.")
    if any(not one.effect.known for one in found):
        notes.append(f"{NO_SCORE} one value alone: no interval can be given.")
    left = max((one.effect.left_out for one in found), default=0)
    if left:
        notes.append(f"Up to {left} runs a line are left out, since others of their kind lack.")
    return Table(
        title=title,
        groups=(),
        header=(
            *("regime", "shots", "difference", "95 %"),
            *("p", "p by Holm", "p by signs", "P(above)", "on"),
        ),
        body=tuple(body),
        notes=tuple(notes),
        missing=0,
    )


def spread_table(task: str, rows: Sequence[Row], regimes: Sequence[str]) -> Table | None:
    """What the scores of each regime and number of shots spread over; None where nothing spreads.

    Rows are of the targets of one task and metric.
    """
    body, lacking = [], False
    every = by_regime(rows)
    bounds = {str(row["regime"]) for row in rows if row["upper_bound"]}
    for name in regimes:
        for (_, shots), scores in sorted(every.get(name, {}).items()):
            grid = stats.grid_of(scores)
            if grid is None or grid.values.size < 2:
                continue
            parts = stats.components(grid).parts.values()
            lacking |= None in parts
            body.append(
                (
                    name + (f" {UPPER_BOUND}" if name in bounds else ""),
                    str(shots),
                    _with_bootstrap(grid, resampling.interquartile_mean),
                    _with_bootstrap(grid, resampling.worst_case),
                    *(NO_SCORE if part is None else percent(part**0.5) for part in parts),
                )
            )
    if not body:
        return None
    body.sort(key=lambda line: int(line[1]))
    notes = [
        "IQM: mean of the middle half of all runs; worst: mean over languages of the lowest run; "
        "[low, high] by the hierarchical bootstrap (languages, draws in them, seeds), which is too "
        "narrow where there are few of any. The others are standard deviations, points: of "
        "languages, of the draw of shots, of the training seed in all languages at once, of the "
        "seed in single languages, and what is left, from a random-effects model."
    ]
    if lacking:
        notes.append(
            f"{NO_SCORE} the study has one of them, so it cannot be told; it is in what stands "
            "beside it."
        )
    return Table(
        title=f"{task}: what scores x 100 spread over",
        groups=(),
        header=(
            *("regime", "shots", "IQM", "worst", "language", "draw of shots"),
            *("seed", "seed in a language", "rest"),
        ),
        body=tuple(body),
        notes=tuple(notes),
        missing=0,
    )


def points(value: float | None) -> str:
    """A difference of fractions as points with a sign."""
    if value is None:
        return NO_SCORE
    return f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")


def _with_bootstrap(grid: Grid, statistic: resampling.Statistic) -> str:
    value = percent(float(statistic(grid.values)))
    if grid.values.size < 4:
        return value
    low, high = resampling.bootstrap(grid, statistic, np.random.default_rng(0), times=TIMES)
    return f"{value} [{percent(low)}, {percent(high)}]"


def p_text(value: float | None) -> str:
    """A p value with three digits."""
    if value is None:
        return NO_SCORE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
