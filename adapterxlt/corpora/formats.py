"""File formats: bytes to raw rows, each with the line it begins at under ``"#"``.

What a row must hold is said by tasks and checked in `corpora.rows`; here only the format itself is.
Every fault is one ``DataError`` at file and line, also of files that were made to take all memory.
Nothing is written and nothing is guessed but the format, from the end of a file's name.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from adapterxlt.core.errors import DataError
from adapterxlt.core.plain import json_of
from adapterxlt.core.tasks import Format
from adapterxlt.corpora import mewslix, parquet
from adapterxlt.corpora.unpacking import content

Row = dict[str, Any]

#: Formats by the last part of a file's name; where a split is there twice, the first one is read.
SUFFIXES: dict[str, Format] = {
    "jsonl": "jsonl",
    "json": "jsonl",
    "parquet": "parquet",
    "csv": "csv",
    "tsv": "tsv",
    "conllu": "conllu",
    "iob2": "iob2",
    "conll": "iob2",
    "bio": "iob2",
    "txt": "text",
}
#: Formats in which all values are strings, so that lists are written as strings too.
CELLS: frozenset[Format] = frozenset({"csv", "tsv"})
#: Characters of a line, and of a cell: contexts of question answering have some ten thousands.
MOST_LINE = 10_000_000
#: Columns of a table.
MOST_COLUMNS = 1000
_BOM = b"\xef\xbb\xbf"
#: What a tag looks like, where a word ``#`` has to be told from a comment.
_TAG = re.compile(r"[BIESLU]-\S+|[A-Z]{1,5}")


def format_of(path: Path, given: Format | None = None) -> Format:
    """The format of a file: as given, else by its name, whether packed or not.

    Raises:
        DataError: the name says nothing.
    """
    if given is not None:
        return given
    found = SUFFIXES.get(Path(path.name.removesuffix(".gz")).suffix[1:].lower())
    if found is None:
        hint = f"say format: one of {', '.join(get_args(Format))}"
        raise DataError("the file's name does not say its format", where=str(path), hint=hint)
    return found


def stems(folder: Path) -> dict[str, Path]:
    """The readable files of a folder by the first part of their names, in order of these."""
    found: dict[str, tuple[int, Path]] = {}
    order = {f"{suffix}{gz}": i for i, (suffix, gz) in enumerate(_endings())}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        stem, _, ending = path.name.partition(".")
        rank = order.get(ending)
        if rank is not None and path.is_file() and (stem not in found or rank < found[stem][0]):
            found[stem] = (rank, path)
    return {stem: path for stem, (_, path) in sorted(found.items())}


def _endings() -> Iterator[tuple[str, str]]:
    for suffix, format in SUFFIXES.items():
        if format != "parquet":
            yield suffix, ".gz"
        yield suffix, ""


def read(
    path: Path, format: Format | None = None, columns: Mapping[str, str] | None = None
) -> list[Row]:
    """The rows of a file.

    Args:
        path: the file; a text format may be packed (``.gz``).
        format: where the name does not say it.
        columns: the file's name of a column, where ours is another.
    """
    return renamed(parse(path, content(path), format_of(path, format)), columns)


def read_aligned(paths: Mapping[str, Path], columns: Mapping[str, str] | None = None) -> list[Row]:
    """The rows of line-aligned text files, one for each column."""
    return renamed(aligned(paths, {name: content(path) for name, path in paths.items()}), columns)


def renamed(rows: list[Row], columns: Mapping[str, str] | None) -> list[Row]:
    """Rows with our names of columns; a column that a row has not got is left out, also where there
    is one that goes by our name but was not meant."""
    if not columns:
        return rows
    known = {*columns, *columns.values()}
    return [
        {k: v for k, v in row.items() if k not in known}
        | {our: row[their] for our, their in columns.items() if their in row}
        for row in rows
    ]


def parse(path: Path, data: bytes, format: Format) -> list[Row]:
    """The rows in unpacked bytes; ``path`` is for messages."""
    if format == "parquet":
        return parquet.rows_of(path, data)
    data = data.removeprefix(_BOM)
    _check_bytes(path, data)
    if format in ("jsonl", "mewslix"):
        rows = _json_lines(path, data)
        return rows if format == "jsonl" else mewslix.rows_of(path, rows)
    text = _text(path, data)
    if format in CELLS:
        return _table(path, text, "," if format == "csv" else "\t")
    if format == "text":
        return [{"text": line, "#": n} for n, line in _lines(text) if line.strip()]
    return _conllu(path, text) if format == "conllu" else _iob2(path, text)


def aligned(paths: Mapping[str, Path], datas: Mapping[str, bytes]) -> list[Row]:
    """A row for each line of files that say the same line by line; blank lines count.

    Raises:
        DataError: one has more lines than another.
    """
    columns = {}
    for name, path in paths.items():
        _check_bytes(path, datas[name])
        lines = [line for _, line in _lines(_text(path, datas[name].removeprefix(_BOM)))]
        columns[name] = lines
        first = next(iter(columns))
        if len(lines) != len(columns[first]):
            what = f"{len(lines)} lines, but {paths[first]} has {len(columns[first])}"
            hint = "line-aligned files say the same line by line"
            raise DataError(what, where=str(path), hint=hint)
    rows = zip(*columns.values(), strict=True)
    return [{**dict(zip(columns, row, strict=True)), "#": n} for n, row in enumerate(rows, 1)]


def _check_bytes(path: Path, data: bytes) -> None:
    """Refuse what is no text, and lines that nothing would ever come to the end of."""
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        wide = data[:2] in (b"\xff\xfe", b"\xfe\xff") or data[1:2] == b"\0" != data[:1]
        what = "not UTF-8: it looks like UTF-16" if wide else "a byte of zero"
        raise DataError(what, where=f"{path}:{line}", hint="text is read as UTF-8")
    begin = 0
    while len(data) - begin > MOST_LINE:
        # The last line feed that a line beginning here may have.
        end = data.rfind(b"\n", begin, begin + MOST_LINE + 1)
        if end < 0:
            line = data.count(b"\n", 0, begin) + 1
            what = f"a line of more than {MOST_LINE:,} bytes"
            raise DataError(what, where=f"{path}:{line}", hint="a row is a line")
        begin = end + 1


def _text(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        hint = "text is read as UTF-8"
        raise DataError("not UTF-8", where=f"{path}:{line}", hint=hint) from None


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers; only line feeds end them, since text holds U+2028 and the like."""
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return ((n, line.removesuffix("\r")) for n, line in enumerate(lines, 1))


