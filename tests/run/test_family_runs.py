"""The family of regimes through the worker: what each leaves in the store, to the byte."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapterxlt.compute.data import Encoded
from adapterxlt.core.plan import Cell, Stage
from adapterxlt.corpora import reading
from adapterxlt.corpora.sources import LabCorpus
from adapterxlt.report.results import collect, missing
from adapterxlt.run import desk as desk_module
from adapterxlt.run import worker
from adapterxlt.run.desk import Desk, desk_for
from adapterxlt.run.pools import SerialPool
from adapterxlt.run.requests import Request
from adapterxlt.run.scheduler import Silent
from adapterxlt.run.study import Study
from adapterxlt.store.store import Record, Store

FAMILY = """\
name: family
data: lab
source: lab-root
targets: [lab-near-high]
tasks: [lab-pos]
intermediate: {lab-ner: [lab-root, lab-near-high]}
regimes:
  - zero-shot
  - zero-shot-average
  - zero-shot-oracle
  - multi-stage-stack
  - intermediate-multilingual-fuse
  - run-average
  - target-ready
  - bad-x
  # As adapter-drop, for two layers.
  - {name: dropped, drop: 1, phases: [{name: source, languages: [source], drop: random}]}
  - ada-merge
  - full-fine-tuning
  - name: frozen-head
    phases:
      - {name: source, languages: [source]}
      - {name: frozen, languages: [target], head: freeze}
shots: [10]
budget: {steps: 4, batch: 8, lr: 1e-3}
budgets:
  source: {snapshots: 3, lr: 1e-2}
language_adapters:
  budget: {steps: 3}
  combine: {lab-near-high: {lab-near-high: 0.75, lab-far-low: 0.25}}
limits: {train: 60, test: 15, text: 40}
"""
COMMAND = [sys.executable, "-c", "from adapterxlt.cli import main; main()"]


class Noting(Silent):
    """Takes the digest of what a stage left as soon as it is done, and of the backbone."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.files: dict[str, dict[str, str]] = {}
        self.backbones: set[str] = set()

    def finished(self, key: str, error: Exception | None) -> None:
        assert error is None, error
        self.files[key] = digests(self.study, key)
        loaded = desk_for(self.study.places)._loaded
        if loaded is not None:
            self.backbones.add(loaded[1].digest())


def digests(study: Study, key: str) -> dict[str, str]:
    files = record(study, key).files
    return {n: hashlib.sha256(study.store.get(at)).hexdigest() for n, at in files.items()}


def folder_digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def record(study: Study, key: str) -> Record:
    found = study.store.read(key)
    assert found is not None
    return found


def opened(text: str, folder: Path, backbone: Path, *overrides: str) -> Study:
    path = folder / "r.yaml"
    path.write_text(text, encoding="utf-8")
    return Study.open(path, store=folder / "s", backbone=str(backbone), overrides=overrides)


@pytest.fixture(scope="module")
def family(
    tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Study, Noting, dict[str, str]]:
    """A study of many regimes, finished; what was noted on the way; the backbone's files before."""
    before = folder_digests(tiny_backbone)
    study = opened(FAMILY, tmp_path_factory.mktemp("family"), tiny_backbone)
    noting = Noting(study)
    outcome = study.run(workers=0, listener=noting)
    assert not outcome.failed and not outcome.blocked, outcome
    return study, noting, before


@pytest.fixture
def study(family: tuple[Study, Noting, dict[str, str]]) -> Study:
    return family[0]


@pytest.fixture
def desk(study: Study) -> Iterator[Desk]:
    desk = desk_for(study.places)
    yield desk
    desk.reset()


def trained(study: Study, regime: str, **fields: object) -> str:
    """The key of what a cell of a regime scores."""
    return evaluation(study, regime, **fields).inputs["trained"]


def evaluation(study: Study, regime: str, target: str = "lab-near-high", **fields: object) -> Stage:
    _, key = study.cell(regime=regime, target=target, **fields)
    return study.plan.stages[key]


def same(left: Any, right: Any) -> bool:
    """Equal tensors under equal names, to the bit."""
    import torch

    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


