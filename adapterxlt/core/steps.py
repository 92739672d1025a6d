"""Phases as they are for one task, with all that is the same in every cell of a regime.

Values only. `core.lowering` makes each once and asks for it in thousands of cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapterxlt.core.adapters import AdapterSpec
from adapterxlt.core.adoption import Adoptions
from adapterxlt.core.canon import Shared
from adapterxlt.core.recipe import Recipe
from adapterxlt.core.regimes import Phase, Regime
from adapterxlt.core.specs import Budget


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A phase of a regime, in cells of one task."""

    regime: Regime
    phase: Phase
    task: str
    before: tuple[int, ...]
    """Phases whose adapters it goes on from, stacks on or fuses."""
    head_from: int | None
    """The phase whose heads a new adapter keeps."""
    per_target: bool
    sampled: bool
    """Whether it reads a sample of shots."""
    parts: tuple[tuple[str, str, tuple[str, ...], str | int], ...]
    """(task, word of the phase for it, language words, shots) of what it is trained on."""
    budget: Budget
    language_adapter: AdapterSpec | None
    params: Mapping[str, Any]
    """Of its stages, those that no cell changes."""


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """A task in a language that a step reads, whatever the shots and the draw."""

    task: str
    language: str
    shots: str | int
    wear: str | list[str] | None
    weight: float | None
    batch: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """What a step is trained on, whatever the seed."""

    params: Mapping[str, Any]
    worn: Mapping[str, str]
    """Keys of the language adapters that its batches wear, by role."""
    title: str
    about: str
    """Of its label, what stands before and after what it goes on from."""


def step_of(
    recipe: Recipe, adoptions: Adoptions, regime: Regime, i: int, task: str, layers: int
) -> Step:
    """Phase ``i`` of a regime in cells of a task, on a backbone of so many layers."""
    phase = regime.phases[i]
    parts = [
        (name, word, words, shots)
        for word, words, shots in phase.parts
        for name in recipe.trained_on(word, task)
    ]
    params = {
        "objective": phase.objective,
        "sampling": _sampling(phase),
        "adapter": None,
        "drop": phase.drop,
        "shortcuts": recipe.shortcuts.of("frozen_dropout_off"),
    }
    if not regime.fused(i):
        begun = regime.adopted(i)
        spec = recipe.phase_adapter(regime, i)
        if begun is not None:
            spec = adoptions.of_phase(begun.adopt, task).spec
        params["adapter"] = Shared(spec.resolved(layers))
    return Step(
        regime,
        phase,
        task,
        regime.builds_on(i),
        regime.head_from(i),
        phase.per_target,
        bool(phase.foreign_shots - {"all"}),
        # By name, so that cells of different tasks share what they train on the same tasks.
        tuple(sorted(parts, key=lambda part: part[0])),
        recipe.phase_budget(regime, phase),
        recipe.language_adapter(regime),
        params,
    )


def _sampling(phase: Phase) -> dict[str, Any] | None:
    """How batches are drawn, as it enters a key; nothing for balanced."""
    if isinstance(phase.sampling, str):
        return None if phase.sampling == "balanced" else {"kind": phase.sampling}
    return {"kind": "temperature", "t": phase.sampling.temperature}
