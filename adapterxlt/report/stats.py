"""Effects with intervals that respect how a study is laid out: languages, draws of shots, seeds.

A score belongs to a language, a draw of shots in that language, and a training seed that all
languages share, since they begin from one training on the source. So draws are nested in languages
and seeds are crossed with them, and runs are not independent: of 6 languages x 3 draws x 2 seeds
there are not 36 values that a t test may take. What is here takes the mean squares of that layout
(Searle, Casella and McCulloch 1992, chapter 4) and Satterthwaite's degrees of freedom; SciPy has
the distributions. Scores are fractions; nothing here reads a store, asks the clock or draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
#: Language, draw and seed of a score; a draw is None where no shots are drawn.
Run = tuple[str, int | None, int]
#: What an effect is to hold for: languages like these, or these alone.
Over = Literal["languages", "runs"]
LEVEL, POWER = 0.95, 0.8
#: Parts of the spread are left out where they would be found so often by chance.
POOLED = 0.25


@dataclass(frozen=True)
class Grid:
    """Values of languages x draws x seeds, none lacking; `left_out` runs that were in no full grid.

    Draws of one place belong to different choices of shots in different languages.
    """

    languages: tuple[str, ...]
    values: Array
    left_out: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of languages, draws and seeds."""
        a, b, c = self.values.shape
        return a, b, c

    @property
    def means(self) -> Array:
        """Mean of each language, (languages,)."""
        found: Array = self.values.mean(axis=(1, 2))
        return found

    def __sub__(self, other: Grid) -> Grid:
        return replace(self, values=self.values - other.values)


def grid_of(scores: Mapping[Run, float]) -> Grid | None:
    """The largest full grid of some runs, or near it; None of none.

    Where runs lack, the language, draw or seed that lacks the largest share is left out, again and
    again, until no place is empty; of equals the last.
    """
    axes: list[list[Any]] = [sorted({run[i] for run in scores}, key=_order) for i in range(3)]
    values = np.full([len(axis) for axis in axes], np.nan)
    for run, score in scores.items():
        place = tuple(axis.index(at) for axis, at in zip(axes, run, strict=True))
        values[place] = score
    there = int(np.isfinite(values).sum())
    while values.size and not np.isfinite(values).all():
        lacking = np.isnan(values)
        shares = [lacking.mean(axis=tuple({0, 1, 2} - {i})) for i in range(3)]
        axis = max(range(3), key=lambda i: (shares[i].max(), i))
        worst = int(np.flatnonzero(shares[axis] == shares[axis].max())[-1])
        values = np.delete(values, worst, axis)
        del axes[axis][worst]
    return Grid(tuple(axes[0]), values, there - values.size) if values.size else None


def paired(one: Mapping[Run, float], other: Mapping[Run, float]) -> tuple[Grid, Grid] | None:
    """Two regimes in the same runs, as grids of the same runs; None where they share none.

    A regime that draws no shots has one run for all draws of the other.
    """
    undrawn = [all(draw is None for _, draw, _ in scores) for scores in (one, other)]
    if undrawn[0] != undrawn[1]:
        wide = other if undrawn[0] else one
        few = one if undrawn[0] else other
        few = {run: few[run[0], None, run[2]] for run in wide if (run[0], None, run[2]) in few}
        one, other = (few, other) if undrawn[0] else (one, few)
    shared = [run for run in one if run in other and _finite(one[run]) and _finite(other[run])]
    first, second = (grid_of({run: scores[run] for run in shared}) for scores in (one, other))
    return (first, second) if first is not None and second is not None else None


@dataclass(frozen=True)
class Effect:
    """An estimate with what its interval stands on.

    `value`, `low` and `high` are fractions, or the logarithm of a ratio; `low`, `high`, `se`, `p`
    are None where nothing is known of the spread. `p` is two-sided, of no effect at all. `over`
    says what the interval holds for; `n` counts what it varies over. `by_language` is the
    effect in each language.
    """

    value: float
    low: float | None = None
    high: float | None = None
    se: float | None = None
    df: float | None = None
    p: float | None = None
    over: str = ""
    n: int = 0
    shape: tuple[int, int, int] = (0, 0, 0)
    left_out: int = 0
    by_language: tuple[tuple[str, float], ...] = ()

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return self.low is not None


