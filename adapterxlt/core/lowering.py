"""Lowering: a recipe and what its data are become a plan of distinct stages.

Pure: the same recipe on the same bytes gives the same keys. Rows are never read here; a `Corpus`
says how many there are and what their digest is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from adapterxlt.core.adoption import Adoptions
from adapterxlt.core.adoption_stage import adopt_stage
from adapterxlt.core.canon import Shared
from adapterxlt.core.demands import cells_of
from adapterxlt.core.plan import BackboneInfo, Cell, Plan, Stage
from adapterxlt.core.recipe import Recipe
from adapterxlt.core.regimes import Regime
from adapterxlt.core.specs import Budget, resolve_budget
from adapterxlt.core.stages import Corpus, LanguageStages, cuts, merge
from adapterxlt.core.steps import Lesson, Read, Step, step_of


def lower(
    recipe: Recipe, corpus: Corpus, backbone: BackboneInfo, adoptions: Adoptions | None = None
) -> Plan:
    """The plan of a recipe: every cell's stages, equal stages once, in a fixed order."""
    return _Lowering(recipe, corpus, backbone, adoptions or Adoptions()).plan


@dataclass(frozen=True, slots=True)
class Run:
    """What a chain of stages is trained for: a regime on a task with its shots and its seeds."""

    regime: Regime
    steps: Mapping[int, Step]
    """Those of the regime's phases that the last one needs, by index; the last one last."""
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
            "backbone": Shared(backbone.digests) if backbone.digests else None,
            "max_length": recipe.max_length,
            "precision": recipe.precision,
        }
        if backbone.pretraining is not None:
            stage = Stage("pretrain", dict(backbone.pretraining))
            self.base["backbone"] = self.plan.add(stage, f"pretrain {backbone.name}")
        language = LanguageStages(
            recipe, corpus, backbone, adoptions, self.plan, self.base, self.common
        )
        # What does not differ between cells is lowered once: most of a large plan is such.
        self.phases: dict[tuple[Any, ...], str | None] = {}
        self.snapshots: dict[tuple[Any, ...], str] = {}
        self.lesson, self.reads = cache(self._lesson), cache(self._reads)
        self.stream, self.heads = cache(self._stream), cache(self._heads)
        self.budget, self.scored = cache(self._budget), cache(self._scored)
        self.worn = cache(language.worn)
        for regime in recipe.regime_list:
            steps = {task: self._steps(regime, task) for task in recipe.tasks}
            for task, shots, draw, seed in cells_of(recipe, regime):
                self._regime(Run(regime, steps[task], task, recipe.source, shots, draw, seed))

    def _steps(self, regime: Regime, task: str) -> dict[int, Step]:
        layers = self.backbone.shape.layers
        return {
            i: step_of(self.recipe, self.adoptions, regime, i, task, layers) for i in regime.needed
        }

    def _regime(self, run: Run) -> None:
        regime, steps, task = run.regime, run.steps, run.task
        per_target = regime.per_target
        roles = [(target, "target") for target in self.recipe.targets_of(task)]
        if not per_target and self.recipe.scores_source(task):
            roles = [(self.recipe.source, "source"), *roles]
        last = steps[len(regime.phases) - 1]
        trained: str | None = None
        for n, (language, role) in enumerate(roles):
            if n == 0 or per_target:
                run = Run(regime, steps, task, language, run.shots, run.draw, run.seed)
                trained = self._train(run)
            cell = Cell(task, regime.name, language, run.shots, run.draw, run.seed, role)
            self.plan.cells[cell] = self._evaluate(last, run.target, language, trained)

    # --- the stages that train one cell ---------------------------------------------------------

    def _train(self, run: Run) -> str | None:
        """The stages of a regime's phases; the key of what is evaluated, if anything is trained."""
        done: dict[int, str | None] = {}
        shared: list[Any] = [run.regime.name, run.task, run.seed]
        for i, step in run.steps.items():
            if step.per_target:
                shared.append(run.target)
            if step.sampled:
                shared.append(("shots", run.shots, run.draw))
            at = (i, *shared)
            if at not in self.phases:
                self.phases[at] = self._phase(run, step, done)
            done[i] = self.phases[at]
        phases, finish = run.regime.phases, run.regime.finish
        last = len(phases) - 1
        if not isinstance(finish, dict):
            return self._snapshot(run, run.steps[last], done[last], finish)
        # The last phase first: its heads are the sum's.
        order = sorted((i for i, p in enumerate(phases) if p.name in finish), reverse=True)
        of = {n: self._there(done[i]) for n, i in enumerate(order)}
        weights = [finish[phases[i].name] for i in order]
        return merge(self.plan, of, [(n, None) for n in of], "sum", weights=weights)

    @staticmethod
    def _there(key: str | None) -> str:
        """What `core.checks` has made sure of: that something was trained."""
        assert key is not None, "a sum or a fusion of nothing"
        return key

    def _phase(self, run: Run, step: Step, done: Mapping[int, str | None]) -> str | None:
        """The stage of a phase; of one that has nothing to train on, that of the one before."""
        phase, before = step.phase, step.before
        inputs = dict(self.base)
        if phase.adopt:
            adoption = self.adoptions.of_phase(phase.adopt, run.task)
            own = self.corpus.task(run.task)
            stage = adopt_stage(adoption, self.backbone, self.base, own)
            return self.plan.add(stage, f"adopt {run.task} from {adoption.label}")
        if not step.parts:
            return done[before[0]] if before else None
        if phase.adapter == "fuse":
            inputs |= {f"fuse:{n}": self._there(done[j]) for n, j in enumerate(before)}
        elif before:
            role = "below" if phase.adapter == "stack" else "previous"
            key = self._snapshot(run, run.steps[before[0]], done[before[0]], phase.start)
            inputs |= {role: key} if key is not None else {}
        kept = done[step.head_from] if step.head_from is not None else None
        if kept is not None:
            inputs["heads"] = kept
        goes_on = next((inputs[r] for r in ("previous", "below", "fuse:0") if r in inputs), None)
        inherits = goes_on is not None or kept is not None
        after = f" after {self.plan.labels[goes_on].split()[0]}" if goes_on is not None else ""
        lesson = self.lesson(step, run.target, run.shots, run.draw)
        inputs |= lesson.worn
        params = {
            **self.common,
            **lesson.params,
            "head": phase.heads if inherits and phase.heads != "keep" else None,
            "seed": run.seed,
        }
        label = f"{lesson.title}{after} {lesson.about}, seed {run.seed}"
        runs = [
            self.plan.add(
                Stage("train", {**params, "run": n or None}, inputs), label + f", run {n}" * (n > 0)
            )
            for n in range(phase.runs)
        ]
        if len(runs) == 1:
            return runs[0]
        members: list[tuple[int, int | None]] = [(n, None) for n in range(len(runs))]
        return merge(self.plan, dict(enumerate(runs)), members, "average")

    def _lesson(self, step: Step, target: str, shots: int, draw: int | None) -> Lesson:
        """What a step is trained on: its streams, heads and budget."""
        reads, worn = self.reads(step, target)
        streams = []
        for read in reads:
            whole = read.shots == "all" or read.language == self.recipe.source
            count = None if whole else shots if read.shots == "grid" else read.shots
            streams.append(self.stream(read, count, None if whole else draw))
        params = {
            **step.params,
            "streams": streams,
            "heads": self.heads(tuple(sorted({stream["task"] for stream in streams}))),
            "budget": self.budget(step, *self._lengths(step, streams)),
        }
        phase = step.phase
        how = "" if phase.objective == "macro" else f" ({phase.objective})"
        words = dict.fromkeys(w for _, words, _ in phase.parts for w in words)
        tasks = dict.fromkeys(t for w in phase.tasks for t in self.recipe.tasks_of(w, step.task))
        who = "+".join(target if word == "target" else word for word in words)
        sampled = phase.foreign_shots - {"all"}
        number = shots if "grid" in sampled else "+".join(map(str, sorted(sampled, key=str)))
        sample = f", {number} shots, draw {draw}" if sampled else ""
        about = f"{'+'.join(tasks)} {who}{sample}"
        return Lesson(params, worn, f"{phase.name}{how}", about)

    def _heads(self, tasks: tuple[str, ...]) -> Shared:
        return Shared({task: self.corpus.task(task).head for task in tasks})

    def _reads(self, step: Step, target: str) -> tuple[list[Read], dict[str, str]]:
        """What a step reads, each task and language once; and the adapters that are worn."""
        reads: dict[tuple[str, str], Read] = {}
        inputs: dict[str, str] = {}
        batch = step.budget.batch
        for task, word, words, shots in step.parts:
            spoken = [c for w in words for c in self.recipe.members(w, task, target)]
            spoken = [c for c in dict.fromkeys(spoken) if (task, c) not in reads]
            for language in spoken:
                wear, worn = self.worn(step, language, target)
                inputs |= worn
                # Tasks weigh the same, however many languages they are in.
                share = len(spoken) if len(step.parts) > 1 else 1
                weight = step.phase.weights.get(word, 1.0) / share
                reads[task, language] = Read(
                    task,
                    language,
                    shots,
                    wear,
                    None if weight == 1.0 else weight,
                    batch[word] if isinstance(batch, dict) else None,
                )
        return list(reads.values()), inputs

    def _stream(self, read: Read, shots: int | None, draw: int | None) -> Shared:
        """One language's data of a task: a sample of shots, or all."""
        task, language = read.task, read.language
        source = language == self.recipe.source
        split = "train" if source else self.corpus.shots_split(task, language)
        info = self.corpus.info(task, language, split)
        self.plan.data[info.digest] = info
        limit = self.recipe.limits.train
        stream: dict[str, Any] = {
            "task": task,
            "language": language,
            "split": split,
            "data": info.digest,
        }
        if shots is not None:
            stream |= {"shots": shots, "draw": draw}
        elif cuts(limit, info):
            stream["limit"] = limit
        own = {"wear": read.wear, "weight": read.weight, "batch": read.batch}
        return Shared({**stream, **own})

    def _rows(self, stream: Mapping[str, Any]) -> int:
        """How many rows a stream has."""
        return int(
            stream.get("shots") or stream.get("limit") or self.plan.data[stream["data"]].rows
        )

    def _lengths(self, step: Step, streams: list[Shared]) -> tuple[int, int]:
        """Rows of the longest stream, the source's where there is one; and rows of a step."""
        batch = step.budget.batch or 1
        if isinstance(batch, dict):
            batch = max(batch.values())
        rows = [self._rows(stream) for stream in streams]
        sizes = list(zip(streams, rows, strict=True))
        source = [n for stream, n in sizes if stream["language"] == self.recipe.source]
        seen = [min(stream["batch"] or batch, n) for stream, n in sizes]
        return max(source or rows), sum(seen)

    def _budget(self, step: Step, longest: int, per_step: int) -> Shared:
        """The complete budget of a step; batches by task are the streams' own."""
        budget = step.budget
        if isinstance(budget.batch, dict):
            budget = Budget(batch=max(budget.batch.values())).over(budget)
        return Shared(resolve_budget(budget, longest, per_step))

    # --- snapshots, averages, choices -----------------------------------------------------------

    def _snapshot(self, run: Run, step: Step, trained: str | None, which: str | int) -> str | None:
        """The stage that gives a snapshot of a phase; the phase's own stage for its last."""
        if which == "last" or trained is None:
            return trained
        at = (step, run.target, trained, which)
        if at not in self.snapshots:
            self.snapshots[at] = self._choose(step, run.target, trained, which)
        return self.snapshots[at]

    def _choose(self, step: Step, target: str, trained: str, which: str | int) -> str:
        """As `_snapshot`, for another than the last."""
        kept = self.plan.stages[trained].params["budget"].get("snapshots") or 1
        if isinstance(which, int) and which >= kept:
            return trained
        # The last one is the stage's result and goes by no number.
        numbers = [which] if isinstance(which, int) else [*range(1, kept), None]
        of, members = {0: trained}, [(0, n) for n in numbers]
        if isinstance(which, int) or which == "average":
            return merge(self.plan, of, members, "average")
        language, split = (
            (target, "test") if which == "oracle" else (self.recipe.source, "validation")
        )
        scores = [self._evaluate(step, target, language, trained, split, n) for n in numbers]
        metric = self.corpus.task(step.task).primary
        return merge(self.plan, of, members, "best", scores=scores, metric=metric)

    # --- evaluation -----------------------------------------------------------------------------

    def _evaluate(
        self,
        step: Step,
        target: str,
        language: str,
        trained: str | None,
        split: str = "test",
        snapshot: int | None = None,
    ) -> str:
        params, worn = self.scored(step, target, language, split)
        inputs = dict(self.base) if trained is None else {**self.base, "trained": trained}
        at = f" snapshot {snapshot} of" if snapshot else ""
        of = "the backbone" if trained is None else self.plan.labels[trained]
        label = f"evaluate{at} {of} on {step.task} {language}"
        stage = Stage("evaluate", {**params, "snapshot": snapshot}, inputs | worn)
        return self.plan.add(stage, label)

    def _scored(
        self, step: Step, target: str, language: str, split: str
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """What a step is scored on, whatever the shots; and the adapters that are worn."""
        task = self.corpus.task(step.task)
        inputs: dict[str, str] = {}

        def wear(code: str) -> str | list[str] | None:
            nonlocal inputs
            name, worn = self.worn(step, code, target, False)
            inputs |= worn
            return name

        def read(code: str, split: str, limit: int | None) -> Shared:
            info = self.corpus.info(step.task, code, split)
            self.plan.data[info.digest] = info
            return Shared(
                {
                    "task": step.task,
                    "language": code,
                    "split": split,
                    "data": info.digest,
                    "limit": limit if cuts(limit, info) else None,
                    "wear": wear(code),
                    "side": None,
                }
            )

        data = read(language, split, self.recipe.limits.test)
        pool = None
        if task.kind == "retrieval":
            # The other side of each row is in the source language.
            side = {"wear": wear(self.recipe.source), "side": task.label}
            pool = [Shared({**data, **side})]
        elif task.kind == "ranking" and split == "test":
            spoken = task.pool or (self.recipe.source, *self.recipe.targets_of(step.task))
            there = [c for c in spoken if self.corpus.has(step.task, c, "candidates")]
            pool = [read(code, "candidates", None) for code in there]
        params = {
            **self.common,
            "data": data,
            "pool": pool,
            "options": Shared(task.options) if task.options else None,
            "metrics": list(task.metrics),
            "drop": step.regime.evaluation_drop,
        }
        return params, inputs
