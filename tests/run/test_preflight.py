"""Before anything starts: what stages need beside what was measured, and what there is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adapterxlt import lab
from adapterxlt.core.errors import UsageError
from adapterxlt.core.needs import Needs
from adapterxlt.run import preflight
from adapterxlt.run.pools import ProcessPool
from adapterxlt.run.preflight import GIB, MARGIN, Machine, Preflight, check, free_memory, look
from adapterxlt.run.study import Study

#: Estimates of disk and of memory are within this of what is measured; see `core.needs.needs`.
FACTOR = 3.0


def used(folder: Path) -> int:
    """Bytes of blocks that a folder takes."""
    files = (path.lstat() for path in folder.rglob("*") if path.is_file())
    return sum(max(status.st_size, 512 * status.st_blocks) for status in files)


def measured(study: Study) -> tuple[Preflight, int, int]:
    """What was foretold of a study, and the disk and memory that its run took."""
    told = look(study, study.needed(), workers=1)
    before = used(study.store.root)
    outcome = study.run(pool=ProcessPool(1))
    assert not outcome.failed
    records = [study.store.read(key) for key in study.plan.stages]
    peaks = [record.facts.get("peak_memory") for record in records if record is not None]
    return told, used(study.store.root) - before, max(filter(None, peaks), default=0)


def near(told: float, found: float) -> bool:
    return found / FACTOR <= told <= found * FACTOR


@pytest.fixture(scope="module")
def lab_sized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone as large as the laboratory's, hardly trained."""
    from adapterxlt.compute.pretraining import pretrain

    folder = tmp_path_factory.mktemp("lab") / "backbone"
    folder.mkdir()
    pretrain(folder, spec={**lab.DEFAULT_SPEC, "steps": 2, "batch": 8}, seed=0)
    return folder


def test_estimates_are_near_what_is_measured_in_the_laboratory(
    tmp_path: Path, small_text: str, lab_sized: Path
) -> None:
    recipe = tmp_path / "small.yaml"
    recipe.write_text(small_text)
    study = Study.open(recipe, store=tmp_path / "store", backbone=str(lab_sized))
    told, disk, memory = measured(study)
    print(f"\ndisk {told.needs.left:,} told, {disk:,} found;", end=" ")
    print(f"memory {told.needs.memory(1):,} told, {memory:,} found")
    assert near(told.needs.left, disk)
    assert memory == 0 or near(told.needs.memory(1), memory)


@pytest.mark.shared
def test_estimates_are_near_what_is_measured_on_a_real_backbone(
    tmp_path: Path, shared: Path
) -> None:
    recipe = tmp_path / "real.yaml"
    recipe.write_text(
        "name: real\nsource: en\ntargets: [fi]\ntasks: [udpos]\nregimes: [sequential, joint]\n"
        "shots: [10]\nbudget: {steps: 6, batch: 32}\nlimits: {train: 400, test: 200, text: 600}\n"
    )
    data, backbone = str(shared / "data"), str(shared / "models" / "mini")
    study = Study.open(recipe, store=tmp_path / "store", data=data, backbone=backbone)
    told, disk, memory = measured(study)
    print(f"\ndisk {told.needs.left:,} told, {disk:,} found;", end=" ")
    print(f"memory {told.needs.memory(1):,} told, {memory:,} found")
    assert near(told.needs.left, disk)
    assert memory == 0 or near(told.needs.memory(1), memory)


@pytest.fixture
def study(tmp_path: Path, small_text: str, tiny_backbone: Path) -> Study:
    recipe = tmp_path / "small.yaml"
    recipe.write_text(small_text)
    return Study.open(recipe, store=tmp_path / "store", backbone=str(tiny_backbone))


def test_more_needs_more(study: Study, tmp_path: Path) -> None:
    keys = study.needed()
    one = look(study, keys, workers=1).needs
    four = look(study, keys, workers=4).needs
    assert four.memory(4) > 3 * one.worker and four.scratch == 4 * one.scratch
    assert four.left == one.left > look(study, keys[:2], workers=1).needs.left
    assert look(study, keys, workers=1, micro_batch=1).needs.worker < one.worker
    assert look(study, keys, workers=1, cohort=8).needs.worker > one.worker
    assert look(study, [], workers=1).needs.left == 0


NEEDS = Needs(left=10 * GIB, scratch=GIB, shared=GIB, worker=2 * GIB)


