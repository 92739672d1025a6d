"""The Ray pool: the same bytes as in this process, behind a token, also on a node without the
store; actors that die are replaced."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from importlib.util import find_spec
from pathlib import Path

import pytest

from adapterxlt.core.errors import UsageError
from adapterxlt.run.ray_pool import NODE_STORE, RayPool
from adapterxlt.run.study import Study

# Not imported here: what makes a cluster private is read when Ray is.
pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")


@pytest.fixture(scope="module")
def recipe(small_text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(small_text.replace("lab-near-high, ", ""), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def alone(recipe: Path, tiny_backbone: Path) -> Study:
    study = opened(recipe, tiny_backbone, recipe.parent / "alone")
    assert not study.run(workers=0).failed
    return study


@pytest.fixture
def pool() -> Iterator[RayPool]:
    made = RayPool(2)
    yield made
    made.close(now=True)


def opened(recipe: Path, backbone: Path, store: Path) -> Study:
    return Study.open(recipe, store=store, backbone=str(backbone))


def files(study: Study) -> dict[str, object]:
    records = {key: study.store.read(key) for key in study.plan.stages}
    assert all(record is not None for record in records.values())
    return {key: record.files for key, record in records.items() if record is not None}


def test_a_study_has_the_bytes_that_it_has_in_this_process(
    recipe: Path, tiny_backbone: Path, alone: Study, tmp_path: Path, pool: RayPool
) -> None:
    study = opened(recipe, tiny_backbone, tmp_path / "s")
    outcome = study.run(pool=pool)
    assert not outcome.failed and len(outcome.computed) == len(study.plan.stages)
    assert files(study) == files(alone)
    # Nothing of Ray's is left in the store.
    assert not list((tmp_path / "s" / "work" / "ray").glob("*"))


def test_a_node_that_does_not_see_the_store_is_sent_what_it_reads(
    recipe: Path,
    tiny_backbone: Path,
    alone: Study,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = tmp_path / "node"
    monkeypatch.setenv(NODE_STORE, str(node))
    study = opened(recipe, tiny_backbone, tmp_path / "s")
    outcome = study.run(pool=RayPool(1))
    assert not outcome.failed
    assert files(study) == files(alone)
    # They were computed there, and not in the driver's store.
    assert len(list((node / "records").glob("??/*.json"))) == len(study.plan.stages)


def test_an_actor_that_dies_is_replaced(
    recipe: Path, tiny_backbone: Path, tmp_path: Path, pool: RayPool
) -> None:
    study = opened(recipe, tiny_backbone, tmp_path / "s")
    first = next(iter(study.plan.stages))
    future = pool.submit(study.request(first))
    import ray

    for seat in list(pool._seats):
        ray.kill(seat.actor)
    with pytest.raises(BrokenProcessPool):
        future.result(timeout=60)
    for _ in range(3):
        try:
            assert pool.submit(study.request(first)).result(timeout=120) in (True, False)
            break
        except BrokenProcessPool:
            pool.renew()
    assert first in study.store


def test_nobody_enters_without_the_token(
    recipe: Path, tiny_backbone: Path, tmp_path: Path, pool: RayPool
) -> None:
    study = opened(recipe, tiny_backbone, tmp_path / "s")
    first = next(iter(study.plan.stages))
    assert pool.submit(study.request(first)).result(timeout=120)
    import ray

    address = ray.get_runtime_context().gcs_address
    assert address.startswith("127.0.0.1:")
    program = "import ray, sys; ray.init(sys.argv[1], logging_level='error'); print(ray.nodes())"
    plain = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    for more, enters in (({}, False), ({"RAY_AUTH_TOKEN": "0" * 64}, False), (None, True)):
        environment = os.environ if more is None else {**plain, "RAY_AUTH_MODE": "token", **more}
        command = [sys.executable, "-c", program, address]
        # Who is refused tries again for long.
        patience = 10 if enters is False else 120
        try:
            done = subprocess.run(
                command,
                env=environment,
                capture_output=True,
                text=True,
                timeout=patience,
                check=False,
            )
            entered = done.returncode == 0 and "NodeID" in done.stdout
        except subprocess.TimeoutExpired:
            entered = False
        assert entered is enters


def test_closing_now_does_not_wait(
    recipe: Path, tiny_backbone: Path, tmp_path: Path, pool: RayPool
) -> None:
    study = opened(recipe, tiny_backbone, tmp_path / "s")
    future = pool.submit(study.request(next(iter(study.plan.stages))))
    started = time.monotonic()
    pool.close(now=True)
    assert time.monotonic() - started < 8
    assert future.cancelled() or isinstance(future.exception(timeout=1), BaseException)


def test_what_is_not_there_is_one_error(recipe: Path, tiny_backbone: Path, tmp_path: Path) -> None:
    study = opened(recipe, tiny_backbone, tmp_path / "s")
    far = RayPool(1, memory=1 << 60)
    with pytest.raises(UsageError, match="no node has room"):
        far.submit(study.request(next(iter(study.plan.stages))))
