"""What people use today, as its documentation shows it: `adapters` with its `AdapterTrainer`.

After `run_mlm.py`, `run_ner.py` and `run_glue.py` of the library's examples: blocks of text and all
logits for language adapters, rows in random order padded to the longest of a batch for tasks,
predictions in batches of eight in the order of the rows. Seconds are those of the optimizer steps
alone, without the collator's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import adapters
import torch
from adapters import AdapterTrainer, AutoAdapterModel, SeqBnConfig
from setting import Gate
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    PrinterCallback,
    TrainerCallback,
    TrainingArguments,
)

Tensors = dict[str, torch.Tensor]
NAME = "peer"


class _Clock(TrainerCallback):  # type: ignore[misc]
    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def on_step_begin(self, *args: Any, **more: Any) -> None:
        self.gate.begin()

    def on_step_end(self, *args: Any, **more: Any) -> None:
        self.gate.end()


class _Trainer(AdapterTrainer):  # type: ignore[misc]
    """Tells losses whole: the trainer's own log rounds them."""

    losses: list[float]

    def compute_loss(self, *args: Any, **more: Any) -> Any:
        found = super().compute_loss(*args, **more)
        self.losses.append(float((found[0] if isinstance(found, tuple) else found).detach()))
        return found


def arguments(
    budget: Mapping[str, Any], seed: int, precision: str = "fp32", **more: Any
) -> TrainingArguments:
    """The trainer's arguments for a budget of ours; what it does not say is the library's."""
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
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        **more,
    )


def fit(
    model: Any, args: TrainingArguments, rows: Any, collator: Any, gate: Gate | None = None
) -> Gate:
    """Train with the library's trainer; how long its steps took, and their losses."""
    gate = gate or Gate()
    trainer = _Trainer(
        model=model,
        args=args,
        train_dataset=rows,
        data_collator=collator,
        callbacks=[_Clock(gate)],
    )
    trainer.losses = gate.losses
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return gate


def own(model: Any, name: str = NAME) -> dict[str, torch.nn.Parameter]:
    """Parameters of what goes by a name, with ``@`` in its place, as our stored tensors have it."""
    parts = ((full.split("."), p) for full, p in model.named_parameters())
    return {
        ".".join("@" if part == name else part for part in full): p
        for full, p in parts
        if name in full
    }


def weights(model: Any) -> Tensors:
    """Copies of what was trained."""
    return {n: p.detach().clone() for n, p in own(model).items()}


def start(model: Any, first: Mapping[str, torch.Tensor] | None) -> None:
    """Give what is trained its first weights, where they are known."""
    mine = own(model)
    assert first is None or first.keys() == mine.keys()
    with torch.no_grad():
        for n, tensor in (first or {}).items():
            mine[n].copy_(tensor)


def language_model(folder: Path, first: Mapping[str, torch.Tensor] | None = None) -> Any:
    """A masked language model with a MAD-X language adapter to train."""
    model = AutoModelForMaskedLM.from_pretrained(folder)
    adapters.init(model)
    model.add_adapter(NAME, config="seq_bn_inv[reduction_factor=2]")
    encoder = model.base_model
    # adapters 1.3.0 leaves the inverse out of heads of transformers, so that it would train
    # something else than MAD-X (and than its own heads).
    model.get_output_embeddings().register_forward_pre_hook(
        lambda _, states: (encoder.invertible_adapters_forward(states[0], rev=True),)
    )
    # It would also train the head, which is not saved with an adapter.
    for n, parameter in model.named_parameters():
        parameter.requires_grad_(NAME in n.split("."))
    model.train_adapter(NAME)
    start(model, first)
    return model


def language_adapter(
    folder: Path,
    blocks: Sequence[Sequence[int]],
    budget: Mapping[str, Any],
    seed: int = 1,
    *,
    precision: str = "fp32",
    first: Mapping[str, torch.Tensor] | None = None,
    batches: Sequence[Mapping[str, torch.Tensor]] | None = None,
    gate: Gate | None = None,
) -> tuple[Any, Gate]:
    """`run_mlm.py --train_adapter` with MAD-X's configuration, on blocks of sub-words.

    Args:
        first: weights to start from, as `own` names them.
        batches: masked batches to train on in this order, in the place of the library's own order
            and masks, so that losses can be compared step by step.
    """
    torch.manual_seed(seed)
    model = language_model(folder, first)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    collator: Callable[[Any], Any] = DataCollatorForLanguageModeling(
        tokenizer, mlm_probability=0.15
    )
    if batches is not None:
        given = iter(batches)

        def collator(rows: Any) -> Any:
            return dict(next(given))

    rows = [{"input_ids": list(block)} for block in blocks]
    return model, fit(model, arguments(budget, seed, precision), rows, collator, gate)


