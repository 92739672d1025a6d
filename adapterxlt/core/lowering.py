"""Lowering: a recipe and what its data are become a plan of distinct stages.

Pure: the same recipe on the same bytes gives the same keys. Rows are never read here; a `Corpus`
says how many there are and what their digest is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from adapterxlt.core.adapters import AdapterSpec
from adapterxlt.core.adoption import Adoption, Adoptions
from adapterxlt.core.adoption_stage import adopt_stage
from adapterxlt.core.demands import cells_of
from adapterxlt.core.plan import BackboneInfo, Cell, DataInfo, Plan, Stage
from adapterxlt.core.recipe import Recipe
from adapterxlt.core.regimes import Phase, Regime
from adapterxlt.core.specs import Budget, resolve_budget
from adapterxlt.core.tasks import Task


class Corpus(Protocol):
    """Where rows come from, as far as planning sees it."""

    def task(self, name: str) -> Task: ...
    def has(self, task: str, language: str, split: str) -> bool: ...
    def info(self, task: str, language: str, split: str) -> DataInfo: ...
    def text_info(self, language: str, texts: tuple[str, ...] | None) -> DataInfo: ...
    def shots_split(self, task: str, language: str) -> str: ...


def lower(
    recipe: Recipe, corpus: Corpus, backbone: BackboneInfo, adoptions: Adoptions | None = None
) -> Plan:
    """The plan of a recipe: every cell's stages, equal stages once, in a fixed order."""
    return _Lowering(recipe, corpus, backbone, adoptions or Adoptions()).plan


@dataclass(frozen=True, slots=True)
class Run:
    """What a chain of stages is trained for: a regime on a task with its shots and its seeds."""

    regime: Regime
    task: str
    target: str
    shots: int
    draw: int | None
    seed: int


