r"""Tables as Markdown and as LaTeX in the style of the field, for a paper or a page.

Every text is escaped, whoever wrote it. It never computes a score: what it prints in bold is the
highest number that a column shows. LaTeX needs `\usepackage{booktabs}`.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from adapterxlt.report.overviews import cost_table
from adapterxlt.report.pivots import Pivot, pivot
from adapterxlt.report.summaries import Row
from adapterxlt.report.tables import NO_SCORE, SPREAD_NOTE, Table, column_name, table_of

MARK = "†"
#: From the label of a line, its shots and the name of a column to what stands above the number.
Marks = Mapping[tuple[str, int, str], str]
Place = tuple[int, int]

SPREAD = (
    "± is the standard deviation over runs (draws x seeds) of one language; under a mean over "
    "languages, the root mean square of theirs."
)
BOLD = "Bold: the highest of a column among lines with equal shots"
_NUMBER = re.compile(r"[+-]?\d[\d.,]*")
_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "†": r"$\dagger$",
    NO_SCORE: "--",
}
_MARKDOWN = {character: f"\\{character}" for character in "\\`*_{}[]<>#|~&$"}


@dataclass(frozen=True)
class _Dress:
    """How the places of a body look: in bold, with a mark, under a rule."""

    bold: Collection[Place] = ()
    marks: Mapping[Place, str] | None = None
    rules: Collection[int] = ()


def score_tables(
    rows: Sequence[Row],
    fmt: str,
    *,
    spread: bool = False,
    interval: bool = False,
    cost: bool = False,
    missing: Sequence[Row] = (),
    regimes: Sequence[str] = (),
) -> str:
    """The score table of each task as 'markdown' or 'latex', with `cost` also what scores cost.

    Rows without a primary metric are shown by each metric they have. Arguments as in
    `report.tables.score_table`.
    """
    out = []
    scored = {row["task"] for row in rows if row["primary"]}
    for task in dict.fromkeys(str(row["task"]) for row in rows):
        others = dict.fromkeys(str(row["metric"]) for row in rows if row["task"] == task)
        for metric in [None] if task in scored else others:
            data = pivot(rows, task, metric, missing=missing, regimes=regimes)
            marks, notes = _significance(rows, data, regimes)
            out.append(
                score_table(data, fmt, spread=spread, interval=interval, marks=marks, notes=notes)
            )
        if cost and task in scored:
            out.append(plain(cost_table(rows, task, missing=missing, regimes=regimes), fmt))
    return "\n".join(out)


def _significance(
    rows: Sequence[Row], data: Pivot, regimes: Sequence[str]
) -> tuple[Marks, Sequence[str]]:
    """A mark behind the means over all targets that are told apart from the first regime's."""
    from adapterxlt.report.claims import ALPHA
    from adapterxlt.report.comparisons import compare, reference

    of = [
        row
        for row in rows
        if (row["task"], row["metric"]) == (data.task, data.metric) and row["role"] != "source"
    ]
    names = [*regimes, *sorted({str(row["regime"]) for row in of} - set(regimes))]
    found = compare(of, names)
    told = {
        (one.regime, one.shots)
        for one in found
        if one.corrected is not None and one.corrected <= ALPHA
    }
    column = column_name(next(c for c in data.columns if c.kind == "overall"))
    marks = {
        (line.label, line.shots, column): MARK
        for line in data.lines
        if (line.regime, line.shots) in told
    }
    first = reference(of, names)
    words = (
        f"{MARK}: differs from {first} in the same runs (t test with languages, draws and seeds as "
        f"samples, Holm over {len(found)} lines, p at most {ALPHA:g})."
    )
    return marks, [words] if marks else []


def score_table(
    data: Pivot,
    fmt: str,
    *,
    spread: bool = False,
    interval: bool = False,
    marks: Marks | None = None,
    notes: Sequence[str] = (),
) -> str:
    """One pivot as 'markdown' or 'latex', the highest of each column and shots in bold.

    Numbers that show alike are bold together. Never bold: upper bounds, the trivial answer, means
    that lack a language, and a line that is alone with its shots. `marks` are set above the numbers
    that they name, and `notes`, which say what they mean, end the caption.
    """
    table = table_of(data, range(len(data.columns)), spread=spread, interval=interval)
    bold = _best(data, table)
    words = [SPREAD if note == SPREAD_NOTE else note for note in table.notes]
    if bold:
        apart = ", upper bounds apart" if any(line.upper_bound for line in data.lines) else ""
        words.insert(0, f"{BOLD}{apart}.")
    shots = [line.shots for line in data.lines]
    rules = {i for i in range(1, len(shots)) if shots[i] != shots[i - 1]}
    dress = _Dress(bold, _placed(table, marks or {}), {*rules, len(shots)})
    return _FORMATS[fmt](replace(table, notes=(*words, *notes)), dress)


def plain(table: Table, fmt: str) -> str:
    """Any other table as 'markdown' or 'latex', with nothing in bold."""
    return _FORMATS[fmt](table, _Dress())


def latex_text(text: str) -> str:
    """Text as LaTeX shows it letter by letter; a control character becomes a space or "?"."""
    return "".join(_LATEX.get(character, character) for character in _printable(text))


def markdown_text(text: str) -> str:
    """Text as Markdown shows it letter by letter, also inside a table; controls as in LaTeX."""
    return "".join(_MARKDOWN.get(character, character) for character in _printable(text))


