"""Runs the missing stages of a plan on a pool: inputs first, failures fenced in, events kept.

A stage that fails blocks only what depends on it. The store, not this code, knows what is done, so
running again is resuming.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from adapterxlt.core.errors import AdapterXLTError, RefusedError, StageError
from adapterxlt.core.plan import Plan
from adapterxlt.run.pools import Pool
from adapterxlt.run.worker import Request
from adapterxlt.store.store import Store


class Listener(Protocol):
    """Hears what happens; ``tick`` is called a few times a second while stages run."""

    def started(self, key: str) -> None: ...
    def finished(self, key: str, error: Exception | None) -> None: ...
    def tick(self, running: list[str]) -> None: ...


class Silent:
    """A listener that does nothing."""

    def started(self, key: str) -> None: ...
    def finished(self, key: str, error: Exception | None) -> None: ...
    def tick(self, running: list[str]) -> None: ...


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
    tick: float = 0.3,
) -> Outcome:
    """Run what the store lacks. Ready stages start in plan order, as many as the pool takes."""
    listener = listener or Silent()
    outcome = Outcome()
    waiting = plan.needed({key for key in plan.stages if key in store})
    missing = set(waiting)
    running: dict[Future[bool], str] = {}
    lost: set[Future[bool]] = set()
    """Futures of an executor that broke: they fail one by one, and it is renewed only once."""

    def tell(event: str, key: str, **more: str) -> None:
        if events is not None:
            events.parent.mkdir(parents=True, exist_ok=True)
            line = {"time": round(time.time(), 3), "event": event, "key": key, **more}
            with events.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def renew() -> None:
        lost.update(running)
        pool.renew()

    def submit(key: str) -> Future[bool]:
        try:
            return pool.submit(request_of(key))
        except BrokenProcessPool:
            # A worker died between two stages.
            renew()
            return pool.submit(request_of(key))

    def start_ready() -> None:
        for key in list(waiting):
            if len(running) >= pool.workers:
                return
            needs = plan.stages[key].inputs.values()
            bad = next((k for k in needs if k in outcome.failed or k in outcome.blocked), None)
            if bad is not None:
                waiting.remove(key)
                outcome.blocked[key] = outcome.blocked.get(bad, bad)
                tell("blocked", key, by=outcome.blocked[key])
            elif not missing.intersection(needs):
                waiting.remove(key)
                listener.started(key)
                tell("started", key, label=plan.labels[key])
                running[submit(key)] = key

    try:
        start_ready()
        while running:
            done, _ = wait(running, timeout=tick, return_when=FIRST_COMPLETED)
            broken = False
            for future in done:
                key = running.pop(future)
                gone = future.cancelled()
                error = BrokenProcessPool("cancelled") if gone else future.exception()
                if error is None:
                    outcome.computed.append(key)
                    missing.discard(key)
                    tell("finished", key)
                elif not isinstance(error, Exception):
                    raise error
                else:
                    broken |= isinstance(error, BrokenProcessPool) and future not in lost
                    outcome.failed[key] = _reason(error)
                    if isinstance(error, RefusedError):
                        outcome.exit_code = error.exit_code
                    outcome.exit_code = outcome.exit_code or 1
                    tell("failed", key, reason=outcome.failed[key])
                listener.finished(key, error)
            if broken:
                renew()
            start_ready()
            listener.tick(list(running.values()))
    except BaseException:
        tell("interrupted", "")
        pool.close(now=True)
        raise
    pool.close()
    return outcome


def _reason(error: Exception) -> str:
    if isinstance(error, BrokenProcessPool):
        return str(StageError("a worker process died", hint="memory? see --micro-batch"))
    if isinstance(error, AdapterXLTError):
        return str(error)
    return f"{type(error).__name__}: {error}"
