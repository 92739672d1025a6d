"""The loop: exact resume, micro-batches, order, masks, schedules, and a backbone left as it was."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from adapterxlt import lab
from adapterxlt.compute.backbone import Backbone
from adapterxlt.compute.data import Masking, Order, Window, collate, encode, encode_text
from adapterxlt.compute.snapshots import Snapshots
from adapterxlt.compute.training import Stream, learning_rate, train
from adapterxlt.core.errors import StageError
from adapterxlt.core.tasks import TASKS

SPEC = {"method": "seq_bn", "reduction_factor": 4.0, "non_linearity": "relu"}
BUDGET = {
    "steps": 8, "batch": 8, "lr": 1e-2, "schedule": "linear", "warmup": 0.25,
    "weight_decay": 0.05, "clip": 1.0,
}  # fmt: skip
TASK = TASKS["lab-pos"]
HEAD = {"kind": "tagging", "labels": list(TASK.labels)}


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return Backbone(tiny_backbone)


def streams(backbone: Backbone, languages: list[str], batch: int = 8) -> list[Stream]:
    result = []
    for language in languages:
        rows = lab.rows("lab-pos", language, "train")[:40]
        data = encode(backbone.tokenizer, TASK.kind, TASK.inputs, TASK.label, TASK.labels, rows, 64)
        order = Order(data.lengths(), batch, 1, language)
        head = partial(backbone.head_logits, "h")
        result.append(Stream(language, data, order, ("a",), head))
    return result


def fresh(backbone: Backbone) -> dict[str, torch.nn.Parameter]:
    backbone.reset()
    backbone.add_adapter("a", SPEC, seed=3)
    backbone.add_head("h", HEAD, seed=3)
    return backbone.trainable(["a", "h"])


def run(backbone: Backbone, **more: Any) -> dict[str, torch.Tensor]:
    parameters = fresh(backbone)
    both = streams(backbone, ["lab-root", "lab-mid-mid"])
    train(backbone, parameters, both, BUDGET, seed=5, **more)
    return {**backbone.weights("a"), **backbone.weights("h")}


def test_a_run_stopped_at_every_step_ends_in_the_same_bits(backbone: Backbone) -> None:
    whole = run(backbone)
    kept: list[bytes] = []
    run(backbone, snapshots=Snapshots(save=kept.append, every=0.0))
    assert len(kept) == BUDGET["steps"] - 1
    for data in kept:
        resumed = run(backbone, snapshots=Snapshots(load=lambda data=data: data))
        assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_training_changes_adapter_and_head_and_nothing_else(backbone: Backbone) -> None:
    before = backbone.digest()
    parameters = fresh(backbone)
    start = {name: p.detach().clone() for name, p in parameters.items()}
    train(backbone, parameters, streams(backbone, ["lab-root"]), BUDGET, seed=5)
    assert all(not torch.equal(start[name], p) for name, p in parameters.items())
    backbone.reset()
    assert backbone.digest() == before
    assert [n for n, p in backbone.model.named_parameters() if p.requires_grad] == []


def test_micro_batches_leave_the_gradient_as_it_is(backbone: Backbone) -> None:
    whole, parts = run(backbone), run(backbone, micro_batch=3)
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-4, atol=1e-6)


def test_macro_is_the_mean_of_the_losses_of_the_languages(backbone: Backbone) -> None:
    def first_loss(languages: list[str]) -> float:
        parameters = fresh(backbone)
        one = {**BUDGET, "steps": 1}
        return train(backbone, parameters, streams(backbone, languages), one, seed=5).losses[0][1]

    single = [first_loss([language]) for language in ("lab-root", "lab-far-low")]
    assert first_loss(["lab-root", "lab-far-low"]) == pytest.approx(sum(single) / 2, abs=2e-6)


def test_a_loss_that_is_not_finite_is_an_error(backbone: Backbone) -> None:
    parameters = fresh(backbone)
    with torch.no_grad():
        next(iter(parameters.values())).fill_(float("nan"))
    with pytest.raises(StageError, match="loss is nan at step 1"):
        train(backbone, parameters, streams(backbone, ["lab-root"]), BUDGET, seed=5)


def test_weights_that_do_not_fit_are_refused(backbone: Backbone) -> None:
    fresh(backbone)
    weights = backbone.weights("a")
    backbone.reset()
    with pytest.raises(StageError, match="do not fit"):
        backbone.add_adapter("a", {**SPEC, "reduction_factor": 8.0}, weights=weights)
    backbone.reset()
    with pytest.raises(StageError, match="do not fit"):
        backbone.add_adapter("a", {**SPEC, "leave_out": [1]}, weights=weights)
    backbone.reset()
    missing = dict(list(weights.items())[1:])
    with pytest.raises(StageError, match="do not fit"):
        backbone.add_adapter("a", SPEC, weights=missing)
    backbone.reset()


def test_stored_weights_come_back_the_same(backbone: Backbone) -> None:
    fresh(backbone)
    spec = {**SPEC, "method": "seq_bn_inv"}
    backbone.add_adapter("b", spec, seed=9)
    weights = backbone.weights("b")
    assert any("invertible" in name for name in weights)
    backbone.reset()
    backbone.add_adapter("c", spec, seed=1, weights=weights)
    again = backbone.weights("c")
    assert again.keys() == weights.keys()
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    backbone.reset()


def test_the_invertible_block_acts_before_and_after(backbone: Backbone) -> None:
    backbone.reset()
    backbone.add_adapter("b", {**SPEC, "method": "seq_bn_inv"}, seed=9)
    ids = torch.tensor([[0, 9, 10, 11, 2]])
    mask = torch.ones_like(ids)
    with torch.inference_mode():
        backbone.activate(("b",))
        with_block = backbone.hidden(ids, mask)
        logits = backbone.lm_logits(with_block[0])
        plain = backbone.model(ids, attention_mask=mask, head="default").logits[0]
        backbone.activate(())
        bare = backbone.hidden(ids, mask)
    torch.testing.assert_close(logits, plain)
    assert not torch.allclose(with_block, bare)
    backbone.reset()


def test_order_is_one_pass_an_epoch_and_stateless() -> None:
    lengths = [(7 * i) % 23 + 3 for i in range(53)]
    order = Order(lengths, 8, 1, "x")
    assert order.per_epoch == math.ceil(53 / 8)
    epochs = [[i for step in range(e * 7, e * 7 + 7) for i in order.rows(step)] for e in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(53))] * 2
    assert epochs[0] != epochs[1]
    assert Order(lengths, 8, 1, "x").rows(9) == order.rows(9)
    assert Order(lengths, 8, 2, "x").rows(0) != order.rows(0)
    assert Order(lengths, 8, 1, "y").rows(0) != Order(lengths, 8, 1, "x").rows(0)


def test_the_shorter_side_is_cycled() -> None:
    order = Order([5] * 10, 16, 1, "shots")
    assert all(sorted(order.rows(step)) == list(range(10)) for step in range(5))


def test_masks_hide_about_their_share_and_keep_the_rest() -> None:
    windows = [Window([0, *range(10, 60), 2], [], [], []) for _ in range(200)]
    masking = Masking(0.15, mask_id=4, vocabulary=100)
    masked = masking.apply(windows, seed=11)
    scored = sum(len(w.positions) for w in masked)
    assert 0.13 < scored / (200 * 50) < 0.17
    fates = {"mask": 0, "kept": 0, "other": 0}
    for before, after in zip(windows, masked, strict=True):
        assert after.labels == [before.ids[p] for p in after.positions]
        for p in range(len(before.ids)):
            if p not in after.positions:
                assert after.ids[p] == before.ids[p]
            elif after.ids[p] == 4:
                fates["mask"] += 1
            else:
                fates["kept" if after.ids[p] == before.ids[p] else "other"] += 1
    assert 0.76 < fates["mask"] / scored < 0.84
    assert 0.06 < fates["kept"] / scored < 0.14
    assert masking.apply(windows, seed=11) == masked
    assert masking.apply(windows, seed=12) != masked


def test_schedule() -> None:
    rates = [learning_rate(BUDGET, step) for step in range(8)]
    assert rates[:2] == [0.005, 0.01]
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] == pytest.approx(0.01 / 6)
    constant = {**BUDGET, "schedule": "constant", "warmup": 0.0}
    assert {learning_rate(constant, step) for step in range(8)} == {0.01}


def test_long_rows_become_windows_and_every_word_is_scored(backbone: Backbone) -> None:
    row = lab.rows("lab-pos", "lab-root", "train")[0]
    words, tags = row["tokens"] * 9, row["upos"] * 9
    data = encode(
        backbone.tokenizer, TASK.kind, TASK.inputs, TASK.label, TASK.labels,
        [{"tokens": words, "upos": tags}], 16,
    )  # fmt: skip
    windows = data.rows[0]
    assert len(windows) > 1 and all(len(window.ids) <= 16 for window in windows)
    assert [item for window in windows for item in window.items] == list(range(len(words)))
    labels = [TASK.labels[label] for window in windows for label in window.labels]
    assert labels == tags
    batch = collate(windows, backbone.tokenizer.pad_token_id)
    assert batch.ids.shape == batch.mask.shape
    first = backbone.tokenizer(words[:1], is_split_into_words=True)["input_ids"][1]
    assert batch.ids[batch.index[0][0], batch.index[1][0]] == first


def test_long_texts_are_cut_and_counted(backbone: Backbone) -> None:
    task = TASKS["lab-nli"]
    rows = [dict(r) for r in lab.rows("lab-nli", "lab-root", "train")[:3]]
    rows[1]["premise"] = " ".join([rows[1]["premise"]] * 10)
    data = encode(backbone.tokenizer, task.kind, task.inputs, task.label, task.labels, rows, 64)
    assert data.cut == 1
    assert max(data.lengths()) == 64
    text = encode_text(backbone.tokenizer, [rows[1]["premise"]], 20)
    assert len(text.rows[0]) > 1 and max(len(w.ids) for w in text.rows[0]) == 20