def mean_effect(grid: Grid, over: Over = "languages", level: float = LEVEL) -> Effect:
    """The mean of a grid, every language weighing the same, with its interval.

    Over languages, they, their draws and the seeds are samples; over runs, languages are these.
    With one language an interval is over runs; with one seed it says nothing of others.
    """
    languages, draws, seeds = grid.shape
    over = "runs" if languages < 2 else over
    squares = _mean_squares(grid.values)
    # Each part: a mean square that enters the variance of the mean, and its degrees of freedom.
    parts: list[tuple[float, float]] = []
    if over == "languages":
        parts.append(squares["language"])
        parts += _beyond(squares["seed"], squares["both"])
    elif seeds > 1:
        parts.append(squares["seed"])
        parts += _beyond(squares["draw"], squares["rest"])
    elif draws > 1:
        parts.append(squares["draw"])
    size = {"languages": languages, "runs": seeds if seeds > 1 else draws}[over]
    found = Effect(
        value=math.fsum(grid.means) / languages,
        over=over,
        n=size,
        shape=grid.shape,
        left_out=grid.left_out,
        by_language=tuple(zip(grid.languages, map(float, grid.means), strict=True)),
    )
    variance = sum(square for square, _ in parts) / grid.values.size
    if not parts:
        return replace(found, over="")
    spread = sum((square / grid.values.size) ** 2 / df for square, df in parts if df > 0)
    df = max(1.0, variance**2 / spread) if spread > 0 else float(size - 1)
    return with_interval(found, math.sqrt(variance), df, level)


def with_interval(effect: Effect, se: float, df: float, level: float = LEVEL) -> Effect:
    """An estimate with Student's t interval and the p value of no effect."""
    reach = t_quantile(0.5 + level / 2, df) * se
    if se > 0:
        from scipy.special import stdtr

        p = 2 * float(stdtr(df, -abs(effect.value) / se))
    else:
        p = 1.0 if effect.value == 0 else 0.0
    low, high = effect.value - reach, effect.value + reach
    return replace(effect, low=low, high=high, se=se, df=df, p=p)


def of_languages(by_language: Mapping[str, float], level: float = LEVEL) -> Effect | None:
    """The mean of a value a language, with Student's t interval over them; None of none."""
    values = list(by_language.values())
    if not values:
        return None
    mean = math.fsum(values) / len(values)
    found = Effect(
        value=mean,
        n=len(values),
        shape=(len(values), 1, 1),
        by_language=tuple(by_language.items()),
    )
    if len(values) < 2:
        return found
    se = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return with_interval(replace(found, over="languages"), se, len(values) - 1, level)


def _mean_squares(values: Array) -> dict[str, tuple[float, float]]:
    """(mean square, degrees of freedom) of each part of the layout; 0 where it has none.

    `both` is of language x seed, `rest` of draw x seed within languages.
    """
    languages, draws, seeds = values.shape
    mean = values.mean()
    by_language = values.mean(axis=(1, 2), keepdims=True)
    by_seed = values.mean(axis=(0, 1), keepdims=True)
    by_both = values.mean(axis=1, keepdims=True)
    by_draw = values.mean(axis=2, keepdims=True)
    sums = {
        "language": (draws * seeds * ((by_language - mean) ** 2).sum(), languages - 1),
        "seed": (languages * draws * ((by_seed - mean) ** 2).sum(), seeds - 1),
        "both": (
            draws * ((by_both - by_language - by_seed + mean) ** 2).sum(),
            (languages - 1) * (seeds - 1),
        ),
        "draw": (seeds * ((by_draw - by_language) ** 2).sum(), languages * (draws - 1)),
        "rest": (
            ((values - by_both - by_draw + by_language) ** 2).sum(),
            languages * (draws - 1) * (seeds - 1),
        ),
    }
    return {name: (float(s / df) if df else 0.0, float(df)) for name, (s, df) in sums.items()}


