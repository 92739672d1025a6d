"""Runs of regimes side by side: which tasks and shots they share, and their scores run by run.

Pure functions of rows between `report.summaries` and `report.stats`; `report.claims` and
`report.comparisons` measure what they give. Rows are of targets and of one metric a task.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from adapterxlt.report import stats
from adapterxlt.report.stats import Grid, Run
from adapterxlt.report.summaries import Row

#: A task at one number of shots.
Combo = tuple[str, int]
Pair = tuple[Combo, Combo]
Scores = dict[Combo, dict[Run, float]]


def by_regime(rows: Iterable[Row]) -> dict[str, Scores]:
    """The scores of each regime; those that are no numbers are as if they were not there."""
    found: dict[str, Scores] = {}
    for row in rows:
        score = row["score"]
        if score is not None and math.isfinite(score):
            run = (str(row["target"]), row["draw"], int(row["seed"]))
            scores = found.setdefault(str(row["regime"]), {})
            scores.setdefault((str(row["task"]), int(row["shots"])), {})[run] = float(score)
    return found


def pairs_of(one: Scores, other: Scores, shots: tuple[int, ...] | None) -> Iterator[Pair]:
    """Tasks and shots at which two regimes meet; one without shots meets every number of them."""
    for task, number in one:
        for partner in dict.fromkeys(((task, number), (task, 0))):
            if partner in other and (shots is None or number in shots):
                yield (task, number), partner
                break
    for task, number in other:
        # A regime without shots beside one that has them.
        meets = (task, number) not in one and (task, 0) in one
        if number and meets and (shots is None or number in shots):
            yield (task, 0), (task, number)


def keys_of(rows: Iterable[Row], used: set[tuple[str, Combo]]) -> tuple[str, ...]:
    """Keys of the evaluations of regimes at these tasks and shots."""
    found = (
        str(row["evaluate_key"])
        for row in rows
        if (str(row["regime"]), (str(row["task"]), int(row["shots"]))) in used
    )
    return tuple(dict.fromkeys(found))


def averaged(parts: Sequence[Mapping[Run, float]]) -> dict[Run, float]:
    """Mean over tasks and shots of each run that has every one its language has."""
    spoken = [{language for language, _, _ in part} for part in parts]
    found = {}
    for run in dict.fromkeys(run for part in parts for run in part):
        own = [part for part, languages in zip(parts, spoken, strict=True) if run[0] in languages]
        if all(run in part for part in own):
            found[run] = math.fsum(part[run] for part in own) / len(own)
    return found


def run_by_run(one: Scores, other: Scores, pairs: Iterable[Pair]) -> tuple[Grid, Grid] | None:
    """Two regimes in the runs that they share, means over tasks and shots; None of none."""
    both = [shared(one[a], other[b]) for a, b in pairs]
    first, second = (averaged([part[i] for part in both]) for i in (0, 1))
    return stats.paired(first, second)


def shared(
    one: Mapping[Run, float], other: Mapping[Run, float]
) -> tuple[dict[Run, float], dict[Run, float]]:
    """The runs that both have; of a regime that draws no shots one run stands for all draws."""

    drawn = any(draw is not None for _, draw, _ in (*one, *other))
    found: tuple[dict[Run, float], dict[Run, float]] = ({}, {})
    for run in dict.fromkeys((*one, *other)):
        undrawn = (run[0], None, run[2])
        a, b = (scores.get(run, scores.get(undrawn)) for scores in (one, other))
        if a is not None and b is not None and (run[1] is not None or not drawn):
            found[0][run], found[1][run] = a, b
    return found


def by_language(scores: Scores, pairs: Iterable[Pair]) -> dict[str, float]:
    """Mean of each language over tasks, shots and runs, of each task and shots less its mean."""
    parts: dict[str, list[float]] = {}
    centres = []
    for combo, _ in pairs:
        means: dict[str, list[float]] = {}
        for (language, _, _), score in scores[combo].items():
            means.setdefault(language, []).append(score)
        each = {language: math.fsum(those) / len(those) for language, those in means.items()}
        centre = math.fsum(each.values()) / len(each)
        centres.append(centre)
        for language, mean in each.items():
            parts.setdefault(language, []).append(mean - centre)
    whole = math.fsum(centres) / len(centres)
    return {name: whole + math.fsum(those) / len(those) for name, those in sorted(parts.items())}
