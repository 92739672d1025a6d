"""Score tables as text: the numbers of a pivot with their marks, headings and notes.

It never reads the store, never guesses a score that is not there, and never judges significance.
The command line prints its tables after a run; `report.html` shows them.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from adapterxlt.report.pivots import Column, Line, Pivot, pivot
from adapterxlt.report.summaries import UPPER_BOUND, Row, Summary, interval_of

NO_SCORE = "–"
BASELINE = "trivial answer"
SPREAD_NOTE = (
    "± is the sample standard deviation over runs (draws x seeds) of one language; under a mean "
    "over languages, the root mean square of theirs. It is not an error bar."
)


@dataclass(frozen=True)
class Table:
    """A table of strings: `groups` spans the header with (name, columns); `notes` go beneath.

    The first `left` columns are names, which stand to the left; numbers stand to the right.
    """

    title: str
    groups: tuple[tuple[str, int], ...]
    header: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    missing: int
    left: int = 1


def score_table(
    rows: Iterable[Row],
    task: str,
    *,
    metric: str | None = None,
    spread: bool = False,
    interval: bool = False,
    missing: Iterable[Row] = (),
    regimes: Sequence[str] = (),
) -> Table:
    """One task's scores x 100 with one decimal, ready for a terminal; arguments as in `pivot`.

    Zero-shot lines come first, then by shots, what a trivial answer scores last. `spread` adds ±
    the standard deviation of `Summary`, `interval` the 95 % interval of the mean over runs. A "–"
    has no score; a "*" marks a mean that lacks runs or languages.
    """
    data = pivot(rows, task, metric, missing=missing, regimes=regimes)
    return table_of(data, range(len(data.columns)), spread=spread, interval=interval)


def table_of(
    data: Pivot, shown: Iterable[int], *, spread: bool = False, interval: bool = False
) -> Table:
    """The columns `shown` of a pivot as strings; see `score_table`."""
    places = list(shown)
    columns = [data.columns[i] for i in places]
    body = [
        (line.label, str(line.shots), *(_text(line, i, spread, interval) for i in places))
        for line in data.lines
    ]
    floor = [data.baseline[i] for i in places]
    if any(value is not None for value in floor):
        body.append((BASELINE, "", *(percent(value) for value in floor)))
    words = notes(data, spread=spread)
    lab = " (lab)" if data.lab else ""
    return Table(
        title=f"{data.task}: {data.metric} x 100{lab}",
        groups=(("", 2), *column_groups(columns)),
        header=("regime", "shots", *(column_name(column) for column in columns)),
        body=tuple(body),
        notes=(*interval_notes(data, places), *words) if interval else words,
        missing=data.missing,
    )


def text_table(table: Table) -> str:
    """The table as plain aligned text, ending in a newline; names left, numbers right."""
    lines = [table.header, *table.body]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.header))]
    out = [table.title]
    for place, line in enumerate(lines):
        pairs = list(zip(line, widths, strict=True))
        padded = [text.ljust(width) for text, width in pairs[: table.left]]
        padded += [text.rjust(width) for text, width in pairs[table.left :]]
        out.append("  ".join(padded).rstrip())
        if place == 0:
            out.append("-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join([*out, *table.notes]) + "\n"


def percent(value: float | None) -> str:
    """A fraction as x 100 with one decimal, or the dash that stands for no score."""
    return NO_SCORE if value is None or math.isnan(value) else f"{100 * value:.1f}"


def score_text(cell: Summary, *, spread: bool = False) -> str:
    """The mean as text, "*" where it lacks something, and with `spread` its standard deviation."""
    if cell.mean is None:
        return NO_SCORE
    mark = "" if cell.complete else "*"
    tail = f" ±{percent(cell.sd)}" if spread and cell.sd is not None else ""
    return f"{percent(cell.mean)}{mark}{tail}"


def interval_text(line: Line, place: int) -> str:
    """The mean over runs with its 95 % interval, `71.5 [70.1, 72.9]`; else as `score_text`.

    With an interval the mean is over the runs that have every language; "*" says that some lack.
    """
    found = interval_of(line.runs[place].values)
    if found is None:
        return score_text(line.cells[place])
    mark = "" if line.cells[place].complete else "*"
    return f"{percent(found.mean)}{mark} [{percent(found.low)}, {percent(found.high)}]"


def interval_notes(data: Pivot, shown: Iterable[int]) -> tuple[str, ...]:
    """What the intervals of these columns are of, and what they are not."""
    places = list(shown)
    found = [line.runs[i] for line in data.lines for i in places]
    if not any(len(runs.values) > 1 for runs in found):
        return ("No place has two runs with every language, so no interval can be given.",)
    least, most = (f(len(r.values) for r in found if len(r.values) > 1) for f in (min, max))
    count = str(most) if least == most else f"{least} to {most}"
    out = [
        f"[low, high] 95 % interval (Student's t) of the mean over {count} runs (draws x seeds); a "
        "run's value is its mean over the column's languages. It tells how much seeds and draws "
        "move the mean for these languages, not how it would be for other languages. Draws of one "
        "seed are treated as independent runs; the bounds are not clipped at 0 and 100."
    ]
    if any(
        len(line.runs[i].values) < 2 and line.cells[i].scores for line in data.lines for i in places
    ):
        out.append("A mean without brackets has fewer than two runs with every language.")
    short = max(runs.left_out for runs in found)
    if short:
        out.append(
            f"Runs that lack a language of a column are left out of its interval: up to {short} "
            "a place; with an interval, a mean marked * is over the runs that are in."
        )
    return tuple(out)


def column_name(column: Column) -> str:
    """The heading of a column, understandable without the spanning group above it."""
    if column.kind == "class":
        return f"mean {column.name}"
    return f"{column.name} (source)" if column.kind == "source" else column.name


def column_groups(columns: Sequence[Column]) -> tuple[tuple[str, int], ...]:
    """(name, columns spanned) for the heading above: resource classes, then means, then source."""
    spans: list[tuple[str, int]] = []
    for column in columns:
        name = "means" if column.kind in ("class", "overall") else column.resource_class
        if spans and spans[-1][0] == name:
            spans[-1] = (name, spans[-1][1] + 1)
        else:
            spans.append((name, 1))
    return tuple(spans)


def notes(data: Pivot, *, spread: bool) -> tuple[str, ...]:
    """What a reader must know beside the numbers of this pivot, one sentence a note."""
    out = []
    cells = [cell for line in data.lines for cell in line.cells]
    if spread and any(cell.sd is not None for cell in cells):
        out.append(SPREAD_NOTE)
    elif spread:
        out.append("No cell has more than one run, so no spread can be given.")
    if data.missing or data.empty:
        out.append(
            f"{NO_SCORE} no score. Runs without a score, left out of every mean: {data.missing}; "
            f"places of the table without any: {data.empty}."
        )
    if any(cell.mean is not None and not cell.complete for cell in cells):
        out.append("* mean over the runs and languages that have a score; some are lacking.")
    if any(value is not None for value in data.baseline):
        out.append(f"{BASELINE}: {trivial_answer(data.task, data.metric)}.")
    if data.cut:
        cut = ", ".join(f"{language} {count:,}" for language, count in data.cut)
        out.append(f"Rows of the test data that lost text to max_length: {cut}.")
    return (*out, *bound_notes(data.lines))


def trivial_answer(task: str, metric: str) -> str:
    """What the scores in the last line of a table are of."""
    # Imported here: a table of labels should not wait for the tasks.
    from adapterxlt.core.tasks import TASKS

    if metric in ("em_f1", "exact_match", "f1"):
        return "the first words of the context"
    if metric == "map@20":
        return "chance"
    if metric != "accuracy":
        return "the most frequent label"
    if task not in TASKS:
        return "the most frequent label, or chance in retrieval"
    return "chance" if TASKS[task].kind == "retrieval" else "the most frequent label"


def bound_notes(lines: Iterable[Line]) -> tuple[str, ...]:
    """What "(upper bound)" behind a regime means, where a line has it."""
    if not any(line.upper_bound for line in lines):
        return ()
    return (bound_note(),)


def bound_note() -> str:
    """What `UPPER_BOUND` means."""
    return f"{UPPER_BOUND}: chosen with target labels, not a result of the protocol."


def _text(line: Line, place: int, spread: bool, interval: bool) -> str:
    if interval:
        return interval_text(line, place)
    return score_text(line.cells[place], spread=spread)
