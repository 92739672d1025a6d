"""A study: a valid recipe with its data, backbone, plan and store, ready to be looked at or run.

Opening one checks everything that can be checked before anything is computed, and imports no torch.
The command line and library users work through it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from adapterxlt.core import cost
from adapterxlt.core.adapters import AdapterSpec
from adapterxlt.core.canon import digest
from adapterxlt.core.demands import demands, worn_languages
from adapterxlt.core.errors import DataError, Fault, RecipeError, UsageError
from adapterxlt.core.loading import LoadedRecipe, load_recipe
from adapterxlt.core.lowering import BackboneInfo, lower
from adapterxlt.core.plan import Cell, Plan
from adapterxlt.core.recipe import Recipe
from adapterxlt.corpora.backbones import folder_backbone, lab_backbone
from adapterxlt.corpora.hub import HubSplit, Shelf
from adapterxlt.corpora.reading import Reading
from adapterxlt.corpora.sources import Corpus, LabCorpus
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
    corpus: Corpus | LabCorpus
    backbone: BackboneInfo
    plan: Plan
    places: Places
    fetched: list[HubSplit] = field(default_factory=list)
    """What came from hubs for it, since it was opened or so that it could be."""

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
        fetch: bool = False,
        num_proc: int = 1,
        listener: Callable[[str], None] | None = None,
    ) -> Study:
        """Read a recipe, check it against its data and backbone, and plan it.

        Args:
            recipe: a file, or one already loaded.
            store: folder of finished stages; see `store_root`.
            data: `lab`, `hub` or a data folder, in place of the recipe's.
            backbone: `lab` or a backbone folder, in place of the recipe's.
            overrides: ``key=value`` changes of the recipe.
            fetch: whether what tells the labels of a task is fetched, where the task names none and
                is on a hub; without it such a task is a fault until that was fetched. The rest can
                wait for `fetch` of the opened study.
            num_proc: as of `fetch`.
            listener: as of `fetch`.

        Raises:
            RecipeError: every fault of the recipe or of the data it needs.
            UsageError: a folder that is missing or not what it should be.
            AdapterXLTError: with ``fetch``, as `run.hub.fetch`.
        """
        loaded = recipe if isinstance(recipe, LoadedRecipe) else load_recipe(recipe, overrides)
        data = _data(data, loaded)
        backbone = _place("backbone", backbone, loaded)
        opened = Store(store_root(store))
        reading = Reading.of(loaded.recipe, data, loaded.folder)
        corpus = reading.open(opened, opened.root)
        info = lab_backbone() if backbone == "lab" else folder_backbone(Path(backbone), opened)
        fetched: list[HubSplit] = []
        if fetch and isinstance(corpus, Corpus):
            names = dict.fromkeys((*loaded.recipe.tasks, *loaded.recipe.intermediate))
            wanted = [split for name in names for split in corpus.labels_from(name)]
            fetched = _fetch(wanted, opened.root, num_proc, listener)
        faults = data_faults(loaded, corpus)
        faults += _spec_faults(loaded, info)
        if faults:
            raise RecipeError(dict.fromkeys(faults))
        plan = lower(loaded.recipe, corpus, info)
        places = Places(opened.root, reading, backbone)
        return cls(loaded, opened, corpus, info, plan, places, fetched)

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
        num_proc: int = 1,
        listener: Listener | None = None,
        pool: Pool | None = None,
    ) -> Outcome:
        """Compute what the store lacks. ``workers=0`` computes in this process.

        Data that are on a hub are fetched first.
        """
        self.places = replace(
            self.places,
            threads=threads,
            device=device,
            micro_batch=micro_batch,
            snapshot_every=snapshot_every,
            num_proc=num_proc,
        )
        self._remember()
        if not self.plan.needed(self.done()):
            return Outcome()
        self.fetch(num_proc=num_proc)
        if pool is None:
            pool = ProcessPool(workers) if workers > 0 else SerialPool()
        events = self.store.root / "notes" / "events" / f"{self.recipe.name}.jsonl"
        return execute(self.plan, self.store, pool, self.request, listener=listener, events=events)

    def hub_splits(self) -> list[HubSplit]:
        """What the stages that are not done read from hubs and the store has not got, sorted."""
        found: set[HubSplit] = set()
        for key in self.plan.needed(self.done()):
            params = self.plan.stages[key].params
            reads = [*params.get("streams", ()), params.get("data"), *(params.get("pool") or ())]
            for data in reads:
                if data is not None and isinstance(self.corpus, Corpus):
                    found |= set(self.corpus.wanted(data["task"], data["language"], data["split"]))
        return _missing(found, self.store.root)

    def fetch(
        self, *, num_proc: int = 1, listener: Callable[[str], None] | None = None
    ) -> list[HubSplit]:
        """Fetch what is on hubs and not here; all that was fetched for the study, also before.

        Raises:
            AdapterXLTError: as `run.hub.fetch`.
        """
        self.fetched += _fetch(self.hub_splits(), self.store.root, num_proc, listener)
        return self.fetched

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


def _missing(splits: Iterable[HubSplit], root: Path) -> list[HubSplit]:
    """Those that were not fetched, sorted."""
    shelf = Shelf(root)
    return sorted(split for split in set(splits) if not shelf.has(split))


def _fetch(
    splits: Iterable[HubSplit],
    root: Path,
    num_proc: int,
    listener: Callable[[str], None] | None,
) -> list[HubSplit]:
    """Fetch those that are not here; the hub's clients are imported only if there are any."""
    missing = _missing(splits, root)
    if missing:
        from adapterxlt.run import hub

        hub.fetch(missing, root, num_proc=num_proc, listener=listener)
    return missing


