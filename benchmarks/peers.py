"""What people use today, as its documentation shows it: `adapters` with its `AdapterTrainer`.

After `run_mlm.py` and `run_ner.py` of the library's examples: blocks of text and all logits for
language adapters, rows in random order padded to the longest of a batch for tagging. Seconds are
those of the optimizer steps alone.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import adapters
import torch
from adapters import AdapterTrainer, AutoAdapterModel
from adapters.composition import Stack
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    DataCollatorForTokenClassification,
    TrainerCallback,
    TrainingArguments,
)


@dataclass
class Measured:
    """``seconds`` of each optimizer step, and its loss."""

    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


class _Clock(TrainerCallback):  # type: ignore[misc]
    def __init__(self) -> None:
        self.found, self._at = Measured(), 0.0

    def on_step_begin(self, *args: Any, **more: Any) -> None:
        self._at = time.perf_counter()

    def on_step_end(self, *args: Any, **more: Any) -> None:
        self.found.seconds.append(time.perf_counter() - self._at)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        if "loss" in logs:
            self.found.losses.append(logs["loss"])


def arguments(
    budget: Mapping[str, Any], seed: int, precision: str = "fp32", **more: Any
) -> TrainingArguments:
    """The trainer's arguments for a budget of ours."""
    return TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        max_steps=budget["steps"],
        per_device_train_batch_size=budget["batch"],
        learning_rate=budget["lr"],
        warmup_ratio=budget["warmup"],
        lr_scheduler_type=budget["schedule"],
        weight_decay=budget["weight_decay"],
        max_grad_norm=budget["clip"],
        seed=seed,
        bf16=precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        **more,
    )


def fit(model: Any, args: TrainingArguments, rows: Any, collator: Any) -> Measured:
    """Train with the library's trainer."""
    clock = _Clock()
    trainer = AdapterTrainer(
        model=model, args=args, train_dataset=rows, data_collator=collator, callbacks=[clock]
    )
    trainer.train()
    return clock.found


def language_adapter(
    folder: Path, blocks: Sequence[Sequence[int]], budget: Mapping[str, Any], seed: int = 1
) -> Measured:
    """`run_mlm.py --train_adapter --adapter_config seq_bn_inv` on blocks of sub-words."""
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForMaskedLM.from_pretrained(folder)
    adapters.init(model)
    model.add_adapter("language", config="seq_bn_inv")
    model.train_adapter("language")
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    rows = [{"input_ids": list(block)} for block in blocks]
    return fit(model, arguments(budget, seed), rows, collator)


def tagger(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    budget: Mapping[str, Any],
    seed: int = 1,
    *,
    column: str = "upos",
    reduction_factor: float = 16,
    languages: Mapping[str, Path] | None = None,
) -> tuple[Any, Any, Measured]:
    """A task adapter for tagging as `run_ner.py` trains one; model, tokenizer, what it took."""
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoAdapterModel.from_pretrained(folder)
    model.add_adapter("task", config=f"seq_bn[reduction_factor={reduction_factor}]")
    model.add_tagging_head("task", num_labels=len(labels))
    model.train_adapter("task")
    encoded = encode(tokenizer, rows, labels, column)
    found = fit(
        model, arguments(budget, seed), encoded, DataCollatorForTokenClassification(tokenizer)
    )
    return model, tokenizer, found


def encode(
    tokenizer: Any, rows: Sequence[Mapping[str, Any]], labels: Sequence[str], column: str
) -> list[dict[str, Any]]:
    """Rows as `run_ner.py` encodes them: a word's label at its first sub-word."""
    number = {label: i for i, label in enumerate(labels)}
    batch = tokenizer(
        [list(row["tokens"]) for row in rows],
        is_split_into_words=True,
        truncation=True,
        max_length=128,
    )
    result = []
    for i, row in enumerate(rows):
        marks, seen = [], None
        for word in batch.word_ids(i):
            new = word is not None and word != seen
            marks.append(number[row[column][word]] if new else -100)
            seen = word
        result.append({"input_ids": batch["input_ids"][i], "labels": marks})
    return result


def accuracy(model: Any, tokenizer: Any, encoded: Sequence[Mapping[str, Any]], size: int) -> float:
    """Share of scored words that are right, evaluated as the trainer does, in batches of a size."""
    collator = DataCollatorForTokenClassification(tokenizer)
    model.eval()
    right = total = 0
    with torch.no_grad():
        for start in range(0, len(encoded), size):
            batch = collator([dict(row) for row in encoded[start : start + size]])
            labels = batch.pop("labels")
            said = model(**batch).logits.argmax(-1)
            scored = labels != -100
            right += int((said[scored] == labels[scored]).sum())
            total += int(scored.sum())
    return right / total


__all__ = ["Stack", "accuracy", "encode", "language_adapter", "tagger"]
