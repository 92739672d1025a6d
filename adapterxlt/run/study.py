"""A study: a valid recipe with its data, backbone, plan and store, ready to be looked at or run.

Opening one checks everything that can be checked before anything is computed, and imports no torch.
The command line and library users work through it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from adapterxlt.core import cost
from adapterxlt.core.adapters import AdapterSpec
from adapterxlt.core.canon import digest
from adapterxlt.core.demands import demands, worn_languages
from adapterxlt.core.errors import DataError, Fault, RecipeError, UsageError
from adapterxlt.core.lowering import BackboneInfo, lower
from adapterxlt.core.plan import Cell, Plan
from adapterxlt.core.recipe import LoadedRecipe, Recipe, load_recipe
from adapterxlt.corpora.backbones import folder_backbone, lab_backbone
from adapterxlt.corpora.sources import FolderCorpus, LabCorpus
from adapterxlt.run.desk import Places
from adapterxlt.run.pools import Pool, ProcessPool, SerialPool
from adapterxlt.run.scheduler import Listener, Outcome, execute
from adapterxlt.run.worker import Request
from adapterxlt.store.store import Store

DEFAULT_STORE = ".adapterxlt"


def store_root(given: str | Path | None = None) -> Path:
    """The store's folder: as given, from ADAPTERXLT_STORE, or ``.adapterxlt`` here."""
    return Path(given or os.environ.get("ADAPTERXLT_STORE") or DEFAULT_STORE)


@dataclass
class Study:
    """A recipe made ready. ``open`` is the way to get one."""

    loaded: LoadedRecipe
    store: Store
    corpus: FolderCorpus | LabCorpus
    backbone: BackboneInfo
    plan: Plan
    places: Places

    @property
    def recipe(self) -> Recipe:
        return self.loaded.recipe

    @classmethod
    def open(
        cls,
        recipe: LoadedRecipe | str | Path,
        *,
        store: str | Path | None = None,
        data: str | None = None,
        backbone: str | None = None,
        overrides: Sequence[str] = (),
    ) -> Study:
        """Read a recipe, check it against its data and backbone, and plan it.

        Args:
            recipe: a file, or one already loaded.
            store: folder of finished stages; see `store_root`.
            data: `lab` or a data folder, in place of the recipe's.
            backbone: `lab` or a backbone folder, in place of the recipe's.
            overrides: ``key=value`` changes of the recipe.

        Raises:
            RecipeError: every fault of the recipe or of the data it needs.
            UsageError: a folder that is missing or not what it should be.
        """
        loaded = recipe if isinstance(recipe, LoadedRecipe) else load_recipe(recipe, overrides)
        data = _place("data", data, loaded)
        backbone = _place("backbone", backbone, loaded)
        opened = Store(store_root(store))
        corpus = LabCorpus() if data == "lab" else FolderCorpus(Path(data), opened)
        info = lab_backbone() if backbone == "lab" else folder_backbone(Path(backbone), opened)
        faults = data_faults(loaded, corpus)
        faults += _spec_faults(loaded, info)
        if faults:
            raise RecipeError(dict.fromkeys(faults))
        plan = lower(loaded.recipe, corpus, info)
        places = Places(opened.root, data, backbone)
        return cls(loaded, opened, corpus, info, plan, places)

    def request(self, key: str) -> Request:
        """A stage as it travels to a worker."""
        return Request(key, self.plan.labels[key], self.plan.stages[key], self.places)

    def run(
        self,
        *,
        workers: int = 1,
        threads: int = 1,
        device: str = "cpu",
        micro_batch: int | None = None,
        snapshot_every: float = 20.0,
        listener: Listener | None = None,
        pool: Pool | None = None,
    ) -> Outcome:
        """Compute what the store lacks. ``workers=0`` computes in this process."""
        self.places = replace(
            self.places,
            threads=threads,
            device=device,
            micro_batch=micro_batch,
            snapshot_every=snapshot_every,
        )
        self._remember()
        if not self.plan.needed({key for key in self.plan.stages if key in self.store}):
            return Outcome()
        if pool is None:
            pool = ProcessPool(workers) if workers > 0 else SerialPool()
        events = self.store.root / "notes" / "events" / f"{self.recipe.name}.jsonl"
        return execute(self.plan, self.store, pool, self.request, listener=listener, events=events)

    @cached_property
    def speed(self) -> cost.Rates:
        """Rates for estimates: from finished stages of this plan, else from a calibration."""
        seconds = {}
        for key in self.plan.stages:
            record = self.store.read(key) if key in self.store else None
            if record is not None and not record.facts.get("resumed_at"):
                seconds[key] = float(record.facts["seconds"])
        return cost.rates(self.plan, self.backbone.shape, seconds)

    def work(self, key: str) -> cost.Work:
        return cost.work_of(self.plan.stages[key], self.backbone.shape, self.plan.data)

    def done(self) -> set[str]:
        return {key for key in self.plan.stages if key in self.store}

    def cell(self, **wanted: object) -> tuple[Cell, str]:
        """The first cell with these fields, and its key; ``UsageError`` when there is none."""
        for cell, key in self.plan.cells.items():
            if all(getattr(cell, name) == value for name, value in wanted.items()):
                return cell, key
        asked = ", ".join(f"{name}={value}" for name, value in wanted.items())
        raise UsageError(f"the study has no cell with {asked}", where=self.recipe.name)

    def _remember(self) -> None:
        """Note which study the stages belong to, for `status` and garbage collection."""
        name = digest("study", self.loaded.resolved_text())[:32]
        if self.store.noted("studies", name) is None:
            value = {
                "name": self.recipe.name,
                "recipe": self.loaded.resolved_text(),
                "keys": sorted(self.plan.stages),
            }
            self.store.note("studies", name, value)


