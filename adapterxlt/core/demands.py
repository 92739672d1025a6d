"""What a recipe asks for: its cells, the data they are trained on, the languages that need text."""

from __future__ import annotations

from collections.abc import Iterator

from adapterxlt.core.recipe import Recipe
from adapterxlt.core.regimes import Regime


def cells_of(recipe: Recipe, regime: Regime) -> Iterator[tuple[str, int, int | None, int]]:
    """(task, shots, draw, seed) of a regime; a regime without shots has one cell a seed."""
    for task in recipe.tasks:
        for shots in recipe.shots if regime.uses_shots else (0,):
            for draw in recipe.draws if regime.draws_shots else (None,):
                for seed in recipe.seeds:
                    yield task, shots, draw, seed


def demands(recipe: Recipe) -> Iterator[tuple[Regime, str, str, str | int]]:
    """(regime, task, language, shots) of everything a recipe trains on besides the source's own
    training splits of its tasks, with repetitions; shots are `grid`, `all` or a number."""
    for regime in recipe.regime_list:
        for phase in (regime.phases[i] for i in regime.needed if not regime.phases[i].adopt):
            for own, (word, words, shots) in (
                (t, part) for t in recipe.tasks for part in phase.parts
            ):
                for task in recipe.trained_on(word, own):
                    targets = recipe.targets_of(own)
                    for target in targets if "target" in words else targets[:1]:
                        for name in words:
                            for language in recipe.members(name, task, target):
                                yield regime, task, language, shots


def worn_languages(recipe: Recipe) -> list[str]:
    """Languages that have a language adapter, trained on their text or adopted; source first."""
    wanted = recipe.language_adapters
    assert wanted is not None
    found = [recipe.source, *recipe.all_targets]
    wears = {phase.wear for regime in recipe.regime_list for phase in regime.phases}
    # A bilingual adapter is trained on text, whatever its languages' own adapters are.
    whole = list(found) if "pair" in wears else []
    for regime in recipe.regime_list:
        for phase in regime.phases:
            words = phase.wear if isinstance(phase.wear, tuple) else ()
            words += tuple(w for _, words, _ in phase.parts for w in words if phase.wear == "own")
            for word in words:
                for task in (*recipe.intermediate, *recipe.tasks):
                    if word != "intermediate" or task in recipe.intermediate:
                        found += recipe.members(word, task, recipe.source)
    combined = [code for name in found for code in wanted.combine.get(name, {name: 1.0})]
    return list(dict.fromkeys([*combined, *whole]))