def test_every_regime_runs_once_and_is_scored(
    family: tuple[Study, Noting, dict[str, str]],
) -> None:
    study, noting, _ = family
    assert noting.files.keys() == study.plan.stages.keys() and missing(study) == []
    regimes = {row["regime"] for row in collect(study) if row["target"] == "lab-near-high"}
    assert regimes == {regime.name for regime in study.recipe.regime_list}


def test_no_stage_changes_what_an_earlier_one_left(
    family: tuple[Study, Noting, dict[str, str]], tiny_backbone: Path
) -> None:
    study, noting, before = family
    assert {key: digests(study, key) for key in study.plan.stages} == noting.files
    assert len(noting.backbones) == 1
    assert folder_digests(tiny_backbone) == before, "also not full fine-tuning"


def test_what_is_trained_is_what_the_plan_counts(study: Study) -> None:
    for key, stage in study.plan.stages.items():
        if stage.kind == "train" and stage.params.get("head") != "freeze":
            adapter = stage.params["adapter"]
            if adapter is None or adapter["method"] != "full":
                assert record(study, key).facts["parameters"] == study.work(key).parameters


def test_a_stacked_stage_trains_its_own_adapter_on_a_frozen_one(study: Study, desk: Desk) -> None:
    score = evaluation(study, "multi-stage-stack")
    upper = score.inputs["trained"]
    lower = study.plan.stages[upper].inputs["below"]
    made = desk.composition(upper)
    assert [part.key for part in made.frozen] == [lower] and made.own.key == upper
    assert made.heads["lab-pos"].key == upper
    model, labels, _ = desk.compose(score)
    backbone, stack = model.backbone, model.stack
    assert len(stack) == 3 and "NOUN" in labels, "language, multilingual, bilingual"
    assert all(isinstance(name, str) for name in stack)
    assert same(backbone.weights(str(stack[1])), desk.tensors(lower, "adapter"))
    assert same(backbone.weights(str(stack[2])), desk.tensors(upper, "adapter"))
    assert not same(desk.tensors(lower, "adapter"), desk.tensors(upper, "adapter"))
    assert set(record(study, upper).files) == {"adapter.safetensors", "head-lab-pos.safetensors"}


def test_a_fusion_trains_itself_and_the_head_alone(study: Study, desk: Desk) -> None:
    score = evaluation(study, "intermediate-multilingual-fuse")
    key = score.inputs["trained"]
    stage = study.plan.stages[key]
    members = [stage.inputs["fuse:0"], stage.inputs["fuse:1"]]
    made = desk.composition(key)
    assert [part.key for part in made.own.members] == members and made.frozen == ()
    assert set(record(study, key).files) == {"adapter.safetensors", "head-lab-pos.safetensors"}
    names = desk.tensors(key, "adapter").keys()
    assert names and all(any(w in name for w in ("query", "key", "value")) for name in names)
    model, _, _ = desk.compose(score)
    backbone, stack = model.backbone, model.stack
    (_, fused) = stack
    assert isinstance(fused, tuple) and len(fused) == 2
    for name, member in zip(fused, members, strict=True):
        assert same(backbone.weights(name), desk.tensors(member, "adapter"))


def test_the_average_of_snapshots_is_their_mean(study: Study, desk: Desk) -> None:
    import torch

    key = trained(study, "zero-shot-average")
    source = study.plan.stages[key].inputs["member:0"]
    assert source == trained(study, "zero-shot"), "the source phase is shared"
    for part in ("adapter", "head-lab-pos"):
        kept = [desk.tensors(source, part, n) for n in (1, 2, None)]
        assert not same(kept[0], kept[1]) and not same(kept[1], kept[2])
        average = desk.tensors(key, part)
        assert average.keys() == kept[0].keys()
        for name, tensor in average.items():
            mean = torch.stack([k[name].double() for k in kept]).mean(0).float()
            torch.testing.assert_close(tensor, mean, rtol=0, atol=1e-8)


