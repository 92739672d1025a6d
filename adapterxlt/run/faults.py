"""What a recipe asks of its data and its backbone that is not there, each fault at its line.

Called when a study is opened; reads nothing but what the corpus tells, and imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from adapterxlt.core.adapters import AdapterSpec
from adapterxlt.core.adoption import Adoptions
from adapterxlt.core.adoption_stage import misfit
from adapterxlt.core.demands import demands, worn_languages
from adapterxlt.core.errors import DataError, Fault
from adapterxlt.core.loading import LoadedRecipe
from adapterxlt.core.methods import clash
from adapterxlt.core.plan import BackboneInfo
from adapterxlt.corpora.sources import Corpus, LabCorpus


def data_faults(
    loaded: LoadedRecipe, corpus: Corpus | LabCorpus, adoptions: Adoptions | None = None
) -> list[Fault]:
    """Everything the recipe asks of the data that is not there, each at its line."""
    return _DataFaults(loaded, corpus, adoptions or Adoptions()).found


class _DataFaults:
    """Goes through what a recipe reads, and notes what is not there."""

    def __init__(
        self, loaded: LoadedRecipe, corpus: Corpus | LabCorpus, adoptions: Adoptions
    ) -> None:
        self.loaded, self.recipe, self.corpus = loaded, loaded.recipe, corpus
        self.adopted = adoptions.languages
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
        if spec.trains and not all(p.adopt for r in regimes for p in r.phases):
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
            phases = (regime.phases[j] for j in regime.needed if not regime.phases[j].adopt)
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
            if language in self.adopted:
                continue
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


def adoption_faults(
    loaded: LoadedRecipe, corpus: Corpus | LabCorpus, adoptions: Adoptions
) -> Iterator[Fault]:
    """What adopted adapters cannot do: stand where they would, or score without a fitting head."""
    recipe = loaded.recipe
    for i, regime in enumerate(recipe.regime_list):
        for task in recipe.tasks:
            own = recipe.task(task)
            for j in regime.needed:
                phase = regime.phases[j]
                at: tuple[str | int, ...] = ("regimes", i, "phases", j)
                begun = regime.adopted(j)
                one = adoptions.of_phase(begun.adopt, task) if begun is not None else None
                spec = one.spec if one is not None else recipe.phase_adapter(regime, j)
                for language, other in adoptions.languages.items():
                    reason = "" if phase.wear == "none" else clash(other.spec.method, spec.method)
                    if reason:
                        what = f"{spec.method!r} cannot be stacked on the adopted {language!r}"
                        yield Fault(f"{what}: {reason}", loaded.where("regimes", i))
                if not phase.adopt or one is None or not own.trains:
                    continue
                said, last = misfit(one, own), j == len(regime.phases) - 1
                if said is not None and (last or one.adopted.head is not None):
                    hint = "take another adapter, or add a phase that trains a head"
                    yield Fault(said, loaded.where(*at), hint)


def spec_faults(loaded: LoadedRecipe, backbone: BackboneInfo) -> Iterator[Fault]:
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
    for task in recipe.tasks:
        layer = recipe.task(task).layer
        if layer is not None and layer > layers:
            what = f"{task} reads layer {layer} of the backbone's {layers}"
            yield Fault(what, loaded.where("datasets", task), f"take {layers} or fewer")
    for path, spec in specs.items():
        for name, what, hint in spec.faults(backbone.shape):
            yield Fault(what, loaded.where(*path, name), hint)
