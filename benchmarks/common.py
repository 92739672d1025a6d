"""On what machine a benchmark ran, and where its numbers are kept. Imports no torch."""

from __future__ import annotations

import datetime
import json
import os
import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Processor, cores, gigabytes of memory, versions and the date."""
    found: dict[str, Any] = {"cpu": platform.processor() or platform.machine()}
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("model name"))
        found["cpu"] = line.partition(":")[2].strip()
    found["cores"] = os.cpu_count()
    with suppress(OSError, ValueError, AttributeError):
        found["memory"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    found["python"] = platform.python_version()
    for name in ("torch", "transformers", "adapters"):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    found["date"] = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    return found


def kept(name: str) -> dict[str, Any]:
    """What was kept of a benchmark; nothing where there is none."""
    file = RESULTS / f"{name}.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return {part: value for part, value in found.items() if part != "machine"}


def keep(name: str, result: dict[str, Any]) -> None:
    """Write a benchmark's result to ``benchmarks/results``, with the machine it is from."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"machine": machine(), **result}, indent=1, ensure_ascii=False)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