@pytest.mark.parametrize(
    ("machine", "workers", "device", "said"),
    [
        (Machine(20 * GIB, 20 * GIB), 4, "cpu", ()),
        (Machine(None, None), 4, "cpu", ()),
        (Machine(11 * GIB + MARGIN - 1, 20 * GIB), 1, "cpu",
         ("grow by about 11.0 GiB; of 11.2 GiB free 0.2 GiB are left to others; free disk, or",)),
        (Machine(20 * GIB, 6 * GIB), 4, "cpu",
         ("about 9.0 GiB of memory are needed for 4 workers, 6.0 GiB are available; "
          "give --workers 2, or a --micro-batch",)),
        (Machine(20 * GIB, 2 * GIB), 4, "cpu", ("give a --micro-batch, a smaller batch",)),
        (Machine(5 * GIB, 2 * GIB), 1, "cpu", ("grow by about", "of memory are needed")),
        (Machine(20 * GIB, GIB, 4 * GIB), 1, "cuda", ()),
        (Machine(20 * GIB, 20 * GIB, 2 * GIB), 1, "cuda",
         ("of memory are needed, the accelerator has 2.0 GiB; give a --micro-batch",)),
        (Machine(20 * GIB, 20 * GIB, None), 1, "cuda", ()),
    ],
)  # fmt: skip
def test_what_cannot_fit_is_told_with_what_to_change(
    machine: Machine, workers: int, device: str, said: tuple[str, ...]
) -> None:
    flight = Preflight(NEEDS, machine, workers, device)
    found = [str(fault) for fault in flight.faults()]
    assert len(found) == len(said) and all(b in a for a, b in zip(found, said, strict=True)), found
    if said:
        with pytest.raises(UsageError, match=r"^s: .*; --no-preflight starts anyway$"):
            check(flight, "s")
    else:
        check(flight, "s")
    assert flight.line().startswith("Needs about 11.0 GiB of disk (")


# What a machine has


def put(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.fixture
def system(tmp_path: Path) -> Callable[..., int | None]:
    """``system(cgroup)`` asks a made-up /proc and /sys/fs/cgroup with 8 GiB available."""

    def ask(cgroup: str = "", meminfo: str = f"MemAvailable: {8 << 20} kB\n") -> int | None:
        proc = tmp_path / "proc"
        put(proc, meminfo=f"MemTotal: 1 kB\n{meminfo}")
        put(proc / "self", cgroup=cgroup)
        return free_memory(proc, tmp_path / "groups")

    return ask


def test_memory_is_the_machines_or_the_control_groups(
    tmp_path: Path, system: Callable[..., int | None]
) -> None:
    groups = tmp_path / "groups"
    assert system() == 8 * GIB and system("0::/job/step\n") == 8 * GIB
    put(groups / "job" / "step", memory__max="max", memory__current="5")
    put(groups / "job", memory__max=f"{4 * GIB}", memory__current=f"{3 * GIB}")
    assert system("0::/job/step\n") == GIB
    put(groups / "job", memory__stat=f"active_file 7\ninactive_file {GIB}\n")
    assert system("0::/job/step\n") == 2 * GIB
    put(groups / "job", memory__max="0")
    assert system("0::/job/step\n") == 0
    old = {"memory.limit_in_bytes": str(2 * GIB), "memory.usage_in_bytes": str(GIB)}
    for name, text in old.items():
        put(groups / "memory" / "mine", **{name: text})
    assert system("4:cpu,memory:/mine\n1:cpu:/\n") == GIB
    put(groups / "memory" / "mine", **{"memory.limit_in_bytes": str(2**63 - 4096)})
    assert system("4:cpu,memory:/mine\n") == 8 * GIB
    assert system("nonsense\n", "MemAvailable: many kB\n") is None


def test_disk_is_that_of_the_folder_above_where_there_is_none(tmp_path: Path) -> None:
    free = preflight.free_disk(tmp_path)
    there = preflight.free_disk(tmp_path / "not" / "yet")
    assert free and there and abs(free - there) < GIB


def test_of_an_accelerator_the_drivers_own_tool_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **how: Any) -> Any:
        asked.append(command)
        assert how["timeout"]
        return SimpleNamespace(stdout="1234\n")

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setattr(subprocess, "run", run)
    assert preflight.accelerator_memory() == 1234 << 20 and asked[0][-1] == "--id=3"
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: SimpleNamespace(stdout="?"))
    assert preflight.accelerator_memory() is None
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert preflight.accelerator_memory() is None


def test_looking_imports_no_torch() -> None:
    program = "import sys, adapterxlt.run.preflight as p; from pathlib import Path; "
    program += "p.machine(Path('x'), 'cuda'); assert not {'torch', 'numpy'} & set(sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