# --- JSON lines --------------------------------------------------------------------------------


def _json_lines(path: Path, data: bytes) -> list[Row]:
    rows = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json_of(line.decode("utf-8"))
        except ValueError as error:
            raise DataError(f"not JSON: {error}", where=f"{path}:{number}") from None
        if not isinstance(row, dict):
            raise DataError("a row is a JSON object", where=f"{path}:{number}")
        row["#"] = number
        rows.append(row)
    return rows


# --- tables ------------------------------------------------------------------------------------


def _table(path: Path, text: str, delimiter: str) -> list[Row]:
    """Rows under a header. Many a benchmark's tsv has bare quotation marks: one that is no table
    with marks as csv has them is read without any."""
    try:
        return _cells(path, text, delimiter, csv.QUOTE_MINIMAL)
    except DataError:
        if delimiter == "\t" and '"' in text:
            try:
                return _cells(path, text, delimiter, csv.QUOTE_NONE)
            except DataError:
                pass  # the first fault says more
        raise


def _cells(path: Path, text: str, delimiter: str, quoting: Any) -> list[Row]:
    csv.field_size_limit(MOST_LINE)
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    rows: list[Row] = []
    header: list[str] = []
    number = 1
    try:
        for cells in reader:
            where = f"{path}:{number}"
            if cells and not header:
                header = [name.strip() for name in cells]
                if len(header) > MOST_COLUMNS:
                    raise DataError(f"{len(header):,} columns", where=where)
                twice = [name for name in header if header.count(name) > 1]
                if twice:
                    raise DataError(f"column {twice[0]!r} is twice in the header", where=where)
            elif cells:
                if len(cells) != len(header):
                    what = f"{len(cells)} cells under {len(header)} columns"
                    raise DataError(what, where=where, hint="quote a cell that holds separators")
                rows.append({**dict(zip(header, cells, strict=True)), "#": number})
            number = reader.line_num + 1
    except csv.Error as error:
        hint = "a quotation mark in a quoted cell is written twice"
        raise DataError(f"not a table: {error}", where=f"{path}:{number}", hint=hint) from None
    return rows


# --- tagged words ------------------------------------------------------------------------------


def _conllu(path: Path, text: str) -> list[Row]:
    """Sentences of CoNLL-U, syntactic words: multiword ranges and empty nodes are left out."""
    rows: list[Row] = []
    row: Row = {}
    names = {"tokens": 1, "lemmas": 2, "upos": 3, "xpos": 4}
    for number, line in _lines(text):
        where = f"{path}:{number}"
        if not line.strip():
            row = {}
        elif line.startswith("#"):
            comment = re.match(r"#\s*sent_id\s*=\s*(.*)", line)
            if comment:
                row["id"] = comment[1].strip()
            row.setdefault("#", number)
        else:
            cells = line.split("\t")
            if len(cells) != 10:
                raise DataError(f"{len(cells)} columns, but CoNLL-U has 10", where=where)
            if re.fullmatch(r"\d+-\d+|\d+\.\d+", cells[0]):
                continue
            if "tokens" not in row:
                row |= {"#": row.get("#", number), **{name: [] for name in names}}
                rows.append(row)
            if cells[0] != str(len(row["tokens"]) + 1):
                what = f"word {cells[0]!r} where {len(row['tokens']) + 1} is next"
                raise DataError(what, where=where, hint="a blank line ends a sentence")
            for name, at in names.items():
                row[name].append(cells[at])
    return rows


def _iob2(path: Path, text: str) -> list[Row]:
    """Sentences of words with tags: the first column and the last, between tabs or spaces.

    A line that begins with ``# `` is a comment, unless it is a word ``#`` with a tag: it then has
    as many columns as the line before.
    """
    rows: list[Row] = []
    row: Row | None = None
    width: int | None = None
    for number, line in _lines(text):
        if not line.strip(" \t"):
            row = None
            continue
        cells = line.split("\t") if "\t" in line else re.split(" +", line.rstrip(" "))
        if line.startswith("-DOCSTART-") or _comment(line, cells, width):
            continue
        where = f"{path}:{number}"
        if len(cells) < 2 or not cells[0].strip(" ") or not cells[-1].strip(" "):
            raise DataError("a line is a word and, last, its tag", where=where)
        if width not in (None, len(cells)):
            raise DataError(f"{len(cells)} columns, but lines before have {width}", where=where)
        width = len(cells)
        if row is None:
            row = {"tokens": [], "tags": [], "#": number}
            rows.append(row)
        row["tokens"].append(cells[0])
        row["tags"].append(cells[-1].strip())
    return rows


def _comment(line: str, cells: list[str], width: int | None) -> bool:
    if not line.startswith("# ") or "\t" in line:
        return False
    return len(cells) != (width or 2) or not _TAG.fullmatch(cells[-1])