def layers_of(folder: Path) -> int:
    """How many layers a backbone has."""
    return int(AutoConfig.from_pretrained(folder).num_hidden_layers)


def task_model(
    folder: Path,
    labels: Sequence[str],
    *,
    kind: str = "tagging",
    reduction_factor: float = 16,
    leave_out: Sequence[int] = (),
    first: Mapping[str, torch.Tensor] | None = None,
) -> Any:
    """A model with a task adapter and its head to train.

    Args:
        leave_out: layers without adapters.
    """
    model = AutoAdapterModel.from_pretrained(folder)
    config = SeqBnConfig(reduction_factor=reduction_factor, leave_out=list(leave_out))
    model.add_adapter(NAME, config=config)
    if kind == "tagging":
        model.add_tagging_head(NAME, num_labels=len(labels))
    else:
        model.add_classification_head(NAME, num_labels=len(labels), layers=1)
    model.train_adapter(NAME)
    start(model, first)
    return model


def tagger(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    budget: Mapping[str, Any],
    seed: int = 1,
    *,
    column: str = "upos",
    precision: str = "fp32",
    gate: Gate | None = None,
    **more: Any,
) -> tuple[Any, Any, Gate]:
    """A task adapter for tagging as `run_ner.py` trains one; model, tokenizer, what it took.

    Args:
        more: of `task_model`.
    """
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = task_model(folder, labels, **more)
    encoded = encode(tokenizer, rows, labels, column)
    collator = DataCollatorForTokenClassification(tokenizer)
    found = fit(model, arguments(budget, seed, precision), encoded, collator, gate)
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


def encode_texts(
    tokenizer: Any,
    rows: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    columns: Sequence[str],
    label: str = "label",
) -> list[dict[str, Any]]:
    """Texts or pairs of texts as `run_glue.py` encodes them."""
    texts = [[row[column] for row in rows] for column in columns]
    batch = tokenizer(*texts, truncation=True, max_length=128)
    gold = [list(labels).index(row[label]) for row in rows]
    ids = batch["input_ids"]
    return [{"input_ids": one, "labels": n} for one, n in zip(ids, gold, strict=True)]


def predict(
    model: Any, tokenizer: Any, encoded: Sequence[Mapping[str, Any]], precision: str = "fp32"
) -> list[list[int]]:
    """Predicted labels of each row, of tagging those of the words' first sub-words."""
    return predictor(model, tokenizer, encoded, precision)()


def predictor(
    model: Any, tokenizer: Any, encoded: Sequence[Mapping[str, Any]], precision: str = "fp32"
) -> Callable[[], list[list[int]]]:
    """What predicts rows with the trainer's `predict`, each time that it is called."""
    tagging = isinstance(encoded[0]["labels"], list)
    kind = DataCollatorForTokenClassification if tagging else DataCollatorWithPadding
    args = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        bf16_full_eval=precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        report_to=[],
        disable_tqdm=True,
    )
    trainer = AdapterTrainer(model=model, args=args, data_collator=kind(tokenizer))

    def said() -> list[list[int]]:
        found = trainer.predict(list(encoded))
        best = found.predictions.argmax(-1)
        if not tagging:
            return [[int(one)] for one in best]
        pairs = zip(best, found.label_ids, strict=True)
        return [row[gold != -100].tolist() for row, gold in pairs]

    return said


def accuracy(said: Sequence[Sequence[int]], encoded: Sequence[Mapping[str, Any]]) -> float:
    """Share of scored words, or of rows, that are right."""
    gold = [
        [label for label in row["labels"] if label != -100]
        if isinstance(row["labels"], list)
        else [row["labels"]]
        for row in encoded
    ]
    pairs = [
        pair for row, right in zip(said, gold, strict=True) for pair in zip(row, right, strict=True)
    ]
    return sum(a == b for a, b in pairs) / len(pairs)