def _place(what: str, given: str | None, loaded: LoadedRecipe) -> str:
    """The data or backbone of a study: the option's, else the recipe's."""
    if given is not None:
        return given if given == "lab" else str(Path(given).absolute())
    written: str | None = getattr(loaded.recipe, what)
    if written is None:
        raise UsageError(
            f"the recipe names no {what}", where=loaded.document.name, hint=f"give --{what} DIR"
        )
    return written if written == "lab" else str((loaded.folder / written).absolute())


def data_faults(loaded: LoadedRecipe, corpus: FolderCorpus | LabCorpus) -> list[Fault]:
    """Everything the recipe asks of the data that is not there, each at its line."""
    recipe = loaded.recipe
    faults: list[Fault] = []

    @contextmanager
    def noted(*path: str | int) -> Iterator[None]:
        try:
            yield
        except DataError as error:
            what = f"{error.what} ({error.where})" if error.where else error.what
            faults.append(Fault(what, loaded.where(*path), error.hint))

    places: dict[str, tuple[str | int, ...]] = {recipe.source: ("source",)}
    places |= {target: ("targets", i) for i, target in enumerate(recipe.targets)}
    absent: set[tuple[str, str]] = set()
    source_scored = not all(r.per_target for r in recipe.regime_list)
    chooses = any(
        "source-dev" in (regime.finish, *(phase.start for phase in regime.phases))
        for regime in recipe.regime_list
    )
    for task in recipe.tasks:
        with noted("source"):
            corpus.info(task, recipe.source, "train")
            if chooses:
                corpus.info(task, recipe.source, "validation")
        for language, path in places.items():
            if language != recipe.source or source_scored:
                before = len(faults)
                with noted(*path):
                    corpus.info(task, language, "test")
                # Said once of a language that it has nothing.
                if len(faults) > before:
                    absent.add((task, language))
    order = [regime.name for regime in recipe.regime_list]
    for name, task, language, shots in dict.fromkeys(
        (regime.name, task, language, shots) for regime, task, language, shots in demands(recipe)
    ):
        regime_at = ("regimes", order.index(name))
        if (task, language) in absent:
            continue
        listed = language in recipe.intermediate.get(task, ())
        at = ("intermediate", task) if listed else places.get(language, regime_at)
        with noted(*at):
            if language == recipe.source:
                corpus.info(task, language, "train")
                continue
            split = corpus.shots_split(task, language)
            have = corpus.info(task, language, split).rows
            wanted = enumerate(recipe.shots) if shots == "grid" else ((None, shots),)
            for i, count in wanted:
                if isinstance(count, int) and count > have:
                    what = f"{count} shots, but {task} has {have} {split} rows in {language!r}"
                    where = loaded.where(*(regime_at if i is None else ("shots", i)))
                    faults.append(Fault(what, where, f"take {have} or fewer"))
    if recipe.language_adapters is not None:
        texts = recipe.language_adapters.texts
        for language in worn_languages(recipe):
            with noted(*places.get(language, ("language_adapters",))):
                corpus.text_info(language, texts)
    return faults


def _spec_faults(loaded: LoadedRecipe, backbone: BackboneInfo) -> Iterator[Fault]:
    """What the recipe asks of the backbone that its sizes do not allow."""
    recipe = loaded.recipe
    if backbone.positions is not None and recipe.max_length > backbone.positions:
        what = f"max_length {recipe.max_length} is more than the backbone's positions"
        yield Fault(what, loaded.where("max_length"), f"take {backbone.positions} or fewer")
    specs: dict[tuple[str | int, ...], AdapterSpec] = {("task_adapter",): recipe.task_adapter}
    if recipe.language_adapters is not None:
        specs[("language_adapters", "adapter")] = recipe.language_adapters.adapter
    for i, regime in enumerate(recipe.regime_list):
        of_language = recipe.language_adapter(regime)
        if regime.language_adapter is not None and of_language is not None:
            specs["regimes", i, "language_adapter"] = of_language
        phases = enumerate(regime.phases)
        own = [j for j, phase in phases if phase.task_adapter or regime.task_adapter]
        specs |= {("regimes", i, "phases", j): recipe.phase_adapter(regime, j) for j in own}
    layers = backbone.shape.layers
    for i, regime in enumerate(recipe.regime_list):
        for drop in (regime.drop, *(phase.drop for phase in regime.phases)):
            if isinstance(drop, int) and drop >= layers:
                what = f"regime {regime.name!r} drops {drop} of the backbone's {layers} layers"
                yield Fault(what, loaded.where("regimes", i), f"take {layers - 1} or fewer")
    for path, spec in specs.items():
        for field, what, hint in spec.faults(backbone.shape):
            yield Fault(what, loaded.where(*path, field), hint)
