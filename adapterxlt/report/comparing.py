"""What changed between two studies: mean differences of their pairs, with intervals.

It never judges significance, and the source's own test set enters no mean. The verb `compare`
prints what is made here of the pairs of `report.matching`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from adapterxlt.report.matching import Pair, Pairs
from adapterxlt.report.pivots import line_label
from adapterxlt.report.summaries import Interval, class_rank, interval_of, mean_of
from adapterxlt.report.tables import NO_SCORE, Table, bound_note, percent

#: What lines may be divided by further, and the column of a row that it is.
PARTS = {"class": "resource_class", "target": "target"}


@dataclass(frozen=True)
class Difference:
    """One line: the pairs of a task, regime and shots (and class or target); fractions.

    `mean_a`, `mean_b` and `difference` (B - A) are means over languages of the means over their
    runs: every language weighs the same. `interval` is of the difference, by Student's t over what
    `over` says: the languages' mean differences where there are two or more, else the runs; None
    with fewer than two. `higher` and `equal` count the pairs in which B is above A, or as high.
    """

    task: str
    metric: str
    regime: str
    upper_bound: bool
    source: str
    shots: int
    part: str
    lab: bool
    mean_a: float
    mean_b: float
    difference: float
    interval: Interval | None
    over: str
    languages: int
    pairs: int
    higher: int
    equal: int


def differences(pairs: Sequence[Pair], by: str | None = None) -> list[Difference]:
    """A line a task, regime and shots, and with `by` ('class' or 'target') a line a part of them.

    Tasks and regimes stay in the order of the pairs; by shots, upper bounds last among equal ones;
    classes from high to unseen and targets by class.
    """
    column = PARTS[by] if by is not None else None
    groups: dict[tuple[Any, ...], list[Pair]] = {}
    for one in pairs:
        row = one.a
        key = (row["task"], row["regime"], bool(row["upper_bound"]), row["source"], row["shots"])
        groups.setdefault((*key, row[column] if column else ""), []).append(one)
    tasks = list(dict.fromkeys(key[0] for key in groups))
    regimes = list(dict.fromkeys(key[1] for key in groups))

    def order(key: tuple[Any, ...]) -> tuple[Any, ...]:
        task, regime, bound, source, shots, part = key
        rank = class_rank(str(groups[key][0].a["resource_class"])) if column else ()
        return tasks.index(task), shots, bound, regimes.index(regime), str(source), rank, part

    return [_difference(key, groups[key]) for key in sorted(groups, key=order)]


def _difference(key: tuple[Any, ...], pairs: Sequence[Pair]) -> Difference:
    scores: dict[str, list[tuple[float, float]]] = {}
    for one in pairs:
        if one.scores is not None:
            scores.setdefault(str(one.a["target"]), []).append(one.scores)
    every = [both for those in scores.values() for both in those]
    firsts, seconds, gaps = (
        [mean_of([value(both) for both in those]) for those in scores.values()]
        for value in (_first, _second, _gap)
    )
    over = "languages" if len(gaps) > 1 else "runs"
    task, regime, bound, source, shots, part = key
    return Difference(
        task=str(task),
        metric=str(pairs[0].a["metric"]),
        regime=str(regime),
        upper_bound=bound,
        source=str(source),
        shots=int(shots),
        part=str(part),
        lab=any(one.a["lab"] for one in pairs),
        mean_a=mean_of(firsts),
        mean_b=mean_of(seconds),
        difference=mean_of(gaps),
        interval=interval_of(gaps if over == "languages" else [_gap(both) for both in every]),
        over=over,
        languages=len(scores),
        pairs=len(every),
        higher=sum(second > first for first, second in every),
        equal=sum(second == first for first, second in every),
    )


def _first(both: tuple[float, float]) -> float:
    return both[0]


def _second(both: tuple[float, float]) -> float:
    return both[1]


def _gap(both: tuple[float, float]) -> float:
    return both[1] - both[0]


def records(lines: Iterable[Difference], by: str | None = None) -> list[dict[str, Any]]:
    """The lines as plain values, for CSV and JSON; scores are fractions."""
    out = []
    for line in lines:
        found: dict[str, Any] = {
            "task": line.task,
            "metric": line.metric,
            "regime": line.regime,
            "upper_bound": line.upper_bound,
            "source": line.source,
            "shots": line.shots,
        }
        if by is not None:
            found[PARTS[by]] = line.part
        within = line.interval
        out.append(
            {
                **found,
                "mean_a": line.mean_a,
                "mean_b": line.mean_b,
                "difference": line.difference,
                "low": within.low if within else None,
                "high": within.high if within else None,
                "over": line.over if within else None,
                "languages": line.languages,
                "pairs": line.pairs,
                "higher": line.higher,
                "equal": line.equal,
            }
        )
    return out


def sentences(pairs: Pairs) -> list[str]:
    """How much of the two studies is compared, and what differs in their names."""
    out = [
        f"{_counted(pairs.count, 'pair')} of runs; {pairs.only_a} only in A, "
        f"{pairs.only_b} only in B."
    ]
    if pairs.of_source:
        out.append(f"{pairs.of_source} on the source's own test set stay out of every mean.")
    if pairs.unscored:
        out.append(f"{pairs.unscored} in which a score does not exist stay out of every mean.")
    return [*out, *pairs.words]


def table(
    lines: Sequence[Difference], by: str | None = None, *, notes: Sequence[str] = ()
) -> Table:
    """The lines as strings, scores x 100; the task is a column where there are several.

    The header says what the intervals are over. `notes` stand before those about the columns.
    """
    tasks = {line.task: line.metric for line in lines}
    several, sources = len(tasks) > 1, {line.source for line in lines}
    names = [*(["task"] if several else []), "regime", *([by] if by else [])]
    body = []
    for line in lines:
        key = (line.regime, line.source, line.shots)
        label = line_label(key, line.upper_bound, len(sources) > 1)
        body.append(
            (
                *([line.task] if several else []),
                label,
                *([line.part] if by else []),
                str(line.shots),
                percent(line.mean_a),
                percent(line.mean_b),
                signed(line.difference),
                _interval(line, lines),
                str(line.languages),
                str(line.pairs),
                f"{line.higher} of {line.pairs}",
            )
        )
    measured = ", ".join(f"{metric} of {task}" for task, metric in tasks.items())
    what = (
        f"{len(tasks)} tasks: scores" if several else "".join(f"{t}: {m}" for t, m in tasks.items())
    )
    lab = " (lab)" if any(line.lab for line in lines) else ""
    return Table(
        title=f"B - A, {what} x 100{lab}",
        groups=(),
        header=(
            *names,
            "shots",
            "mean A",
            "mean B",
            "B - A",
            _heading(lines),
            "languages",
            "pairs",
            "B higher",
        ),
        body=tuple(body),
        notes=(*notes, *([f"Metrics: {measured}."] if several else []), *_notes(lines)),
        missing=0,
        left=len(names),
    )


def signed(value: float) -> str:
    """A difference of fractions as x 100 with one decimal and its sign, which a small one keeps."""
    return f"{100 * value:+.1f}" if value else "0.0"


def _heading(lines: Iterable[Difference]) -> str:
    over = sorted({line.over for line in lines if line.interval})
    # Runs are the exception where both occur, and marked in their lines.
    return f"95 % over {'languages (r: runs)' if len(over) > 1 else (over or ['languages'])[0]}"


def _interval(line: Difference, lines: Iterable[Difference]) -> str:
    if line.interval is None:
        return NO_SCORE
    mixed = any(other.interval and other.over == "languages" for other in lines)
    mark = " r" if mixed and line.over == "runs" else ""
    return f"[{signed(line.interval.low)}, {signed(line.interval.high)}]{mark}"


def _notes(lines: Sequence[Difference]) -> list[str]:
    out = []
    over = {line.over for line in lines if line.interval}
    if "languages" in over:
        out.append(
            "[low, high] 95 % interval (Student's t) of the mean difference over languages, each "
            "with the mean of its runs."
        )
    if "runs" in over:
        which = "Where there is one language, the" if "languages" in over else "The"
        out.append(
            f"{which} 95 % interval (Student's t) is over its runs (draws x seeds), which are "
            "treated as independent; it tells nothing about other languages."
        )
    if any(line.interval is None for line in lines):
        out.append(f"{NO_SCORE} a single run of a single language: no interval can be given.")
    ties = sum(line.equal for line in lines)
    if ties:
        out.append(f"In {_counted(ties, 'pair')} both scores are equal.")
    if any(line.upper_bound for line in lines):
        out.append(bound_note())
    return out


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
