"""Studies whose trainings share passes over the backbone: same scores, failures fenced in."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import safetensors.torch
import torch

from adapterxlt.compute.steps import Step
from adapterxlt.compute.training import Run
from adapterxlt.core.errors import StageError
from adapterxlt.report.results import collect
from adapterxlt.run.cohorts import cohort_size, signature
from adapterxlt.run.study import Study


def opened(folder: Path, text: str, backbone: Path, store: str, *overrides: str) -> Study:
    path = folder / "small.yaml"
    path.write_text(text, encoding="utf-8")
    return Study.open(path, store=folder / store, backbone=str(backbone), overrides=overrides)


def weights(study: Study, key: str) -> dict[str, torch.Tensor]:
    record = study.store.read(key)
    assert record is not None
    found = {}
    for name, digest in record.files.items():
        if name.endswith(".safetensors"):
            tensors = safetensors.torch.load(study.store.get(digest))
            found |= {f"{name}/{tensor}": value for tensor, value in tensors.items()}
    return found


def sizes(study: Study) -> dict[str, int]:
    records = ((key, study.store.read(key)) for key in study.plan.stages)
    return {key: record.facts.get("cohort", 1) for key, record in records if record is not None}


def test_a_study_in_cohorts_equals_one_without(
    tmp_path: Path, small_text: str, tiny_backbone: Path
) -> None:
    more = ("seeds=[1,2]", "draws=[1,2]")
    alone = opened(tmp_path, small_text, tiny_backbone, "alone", *more)
    together = opened(tmp_path, small_text, tiny_backbone, "together", *more)
    assert not alone.run(workers=0).failed
    outcome = together.run(workers=0, cohort=5)
    assert not outcome.failed and Counter(outcome.computed) == Counter(list(alone.plan.stages))
    found = sizes(together)
    assert set(sizes(alone).values()) == {1} and max(found.values()) == 5
    trained = [k for k, s in alone.plan.stages.items() if s.kind == "train"]
    assert sum(found[key] > 1 for key in trained) > len(trained) / 2
    for key in trained:
        for name, wanted in weights(alone, key).items():
            torch.testing.assert_close(weights(together, key)[name], wanted, rtol=1e-3, atol=1e-5)
    pairs = zip(collect(alone), collect(together), strict=True)
    assert all(abs(one["score"] - other["score"]) < 0.02 for one, other in pairs)


def test_one_that_fails_in_a_cohort_blocks_only_what_needs_it(
    tmp_path: Path, small_text: str, tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = opened(tmp_path, small_text, tiny_backbone, "s", "draws=[1,2,3]")
    whole = Run.end

    def end(run: Run, step: Step, loss: float) -> None:
        names = {stream.name for stream in run.streams}
        if names == {"lab-pos:lab-far-low"} and step.number == 2:
            raise StageError("it broke")
        whole(run, step, loss)

    monkeypatch.setattr(Run, "end", end)
    outcome = study.run(workers=0, cohort=4)
    failed = {study.plan.labels[key] for key in outcome.failed}
    assert failed and all("lab-far-low" in label for label in failed)
    assert set(outcome.failed.values()) == {"it broke"}
    assert set(outcome.computed) | set(outcome.failed) | set(outcome.blocked) == set(
        study.plan.stages
    )
    assert max(sizes(study).values()) > 1
    monkeypatch.undo()
    again = opened(tmp_path, small_text, tiny_backbone, "s", "draws=[1,2,3]")
    mended = again.run(workers=0, cohort=4)
    assert not mended.failed and set(mended.computed) == {*outcome.failed, *outcome.blocked}


def test_what_may_be_trained_together(tmp_path: Path, small_text: str, tiny_backbone: Path) -> None:
    study = opened(tmp_path, small_text, tiny_backbone, "s", "seeds=[1,2]")
    found = {key: signature(study.plan, key) for key in study.plan.stages}
    groups = Counter(value for value in found.values() if value is not None)
    kinds = {key: study.plan.stages[key] for key in found}
    assert all((found[key] is None) == (stage.kind != "train") for key, stage in kinds.items())
    # Language adapters, and task adapters.
    assert len(groups) == 2 and min(groups.values()) == 3
    for override in (
        "task_adapter={method: lora}",
        "task_adapter={method: prefix_tuning}",
        "task_adapter={method: peft_lora}",
    ):
        other = opened(tmp_path, small_text, tiny_backbone, "s", override)
        alone = [signature(other.plan, key) for key in other.plan.stages]
        assert len({value for value in alone if value is not None}) == 1
    assert cohort_size(None, "cpu") == 1 and cohort_size(None, "cuda") == 16
    assert cohort_size(3, "cpu") == 3
