"""When a run will have ended: estimates of what is left, scaled by how finished stages turned out.

Pure functions of seconds. They know no store and no clock, so that `status`, the progress of `run`
and the tests ask the same ones. Called by `run.watching`.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

#: How often at least the truth is meant to lie between ``low`` and ``high``.
COVERAGE = 0.8
#: What Student's t is asked for: noise that is skewed takes some of it, as simulations show.
NOMINAL = 0.85
#: Finished stages before there is a bar, and of a kind of work before it has a scale of its own.
ENOUGH = 3
#: Degrees of freedom below which there is no bar either: one long stage among short ones does not
#: say how stages differ.
FREEDOM = 1.0
#: What a stage that has taken longer than expected is expected to take yet, in what it has taken.
OVERDUE = 0.1


@dataclass(frozen=True, slots=True)
class Sample:
    """A finished stage: its kind of work, the seconds it was estimated to take, and took."""

    kind: str
    estimated: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Todo:
    """A stage that has not finished."""

    kind: str
    estimated: float
    needs: tuple[str, ...] = ()
    """Keys of stages that have to finish first; those that are not left have finished."""
    spent: float | None = None
    """Seconds it has run, where it runs."""
    pace: float | None = None
    """Seconds that it has left by its own steps, where it tells them."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Seconds left, and between which two they are in `COVERAGE` of all cases or more."""

    seconds: float
    low: float | None
    high: float | None
    samples: int
    """Finished stages that it is from."""

    def after(self, seconds: float) -> Forecast:
        """The same one so many seconds later, when nothing else is known."""
        low, high = (
            None if bound is None else max(0.0, bound - seconds) for bound in (self.low, self.high)
        )
        return Forecast(max(0.0, self.seconds - seconds), low, high, self.samples)


@dataclass(frozen=True, slots=True)
class _Scale:
    """Seconds a second of estimate, and how sure that is."""

    ratio: float
    noise: float
    """Relative variance of a stage around it."""
    error: float
    """Relative variance of the ratio itself."""
    freedom: float
    """Degrees of freedom of the two."""


def forecast(todo: Mapping[str, Todo], samples: Sequence[Sample], workers: int = 1) -> Forecast:
    """Seconds until all of ``todo`` has finished.

    Each estimate is scaled by the seconds over the estimates of finished stages of its kind of
    work, or of all where fewer than `ENOUGH` of its kind have finished. A running stage that tells
    its steps goes by these. Then stages are placed on ``workers`` as the scheduler would do it.

    The bar is a prediction interval for a noise that multiplies each stage's estimate: Student's t
    times the standard error of the logarithm of the sum. The variance of a stage is that of the
    ratios (weighted by the estimates, so that the start of a short stage counts little); it adds up
    over the stages left, as many times as there are workers, since each has a part of them; the
    variance of the mean ratio comes to it. Degrees of freedom are those of the kind with the
    fewest finished stages, counted by weight. There is no bar before `ENOUGH` stages have finished,
    nor while one of them is nearly all of what has been done.

    Args:
        todo: by key, in the order in which ready stages start.
        samples: finished stages of the same run.
    """
    everything = _scale(samples)
    scales = dict.fromkeys((stage.kind for stage in todo.values()), everything)
    for kind in scales:
        own = [sample for sample in samples if sample.kind == kind]
        if len(own) >= ENOUGH:
            scales[kind] = _scale(own)
    seconds = {key: _seconds(stage, scales[stage.kind].ratio) for key, stage in todo.items()}
    length = span(seconds, {key: stage.needs for key, stage in todo.items()}, workers, _now(todo))
    total = sum(seconds.values())
    if not total:
        return Forecast(0.0, 0.0, 0.0, len(samples))
    used = {id(scale): scale for scale in scales.values()}
    freedom = min(scale.freedom for scale in used.values())
    if len(samples) < ENOUGH or freedom < FREEDOM:
        return Forecast(length, None, None, len(samples))
    variance = 0.0
    for name, scale in used.items():
        parts = [seconds[key] for key, stage in todo.items() if id(scales[stage.kind]) == name]
        spread = max(1, workers) * sum(part**2 for part in parts)
        variance += scale.noise * spread + scale.error * sum(parts) ** 2
    reach = student(0.5 + NOMINAL / 2, freedom) * math.sqrt(variance) / total
    # A variance among so few may be beyond all measure.
    factor = math.exp(min(reach, 50.0))
    return Forecast(length, length / factor, length * factor, len(samples))


def _scale(samples: Sequence[Sample]) -> _Scale:
    """Ratio of sums and its variances; those of estimates that are off by a factor of their own."""
    if not samples:
        return _Scale(1.0, 0.0, 0.0, 0.0)
    estimated = sum(sample.estimated for sample in samples)
    ratio = max(1e-9, sum(sample.seconds for sample in samples) / estimated)
    weights = [sample.estimated / estimated for sample in samples]
    alike = sum(weight**2 for weight in weights)
    if alike > 1 - 1e-9:
        return _Scale(ratio, 0.0, 0.0, 0.0)
    off = (sample.seconds / sample.estimated / ratio - 1 for sample in samples)
    noise = sum(w * part**2 for w, part in zip(weights, off, strict=True)) / (1 - alike)
    return _Scale(ratio, noise, noise * alike, 1 / alike - 1)


def _seconds(stage: Todo, ratio: float) -> float:
    if stage.pace is not None:
        return stage.pace
    if stage.spent is None:
        return stage.estimated * ratio
    return max(stage.estimated * ratio - stage.spent, OVERDUE * stage.spent)


def _now(todo: Mapping[str, Todo]) -> set[str]:
    return {key for key, stage in todo.items() if stage.spent is not None}


def span(
    seconds: Mapping[str, float],
    needs: Mapping[str, Iterable[str]],
    workers: int = 1,
    running: Iterable[str] = (),
) -> float:
    """Seconds until the last stage has ended, when ready ones start in order on free workers.

    Args:
        seconds: of each stage by key, in the order in which ready ones start.
        needs: what has to end first; keys without ``seconds`` have ended.
        running: started already, also where they are more than there are workers.
    """
    place = {key: i for i, key in enumerate(seconds)}
    waits = {key: {below for below in needs.get(key, ()) if below in place} for key in seconds}
    above: dict[str, list[str]] = {}
    for key, below in waits.items():
        for one in below:
            above.setdefault(one, []).append(key)
    going = [(seconds[key], place[key], key) for key in running]
    started = {key for _, _, key in going}
    ready = [(place[key], key) for key in seconds if not waits[key] and key not in started]
    heapq.heapify(going)
    heapq.heapify(ready)
    now = 0.0
    while going or ready:
        while ready and len(going) < max(1, workers):
            at, key = heapq.heappop(ready)
            heapq.heappush(going, (now + seconds[key], at, key))
        now, _, ended = heapq.heappop(going)
        for key in above.get(ended, ()):
            waits[key].discard(ended)
            if not waits[key] and key not in started:
                started.add(key)
                heapq.heappush(ready, (place[key], key))
    return now


def student(share: float, freedom: float) -> float:
    """The quantile of Student's t by Fisher's expansion around the normal one (Abramowitz and
    Stegun 26.7.5); within 7 % of the truth for shares up to 0.925."""
    z, v = NormalDist().inv_cdf(share), freedom
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    )