def _beyond(one: tuple[float, float], other: tuple[float, float]) -> list[tuple[float, float]]:
    """What a mean square has more than another, as a part; nothing where that may be chance.

    At the level 0.25 (Bancroft 1964): with two seeds a part that is none would otherwise be taken
    for one half of the time, with half a degree of freedom and intervals without bounds.
    """
    from scipy.special import fdtrc

    (square, df), (less, less_df) = one, other
    if square <= less or not df or (less > 0 and fdtrc(df, less_df, square / less) > POOLED):
        return []
    excess = square - less
    noise = square**2 / df + (less**2 / less_df if less_df else 0.0)
    return [(excess, excess**2 / noise)]


@dataclass(frozen=True)
class Components:
    """Variances of a regime's scores: of languages, of seeds, of a seed in one language, of the
    draw of shots, and of what is left. None where the study cannot tell: it has one of them."""

    language: float | None
    seed: float | None
    seed_in_language: float | None
    draw: float | None
    rest: float | None

    @property
    def whole(self) -> float:
        return sum(value for value in self.parts.values() if value is not None)

    @property
    def parts(self) -> dict[str, float | None]:
        """By name, in the order in which they are shown."""
        return {
            "language": self.language,
            "draw of shots": self.draw,
            "seed": self.seed,
            "seed in a language": self.seed_in_language,
            "rest": self.rest,
        }


def components(grid: Grid) -> Components:
    """How much of the spread each source makes: the moment estimates of a random-effects model.

    Of a full grid in which none of them is negative they are the REML estimates; negative ones are
    0. With one draw, `rest` is in `seed_in_language`; with one seed, in `draw`.
    """
    languages, draws, seeds = grid.shape
    square = {name: value for name, (value, _) in _mean_squares(grid.values).items()}
    several = (languages > 1, draws > 1, seeds > 1)

    def positive(value: float, known: bool) -> float | None:
        return max(0.0, value) if known else None

    noise = square["rest"]
    between = square["language"] - square["draw"] - square["both"] + noise
    if draws == 1:
        between = square["language"] - square["both"]
    elif seeds == 1:
        between = square["language"] - square["draw"]
    return Components(
        language=positive(between / (draws * seeds), several[0]),
        draw=positive((square["draw"] - noise) / seeds, several[1]),
        seed=positive((square["seed"] - square["both"]) / (languages * draws), several[2]),
        seed_in_language=positive((square["both"] - noise) / draws, several[0] and several[2]),
        rest=positive(noise, several[1] and several[2]),
    )


def spread_of_languages(grid: Grid, level: float = LEVEL) -> Effect | None:
    """Standard deviation among the languages' means, with the chi-squared interval of normal ones;
    None of one language."""
    count = len(grid.languages)
    if count < 2:
        return None
    from scipy.special import chdtri

    sd = float(np.std(grid.means, ddof=1))
    tail = (1 - level) / 2
    low, high = (sd * math.sqrt((count - 1) / chdtri(count - 1, q)) for q in (tail, 1 - tail))
    means = tuple(zip(grid.languages, map(float, grid.means), strict=True))
    se = sd / math.sqrt(2 * (count - 1))
    return Effect(
        sd, low, high, se, count - 1, None, "languages", count, grid.shape, grid.left_out, means
    )


def difference_of_groups(
    one: Mapping[str, float], other: Mapping[str, float], level: float = LEVEL
) -> Effect | None:
    """Mean of some languages less that of others, Welch's t interval; None where one is empty."""
    groups = [np.array(list(part.values())) for part in (one, other)]
    if not all(len(group) for group in groups):
        return None
    found = Effect(
        float(groups[0].mean() - groups[1].mean()),
        n=sum(map(len, groups)),
        shape=(sum(map(len, groups)), 1, 1),
        by_language=(*one.items(), *other.items()),
    )
    if not all(len(group) > 1 for group in groups):
        return found
    shares = [float(group.var(ddof=1)) / len(group) for group in groups]
    se = math.sqrt(sum(shares))
    noise = sum(share**2 / (len(group) - 1) for share, group in zip(shares, groups, strict=True))
    df = se**4 / noise if noise > 0 else float(found.n - 2)
    return with_interval(replace(found, over="languages"), se, df, level)


