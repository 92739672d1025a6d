"""How fast is a task adapter trained, beside the loop that `adapters` documents, in one run?

The peer tokenizes and pads each batch as it comes and calls the model with labels; both see the
same rows, the same adapter and as many optimizer steps at a constant rate. Prints medians of
alternating rounds and keeps them in ``benchmarks/results/training.json``. Pretrains the
laboratory's backbone first, about a minute.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from adapters import AutoAdapterModel, SeqBnConfig
from transformers import AutoTokenizer

from adapterxlt import lab
from adapterxlt.compute.backbone import Backbone
from adapterxlt.compute.data import Order
from adapterxlt.compute.encoding import encode
from adapterxlt.compute.pretraining import pretrain
from adapterxlt.compute.steps import Stream
from adapterxlt.compute.training import train
from adapterxlt.core.tasks import TASKS

STEPS, BATCH, ROUNDS = 60, 32, 5
TASK = TASKS["lab-pos"]
SPEC = {"method": "seq_bn", "reduction_factor": 4.0, "non_linearity": "relu"}
BUDGET = {
    "steps": STEPS, "batch": BATCH, "lr": 3e-3, "schedule": "constant", "warmup": 0.0,
    "weight_decay": 0.05, "clip": 1.0,
}  # fmt: skip


def ours(folder: Path) -> tuple[float, float]:
    backbone = Backbone(folder)
    backbone.add_adapter("a", SPEC, seed=1)
    backbone.add_head("h", {"kind": "tagging", "labels": list(TASK.labels)}, seed=1)
    start = time.perf_counter()
    rows = lab.rows("lab-pos", "lab-root", "train")
    data = encode(backbone.tokenizer, TASK, rows, 128)
    stream = Stream(
        "x", data, Order(data.lengths(), BATCH, 1, "x"), (("a",),),
        lambda states: backbone.head_logits("h", states),
    )  # fmt: skip
    outcome = train(backbone, backbone.trainable(["a", "h"]), [stream], BUDGET, seed=1)
    return time.perf_counter() - start, outcome.final_loss


def peer(folder: Path) -> tuple[float, float]:
    model = AutoAdapterModel.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(1)
    model.add_adapter("a", config=SeqBnConfig(reduction_factor=4))
    model.add_tagging_head("h", num_labels=len(TASK.labels))
    model.train_adapter("a")
    model.train()
    wanted = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(wanted, lr=3e-3, weight_decay=0.05)
    start = time.perf_counter()
    rows = lab.rows("lab-pos", "lab-root", "train")
    number = {label: i for i, label in enumerate(TASK.labels)}
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1)).tolist()
    losses = []
    for step in range(STEPS):
        chosen = [rows[order[(step * BATCH + i) % len(rows)]] for i in range(BATCH)]
        batch = tokenizer(
            [r["tokens"] for r in chosen], is_split_into_words=True, padding=True,
            return_tensors="pt",
        )  # fmt: skip
        labels = torch.full(batch["input_ids"].shape, -100)
        for i, row in enumerate(chosen):
            seen = None
            for position, word in enumerate(batch.word_ids(i)):
                if word is not None and word != seen:
                    labels[i, position], seen = number[row["upos"][word]], word
        optimizer.zero_grad()
        loss = model(**batch, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(wanted, 1.0)
        optimizer.step()
        losses.append(loss.item())
    return time.perf_counter() - start, statistics.mean(losses[-6:])


def main() -> None:
    torch.set_num_threads(1)
    rounds: dict[str, list[tuple[float, float]]] = {"adapterxlt": [], "adapters": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pretrain(folder, spec=lab.DEFAULT_SPEC, seed=0)
        for _ in range(ROUNDS):
            rounds["adapterxlt"].append(ours(folder))
            rounds["adapters"].append(peer(folder))
    rows = {
        name: {
            "seconds": round(statistics.median(s for s, _ in results), 3),
            "final_loss": round(statistics.median(loss for _, loss in results), 4),
        }
        for name, results in rounds.items()
    }
    ratio = rows["adapters"]["seconds"] / rows["adapterxlt"]["seconds"]
    for name, row in rows.items():
        print(f"{name:12} {row['seconds']:7.2f} s  final loss {row['final_loss']:.3f}")
    print(f"adapters / adapterxlt: {ratio:.2f} in time, {STEPS} steps of {BATCH} rows")
    out = Path(__file__).parent / "results" / "training.json"
    out.parent.mkdir(exist_ok=True)
    result = {**rows, "ratio": round(ratio, 3), "steps": STEPS, "batch": BATCH}
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
