"""What a row of the registry of adapter methods is: its parameters, its parts, what it may be.

Values only. `core.methods` has the rows, `core.counts` what they cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from adapterxlt.core.errors import did_you_mean
from adapterxlt.core.specs import Shape

Resolved = Mapping[str, Any]
FieldFault = tuple[str, str, str]

_KINDS = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a method: its type, default, bounds or choices, and what it is."""

    type: type
    default: Any
    doc: str
    low: float | None = None
    """Smallest value."""
    above: float | None = None
    """Values are greater than this."""
    below: float | None = None
    """Values are less than this."""
    choices: tuple[str, ...] = ()

    @property
    def range(self) -> str:
        """The values allowed, in words; empty when all of the type are."""
        if self.choices:
            return ", ".join(self.choices)
        low = None if self.low is None else f"at least {self.low:g}"
        above = None if self.above is None else f"more than {self.above:g}"
        below = None if self.below is None else f"less than {self.below:g}"
        return ", ".join(part for part in (low, above, below) if part)

    def fault(self, value: Any) -> tuple[str, str] | None:
        """What is wrong with a value and what to write, or ``None``."""
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        fits = number if self.type is float else type(value) is self.type
        if not fits or (number and not math.isfinite(value)):
            return f"{_shown(value)} is not {_KINDS[self.type]}", self._say()
        if self.choices and value not in self.choices:
            return f"{value!r} is not known", did_you_mean(value, self.choices)
        if number:
            under = self.low is not None and value < self.low
            under = under or (self.above is not None and value <= self.above)
            if under or (self.below is not None and value >= self.below):
                return f"{value!r} is out of range", self._say()
        return None

    def _say(self) -> str:
        return f"{self.range}; {self.default!r} is the default".lstrip("; ")

    def schema(self) -> dict[str, Any]:
        """JSON Schema of a value."""
        names = {int: "integer", float: "number", str: "string", bool: "boolean"}
        found: dict[str, Any] = {"type": names[self.type]}
        if self.choices:
            found["enum"] = list(self.choices)
        bounds = {"minimum": self.low, "exclusiveMinimum": self.above}
        bounds["exclusiveMaximum"] = self.below
        return {**found, **{name: bound for name, bound in bounds.items() if bound is not None}}


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"


@dataclass(frozen=True, slots=True)
class Part:
    """A configuration class of a library, and where its arguments come from.

    Args:
        config: name of the class in the library.
        takes: argument of the class -> parameter of the row.
        fixed: arguments that are the same for every specification.
    """

    config: str
    takes: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Method:
    """One adapter method.

    Args:
        library: `adapters`, `peft`, or `none`.
        parts: configurations; more than one make a union.
        count: trainable parameters of a resolved specification on a backbone, in closed form.
        touches: where and how it acts in a layer: `bottleneck`, also `parallel`; `prefix`;
            `matrices` (through `adapters`' own linear layers); of peft `added` or `replaced` (to
            what stands below on the same matrix; anew from the backbone's weight), and `plain`
            where it needs a matrix without another method of peft; `backbone`.
        matrices: of which it takes the place of, or adds to; empty where `targets` says.
        stackable: may stand in a stack with adapters of the sequential bottleneck kind, which
            language adapters are by default; `clash` says it of two methods.
        roles: `language`, `task`.
        fusible: AdapterFusion (Pfeiffer et al. 2021) can combine adapters of this method.
        misfits: what of a specification does not go with a backbone's sizes.
    """

    name: str
    summary: str
    library: str
    parts: tuple[Part, ...]
    parameters: Mapping[str, Parameter]
    count: Callable[[Resolved, Shape], int]
    touches: frozenset[str]
    matrices: tuple[str, ...] = ()
    invertible: bool = False
    stackable: bool = True
    roles: tuple[str, ...] = ("language", "task")
    fusible: bool = False
    leaves_out: bool = True
    misfits: Callable[[Resolved, Shape], Iterable[FieldFault]] | None = None
