"""What a case is, and the words that many of them use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crafting import Spoiler

from adapterxlt.core.errors import RefusedError


@dataclass(frozen=True)
class Case:
    """Which good folder is spoiled how, how it is adopted, and what must be said."""

    of: str
    spoil: Spoiler
    said: tuple[str, ...]
    how: Mapping[str, Any] = field(default_factory=dict)
    error: type[Exception] = RefusedError


W = "adapter.safetensors"
MANY = 10**9
TINY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
TAGS = {"task": "lab-pos"}
OPEN = {"allow_pickle": True}

CANNOT = "has a shape or place that cannot be"
MISSING = "tensors are missing"
NO_METHOD = "no method here has"
NO_PLACE = "has no place here"
NOT_FINITE = "are not finite"
SAME = "two tensors have names that mean the same"


def near(spoil: Spoiler, *said: str) -> Case:
    """Of the language adapter in the format of `adapters`."""
    return Case("near", spoil, said)


def pos(spoil: Spoiler, *said: str, **how: Any) -> Case:
    """Of the task adapter with its head, in the same format."""
    return Case("pos", spoil, said, {**TAGS, **how})


def of_peft(spoil: Spoiler, *said: str) -> Case:
    """Of the one in the format of `peft`."""
    return Case("peft", spoil, said)


def odd(value: float) -> Any:
    """What puts a number in the place of an array's first."""

    def change(values: Any) -> Any:
        values.flat[0] = value
        return values

    return change
