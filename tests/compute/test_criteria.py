"""The losses, each against torch's own cross-entropy of one row or one window at a time."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy

from adapterxlt import lab
from adapterxlt.compute.backbone import Backbone
from adapterxlt.compute.criteria import criterion_of
from adapterxlt.compute.data import Encoded, Order, Window, collate
from adapterxlt.compute.encoding import encode
from adapterxlt.compute.steps import Stream
from adapterxlt.compute.training import train
from adapterxlt.core.tasks import TASKS

SPEC = {"method": "seq_bn", "reduction_factor": 4.0, "non_linearity": "relu"}
BUDGET = {
    "steps": 3, "batch": 7, "lr": 1e-2, "schedule": "linear", "warmup": 0.0,
    "weight_decay": 0.05, "clip": 1.0,
}  # fmt: skip
NAMES = ["lab-choice", "lab-qa", "lab-ranking"]
#: Rows whose batches differ in the number of windows, and texts that stand twice in them.
LENGTH = {"lab-choice": 128, "lab-qa": 30, "lab-ranking": 128}


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return Backbone(tiny_backbone)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


def choices(counts: list[int], gold: list[int]) -> list[tuple[Window, ...]]:
    return [
        tuple(Window([0, 9, 2], [0], [label] if n == 0 else [], [0]) for n in range(count))
        for count, label in zip(counts, gold, strict=True)
    ]


def test_choice_is_cross_entropy_over_the_alternatives_of_a_row() -> None:
    criterion = criterion_of(TASKS["lab-choice"].head)
    gold = [0, 2, 1, 1, 2]
    rows, outputs = choices([3] * 5, gold), drawn(15, 1)
    loss = criterion.loss(outputs, torch.tensor(gold), rows)
    wanted = cross_entropy(outputs.view(5, 3), torch.tensor(gold), reduction="sum")
    torch.testing.assert_close(loss, wanted)
    assert criterion.terms(rows) == 5 and criterion.splits


def test_rows_may_have_different_numbers_of_alternatives() -> None:
    criterion = criterion_of(TASKS["lab-choice"].head)
    counts, gold = [2, 4, 1, 3], [1, 3, 0, 0]
    outputs = drawn(10, 1).requires_grad_()
    loss = criterion.loss(outputs, torch.tensor(gold), choices(counts, gold))
    parts = outputs[:, 0].split(counts)
    wanted = sum(
        cross_entropy(part, torch.tensor(label)) for part, label in zip(parts, gold, strict=True)
    )
    torch.testing.assert_close(loss, wanted)
    (found,) = torch.autograd.grad(loss, outputs, retain_graph=True)
    torch.testing.assert_close(found, torch.autograd.grad(wanted, outputs)[0])
    assert found.isfinite().all() and found.abs().sum() > 0


def test_a_span_is_the_mean_of_its_two_ends_in_each_window() -> None:
    criterion = criterion_of(TASKS["lab-qa"].head)
    sizes, gold = [5, 1, 9, 3], [(1, 3), (0, 0), (8, 8), (0, 0)]
    windows = [
        Window([0] * (n + 4), list(range(n)), list(ends), [])
        for n, ends in zip(sizes, gold, strict=True)
    ]
    rows = [(windows[0],), (windows[1], windows[2], windows[3])]
    outputs, labels = drawn(18, 2).requires_grad_(), torch.tensor(gold).flatten()
    loss = criterion.loss(outputs, labels, rows)
    wanted = torch.zeros(())
    for part, (first, last) in zip(outputs.split(sizes), gold, strict=True):
        wanted = wanted + cross_entropy(part[None, :, 0], torch.tensor([first])) / 2
        wanted = wanted + cross_entropy(part[None, :, 1], torch.tensor([last])) / 2
    torch.testing.assert_close(loss, wanted)
    (found,) = torch.autograd.grad(loss, outputs, retain_graph=True)
    torch.testing.assert_close(found, torch.autograd.grad(wanted, outputs)[0])
    assert found.isfinite().all()
    assert criterion.terms(rows) == 4 and criterion.splits


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_ranking_is_softmax_over_the_answers_of_the_batch(temperature: float) -> None:
    criterion = criterion_of({**TASKS["lab-ranking"].head, "temperature": temperature})
    texts = [[0, 5, 2], [0, 6, 2], [0, 5, 2], [0, 7, 8, 2], [0, 6, 2], [0, 5, 2]]
    rows = [(Window([0, n, 2], [0], [], [0]), Window(t, [0], [], [0])) for n, t in enumerate(texts)]
    outputs = drawn(12, 8)
    queries, answers = outputs[::2], outputs[1::2]
    wanted = 0.0
    for i, query in enumerate(queries):
        others = [j for j, text in enumerate(texts) if j == i or text != texts[i]]
        scores = [cosine_similarity(query, answers[j], dim=0) / temperature for j in others]
        wanted += float(cross_entropy(torch.stack(scores), torch.tensor(others.index(i))))
    loss = criterion.loss(outputs, torch.empty(0, dtype=torch.long), rows)
    assert float(loss) == pytest.approx(wanted, rel=1e-5)
    # Length is not looked at, and without the mask the loss would be another.
    more = criterion.loss(outputs * drawn(12, 1, seed=2).abs(), torch.empty(0), rows)
    torch.testing.assert_close(more, loss)
    cosines = cosine_similarity(queries[:, None], answers[None], dim=-1) / temperature
    unmasked = cross_entropy(cosines, torch.arange(6), reduction="sum")
    assert float(unmasked) > wanted + 0.1
    assert criterion.terms(rows) == 6 and not criterion.splits


def test_the_temperature_is_that_of_the_task() -> None:
    head = TASKS["lab-ranking"].head
    assert head["temperature"] == 0.05
    rows = [(Window([n], [0], [], [0]), Window([n], [0], [], [0])) for n in range(4)]
    outputs = drawn(8, 4)
    cosines = cosine_similarity(outputs[::2, None], outputs[None, 1::2], dim=-1)
    wanted = cross_entropy(cosines / 0.05, torch.arange(4), reduction="sum")
    found = criterion_of(head).loss(outputs, torch.empty(0), rows)
    torch.testing.assert_close(found, wanted)


def test_one_row_alone_has_nothing_to_tell_apart() -> None:
    rows = [(Window([0], [0], [], [0]), Window([1], [0], [], [0]))]
    assert float(criterion_of(TASKS["lab-ranking"].head).loss(drawn(2, 4), drawn(0), rows)) == 0.0


@pytest.mark.parametrize("name", ["lab-pos", "lab-ner", "lab-nli", "lab-topic"])
def test_other_kinds_are_scored_item_by_item(name: str) -> None:
    criterion = criterion_of(TASKS[name].head)
    rows = [(Window([0, 1, 2], [0, 1], [1, 0], [0, 1]),), (Window([0], [0], [1], [0]),)]
    labels, outputs = torch.tensor([1, 0, 1]), drawn(3, 2)
    wanted = -outputs.log_softmax(-1)[range(3), labels].sum()
    torch.testing.assert_close(criterion.loss(outputs, labels, rows), wanted)
    assert criterion.terms(rows) == 3 and criterion.splits


# --- on a backbone -------------------------------------------------------------------------------


def stream_of(backbone: Backbone, name: str, count: int = 20) -> Stream:
    task, rows = TASKS[name], [dict(r) for r in lab.rows(name, "lab-root", "train")[:count]]
    for row in rows:
        if task.kind == "choice":
            row["label"] = str(row["label"])
    if task.kind == "ranking":
        rows[1] = {**rows[1], "answer": rows[0]["answer"]}
    backbone.reset()
    backbone.add_adapter("a", SPEC, seed=3)
    backbone.add_head("h", task.head, seed=3)
    data = encode(backbone.tokenizer, task, rows, LENGTH[name])
    head = partial(backbone.head_logits, "h")
    order = Order(len(data.rows), BUDGET["batch"], 1, name)
    return Stream(name, data, order, (("a",),), head, criterion=criterion_of(task.head))


def trained(backbone: Backbone, name: str, **more: Any) -> tuple[torch.Tensor, list[float]]:
    """Gradient of the last step, and the losses of all steps."""
    stream = stream_of(backbone, name)
    parameters = backbone.trainable(["a", "h"])
    budget = {**BUDGET, **more.pop("budget", {})}
    outcome = train(backbone, parameters, [stream], budget, seed=5, **more)
    gradient = torch.cat([p.grad.flatten() for p in parameters.values()])
    return gradient, [loss for _, loss in outcome.losses]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 3])
def test_micro_batches_leave_the_gradient_as_it_is(
    backbone: Backbone, name: str, size: int
) -> None:
    whole, losses = trained(backbone, name)
    parts, again = trained(backbone, name, micro_batch=size)
    assert again == pytest.approx(losses, abs=2e-6)
    assert float(whole.abs().sum()) > 0
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=2e-6)
    if name == "lab-ranking":
        # Its rows are each other's wrong answers: they stay together.
        assert torch.equal(parts, whole)


def outputs_of(backbone: Backbone, windows: list[Window], pad_to: int = 0) -> torch.Tensor:
    """Outputs of the head at all scored positions, with at least so many sub-words' padding."""
    batch = collate(windows, backbone.tokenizer.pad_token_id)
    ids, mask = batch.ids, batch.mask
    if pad_to:
        more = (0, pad_to - ids.shape[1])
        ids = torch.nn.functional.pad(ids, more, value=backbone.tokenizer.pad_token_id)
        mask = torch.nn.functional.pad(mask, more)
    backbone.model.eval()
    backbone.activate(("a",))
    return backbone.head_logits("h", backbone.hidden(ids, mask)[batch.index])


