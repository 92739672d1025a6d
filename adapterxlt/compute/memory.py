"""The most memory a piece of work held, of process or accelerator; and where memory is short."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass
class Peak:
    """``bytes`` is filled in when the work is done; ``None`` where it cannot be known."""

    bytes: int | None = None


@contextmanager
def peak(device: torch.device) -> Iterator[Peak]:
    """Measure a piece of work: what torch held on a CUDA device, else what the process held.

    Linux alone can start the process's mark anew; elsewhere it is not known. What the process
    keeps for later (the backbone, encoded data) counts.
    """
    found = Peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield found
        found.bytes = int(torch.cuda.max_memory_allocated(device))
        return
    known = False
    _give_back()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        known = True
    yield found
    if known:
        status = Path("/proc/self/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        found.bytes = int(line.split()[1]) * 1024


def is_short(error: BaseException) -> bool:
    """Whether an error says that memory was not enough, of the accelerator or of the process."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def release(device: torch.device) -> None:
    """Give back what failed work held, for a smaller try."""
    _give_back()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _give_back() -> None:
    """Have the C library return what earlier work has freed: it keeps gigabytes otherwise."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
