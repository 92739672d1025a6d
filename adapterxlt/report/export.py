"""Result rows as CSV, JSON, Parquet and Markdown, and the choice of some of them by column.

It never computes a score and never changes the order or the values of the rows it is given.
The verb `results` calls it; the same rows always give the same CSV, JSON and Markdown bytes.
"""

import csv
import difflib
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from adapterxlt.report.summaries import UPPER_BOUND, Row

# The columns of a result row in the order in which every format writes them.
COLUMNS = (
    "study",
    "task",
    "metric",
    "primary",
    "regime",
    "upper_bound",
    "source",
    "target",
    "role",
    "resource_class",
    "distance",
    "shots",
    "draw",
    "seed",
    "score",
    "n",
    "baseline",
    "lab",
    "parameters",
    "stored_bytes",
    "steps",
    "examples",
    "tokens",
    "flops",
    "seconds",
    "peak_memory",
    "evaluate_key",
    "train_key",
    "rows_cut",
)
# What a score cost; `report.costs.of_cell` says what each counts. Language adapters are not in it.
COSTS = COLUMNS[COLUMNS.index("parameters") : COLUMNS.index("evaluate_key")]
REALS = ("score", "baseline", "flops", "seconds")
INTEGERS = (
    *("distance", "shots", "draw", "seed", "n", "rows_cut"),
    *(name for name in COSTS if name not in REALS),
)
FLAGS = ("primary", "upper_bound", "lab")


def write(rows: Iterable[Row], fmt: str, destination: str | os.PathLike[str] | IO[Any]) -> None:
    """Write rows as 'csv', 'json', 'parquet' or 'markdown' to a path or an open stream.

    CSV and Markdown show a score that is NaN as "NaN" and a value that does not exist (None) as an
    empty field; JSON has null for both; Parquet keeps NaN and null apart. A regime whose scores are
    upper bounds is told by the column `upper_bound`, and in Markdown by its name as well. A text
    stream such as standard output takes every format, Parquet by way of its binary buffer.
    ValueError on an unknown format and on a row whose fields are not `COLUMNS`.
    """
    if fmt not in FORMATS:
        raise ValueError(f"no format {fmt!r}{_suggestion(fmt, FORMATS)}; use {_listed(FORMATS)}")
    # Everything is encoded before the first byte is written: a bad row leaves no half a file.
    payload = FORMATS[fmt](_checked(rows))
    if isinstance(destination, str | os.PathLike):
        Path(destination).write_bytes(payload)
    elif not isinstance(destination, io.TextIOBase):
        destination.write(payload)
    elif fmt != "parquet":
        destination.write(payload.decode())
    elif hasattr(destination, "buffer"):
        destination.flush()
        destination.buffer.write(payload)
    else:
        raise ValueError("Parquet is binary: pass a path or a stream opened in binary mode")


def select(rows: Iterable[Row], where: Mapping[str, Any]) -> list[Row]:
    """The rows in which every named column has the wanted value, in their order.

    A list, tuple or set of wanted values means any of them. A wanted string also matches a number,
    a flag or None by its text ("100", "true", "none"), as a command line gives it.
    ValueError with a suggestion on a column that rows do not have.
    """
    for name in where:
        if name not in COLUMNS:
            close = _suggestion(name, COLUMNS)
            raise ValueError(f"no column {name!r}{close}; the columns are {_listed(COLUMNS)}")
    return [row for row in rows if all(matches(row[name], value) for name, value in where.items())]


def matches(value: Any, wanted: Any) -> bool:
    """Whether a field has the wanted value, or one of several; see `select`."""
    if isinstance(wanted, list | tuple | set | frozenset):
        return any(matches(value, one) for one in wanted)
    if isinstance(wanted, str) and not isinstance(value, str):
        text = "none" if value is None else _text(value)
        return text.lower() == wanted.strip().lower()
    return bool(value == wanted)


def markdown(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A GitHub-style pipe table of strings, with pipes and line ends inside cells made harmless."""
    lines = [header, ["---"] * len(header), *body]
    return "".join(f"| {' | '.join(_pipe_safe(text) for text in line)} |\n" for line in lines)


def csv_text(header: Sequence[str], rows: Iterable[Row]) -> str:
    """Rows of any columns as CSV, with every value as `write` shows it."""
    lines = _Lines()
    # The writer quotes what ends its lines, so that a return alone in a field is read back.
    writer = csv.writer(lines, lineterminator="\r\n")
    writer.writerow(header)
    writer.writerows([_text(row[name]) for name in header] for row in rows)
    return "".join(line.removesuffix("\r\n") + "\n" for line in lines)


class _Lines(list[str]):
    """What a CSV writer writes, a line an item."""

    def write(self, line: str) -> None:
        self.append(line)


def _checked(rows: Iterable[Row]) -> list[Row]:
    checked = list(rows)
    for place, row in enumerate(checked):
        lacking = [name for name in COLUMNS if name not in row]
        foreign = sorted(set(row) - set(COLUMNS))
        if lacking or foreign:
            problem = f"lacks {_listed(lacking)}" if lacking else f"has also {_listed(foreign)}"
            raise ValueError(f"row {place} {problem}; a row has {_listed(COLUMNS)}")
    return checked


def _csv(rows: Sequence[Row]) -> bytes:
    return csv_text(COLUMNS, rows).encode()


def _json(rows: Sequence[Row]) -> bytes:
    objects = [{name: _finite(row[name]) for name in COLUMNS} for row in rows]
    # One object a line: readable in a diff, and still one JSON document.
    lines = ",\n".join(json.dumps(value, ensure_ascii=False, allow_nan=False) for value in objects)
    return f"[\n{lines}\n]\n".encode() if objects else b"[]\n"


def _markdown(rows: Sequence[Row]) -> bytes:
    body = ([_marked(name, row) for name in COLUMNS] for row in rows)
    return markdown(COLUMNS, body).encode()


def _marked(name: str, row: Row) -> str:
    """A field as people read it: an upper bound says so in its regime's name."""
    bound = name == "regime" and row["upper_bound"]
    return f"{_text(row[name])} {UPPER_BOUND}" if bound else _text(row[name])


def _parquet(rows: Sequence[Row]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    kinds = {name: pyarrow.int64() for name in INTEGERS}
    kinds |= {name: pyarrow.float64() for name in REALS}
    kinds |= {name: pyarrow.bool_() for name in FLAGS}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in COLUMNS])
    sink = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows], schema), sink)
    return sink.getvalue()


FORMATS: dict[str, Callable[[Sequence[Row]], bytes]] = {
    "csv": _csv,
    "json": _json,
    "parquet": _parquet,
    "markdown": _markdown,
}


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        # repr is the shortest text that reads back as the same number.
        return "NaN" if math.isnan(value) else repr(float(value))
    return str(value)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _pipe_safe(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").split())


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