def _data(given: str | None, loaded: LoadedRecipe) -> str | None:
    """Where rows come from; nothing when the recipe's own files are all that is read."""
    recipe = loaded.recipe
    if "hub" in (given, recipe.data if given is None else None):
        return "hub"
    if given is None and recipe.data is None:
        tasks = (recipe.task(name) for name in (*recipe.tasks, *recipe.intermediate))
        text = recipe.language_adapters is None or recipe.language_adapters.places
        if text and all(any(place.files for place in task.places) for task in tasks):
            return None
    return _place("data", given, loaded)


def _place(what: str, given: str | None, loaded: LoadedRecipe) -> str:
    """The data or backbone of a study: the option's, else the recipe's."""
    if given is not None:
        return given if given == "lab" else str(Path(given).absolute())
    written: str | None = getattr(loaded.recipe, what)
    if written is None:
        recipe, hint = loaded.recipe, f"give --{what} DIR"
        tasks = (recipe.task(name) for name in (*recipe.tasks, *recipe.intermediate))
        if what == "data" and any(place.hub for task in tasks for place in task.places):
            hint += ", or say data: hub"
        raise UsageError(f"the recipe names no {what}", where=loaded.document.name, hint=hint)
    return written if written == "lab" else str((loaded.folder / written).absolute())


def data_faults(loaded: LoadedRecipe, corpus: Corpus | LabCorpus) -> list[Fault]:
    """Everything the recipe asks of the data that is not there, each at its line."""
    return _DataFaults(loaded, corpus).found