def test_the_best_snapshot_is_the_one_with_the_best_score(study: Study) -> None:
    key = trained(study, "zero-shot-oracle")
    stage, facts = study.plan.stages[key], record(study, key).facts
    metrics = [record(study, stage.inputs[f"score:{n}"]).facts["metrics"] for n in range(3)]
    scores = [metric["accuracy"]["score"] for metric in metrics]
    assert facts["scores"] == scores
    chosen = scores.index(max(scores))
    assert facts["chosen"] == chosen + 1
    at = stage.params["members"][chosen]["snapshot"]
    source = record(study, stage.inputs["member:0"])
    for part in ("adapter", "head-lab-pos"):
        name = f"{part}.safetensors" if at is None else f"{part}.{at}.safetensors"
        assert record(study, key).files[f"{part}.safetensors"] == source.files[name]
    _, cell = study.cell(regime="zero-shot-oracle", target="lab-near-high")
    assert record(study, cell).facts["metrics"]["accuracy"]["score"] == max(scores)


def test_runs_share_the_head_and_are_averaged(study: Study, desk: Desk) -> None:
    import torch

    key = trained(study, "run-average")
    stage = study.plan.stages[key]
    runs = [stage.inputs[f"member:{n}"] for n in range(3)]
    heads = {record(study, run).files["head-lab-pos.safetensors"] for run in runs}
    first = trained(study, "zero-shot")
    assert heads == {record(study, first).files["head-lab-pos.safetensors"]}
    adapters = [desk.tensors(run, "adapter") for run in runs]
    assert not same(adapters[0], adapters[1]) and not same(adapters[1], adapters[2])
    for name, tensor in desk.tensors(key, "adapter").items():
        mean = torch.stack([a[name].double() for a in adapters]).mean(0).float()
        torch.testing.assert_close(tensor, mean, rtol=0, atol=1e-8)


def test_a_frozen_head_stays_to_the_byte(study: Study) -> None:
    key = trained(study, "frozen-head")
    before = record(study, study.plan.stages[key].inputs["previous"]).files
    after = record(study, key).files
    assert after["head-lab-pos.safetensors"] == before["head-lab-pos.safetensors"]
    assert after["adapter.safetensors"] != before["adapter.safetensors"]


def test_a_combined_language_adapter_is_the_weighted_sum(study: Study, desk: Desk) -> None:
    import torch

    score = evaluation(study, "zero-shot")
    merged = score.inputs["language:lab-near-high"]
    stage = study.plan.stages[merged]
    near, far = (desk.tensors(stage.inputs[f"member:{n}"], "adapter") for n in (0, 1))
    for name, tensor in desk.tensors(merged, "adapter").items():
        wanted = 0.75 * near[name].double() + 0.25 * far[name].double()
        torch.testing.assert_close(tensor, wanted.float(), rtol=0, atol=1e-8)
    model, _, _ = desk.compose(score)
    backbone, stack = model.backbone, model.stack
    assert same(backbone.weights(str(stack[0])), desk.tensors(merged, "adapter"))


def test_a_sum_of_phases_is_evaluated_with_the_last_ones_head(study: Study, desk: Desk) -> None:
    import torch

    score = evaluation(study, "ada-merge")
    key = score.inputs["trained"]
    stage = study.plan.stages[key]
    members = [desk.tensors(stage.inputs[f"member:{n}"], "adapter") for n in range(3)]
    for name, tensor in desk.tensors(key, "adapter").items():
        wanted = sum(
            w * m[name].double() for w, m in zip(stage.params["weights"], members, strict=True)
        )
        torch.testing.assert_close(tensor, wanted.float(), rtol=0, atol=1e-8)
    part = desk.composition(key).heads["lab-pos"]
    last = desk.head(stage.inputs["member:0"], "lab-pos")
    assert same(desk.head(part.key, "lab-pos"), last)


