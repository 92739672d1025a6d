"""The one exception tree: what is wrong, where it is, what to do, and the exit code it maps to.

Every error a user can cause ends here; the command line prints ``str(error)`` and exits with
``error.exit_code``. Anything that is not an ``AdapterXLTError`` is a bug of the package. What a
terminal would obey, or what would fill it, is not in a message: see `visible` and `shortened`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from adapterxlt.core.showing import MOST_TEXT, shortened, visible

#: Faults of a recipe that are written out.
MOST_FAULTS = 100


class AdapterXLTError(Exception):
    """Base of all errors that have a cause outside the package.

    Args:
        what: what is wrong, one sentence.
        where: file and line, key or stage; empty when there is none.
        hint: what to do about it; empty when there is nothing to say.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.hint = what, where, hint

    def __str__(self) -> str:
        return one_line(self.what, self.where, self.hint)

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling between processes.
        return (_rebuild, (type(self), self.what, self.where, self.hint))


def _rebuild(kind: type[AdapterXLTError], what: str, where: str, hint: str) -> AdapterXLTError:
    return kind(what, where=where, hint=hint)


class StageError(AdapterXLTError):
    """A stage could not be computed."""


class UsageError(AdapterXLTError):
    """A command, a path or an option that cannot be carried out."""

    exit_code = 2


class DataError(AdapterXLTError):
    """A data file that is missing, empty or not what its task says."""

    exit_code = 2


class StoreDamaged(AdapterXLTError):
    """Bytes in the store that do not match their digest."""

    exit_code = 3


class StoreUnwritable(AdapterXLTError):
    """The store cannot be written to: its disk is full, or may only be read."""


class RefusedError(AdapterXLTError):
    """Something foreign or unsafe was refused; it says which check failed."""

    exit_code = 5


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a recipe: where in the file, what, and what to write instead."""

    what: str
    where: str = ""
    hint: str = ""

    def __str__(self) -> str:
        return one_line(self.what, self.where, self.hint)


class RecipeError(AdapterXLTError):
    """A recipe that is not valid; carries every fault found, in file order."""

    exit_code = 2

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        first = self.faults[0]
        super().__init__(first.what, where=first.where, hint=first.hint)

    def __str__(self) -> str:
        shown = [str(fault) for fault in self.faults[:MOST_FAULTS]]
        more = len(self.faults) - MOST_FAULTS
        return "\n".join([*shown, f"and {more:,} faults more"] if more > 0 else shown)

    def __reduce__(self) -> tuple[object, ...]:
        return (RecipeError, (self.faults,))


def one_line(what: str, where: str, hint: str) -> str:
    """``where: what; hint`` with the empty parts left out, on one line and safe for a terminal."""
    what, hint = shortened(what), shortened(hint)
    text = f"{where}: {what}" if where else what
    return visible(f"{text}; {hint}" if hint else text)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` for the nearest known word, else the short list of known words."""
    names = sorted(known)
    word = word[:MOST_TEXT]
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.55)
    if near:
        return f"did you mean {near[0]!r}?"
    if len(names) > 12:
        return f"{len(names)} are known"
    return "known: " + ", ".join(names) if names else ""
