"""Conditions on the columns of result rows, as a command line gives them: `shots=10,100`.

It never changes a row or the order of rows. The verb `results` calls it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from adapterxlt.core.errors import UsageError, did_you_mean
from adapterxlt.report.export import COLUMNS, INTEGERS, REALS, matches
from adapterxlt.report.summaries import Row

FORMS = "COLUMN=VALUE[,VALUE...], COLUMN!=VALUE, COLUMN>=N or COLUMN<=N"
_CONDITION = re.compile(r"([^=!<>]*)(!=|>=|<=|=)(.*)", re.DOTALL)


@dataclass(frozen=True)
class Condition:
    """What a column has to be: any of `values`, none of them, or a number up to or from `bound`."""

    column: str
    operator: str
    values: tuple[str, ...]
    bound: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """A condition as it was written, in one of `FORMS`; UsageError says what is wrong."""
        found = _CONDITION.fullmatch(text)
        if found is None:
            raise UsageError(f"{text!r} is no condition", hint=f"write {FORMS}")
        (column,), operator, value = columns(found[1]), found[2], found[3]
        if operator in ("=", "!="):
            # As a whole too, for a name may have a comma.
            parts = [value, *(part.strip() for part in value.split(","))]
            return cls(column, operator, tuple(dict.fromkeys(parts)))
        if column not in (*INTEGERS, *REALS):
            raise UsageError(f"{column!r} has no numbers", where=text, hint="use = or !=")
        try:
            return cls(column, operator, (value,), float(value))
        except ValueError:
            raise UsageError(f"{value!r} is no number", where=text) from None

    def holds(self, row: Row) -> bool:
        """Whether a row is as wanted; a number that does not exist is on no side of a bound."""
        value: Any = row[self.column]
        if self.operator in ("=", "!="):
            return matches(value, self.values) is (self.operator == "=")
        if value is None:
            return False
        return bool(value >= self.bound if self.operator == ">=" else value <= self.bound)


def columns(text: str) -> tuple[str, ...]:
    """Column names separated by commas, each once; UsageError with the nearest for a wrong one."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in COLUMNS:
            near = did_you_mean(name, COLUMNS)
            known = near if near.startswith("did") else f"the columns are {', '.join(COLUMNS)}"
            raise UsageError(f"no column {name!r}", hint=known)
    return names


def choose(rows: Iterable[Row], conditions: Sequence[Condition]) -> list[Row]:
    """The rows of which every condition holds, in their order."""
    return [row for row in rows if all(condition.holds(row) for condition in conditions)]


def choose_known(entries: Iterable[Row], conditions: Sequence[Condition]) -> list[Row]:
    """As `choose`, of entries that lack columns, such as runs without a row.

    None at all where a condition is on a column that only a finished run has, such as its score.
    """
    asked = [one for one in conditions if one.column not in ("metric", "primary")]
    every = list(entries)
    known = set.intersection(*(set(entry) for entry in every)) if every else set()
    return choose(every, asked) if {one.column for one in asked} <= known else []