@pytest.mark.parametrize("name", NAMES)
def test_the_first_loss_of_training_is_that_of_windows_one_by_one(
    backbone: Backbone, name: str
) -> None:
    stream = stream_of(backbone, name)
    rows = [stream.data.rows[i] for i in stream.order.rows(0)]
    windows = [window for row in rows for window in row]
    assert len({len(window.ids) for window in windows}) > 1
    labels = torch.tensor([label for window in windows for label in window.labels])
    with torch.inference_mode():
        alone = torch.cat([outputs_of(backbone, [window]) for window in windows])
        padded = outputs_of(backbone, windows, pad_to=120)
        losses = [stream.criterion.loss(o, labels, rows) for o in (alone, padded)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-5)
    terms = {"lab-choice": len(rows), "lab-qa": len(windows), "lab-ranking": len(rows)}[name]
    _, (first,) = trained(backbone, name, budget={"steps": 1})
    assert first == pytest.approx(float(losses[0]) / terms, abs=3e-6)


def test_a_batch_of_contexts_has_as_many_terms_as_windows(backbone: Backbone) -> None:
    stream = stream_of(backbone, "lab-qa")
    assert {len(row) for row in stream.data.rows} >= {2, 3}
    turn = stream.turn(0, 5)
    assert turn.scored == sum(map(len, turn.rows)) > len(turn.rows)


def test_the_same_answer_twice_in_a_batch_is_masked_in_training(backbone: Backbone) -> None:
    stream = stream_of(backbone, "lab-ranking", 2)
    one, other = (row[1] for row in stream.data.rows)
    assert one.ids == other.ids
    train(
        backbone, backbone.trainable(["a", "h"]), [stream], {**BUDGET, "steps": 1}, seed=5
    )  # fmt: skip
    only = dataclasses.replace(stream, data=Encoded(stream.data.rows))
    outcome = train(backbone, backbone.trainable(["h"]), [only], {**BUDGET, "steps": 1}, seed=5)
    assert outcome.losses == [(1, 0.0)]


def test_the_heads_have_as_many_columns_as_their_kind_wants(backbone: Backbone) -> None:
    for name, columns in {"lab-choice": 1, "lab-qa": 2, "lab-ranking": 32, "lab-nli": 3}.items():
        backbone.reset()
        backbone.add_head("h", TASKS[name].head, seed=1)
        assert backbone.head_logits("h", torch.zeros(5, 32)).shape == (5, columns)
    backbone.reset()