def slope(points: Mapping[str, tuple[float, float]], level: float = LEVEL) -> Effect | None:
    """Change of a value a step, by least squares over languages: (step, value) of each; None where
    all stand on one step."""
    steps, values = (np.array([pair[i] for pair in points.values()]) for i in (0, 1))
    if len(points) < 2 or np.ptp(steps) == 0:
        return None
    centred = steps - steps.mean()
    square = float((centred**2).sum())
    found = Effect(
        float((centred * values).sum()) / square,
        n=len(points),
        shape=(len(points), 1, 1),
        by_language=tuple((name, value) for name, (_, value) in points.items()),
    )
    if len(points) < 3:
        return found
    rest = values - values.mean() - found.value * centred
    se = math.sqrt(float((rest**2).sum()) / (len(points) - 2) / square)
    return with_interval(replace(found, over="languages"), se, len(points) - 2, level)


def ratio_of_spreads(one: Grid, other: Grid, level: float = LEVEL) -> Effect | None:
    """Logarithm of the ratio of two regimes' standard deviations over runs of a language.

    Of each language in which both spread; the mean over them has Student's t interval. The
    logarithm of a variance of few runs is too low by a known amount (that of a normal sample's),
    which is put back, so that regimes with unequally many runs can be compared.
    """
    from scipy.special import digamma

    logs = []
    for grid in (one, other):
        runs = grid.values.reshape(len(grid.languages), -1)
        df = runs.shape[1] - 1
        if df < 1:
            return None
        with np.errstate(divide="ignore"):
            logs.append(
                0.5 * (np.log(runs.var(axis=1, ddof=1)) - digamma(df / 2) + math.log(df / 2))
            )
    found = {
        language: float(a - b)
        for language, a, b in zip(one.languages, *logs, strict=True)
        if math.isfinite(a) and math.isfinite(b)
    }
    effect = of_languages(found, level)
    return replace(effect, shape=one.shape, left_out=one.left_out) if effect else None


def share_below(one: Grid, other: Grid, level: float = LEVEL) -> Effect:
    """Share of the runs of a language in which a regime is below another, ties half, over them."""
    below = (one.values < other.values) + 0.5 * (one.values == other.values)
    return mean_effect(replace(one, values=below.astype(float)), "languages", level)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """p values corrected for how many there are (Holm 1979); None stays."""
    known = [value for value in values if value is not None]
    if not known:
        return list(values)
    order = np.argsort(known, kind="stable")
    scaled = np.array(known)[order] * (len(known) - np.arange(len(known)))
    corrected = np.empty(len(known))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    found = iter(corrected)
    return [None if value is None else float(next(found)) for value in values]


def detectable(effect: Effect, level: float = LEVEL, power: float = POWER) -> float | None:
    """The least effect that a study with this spread finds with this power; None without one."""
    if effect.se is None or effect.df is None:
        return None
    reach = t_quantile(0.5 + level / 2, effect.df) + t_quantile(power, effect.df)
    return float(reach * effect.se)


def enough(effect: Effect, boundary: float, level: float = LEVEL, most: int = 1000) -> int | None:
    """How many of what an effect varies over would part it from a boundary, were it as found.

    None where more than ``most`` would not, or nothing is known of the spread.
    """
    distance = abs(effect.value - boundary)
    if effect.se is None or distance == 0 or effect.n < 2:
        return None
    single = effect.se * math.sqrt(effect.n)
    for count in range(effect.n + 1, most + 1):
        if t_quantile(0.5 + level / 2, count - 1) * single / math.sqrt(count) < distance:
            return count
    return None


@lru_cache(maxsize=4096)
def t_quantile(share: float, df: float) -> float:
    """Quantile of Student's t."""
    # What `scipy.stats.t.ppf` gives, without the half second that importing `scipy.stats` takes.
    from scipy.special import stdtrit

    return float(stdtrit(df, share))


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _order(value: Any) -> tuple[int, Any]:
    return (0, 0) if value is None else (1, value)