class _Lowering:
    """Holds the plan while it grows, and what is the same for all of its stages."""

    def __init__(
        self, recipe: Recipe, corpus: Corpus, backbone: BackboneInfo, adoptions: Adoptions
    ) -> None:
        self.recipe, self.corpus, self.backbone = recipe, corpus, backbone
        self.adoptions = adoptions
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
        self.language_keys: dict[tuple[AdapterSpec, str], str] = {}
        self.budgets: dict[tuple[str, str], Budget] = {}
        # What does not differ between cells is lowered once: most of a large plan is such.
        self.phases: dict[tuple[Any, ...], str | None] = {}
        self.snapshots: dict[tuple[Any, ...], str] = {}
        for regime in recipe.regime_list:
            for task, shots, draw, seed in cells_of(recipe, regime):
                self._regime(Run(regime, task, recipe.source, shots, draw, seed))

    def _regime(self, run: Run) -> None:
        regime = run.regime
        roles = [(target, "target") for target in self.recipe.targets_of(run.task)]
        if not regime.per_target and self.recipe.scores_source(run.task):
            roles = [(self.recipe.source, "source"), *roles]
        trained: str | None = None
        for n, (language, role) in enumerate(roles):
            if n == 0 or regime.per_target:
                run = replace(run, target=language)
                trained = self._train(run)
            cell = Cell(run.task, regime.name, language, run.shots, run.draw, run.seed, role)
            self.plan.cells[cell] = self._evaluate(run, regime.phases[-1], language, trained)

    # --- the stages that train one cell ---------------------------------------------------------

    def _train(self, run: Run) -> str | None:
        """The stages of a regime's phases; the key of what is evaluated, if anything is trained."""
        done: dict[int, str | None] = {}
        shared = [run.regime.name, run.task, run.seed]
        for i in run.regime.needed:
            phase = run.regime.phases[i]
            if phase.per_target:
                shared.append(run.target)
            if phase.foreign_shots - {"all"}:
                shared.append(("shots", run.shots, run.draw))
            at = (i, *shared)
            if at not in self.phases:
                self.phases[at] = self._phase(run, i, done)
            done[i] = self.phases[at]
        phases, finish = run.regime.phases, run.regime.finish
        last = len(phases) - 1
        if not isinstance(finish, dict):
            return self._snapshot(run, phases[last], done[last], finish)
        # The last phase first: its heads are the sum's.
        order = sorted((i for i, p in enumerate(phases) if p.name in finish), reverse=True)
        of = {n: self._there(done[i]) for n, i in enumerate(order)}
        weights = [finish[phases[i].name] for i in order]
        return self._merge(of, [(n, None) for n in of], "sum", weights=weights)

    @staticmethod
    def _there(key: str | None) -> str:
        """What `core.checks` has made sure of: that something was trained."""
        assert key is not None, "a sum or a fusion of nothing"
        return key

    def _phase(self, run: Run, i: int, done: Mapping[int, str | None]) -> str | None:
        """The stage of a phase; of one that has nothing to train on, that of the one before."""
        phase, before = run.regime.phases[i], run.regime.builds_on(i)
        inputs = dict(self.base)
        if phase.adopt:
            adoption = self.adoptions.of_phase(phase.adopt, run.task)
            return self._adopt(adoption, f"adopt {run.task} from {adoption.label}", run.task)
        if not any(self.recipe.trained_on(word, run.task) for word in phase.tasks):
            return done[before[0]] if before else None
        if phase.adapter == "fuse":
            inputs |= {f"fuse:{n}": self._there(done[j]) for n, j in enumerate(before)}
        elif before:
            previous = run.regime.phases[before[0]]
            role = "below" if phase.adapter == "stack" else "previous"
            key = self._snapshot(run, previous, done[before[0]], phase.start)
            inputs |= {role: key} if key is not None else {}
        head = run.regime.head_from(i)
        kept = done[head] if head is not None else None
        if kept is not None:
            inputs["heads"] = kept
        streams = self._streams(run, phase, inputs)
        inherits = any(role in inputs for role in ("previous", "below", "fuse:0", "heads"))
        fused = run.regime.fused(i)
        params = {
            **self.common,
            "objective": phase.objective,
            "sampling": _sampling(phase),
            "streams": streams,
            "adapter": None if fused else self._resolved(self._phase_adapter(run, i)),
            "heads": {
                task: self.corpus.task(task).head
                for task in sorted({stream["task"] for stream in streams})
            },
            "head": phase.heads if inherits and phase.heads != "keep" else None,
            "drop": phase.drop,
            "shortcuts": self.recipe.shortcuts.of("frozen_dropout_off"),
            "budget": self._budget(run.regime, phase, streams),
            "seed": run.seed,
        }
        label = self._label(run, phase, inputs)
        runs = [
            self.plan.add(
                Stage("train", {**params, "run": n or None}, inputs), label + f", run {n}" * (n > 0)
            )
            for n in range(phase.runs)
        ]
        if len(runs) == 1:
            return runs[0]
        return self._merge(dict(enumerate(runs)), [(n, None) for n in range(len(runs))], "average")

    def _label(self, run: Run, phase: Phase, inputs: Mapping[str, str]) -> str:
        words = dict.fromkeys(w for _, words, _ in phase.parts for w in words)
        tasks = dict.fromkeys(
            t for word in phase.tasks for t in self.recipe.tasks_of(word, run.task)
        )
        who = "+".join(run.target if word == "target" else word for word in words)
        sampled = phase.foreign_shots - {"all"}
        count = run.shots if "grid" in sampled else "+".join(map(str, sorted(sampled, key=str)))
        sample = f", {count} shots, draw {run.draw}" if sampled else ""
        before = next((inputs[r] for r in ("previous", "below", "fuse:0") if r in inputs), None)
        after = f" after {self.plan.labels[before].split()[0]}" if before else ""
        how = "" if phase.objective == "macro" else f" ({phase.objective})"
        return f"{phase.name}{how}{after} {'+'.join(tasks)} {who}{sample}, seed {run.seed}"

    def _phase_adapter(self, run: Run, i: int) -> AdapterSpec:
        """The specification of what a phase trains; of one that goes on with it, the adopted's."""
        phase = run.regime.adopted(i)
        if phase is not None:
            return self.adoptions.of_phase(phase.adopt, run.task).spec
        return self.recipe.phase_adapter(run.regime, i)

    def _adopt(self, adoption: Adoption, label: str, task: str | None = None) -> str:
        """The stage that takes an adapter over."""
        own = self.corpus.task(task) if task is not None else None
        return self.plan.add(adopt_stage(adoption, self.backbone, self.base, own), label)

    def _resolved(self, spec: AdapterSpec) -> dict[str, Any]:
        return spec.resolved(self.backbone.shape.layers)

    def _streams(self, run: Run, phase: Phase, inputs: dict[str, str]) -> list[dict[str, Any]]:
        """The data of a phase: a stream for each task and language."""
        streams: dict[tuple[str, str], dict[str, Any]] = {}
        batch = self._phase_budget(run.regime, phase).batch
        parts = [
            (task, word, words, shots)
            for word, words, shots in phase.parts
            for task in self.recipe.trained_on(word, run.task)
        ]
        # By name, so that cells of different tasks share what they train on the same tasks.
        for task, word, words, shots in sorted(parts, key=lambda part: part[0]):
            spoken = [c for w in words for c in self.recipe.members(w, task, run.target)]
            spoken = [c for c in dict.fromkeys(spoken) if (task, c) not in streams]
            # Tasks weigh the same, however many languages they are in.
            weight = phase.weights.get(word, 1.0) / (len(spoken) if len(parts) > 1 else 1)
            for language in spoken:
                stream = self._stream(task, language, run.shots if shots == "grid" else shots, run)
                stream["wear"] = self._wear(run, phase, language, inputs)
                stream["weight"] = None if weight == 1.0 else weight
                stream["batch"] = batch[word] if isinstance(batch, dict) else None
                streams[task, language] = stream
        return list(streams.values())

    def _stream(self, task: str, language: str, shots: str | int, run: Run) -> dict[str, Any]:
        """One language's data of a task."""
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
        if source or shots == "all":
            limit = self.recipe.limits.train
            return stream | ({"limit": limit} if limit is not None and _cuts(limit, info) else {})
        return stream | {"shots": shots, "draw": run.draw}

    def _rows(self, stream: Mapping[str, Any]) -> int:
        """How many rows a stream has."""
        return int(
            stream.get("shots") or stream.get("limit") or self.plan.data[stream["data"]].rows
        )

    def _phase_budget(self, regime: Regime, phase: Phase) -> Budget:
        name = (regime.name, phase.name)
        if name not in self.budgets:
            self.budgets[name] = self.recipe.phase_budget(regime, phase)
        return self.budgets[name]

    def _budget(
        self, regime: Regime, phase: Phase, streams: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """The complete budget of a phase; batches by task are the streams' own."""
        budget = self._phase_budget(regime, phase)
        batch = budget.batch or 1
        if isinstance(batch, dict):
            batch = max(batch.values())
            budget = Budget(batch=batch).over(budget)
        rows = [self._rows(stream) for stream in streams]
        sizes = list(zip(streams, rows, strict=True))
        source = [n for stream, n in sizes if stream["language"] == self.recipe.source]
        seen = [min(stream["batch"] or batch, n) for stream, n in sizes]
        return resolve_budget(budget, max(source or rows), sum(seen))

    # --- snapshots, averages, choices -----------------------------------------------------------

    def _snapshot(
        self, run: Run, phase: Phase, trained: str | None, which: str | int
    ) -> str | None:
        """The stage that gives a snapshot of a phase; the phase's own stage for its last."""
        if which == "last" or trained is None:
            return trained
        at = (run.regime.name, phase.name, run.task, run.target, trained, which)
        if at not in self.snapshots:
            self.snapshots[at] = self._choose(run, phase, trained, which)
        return self.snapshots[at]

    def _choose(self, run: Run, phase: Phase, trained: str, which: str | int) -> str:
        """As `_snapshot`, for another than the last."""
        kept = self.plan.stages[trained].params["budget"].get("snapshots") or 1
        # The last one is the stage's result and goes by no number.
        numbers = [*range(1, kept), None]
        if isinstance(which, int):
            return trained if which >= kept else self._merge({0: trained}, [(0, which)], "average")
        if which == "average":
            return self._merge({0: trained}, [(0, n) for n in numbers], "average")
        language, split = (
            (run.target, "test") if which == "oracle" else (self.recipe.source, "validation")
        )
        scores = [self._evaluate(run, phase, language, trained, split, n) for n in numbers]
        metric = self.corpus.task(run.task).primary
        return self._merge({0: trained}, [(0, n) for n in numbers], "best", scores, metric)

    def _merge(
        self,
        of: Mapping[int, str],
        members: list[tuple[int, int | None]],
        how: str,
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
        of_what = self.plan.labels[of[0]]
        return self.plan.add(Stage("merge", params, inputs), f"{how} of {len(members)}: {of_what}")

    # --- language adapters ----------------------------------------------------------------------

    def _wear(
        self, run: Run, phase: Phase, language: str, inputs: dict[str, str], turn: bool = True
    ) -> str | list[str] | None:
        """What batches of a language wear, made inputs: a name, several in turn, or nothing.

        With ``turn`` false, as in evaluation, a language that would wear several in turn wears
        its own.
        """
        wanted = self.recipe.language_adapters
        if wanted is None or phase.wear == "none":
            return None
        if phase.wear == "pair":
            pair = (self.recipe.source, run.target)
            return self._adapter(run.regime, "+".join(dict.fromkeys(pair)), inputs)
        if phase.wear == "source":
            return self._adapter(run.regime, self.recipe.source, inputs)
        if phase.wear == "own" or not turn:
            return self._adapter(run.regime, language, inputs)
        words = phase.wear if isinstance(phase.wear, tuple) else ("source", "targets")
        spoken = dict.fromkeys(c for w in words for c in self.recipe.members(w, "", run.target))
        return [self._adapter(run.regime, code, inputs) for code in spoken]

    def _adapter(self, regime: Regime, name: str, inputs: dict[str, str]) -> str:
        """Make a language adapter (``xx``, or ``xx+yy`` for a bilingual one) an input."""
        wanted = self.recipe.language_adapters
        assert wanted is not None
        spec = self.recipe.language_adapter(regime)
        assert spec is not None
        if (spec, name) not in self.language_keys:
            parts = wanted.combine.get(name)
            if parts is None:
                key = self._language_adapter(spec, name)
            else:
                of = {i: self._language_adapter(spec, code) for i, code in enumerate(parts)}
                members: list[tuple[int, int | None]] = [(i, None) for i in of]
                key = self._merge(of, members, "sum", weights=list(parts.values()))
            self.language_keys[spec, name] = key
        inputs[f"language:{name}"] = self.language_keys[spec, name]
        return name

    def _language_adapter(self, spec: AdapterSpec, name: str) -> str:
        if name in self.adoptions.languages:
            adoption = self.adoptions.languages[name]
            return self._adopt(adoption, f"adopt language {name} from {adoption.label}")
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
                    "limit": limit if limit is not None and _cuts(limit, info) else None,
                }
            )
        params = {
            **self.common,
            "objective": "mlm",
            "streams": streams,
            "adapter": self._resolved(spec),
            "mask": wanted.mask,
            "shortcuts": self.recipe.shortcuts.of("corpus_softmax"),
            "budget": self._language_budget(list(rows.values())),
            "seed": wanted.seed,
        }
        stage = Stage("train", params, dict(self.base))
        return self.plan.add(stage, f"language adapter {name}")

    def _language_budget(self, rows: list[int]) -> dict[str, Any]:
        budget = self.recipe.language_budget()
        assert isinstance(budget.batch, int)
        return resolve_budget(budget, max(rows), sum(min(budget.batch, n) for n in rows))

    # --- evaluation -----------------------------------------------------------------------------

    def _evaluate(
        self,
        run: Run,
        phase: Phase,
        language: str,
        trained: str | None,
        split: str = "test",
        snapshot: int | None = None,
    ) -> str:
        task = self.corpus.task(run.task)
        inputs = dict(self.base) if trained is None else {**self.base, "trained": trained}

        def read(code: str, split: str, limit: int | None, side: str | None = None) -> Any:
            info = self.corpus.info(run.task, code, split)
            self.plan.data[info.digest] = info
            return {
                "task": run.task,
                "language": code,
                "split": split,
                "data": info.digest,
                "limit": limit if limit is not None and _cuts(limit, info) else None,
                "wear": self._wear(run, phase, code, inputs, turn=False),
                "side": side,
            }

        limit = self.recipe.limits.test
        data = read(language, split, limit)
        pool = None
        if task.kind == "retrieval":
            # The other side of each row is in the source language.
            wear = self._wear(run, phase, self.recipe.source, inputs, turn=False)
            pool = [{**data, "wear": wear, "side": task.label}]
        elif task.kind == "ranking" and split == "test":
            spoken = task.pool or (self.recipe.source, *self.recipe.targets_of(run.task))
            there = [c for c in spoken if self.corpus.has(run.task, c, "candidates")]
            pool = [read(code, "candidates", None) for code in there]
        params = {
            **self.common,
            "data": data,
            "pool": pool,
            "options": task.options or None,
            "metrics": list(task.metrics),
            "snapshot": snapshot,
            "drop": run.regime.evaluation_drop,
        }
        at = f" snapshot {snapshot} of" if snapshot else ""
        of = "the backbone" if trained is None else self.plan.labels[trained]
        label = f"evaluate{at} {of} on {run.task} {language}"
        return self.plan.add(Stage("evaluate", params, inputs), label)


def _cuts(limit: int, info: DataInfo) -> bool:
    """Whether a limit leaves rows out, as far as is known."""
    return limit < info.rows or not info.exact


def _sampling(phase: Phase) -> dict[str, Any] | None:
    """How batches are drawn, as it enters a key; nothing for balanced."""
    if isinstance(phase.sampling, str):
        return None if phase.sampling == "balanced" else {"kind": phase.sampling}
    return {"kind": "temperature", "t": phase.sampling.temperature}