class _DataFaults:
    """Goes through what a recipe reads, and notes what is not there."""

    def __init__(self, loaded: LoadedRecipe, corpus: Corpus | LabCorpus) -> None:
        self.loaded, self.recipe, self.corpus = loaded, loaded.recipe, corpus
        self.found: list[Fault] = []
        #: Said once of a language that it has nothing.
        self.absent: set[tuple[str, str]] = set()
        #: What of a task is wrong was said; the rest would only follow from it.
        self.unread: set[str] = set()
        for task in dict.fromkeys((*self.recipe.tasks, *self.recipe.intermediate)):
            before = len(self.found)
            with self.noted(*self.task_at(task)):
                corpus.task(task)
            if len(self.found) > before:
                self.unread.add(task)
            elif task in self.recipe.tasks:
                self.task(task)
        self.training()
        self.epochs()
        self.texts()

    @contextmanager
    def noted(self, *path: str | int) -> Iterator[None]:
        try:
            yield
        except DataError as error:
            what = f"{error.what} ({error.where})" if error.where else error.what
            # What is wrong with a place is so wherever the place is read.
            if all(fault.what != what for fault in self.found):
                self.found.append(Fault(what, self.loaded.where(*path), error.hint))

    def task_at(self, task: str) -> tuple[str | int, ...]:
        """Where a task stands in the recipe."""
        if task in self.recipe.datasets:
            return ("datasets", task)
        if task in self.recipe.tasks:
            return ("tasks", self.recipe.tasks.index(task))
        return ("intermediate", task)

    def language_at(self, task: str, language: str) -> tuple[str | int, ...] | None:
        """Where a language stands in the recipe, as source or target."""
        targets = self.recipe.targets
        if language == self.recipe.source:
            return ("source",)
        if language not in self.recipe.targets_of(task):
            return None
        if isinstance(targets, dict):
            listed = targets.get(task, ())
            return ("targets", task, listed.index(language)) if language in listed else ("targets",)
        return ("targets", targets.index(language)) if isinstance(targets, tuple) else ("targets",)

    def task(self, task: str) -> None:
        """What a task is trained on in the source, and scored on."""
        recipe, corpus, spec = self.recipe, self.corpus, self.corpus.task(task)
        regimes = recipe.regime_list
        if spec.trains:
            starts = (s for r in regimes for s in (r.finish, *(p.start for p in r.phases)))
            with self.noted("source"):
                corpus.info(task, recipe.source, "train")
                if "source-dev" in starts:
                    corpus.info(task, recipe.source, "validation")
        scored = list(recipe.targets_of(task))
        if recipe.scores_source(task) and not all(r.per_target for r in regimes):
            scored.append(recipe.source)
        for language in scored:
            before = len(self.found)
            with self.noted(*(self.language_at(task, language) or ("targets",))):
                corpus.info(task, language, "test")
            if len(self.found) > before:
                self.absent.add((task, language))
        if spec.kind == "ranking":
            pool = spec.pool or (recipe.source, *recipe.targets_of(task))
            if not any(corpus.has(task, language, "candidates") for language in pool):
                what = f"{task}: no language of the recipe has candidates to search"
                self.found.append(Fault(what, self.loaded.where(*self.task_at(task))))

    def epochs(self) -> None:
        """Epochs are as long as data are: what phases read whole must have a size before it is
        fetched."""
        recipe = self.recipe
        for i, regime in enumerate(recipe.regime_list):
            phases = (regime.phases[j] for j in regime.needed)
            counted = (p for p in phases if recipe.phase_budget(regime, p).epochs)
            parts = [(own, *part) for p in counted for part in p.parts for own in recipe.tasks]
            unsized = (
                name
                for own, word, words, shots in parts
                for name in recipe.trained_on(word, own)
                for target in recipe.targets_of(own)
                for language in (c for w in words for c in recipe.members(w, name, target))
                if language == recipe.source or shots == "all"
                if name not in self.unread and not self.sized(name, language)
            )
            for task in dict.fromkeys(unsized):
                what = f"regime {regime.name!r} counts epochs, and {task!r} does not say its size"
                hint = "add rows: {train: N} to its place, or give steps"
                self.found.append(Fault(what, self.loaded.where("regimes", i), hint))

    def sized(self, task: str, language: str) -> bool:
        """Whether the size of what is trained on is known; what is not there is told elsewhere."""
        corpus = self.corpus
        try:
            source = language == self.recipe.source
            split = "train" if source else corpus.shots_split(task, language)
            return corpus.info(task, language, split).exact
        except DataError:
            return True

    def training(self) -> None:
        """What regimes train on besides."""
        recipe, corpus = self.recipe, self.corpus
        order = [regime.name for regime in recipe.regime_list]
        for name, task, language, shots in dict.fromkeys(
            (regime.name, task, language, shots)
            for regime, task, language, shots in demands(recipe)
        ):
            regime_at = ("regimes", order.index(name))
            if task in self.unread or (task, language) in self.absent:
                continue
            listed = language in recipe.intermediate.get(task, ())
            at = ("intermediate", task) if listed else self.language_at(task, language)
            with self.noted(*(at or regime_at)):
                if language == recipe.source:
                    corpus.info(task, language, "train")
                    continue
                split = corpus.shots_split(task, language)
                have = corpus.info(task, language, split)
                wanted = enumerate(recipe.shots) if shots == "grid" else ((None, shots),)
                for i, count in wanted:
                    if isinstance(count, int) and count > have.rows and have.exact:
                        of = f"{task} has {have.rows} {split} rows in {language!r}"
                        where = self.loaded.where(*(regime_at if i is None else ("shots", i)))
                        hint = f"take {have.rows} or fewer"
                        self.found.append(Fault(f"{count} shots, but {of}", where, hint))

    def texts(self) -> None:
        """Text of the language adapters."""
        wanted = self.recipe.language_adapters
        for language in worn_languages(self.recipe) if wanted is not None else ():
            at = next(
                (at for t in self.recipe.tasks if (at := self.language_at(t, language))),
                ("language_adapters",),
            )
            with self.noted(*at):
                size = self.corpus.text_info(language, wanted.texts if wanted is not None else None)
                if not size.exact and self.recipe.language_budget().epochs:
                    what = f"epochs are counted, and the text of {language!r} does not say its size"
                    hint = "add rows: {train: N} to its place, or give steps"
                    at = ("language_adapters",)
                    self.found.append(Fault(what, self.loaded.where(*at), hint))


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
        for name, what, hint in spec.faults(backbone.shape):
            yield Fault(what, loaded.where(*path, name), hint)
