"""Runs that go through the trunk together end where each of them ends alone."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from adapterxlt import lab
from adapterxlt.compute import cohort
from adapterxlt.compute.backbone import Backbone, Wearing
from adapterxlt.compute.cohort import train_together
from adapterxlt.compute.criteria import criterion_of
from adapterxlt.compute.data import Order
from adapterxlt.compute.encoding import encode, encode_text
from adapterxlt.compute.masking import masked_lm
from adapterxlt.compute.remembered import Memory
from adapterxlt.compute.snapshots import Outcome, Snapshots
from adapterxlt.compute.steps import Stream
from adapterxlt.compute.training import Run, train
from adapterxlt.core.canon import derive
from adapterxlt.core.errors import StageError
from adapterxlt.core.tasks import TASKS

TASK_SPEC = {"method": "seq_bn", "reduction_factor": 4.0, "non_linearity": "relu"}
LANGUAGE_SPEC = {"method": "seq_bn_inv", "reduction_factor": 2.0, "non_linearity": "relu"}
BUDGET = {
    "steps": 6, "batch": 8, "lr": 1e-2, "schedule": "linear", "warmup": 0.25,
    "weight_decay": 0.05, "clip": 1.0,
}  # fmt: skip
# Task, languages, batch, steps, what else: sizes, heads and lengths differ.
MEMBERS: list[tuple[str, list[str], int, int, dict[str, Any]]] = [
    ("lab-pos", ["lab-root"], 8, 6, {}),
    ("lab-pos", ["lab-root", "lab-mid-mid"], 5, 4, {}),
    ("lab-nli", ["lab-mid-mid"], 3, 6, {"objective": "micro"}),
    ("lab-ner", ["lab-far-low", "lab-root"], 4, 5, {"sampling": {"kind": "proportional"}}),
]


@pytest.fixture(scope="module", params=[0.0, 0.1], ids=["", "dropout"])
def backbone(
    request: pytest.FixtureRequest, tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory
) -> Backbone:
    folder = tmp_path_factory.mktemp("dropout") / "backbone"
    shutil.copytree(tiny_backbone, folder)
    config = json.loads((folder / "config.json").read_text())
    drops = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    (folder / "config.json").write_text(json.dumps(config | dict.fromkeys(drops, request.param)))
    return Backbone(folder)


def prepare(backbone: Backbone, spec: dict[str, Any] | None = None) -> None:
    backbone.reset()
    for i, language in enumerate(["lab-root", "lab-mid-mid", "lab-far-low"]):
        backbone.add_adapter(language, LANGUAGE_SPEC, seed=20 + i)
    for i, (name, *_) in enumerate(MEMBERS):
        task = TASKS[name]
        backbone.add_adapter(f"a{i}", spec or TASK_SPEC, seed=i)
        kind = {"pair-classification": "classification"}.get(task.kind, task.kind)
        backbone.add_head(f"h{i}", {"kind": kind, "labels": list(task.labels)}, seed=i)


def arguments(backbone: Backbone, i: int, **more: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    name, languages, batch, steps, own = MEMBERS[i]
    task, some = TASKS[name], []
    for language in languages:
        data = encode(backbone.tokenizer, task, lab.rows(name, language, "train")[:30], 48)
        head = partial(backbone.head_logits, f"h{i}")
        wears: tuple[Wearing, ...] = ((language, f"a{i}"),)
        order = Order(len(data.rows), batch, i, language)
        some.append(Stream(language, data, order, wears, head, criterion=criterion_of(task.head)))
    parameters = backbone.trainable([f"a{i}", f"h{i}"])
    return (backbone, parameters, some, {**BUDGET, "steps": steps}), {"seed": i, **own, **more}


def alone(backbone: Backbone, i: int, **more: Any) -> tuple[Outcome, dict[str, torch.Tensor]]:
    given, how = arguments(backbone, i, **more)
    outcome = train(*given, **how)
    return outcome, {**backbone.weights(f"a{i}"), **backbone.weights(f"h{i}")}


def together(
    backbone: Backbone, who: list[int], tokens: int = 1 << 16, **more: Any
) -> list[tuple[Outcome | StageError, dict[str, torch.Tensor]]]:
    runs = []
    for i in who:
        given, how = arguments(backbone, i, **more)
        runs.append(Run(*given, **how))
    backbone.trainable(name for i in who for name in (f"a{i}", f"h{i}"))
    found = train_together(backbone, runs, tokens)
    weights = [{**backbone.weights(f"a{i}"), **backbone.weights(f"h{i}")} for i in who]
    return list(zip(found, weights, strict=True))


def same(one: Outcome | StageError, other: Outcome) -> None:
    assert isinstance(one, Outcome)
    assert [step for step, _ in one.losses] == [step for step, _ in other.losses]
    for (_, loss), (_, wanted) in zip(one.losses, other.losses, strict=True):
        assert loss == pytest.approx(wanted, abs=2e-5)
    assert (one.tokens, one.examples) == (other.tokens, other.examples)


def close(some: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    for name, tensor in wanted.items():
        torch.testing.assert_close(some[name], tensor, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("tokens", [1 << 16, 1, 200])
def test_runs_together_equal_each_alone(backbone: Backbone, tokens: int) -> None:
    prepare(backbone)
    wanted = [alone(backbone, i) for i in range(4)]
    prepare(backbone)
    found = together(backbone, [0, 1, 2, 3], tokens)
    for (outcome, weights), (lone, own) in zip(found, wanted, strict=True):
        same(outcome, lone)
        close(weights, own)
        assert outcome.losses[0][1] != outcome.losses[-1][1]


def test_large_products_equal_the_modules(backbone: Backbone) -> None:
    prepare(backbone)
    modules = [f"a{i}" for i in range(4)]
    (place, *_) = (
        m.adapters for m in backbone.model.modules() if "a0" in getattr(m, "adapters", {})
    )
    group = cohort._Bottlenecks([place[name] for name in modules], [3, 3, 3, 3])
    states, residual = torch.randn(2, 12, 7, backbone.hidden_size).unbind(0)
    assert all(cohort._plain(place[name]) for name in modules)
    torch.testing.assert_close(group.batched(states, residual), group(states, residual)[0])
    other = cohort._Bottlenecks([place[name] for name in modules[::-1]], [3, 3, 3, 3])
    assert not torch.allclose(other.batched(states, residual), group(states, residual)[0])


def test_lower_layers_are_remembered_for_each_run(backbone: Backbone) -> None:
    spec = {**TASK_SPEC, "leave_out": [0]}
    quiet = {"memory": Memory(), "quiet": True}
    prepare(backbone, spec)
    wanted = [alone(backbone, i, quiet=True) for i in range(4)]
    prepare(backbone, spec)
    for (outcome, weights), (lone, own) in zip(
        together(backbone, [0, 1, 2, 3], **quiet), wanted, strict=True
    ):
        same(outcome, lone)
        close(weights, own)
    assert quiet["memory"].held > 0


def test_a_run_that_fails_leaves_the_others_alone(backbone: Backbone) -> None:
    prepare(backbone)
    wanted = [alone(backbone, i) for i in (0, 2)]
    prepare(backbone)
    with torch.no_grad():
        next(iter(backbone._parameters("a1").values())).fill_(float("nan"))
    first, failed, last = together(backbone, [0, 1, 2])
    assert isinstance(failed[0], StageError) and "loss is nan at step 1 of 4" in str(failed[0])
    for (outcome, weights), (lone, own) in zip((first, last), wanted, strict=True):
        same(outcome, lone)
        close(weights, own)


def test_a_cohort_goes_on_from_what_each_run_had(backbone: Backbone) -> None:
    """Also from the snapshots of runs that were alone, each at another step."""
    prepare(backbone)
    wanted = [alone(backbone, i) for i in (0, 1)]
    kept: dict[int, list[bytes]] = {0: [], 1: []}
    prepare(backbone)
    for i in (0, 1):
        alone(backbone, i, snapshots=Snapshots(save=kept[i].append, every=0.0))
    prepare(backbone)
    runs = []
    for i, at in ((0, 3), (1, 1)):
        given, how = arguments(backbone, i)
        runs.append(Run(*given, snapshots=Snapshots(load=partial(kept[i].__getitem__, at)), **how))
    backbone.trainable(["a0", "h0", "a1", "h1"])
    assert [run.step for run in runs] == [4, 2]
    for i, outcome in enumerate(train_together(backbone, runs)):
        same(outcome, wanted[i][0])
        close({**backbone.weights(f"a{i}"), **backbone.weights(f"h{i}")}, wanted[i][1])


def test_language_adapters_are_trained_together(backbone: Backbone) -> None:
    """Each under its own inverse before the output embeddings."""

    def one(i: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        lines = lab.text(["lab-root", "lab-far-low"][i])[:40]
        data = encode_text(backbone.tokenizer, lines, 32)
        masking, criterion = masked_lm(backbone, 0.15, "fp32")
        order = Order(len(data.rows), 6, i, "text")
        stream = Stream(
            "text", data, order, ((f"l{i}",),), backbone.lm_states, masking, criterion=criterion
        )
        parameters = backbone.trainable([f"l{i}"])
        return (backbone, parameters, [stream], {**BUDGET, "steps": 4}), {"seed": i}

    def start() -> None:
        backbone.reset()
        for i in (0, 1):
            backbone.add_adapter(f"l{i}", LANGUAGE_SPEC, seed=i)

    start()
    wanted = []
    for i in (0, 1):
        given, how = one(i)
        wanted.append((train(*given, **how), backbone.weights(f"l{i}")))
    start()
    runs = [Run(*given, **how) for given, how in (one(0), one(1))]
    backbone.trainable(["l0", "l1"])
    for i, outcome in enumerate(train_together(backbone, runs)):
        same(outcome, wanted[i][0])
        close(backbone.weights(f"l{i}"), wanted[i][1])


def test_dropout_is_drawn_for_each_run_by_itself(backbone: Backbone) -> None:
    """The seed of a batch says what is dropped, not what goes through beside it."""
    prepare(backbone)
    given, _ = arguments(backbone, 0)
    stream = given[2][0]
    backbone.activate(("lab-root", "a0"))
    backbone.model.train()
    rows = [window for i in range(6) for window in stream.data.rows[i]]
    found = [
        backbone.scored(backbone.batch(rows, derive(seed, "x"))).detach() for seed in (1, 1, 2)
    ]
    drops = backbone.trunk.draws(backbone.layers)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2]) is not drops
    backbone.model.eval()
