"""The study that is tortured, what it gives when nothing happens to it, and how stores compare."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterxlt.report.handing import hand_over
from adapterxlt.report.results import collect
from adapterxlt.run.desk import desk_for
from adapterxlt.run.pools import SerialPool
from adapterxlt.run.requests import Request
from adapterxlt.run.study import Study
from adapterxlt.store.maintenance import fsck
from adapterxlt.store.store import Store

RECIPE = """\
name: tortured
data: lab
source: lab-root
targets: [lab-near-high]
tasks: [lab-pos]
regimes: [zero-shot, sequential]
shots: [10]
budget: {steps: 3, batch: 8, lr: 1e-3}
language_adapters: {budget: {steps: 3}}
limits: {train: 40, test: 10, text: 30}
"""
ADOPTING = "language_adapters: {budget: {steps: 3}, adopt: {lab-root: ./adopted}}\n"

#: What is the machine's and not the study's.
_MACHINE = {"seconds", "training_seconds", "peak_memory", "resumed_at", "environment"}
Outcome = tuple[list[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class World:
    """A study, and two stores of it."""

    recipe: Path
    backbone: Path
    whole: Path
    """Finished."""
    half: Path
    """The last phase is not finished and has a snapshot, and nothing is evaluated after it."""
    outcome: Outcome

    def study(self, store: Path) -> Study:
        return Study.open(self.recipe, store=store, backbone=str(self.backbone))

    def run(self, store: Path) -> list[str]:
        """Run in this process with nothing remembered; why stages failed."""
        desk_for.cache_clear()
        outcome = self.study(store).run(workers=0, snapshot_every=0)
        return list(outcome.failed.values())

    def found(self, store: Path) -> Outcome:
        """Rows, and files and facts of every stage."""
        study = self.study(store)
        rows = [
            {name: value for name, value in row.items() if name not in _MACHINE}
            for row in collect(study)
        ]
        stages = {}
        for key in study.plan.stages:
            record = Store(store).read(key)
            assert record is not None, study.plan.labels[key]
            facts = {name: of for name, of in record.facts.items() if name not in _MACHINE}
            stages[key] = [dict(record.files), facts]
        return rows, stages

    def check(self, store: Path) -> None:
        """That a store is whole and has what it should."""
        assert fsck(Store(store)).findings == ()
        assert self.found(store) == self.outcome


class Stopped(Exception):
    """Raised in the middle of a stage."""


def make(folder: Path, backbone: Path) -> World:
    recipe, whole, half = folder / "tortured.yaml", folder / "whole", folder / "half"
    recipe.write_text(RECIPE, encoding="utf-8")
    # A language adapter of the study becomes one that is adopted.
    first = Study.open(recipe, store=folder / "first", backbone=str(backbone))
    assert not first.run(workers=0).failed
    cell, _ = first.cell(regime="zero-shot", target="lab-root")
    hand_over(first, cell, "language", folder / "exported")
    [inner] = [path.parent for path in (folder / "exported").rglob("adapter_config.json")]
    shutil.copytree(inner, folder / "adopted")
    lines = [line for line in RECIPE.splitlines(True) if not line.startswith("language_adapters")]
    recipe.write_text("".join(lines) + ADOPTING, encoding="utf-8")

    world = World(recipe, backbone, whole, half, ([], {}))
    assert world.run(whole) == []
    world = World(recipe, backbone, whole, half, world.found(whole))
    kinds = {stage.kind for stage in world.study(whole).plan.stages.values()}
    assert kinds == {"adopt", "train", "evaluate"}
    shutil.copytree(whole, half)
    _interrupt(world)
    return world


def _interrupt(world: World) -> None:
    """Leave the last phase of the store in its middle."""
    study = world.study(world.half)
    _, score = study.cell(regime="sequential", target="lab-near-high")
    trained = study.plan.stages[score].inputs["trained"]
    for key in (score, trained):
        study.store.record_path(key).unlink()
        study.store.drop(key)

    def stop(request: Request, step: int, steps: int, loss: float) -> None:
        if request.key == trained and step == 2:
            raise Stopped

    desk_for.cache_clear()
    outcome = world.study(world.half).run(pool=SerialPool(stop), snapshot_every=0)
    assert set(outcome.failed) == {trained}
    assert (study.store.work(trained) / "snapshot").is_file()
