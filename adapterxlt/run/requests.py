"""A stage as it travels to a worker, and what comes back of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapterxlt.core.errors import StageError
from adapterxlt.core.plan import Stage
from adapterxlt.run.desk import Places
from adapterxlt.store.files import write_json

#: Seconds between two notes of a stage's progress.
EVERY = 0.5

Progress = Callable[[int, int, float], None]
Result = tuple[dict[str, bytes], dict[str, Any]]
"""The files of a stage by name, and facts about it."""


@dataclass(frozen=True)
class Request:
    """One stage to compute, as it travels to a worker."""

    key: str
    label: str
    stage: Stage
    places: Places
    cohort: tuple[Request, ...] = ()
    """Train stages that are trained in one pass with it."""
    micro_batch: int | None = None
    """Rows at once, where a worker has died over more; the places' when left out."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Its key and those of its cohort."""
        return (self.key, *(one.key for one in self.cohort))

    @property
    def rows(self) -> int | None:
        """Rows at once; whole batches when there is no number."""
        return self.micro_batch or self.places.micro_batch

    def smaller(self) -> Request | None:
        """The stage with half as many rows at once; nothing where it trains nothing, or its batches
        cannot be made smaller."""
        params = self.stage.params
        if self.stage.kind != "train" or params["objective"] == "mixup":
            return None
        whole = max(data.get("batch") or params["budget"]["batch"] for data in params["streams"])
        rows = min(self.rows or whole, whole)
        return replace(self, micro_batch=rows // 2) if rows > 1 else None


class CohortFailed(Exception):
    """Why some stages of a cohort failed, by key."""

    def __init__(self, reasons: dict[str, StageError]) -> None:
        super().__init__(reasons)
        self.reasons = reasons


class Notes:
    """Progress of a stage: to the caller, and at most twice a second to a file others can read.

    The note has the stage's ``label``, ``step`` of ``steps``, the step's ``loss``, the ``time``,
    and as ``rate`` steps a second since this process took the first one; no computation reads it.
    """

    def __init__(
        self, folder: Path, label: str, progress: Progress | None, writes: bool = True
    ) -> None:
        self.path, self.label, self.progress = folder / "progress.json", label, progress
        self.writes, self.last = writes, 0.0
        self.first: tuple[int, float] | None = None

    def __call__(self, step: int, steps: int, loss: float | None) -> None:
        if self.progress is not None and loss is not None:
            self.progress(step, steps, loss)
        now = time.monotonic()
        if self.first is None and step:
            # What went before it, as loading, says nothing of the others; it may be a later one.
            self.first = step, now
        if self.writes and now - self.last >= EVERY:
            self.last = now
            note = {
                "label": self.label,
                "step": step,
                "steps": steps,
                "loss": loss,
                "rate": self._rate(step, now),
                "time": time.time(),
            }
            # A note that cannot be written is no reason to stop working.
            with suppress(OSError):
                write_json(self.path, note, durable=False)

    def _rate(self, step: int, now: float) -> float | None:
        if self.first is None or step <= self.first[0]:
            return None
        return round((step - self.first[0]) / max(1e-6, now - self.first[1]), 4)