def test_full_fine_tuning_reproduces_from_the_store_in_a_fresh_process(
    study: Study, tiny_backbone: Path, tmp_path: Path
) -> None:
    _, key = study.cell(regime="full-fine-tuning", target="lab-near-high")
    copy = tmp_path / "copy"
    shutil.copytree(study.store.root, copy)
    Store(copy).forget(key)
    command = [
        *COMMAND, "run", study.loaded.document.name, "--store", str(copy), "--workers", "0",
        "--backbone", str(tiny_backbone), "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if k != "ADAPTERXLT_STORE"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    again = Store(copy).read(key)
    assert again is not None
    assert again.files == record(study, key).files
    assert again.facts["metrics"] == record(study, key).facts["metrics"]
    other = record(study, study.cell(regime="zero-shot", target="lab-near-high")[1])
    assert again.files != other.files, "the copy of the backbone is worn"


# Studies of their own

BARE = """\
name: bare
data: lab
source: lab-root
targets: [lab-near-high]
tasks: [lab-pos, lab-ner]
intermediate: [lab-pos, lab-ner]
regimes: [multitask-multilingual]
shots: [5]
budget: {steps: 4, batch: 8, lr: 1e-2}
language_adapters: null
limits: {train: 40, test: 12}
"""


def test_multitask_trains_one_adapter_and_a_head_for_each_task(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    text = BARE.replace("[multitask-multilingual]", "[multitask, multitask-temperature]")
    study = opened(text, tmp_path, tiny_backbone)
    outcome = study.run(workers=0)
    assert not outcome.failed
    (one,) = {trained(study, "multitask", task=task) for task in ("lab-pos", "lab-ner")}
    assert set(record(study, one).files) == {
        "adapter.safetensors", "head-lab-ner.safetensors", "head-lab-pos.safetensors",
    }  # fmt: skip
    assert record(study, one).facts["examples"] == 4 * 2 * 8
    desk = desk_for(study.places)
    sizes = {}
    for task in ("lab-pos", "lab-ner"):
        model, labels, _ = desk.compose(evaluation(study, "multitask", task=task))
        backbone, stack = model.backbone, model.stack
        sizes[task] = len(labels)
        assert backbone.weights(desk_module.HEAD).keys()
        assert same(backbone.weights(str(stack[-1])), desk.tensors(one, "adapter"))
        (weight,) = (t for t in backbone.weights(desk_module.HEAD).values() if t.dim() == 2)
        assert len(weight) == len(labels)
        desk.reset()
    assert len(set(sizes.values())) == 2
    scored = {(row["task"], row["regime"]) for row in collect(study)}
    regimes = ("multitask", "multitask-temperature")
    assert scored == {(task, name) for task in sizes for name in regimes}


LIMITED = """\
name: limited
data: lab
source: lab-root
targets: [lab-near-high]
tasks: [lab-pos]
regimes: [sequential]
shots: [5]
budget: {steps: 4, batch: 8, lr: 1e-2}
limits: {train: 40, test: 12, text: 9}
"""


def test_no_more_is_tokenized_than_is_read(
    tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as a limit goes; of shots, their rows."""
    study = opened(LIMITED, tmp_path, tiny_backbone)
    sizes: list[tuple[str, str, str, int]] = []
    original = Desk._encode

    def counted(desk: Desk, backbone: Any, stage: Stage, data: Any) -> Encoded:
        found = original(desk, backbone, stage, data)
        sizes.append((data["task"], data["language"], data["split"], len(found.rows)))
        return found

    monkeypatch.setattr(Desk, "_encode", counted)
    assert not study.run(workers=0).failed
    assert sorted(sizes) == sorted(set(sizes))
    assert {size for size in sizes if size[0] == "lab-pos"} == {
        ("lab-pos", "lab-root", "train", 40),
        ("lab-pos", "lab-near-high", "train", 5), ("lab-pos", "lab-near-high", "test", 12),
    }  # fmt: skip
    assert [n for task, _, _, n in sizes if task == "text"] == [9, 9]


class Guarded(LabCorpus):
    """The labels of one task in other languages than the source can be seen by a scorer alone."""

    scoring = False

    def rows(self, task: str, language: str, split: str) -> Any:
        rows = super().rows(task, language, split)
        if task != "lab-pos" or language == "lab-root":
            return rows
        if split != "test":
            raise AssertionError(f"{split} rows of {language} were read")
        return [Sealed(row) for row in rows]


class Sealed(dict[str, Any]):
    """A row whose label is out of sight until it is scored."""

    def __getitem__(self, name: str) -> Any:
        if name == "upos" and not Guarded.scoring:
            raise AssertionError("a label of a target was read")
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        try:
            return self[name]
        except KeyError:
            return default


@pytest.mark.parametrize("sees_labels", [False, True])
def test_zero_shot_regimes_never_see_a_label_of_a_target(
    sees_labels: bool, tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = BARE.replace("tasks: [lab-pos, lab-ner]", "tasks: [lab-pos]")
    names = "zero-shot, intermediate-multilingual, multitask-multilingual, full-fine-tuning"
    names = "sequential" if sees_labels else names
    study = opened(text, tmp_path, tiny_backbone, f"regimes=[{names}]")
    assert set(study.recipe.intermediate) == {"lab-pos", "lab-ner"}

    def evaluate(*arguments: Any) -> Any:
        monkeypatch.setattr(Guarded, "scoring", True)
        try:
            return really(*arguments)
        finally:
            monkeypatch.setattr(Guarded, "scoring", False)

    really = worker._KINDS["evaluate"]
    monkeypatch.setitem(worker._KINDS, "evaluate", evaluate)
    monkeypatch.setattr(reading, "LabCorpus", Guarded)
    desk_for.cache_clear()
    try:
        outcome = study.run(pool=SerialPool())
        assert isinstance(desk_for(study.places).corpus, Guarded)
    finally:
        desk_for.cache_clear()
    if sees_labels:
        assert [r for r in outcome.failed.values() if "train rows of lab-near-high were read" in r]
    else:
        assert not outcome.failed and missing(study) == []


def test_averaging_one_snapshot_leaves_every_byte(tiny_backbone: Path, tmp_path: Path) -> None:
    own = "[{name: own, finish: 1, phases: [{name: a, languages: [source]}]}]"
    study = opened(
        BARE, tmp_path, tiny_backbone,
        f"regimes={own}", "tasks=[lab-pos]", "budgets={a: {snapshots: 2}}",
    )  # fmt: skip
    assert not study.run(workers=0).failed
    key = trained(study, "own")
    stage = study.plan.stages[key]
    assert (stage.kind, stage.params["how"]) == ("merge", "average")
    kept, merged = record(study, stage.inputs["member:0"]).files, record(study, key).files
    assert merged == {
        f"{part}.safetensors": kept[f"{part}.1.safetensors"] for part in ("adapter", "head-lab-pos")
    }
    assert kept["adapter.1.safetensors"] != kept["adapter.safetensors"]


class Stop(BaseException):
    """Ends a study as a kill would: nothing that catches errors catches it."""


def test_a_phase_with_snapshots_goes_on_to_the_same_bytes(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    changes = ("regimes=[zero-shot-average]", "tasks=[lab-pos]", "budget.steps=8")
    changes += ("budgets={source: {snapshots: 4}}",)
    stopped_at: list[int] = []

    def stop(request: Request, step: int, steps: int, loss: float) -> None:
        if request.stage.kind == "train" and step == 5:
            stopped_at.append(step)
            raise Stop

    found = {}
    for name in ("whole", "stopped"):
        folder = tmp_path / name
        folder.mkdir()
        study = opened(BARE, folder, tiny_backbone, *changes)
        if name == "stopped":
            with pytest.raises(Stop):
                study.run(pool=SerialPool(stop), snapshot_every=0.0)
            assert stopped_at == [5] and not study.done()
        assert not study.run(workers=0, snapshot_every=0.0).failed
        found[name] = {key: dict(record(study, key).files) for key in study.plan.stages}
    merge = trained(study, "zero-shot-average")
    source = study.plan.stages[merge].inputs["member:0"]
    kept = found["whole"][source]
    assert {f"adapter.{n}.safetensors" for n in (1, 2, 3)} < kept.keys()
    assert len(set(kept.values())) == len(kept)
    assert found["stopped"] == found["whole"]
    assert record(study, source).facts["resumed_at"] == 4


def test_two_targets_share_what_does_not_differ(tiny_backbone: Path, tmp_path: Path) -> None:
    """An oracle's snapshots are trained once and chosen for each target."""
    study = opened(
        BARE, tmp_path, tiny_backbone, "regimes=[zero-shot-oracle]", "tasks=[lab-pos]",
        "targets+=[lab-far-low]", "budgets={source: {snapshots: 2}}",
    )  # fmt: skip
    outcome = study.run(workers=0)
    kinds = [study.plan.stages[key].kind for key in outcome.computed]
    assert not outcome.failed and kinds.count("train") == 1 and kinds.count("merge") == 2
    # Two snapshots and the chosen one, for each target.
    assert kinds.count("evaluate") == 2 * 3
    assert {cell.target for cell in study.plan.cells} == {"lab-near-high", "lab-far-low"}
    assert all(isinstance(cell, Cell) for cell in study.plan.cells)
