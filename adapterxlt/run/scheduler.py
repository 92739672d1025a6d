"""Runs the missing stages of a plan on a pool: inputs first, failures fenced in, events kept.

A stage that fails blocks only what depends on it; one whose worker dies is tried again. The store,
not this code, knows what is done, so running again is resuming.
"""

from __future__ import annotations

import itertools
import os
import platform
import secrets
import time
import traceback
from collections import Counter
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

#: How often a stage is begun whose worker dies: again as it was, since what killed the worker may
#: have been another stage beside it; the last time with nothing beside it, and fewer rows at once.
TRIES = 3
#: Trainings for each worker: while no more of them wait, evaluations wait for them. So it is with
#: what is short, and not with a training of one worker, that the others' work comes to its end.
LAST = 8
#: Lines of the traceback of a failure that should not have been.
TAIL = 12


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
    tails: dict[str, str] = field(default_factory=dict)
    """Key and the end of the traceback, where the reason was not foreseen."""
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
    the pool takes, the last evaluations after the last trainings (see `LAST`); up to ``cohort``
    that can be trained in one pass count as one.

    Args:
        events: the log that is told what happens; the listener is told the same.
        about: what more is told when it starts.

    Raises:
        StoreUnwritable: what is finished could not be published; nothing more is started.
    """
    if needed is None:
        needed = plan.needed({key for key in plan.stages if key in store})
    log = Log(events) if events is not None else None
    work = _Work(plan, pool, request_of, listener or Silent(), log, cohort, needed)
    try:
        work.tell(
            "run",
            needed=len(work.waiting),
            workers=pool.workers,
            pid=os.getpid(),
            born=born(os.getpid()),
            host=platform.node(),
            **(about or {}),
        )
        work.start_ready()
        while work.running:
            work.settle_done(tick)
            work.start_ready()
            work.tick()
    except BaseException:
        try:
            work.tell("interrupted")
        finally:
            pool.close(now=True)
        raise
    pool.close()
    outcome = work.outcome
    counts = {"computed": len(outcome.computed), "failed": len(outcome.failed)}
    work.tell("ended", **counts, blocked=len(outcome.blocked))
    return outcome


class _Work:
    """What waits, what runs and what has become of the rest, while a plan is executed."""

    def __init__(
        self,
        plan: Plan,
        pool: Pool,
        request_of: Callable[[str], Request],
        listener: Listener,
        log: Log | None,
        cohort: int,
        needed: Sequence[str],
    ) -> None:
        self.plan, self.pool, self.request_of = plan, pool, request_of
        self.listener, self.log, self.cohort = listener, log, cohort
        self.name = secrets.token_hex(4)
        self.outcome = Outcome()
        self.waiting = list(needed)
        self.missing = set(self.waiting)
        self.running: dict[Future[bool], Request] = {}
        self.again: list[Request] = []
        """Of workers that died, to be begun again before anything else."""
        self.deaths: Counter[str] = Counter()
        self._lost: set[Future[bool]] = set()
        """Futures of an executor that broke: they fail one by one, and it is renewed only once."""
        self._begun: dict[str, float] = {}

    def tell(self, event: str, **more: Any) -> None:
        line = {"time": round(time.time(), 3), "event": event, "run": self.name, **more}
        if self.log is not None:
            self.log.write(line)
        self.listener.told(line)

    def tick(self) -> None:
        self.listener.tick([key for request in self.running.values() for key in request.keys])

    # What starts

    def start_ready(self) -> None:
        while self.again and self._room(last := self._last_try(self.again[0])):
            request = self.again.pop(0)
            self._start((request.smaller() or request) if last else request)
        if self.again:
            return
        for key in self._order():
            if not self._room():
                return
            needs, outcome = self.plan.stages[key].inputs.values(), self.outcome
            bad = next((k for k in needs if k in outcome.failed or k in outcome.blocked), None)
            if bad is not None:
                self.waiting.remove(key)
                outcome.blocked[key] = outcome.blocked.get(bad, bad)
                self.tell("blocked", key=key, by=outcome.blocked[key])
            elif key in self.waiting and self._ready(key):
                self.waiting.remove(key)
                self._start(self._with_cohort(key))

    def _order(self) -> list[str]:
        """What waits, as it starts when it is ready."""
        kinds, most = self.plan.stages, LAST * self.pool.workers
        others = (key for key in self.waiting if kinds[key].kind != "evaluate")
        last = list(itertools.islice(others, most + 1))
        if self.pool.workers == 1 or len(last) > most:
            return list(self.waiting)
        return [*last, *(key for key in self.waiting if kinds[key].kind == "evaluate")]

    def _room(self, alone: bool = False) -> bool:
        """Whether one more may start, now or with nothing beside it."""
        if alone or any(self._last_try(request) for request in self.running.values()):
            return not self.running
        return len(self.running) < self.pool.workers

    def _last_try(self, request: Request) -> bool:
        return self.deaths[request.key] >= TRIES - 1

    def _ready(self, key: str) -> bool:
        return not self.missing.intersection(self.plan.stages[key].inputs.values())

    def _with_cohort(self, key: str) -> Request:
        """A stage, with others that are ready and can be trained in one pass with it."""
        request = self.request_of(key)
        like = signature(self.plan, key) if self.cohort > 1 else None
        if like is None:
            return request
        alike = (k for k in self.waiting if self._ready(k) and signature(self.plan, k) == like)
        others = list(itertools.islice(alike, self.cohort - 1))
        for other in others:
            self.waiting.remove(other)
        return replace(request, cohort=tuple(map(self.request_of, others)))

    def _start(self, request: Request) -> None:
        for one in request.keys:
            self._begun[one] = time.monotonic()
            self.tell("started", key=one, label=self.plan.labels[one])
            self.listener.started(one)
        self.running[self._submit(request)] = request

    def _submit(self, request: Request) -> Future[bool]:
        try:
            return self.pool.submit(request)
        except BrokenProcessPool:
            # A worker died between two stages.
            self._renew()
            return self.pool.submit(request)

    def _renew(self) -> None:
        self._lost.update(self.running)
        self.pool.renew()

    # What ends

    def settle_done(self, tick: float) -> None:
        """Wait a little for something to end, and note what became of it."""
        done, _ = wait(self.running, timeout=tick, return_when=FIRST_COMPLETED)
        broken = False
        for future in done:
            request = self.running.pop(future)
            error = BrokenProcessPool("cancelled") if future.cancelled() else future.exception()
            if error is not None and not isinstance(error, Exception):
                raise error
            if isinstance(error, BrokenProcessPool):
                broken |= future not in self._lost
                self._died(request, error)
                continue
            # The store had it: another run has computed it since this one was planned.
            elsewhere = error is None and not future.result()
            for key in request.keys:
                why = error.reasons.get(key) if isinstance(error, CohortFailed) else error
                self._settle(key, why, 1 / len(request.keys), elsewhere)
            if isinstance(error, StoreUnwritable):
                # Every other stage would be computed, and lost, in the same way.
                raise error
        if broken:
            self._renew()

    def _died(self, request: Request, error: BrokenProcessPool) -> None:
        """Begin the stages of a dead worker again, one by one, unless that was their last try."""
        for one in (replace(request, cohort=()), *request.cohort):
            self.deaths[one.key] += 1
            if self.deaths[one.key] >= TRIES:
                self._settle(one.key, error, 1.0, elsewhere=False)
                continue
            self._begun.pop(one.key)
            self.again.append(one)
            self.tell("retried", key=one.key, reason=_reason(error), tries=self.deaths[one.key])

    def _settle(self, key: str, error: Exception | None, share: float, elsewhere: bool) -> None:
        """Note what became of a stage, which had a ``share`` of a worker."""
        outcome = self.outcome
        seconds = round((time.monotonic() - self._begun.pop(key)) * share, 3)
        if error is None:
            outcome.computed.append(key)
            self.missing.discard(key)
            there = {"elsewhere": True} if elsewhere else {}
            self.tell("finished", key=key, seconds=seconds, **there)
        else:
            outcome.failed[key] = _reason(error, self.deaths[key])
            if isinstance(error, RefusedError):
                outcome.exit_code = error.exit_code
            outcome.exit_code = outcome.exit_code or 1
            tail = _tail(error)
            if tail:
                outcome.tails[key] = tail
            more = {"tail": tail} if tail else {}
            self.tell("failed", key=key, reason=outcome.failed[key], **more)
        self.listener.finished(key, error)


def _reason(error: Exception, deaths: int = 1) -> str:
    if isinstance(error, BrokenProcessPool):
        times = "" if deaths == 1 else f" in each of {deaths} tries"
        return str(StageError(f"a worker process died{times}", hint="memory? see --micro-batch"))
    if isinstance(error, AdapterXLTError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _tail(error: Exception) -> str:
    """The end of the traceback of what was not foreseen, a worker's own where it was in one."""
    if isinstance(error, AdapterXLTError | BrokenProcessPool):
        return ""
    lines = "".join(traceback.format_exception(error)).splitlines()
    cause = getattr(error, "__cause__", None)
    if type(cause).__name__ == "_RemoteTraceback":
        lines = str(cause).strip().strip('"').strip().splitlines()
    return "\n".join(line.rstrip() for line in lines[-TAIL:]) if len(lines) > 1 else ""
