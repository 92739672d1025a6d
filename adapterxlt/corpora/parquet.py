"""Parquet: rows of a table, as the `datasets` library and others write it.

Called by `corpora.formats`; pyarrow is imported when there is something to read.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapterxlt.core.errors import DataError
from adapterxlt.corpora.unpacking import most_of

Row = dict[str, Any]
#: Columns of a table.
MOST_COLUMNS = 1000
#: About so many bytes are unpacked at once.
_PIECE = 256 << 20


def rows_of(path: Path, data: bytes) -> list[Row]:
    """Rows of a Parquet file; class numbers become names where the file has them.

    Raises:
        DataError: it is none, or would unpack to more than there can be.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(io.BytesIO(data))
        _check_parquet(path, file, len(data))
        table = _table_of(path, file, len(data))
        features = _features(file.schema_arrow.metadata)
        columns = {name: table[name].to_pylist() for name in table.column_names}
    # Arrow's errors are of several trees, and those of damaged text are Python's own.
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, OverflowError) as error:
        first = str(error).partition("\n")[0]
        raise DataError(f"not a Parquet file: {first}", where=str(path)) from None
    if len(columns) != len(table.column_names):
        raise DataError("a column is there twice", where=str(path))
    for name, feature in features.items():
        if name in columns:
            columns[name] = [_named(value, feature) for value in columns[name]]
    rows = zip(*columns.values(), strict=True)
    return [{**dict(zip(columns, row, strict=True)), "#": n} for n, row in enumerate(rows, 1)]


def _check_parquet(path: Path, file: Any, size: int) -> None:
    """Refuse what says that it has more than there can be."""
    about = file.metadata
    groups = [about.row_group(i) for i in range(about.num_row_groups)]
    whole = sum(max(0, group.total_byte_size) for group in groups)
    most = max(1_000_000, size)
    if whole > most_of(size) or about.num_rows > most or about.num_columns > MOST_COLUMNS:
        what = f"{about.num_rows:,} rows of {about.num_columns:,} columns in {whole:,} bytes"
        raise DataError(f"{what}, {size:,} packed: it is not read", where=str(path))


def _table_of(path: Path, file: Any, size: int) -> Any:
    """The table, read piece by piece: a value that stands in every row is stored but once."""
    import pyarrow

    about = file.metadata
    columns = range(about.num_columns if about.num_rows else 0)
    chunks = [about.row_group(i).column(j) for i in range(about.num_row_groups) for j in columns]
    largest = max((chunk.total_uncompressed_size for chunk in chunks), default=0)
    at_once = max(16, min(1000, _PIECE // max(1, largest)))
    batches, total = [], 0
    for batch in file.iter_batches(batch_size=at_once):
        parts = [_decoded(path, batch.column(i)) for i in range(batch.num_columns)]
        batches.append(pyarrow.RecordBatch.from_arrays(parts, batch.schema.names))
        total += batches[-1].nbytes
        if total > most_of(size):
            what = f"it unpacks to more than {most_of(size):,} bytes, {size:,} packed"
            raise DataError(what, where=str(path))
    table = pyarrow.Table.from_batches(batches, None if batches else file.schema_arrow)
    table.validate(full=True)
    return table


def _decoded(path: Path, column: Any) -> Any:
    """A column whose values stand for themselves."""
    import pyarrow

    if pyarrow.types.is_dictionary(column.type):
        return column.dictionary_decode()
    if "dictionary<" in str(column.type):
        raise DataError(f"a column of type {column.type}", where=str(path))
    return column


def _features(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """What the `datasets` library says of the columns."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _named(value: Any, feature: Any) -> Any:
    """A value with its class numbers as names; a number without a name (-1: none) stays."""
    if isinstance(feature, list):
        return _named(value, {"feature": feature[0]}) if feature else value
    if not isinstance(feature, dict):
        return value
    inner = feature.get("feature")
    names = feature.get("names")
    if isinstance(names, list) and isinstance(value, int) and not isinstance(value, bool):
        return names[value] if 0 <= value < len(names) else value
    if isinstance(value, list) and inner is not None:
        return [_named(item, inner) for item in value]
    if isinstance(value, dict):
        # A sequence of structures is stored as a structure of lists.
        parts = inner if isinstance(inner, dict) else feature
        wrap = isinstance(inner, dict)
        return {
            k: _named(v, {"feature": parts.get(k)} if wrap else parts.get(k))
            for k, v in value.items()
        }
    return value
