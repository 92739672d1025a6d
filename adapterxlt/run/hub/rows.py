"""Rows of a data set as plain Parquet: names for class numbers, and no notes of any client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

#: Rows that are written at once.
ROWS = 20_000


def write_rows(dataset: Any, path: Path) -> int:
    """Rows as plain parquet: names for class numbers, and no notes of any client."""
    table: Any = dataset.data.table
    names = table.column_names

    def named(batch: Any) -> list[Any]:
        columns = zip(names, batch.columns, strict=True)
        return [_named(column, dataset.features[name]) for name, column in columns]

    empty = pa.record_batch([pa.array([], column.type) for column in table.columns], names)
    types = [column.type for column in named(empty)]
    plain = pa.schema(list(zip(names, types, strict=True)))
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, plain, compression="zstd") as writer:
        for batch in table.to_batches(max_chunksize=ROWS):
            writer.write_batch(pa.record_batch(named(batch), schema=plain))
    return int(dataset.num_rows)


def _named(array: Any, feature: Any) -> Any:
    """An array with the names of classes for their numbers, at any depth; -1 is no class."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if isinstance(array, pa.DictionaryArray):
        array = array.dictionary_decode()
    kind = array.type
    if hasattr(feature, "int2str") and pa.types.is_integer(kind):
        known = pc.if_else(pc.less(array, 0), pa.scalar(None, kind), array)
        return pa.array(feature.names, pa.string()).take(known)
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
    if pa.types.is_struct(kind) and isinstance(feature, dict):
        fields = [kind.field(i).name for i in range(kind.num_fields)]
        parts = [_named(array.field(i), feature[name]) for i, name in enumerate(fields)]
        if not parts:
            return array
        return pa.StructArray.from_arrays(parts, names=fields, mask=array.is_null())
    if inner is None:
        return array
    if pa.types.is_fixed_size_list(kind):
        array = array.cast(pa.list_(kind.value_type))
        kind = array.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        # Lists of their own: a slice's offsets do not begin at its values' beginning.
        lengths = pc.fill_null(pc.list_value_length(array), 0)
        ends = pc.cumulative_sum(lengths)
        offsets = pa.concat_arrays([pa.array([0], ends.type), _one(ends)])
        return type(array).from_arrays(
            offsets.cast(pa.int64() if pa.types.is_large_list(kind) else pa.int32()),
            _named(_one(pc.list_flatten(array)), inner),
            mask=_one(array.is_null()),
        )
    return array


def _one(array: Any) -> Any:
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
