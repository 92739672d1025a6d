"""Claims as data: which regimes are compared, on what, in which direction, and what would matter.

A claim is a file under `adapterxlt/claims/` or one of the user's own. `report.claims` measures it
on the rows of a study; nothing here knows of rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from adapterxlt.core.catalogs import Catalog
from adapterxlt.core.specs import Closed

Measure = Literal[
    "difference", "language-spread", "between-classes", "per-distance", "instability", "below"
]
#: Measures of two regimes, and those of one.
OF_TWO = ("difference", "instability", "below")
#: In what a measure's `least` is, and is shown.
UNITS: Mapping[str, str] = {
    "difference": "points",
    "language-spread": "points",
    "between-classes": "points",
    "per-distance": "points a step",
    "instability": "times",
    "below": "% of runs",
}
Names = Annotated[tuple[str, ...], Field(min_length=1)]


class Population(Closed):
    """On what a claim is measured; what is left out is everything the study has."""

    tasks: Names | None = None
    targets: Names | None = None
    classes: Names | None = None
    """Resource classes, e.g. [low, unseen]."""
    shots: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None

    @field_validator("tasks", "targets", "classes", "shots", mode="before")
    @classmethod
    def _sequence(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


class Part(Closed):
    """One thing to measure.

    `difference`: mean of `regime` less `than`, points (x 100), run by run. `instability`: how many
    times the standard deviation over draws and seeds in a language is that of `than`. `below`:
    share of runs, %, that are below `than`'s of the same seed and draw. `language-spread`: standard
    deviation among languages, points. `between-classes`: mean of the class `more` less that of
    `fewer`, points. `per-distance`: points a step further from the source.
    """

    measure: Measure = "difference"
    regime: Names
    """A regime; of several names the first that the study has."""
    than: Names | None = None
    more: Names | None = None
    """Classes with more, for `between-classes`."""
    fewer: Names | None = None
    metric: str | None = None
    """Each task's primary one when left out."""
    where: Population = Population()
    each: Literal["class", "task"] | None = None
    """Also for every resource class or task by itself."""
    direction: Literal["higher", "lower", "either"] = "higher"
    least: Annotated[float, Field(ge=0)] = 0.0
    """The smallest effect that matters, in the measure's unit."""
    over: Literal["languages", "runs"] = "languages"
    """What it is to hold for: languages like these, or just these with other draws and seeds."""

    @field_validator("regime", "than", "more", "fewer", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        return (
            (value,)
            if isinstance(value, str)
            else tuple(value)
            if isinstance(value, list)
            else value
        )

    @model_validator(mode="after")
    def _complete(self) -> Part:
        for field, needed in (
            ("than", self.measure in OF_TWO),
            ("more", self.measure == "between-classes"),
            ("fewer", self.measure == "between-classes"),
        ):
            if needed != (getattr(self, field) is not None):
                word = "needs" if needed else "has no"
                raise ValueError(f"measure {self.measure} {word} {field!r}")
        if self.measure == "instability" and self.least < 1:
            raise ValueError("least of instability is a factor of at least 1")
        return self


class Claim(Closed):
    """A claim, or with `direction: either` a question, and what would show it."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    claim: str
    """In one sentence."""
    source: str = ""
    """Who says so."""
    parts: Annotated[tuple[Part, ...], Field(min_length=1)]
    """All of them have to hold."""

    @field_validator("parts", mode="before")
    @classmethod
    def _sequence(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @property
    def asks(self) -> bool:
        """Whether it is a question, which has no side to be on."""
        return all(part.direction == "either" for part in self.parts)

    def applies(self, regimes: Iterable[str]) -> bool:
        """Whether a study with these regimes has all that is compared."""
        there = set(regimes)
        sides = [side for part in self.parts for side in (part.regime, part.than) if side]
        return all(there.intersection(side) for side in sides)


#: The study's own order.
ORDER = (
    "intermediate-or-multitask",
    "zero-shot-varies",
    "zero-shot-weakest-far-and-low",
    "few-shots-help",
    "few-shots-are-unstable",
    "new-strategies-improve-and-stabilize",
    "joint-beats-sequential",
    "multi-stage-adds",
)


_CLAIMS = Catalog("claims", lambda name, value: Claim.model_validate(value), ORDER)


def builtin_claims() -> Mapping[str, Claim]:
    """The shipped claims by name, in the order of `ORDER`."""
    return _CLAIMS