def _printable(text: str) -> str:
    shown = (" " if c.isspace() else c if c.isprintable() else "?" for c in text)
    return " ".join("".join(shown).split())


def _best(data: Pivot, table: Table) -> set[Place]:
    """Where the highest number of each column and shots stands, by what is shown."""
    blocks: dict[int, list[int]] = {}
    for place, line in enumerate(data.lines):
        if not line.upper_bound:
            blocks.setdefault(line.shots, []).append(place)
    best: set[Place] = set()
    for lines in blocks.values():
        for column in range(len(data.columns)):
            # Two columns before the first of the pivot: regime and shots.
            shown = {
                place: float(found[0])
                for place in lines
                if not data.lines[place].cells[column].absent
                and (found := _NUMBER.match(table.body[place][column + 2]))
            }
            if len(lines) > 1:
                best |= {(p, column + 2) for p, v in shown.items() if v == max(shown.values())}
    return best


def _placed(table: Table, marks: Marks) -> dict[Place, str]:
    return {
        (place, column): marks[key]
        for place, line in enumerate(table.body)
        for column, name in enumerate(table.header)
        if line[1].isdigit() and (key := (line[0], int(line[1]), name)) in marks
    }


def _markdown(table: Table, dress: _Dress) -> str:
    """A bold title, a pipe table and a paragraph of notes; a column says its resource class."""
    names = [name for name, width in table.groups for _ in range(width)] or [""] * len(table.header)
    header = [
        markdown_text(f"{title} ({group})" if group not in ("", "means", "source") else title)
        for title, group in zip(table.header, names, strict=True)
    ]

    def cell(place: int, column: int, text: str) -> str:
        number, star, rest = _parts(text) if column >= table.left else (text, "", "")
        number = markdown_text(number)
        if (place, column) in dress.bold:
            number = f"**{number}**"
        mark = (dress.marks or {}).get((place, column))
        above = f"<sup>{markdown_text(mark)}</sup>" if mark else ""
        return f"{number}{markdown_text(star)}{above}{_after(markdown_text, rest)}"

    rule = ["---" if i < table.left else "---:" for i in range(len(table.header))]
    lines = [header, rule, *_cells(table, cell)]
    body = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    notes = " ".join(markdown_text(note) for note in table.notes)
    return f"**{markdown_text(table.title)}**\n\n{body}" + (f"\n{notes}\n" if notes else "")


def _latex(table: Table, dress: _Dress) -> str:
    """A floating table with booktabs rules, its notes in the caption, classes over columns."""

    def cell(place: int, column: int, text: str) -> str:
        if column < table.left:
            return latex_text(text)
        number, star, rest = _parts(text)
        number = _signs(latex_text(number))
        if (place, column) in dress.bold:
            number = rf"\textbf{{{number}}}"
        mark = (dress.marks or {}).get((place, column))
        above = rf"\textsuperscript{{{latex_text(mark)}}}" if mark else ""
        return f"{number}{star}{above}{_signs(_after(latex_text, rest))}"

    body = []
    for place, line in enumerate(_cells(table, cell)):
        body += [r"\midrule"] if place in dress.rules else []
        body.append(_latex_line(line))
    caption = " ".join([f"{table.title}.", *table.notes])
    slug = "-".join(re.findall(r"[A-Za-z0-9]+", table.title)).lower()
    header = [latex_text(name) for name in table.header]
    names, numbers = header[: table.left], header[table.left :]
    aligned = "l" * table.left + "r" * (len(table.header) - table.left)
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{latex_text(caption)}}}",
        rf"\label{{tab:{slug}}}",
        rf"\begin{{tabular}}{{{aligned}}}",
        r"\toprule",
        *_spans(table.groups),
        _latex_line([*names, *(_signs(name) for name in numbers)]),
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "".join(f"{line}\n" for line in lines)


_FORMATS: dict[str, Callable[[Table, _Dress], str]] = {"markdown": _markdown, "latex": _latex}


def _spans(groups: Sequence[tuple[str, int]]) -> list[str]:
    """The line of names over groups of columns, and a rule under each that has one."""
    if not groups:
        return []
    names, rules, column = [], [], 1
    for name, width in groups:
        if name:
            names.append(rf"\multicolumn{{{width}}}{{c}}{{{latex_text(name)}}}")
            rules.append(rf"\cmidrule(lr){{{column}-{column + width - 1}}}")
        else:
            names += [""] * width
        column += width
    return [_latex_line(names), " ".join(rules)]


def _latex_line(cells: Sequence[str]) -> str:
    line = " & ".join(cells) + r" \\"
    # After the end of the line before, LaTeX would read these as an argument or a star of it.
    return "{}" + line if line.startswith(("[", "*")) else line


def _cells(table: Table, cell: Callable[[int, int, str], str]) -> Iterable[list[str]]:
    for place, line in enumerate(table.body):
        yield [cell(place, column, text) for column, text in enumerate(line)]


def _parts(text: str) -> tuple[str, str, str]:
    """A number, the star of one that lacks something, and its spread or interval."""
    found = _NUMBER.match(text)
    number = found[0] if found else text
    rest = text[len(number) :]
    star = "*" if rest.startswith("*") else ""
    return number, star, rest[len(star) :].strip()


def _after(escape: Callable[[str], str], rest: str) -> str:
    return f" {escape(rest)}" if rest else ""


def _signs(text: str) -> str:
    """Minus signs in place of hyphens before digits and between spaces."""
    return re.sub(r"(?<![\w-])-(?=\d)|(?<= )-(?= )", "$-$", text)
