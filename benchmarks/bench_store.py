"""What does the store's care cost for many small results, beside files as loops keep them?

Each result is a task adapter's tensors, some 12 KB, and its losses and scores. The peer is what
scripts do: `torch.save` into a folder for each run, and a JSON file beside it; nothing is
checked, a crash may leave half a file, and a power cut may take what was there. The store writes
each file under another name first, waits until it is on disk (`fsync`, of the file and of its
folder), never overwrites what another process published, and checks digests when it reads.

How long waiting takes is a matter of what else the disk is doing: its share of publishing is told,
and *without waiting* is the store with `fsync` taken out. Rates are results a second by the clock,
medians of rounds in turn; *there?* is the question which of all results are there.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from common import keep
from safetensors.torch import load, save

from adapterxlt.store.store import Store

RESULTS, ROUNDS = 300, 5
STAGE = {
    "kind": "train",
    "epoch": 2,
    "params": {
        "streams": [{"task": "pos", "language": code, "data": "0" * 64} for code in ("en", "fi")],
        "budget": {"steps": 100, "batch": 32, "lr": 1e-4, "warmup": 0.1},
        "heads": {"pos": {"kind": "tagging", "labels": [str(i) for i in range(17)]}},
        "seed": 1,
    },
    "inputs": {"language:en": "1" * 64, "language:fi": "2" * 64},
}
FACTS = {"losses": [1 / (i + 1) for i in range(50)], "score": 0.5, "seconds": 1.5}
MATRICES = ("1.down", "1.up", "2.down", "2.up")


def keys(round_: int) -> list[str]:
    return [hashlib.sha256(f"{round_} {i}".encode()).hexdigest() for i in range(RESULTS)]


def tensors() -> dict[str, torch.Tensor]:
    return {name: torch.randn(12, 64) for name in MATRICES}


class Ours:
    """The store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(root)

    def write(self, key: str) -> None:
        self.store.publish(key, STAGE, {"adapter.safetensors": save(tensors())}, FACTS)

    def read(self, key: str) -> Any:
        record = self.store.read(key)
        assert record is not None
        return load(self.store.get(record.files["adapter.safetensors"])), record.facts

    def present(self, asked: Sequence[str]) -> set[str]:
        return self.store.present(asked)


class Peer:
    """A folder for each run."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, key: str) -> None:
        folder = self.root / key
        folder.mkdir(parents=True)
        torch.save(tensors(), folder / "adapter.pt")
        (folder / "result.json").write_text(json.dumps({"stage": STAGE, "facts": FACTS}))

    def read(self, key: str) -> Any:
        tensors = torch.load(self.root / key / "adapter.pt", weights_only=True)
        return tensors, json.loads((self.root / key / "result.json").read_text())["facts"]

    def present(self, asked: Sequence[str]) -> set[str]:
        return {key for key in asked if (self.root / key / "result.json").exists()}


class Disk:
    """`os.fsync` as it is, and the seconds that it took; or, not waiting, nothing at all."""

    def __init__(self, waits: bool) -> None:
        self.waits, self.seconds = waits, 0.0
        self.real = os.fsync

    def __call__(self, handle: int) -> None:
        start = time.perf_counter()
        if self.waits:
            self.real(handle)
        self.seconds += time.perf_counter() - start


def rate(function: Callable[[], Any]) -> float:
    """Results a second."""
    start = time.perf_counter()
    function()
    return RESULTS / (time.perf_counter() - start)


def measure(make: type[Ours] | type[Peer], root: Path, round_: int, disk: Disk) -> dict[str, float]:
    asked = keys(round_)
    mine = make(root)
    with patch("os.fsync", disk):
        written = rate(lambda: [mine.write(key) for key in asked])
    # Opened anew, as another command does: nothing is remembered.
    mine = make(root)
    assert mine.present(asked) == set(asked)
    there = rate(lambda: mine.present(asked))
    read = rate(lambda: [mine.read(key) for key in asked])
    waited = disk.seconds / (RESULTS / written)
    return {"written": written, "read": read, "there?": there, "waiting": waited}


def main() -> None:
    torch.set_num_threads(1)
    ways: dict[str, tuple[type[Ours] | type[Peer], bool]] = {
        "adapterxlt": (Ours, True),
        "adapterxlt, without waiting": (Ours, False),
        "torch.save and JSON": (Peer, True),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as name:
        for round_ in range(ROUNDS):
            for i, (way, (make, waits)) in enumerate(ways.items()):
                found[way].append(measure(make, Path(name) / str(i), round_, Disk(waits)))
    rows = {
        way: {what: statistics.median(r[what] for r in rounds) for what in rounds[0]}
        for way, rounds in found.items()
    }
    print(f"{'results a second':30}{'written':>12}{'read':>12}{'there?':>12}{'waiting':>12}")
    for way, row in rows.items():
        numbers = (f"{row[what]:12,.0f}" for what in ("written", "read", "there?"))
        print(f"{way:30}{''.join(numbers)}{row['waiting']:12.0%}")
    keep("store", {"results": RESULTS, "rounds": ROUNDS, "a_second": rounded(rows)})


def rounded(rows: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {
        way: {what: round(value, 3 if what == "waiting" else 0) for what, value in row.items()}
        for way, row in rows.items()
    }


if __name__ == "__main__":
    main()
