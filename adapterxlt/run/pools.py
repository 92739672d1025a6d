"""Where stages run: in this process, or in spawned ones that end with it."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Protocol

from adapterxlt.run import worker
from adapterxlt.run.requests import Request

#: What keeps numerical libraries to a number of threads; they read it when they are loaded.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def cores() -> int:
    """The cores that this process may use; under Slurm or `taskset` not all that there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_of(count: int) -> dict[str, str]:
    """The environment of a worker that computes with so many threads."""
    return dict.fromkeys(THREADS, str(count))


class Pool(Protocol):
    """Computes stages. ``workers`` is how many run at once."""

    workers: int

    def submit(self, request: Request) -> Future[bool]: ...
    def renew(self) -> None: ...
    def close(self, *, now: bool = False) -> None: ...


class SerialPool:
    """Runs a stage in this process, at once."""

    workers = 1

    def __init__(self, progress: Callable[[Request, int, int, float], None] | None = None) -> None:
        self.progress = progress

    def submit(self, request: Request) -> Future[bool]:
        future: Future[bool] = Future()
        progress = self.progress
        told = (lambda s, n, loss: progress(request, s, n, loss)) if progress else None
        try:
            future.set_result(worker.run_stage(request, told))
        except Exception as error:
            future.set_exception(error)
        return future

    def renew(self) -> None:
        """Nothing to renew: there is no worker that could have died."""

    def close(self, *, now: bool = False) -> None:
        """Nothing to close."""


class ProcessPool:
    """Spawned processes that keep their backbone between stages."""

    def __init__(self, workers: int, threads: int = 1) -> None:
        self.workers, self.threads = workers, threads
        self._executor = self._make()

    def _make(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self.workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(os.getpid(), self.threads),
        )

    def submit(self, request: Request) -> Future[bool]:
        return self._executor.submit(worker.run_stage, request)

    def renew(self) -> None:
        """Start new workers in the place of ones that died."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor = self._make()

    def close(self, *, now: bool = False) -> None:
        """Stop; ``now`` does not wait for running stages, which go on from snapshots later."""
        if now:
            # The executor has no public way to stop workers that are busy.
            for process in list((self._executor._processes or {}).values()):
                process.kill()
        self._executor.shutdown(wait=not now, cancel_futures=True)


def _begin(parent: int, threads: int) -> None:
    """Prepare a process before it loads what computes."""
    os.environ.update(threads_of(threads))
    worker.initialize(parent)
