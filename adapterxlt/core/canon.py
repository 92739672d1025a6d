"""Canonical JSON, tagged SHA-256 digests, and every random choice derived from them.

Keys of stages are digests of canonical JSON; seeds of random streams are digests of
(seed, purpose, indices). Nothing here keeps state.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from json.encoder import encode_basestring
from typing import Any, NoReturn


class Shared(dict[str, Any]):
    """A mapping that is part of many values: its canonical form is made once, so it is not changed.

    To other processes it travels as a plain ``dict``.
    """

    __slots__ = ("_text",)

    @property
    def text(self) -> str:
        """Its canonical form."""
        try:
            return self._text
        except AttributeError:
            self._text: str = _mapping(self)
            return self._text

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (dict(self),)

    def _fixed(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("a shared mapping is not changed")

    __setitem__ = __delitem__ = __ior__ = _fixed
    clear = pop = popitem = setdefault = update = _fixed


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, shortest floats, no ``None`` in mappings.

    ``None`` is the neutral value: a field added later with ``None`` as default leaves old keys
    as they were. Raises ``TypeError`` for values JSON has no form for, ``ValueError`` for NaN.
    """
    kind = type(value)
    if kind is str:
        return encode_basestring(value)
    if kind is Shared:
        return str(value.text)
    if kind is int:
        return repr(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} has no canonical form")
        return float.__repr__(value)
    if kind is dict or isinstance(value, Mapping):
        return _mapping(value)
    if isinstance(value, (list, tuple)):
        return f"[{','.join([canonical(item) for item in value])}]"
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if isinstance(value, str):
        return encode_basestring(value)
    if isinstance(value, int):
        return int.__repr__(value)
    raise TypeError(f"no canonical form for {kind.__name__}")


def _mapping(value: Mapping[str, Any]) -> str:
    entries = [
        f"{encode_basestring(name)}:{canonical(item)}"
        for name, item in sorted(value.items())
        if item is not None
    ]
    return f"{{{','.join(entries)}}}"


def digest(tag: str, value: Any) -> str:
    """SHA-256 hex digest of ``value`` under ``tag`` (two kinds of things never share digests)."""
    return hashlib.sha256(f"adapterxlt:{tag}\n{canonical(value)}".encode()).hexdigest()


def sha256_hex(data: bytes) -> str:
    """SHA-256 hex digest of raw bytes."""
    return hashlib.sha256(data).hexdigest()


def derive(seed: int, purpose: str, *indices: int | str) -> int:
    """A 63-bit seed for one purpose at one place: stateless, so resuming needs no generator."""
    text = ":".join((str(seed), purpose, *map(str, indices)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def shuffled(n: int, seed: int, purpose: str, *indices: int | str) -> list[int]:
    """A permutation of ``range(n)``, the same on every platform and Python version.

    Rows are ordered by their own hash, so the first k of two calls with different k agree:
    the 10-shot sample of a draw is part of its 100-shot sample.
    """
    prefix = ":".join((str(seed), purpose, *map(str, indices)))
    return sorted(range(n), key=lambda i: hashlib.sha256(f"{prefix}:{i}".encode()).digest())
