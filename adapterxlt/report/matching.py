"""Runs of two studies side by side: which pair, which only one has, and what is called otherwise.

It never computes a mean and never guesses that two names mean the same. `report.comparing` makes
its means of these pairs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from adapterxlt.core.errors import UsageError, did_you_mean
from adapterxlt.report.summaries import Row, score_of, value_order

#: What a run is, the same in both studies. Names of studies, classes and keys may differ.
RUN: tuple[str, ...] = ("task", "metric", "regime", "upper_bound", "source", "target", "role")
RUN += ("shots", "draw", "seed")
#: What runs are named by that only one study may have; a role has no other name.
_NAMED = tuple(name for name in RUN if name != "role")


@dataclass(frozen=True)
class Pair:
    """The same run in both studies; `a` and `b` are its rows."""

    a: Row
    b: Row

    @property
    def scores(self) -> tuple[float, float] | None:
        """Both scores, or None where one does not exist."""
        first, second = score_of(self.a), score_of(self.b)
        return None if first is None or second is None else (first, second)


@dataclass(frozen=True)
class Pairs:
    """Pairs in the order of A, and how many runs only one study has.

    `of_source` counts the pairs on the source's own test set and `unscored` the others in which a
    score does not exist: neither enters a mean. `words` says what differs, a sentence each.
    """

    usable: tuple[Pair, ...]
    of_source: int
    unscored: int
    only_a: int
    only_b: int
    words: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.usable) + self.of_source + self.unscored


def pair(a: Sequence[Row], b: Sequence[Row], metric: str | None = None) -> Pairs:
    """Pair the runs of two studies by `RUN`, of each task's primary metric or of one by name.

    UsageError where a study has two scores of one run, and where no run is in both, with what
    differs.
    """
    kept_a, kept_b = _of_metric(a, metric), _of_metric(b, metric)
    if metric is not None and not (kept_a and kept_b):
        known = {str(row["metric"]) for row in a} & {str(row["metric"]) for row in b}
        raise UsageError(f"no metric {metric!r} in both", hint=did_you_mean(metric, known))
    runs_a, runs_b = _runs(kept_a, "A"), _runs(kept_b, "B")
    both = [Pair(row, runs_b[run]) for run, row in runs_a.items() if run in runs_b]
    if not both:
        raise UsageError("no run is in both A and B", hint=_differing(kept_a, kept_b))
    targets = [one for one in both if one.a["role"] != "source"]
    usable = tuple(one for one in targets if one.scores is not None)
    if not usable:
        raise UsageError("no run on a target has a score in both A and B")
    return Pairs(
        usable=usable,
        of_source=len(both) - len(targets),
        unscored=len(targets) - len(usable),
        only_a=len(runs_a) - len(both),
        only_b=len(runs_b) - len(both),
        words=(*_names(kept_a, kept_b), *_unlike(both)),
    )


def _of_metric(rows: Iterable[Row], metric: str | None) -> list[Row]:
    return [row for row in rows if (row["primary"] if metric is None else row["metric"] == metric)]


def _runs(rows: Iterable[Row], study: str) -> dict[tuple[Any, ...], Row]:
    """Rows by run; the same row given twice is one."""
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        run = tuple(row[name] for name in RUN)
        other = found.setdefault(run, row)
        if other["evaluate_key"] != row["evaluate_key"]:
            who = " ".join(str(row[name]) for name in ("task", "regime", "target"))
            who += f", {row['shots']} shots, draw {row['draw']}, seed {row['seed']}"
            raise UsageError(
                f"{study} has two scores of one run ({who})", hint="give a file with one study"
            )
    return found


def _names(a: Sequence[Row], b: Sequence[Row]) -> list[str]:
    """What the studies are called where they differ, and what only one of them has."""
    out = []
    studies = _values(a, "study"), _values(b, "study")
    if studies[0] != studies[1]:
        out.append(f"The study is {_listed(studies[0])} in A and {_listed(studies[1])} in B.")
    for which, mine, other in (("A", a, b), ("B", b, a)):
        alone = {
            name: [value for value in _values(mine, name) if value not in _values(other, name)]
            for name in _NAMED
        }
        said = [f"{_spoken(name)} {_listed(values)}" for name, values in alone.items() if values]
        if said:
            out.append(f"Only in {which}: {'; '.join(said)}.")
    return out


def _unlike(pairs: Sequence[Pair]) -> list[str]:
    """What a reader must know of pairs whose rows are not about the same."""
    out = []
    items = sum(one.a["n"] != one.b["n"] for one in pairs)
    if items:
        out.append(
            f"In {items} of {len(pairs)} pairs the number of test items differs: the scores are "
            "not of the same test set."
        )
    classes: dict[str, str] = {}
    for one in pairs:
        mine, other = one.a["resource_class"], one.b["resource_class"]
        if mine != other:
            classes[str(one.a["target"])] = f"{one.a['target']} ({mine}, {other} in B)"
    if classes:
        out.append(
            f"Resource classes are those of A, which differ for {_listed(classes.values())}."
        )
    same = sum(one.a["evaluate_key"] == one.b["evaluate_key"] for one in pairs)
    if same:
        out.append(f"In {same} of {len(pairs)} pairs both are one evaluation: nothing differs.")
    return out


def _differing(a: Sequence[Row], b: Sequence[Row]) -> str:
    """Why no run is in both: columns without a common value, else those that differ at all."""
    values = {name: (_values(a, name), _values(b, name)) for name in RUN}
    apart = {name for name, (in_a, in_b) in values.items() if not set(in_a) & set(in_b)}
    shown = apart or {name for name, (in_a, in_b) in values.items() if in_a != in_b}
    said = [
        f"A has {_spoken(name)} {_listed(values[name][0])}; B has {_listed(values[name][1])}"
        for name in RUN
        if name in shown and all(values[name])
    ]
    if not all(values["metric"]):
        said = ["give --metric, for a study has no rows of a primary metric"]
    return "; ".join(said) or "each has other combinations of the same values"


def _values(rows: Iterable[Row], name: str) -> list[Any]:
    """The distinct values of a column: none, then numbers by size, or names by name."""
    return sorted({row[name] for row in rows}, key=value_order)


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _listed(values: Iterable[Any], most: int = 8) -> str:
    named = [str(v).lower() if v is None or isinstance(v, bool) else str(v) for v in values]
    more = f" and {len(named) - most} more" if len(named) > most else ""
    return ", ".join(named[:most]) + more
