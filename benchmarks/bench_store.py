"""What does the store's care cost for many small results, beside files as loops keep them?

Each result is a task adapter's tensors, some 12 KB, and its losses and scores. The peer is what
scripts do: `torch.save` into a folder for each run, and a JSON file beside it; nothing is
checked, a crash may leave half a file, and a power cut may take what was there. The store writes
each file under another name first, waits until it is on disk (`fsync`, of the file and of its
folder), never overwrites what another process published, and checks digests when it reads. *Without
waiting* is the store with `fsync` taken out, to show what waiting is of the whole.

Rates are results a second by the clock, medians of rounds in turn; *there?* is the question which
of all results are there.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
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
TENSORS = {name: torch.randn(12, 64) for name in ("1.down", "1.up", "2.down", "2.up")}


def keys(round_: int) -> list[str]:
    return [hashlib.sha256(f"{round_} {i}".encode()).hexdigest() for i in range(RESULTS)]


class Ours:
    """The store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(root)

    def write(self, key: str) -> None:
        self.store.publish(key, STAGE, {"adapter.safetensors": save(TENSORS)}, FACTS)

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
        torch.save(TENSORS, folder / "adapter.pt")
        (folder / "result.json").write_text(json.dumps({"stage": STAGE, "facts": FACTS}))

    def read(self, key: str) -> Any:
        tensors = torch.load(self.root / key / "adapter.pt", weights_only=True)
        return tensors, json.loads((self.root / key / "result.json").read_text())["facts"]

    def present(self, asked: Sequence[str]) -> set[str]:
        return {key for key in asked if (self.root / key / "result.json").exists()}


@contextmanager
def unwaited() -> Iterator[None]:
    with patch("os.fsync", lambda handle: None):
        yield


def rate(function: Callable[[], Any]) -> float:
    """Results a second."""
    start = time.perf_counter()
    function()
    return RESULTS / (time.perf_counter() - start)


def measure(make: type[Ours] | type[Peer], root: Path, round_: int) -> dict[str, float]:
    asked = keys(round_)
    mine = make(root)
    written = rate(lambda: [mine.write(key) for key in asked])
    # Opened anew, as another command does: nothing is remembered.
    mine = make(root)
    assert mine.present(asked) == set(asked)
    there = rate(lambda: mine.present(asked))
    read = rate(lambda: [mine.read(key) for key in asked])
    return {"written": written, "read": read, "there?": there}


def main() -> None:
    torch.set_num_threads(1)
    ways = {
        "adapterxlt": (Ours, nullcontext),
        "adapterxlt, without waiting": (Ours, unwaited),
        "torch.save and JSON": (Peer, nullcontext),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as name:
        for round_ in range(ROUNDS):
            for i, (way, (make, how)) in enumerate(ways.items()):
                with how():
                    found[way].append(measure(make, Path(name) / str(i), round_))
    rates = {
        way: {what: round(statistics.median(r[what] for r in rounds)) for what in rounds[0]}
        for way, rounds in found.items()
    }
    print(f"{'results a second':30}", *(f"{what:>18}" for what in next(iter(rates.values()))))
    for way, row in rates.items():
        print(f"{way:30}", *(f"{value:18,}" for value in row.values()))
    waited = 1 - rates["adapterxlt"]["written"] / rates["adapterxlt, without waiting"]["written"]
    print(f"waiting for the disk is {100 * waited:.0f} % of publishing")
    result = {"results": RESULTS, "rounds": ROUNDS, "a_second": rates}
    keep("store", {**result, "share_of_waiting": round(waited, 3)})


if __name__ == "__main__":
    main()
