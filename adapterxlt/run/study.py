"""A study: a valid recipe with its data, backbone, plan and store, ready to be looked at or run.

Opening one checks everything that can be checked before anything is computed, and imports no torch.
The command line and library users work through it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from adapterxlt.core import cost
from adapterxlt.core.adoption import Adoption, Adoptions, digests_of
from adapterxlt.core.errors import RecipeError, UsageError
from adapterxlt.core.loading import LoadedRecipe, load_recipe
from adapterxlt.core.lowering import lower
from adapterxlt.core.plan import BackboneInfo, Cell, Plan
from adapterxlt.core.recipe import Recipe
from adapterxlt.corpora.backbones import check_backbone, folder_backbone, lab_backbone
from adapterxlt.corpora.hub import HubSplit, Shelf
from adapterxlt.corpora.reading import Reading
from adapterxlt.corpora.sources import Corpus, LabCorpus
from adapterxlt.run.adoptions import LockFile, bring, lock_path, resolve
from adapterxlt.run.adoptions import lock as write_lock
from adapterxlt.run.cohorts import cohort_size
from adapterxlt.run.desk import Places
from adapterxlt.run.faults import adoption_faults, data_faults, spec_faults
from adapterxlt.run.keeping import remember
from adapterxlt.run.pools import Pool, ProcessPool, SerialPool
from adapterxlt.run.requests import Request
from adapterxlt.run.scheduler import Listener, Outcome, execute
from adapterxlt.run.worker import agree, environment
from adapterxlt.store.store import Store

DEFAULT_STORE = ".adapterxlt"
#: About so many finished stages of a kind are read for estimates: a record takes a while to check.
SAMPLE = 300


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
    adoptions: Adoptions = field(default_factory=Adoptions)
    fetched: list[HubSplit] = field(default_factory=list)
    """What came from hubs for it, since it was opened or so that it could be."""
    brought: int = 0
    """How many adapters were brought into the store for it."""

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
        lock: str | Path | None = None,
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
            lock: the file that says what references to hubs stand for; see `adoptions.lock_path`.
            fetch: whether what tells the labels of a task is fetched, where the task names none and
                is on a hub; without it such a task is a fault until that was fetched. The rest can
                wait for `fetch` of the opened study.
            num_proc: as of `fetch`.
            listener: as of `fetch`.

        Raises:
            RecipeError: every fault of the recipe or of the data it needs.
            UsageError: a folder that is missing or not what it should be.
            RefusedError: an adapter that is adopted fails a check.
            AdapterXLTError: with ``fetch``, as `run.hub.datasets.fetch`.
        """
        loaded = recipe if isinstance(recipe, LoadedRecipe) else load_recipe(recipe, overrides)
        data = _data(data, loaded)
        backbone = _place("backbone", backbone, loaded)
        opened = Store(store_root(store))
        reading = Reading.of(loaded.recipe, data, loaded.folder)
        corpus = reading.open(opened, opened.root)
        info = backbone_at(backbone, opened)
        fetched: list[HubSplit] = []
        if fetch and isinstance(corpus, Corpus):
            names = dict.fromkeys((*loaded.recipe.tasks, *loaded.recipe.intermediate))
            wanted = [split for name in names for split in corpus.labels_from(name)]
            fetched = _fetch(wanted, opened.root, num_proc, listener)
        adopted = resolve(loaded, info, opened, LockFile.read(Path(lock or lock_path(loaded))))
        faults = data_faults(loaded, corpus, adopted)
        faults += spec_faults(loaded, info)
        faults += adoption_faults(loaded, corpus, adopted)
        if faults:
            raise RecipeError(dict.fromkeys(faults))
        plan = lower(loaded.recipe, corpus, info, adopted)
        places = Places(opened.root, reading, backbone)
        return cls(loaded, opened, corpus, info, plan, places, adopted, fetched)

    @property
    def events(self) -> Path:
        """The log of its runs; see `run.events`."""
        return self.store.root / "notes" / "events" / f"{self.recipe.name}.jsonl"

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
        cohort: int | None = None,
        only: Sequence[str] = (),
        listener: Listener | None = None,
        pool: Pool | None = None,
    ) -> Outcome:
        """Compute what the store lacks, or of that the stages whose keys begin with one of
        ``only``. ``workers=0`` computes in this process; up to ``cohort`` trainings share the
        passes over the backbone (see `cohorts.cohort_size`).

        Data that are on a hub are fetched first.

        Raises:
            UsageError: as `needed`.
        """
        self.places = replace(
            self.places,
            threads=threads,
            device=device,
            micro_batch=micro_batch,
            snapshot_every=snapshot_every,
            num_proc=num_proc,
        )
        # Before anything is looked for, so that nobody collects what is found.
        remember(self.store, self.recipe.name, self.loaded.resolved_text(), self.plan.stages)
        needed = self.needed(only)
        if needed:
            # Nor what is looked at while somebody collects: it is touched, and looked for again.
            self.store.touch(self.done())
            needed = self.needed(only)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            needed = agree(self.places, needed)
        if not needed:
            return Outcome()
        self.check_backbone()
        self.fetch(num_proc=num_proc, only=only)
        about = {"versions": environment(), "rates": dict(self.speed.per_kind)}
        about |= {"only": needed} if only else {}
        if pool is None:
            pool = ProcessPool(workers, threads) if workers > 0 else SerialPool()
        return execute(
            self.plan,
            self.store,
            pool,
            self.request,
            listener=listener,
            events=self.events if os.environ.get("RANK", "0") == "0" else None,
            about=about,
            cohort=cohort_size(cohort, device),
            needed=needed,
        )

    def needed(self, only: Sequence[str] = ()) -> list[str]:
        """Keys to compute, inputs first: what the store lacks of all, or of the stages whose keys
        begin with one of ``only``.

        Raises:
            UsageError: no stage, or several, begin so, or one needs what is not in the store.
        """
        done = self.done()
        if not only:
            return self.plan.needed(done, self.store.lost())
        chosen = {self._key(beginning) for beginning in only} - done
        stages, labels = self.plan.stages, self.plan.labels
        for key in chosen:
            for below in set(stages[key].inputs.values()) - done - chosen:
                what = f"it needs {labels[below]}, which is not in the store"
                where, hint = f"{labels[key]} ({key[:12]})", f"run --only {below[:12]} first"
                raise UsageError(what, where=where, hint=hint)
        return [key for key in stages if key in chosen]

    def _key(self, beginning: str) -> str:
        """The key that begins so."""
        where, word = f"--only {beginning}", beginning.lower()
        if not re.fullmatch(r"[0-9a-f]{6,64}", word):
            raise UsageError("not the beginning of a key", where=where, hint="6 hex digits or more")
        found = [key for key in self.plan.stages if key.startswith(word)]
        if len(found) != 1:
            what = "several stages begin so" if found else "no stage begins so"
            raise UsageError(what, where=where, hint="see adapterxlt plan RECIPE --keys")
        return found[0]

    def memory(self, only: Sequence[str] = ()) -> int:
        """Bytes that a worker should have for what is `needed`; see `cost.memory`."""
        works = (self.work(key) for key in self.needed(only))
        return cost.memory(works, self.backbone.parameters)

    def hub_splits(self, only: Sequence[str] = ()) -> list[HubSplit]:
        """What the stages that are `needed` read from hubs and the store has not got, sorted."""
        found: set[HubSplit] = set()
        for data in self._reads(self.needed(only)):
            if isinstance(self.corpus, Corpus):
                found |= set(self.corpus.wanted(data["task"], data["language"], data["split"]))
        return _missing(found, self.store.root)

    def check_fetched(self) -> None:
        """Read what was fetched from hubs; files are read when a study is opened.

        Raises:
            DataError: the first row that is not what its task says.
        """
        shelf, corpus = Shelf(self.store.root), self.corpus
        if not isinstance(corpus, Corpus):
            return
        reads = {(r["task"], r["language"], r["split"]) for r in self._reads(self.plan.stages)}
        for task, language, split in sorted(reads):
            splits = corpus.wanted(task, language, split)
            if splits and task != "text" and all(shelf.has(one) for one in splits):
                corpus.rows(task, language, split)

    def check_backbone(self) -> None:
        """Look closely at a backbone's folder, whose digests are known by now.

        Raises:
            UsageError: its files do not fit together.
        """
        if self.backbone.pretraining is None:
            check_backbone(Path(self.places.backbone))

    def _reads(self, keys: Iterable[str]) -> Iterator[Mapping[str, Any]]:
        """The data that stages read, with repetitions."""
        for key in keys:
            yield from self.plan.stages[key].reads()

    def fetch(
        self,
        *,
        num_proc: int = 1,
        only: Sequence[str] = (),
        listener: Callable[[str], None] | None = None,
    ) -> list[HubSplit]:
        """Fetch what is on hubs and not here; all that was fetched for the study, also before.
        Adapters that are adopted are brought into the store.

        Raises:
            AdapterXLTError: as `run.hub.datasets.fetch`, and as `needed`.
        """
        self.fetched += _fetch(self.hub_splits(only), self.store.root, num_proc, listener)
        wanted = ((key, self.adopts(key)) for key in self.needed(only))
        some = [(key, one) for key, one in wanted if one is not None]
        tell = listener or (lambda line: None)
        self.brought += bring(self.store, some, self.loaded.folder, tell)
        return self.fetched

    def adopts(self, key: str) -> Adoption | None:
        """What a stage adopts, where it is one that does."""
        stage = self.plan.stages[key]
        if stage.kind != "adopt":
            return None
        every = (*self.adoptions.languages.values(), *self.adoptions.tasks.values())
        wanted = stage.params["files"]
        return next(one for one in every if digests_of(one.adopted) == wanted)

    @cached_property
    def speed(self) -> cost.Rates:
        """Rates for estimates: from finished stages of this plan, else from a calibration. Of many
        of a kind a sample is read."""
        seconds, done = {}, self.done()
        kinds: dict[str, list[str]] = {}
        for key in self.plan.stages:
            if key in done:
                kinds.setdefault(self.work(key).work_kind, []).append(key)
        for key in (k for keys in kinds.values() for k in keys[:: len(keys) // SAMPLE + 1]):
            record = self.store.read(key)
            if record is not None and not record.facts.get("resumed_at"):
                seconds[key] = float(record.facts["seconds"])
        return cost.rates(self.plan, self.backbone.shape, seconds)

    @cached_property
    def works(self) -> dict[str, cost.Work]:
        """What each stage costs, by key."""
        shape, data = self.backbone.shape, self.plan.data
        return {key: cost.work_of(stage, shape, data) for key, stage in self.plan.stages.items()}

    def work(self, key: str) -> cost.Work:
        return self.works[key]

    def done(self) -> set[str]:
        return self.store.present(self.plan.stages)

    def cell(self, **wanted: object) -> tuple[Cell, str]:
        """The first cell with these fields, and its key; ``UsageError`` when there is none."""
        for cell, key in self.plan.cells.items():
            if all(getattr(cell, name) == value for name, value in wanted.items()):
                return cell, key
        asked = ", ".join(f"{name}={value}" for name, value in wanted.items())
        raise UsageError(f"the study has no cell with {asked}", where=self.recipe.name)


def lock_study(
    recipe: str | Path,
    *,
    store: str | Path | None = None,
    backbone: str | None = None,
    overrides: Sequence[str] = (),
    lock: str | Path | None = None,
    listener: Callable[[str], None] | None = None,
) -> LockFile:
    """Write the lock file of a recipe: what its references to hubs are now. Arguments as of
    `Study.open`; its data are not looked at.

    Raises:
        AdapterXLTError: as `adoptions.lock`.
    """
    loaded = load_recipe(recipe, overrides)
    place, opened = _place("backbone", backbone, loaded), Store(store_root(store))
    info = backbone_at(place, opened)
    path = Path(lock or lock_path(loaded))
    return write_lock(loaded, info, opened, path, listener or (lambda line: None))


def backbone_at(place: str, store: Store) -> BackboneInfo:
    """What planning needs of a backbone: `lab`, or a folder."""
    return lab_backbone() if place == "lab" else folder_backbone(Path(place), store)


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
        from adapterxlt.run.hub import datasets

        datasets.fetch(missing, root, num_proc=num_proc, listener=listener)
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
