"""Stateless random draws: every choice of the lab comes from SHA-256 of (purpose, ..., index).

Never reads Python's `hash`, the clock or a global generator, so bytes are equal on every platform
and Python; called by every other module of the lab.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def digest(*parts: object) -> int:
    """256-bit integer made from the parts' text, joined by a separator that no name contains."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest(), "big")


def generator(*parts: object) -> random.Random:
    """A generator of its own for one purpose; only its `random()` is used, the one method whose
    sequence Python promises to keep."""
    return random.Random(digest(*parts))


def below(rng: random.Random, n: int) -> int:
    """Uniform integer in [0, n)."""
    return int(rng.random() * n)


def chance(rng: random.Random, share: float) -> bool:
    """True with probability `share`."""
    return rng.random() < share


def pick(rng: random.Random, items: Sequence[T]) -> T:
    """One item, all equally likely."""
    return items[int(rng.random() * len(items))]


def pick_skewed(rng: random.Random, items: Sequence[T]) -> T:
    """One item, the earlier the likelier (density falls linearly): words differ in frequency, as in
    any language, and frequency is one of the cues that align languages."""
    u = rng.random()
    return items[int(u * u * len(items))]
