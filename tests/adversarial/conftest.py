"""Good adapters, and a place where spoiled copies of them are watched."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from crafting import good_folders
from scenes import Scene

from adapterxlt.compute.backbone import Backbone


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Path:
    """A folder of good adapters, each in a folder of its own."""
    folder = tmp_path_factory.mktemp("good")
    good_folders(folder, tiny_backbone)
    return folder


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that many refusals share, so that the backbone is loaded once."""
    return tmp_path_factory.mktemp("kept") / "store"


@pytest.fixture(scope="session")
def pristine(tiny_backbone: Path) -> str:
    """Digest of the backbone's weights when nothing was ever put on it."""
    return Backbone(tiny_backbone).digest()


@pytest.fixture
def scene(
    tmp_path: Path,
    good: Path,
    tiny_backbone: Path,
    kept: Path,
    pristine: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Scene:
    """Home, working folder and folder of temporary files are watched too."""
    for name in ("here", "home", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return Scene(tmp_path, good, tiny_backbone, kept, pristine)
