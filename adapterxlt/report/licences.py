"""Under which licence data are, as their task, place or recipe says."""

from __future__ import annotations

from collections.abc import Iterable

from adapterxlt import lab
from adapterxlt.report.card import LAB_LICENCE, NOT_KNOWN
from adapterxlt.run.study import Study


def licence(study: Study, task: str, spoken: Iterable[str]) -> str:
    """The licence of a task's data, or of text in these languages; `NOT_KNOWN` where none is."""
    recipe = study.recipe
    if task == "text":
        if all(code in lab.LANGUAGES for code in spoken):
            return LAB_LICENCE
        places = recipe.language_adapters.places if recipe.language_adapters is not None else ()
        return "; ".join(dict.fromkeys(p.licence for p in places if p.licence)) or NOT_KNOWN
    of = study.corpus.task(task)
    if of.lab:
        return LAB_LICENCE
    return (
        of.licence
        or "; ".join(dict.fromkeys(p.licence for p in of.places if p.licence))
        or (NOT_KNOWN)
    )
