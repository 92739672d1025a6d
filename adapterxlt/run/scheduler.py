"""Runs the missing stages of a plan on a pool: inputs first, failures fenced in, events kept.

A stage that fails blocks only what depends on it. The store, not this code, knows what is done, so
running again is resuming.
"""

from __future__ import annotations

import itertools
import os
import platform
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from adapterxlt.core.errors import AdapterXLTError, RefusedError, StageError, StoreUnwritable
from adapterxlt.core.plan import Plan
from adapterxlt.run.cohorts import signature
from adapterxlt.run.events import Event, Log, born
from adapterxlt.run.pools import Pool
from adapterxlt.run.requests import CohortFailed, Request
from adapterxlt.store.store import Store


class Listener(Protocol):
    """Hears what happens; ``tick`` is called a few times a second while stages run, ``told`` with
    each event of the log (see `run.events`)."""

    def told(self, event: Event) -> None: ...
    def started(self, key: str) -> None: ...
    def finished(self, key: str, error: Exception | None) -> None: ...
    def tick(self, running: list[str]) -> None: ...


class Silent:
    """A listener that does nothing."""

    def told(self, event: Event) -> None: ...
    def started(self, key: str) -> None: ...
    def finished(self, key: str, error: Exception | None) -> None: ...
    def tick(self, running: list[str]) -> None: ...


class Several(Silent):
    """Listeners, one after another."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self.listeners = tuple(listeners)

    def told(self, event: Event) -> None:
        for one in self.listeners:
            one.told(event)

    def started(self, key: str) -> None:
        for one in self.listeners:
            one.started(key)

    def finished(self, key: str, error: Exception | None) -> None:
        for one in self.listeners:
            one.finished(key, error)

    def tick(self, running: list[str]) -> None:
        for one in self.listeners:
            one.tick(running)


@dataclass
class Outcome:
    """What became of the stages that were missing."""

    computed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Key and reason."""
    exit_code: int = 0
    """0 when nothing failed; that of a refusal before any other failure's."""
    blocked: dict[str, str] = field(default_factory=dict)
    """Key and the key of the failed stage it waits for."""


def execute(
    plan: Plan,
    store: Store,
    pool: Pool,
    request_of: Callable[[str], Request],
    *,
    listener: Listener | None = None,
    events: Path | None = None,
    about: Mapping[str, Any] | None = None,
    cohort: int = 1,
    needed: Sequence[str] | None = None,
    tick: float = 0.3,
) -> Outcome:
    """Run what the store lacks, or what is ``needed``. Ready stages start in plan order, as many as
    the pool takes; up to ``cohort`` that can be trained in one pass count as one.

    Args:
        events: the log that is told what happens; the listener is told the same.
        about: what more is told when it starts.

    Raises:
        StoreUnwritable: what is finished could not be published; nothing more is started.
    """
    listener = listener or Silent()
    outcome = Outcome()
    if needed is None:
        needed = plan.needed({key for key in plan.stages if key in store})
    waiting = list(needed)
    missing = set(waiting)
    running: dict[Future[bool], Request] = {}
    lost: set[Future[bool]] = set()
    """Futures of an executor that broke: they fail one by one, and it is renewed only once."""

    name, log = secrets.token_hex(4), Log(events) if events is not None else None
    begun: dict[str, float] = {}

    def tell(event: str, **more: Any) -> None:
        line = {"time": round(time.time(), 3), "event": event, "run": name, **more}
        if log is not None:
            log.write(line)
        listener.told(line)

    def renew() -> None:
        lost.update(running)
        pool.renew()

    def submit(request: Request) -> Future[bool]:
        try:
            return pool.submit(request)
        except BrokenProcessPool:
            # A worker died between two stages.
            renew()
            return pool.submit(request)

    def ready(key: str) -> bool:
        return not missing.intersection(plan.stages[key].inputs.values())

    def with_cohort(key: str) -> Request:
        """A stage, with others that are ready and can be trained in one pass with it."""
        request, like = request_of(key), signature(plan, key) if cohort > 1 else None
        if like is None:
            return request
        alike = (k for k in waiting if ready(k) and signature(plan, k) == like)
        others = list(itertools.islice(alike, cohort - 1))
        for other in others:
            waiting.remove(other)
        return replace(request, cohort=tuple(map(request_of, others)))

    def start_ready() -> None:
        for key in list(waiting):
            if len(running) >= pool.workers:
                return
            needs = plan.stages[key].inputs.values()
            bad = next((k for k in needs if k in outcome.failed or k in outcome.blocked), None)
            if bad is not None:
                waiting.remove(key)
                outcome.blocked[key] = outcome.blocked.get(bad, bad)
                tell("blocked", key=key, by=outcome.blocked[key])
            elif key in waiting and ready(key):
                waiting.remove(key)
                request = with_cohort(key)
                for one in request.keys:
                    begun[one] = time.monotonic()
                    tell("started", key=one, label=plan.labels[one])
                    listener.started(one)
                running[submit(request)] = request

    def settle(key: str, error: Exception | None, share: float, elsewhere: bool) -> None:
        """Note what became of a stage, which had a ``share`` of a worker."""
        seconds = round((time.monotonic() - begun.pop(key)) * share, 3)
        if error is None:
            outcome.computed.append(key)
            missing.discard(key)
            more = {"elsewhere": True} if elsewhere else {}
            tell("finished", key=key, seconds=seconds, **more)
        else:
            outcome.failed[key] = _reason(error)
            if isinstance(error, RefusedError):
                outcome.exit_code = error.exit_code
            outcome.exit_code = outcome.exit_code or 1
            tell("failed", key=key, reason=outcome.failed[key])
        listener.finished(key, error)

    try:
        origin = {"pid": os.getpid(), "born": born(os.getpid()), "host": platform.node()}
        tell("run", needed=len(waiting), workers=pool.workers, **origin, **(about or {}))
        start_ready()
        while running:
            done, _ = wait(running, timeout=tick, return_when=FIRST_COMPLETED)
            broken = False
            for future in done:
                request = running.pop(future)
                gone = future.cancelled()
                error = BrokenProcessPool("cancelled") if gone else future.exception()
                if error is not None and not isinstance(error, Exception):
                    raise error
                broken |= isinstance(error, BrokenProcessPool) and future not in lost
                # The store had it: another run has computed it since this one was planned.
                elsewhere = error is None and not future.result()
                for key in request.keys:
                    why = error.reasons.get(key) if isinstance(error, CohortFailed) else error
                    settle(key, why, 1 / len(request.keys), elsewhere)
                if isinstance(error, StoreUnwritable):
                    # Every other stage would be computed, and lost, in the same way.
                    raise error
            if broken:
                renew()
            start_ready()
            listener.tick([key for request in running.values() for key in request.keys])
    except BaseException:
        try:
            tell("interrupted")
        finally:
            pool.close(now=True)
        raise
    pool.close()
    counts = {"computed": len(outcome.computed), "failed": len(outcome.failed)}
    tell("ended", **counts, blocked=len(outcome.blocked))
    return outcome


def _reason(error: Exception) -> str:
    if isinstance(error, BrokenProcessPool):
        return str(StageError("a worker process died", hint="memory? see --micro-batch"))
    if isinstance(error, AdapterXLTError):
        return str(error)
    return f"{type(error).__name__}: {error}"
