"""XTREME-R's own score of a study: means over the languages that the benchmark names, then tasks.

A pure function of rows, like `report.overviews`: it never reads the store and never guesses a score
that is not there. The command line and the page show its table.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from adapterxlt.core.tasks import TASKS, XTREME_R
from adapterxlt.report.pivots import LineKey, line_label
from adapterxlt.report.summaries import Row, mean_of, per_cell, pool
from adapterxlt.report.tables import NO_SCORE, Table, bound_note, percent

#: The language that XTREME-R trains on; it is zero-shot from it.
ENGLISH = "en"
SHOTS_MARK = "(not zero-shot)"
_METRICS = {
    "em_f1": "the mean of exact match and F1",
    "pos_f1": "F1 of words side by side with one tag, as the benchmark's code counts them",
    "span_f1": "F1 of whole names",
    "map@20": "mean average precision of the first 20",
}


@dataclass
class _Line:
    """What is known of one regime at one number of shots: rows and holes by task and language.

    `sampled` is whether shots were drawn; that a regime reads all of a target's rows, no row tells.
    """

    rows: dict[tuple[str, str], list[Row]] = field(default_factory=dict)
    holes: set[tuple[str, str]] = field(default_factory=set)
    sampled: bool = False


@dataclass(frozen=True)
class TaskScore:
    """A task's mean over ``found`` of its ``wanted`` languages; ``lacking`` runs have no score."""

    mean: float | None
    found: int
    wanted: int
    lacking: bool

    @property
    def complete(self) -> bool:
        return self.found == self.wanted and not self.lacking

    @property
    def text(self) -> str:
        """`62.3`; `58.1* 6/38` where languages lack, `58.1*` where only runs do."""
        if self.mean is None:
            return NO_SCORE
        mark = "" if self.complete else "*"
        share = f" {self.found}/{self.wanted}" if self.found < self.wanted else ""
        return f"{percent(self.mean)}{mark}{share}"


def benchmark_table(
    rows: Iterable[Row], *, missing: Iterable[Row] = (), regimes: Sequence[str] = ()
) -> Table | None:
    """XTREME-R's task scores x 100 and their mean; None with fewer than two of its tasks.

    A task's score is the unweighted mean over the languages that `core.tasks` names for it, the
    source among them where it is one; a language's is the mean over its runs (draws x seeds) of
    the task's metric there. The overall score is the unweighted mean over all ten tasks, given only
    where each is complete. None too where no row has its task's metric.
    Other arguments as in `report.pivots.pivot`.
    """
    every, holes = list(rows), list(missing)
    there = {str(entry["task"]) for entry in (*every, *holes)}
    tasks = [task for task in XTREME_R if task in there]
    if len(tasks) < 2:
        return None
    metrics = {task: TASKS[task].primary for task in tasks}
    kept = [row for row in every if row["metric"] == metrics.get(str(row["task"]))]
    lacking = [entry for entry in holes if entry["task"] in metrics]
    lines = _lines(kept, lacking)
    if not lines:
        return None
    sources = {source for _, source, _ in lines}
    bounds = {str(row["regime"]) for row in [*kept, *lacking] if row.get("upper_bound")}
    rank = {name: place for place, name in enumerate(regimes)}
    ordered = sorted(
        lines, key=lambda k: (k[2], k[0] in bounds, rank.get(k[0], len(rank)), k[0], k[1])
    )
    scores = {key: [_score(lines[key], task) for task in tasks] for key in ordered}
    body = []
    for key in ordered:
        label = line_label(key, key[0] in bounds, len(sources) > 1)
        mark = f" {SHOTS_MARK}" if lines[key].sampled else ""
        texts = [score.text for score in scores[key]]
        body.append((label + mark, str(key[2]), *texts, _overall(scores[key])))
    lab = " (lab)" if any(row["lab"] for row in kept) else ""
    return Table(
        title=f"XTREME-R: task scores x 100{lab}",
        groups=(),
        header=("regime", "shots", *tasks, "overall"),
        body=tuple(body),
        notes=(
            _metric_note(metrics),
            *_incomplete_notes(tasks, [one for those in scores.values() for one in those]),
            *_protocol_notes(lines, sources),
            *((bound_note(),) if bounds & {key[0] for key in lines} else ()),
            *_data_notes(kept),
        ),
        missing=sum(len(line.holes) for line in lines.values()),
    )


