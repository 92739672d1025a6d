"""What keeps stages in a store: the studies that were run against it, and recipes that are given.

A run notes its study before it looks for what is done; garbage collection and bundles begin with
those notes, or with studies that are opened for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from adapterxlt.core.canon import digest
from adapterxlt.core.plan import Stage
from adapterxlt.store.collecting import Roots, named_in, texts_of
from adapterxlt.store.store import Store

if TYPE_CHECKING:
    from adapterxlt.run.study import Study


def remember(store: Store, name: str, text: str, stages: Mapping[str, Stage]) -> None:
    """Note that the stages belong to a study; of one that is noted, that it is in use.

    Args:
        name: of the recipe, or what was adopted.
        text: the recipe with every default filled in.
    """
    note = note_name(text, stages)
    if store.noted("studies", note) is None:
        reads = sorted(named_in(stage.canonical() for stage in stages.values()))
        value = {"name": name, "recipe": text, "keys": sorted(stages), "reads": reads}
        store.note("studies", note, value)
    with suppress(OSError):
        os.utime(store.note_path("studies", note))


def note_name(text: str, stages: Iterable[str]) -> str:
    """What a study's note goes by: other data or another backbone make other stages of a recipe."""
    return digest("study", [text, sorted(stages)])[:32]


def roots_of(studies: Iterable[Study]) -> Roots:
    """All stages of studies, and what they name."""
    stages = {key: stage for study in studies for key, stage in study.plan.stages.items()}
    return Roots(frozenset(stages), named_in(stage.canonical() for stage in stages.values()))


def noted_roots(store: Store) -> tuple[Roots, list[str]]:
    """As `roots_of`, of every study that was run against a store; and names of their notes."""
    names = list(store.notes("studies"))
    notes: list[Any] = [store.noted("studies", name) for name in names]
    keys = frozenset(key for note in notes for key in texts_of(note, "keys"))
    reads = frozenset(name for note in notes for name in texts_of(note, "reads"))
    return Roots(keys, reads), names
