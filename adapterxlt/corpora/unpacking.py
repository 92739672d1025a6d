"""Bytes of data files, unpacked as far as they may be: a small file can stand for very much.

Called by the readers of formats.
"""

from __future__ import annotations

import io
import zlib
from pathlib import Path

from adapterxlt.core.errors import DataError
from adapterxlt.core.plain import plain_bytes

#: Bytes of a file of data, unpacked; all of its rows are held in memory.
MOST_BYTES = 4 << 30
#: How many times as large as its file what is packed may be, once it is larger than ``FREE_BYTES``:
#: text is packed to a tenth, a bomb to a thousandth.
MOST_PACKED, FREE_BYTES = 100, 32 << 20
#: Bytes that are unpacked at once.
_PIECE = 1 << 20


def content(path: Path) -> bytes:
    """The bytes of a file, unpacked; ``DataError`` where they cannot be had."""
    try:
        data = plain_bytes(path, MOST_BYTES)
        return _unpacked(data) if path.name.endswith(".gz") else data
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot be read: {error}", where=str(path)) from None


def most_of(packed: int) -> int:
    """Bytes that so many packed ones may stand for."""
    return min(MOST_BYTES, max(FREE_BYTES, MOST_PACKED * packed))


def _unpacked(data: bytes) -> bytes:
    """What is packed in a gzip file, whose members follow one another; never more of it than is
    taken, and ``OSError`` where there would be."""
    most = most_of(len(data))
    out, rest = io.BytesIO(), data
    while rest:
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            part = member.decompress(rest, _PIECE)
            rest = member.unconsumed_tail
            out.write(part)
            if out.tell() > most:
                raise OSError(f"it unpacks to more than {most:,} bytes, {len(data):,} packed")
            if not part and not rest and not member.eof:
                raise EOFError("the packed file ends too early")
        # Padding with zeros is allowed at the end.
        rest = member.unused_data.lstrip(b"\0")
    return out.getvalue()
