"""What several test folders share: a tiny backbone, the shared data, and short recipes."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

from adapterxlt import lab

# On CI the examples are the same each time, so that a red run is about the change at hand; new
# examples are found on developers' machines, where a run may take as long as it does.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.register_profile("developer", deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "developer")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data and backbones; a test that needs it is skipped without it."""
    folder = Path(os.environ.get("ADAPTERXLT_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir() or not (folder / "models" / "mini").is_dir():
        pytest.skip(f"the shared data and backbone are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone of the lab's kind after a few steps: real files, no skill."""
    from adapterxlt.compute.pretraining import pretrain

    folder = tmp_path_factory.mktemp("backbone")
    spec = {**lab.DEFAULT_SPEC, "steps": 4, "batch": 8, "layers": 2, "hidden": 32, "ffn": 64}
    pretrain(folder, spec=spec, seed=0)
    return folder


SMALL = """\
name: small
data: lab
source: lab-root
targets: [lab-near-high, lab-far-low]
tasks: [lab-pos]
regimes: [zero-shot, target-only, sequential, joint, joint-multilingual, multi-stage]
shots: [10]
budget: {steps: 6, batch: 8, lr: 1e-3}
budgets: {shots: {steps: 4}}
limits: {train: 80, test: 20, text: 60}
"""


@pytest.fixture(scope="session")
def small_text() -> str:
    """A recipe: all six regimes on two languages, a few steps each."""
    return SMALL
