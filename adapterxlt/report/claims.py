"""Claims measured on rows: effect, interval and verdict of each, with the runs behind them.

Pure functions of rows and of claims as data (`core.claims`); `report.stats` does the arithmetic.
The verb `claims` prints what is found here, and the page opens with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from adapterxlt.core.claims import UNITS, Claim, Part
from adapterxlt.report import stats
from adapterxlt.report.pairs import (
    Pair,
    Scores,
    averaged,
    by_language,
    by_regime,
    keys_of,
    pairs_of,
    run_by_run,
    shared,
)
from adapterxlt.report.stats import Effect
from adapterxlt.report.summaries import UPPER_BOUND, Row, class_rank

Outcome = Literal["supported", "refuted", "undecided", "not measured", "ahead", "behind", "equal"]
#: An effect of which nothing is expected is not found by chance in more of 100 claims than five.
ALPHA = 0.05
#: Measures that are never negative: they are held against what matters, not against nothing.
SIZES = ("language-spread", "below")


@dataclass(frozen=True)
class Finding:
    """A part of a claim on one population.

    Attributes:
        about: which population, in words; empty for all of it.
        regime: the regime that was measured, and `than` the one it is held against.
        effect: None where the rows have nothing to measure; its numbers are fractions, or
            logarithms of factors (see `shown`).
        outcome: one word; of a question whether `regime` is ahead, behind or equal.
        corrected: p by Holm over all parts that are measured together.
        detectable: least effect found in four of five studies like this, as the effect's.
        enough: how many languages or seeds would decide, were the effect as found.
        keys: evaluations behind it.
    """

    part: Part
    about: str
    regime: str
    than: str = ""
    shots: tuple[int, ...] = ()
    effect: Effect | None = None
    outcome: Outcome = "not measured"
    why: str = ""
    corrected: float | None = None
    detectable: float | None = None
    enough: int | None = None
    keys: tuple[str, ...] = ()

    def shown(self, value: float | None) -> str:
        """A number of the effect as people read it: points with a sign, a factor, a share."""
        if value is None:
            return "–"
        if self.part.measure == "instability":
            return f"{math.exp(value):.2f}"
        sign = "" if self.part.measure in SIZES else "+"
        text = f"{100 * value:{sign}.1f}"
        return text.replace("-", "\N{MINUS SIGN}")

    @property
    def unit(self) -> str:
        return UNITS[self.part.measure]

    @property
    def measured(self) -> str:
        """The effect with its interval: `+1.9 [0.4, 3.3] points`."""
        if self.effect is None:
            return "–"
        text = self.shown(self.effect.value)
        if self.effect.known:
            text += f" [{self.shown(self.effect.low)}, {self.shown(self.effect.high)}]"
        return f"{text} {self.unit}"

    @property
    def n(self) -> str:
        """What the effect stands on: `6 languages, 3 draws, 2 seeds`."""
        if self.effect is None:
            return "–"
        names = ("language", "draw", "seed")
        counts = zip(self.effect.shape, names, strict=True)
        return ", ".join(f"{n} {name}{'s' * (n != 1)}" for n, name in counts)


@dataclass(frozen=True)
class Verdict:
    """A claim with what was found of each of its parts."""

    claim: Claim
    findings: tuple[Finding, ...]

    @property
    def outcome(self) -> str:
        """One word of the whole: supported if every part is, refuted if one is."""
        found = [finding.outcome for finding in self.findings]
        if self.claim.asks:
            return "measured" if any(one != "not measured" for one in found) else "not measured"
        for word in ("refuted", "not measured"):
            if word in found:
                return word
        return "supported" if set(found) == {"supported"} else "undecided"


def judge_all(claims: Iterable[Claim], rows: Sequence[Row]) -> list[Verdict]:
    """Measure claims on the rows of a study; p values are corrected over all of them together."""
    kept = [row for row in rows if row["role"] != "source"]
    found = [(claim, [f for part in claim.parts for f in _measure(part, kept)]) for claim in claims]
    # What two claims measure alike is one comparison.
    ps = {
        _measured(f): f.effect.p
        for _, findings in found
        for f in findings
        if f.effect is not None and f.effect.p is not None
    }
    corrected = dict(zip(ps, stats.holm(list(ps.values())), strict=True))
    return [
        Verdict(
            claim,
            tuple(_decided(replace(f, corrected=corrected.get(_measured(f)))) for f in findings),
        )
        for claim, findings in found
    ]


def _measured(finding: Finding) -> tuple[Any, ...]:
    """What was measured, whatever it is held against."""
    part = finding.part
    return (
        *(part.measure, part.metric, part.over, part.more, part.fewer),
        *(finding.regime, finding.than, finding.shots, finding.keys),
    )


# --- what is measured ----------------------------------------------------------------------------


def _measure(part: Part, rows: Sequence[Row]) -> Iterator[Finding]:
    """A part on its whole population, and on each class or task of it."""
    kept = [row for row in rows if _belongs(part, row)]
    yield _one(part, "", kept)
    column = {"class": "resource_class", "task": "task", None: None}[part.each]
    if column is None:
        return
    names = {str(row[column]) for row in kept}
    if len(names) > 1:
        for name in sorted(names, key=class_rank if part.each == "class" else str):
            about = f"{name}-resource languages" if part.each == "class" else name
            yield _one(part, about, [row for row in kept if row[column] == name])


def _belongs(part: Part, row: Row) -> bool:
    where, metric = part.where, part.metric
    return (
        (row["primary"] if metric is None else row["metric"] == metric)
        and (where.tasks is None or row["task"] in where.tasks)
        and (where.targets is None or row["target"] in where.targets)
        and (where.classes is None or row["resource_class"] in where.classes)
    )


def _one(part: Part, about: str, rows: Sequence[Row]) -> Finding:
    there = {str(row["regime"]) for row in rows}
    chosen = [
        next((name for name in side if name in there), "")
        for side in (part.regime, part.than or ())
    ]
    named = [
        name or (side or ("",))[0]
        for name, side in zip(chosen, (part.regime, part.than), strict=True)
    ]
    bounds = {str(row["regime"]) for row in rows if row.get("upper_bound")}
    shown = [f"{name} {UPPER_BOUND}" if name in bounds else name for name in named]
    found = Finding(part, about, shown[0], shown[1])
    for name, side in zip(chosen, (part.regime, part.than or ()), strict=True):
        if side and not name:
            return replace(found, why=f"there are no scores of {' or '.join(side)}")
    scores = by_regime(row for row in rows if row["regime"] in chosen)
    sides = [scores.get(name, {}) for name in chosen if name]
    pairs = list(pairs_of(sides[0], sides[-1], part.where.shots))
    if not pairs:
        return replace(found, why="the regimes share no shots")
    shots = tuple(sorted({max(one[1], other[1]) for one, other in pairs}))
    effect = _MEASURES[part.measure](part, sides, pairs, rows)
    keys = keys_of(rows, {(chosen[i], pair[i]) for pair in pairs for i in range(len(sides))})
    if effect is None:
        return replace(found, shots=shots, keys=keys, why=_nothing(part))
    if part.measure in SIZES:
        # It is never nothing, so how often nothing would look like it is no question.
        effect = replace(effect, p=None)
    return replace(
        found, shots=shots, keys=keys, effect=effect, detectable=stats.detectable(effect)
    )


def _difference(
    part: Part, sides: Sequence[Scores], pairs: Sequence[Pair], rows: Any
) -> Effect | None:
    grids = run_by_run(sides[0], sides[-1], pairs)
    return stats.mean_effect(grids[0] - grids[1], part.over) if grids else None


def _below(part: Part, sides: Sequence[Scores], pairs: Sequence[Pair], rows: Any) -> Effect | None:
    shares = []
    for one, other in pairs:
        a, b = shared(sides[0][one], sides[-1][other])
        shares.append({run: (a[run] < b[run]) + 0.5 * (a[run] == b[run]) for run in a})
    grid = stats.grid_of(averaged(shares))
    return stats.mean_effect(grid, part.over) if grid else None


def _instability(
    part: Part, sides: Sequence[Scores], pairs: Sequence[Pair], rows: Any
) -> Effect | None:
    logs: dict[str, list[float]] = {}
    shape, left_out = (0, 0, 0), 0
    for one, other in pairs:
        a, b = sides[0][one], sides[-1][other]
        common = {run[0] for run in a} & {run[0] for run in b}
        grids = [
            stats.grid_of({run: score for run, score in scores.items() if run[0] in common})
            for scores in (a, b)
        ]
        if grids[0] is None or grids[1] is None or grids[0].languages != grids[1].languages:
            continue
        ratio = stats.ratio_of_spreads(grids[0], grids[1])
        for language, value in ratio.by_language if ratio else ():
            logs.setdefault(language, []).append(value)
        shape = max(shape, grids[0].shape)
        left_out += grids[0].left_out + grids[1].left_out
    means = {name: math.fsum(those) / len(those) for name, those in sorted(logs.items())}
    effect = stats.of_languages(means)
    return replace(effect, shape=(effect.n, *shape[1:]), left_out=left_out) if effect else None


def _language_spread(
    part: Part, sides: Sequence[Scores], pairs: Sequence[Pair], rows: Any
) -> Effect | None:
    means = by_language(sides[0], pairs)
    grid = stats.grid_of({(name, None, 0): mean for name, mean in means.items()})
    effect = stats.spread_of_languages(grid) if grid else None
    return _with_runs(effect, sides[0], pairs)


def _between_classes(
    part: Part, sides: Sequence[Scores], pairs: Sequence[Pair], rows: Sequence[Row]
) -> Effect | None:
    means = by_language(sides[0], pairs)
    of = {str(row["target"]): str(row["resource_class"]) for row in rows}
    groups = [
        {name: mean for name, mean in means.items() if of[name] in (classes or ())}
        for classes in (part.more, part.fewer)
    ]
    return _with_runs(stats.difference_of_groups(groups[0], groups[1]), sides[0], pairs)


def _per_distance(
    part: Part, sides: Sequence[Scores], pairs: Sequence[Pair], rows: Sequence[Row]
) -> Effect | None:
    steps = {str(row["target"]): row.get("distance") for row in rows}
    means = by_language(sides[0], pairs)
    points = {
        name: (float(step), mean)
        for name, mean in means.items()
        if (step := steps[name]) is not None
    }
    return _with_runs(stats.slope(points) if points else None, sides[0], pairs)


def _with_runs(effect: Effect | None, scores: Scores, pairs: Iterable[Pair]) -> Effect | None:
    """Say how many draws and seeds stand behind means of languages."""
    if effect is None:
        return None
    runs = [run for combo, _ in pairs for run in scores[combo]]
    counts = (len({draw for _, draw, _ in runs}), len({seed for _, _, seed in runs}))
    return replace(effect, shape=(effect.shape[0], *counts))


_MEASURES: Mapping[str, Callable[..., Effect | None]] = {
    "difference": _difference,
    "below": _below,
    "instability": _instability,
    "language-spread": _language_spread,
    "between-classes": _between_classes,
    "per-distance": _per_distance,
}


def _nothing(part: Part) -> str:
    """Why rows that are there give no effect."""
    return {
        "difference": "the regimes share no run",
        "below": "the regimes share no run",
        "instability": "no language has two runs of both regimes that differ",
        "language-spread": "there is one language",
        "between-classes": f"no language is {either(part.more)}, or none {either(part.fewer)}",
        "per-distance": "all languages are equally far from the source",
    }[part.measure]


def either(names: tuple[str, ...] | None) -> str:
    return " or ".join(names or ())


# --- verdicts ------------------------------------------------------------------------------------


def _decided(finding: Finding) -> Finding:
    """The outcome, and how much more would decide what is undecided."""
    effect, part = finding.effect, finding.part
    if effect is None:
        return finding
    least = math.log(part.least) if part.measure == "instability" else part.least / 100
    value, low, high = effect.value, effect.low, effect.high
    if low is None or high is None:
        return replace(finding, outcome="undecided", why="nothing tells how far it would vary")
    if part.direction == "lower":
        value, low, high = -value, -high, -low
    chance = finding.corrected is not None and finding.corrected > ALPHA
    nothing = least if part.measure in SIZES else 0.0
    if part.direction == "either":
        outcome, boundary = _answer(value, low, high, least, chance)
    else:
        outcome, boundary = _verdict(value, low, high, least, nothing, chance)
    if outcome != "undecided":
        return replace(finding, outcome=outcome)
    boundary = -boundary if part.direction == "lower" else boundary
    return replace(finding, outcome=outcome, enough=stats.enough(effect, boundary))


def _verdict(
    value: float, low: float, high: float, least: float, nothing: float, chance: bool
) -> tuple[Outcome, float]:
    """Supported: not nothing, and as large as matters. Refuted: what would matter is excluded."""
    if low > nothing and value >= least and not chance:
        return "supported", nothing
    if high < least or (least == 0 and high <= 0):
        return "refuted", least
    return "undecided", nothing if value >= least else least


def _answer(
    value: float, low: float, high: float, least: float, chance: bool
) -> tuple[Outcome, float]:
    """Of a question: ahead or behind as far as matters; equal where nothing else is left."""
    if low > 0 and value >= least and not chance:
        return "ahead", 0.0
    if high < 0 and -value >= least and not chance:
        return "behind", 0.0
    if -least < low and high < least:
        return "equal", least
    return "undecided", 0.0 if abs(value) >= least else math.copysign(least, value)
