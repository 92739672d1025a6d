"""Result rows read back from what `report.export` writes: CSV, JSON, Parquet, or their folder.

It never computes a score and never guesses what a file lacks. What was written comes back as it
was, but that JSON has null for NaN, which comes back as None. The verb `compare` calls it.
"""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from adapterxlt.core.errors import UsageError
from adapterxlt.report.export import COLUMNS, COSTS, FLAGS, INTEGERS, REALS

Row = dict[str, Any]

#: What a file may lack altogether; such a column is None in every row.
OPTIONAL = (*COSTS, "distance", "rows_cut")
#: What a single row may lack.
EMPTY = (*OPTIONAL, "draw", "score", "baseline")
_HINT = "`adapterxlt results RECIPE --format csv -o FILE` writes one"
_WHOLE = re.compile(r"[+-]?[0-9]+")


def read(path: str | Path) -> list[Row]:
    """The rows of a results file, or of the `results.csv` in a folder, with every column.

    Columns that rows do not have are passed over. UsageError where there is no such file, and
    where it is not one of results, with the line where one is wrong.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / "results.csv").is_file():
            raise UsageError("no results.csv in this folder", where=str(path), hint=_HINT)
        path = path / "results.csv"
    elif not path.is_file():
        raise UsageError("no such file", where=str(path), hint="give a results file or its folder")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(_READERS)
        raise UsageError("not a results file by its name", where=str(path), hint=f"known: {known}")
    rows = reader(path)
    if not rows:
        raise UsageError("no rows in this file", where=str(path), hint="see `adapterxlt status`")
    return rows


def _csv(path: Path) -> list[Row]:
    rows: list[Row] = []
    lines = _records(path)
    _, header = next(lines, (1, []))
    _check(path, header)
    for number, fields in lines:
        where = f"{path}:{number}"
        if len(fields) != len(header):
            raise UsageError(f"{len(fields)} fields, but {len(header)} columns", where=where)
        rows.append(_row(dict(zip(header, fields, strict=True)), where))
    return rows


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV file, each with the line that it begins on."""
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    begins = 1
    try:
        for fields in reader:
            if fields:
                yield begins, fields
            begins = reader.line_num + 1
    except csv.Error as error:
        raise UsageError(f"bad CSV: {error}", where=f"{path}:{begins}") from None


def _json(path: Path) -> list[Row]:
    try:
        found = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise UsageError(f"bad JSON: {error.msg}", where=f"{path}:{error.lineno}") from None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise UsageError("not a results file: no list of rows", where=str(path), hint=_HINT)
    for one in found:
        _check(path, list(one))
    return [_row(one, f"{path}: row {number}") for number, one in enumerate(found, 1)]


def _parquet(path: Path) -> list[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        # Of the file alone: a dataset would make columns of the names of its folders.
        table = parquet.ParquetFile(path).read()
    except (pyarrow.ArrowException, OSError):
        raise UsageError("not a Parquet file", where=str(path), hint=_HINT) from None
    _check(path, table.column_names)
    return [_row(one, f"{path}: row {n}") for n, one in enumerate(table.to_pylist(), 1)]


_READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".csv": _csv,
    ".json": _json,
    ".parquet": _parquet,
}


def _text(path: Path) -> str:
    try:
        # A byte order mark is what spreadsheets put in front.
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError("not UTF-8", where=str(path), hint=_HINT) from None


def _check(path: Path, header: Sequence[str]) -> None:
    lacking = [name for name in COLUMNS if name not in (*header, *OPTIONAL)]
    if lacking:
        few = ", ".join(lacking[:4]) + (" and others" if len(lacking) > 4 else "")
        raise UsageError(f"not a results file: no column {few}", where=str(path), hint=_HINT)
    twice = next((name for name in COLUMNS if header.count(name) > 1), None)
    if twice:
        raise UsageError(f"not a results file: column {twice} twice", where=str(path))


def _row(found: Mapping[str, Any], where: str) -> Row:
    try:
        return {name: _value(name, found.get(name)) for name in COLUMNS}
    except ValueError as error:
        raise UsageError(str(error), where=where) from None


def _value(name: str, raw: Any) -> Any:
    """A field as rows have it, from its text or its own type; ValueError says what is wrong."""
    if raw is None or (raw == "" and name in (*FLAGS, *INTEGERS, *REALS)):
        if name not in EMPTY:
            raise ValueError(f"no value in {name}")
        return None
    if name in FLAGS:
        flag = {"true": True, "false": False}.get(str(raw).lower())
        if flag is None:
            raise ValueError(f"{name} is neither true nor false: {raw!r}")
        return flag
    if name in REALS or name in INTEGERS:
        return _number(name, raw)
    if not isinstance(raw, str):
        raise ValueError(f"{name} is no text: {raw!r}")
    return raw


def _number(name: str, raw: Any) -> int | float | None:
    value = raw
    if isinstance(raw, str) and _WHOLE.fullmatch(raw):
        value = int(raw)
    elif isinstance(raw, str) and "_" not in raw:
        try:
            value = float(raw)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is no number: {raw!r}")
    if name in REALS or isinstance(value, int):
        return value
    # Other programs keep whole numbers as 1.0, and those that do not exist as NaN.
    if math.isnan(value) and name in EMPTY:
        return None
    if not value.is_integer():
        raise ValueError(f"{name} is no whole number: {raw!r}")
    return int(value)
