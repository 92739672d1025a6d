"""Reading files that anybody may have written: plain ones only, and never more than is said.

Folders, pipes and devices are no files here, so that nothing waits for a writer or reads without
end. Called by whatever reads recipes, data and backbones; the store has its own, stricter reader.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any


def plain_bytes(path: Path, most: int) -> bytes:
    """The bytes of a plain file; links to one are followed.

    Args:
        most: bytes that it may have.

    Raises:
        OSError: it is not there, cannot be read, is no plain file, or is larger.
    """
    # A pipe is opened without waiting for somebody to write into it.
    careful = ("O_NONBLOCK", "O_BINARY", "O_CLOEXEC")
    try:
        handle = os.open(path, os.O_RDONLY | sum(getattr(os, name, 0) for name in careful))
    except ValueError as error:
        raise OSError(f"no name of a file: {error}") from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "no plain file"
            raise OSError(f"it is {what}")
        if status.st_size > most:
            raise OSError(f"it is larger than {most:,} bytes")
        with os.fdopen(handle, "rb", closefd=False) as file:
            # Room is made for as much as is asked for.
            data = file.read(status.st_size + 1)
        if len(data) > status.st_size:
            raise OSError("it grows while it is read")
        return data
    finally:
        os.close(handle)


def utf8(data: bytes) -> str:
    """Text in UTF-8, without the mark that it may begin with.

    Raises:
        ValueError: it is something else; says at which line.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        other = "it looks like UTF-16" if wide else f"byte {data[error.start]:#04x} of line {line}"
        raise ValueError(f"not UTF-8: {other}") from None


def json_of(text: str) -> Any:
    """A JSON value in which nothing is said twice, and every number is one.

    Raises:
        ValueError: it is none; says why in a few words.
    """
    try:
        value = _JSON.decode(text)
        if "\\ud" in text or "\\uD" in text:
            # Half of a surrogate pair is no text.
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except RecursionError:
        raise ValueError("nested too deep") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"the key {twice[:60]!r} is there twice")
    return found


def _none(text: str) -> Any:
    raise ValueError(f"{text} is no number that can be meant; write null")


def _real(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _none(text[:20])


_JSON = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_none, parse_float=_real)
