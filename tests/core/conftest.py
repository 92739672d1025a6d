"""A corpus and a backbone that exist only as digests, and recipes planned over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from adapterxlt.core.canon import digest
from adapterxlt.core.loading import parse_recipe
from adapterxlt.core.lowering import lower
from adapterxlt.core.plan import BackboneInfo, DataInfo, Plan
from adapterxlt.core.recipe import Recipe
from adapterxlt.core.specs import Shape
from adapterxlt.core.tasks import TASKS, Task

ROWS = {"train": 500, "validation": 60, "test": 80, "text": 1000, "candidates": 90}


class FakeCorpus:
    """Every split of every language is there; ``salt`` changes the content of single ones."""

    def __init__(
        self,
        rows: Mapping[tuple[str, str], int] | None = None,
        salt: Mapping[tuple[str, str], str] | None = None,
        no_train: tuple[str, ...] = (),
    ) -> None:
        self.counts, self.salt, self.no_train = rows or {}, salt or {}, no_train
        #: A recipe's own tasks may be put in its place.
        self.known: Callable[[str], Task] = TASKS.__getitem__

    def task(self, name: str) -> Task:
        return self.known(name)

    def has(self, task: str, language: str, split: str) -> bool:
        return split in ROWS

    def info(self, task: str, language: str, split: str) -> DataInfo:
        at = (language, split)
        content = [task, language, split, self.salt.get(at)]
        return DataInfo(digest("fake", content), self.counts.get(at, ROWS[split]), 12.0)

    def text_info(self, language: str, texts: tuple[str, ...] | None) -> DataInfo:
        return self.info("text" if texts is None else "+".join(texts), language, "text")

    def shots_split(self, task: str, language: str) -> str:
        return "validation" if language in self.no_train else "train"


BACKBONE = BackboneInfo(
    "fixed",
    Shape(layers=3, hidden=32, ffn=64, vocabulary=300),
    40_000,
    digests={"weights": "a" * 64, "tokenizer": "b" * 64, "config": "c" * 64},
)

SIX = """\
name: six
source: en
targets: [fi, mr]
tasks: [udpos]
regimes: [zero-shot, target-only, sequential, joint, joint-multilingual, multi-stage]
shots: [10, 100]
draws: [1, 2]
seeds: [1, 2]
budget: {epochs: 3, batch: 32}
"""

Planned = Callable[..., tuple[Recipe, Plan]]


@pytest.fixture(scope="session")
def fake_corpus() -> type[FakeCorpus]:
    return FakeCorpus


@pytest.fixture(scope="session")
def backbone() -> BackboneInfo:
    return BACKBONE


@pytest.fixture(scope="session")
def six() -> str:
    """The six built-in regimes on two languages, with a grid of shots, draws and seeds."""
    return SIX


@pytest.fixture(scope="session")
def planned() -> Planned:
    """``planned(text, *overrides, corpus=...)``: the recipe and its plan."""

    def plan(
        text: str, *overrides: str, corpus: FakeCorpus | None = None, of: BackboneInfo = BACKBONE
    ) -> tuple[Recipe, Plan]:
        recipe = parse_recipe(text, "recipe.yaml", overrides).recipe
        return recipe, lower(recipe, corpus or FakeCorpus(), of)

    return plan
