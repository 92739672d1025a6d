"""What is said of scores without a model of how they vary: shares of pairs, means that outliers do
not move, the bootstrap and flips of signs.

They stand beside the intervals of `report.stats`. Scores are fractions; nothing is drawn but by a
generator that is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from adapterxlt.report.stats import LEVEL, Array, Grid, Over

Statistic = Callable[[Array], Array]
#: Exact sign flips up to so many values; beyond, as many drawn ones.
FLIPS = 13


def improvement(one: Grid, other: Grid) -> float:
    """Probability of improvement (Agarwal et al. 2021): that a run of one regime is above a run of
    the other in the same language, ties half; mean over languages."""
    a, b = (grid.values.reshape(len(grid.languages), -1) for grid in (one, other))
    above = (a[:, :, None] > b[:, None, :]) + 0.5 * (a[:, :, None] == b[:, None, :])
    return float(above.mean(axis=(1, 2)).mean())


def interquartile_mean(values: Array) -> Array:
    """Mean of the middle half of all values (Agarwal et al. 2021), as `scipy.stats.trim_mean`.

    Args:
        values: (..., languages, draws, seeds).
    """
    ordered = np.sort(values.reshape(*values.shape[:-3], -1), axis=-1)
    cut = int(0.25 * ordered.shape[-1])
    found: Array = ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)
    return found


def worst_case(values: Array) -> Array:
    """Mean over languages of the lowest run of each, of (..., languages, draws, seeds)."""
    found: Array = values.min(axis=(-2, -1)).mean(axis=-1)
    return found


def bootstrap(
    grid: Grid,
    statistic: Statistic,
    generator: np.random.Generator,
    *,
    times: int = 1000,
    over: Over = "languages",
    level: float = LEVEL,
) -> tuple[float, float]:
    """Percentile interval of a statistic by the hierarchical bootstrap.

    Languages are drawn with replacement, in each its draws of shots, and seeds for all of them
    (crossed, as Owen 2007); over runs, languages stay. With few of each it is too narrow, which is
    why means have `stats.mean_effect`.

    Args:
        statistic: of values (times, languages, draws, seeds), (times,).
    """
    languages, draws, seeds = grid.shape
    chosen = np.tile(np.arange(languages), (times, 1))
    if over == "languages":
        chosen = generator.integers(languages, size=(times, languages))
    shots = generator.integers(draws, size=(times, languages, draws))
    again = generator.integers(seeds, size=(times, seeds))
    drawn = grid.values[chosen[:, :, None, None], shots[:, :, :, None], again[:, None, None, :]]
    tail = 50 * (1 - level)
    low, high = np.percentile(statistic(drawn), [tail, 100 - tail])
    return float(low), float(high)


def sign_flips(values: Sequence[float], generator: np.random.Generator) -> float | None:
    """Two-sided p of a mean of paired differences by flipping their signs; None of fewer than two.

    All flips of up to `FLIPS` values, else as many drawn ones, the found one among them. It asks
    for no distribution but that no regime is better: with n values it is never below 2 / 2^n.
    """
    given = np.array(values)
    if len(given) < 2:
        return None
    if len(given) <= FLIPS:
        signs = 1 - 2.0 * ((np.arange(2 ** len(given))[:, None] >> np.arange(len(given))) & 1)
    else:
        signs = 1 - 2.0 * generator.integers(2, size=(2**FLIPS, len(given)))
        signs[0] = 1.0
    sums = np.abs(signs @ given)
    # The sum of the given signs is among them, with its own rounding.
    return float((sums >= abs(given.sum()) - 1e-12 * np.abs(given).sum()).mean())
