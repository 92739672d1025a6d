"""Lowering: a recipe and what its data are become a plan of distinct stages.

Pure: the same recipe on the same bytes gives the same keys. Rows are never read here; a `Corpus`
says how many there are and what their digest is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from adapterxlt.core.plan import Cell, DataInfo, Plan, Stage
from adapterxlt.core.recipe import Recipe
from adapterxlt.core.regimes import Phase, Regime
from adapterxlt.core.specs import Budget, Shape
from adapterxlt.core.tasks import TASKS


@dataclass(frozen=True, slots=True)
class BackboneInfo:
    """What planning needs of a backbone: its sizes, and its digests or how it is pretrained."""

    name: str
    shape: Shape
    parameters: int
    digests: Mapping[str, str] | None = None
    pretraining: Mapping[str, Any] | None = None
    positions: int | None = None
    """The longest sequence, where it is known."""


class Corpus(Protocol):
    """Where rows come from, as far as planning sees it."""

    def info(self, task: str, language: str, split: str) -> DataInfo: ...
    def text_info(self, language: str, texts: tuple[str, ...] | None) -> DataInfo: ...
    def shots_split(self, task: str, language: str) -> str: ...


def lower(recipe: Recipe, corpus: Corpus, backbone: BackboneInfo) -> Plan:
    """The plan of a recipe: every cell's stages, equal stages once, in a fixed order."""
    return _Lowering(recipe, corpus, backbone).plan


def cells_of(recipe: Recipe, regime: Regime) -> Iterator[tuple[str, int, int | None, int]]:
    """(task, shots, draw, seed) of a regime; a regime without shots has one cell a seed."""
    for task in recipe.tasks:
        for shots in recipe.shots if regime.uses_shots else (0,):
            for draw in recipe.draws if regime.draws_shots else (None,):
                for seed in recipe.seeds:
                    yield task, shots, draw, seed


