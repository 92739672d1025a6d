"""One stage trained by two processes, as `torchrun` starts them, equals one by itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch

from adapterxlt.compute.ranks import Ranks
from adapterxlt.run.study import Study

MORE = [
    "regimes=[zero-shot,joint,{name: mixed, phases: [{name: mixed, languages: [source, target],"
    " objective: mixup}]}]",
    "budget.batch=7",
]


def two_of(*program: str) -> subprocess.CompletedProcess[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # What `accelerate launch` runs for several GPUs; for CPUs it starts one process.
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2",
        "--master_port", str(port), *program,
    ]  # fmt: skip
    repository = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=environment, check=False
    )


def launch(recipe: Path, store: Path, backbone: Path) -> subprocess.CompletedProcess[str]:
    given = ["--store", str(store), "--backbone", str(backbone)]
    out = ["--out", str(store.parent / "out")]
    return two_of("-m", "adapterxlt", "run", str(recipe), *given, *out, *MORE)


def trained(study: Study) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    for key, stage in study.plan.stages.items():
        record = study.store.read(key)
        assert record is not None
        for name, digest in record.files.items():
            if stage.kind == "train":
                tensors = safetensors.torch.load(study.store.get(digest))
                yield f"{study.plan.labels[key]}/{name}", tensors


def test_two_processes_make_the_steps_of_one(
    tmp_path: Path, small_text: str, tiny_backbone: Path
) -> None:
    recipe = tmp_path / "small.yaml"
    recipe.write_text(small_text, encoding="utf-8")

    def opened(store: str) -> Study:
        return Study.open(
            recipe, store=tmp_path / store, backbone=str(tiny_backbone), overrides=MORE
        )

    alone = opened("alone")
    assert not alone.run(workers=0).failed
    done = launch(recipe, tmp_path / "two", tiny_backbone)
    assert done.returncode == 0, done.stderr
    two = opened("two")
    assert two.done() == set(two.plan.stages)
    # Printed and reported once.
    assert done.stdout.count("zero-shot") == 1
    assert not list((tmp_path / "two" / "work" / "stages").glob("*"))
    pairs = list(zip(trained(alone), trained(two), strict=True))
    assert len(pairs) > 10
    for (name, wanted), (same, found) in pairs:
        assert name == same
        for tensor, value in wanted.items():
            torch.testing.assert_close(found[tensor], value, rtol=1e-3, atol=2e-5, msg=name)
    equal = [all(torch.equal(found[t], v) for t, v in w.items()) for (_, w), (_, found) in pairs]
    # Sums in another order: if all were the same to the bit, nothing was shared.
    assert not all(equal)


def test_a_failure_ends_all_processes(tmp_path: Path, small_text: str, tiny_backbone: Path) -> None:
    recipe = tmp_path / "small.yaml"
    recipe.write_text(small_text, encoding="utf-8")
    whole = MORE[:]
    try:
        MORE.append("budgets={joint: {lr: 1e30}}")
        done = launch(recipe, tmp_path / "two", tiny_backbone)
    finally:
        MORE[:] = whole
    assert done.returncode != 0
    assert "the loss is nan" in done.stderr
    study = Study.open(recipe, store=tmp_path / "two", backbone=str(tiny_backbone), overrides=MORE)
    assert 0 < len(study.done()) < len(study.plan.stages)


LEAVES = """
import atexit, sys
import torch.distributed
from adapterxlt.compute.ranks import ranks

# Called after what is registered later.
atexit.register(lambda: sys.stdout.write(f"{torch.distributed.is_initialized()}\\n"))
assert ranks().count == 2 and ranks().agree("x") == "x" and torch.distributed.is_initialized()
"""


def test_the_group_ends_before_the_interpreter_does(tmp_path: Path) -> None:
    program = tmp_path / "leaves.py"
    program.write_text(LEAVES, encoding="utf-8")
    done = two_of(str(program))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False", "False"]


def test_a_process_by_itself_is_all_there_is() -> None:
    ranks, parameter = Ranks(), torch.nn.Parameter(torch.ones(2))
    assert ranks.first and all(ranks.mine(i) for i in range(3)) and ranks.agree("x") == "x"
    assert ranks.sum(2.0, [parameter]) == 2.0 and parameter.grad is None


@pytest.mark.parametrize("count", [2, 3])
def test_every_piece_of_work_has_one_process(count: int) -> None:
    each = []
    for number in range(count):
        ranks = Ranks()
        ranks.count, ranks.number = count, number
        each.append(ranks)
    assert all(sum(ranks.mine(place) for ranks in each) == 1 for place in range(10))
