"""Do two workers on a Ray cluster do twice what one does?

Trainings of the laboratory's part-of-speech task that differ in their seed alone: independent
stages of a few seconds, on a backbone that was pretrained once and whose store is copied for each
run. One and two workers with one thread each, on `RayPool` and on `ProcessPool`, in turn. What it
takes until all workers have computed something (cluster, processes, imports, the backbone, rows
tokenized) is the warm-up, and told apart. All four stores have to hold the same bytes in the end.

Where the machine is shared: a run begins when it is quiet, as far as there is patience, and beside
it stands the share of the cores that others took.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from common import keep
from setting import table, wait_for_quiet

from adapterxlt.run.pools import Pool, ProcessPool
from adapterxlt.run.ray_pool import RayPool
from adapterxlt.run.requests import Request
from adapterxlt.run.study import Study

RECIPE = """\
name: bench-ray
data: lab
backbone: lab
source: lab-root
targets: [lab-near-high]
tasks: [lab-pos]
regimes: [zero-shot]
language_adapters: null
budget: {steps: 160, batch: 32, lr: 2e-3}
limits: {train: 1000, test: 20}
"""
STAGES, ROUNDS, TARGET = 12, 3, 1.8
POOLS: dict[str, Callable[[int], Pool]] = {"ray": RayPool, "processes": ProcessPool}


@dataclass
class Open:
    """A pool that outlives a run."""

    pool: Pool
    workers: int

    def submit(self, request: Request) -> Future[bool]:
        return self.pool.submit(request)

    def renew(self) -> None:
        self.pool.renew()

    def close(self, *, now: bool = False) -> None:
        if now:
            self.pool.close(now=True)


def opened(recipe: Path, store: Path, seeds: range, *more: str) -> tuple[Study, list[str]]:
    """A study with these seeds, and the keys of its trainings."""
    study = Study.open(recipe, store=store, overrides=[f"seeds={list(seeds)}", *more])
    return study, [key for key, stage in study.plan.stages.items() if stage.kind == "train"]


def own() -> float:
    """Processor seconds of this process and of those under it."""
    every = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(one.cpu_times()[:4]) for one in every)


def busy() -> float:
    """Processor seconds of everybody, without what gives way."""
    spent = psutil.cpu_times()
    return float(sum(spent) - spent.nice - spent.idle - getattr(spent, "iowait", 0.0))


def measure(kind: str, workers: int, recipe: Path, base: Path, store: Path) -> dict[str, Any]:
    """One run on a fresh store: seconds, those of its warm-up, others' share, and the digests."""
    shutil.copytree(base, store)
    study, keys = opened(recipe, store, range(1, STAGES + 1))
    first, ready = opened(recipe, store, range(101, 101 + workers), "budget.steps=80")
    wait_for_quiet()
    start = time.perf_counter()
    pool = POOLS[kind](workers)
    try:
        done, _ = wait([pool.submit(first.request(key)) for key in ready])
        assert all(future.result() for future in done)
        warm = time.perf_counter() - start
        wait_for_quiet()
        start, before, mine = time.perf_counter(), busy(), own()
        outcome = study.run(pool=Open(pool, workers), only=keys)
        seconds = time.perf_counter() - start
        others = max(0.0, busy() - before - (own() - mine)) / seconds / (os.cpu_count() or 1)
    finally:
        pool.close()
    assert sorted(outcome.computed) == sorted(keys), outcome.failed
    records = [study.store.read(key) for key in keys]
    files = [dict(record.files) for record in records if record is not None]
    each = [record.facts["seconds"] for record in records if record is not None]
    return {"seconds": seconds, "warm": warm, "others": others, "each": each, "files": files}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round: does it run at all")
    rounds = 1 if parser.parse_args().quick else ROUNDS
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as name:
        recipe, base = Path(name) / "recipe.yaml", Path(name) / "base"
        recipe.write_text(RECIPE, encoding="utf-8")
        study, _ = opened(recipe, base, range(1, 2))
        pretraining = [key for key, s in study.plan.stages.items() if s.kind == "pretrain"]
        assert not study.run(workers=1, only=pretraining).failed
        for turn in range(rounds):
            for kind in POOLS:
                for workers in (1, 2) if turn % 2 == 0 else (2, 1):
                    store = Path(name) / f"{kind}-{workers}-{turn}"
                    one = measure(kind, workers, recipe, base, store)
                    found.setdefault((kind, workers), []).append(one)
    every = [one["files"] for runs in found.values() for one in runs]
    equal = all(files == every[0] for files in every)
    rows = [
        {
            "pool": kind,
            "workers": workers,
            **{n: statistics.median(one[n] for one in runs) for n in ("seconds", "warm", "others")},
            "stage": statistics.median(seconds for one in runs for seconds in one["each"]),
        }
        for (kind, workers), runs in sorted(found.items(), reverse=True)
    ]
    columns = {
        "pool": "", "workers": "d", "seconds": ".1f", "stage": ".2f", "warm": ".1f",
        "others": ".1%",
    }  # fmt: skip
    table(f"{STAGES} trainings, medians of {rounds}", rows, columns)
    medians = {(row["pool"], row["workers"]): row["seconds"] for row in rows}
    ratios = {kind: round(medians[kind, 1] / medians[kind, 2], 2) for kind in POOLS}
    for kind, ratio in ratios.items():
        print(f"{kind}: two workers are {ratio:.2f} times as fast as one")
    print(f"wanted of ray: {TARGET}; all stores hold the same bytes: {equal}")
    if rounds == ROUNDS:
        result = {"stages": STAGES, "rounds": rounds, "target": TARGET, "ratios": ratios}
        keep("ray", {**result, "same_bytes": equal, "pools": rows})
    assert equal


if __name__ == "__main__":
    main()
