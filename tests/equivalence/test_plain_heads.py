"""Choice and question answering equal what `adapters` computes with its own heads and labels.

What the plain side is given is made here with the tokenizer alone: its own windows, padding, labels
and steps. One thing is ours on purpose: the library's head for question answering also shares out
probability to the question, to special tokens and to padding; here they are shut out, on the plain
side by minus infinity, before its own loss.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import AutoAdapterModel, SeqBnConfig
from transformers import AutoTokenizer

from adapterxlt import lab
from adapterxlt.compute.backbone import Backbone
from adapterxlt.compute.criteria import criterion_of
from adapterxlt.compute.data import Order, Window, collate
from adapterxlt.compute.encoding import encode
from adapterxlt.compute.evaluation import Composed, predict_choices
from adapterxlt.compute.steps import Stream
from adapterxlt.compute.training import train
from adapterxlt.core.tasks import TASKS

LENGTH, STEPS, BATCH, RATE = 36, 5, 6, 5e-3
SPEC = {"method": "seq_bn", "reduction_factor": 4.0, "non_linearity": "relu"}
NAMES = ["lab-choice", "lab-qa"]
#: Added to all that a softmax is over, so that its gradient is nothing but rounding, which AdamW
#: makes steps of.
BIAS = "heads.@.1.bias"


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return Backbone(tiny_backbone)


@pytest.fixture(scope="module")
def tokenizer(tiny_backbone: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_backbone)


def some_rows(name: str) -> list[dict[str, Any]]:
    rows = [dict(row) for row in lab.rows(name, "lab-mid-mid", "train")[:24]]
    return [{**r, "label": str(r["label"])} if name == "lab-choice" else r for r in rows]


def plain_choice(tokenizer: Any, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """(rows, choices, length), as of the library's examples."""
    first = [f"{r['premise']} {r['question']}" for r in rows for _ in range(2)]
    second = [r[name] for r in rows for name in ("choice1", "choice2")]
    batch = tokenizer(
        first, second, truncation=True, max_length=LENGTH, padding=True, return_tensors="pt"
    )
    found = {name: batch[name].view(len(rows), 2, -1) for name in ("input_ids", "attention_mask")}
    return {**found, "labels": torch.tensor([int(r["label"]) for r in rows])}


