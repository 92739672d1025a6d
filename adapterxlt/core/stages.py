"""Stages that the others are made of: language adapters, and merges of what was trained.

Part of lowering, which alone calls it; a `Corpus` is where rows come from, as far as it sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from adapterxlt.core.adapters import AdapterSpec
from adapterxlt.core.adoption import Adoptions
from adapterxlt.core.adoption_stage import adopt_stage
from adapterxlt.core.plan import BackboneInfo, DataInfo, Plan, Stage
from adapterxlt.core.recipe import Recipe
from adapterxlt.core.specs import resolve_budget
from adapterxlt.core.steps import Step
from adapterxlt.core.tasks import Task


class Corpus(Protocol):
    """Where rows come from, as far as planning sees it."""

    def task(self, name: str) -> Task: ...
    def has(self, task: str, language: str, split: str) -> bool: ...
    def info(self, task: str, language: str, split: str) -> DataInfo: ...
    def text_info(self, language: str, texts: tuple[str, ...] | None) -> DataInfo: ...
    def shots_split(self, task: str, language: str) -> str: ...


def cuts(limit: int | None, info: DataInfo) -> bool:
    """Whether a limit leaves rows out, as far as is known."""
    return limit is not None and (limit < info.rows or not info.exact)


def merge(
    plan: Plan,
    of: Mapping[int, str],
    members: list[tuple[int, int | None]],
    how: str,
    *,
    scores: list[str] | None = None,
    metric: str | None = None,
    weights: list[float] | None = None,
) -> str:
    """A stage that averages, weighs or picks among snapshots of stages, and trains nothing."""
    params = {
        "how": how,
        "members": [{"input": f"member:{n}", "snapshot": at} for n, at in members],
        "metric": metric,
        "weights": weights,
    }
    inputs = {f"member:{n}": key for n, key in of.items()}
    inputs |= {f"score:{n}": key for n, key in enumerate(scores or [])}
    label = f"{how} of {len(members)}: {plan.labels[of[0]]}"
    return plan.add(Stage("merge", params, inputs), label)


class LanguageStages:
    """The stages of a recipe's language adapters, added to its plan when they are first worn."""

    def __init__(
        self,
        recipe: Recipe,
        corpus: Corpus,
        backbone: BackboneInfo,
        adoptions: Adoptions,
        plan: Plan,
        base: Mapping[str, str],
        common: Mapping[str, Any],
    ) -> None:
        self.recipe, self.corpus, self.backbone = recipe, corpus, backbone
        self.adoptions, self.plan, self.base, self.common = adoptions, plan, base, common
        self.keys: dict[tuple[AdapterSpec, str], str] = {}

    def worn(
        self, step: Step, language: str, target: str, turn: bool = True
    ) -> tuple[str | list[str] | None, dict[str, str]]:
        """What batches of a language wear: a name, several in turn, or nothing; and the keys of
        these adapters by role.

        With ``turn`` false, as in evaluation, a language that would wear several in turn wears
        its own.
        """
        wear, spec, source = step.phase.wear, step.language_adapter, self.recipe.source
        if spec is None or wear == "none":
            return None, {}
        if turn and (wear == "cycle" or isinstance(wear, tuple)):
            words = wear if isinstance(wear, tuple) else ("source", "targets")
            spoken = dict.fromkeys(c for w in words for c in self.recipe.members(w, "", target))
            return list(spoken), {f"language:{code}": self._key(spec, code) for code in spoken}
        pair = "+".join(dict.fromkeys((source, target)))
        name = {"pair": pair, "source": source}.get(str(wear), language)
        return name, {f"language:{name}": self._key(spec, name)}

    def _key(self, spec: AdapterSpec, name: str) -> str:
        """The stage of a language adapter (``xx``, or ``xx+yy`` for a bilingual one)."""
        if (spec, name) not in self.keys:
            wanted = self.recipe.language_adapters
            assert wanted is not None
            parts = wanted.combine.get(name)
            if parts is None:
                key = self._single(spec, name)
            else:
                of = {i: self._single(spec, code) for i, code in enumerate(parts)}
                weights = list(parts.values())
                key = merge(self.plan, of, [(i, None) for i in of], "sum", weights=weights)
            self.keys[spec, name] = key
        return self.keys[spec, name]

    def _single(self, spec: AdapterSpec, name: str) -> str:
        if name in self.adoptions.languages:
            adoption = self.adoptions.languages[name]
            stage = adopt_stage(adoption, self.backbone, self.base, None)
            return self.plan.add(stage, f"adopt language {name} from {adoption.label}")
        wanted, limit = self.recipe.language_adapters, self.recipe.limits.text
        assert wanted is not None
        streams, rows = [], {}
        for language in name.split("+"):
            info = self.corpus.text_info(language, wanted.texts)
            rows[language] = min(info.rows, limit or info.rows)
            self.plan.data[info.digest] = info
            streams.append(
                {
                    "task": "text",
                    "language": language,
                    "split": "text",
                    "data": info.digest,
                    "texts": list(wanted.texts) if wanted.texts else None,
                    "limit": limit if cuts(limit, info) else None,
                }
            )
        params = {
            **self.common,
            "objective": "mlm",
            "streams": streams,
            "adapter": spec.resolved(self.backbone.shape.layers),
            "mask": wanted.mask,
            "shortcuts": self.recipe.shortcuts.of("corpus_softmax"),
            "budget": self._budget(list(rows.values())),
            "seed": wanted.seed,
        }
        return self.plan.add(Stage("train", params, dict(self.base)), f"language adapter {name}")

    def _budget(self, rows: list[int]) -> dict[str, Any]:
        budget = self.recipe.language_budget()
        assert isinstance(budget.batch, int)
        return resolve_budget(budget, max(rows), sum(min(budget.batch, n) for n in rows))