class _Lowering:
    """Holds the plan while it grows, and what is the same for all of its stages."""

    def __init__(self, recipe: Recipe, corpus: Corpus, backbone: BackboneInfo) -> None:
        self.recipe, self.corpus, self.backbone = recipe, corpus, backbone
        self.plan = Plan()
        self.base: dict[str, str] = {}
        self.common: dict[str, Any] = {
            "backbone": dict(backbone.digests) if backbone.digests else None,
            "max_length": recipe.max_length,
            "precision": recipe.precision,
        }
        if backbone.pretraining is not None:
            stage = Stage("pretrain", dict(backbone.pretraining))
            self.base["backbone"] = self.plan.add(stage, f"pretrain {backbone.name}")
        self.language_keys: dict[str, str] = {}
        self.budgets: dict[Phase, Budget] = {}
        for regime in recipe.regime_list:
            for task, shots, draw, seed in cells_of(recipe, regime):
                self._regime(regime, task, shots, draw, seed)

    def _regime(self, regime: Regime, task: str, shots: int, draw: int | None, seed: int) -> None:
        targets = self.recipe.targets
        roles = [(target, "target") for target in targets]
        if not regime.per_target:
            roles = [(self.recipe.source, "source"), *roles]
        trained: str | None = None
        for language, role in roles:
            if trained is None or regime.per_target:
                trained = self._train(regime, task, language, shots, draw, seed)
            cell = Cell(task, regime.name, language, shots, draw, seed, role)
            key = self._evaluate(regime.phases[-1], task, language, trained)
            self.plan.cells[cell] = key

    def _train(
        self, regime: Regime, task: str, target: str, shots: int, draw: int | None, seed: int
    ) -> str:
        """The chain of train stages of one regime; the key of its last."""
        previous: str | None = None
        # Nothing goes on from what comes before the last new adapter, so it is not trained.
        fresh = [i for i, phase in enumerate(regime.phases) if phase.adapter == "new"]
        for phase in regime.phases[max(fresh, default=0) :]:
            previous = self._phase(phase, task, target, shots, draw, seed, previous)
        assert previous is not None
        return previous

    def _phase(
        self,
        phase: Phase,
        task: str,
        target: str,
        shots: int,
        draw: int | None,
        seed: int,
        previous: str | None,
    ) -> str:
        recipe = self.recipe
        words = [w if w != "target" else target for w in phase.languages]
        spoken = dict.fromkeys(
            code for w in words for code in ([w] if w == target else recipe.members(w))
        )
        streams, rows = [], {}
        inputs = dict(self.base)
        for language in spoken:
            stream, rows[language] = self._stream(phase, task, language, shots, draw)
            wear = {"own": language, "source": recipe.source, "none": None}[phase.wear]
            self._wear(wear, inputs)
            stream["wear"] = wear if recipe.language_adapters is not None else None
            streams.append(stream)
        if previous is not None and phase.adapter == "continue":
            inputs["previous"] = previous
        labels = list(TASKS[task].labels)
        params = {
            **self.common,
            "objective": phase.objective,
            "streams": streams,
            "adapter": recipe.task_adapter.resolved(),
            "head": {"kind": TASKS[task].kind, "labels": labels},
            "new_head": True if phase.head == "new" and "previous" in inputs else None,
            "budget": self._budget(phase, rows),
            "seed": seed,
        }
        who = target if "target" in phase.languages else "+".join(phase.languages)
        sample = f", {shots} shots, draw {draw}" if phase.few_shot and draw is not None else ""
        before = inputs.get("previous")
        after = f" after {self.plan.labels[before].split()[0]}" if before else ""
        label = f"{phase.name}{after} {task} {who}{sample}, seed {seed}"
        return self.plan.add(Stage("train", params, inputs), label)

    def _stream(
        self, phase: Phase, task: str, language: str, shots: int, draw: int | None
    ) -> tuple[dict[str, Any], int]:
        """One language's data in a phase, and how many rows it has."""
        source = language == self.recipe.source
        split = "train" if source else self.corpus.shots_split(task, language)
        info = self.corpus.info(task, language, split)
        self.plan.data[info.digest] = info
        stream: dict[str, Any] = {
            "task": task,
            "language": language,
            "split": split,
            "data": info.digest,
        }
        if source:
            limit = self.recipe.limits.train
            if limit is not None and limit < info.rows:
                stream["limit"] = limit
            return stream, min(info.rows, limit or info.rows)
        if phase.shots == "all":
            return stream, info.rows
        count = shots if phase.shots == "grid" else phase.shots
        assert isinstance(count, int)
        stream |= {"shots": count, "draw": draw}
        return stream, count

    def _budget(self, phase: Phase, rows: Mapping[str, int]) -> dict[str, Any]:
        budget = self.budgets.get(phase)
        if budget is None:
            budget = self.recipe.phase_budget(phase.name, phase.budget)
            self.budgets[phase] = budget
        longest = rows.get(self.recipe.source, max(rows.values()))
        return resolve_budget(budget, longest)

    def _wear(self, language: str | None, inputs: dict[str, str]) -> None:
        """Make a language's adapter an input, and a stage when it is the first to need it."""
        if language is None or self.recipe.language_adapters is None:
            return
        if language not in self.language_keys:
            self.language_keys[language] = self._language_adapter(language)
        inputs[f"language:{language}"] = self.language_keys[language]

    def _language_adapter(self, language: str) -> str:
        wanted = self.recipe.language_adapters
        assert wanted is not None
        info = self.corpus.text_info(language, wanted.texts)
        limit = self.recipe.limits.text
        rows = min(info.rows, limit or info.rows)
        self.plan.data[info.digest] = info
        params = {
            **self.common,
            "objective": "mlm",
            "streams": [
                {
                    "task": "text",
                    "language": language,
                    "split": "text",
                    "data": info.digest,
                    "texts": list(wanted.texts) if wanted.texts else None,
                    "limit": limit if limit is not None and limit < info.rows else None,
                }
            ],
            "adapter": wanted.adapter.resolved(),
            "mask": wanted.mask,
            "budget": resolve_budget(self.recipe.language_budget(), rows),
            "seed": wanted.seed,
        }
        stage = Stage("train", params, dict(self.base))
        return self.plan.add(stage, f"language adapter {language}")

    def _evaluate(self, phase: Phase, task: str, language: str, trained: str) -> str:
        info = self.corpus.info(task, language, "test")
        self.plan.data[info.digest] = info
        wear = {"own": language, "source": self.recipe.source, "none": None}[phase.wear]
        inputs = {**self.base, "trained": trained}
        self._wear(wear, inputs)
        limit = self.recipe.limits.test
        params = {
            **self.common,
            "data": {
                "task": task,
                "language": language,
                "split": "test",
                "data": info.digest,
                "limit": limit if limit is not None and limit < info.rows else None,
                "wear": wear if self.recipe.language_adapters is not None else None,
            },
            "metrics": list(TASKS[task].metrics),
        }
        label = f"evaluate {self.plan.labels[trained]} on {language}"
        return self.plan.add(Stage("evaluate", params, inputs), label)


def resolve_budget(budget: Budget, rows: int) -> dict[str, Any]:
    """The complete budget as it enters a key: epochs become steps of ``ceil(rows / batch)``."""
    batch = budget.batch or 1
    steps = budget.steps or (budget.epochs or 1) * math.ceil(rows / batch)
    values = budget.model_dump(exclude={"steps", "epochs"})
    return {**values, "batch": batch, "steps": steps}
