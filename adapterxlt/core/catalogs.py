"""The things that the package ships as folders of YAML files: regimes, tasks, claims.

A file is read when what is in it is first asked for, so that start-up does not grow with
their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib import resources
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Catalog(Mapping[str, T], Generic[T]):
    """What a folder of the package holds, by name.

    Args:
        folder: in the package.
        build: what a name and its file's content make.
        order: names that come first; others follow by name.
    """

    def __init__(self, folder: str, build: Callable[[str, Any], T], order: Sequence[str]) -> None:
        self._folder = resources.files("adapterxlt") / folder
        self._build, self._order = build, order
        self._read: dict[str, T] = {}

    @cached_property
    def _names(self) -> tuple[str, ...]:
        found = sorted(e.name[:-5] for e in self._folder.iterdir() if e.name.endswith(".yaml"))
        first = [name for name in self._order if name in found]
        return (*first, *(name for name in found if name not in first))

    def __getitem__(self, name: str) -> T:
        from adapterxlt.core.yamlio import parse

        if name not in self._names:
            raise KeyError(name)
        if name not in self._read:
            text = (self._folder / f"{name}.yaml").read_text(encoding="utf-8")
            self._read[name] = self._build(name, parse(text, f"{name}.yaml").value)
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
