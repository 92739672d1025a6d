"""A task adapter trained by a study equals one trained by a plain loop on `adapters` alone.

The loop below uses nothing of the package but the list of rows of each step and the seeds of the
initialization: its own tokenization, padding, labels, forward pass, loss and optimizer calls.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import AutoAdapterModel, SeqBnConfig, SeqBnInvConfig
from adapters.composition import Stack
from safetensors.torch import load
from transformers import AutoTokenizer, get_linear_schedule_with_warmup

from adapterxlt import lab
from adapterxlt.compute.data import Order
from adapterxlt.core.canon import derive
from adapterxlt.core.tasks import TASKS
from adapterxlt.corpora.reading import selection
from adapterxlt.run.study import Study

STEPS, BATCH, RATE, SEED = 12, 8, 5e-3, 3


def recipe(task: str, folder: Path) -> Path:
    path = folder / "one.yaml"
    path.write_text(
        f"""\
name: one
data: lab
source: lab-root
targets: [lab-mid-mid]
tasks: [{task}]
regimes: [joint]
shots: [10]
seeds: [{SEED}]
language_adapters: {{budget: {{steps: 5, batch: 8, lr: 1e-3}}}}
task_adapter: {{method: seq_bn, reduction_factor: 4}}
budget: {{steps: {STEPS}, lr: {RATE}, warmup: 0.0, weight_decay: 0.05, clip: 1.0}}
budgets: {{joint: {{batch: {BATCH}}}}}
limits: {{train: 50, test: 20, text: 50}}
""",
        encoding="utf-8",
    )
    return path


def tensors(model: Any, name: str) -> dict[str, torch.Tensor]:
    found = {}
    for full, parameter in model.named_parameters():
        parts = full.split(".")
        if name in parts:
            found[".".join("@" if p == name else p for p in parts)] = parameter
    return found


def plain_batch(tokenizer: Any, task: str, rows: list[dict]) -> dict[str, torch.Tensor]:
    """Inputs and labels as anyone would make them for `adapters`."""
    labels = {name: i for i, name in enumerate(TASKS[task].labels)}
    if task == "lab-nli":
        batch = tokenizer(
            [r["premise"] for r in rows], [r["hypothesis"] for r in rows],
            padding=True, return_tensors="pt",
        )  # fmt: skip
        return {**batch, "labels": torch.tensor([labels[r["label"]] for r in rows])}
    batch = tokenizer(
        [r["tokens"] for r in rows], is_split_into_words=True, padding=True, return_tensors="pt"
    )
    gold = torch.full(batch["input_ids"].shape, -100)
    for i, row in enumerate(rows):
        seen = None
        for position, word in enumerate(batch.word_ids(i)):
            if word is not None and word != seen:
                gold[i, position] = labels[row["upos"][word]]
                seen = word
    return {**batch, "labels": gold}


@pytest.mark.parametrize("task", ["lab-pos", "lab-nli"])
def test_joint_training_equals_a_plain_loop(task: str, tiny_backbone: Path, tmp_path: Path) -> None:
    study = Study.open(recipe(task, tmp_path), store=tmp_path / "s", backbone=str(tiny_backbone))
    assert not study.run(workers=0).failed
    ((cell, key),) = study.plan.cells.items()
    trained = study.store.read(study.plan.stages[key].inputs["trained"])
    assert trained is not None

    model = AutoAdapterModel.from_pretrained(tiny_backbone)
    tokenizer = AutoTokenizer.from_pretrained(tiny_backbone)
    languages = {}
    for role, language_key in trained.stage["inputs"].items():
        name = role.partition(":")[2].replace("-", "_")
        languages[role.partition(":")[2]] = name
        model.add_adapter(name, config=SeqBnInvConfig(reduction_factor=2))
        stored = load(study.store.get(study.store.read(language_key).files["adapter.safetensors"]))
        for n, parameter in tensors(model, name).items():
            parameter.data.copy_(stored[n])
    torch.manual_seed(derive(SEED, "adapter"))
    model.add_adapter("mine", config=SeqBnConfig(reduction_factor=4))
    torch.manual_seed(derive(SEED, "head"))
    count = len(TASKS[task].labels)
    if task == "lab-pos":
        model.add_tagging_head("top", num_labels=count)
    else:
        model.add_classification_head("top", num_labels=count, layers=1)
    model.train_adapter("mine")
    wanted = {**tensors(model, "mine"), **tensors(model, "top")}
    decayed = [p for p in wanted.values() if p.dim() > 1]
    plain = [p for p in wanted.values() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}],
        lr=RATE, eps=1e-8,
    )  # fmt: skip
    schedule = get_linear_schedule_with_warmup(optimizer, 0, STEPS)
    data = {}
    for stream in trained.stage["params"]["streams"]:
        rows = list(lab.rows(task, stream["language"], "train"))
        rows = [rows[i] for i in selection(len(rows), stream)]
        order = Order(len(rows), BATCH, SEED, f"{task}:{stream['language']}")
        data[stream["language"]] = (rows, order)
    model.train()
    for step in range(STEPS):
        optimizer.zero_grad()
        losses = []
        for language, (rows, order) in data.items():
            batch = plain_batch(tokenizer, task, [rows[i] for i in order.rows(step)])
            model.set_active_adapters(Stack(languages[language], "mine"))
            losses.append(model(**batch, head="top").loss)
        torch.stack(losses).mean().backward()
        torch.nn.utils.clip_grad_norm_(list(wanted.values()), 1.0)
        optimizer.step()
        schedule.step()

    ours = {}
    for part in ("adapter", f"head-{task}"):
        ours |= load(study.store.get(trained.files[f"{part}.safetensors"]))
    assert ours.keys() == wanted.keys()
    moved = 0.0
    for n, parameter in wanted.items():
        torch.testing.assert_close(ours[n], parameter.detach(), rtol=1e-3, atol=2e-5)
        moved += float(parameter.detach().abs().sum())
    assert moved > 0
    assert cell.target == "lab-mid-mid"

    # And the score: the plain model's own predictions on the test rows, through the target's stack.
    record = study.store.read(key)
    assert record is not None
    model.eval()
    model.set_active_adapters(Stack(languages["lab-mid-mid"], "mine"))
    rows = list(lab.rows(task, "lab-mid-mid", "test"))[:20]
    batch = plain_batch(tokenizer, task, rows)
    with torch.no_grad():
        best = model(**batch, head="top").logits.argmax(-1)
    gold = batch["labels"]
    kept = gold != -100
    accuracy = float((best[kept] == gold[kept]).float().mean())
    assert record.facts["metrics"]["accuracy"]["score"] == pytest.approx(accuracy, abs=1e-6)


def inputs(task: str, row: dict) -> tuple[str, ...]:
    return tuple(row[column] for column in TASKS[task].inputs)