def _lines(rows: Iterable[Row], lacking: Iterable[Row]) -> dict[LineKey, _Line]:
    """Rows and runs without one by line; those of languages that the benchmark lacks as well."""
    lines: dict[LineKey, _Line] = {}
    for row in rows:
        key = (str(row["regime"]), str(row["source"]), int(row["shots"]))
        line = lines.setdefault(key, _Line())
        line.rows.setdefault((str(row["task"]), str(row["target"])), []).append(row)
        # A draw is one of rows of other languages than the source.
        line.sampled |= key[2] > 0 or row["draw"] is not None
    sources = sorted({source for _, source, _ in lines})
    for entry in lacking:
        origin = sources[0] if len(sources) == 1 else ""
        shots = int(entry["shots"] or 0)
        line = lines.setdefault((str(entry["regime"]), origin, shots), _Line())
        line.holes.add((str(entry["task"]), str(entry["target"])))
        line.sampled |= shots > 0 or entry.get("draw") is not None
    return lines


def _score(line: _Line, task: str) -> TaskScore:
    named = TASKS[task].languages or ()
    spoken = [code for code in named if (task, code) in line.rows]
    cells = [pool(per_cell(line.rows[task, code])) for code in spoken]
    means = [cell.mean for cell in cells if cell.mean is not None]
    holes = any((task, code) in line.holes for code in named)
    return TaskScore(
        mean=mean_of(means) if means else None,
        found=len(means),
        wanted=len(named),
        lacking=holes or not all(cell.complete for cell in cells),
    )


def _overall(scores: Sequence[TaskScore]) -> str:
    whole = [score.mean for score in scores if score.complete and score.mean is not None]
    return percent(mean_of(whole)) if len(whole) == len(XTREME_R) else NO_SCORE


def _metric_note(metrics: Mapping[str, str]) -> str:
    by_metric = _grouped((metric, task) for task, metric in metrics.items())
    named = "; ".join(f"{metric} of {', '.join(of)}" for metric, of in by_metric.items())
    said = "; ".join(f"{name}: {words}" for name, words in _METRICS.items() if name in by_metric)
    return (
        "Unweighted means over the languages that XTREME-R (Ruder et al. 2021) names for a task, "
        f"English among them where it is one: {named}.{f' {said}.' if said else ''}"
    )


def _incomplete_notes(tasks: Sequence[str], scores: Sequence[TaskScore]) -> tuple[str, ...]:
    out = []
    if any(not score.complete for score in scores):
        out.append(
            "* lacks runs, or languages: 6/38 has 6 of the task's 38; regimes trained for each "
            "target have no score on the source. Such means are not the benchmark's score."
        )
    absent = [task for task in XTREME_R if task not in tasks]
    # Scores come line after line, each with one for every task.
    partial = [
        task
        for place, task in enumerate(tasks)
        if not all(score.complete for score in scores[place :: len(tasks)])
    ]
    said = [f"not in the study: {', '.join(absent)}"] if absent else []
    said += [f"not complete in every line: {', '.join(partial)}"] if partial else []
    if said:
        out.append(
            f"{NO_SCORE} for the overall score, the unweighted mean over all {len(XTREME_R)} tasks,"
            f" where one of them lacks anything; {'; '.join(said)}."
        )
    return tuple(out)


def _protocol_notes(lines: Mapping[LineKey, _Line], sources: Iterable[str]) -> tuple[str, ...]:
    out = []
    if any(line.sampled for line in lines.values()):
        out.append(
            f"{SHOTS_MARK}: trained on rows of other languages than the source; the benchmark is "
            "zero-shot from English, so these are no results of its protocol."
        )
    foreign = sorted(source for source in sources if source not in (ENGLISH, ""))
    if foreign:
        out.append(
            f"The source is {', '.join(foreign)}; the benchmark is zero-shot from English, so "
            "these are no results of its protocol."
        )
    return tuple(out)


def _data_notes(rows: Sequence[Row]) -> tuple[str, ...]:
    """What was scored, as the rows tell: how many items, and languages that do not count."""
    counted: dict[str, list[int]] = {}
    foreign: list[tuple[str, str]] = []
    for row in rows:
        task = str(row["task"])
        if row["target"] in (TASKS[task].languages or ()):
            counted.setdefault(task, []).append(int(row["n"]))
        else:
            foreign.append((task, str(row["target"])))
    out = []
    if counted:
        sizes = [f"{task} {_range(counted[task])}" for task in XTREME_R if task in counted]
        out.append(
            f"Items scored in a language: {', '.join(sizes)}. A score is the benchmark's only on "
            "its own, whole test sets."
        )
    if foreign:
        named = (f"{task} {', '.join(found)}" for task, found in _grouped(sorted(foreign)).items())
        out.append(f"Languages that the benchmark does not name do not count: {'; '.join(named)}.")
    return tuple(out)


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Second members by the first, each once, in their order."""
    found: dict[str, dict[str, None]] = {}
    for first, second in pairs:
        found.setdefault(first, {})[second] = None
    return {first: list(those) for first, those in found.items()}
