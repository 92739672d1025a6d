"""Whether a machine has what stages need, before the first of them starts: disk and memory.

Asks the system alone, and of an accelerator its driver's own tool; imports no torch. What comes
from hubs is not counted: nobody says its size beforehand. Called by `plan`, which shows it, and by
`run`, which refuses what cannot fit.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adapterxlt.core.errors import Fault, UsageError
from adapterxlt.core.needs import Needs, needs

if TYPE_CHECKING:
    from adapterxlt.run.study import Study

#: What is left free of a disk: a full one troubles others too.
MARGIN = 256 << 20
GIB = 1 << 30
_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
#: A limit of a control group that is none.
_NO_LIMIT = 1 << 60


@dataclass(frozen=True, slots=True)
class Machine:
    """Bytes that can be had now; ``None`` where it cannot be told.

    Attributes:
        disk: of the store's file system.
        memory: of the machine, or of the control group that this process is in.
        accelerator: of the CUDA device.
    """

    disk: int | None
    memory: int | None
    accelerator: int | None = None


@dataclass(frozen=True, slots=True)
class Preflight:
    """What is needed beside what there is."""

    needs: Needs
    machine: Machine
    workers: int
    device: str = "cpu"

    def line(self) -> str:
        """Both in one sentence, for `plan`."""
        disk = f"{_said(self.needs.disk)} of disk ({_said(self.machine.disk)} free)"
        each = f"{_said(self.needs.memory(1))} of memory for one worker"
        many = f"{_said(self.needs.memory(self.workers))} for {self.workers}"
        has = f"({_said(self.machine.memory)} available)"
        return f"Needs about {disk}, {each}, {many} {has}."

    def faults(self) -> Iterator[Fault]:
        """What cannot fit, each with what to change."""
        need, have = self.needs, self.machine
        if have.disk is not None and need.disk + MARGIN > have.disk:
            what = f"the store will grow by about {_said(need.disk)}; of {_said(have.disk)} free"
            what += f" {_said(MARGIN)} are left to others"
            yield Fault(what, hint="free disk, or give --store on another one")
        if self.device == "cuda":
            most, where = have.accelerator, "the accelerator has"
            wanted, workers = need.memory(self.workers), ""
        else:
            most, where = have.memory, "are available"
            wanted, workers = need.memory(self.workers), f" for {self.workers} workers"
        if most is not None and wanted > most:
            if self.workers > 1 and need.memory(1) <= most:
                fewer = max(1, (most - need.shared) // max(1, need.worker))
                hint = f"give --workers {fewer}, or a --micro-batch"
            else:
                hint = "give a --micro-batch, a smaller batch or max_length, or a smaller backbone"
            has = f"{where} {_said(most)}" if self.device == "cuda" else f"{_said(most)} {where}"
            yield Fault(f"about {_said(wanted)} of memory are needed{workers}, {has}", hint=hint)


def look(
    study: Study,
    needed: Sequence[str],
    *,
    workers: int,
    device: str = "cpu",
    micro_batch: int | None = None,
    cohort: int = 1,
) -> Preflight:
    """What the stages need that have these keys, beside what this machine has."""
    found = needs(
        study.plan,
        needed,
        study.works,
        study.backbone.shape,
        study.backbone.parameters,
        workers=max(1, workers),
        micro_batch=micro_batch,
        # A cohort that is too large is trained in halves.
        cohort=1 if device == "cuda" else cohort,
    )
    return Preflight(found, machine(study.store.root, device), max(1, workers), device)


def check(flight: Preflight, where: str) -> None:
    """Refuse to start what cannot fit.

    Raises:
        UsageError: with the first thing that does not, and what to change.
    """
    for fault in flight.faults():
        hint = f"{fault.hint}; --no-preflight starts anyway"
        raise UsageError(fault.what, where=where, hint=hint)


def machine(store: Path, device: str = "cpu") -> Machine:
    """What there is now, for a store in this folder, which need not be there yet."""
    return Machine(
        free_disk(store), free_memory(), accelerator_memory() if device == "cuda" else None
    )


def free_disk(folder: Path) -> int | None:
    """Bytes that may be written where a folder is, or would be."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    with suppress(OSError):
        return shutil.disk_usage(place).free
    return None


def free_memory(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int | None:
    """Bytes of memory that can be had: of the machine, or fewer where a control group has a limit.

    What only caches files counts as free. Windows and macOS do not tell.
    """
    found = [*_of_machine(proc), *_of_groups(proc, cgroups)]
    return min(found, default=None)


def _of_machine(proc: Path) -> Iterator[int]:
    with suppress(OSError, ValueError):
        for line in (proc / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024


def _of_groups(proc: Path, cgroups: Path) -> Iterator[int]:
    """What each group that this process is in leaves, of both versions of control groups."""
    lines: list[str] = []
    with suppress(OSError):
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    for line in lines:
        _, _, rest = line.partition(":")
        kinds, _, name = rest.partition(":")
        if kinds == "":
            top, names = cgroups, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in kinds.split(","):
            top = cgroups / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        place = top / name.lstrip("/")
        for folder in (place, *place.parents):
            with suppress(OSError, ValueError):
                limit = int((folder / names[0]).read_text())
                used = int((folder / names[1]).read_text())
                if limit < _NO_LIMIT:
                    yield max(0, limit - used + _statistic(folder, names[2]))
            if folder == top:
                break


def _statistic(folder: Path, name: str) -> int:
    with suppress(OSError, ValueError):
        for line in (folder / "memory.stat").read_text().splitlines():
            if line.split(" ")[0] == name:
                return int(line.split(" ")[1])
    return 0


def accelerator_memory() -> int | None:
    """Bytes that are free on the first CUDA device this process may use, as its driver says."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
    command = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    command += [f"--id={chosen}"] if chosen else []
    with suppress(OSError, ValueError, subprocess.SubprocessError):
        told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return int(told.stdout.splitlines()[0]) << 20
    return None


def _said(size: int | None) -> str:
    """Bytes as a person says them."""
    if size is None:
        return "an unknown amount"
    return f"{size / GIB:.1f} GiB" if size >= GIB // 10 else f"{max(1, size >> 20)} MiB"
