"""Encoded splits as a few flat arrays, and back: what is kept is mapped into memory, not read.

Windows are made from the arrays as they are asked for. Called by the desk; the bytes are the
store's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adapterxlt.compute.data import Encoded, Window, among

Arrays = Mapping[str, np.ndarray[Any, Any]]
_FIELDS = ("ids", "positions", "labels", "items", "spans")


def pack(data: Encoded) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of an encoded split: for each field all values, and where each window's end.

    ``rows`` says where each row's windows end, ``cut`` which rows lost text.
    """
    windows = [window for row in data.rows for window in row]
    found: dict[str, np.ndarray[Any, Any]] = {
        "rows": np.cumsum([len(row) for row in data.rows], dtype=np.int64),
        "cut": np.array(sorted(data.cut), dtype=np.int64),
    }
    for name in _FIELDS:
        parts = [getattr(window, name) for window in windows]
        shape = (-1, 2) if name == "spans" else (-1,)
        flat = [value for part in parts for value in part]
        found[name] = np.array(flat, dtype=np.int32).reshape(shape)
        found[f"{name}_end"] = np.cumsum([len(part) for part in parts], dtype=np.int64)
    return found


def unpack(arrays: Arrays) -> Encoded:
    """An encoded split over its arrays."""
    rows = Packed(arrays, range(len(arrays["rows"])))
    return PackedSplit(rows, frozenset(arrays["cut"].tolist()))


class PackedSplit(Encoded):
    """An encoded split over arrays; rows are chosen without making windows."""

    def choose(self, rows: Sequence[int]) -> Encoded:
        assert isinstance(self.rows, Packed)
        return PackedSplit(self.rows.choose(rows), among(rows, self.cut))


class Packed(Sequence[tuple[Window, ...]]):
    """Rows over arrays; ``chosen`` are the ones it has, in order."""

    def __init__(self, arrays: Arrays, chosen: Sequence[int]) -> None:
        self.arrays, self.chosen = arrays, chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return Packed(self.arrays, self.chosen[i])
        row = self.chosen[i]
        ends = self.arrays["rows"]
        return tuple(
            self._window(n) for n in range(int(ends[row - 1]) if row else 0, int(ends[row]))
        )

    def __iter__(self) -> Iterator[tuple[Window, ...]]:
        return (self[i] for i in range(len(self)))

    def choose(self, rows: Sequence[int]) -> Packed:
        """These of its rows, in this order."""
        return Packed(self.arrays, [self.chosen[i] for i in rows])

    def _window(self, n: int) -> Window:
        ids, positions, labels, items, spans = (self._part(name, n) for name in _FIELDS)
        return Window(ids, positions, labels, items, [(a, b) for a, b in spans])

    def _part(self, name: str, n: int) -> list[Any]:
        ends = self.arrays[f"{name}_end"]
        found: list[Any] = self.arrays[name][int(ends[n - 1]) if n else 0 : int(ends[n])].tolist()
        return found


def to_bytes(data: Encoded) -> bytes:
    """An encoded split as a safetensors file."""
    from safetensors.numpy import save

    return bytes(save(pack(data)))


def from_file(path: Path) -> Encoded:
    """An encoded split whose arrays stay in the file until they are looked at."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    types = {"I32": np.int32, "I64": np.int64}
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        shape, kind = tuple(entry["shape"]), types[entry["dtype"]]
        # Nothing can be mapped where there is nothing.
        arrays[name] = (
            np.memmap(path, kind, "r", offset=8 + size + begin, shape=shape)
            if end > begin
            else np.empty(shape, kind)
        )
    return unpack(arrays)
