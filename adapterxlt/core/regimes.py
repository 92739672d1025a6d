"""Regimes as data: named lists of phases, read from YAML, checked, never executed here.

A phase says whose data it trains on, which language adapter a batch wears and what it goes on
from; `core.lowering` turns a regime and a cell into stages. Users write the same fields inline
in a recipe or in a file of their own.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from adapterxlt.core.specs import Budget, Closed

#: Words a phase may use in `languages` besides codes of languages and names of resource classes.
LANGUAGE_WORDS = ("source", "target", "targets")

Shots = Annotated[
    Annotated[Literal["grid", "all"], Tag("<word>")] | Annotated[int, Field(gt=0), Tag("<number>")],
    Discriminator(lambda value: "<word>" if isinstance(value, str) else "<number>"),
]


class Phase(Closed):
    """One training phase of a regime."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    """What a recipe's `budgets` calls this phase."""
    languages: tuple[str, ...] = Field(min_length=1)
    """Whose data: source, target, targets, a resource class, or codes."""
    shots: Shots = "grid"
    """How many rows of each non-source language: the recipe's shots, all, or a number."""
    wear: Literal["own", "source", "none"] = "own"
    """The language adapter a batch wears: its own language's, the source's, or none."""
    adapter: Literal["continue", "new"] = "continue"
    """Go on with the previous phase's task adapter, or start a new one."""
    head: Literal["keep", "new"] = "keep"
    """Keep the previous phase's head, or reset it."""
    objective: Literal["macro"] = "macro"
    """macro: one batch per language per step, the plain mean of the per-language losses."""
    budget: Budget = Budget()
    """What differs from the recipe's budget."""

    @field_validator("languages", mode="before")
    @classmethod
    def _sequence(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @property
    def few_shot(self) -> bool:
        """Whether the phase reads rows of languages other than the source."""
        return any(language != "source" for language in self.languages)

    def describe(self) -> str:
        """One line for plans and reports."""
        verb = "new adapter" if self.adapter == "new" else "continue"
        shots = f", shots {self.shots}" if self.few_shot else ""
        return f"{self.name}: {verb} on {' + '.join(self.languages)}{shots}, wear {self.wear}"


class Regime(Closed):
    """A named list of phases; the first starts a new adapter whatever it says."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    summary: str = ""
    phases: tuple[Phase, ...] = Field(min_length=1)

    @field_validator("phases", mode="before")
    @classmethod
    def _sequence(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @property
    def uses_shots(self) -> bool:
        """Whether the recipe's grid of shots makes more than one cell of this regime."""
        return any(phase.few_shot and phase.shots == "grid" for phase in self.phases)

    @property
    def draws_shots(self) -> bool:
        """Whether a sample of shots is drawn at all."""
        return any(phase.few_shot and phase.shots != "all" for phase in self.phases)

    @property
    def per_target(self) -> bool:
        """Whether training differs from target to target."""
        return any("target" in phase.languages for phase in self.phases)


@lru_cache(maxsize=1)
def builtin_regimes() -> dict[str, Regime]:
    """The shipped regimes by name, in the order of the paper."""
    from adapterxlt.core.yamlio import parse

    found = {}
    folder = resources.files("adapterxlt") / "regimes"
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if entry.name.endswith(".yaml"):
            document = parse(entry.read_text(encoding="utf-8"), entry.name)
            regime = Regime.model_validate(document.value)
            found[regime.name] = regime
    order = ["zero-shot", "target-only", "sequential", "joint", "joint-multilingual", "multi-stage"]
    return {name: found[name] for name in [*order, *sorted(found.keys() - set(order))]}
