"""A place where an adapter is adopted and everything around it is watched."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from crafting import Spoiler

from adapterxlt.core.errors import AdapterXLTError
from adapterxlt.corpora.reading import Reading
from adapterxlt.run.adopting import adopt_one
from adapterxlt.run.desk import Places, desk_for
from adapterxlt.store.store import Store

#: Seconds within which everything is refused, pickles aside.
PATIENCE = 10.0


@dataclass(frozen=True)
class Scene:
    """Folders of a test, all of them under one that is watched, and a store beside it."""

    root: Path
    good: Path
    backbone: Path
    store: Path
    pristine: str
    """Digest of the backbone's weights as they are loaded."""

    @property
    def adapter(self) -> Path:
        return self.root / "adapter"

    @property
    def canary(self) -> Path:
        """A file that code in an adapter would make."""
        return self.root / "canary"

    def spoiled(self, name: str, spoil: Spoiler | None = None) -> Path:
        """A copy of a good adapter, spoiled."""
        shutil.copytree(self.good / name, self.adapter)
        if spoil is not None:
            spoil(self.adapter)
        return self.adapter

    def adopt(self, reference: Path | str | None = None, **how: Any) -> dict[str, Any]:
        return adopt_one(
            str(reference or self.adapter),
            str(self.backbone),
            store=str(self.store),
            base_folder=self.root / "here",
            listener=lambda line: None,
            **how,
        )

    def seen(self) -> dict[str, object]:
        """Everything under the watched folder and the backbone's: kinds, modes, digests."""
        found: dict[str, object] = {}
        for top in (self.root, self.backbone):
            for folder, folders, files in os.walk(top):
                for name in (*folders, *files):
                    path = Path(folder) / name
                    found[str(path)] = _look(path)
        return found

    def kept(self) -> list[str]:
        return list(Store(self.store))

    def bare(self) -> bool:
        """Whether nothing is on the backbone, and its own weights are what they were."""
        desk = desk_for(Places(self.store.absolute(), Reading(None), str(self.backbone)))
        if desk._loaded is None:
            return True
        backbone = desk._loaded[1]
        names = [name for name, _ in backbone.model.named_parameters()]
        return names == list(backbone._own) and backbone.digest() == self.pristine


def _look(path: Path) -> object:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(path)
    if not stat.S_ISREG(status.st_mode) or status.st_size > 1 << 24:
        return status.st_mode, status.st_size
    return status.st_mode, hashlib.sha256(path.read_bytes()).hexdigest()


def refused(
    scene: Scene, said: tuple[str, ...], *, error: type[Exception], within: float, **how: Any
) -> AdapterXLTError:
    """Adopting must end in this error, soon, and leave everything as it was."""
    before, records = scene.seen(), scene.kept()
    with soon(within), pytest.raises(AdapterXLTError) as caught:
        scene.adopt(**how)
    assert caught.type is error, caught.value
    told(str(caught.value), said)
    assert scene.seen() == before and not scene.canary.exists()
    assert scene.kept() == records and scene.bare()
    return caught.value


@contextmanager
def soon(seconds: float) -> Iterator[None]:
    """What takes longer is broken off, and fails."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"it takes longer than {seconds} s")

    earlier = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)


def told(message: str, said: tuple[str, ...]) -> None:
    """A message is one plain line of a length that can be read, and says this."""
    assert message.isprintable() and len(message) < 800
    assert not any(sign in message for sign in ("<", ">", "Traceback"))
    for piece in said:
        assert piece in message, message