def plain_qa(tokenizer: Any, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """(windows, length), with places in the whole sequence, as of the library's examples; and the
    places that belong to the context, or to the first sub-word."""
    batch = tokenizer(
        [r["question"] for r in rows], [r["context"] for r in rows],
        truncation="only_second", max_length=LENGTH, stride=LENGTH // 3 - 2,
        return_overflowing_tokens=True, return_offsets_mapping=True,
        padding=True, return_tensors="pt",
    )  # fmt: skip
    starts, ends, open_ = [], [], torch.zeros_like(batch["input_ids"], dtype=torch.bool)
    open_[:, 0] = True
    for n, i in enumerate(batch["overflow_to_sample_mapping"].tolist()):
        parts = batch.sequence_ids(n)
        inside = [p for p, part in enumerate(parts) if part == 1]
        open_[n, inside] = True
        offsets = batch["offset_mapping"][n].tolist()
        begin = rows[i]["answers"]["answer_start"][0]
        end = begin + len(rows[i]["answers"]["text"][0])
        start = last = 0
        if offsets[inside[0]][0] <= begin and offsets[inside[-1]][1] >= end:
            start = max(p for p in inside if offsets[p][0] <= begin)
            last = min(p for p in inside if offsets[p][1] >= end)
        starts.append(start)
        ends.append(last)
    return {
        "input_ids": batch["input_ids"],
        "attention_mask": batch["attention_mask"],
        "start_positions": torch.tensor(starts),
        "end_positions": torch.tensor(ends),
        "open": open_,
    }


class Plain:
    """The library's model with its own head; weights are copied in."""

    def __init__(self, folder: Path, name: str) -> None:
        self.model: Any = AutoAdapterModel.from_pretrained(folder, attn_implementation="eager")
        self.model.add_adapter("mine", config=SeqBnConfig(reduction_factor=4))
        if name == "lab-choice":
            self.model.add_multiple_choice_head("top", num_choices=2, layers=1)
        else:
            self.model.add_qa_head("top")
            self.model.heads["top"][-1].register_forward_hook(self._shut)
        self.model.train_adapter("mine")
        self.open: torch.Tensor | None = None

    def _shut(self, module: Any, inputs: Any, outputs: torch.Tensor) -> torch.Tensor | None:
        if self.open is None:
            return None
        return outputs.masked_fill(~self.open[..., None], float("-inf"))

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        found = {}
        for full, parameter in self.model.named_parameters():
            parts = full.split(".")
            if {"mine", "top"} & set(parts):
                found[".".join("@" if p in ("mine", "top") else p for p in parts)] = parameter
        return found

    def copy(self, backbone: Backbone) -> None:
        ours = {**backbone.weights("a"), **backbone.weights("h")}
        mine = self.parameters()
        assert ours.keys() == mine.keys()
        for name, parameter in mine.items():
            parameter.data.copy_(ours[name])

    def __call__(self, batch: dict[str, torch.Tensor]) -> Any:
        self.open = batch.get("open")
        given = {name: tensor.clone() for name, tensor in batch.items() if name != "open"}
        return self.model(**given, head="top")


def ours(backbone: Backbone, name: str, size: float | None = None) -> Stream:
    """An adapter and a head on the backbone, drawn anew, and the stream of the rows."""
    task = TASKS[name]
    if name == "lab-qa":
        task = task.model_copy(update={"stride": LENGTH // 3 - 2})
    backbone.reset()
    backbone.add_adapter("a", SPEC, seed=3)
    backbone.add_head("h", task.head, seed=3)
    if size is not None:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in backbone.trainable(["a", "h"]).values():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * size)
    data = encode(backbone.tokenizer, task, some_rows(name), LENGTH)
    order = Order(len(data.rows), BATCH, 1, name)
    head = partial(backbone.head_logits, "h")
    return Stream(name, data, order, (("a",),), head, criterion=criterion_of(task.head))


def our_outputs(backbone: Backbone, windows: list[Window]) -> torch.Tensor:
    batch = collate(windows, backbone.tokenizer.pad_token_id)
    backbone.model.eval()
    backbone.activate(("a",))
    with torch.inference_mode():
        return backbone.head_logits("h", backbone.hidden(batch.ids, batch.mask)[batch.index])


def plain_batch(tokenizer: Any, name: str, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return (plain_choice if name == "lab-choice" else plain_qa)(tokenizer, rows)


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_loss_are_those_of_the_library(
    name: str, backbone: Backbone, tokenizer: Any, tiny_backbone: Path
) -> None:
    stream = ours(backbone, name, size=0.3)
    plain = Plain(tiny_backbone, name)
    plain.copy(backbone)
    plain.model.eval()
    plain.model.set_active_adapters("mine")
    batch = plain_batch(tokenizer, name, some_rows(name))
    with torch.inference_mode():
        seen = plain(batch)
    rows = list(stream.data.rows)
    windows = [window for row in rows for window in row]
    labels = torch.tensor([label for window in windows for label in window.labels])
    outputs = our_outputs(backbone, windows)
    if name == "lab-choice":
        torch.testing.assert_close(outputs.view(-1, 2), seen.logits, rtol=0, atol=1e-5)
        assert labels.tolist() == batch["labels"].tolist()
        best = predict_choices(Composed(backbone, ("a",), "h"), stream.data, ("0", "1"))
        assert best == [{0: str(n)} for n in seen.logits.argmax(-1).tolist()]
    else:
        assert len(windows) == len(batch["input_ids"]) > len(rows)
        assert {bool(n) for n in batch["end_positions"].tolist()} == {True, False}
        parts = outputs.split([len(window.positions) for window in windows])
        for n, (window, part) in enumerate(zip(windows, parts, strict=True)):
            where = batch["open"][n].nonzero().flatten()
            assert where.tolist() == window.positions
            assert seen.start_logits[n].isfinite().sum() == len(where)
            both = torch.stack([seen.start_logits[n, where], seen.end_logits[n, where]], 1)
            torch.testing.assert_close(part, both, rtol=0, atol=1e-5)
            ends = [batch["start_positions"][n], batch["end_positions"][n]]
            assert [window.positions[label] for label in window.labels] == ends
    loss = stream.criterion.loss(outputs, labels, rows) / stream.criterion.terms(rows)
    torch.testing.assert_close(loss, seen.loss, rtol=0, atol=1e-5)
    assert float(loss) > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_training_is_that_of_a_plain_loop(
    name: str, backbone: Backbone, tokenizer: Any, tiny_backbone: Path
) -> None:
    stream, rows = ours(backbone, name, size=0.1), some_rows(name)
    plain = Plain(tiny_backbone, name)
    plain.copy(backbone)
    budget = {
        "steps": STEPS, "lr": RATE, "schedule": "constant", "warmup": 0.0, "weight_decay": 0.05,
        "clip": 1.0,
    }  # fmt: skip
    outcome = train(backbone, backbone.trainable(["a", "h"]), [stream], budget, seed=5)

    wanted = plain.parameters()
    groups = [
        {"params": [p for p in wanted.values() if p.dim() > 1], "weight_decay": 0.05},
        {"params": [p for p in wanted.values() if p.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, eps=1e-8)
    plain.model.train()
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = plain(plain_batch(tokenizer, name, [rows[i] for i in stream.order.rows(step)])).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(wanted.values()), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert [loss for _, loss in outcome.losses] == pytest.approx(losses, abs=2e-5)
    assert max(losses) - min(losses) > 1e-3
    found = {**backbone.weights("a"), **backbone.weights("h")}
    for key, parameter in wanted.items():
        if key == BIAS:
            continue
        # Adam makes a rounding of a gradient near nothing into a part of a step.
        torch.testing.assert_close(found[key], parameter.detach(), rtol=1e-3, atol=5e-4)
