"""Recipes, regimes and claims of any content: valid, or told in lines what is wrong, soon."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from mutating import Watch, mutated_bytes, mutated_text, mutated_value, nasty, numbered

from adapterxlt.core import yamlio
from adapterxlt.core.adoption import Adoptions
from adapterxlt.core.canon import digest
from adapterxlt.core.loading import _text, parse_recipe
from adapterxlt.core.lowering import lower
from adapterxlt.core.plan import BackboneInfo, DataInfo
from adapterxlt.core.specs import Shape
from adapterxlt.run.faults import data_faults, spec_faults
from adapterxlt.shipped import recipe_folder

#: Cells of a recipe that is also planned: the shipped ones have up to 10,000.
FEW = 300


class AnyCorpus:
    """Every split of every language is there."""

    def __init__(self, recipe: Any) -> None:
        self.task = recipe.task

    def has(self, task: str, language: str, split: str) -> bool:
        return True

    def info(self, task: str, language: str, split: str) -> DataInfo:
        return DataInfo(digest("any", [task, language, split]), 200, 12.0)

    def text_info(self, language: str, texts: tuple[str, ...] | None) -> DataInfo:
        return self.info("text", language, "text")

    def shots_split(self, task: str, language: str) -> str:
        return "train"


BACKBONE = BackboneInfo(
    "any", Shape(3, 32, 64, 300), 40_000, digests={"weights": "a" * 64}, positions=512
)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """The shipped recipes, and one with a regime, a claim and a task written out."""
    found = [path.read_text("utf-8") for path in sorted(recipe_folder().rglob("*.yaml"))]
    assert len(found) > 15
    return [*found, *[FULL] * 5]


FULL = """\
name: full
question: Does it?
source: en
targets: {own: [fi, uk], udpos: [mr]}
tasks: [own, udpos]
intermediate: {nli: [en, de]}
datasets:
  own: {kind: classification, labels: [a, b], files: "x/{language}/{split}.csv", columns: {text: t}}
regimes:
  - zero-shot
  - name: mine
    phases:
      - {name: first, tasks: [intermediate], languages: [intermediate], sampling: proportional}
      - {name: second, languages: [source, target], adapter: stack, budget: {batch: 4}}
shots: [5, 10]
draws: [1, 2]
seeds: [1]
classes: {high: [en, fi], low: [mr]}
language_adapters:
  {adapter: {method: seq_bn_inv}, budget: {steps: 5}, combine: {uk: {fi: 0.5, mr: 1}}}
task_adapter: {method: lora, r: 4}
budget: {steps: 9, lr: 1e-3}
budgets: {second: {steps: 3}, mine/first: {epochs: 1}}
limits: {train: 50, test: 20}
claims:
  - name: better
    claim: It is better.
    parts: [{regime: mine, than: zero-shot, least: 0.5, where: {classes: [low]}}]
"""


def _mutated(draw: random.Random, texts: list[str], values: list[Any]) -> tuple[str, list[str]]:
    """The text of a recipe and overrides of it."""
    overrides: list[str] = []
    if draw.random() < 0.2:
        places = ["seeds", "budget.lr", "regimes", "targets", "tasks", "x.y", "budgets.joint.steps"]
        overrides = [f"{draw.choice(places)}{draw.choice(['=', '+=', ''])}{nasty(draw)}"]
    match draw.randrange(4):
        case 0:
            data = mutated_bytes(draw, [text.encode() for text in draw.sample(texts, 3)])
            return data.decode("utf-8", "replace"), overrides
        case 1:
            return mutated_text(draw, texts), overrides
        case _:
            return _text(mutated_value(draw, draw.choice(values), values)), overrides


def _read(text: str, overrides: list[str]) -> Callable[[], None]:
    def run() -> None:
        loaded = parse_recipe(text, "fuzz.yaml", overrides)
        recipe = loaded.recipe
        assert parse_recipe(loaded.resolved_text(), "again.yaml").recipe == recipe
        cells = len(recipe.regimes) * len(recipe.tasks) * len(recipe.all_targets)
        cells *= max(1, len(recipe.shots)) * len(recipe.draws) * len(recipe.seeds)
        if cells > FEW or recipe.language_adapters is None or recipe.language_adapters.adopt:
            return
        if any(phase.adopt for regime in recipe.regime_list for phase in regime.phases):
            return
        corpus: Any = AnyCorpus(recipe)
        faults = [*data_faults(loaded, corpus, Adoptions()), *spec_faults(loaded, BACKBONE)]
        if not faults:
            lower(recipe, corpus, BACKBONE)

    return run


def _fuzz(count: int, texts: list[str]) -> None:
    values = [yamlio.parse(text, "seed.yaml").value for text in texts]
    watch = Watch()
    for name, draw in numbered(count, "recipe"):
        text, overrides = _mutated(draw, texts, values)
        watch.case(name, _read(text, overrides))
    watch.over(count)


def test_mutated_recipes_are_valid_or_told_what_is_wrong(texts: list[str]) -> None:
    _fuzz(200, texts)


@pytest.mark.slow
@pytest.mark.torture
def test_twenty_thousand_mutated_recipes(texts: list[str]) -> None:
    _fuzz(20_000, texts)
