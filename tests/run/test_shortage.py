"""Memory that is short: fewer rows at once, the same batches; losses that are lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from adapterxlt.compute.backbone import Backbone
from adapterxlt.core.plan import Stage
from adapterxlt.run.desk import Places, desk_for
from adapterxlt.run.requests import Request
from adapterxlt.run.study import Study

RECIPE = """\
name: short
data: lab
source: lab-root
targets: [lab-near-high]
tasks: [lab-pos]
regimes: [zero-shot]
budget: {steps: 4, batch: 8, lr: 1e-3}
language_adapters: null
limits: {train: 40, test: 12}
"""
Limit = Callable[[Callable[[int], bool]], None]


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Limit:
    """Have memory be short when the number of windows of a batch says so."""
    whole = Backbone.scored

    def limited(fits: Callable[[int], bool]) -> None:
        def scored(self: Backbone, batch: Any, *more: Any) -> torch.Tensor:
            if not fits(len(batch.spots)):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return whole(self, batch, *more)

        monkeypatch.setattr(Backbone, "scored", scored)

    return limited


@pytest.fixture
def run(tmp_path: Path, tiny_backbone: Path) -> Callable[..., tuple[Study, Any]]:
    recipe = tmp_path / "short.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")

    def ran(name: str, **more: Any) -> tuple[Study, Any]:
        desk_for.cache_clear()
        study = Study.open(recipe, store=tmp_path / name, backbone=str(tiny_backbone))
        return study, study.run(workers=0, **more)

    return ran


def trained(study: Study) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    [key] = [key for key, stage in study.plan.stages.items() if stage.kind == "train"]
    record = study.store.read(key)
    assert record is not None
    return safetensors.torch.load(study.store.get(record.files["adapter.safetensors"])), {
        **record.facts
    }


def test_training_goes_on_with_fewer_rows_at_once(run: Any, limit: Limit) -> None:
    whole, outcome = run("whole")
    assert not outcome.failed
    limit(lambda windows: windows <= 3)
    less, outcome = run("less")
    assert not outcome.failed
    (wanted, told), (found, facts) = trained(whole), trained(less)
    # Eight, four, two; the batch of a step and so the number of examples stay.
    assert facts["micro_batch"] == 2 and "micro_batch" not in told
    assert facts["examples"] == told["examples"] == 32
    for name, tensor in wanted.items():
        assert torch.allclose(found[name], tensor, atol=2e-5), name
    losses = [[loss for _, loss in facts["losses"]] for facts in (facts, told)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_training_goes_on_from_its_snapshot(run: Any, limit: Limit) -> None:
    seen: list[int] = []

    def fits(windows: int) -> bool:
        seen.append(windows)
        return len(seen) != 3

    limit(fits)
    study, outcome = run("late", snapshot_every=0)
    assert not outcome.failed
    facts = trained(study)[1]
    assert facts["micro_batch"] == 4 and facts["resumed_at"] == 2
    # Two whole steps, one that failed, two steps of two halves; then the tests.
    assert seen[:7] == [8, 8, 8, 4, 4, 4, 4]


def test_an_evaluation_looks_at_fewer_windows(run: Any, limit: Limit) -> None:
    whole, _ = run("store")
    keys = [key for key, stage in whole.plan.stages.items() if stage.kind == "evaluate"]

    def said() -> list[bytes]:
        records = [whole.store.read(key) for key in keys]
        return [whole.store.get(one.files["predictions.jsonl"]) for one in records if one]

    wanted = said()
    for key in keys:
        whole.store.forget(key)
    most: list[int] = []
    limit(lambda windows: windows <= 5 and not most.append(windows))
    _, outcome = run("store")
    assert set(outcome.computed) == set(keys)
    assert said() == wanted and max(most) > 1


def test_what_memory_never_holds_fails_with_its_reason(run: Any, limit: Limit) -> None:
    limit(lambda windows: False)
    _, outcome = run("never")
    [reason] = outcome.failed.values()
    assert "out of memory, and its batches cannot be made smaller" in reason
    assert outcome.exit_code == 1 and len(outcome.blocked) == 2 and not outcome.tails


def test_another_error_is_not_tried_again(
    run: Any, limit: Limit, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def broken(self: Backbone, batch: Any, *more: Any) -> torch.Tensor:
        calls.append(len(batch.spots))
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Backbone, "scored", broken)
    _, outcome = run("other")
    [reason] = outcome.failed.values()
    assert reason == "RuntimeError: shapes do not match" and calls == [8]
    [tail] = outcome.tails.values()
    assert 'raise RuntimeError("shapes do not match")' in tail


@pytest.mark.parametrize(
    ("objective", "given", "batches", "left"),
    [
        ("macro", None, [None, 12], 6),
        ("macro", 4, [None], 2),
        ("micro", 100, [16], 8),
        ("macro", 1, [None], None),
        ("mixup", None, [None], None),
    ],
)
def test_half_as_many_rows(
    objective: str, given: int | None, batches: list[int | None], left: int | None
) -> None:
    streams = [{"split": "train", "batch": batch} for batch in batches]
    params = {"objective": objective, "budget": {"batch": 8}, "streams": streams}
    places = Places(Path("/none"), "lab", "lab", micro_batch=given)  # type: ignore[arg-type]
    less = Request("k", "l", Stage("train", params, {}), places).smaller()
    assert (less and less.rows) == left


def test_a_training_that_diverges_keeps_its_last_snapshot(
    tmp_path: Path, tiny_backbone: Path
) -> None:
    recipe = tmp_path / "wild.yaml"
    recipe.write_text(RECIPE.replace("lr: 1e-3", "lr: 1e30"), encoding="utf-8")
    study = Study.open(recipe, store=tmp_path / "store", backbone=str(tiny_backbone))
    outcome = study.run(workers=0, snapshot_every=0)
    [(key, reason)] = outcome.failed.items()
    assert "the loss is nan at step 2 of 4; lower the learning rate" in reason
    assert len(outcome.blocked) == 2 and outcome.exit_code == 1
    assert (study.store.work(key) / "snapshot").is_file()
    tensors = safetensors.torch.load((study.store.work(key) / "snapshot").read_bytes()[64:])
    assert json.loads(tensors["facts"].numpy().tobytes())["step"] == 1
    assert all(tensor.isfinite().all() for tensor in tensors.values())
