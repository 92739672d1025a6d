"""What a study reads, as one small value that travels to workers, and the corpus it opens."""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterxlt.core.canon import canonical, shuffled
from adapterxlt.core.errors import DataError
from adapterxlt.core.recipe import Recipe
from adapterxlt.core.tasks import TASKS, Place, Task
from adapterxlt.corpora.hub import Shelf
from adapterxlt.corpora.sources import Corpus, LabCorpus, Notes


def selection(count: int, chosen: Mapping[str, Any]) -> Sequence[int]:
    """Indices of the rows, of ``count``, that a stream or an evaluation reads.

    ``shots`` and ``draw``: the first k rows in the draw's own order, so that fewer shots of a draw
    are part of more; ``limit``: the first rows; neither: all.
    """
    shots = chosen.get("shots")
    if shots is not None:
        # Of a hub's split the size is not known when it is planned.
        if shots > count:
            where = f"{chosen['task']}/{chosen['language']}"
            raise DataError(f"{shots} shots, but there are {count} rows", where=where)
        order = shuffled(count, chosen["draw"], "shots", chosen["task"], chosen["language"])
        return order[:shots]
    limit = chosen.get("limit")
    return range(count if limit is None else min(limit, count))


@dataclass(frozen=True)
class Reading:
    """Where the rows of a study come from.

    Attributes:
        data: `lab`, `hub`, a data folder, or nothing.
        base: what paths in the recipe start from.
        source: whose training data tell the labels of a task that names none.
        tasks: the recipe's own, as JSON, so that the value is plain.
        texts: places of monolingual text, as JSON.
    """

    data: str | None
    base: str = "."
    source: str = ""
    tasks: str = "{}"
    texts: str = "[]"

    @classmethod
    def of(cls, recipe: Recipe, data: str | None, base: Path) -> Reading:
        """What a recipe reads from ``data``, which may not be the recipe's own."""
        tasks = {
            name: task.model_dump(mode="json", exclude_defaults=True)
            for name, task in recipe.datasets.items()
        }
        wanted = recipe.language_adapters
        places = wanted.places if wanted is not None else ()
        texts = [place.model_dump(mode="json", exclude_defaults=True) for place in places]
        as_text = (canonical(tasks), canonical(texts))
        return cls(data, str(base.absolute()), recipe.source, *as_text)

    def open(self, notes: Notes | None, store: Path | None = None) -> Corpus | LabCorpus:
        """The corpus; ``store`` is where fetched hub data lie."""
        if self.data == "lab":
            return LabCorpus()
        own = {name: Task.model_validate(task) for name, task in json.loads(self.tasks).items()}
        return Corpus(
            ChainMap({name: task.filled() for name, task in own.items()}, TASKS),  # type: ignore[arg-type]
            data=Path(self.data) if self.data not in (None, "hub") else None,
            base=Path(self.base),
            source=self.source,
            notes=notes,
            shelf=Shelf(store) if store is not None else None,
            text=tuple(Place.model_validate(place) for place in json.loads(self.texts)),
            hub=self.data == "hub",
        )
