"""A study of seconds that has every kind of file in its store, finished and half-finished."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from crashing import Runner
from worlds import World, make

# One thread computes, here as in workers.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> World:
    return make(tmp_path_factory.mktemp("world"), tiny_backbone)


@pytest.fixture(scope="session")
def runner(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with Runner(world.recipe, world.backbone, tmp_path_factory.mktemp("runner")) as runner:
        yield runner
