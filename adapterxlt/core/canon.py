"""Canonical JSON, tagged SHA-256 digests, and every random choice derived from them.

Keys of stages are digests of canonical JSON; seeds of random streams are digests of
(seed, purpose, indices). Nothing here keeps state.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any


def neutral_free(value: Any) -> Any:
    """Plain JSON value of ``value`` in which mapping entries that are ``None`` are left out.

    ``None`` is the neutral value: a field added later with ``None`` as default leaves old keys
    as they were. Raises ``TypeError`` for values JSON has no form for, ``ValueError`` for NaN.
    """
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} has no canonical form")
        return value
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise TypeError(f"mapping keys are strings, not {type(name).__name__}")
        return {name: neutral_free(item) for name, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [neutral_free(item) for item in value]
    raise TypeError(f"no canonical form for {type(value).__name__}")


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, shortest floats, no ``None`` in mappings."""
    return json.dumps(
        neutral_free(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )


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
