"""Predictions of a composed model, and the metrics computed from them.

Every item of every row is scored: a word that the tokenizer leaves without a sub-word has no
prediction and counts as wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from sklearn.metrics import f1_score

from adapterxlt.compute.backbone import Backbone
from adapterxlt.compute.data import Encoded, collate
from adapterxlt.compute.training import amp

#: Stands for the prediction of an item that has none; no task has such a label.
NONE = ""


@torch.inference_mode()  # type: ignore[untyped-decorator]
def predict(
    backbone: Backbone,
    head: str,
    stack: tuple[str, ...],
    data: Encoded,
    labels: Sequence[str],
    *,
    precision: str = "fp32",
    tokens: int = 4096,
) -> list[dict[int, str]]:
    """Predicted label of every scored item of every row: one ``{item: label}`` a row.

    Args:
        tokens: padded sub-words per forward pass; a matter of memory and speed.
    """
    backbone.model.eval()
    backbone.activate(stack)
    result: list[dict[int, str]] = [{} for _ in data.rows]
    windows = [(i, window) for i, row in enumerate(data.rows) for window in row]
    windows.sort(key=lambda pair: len(pair[1].ids))
    pad = backbone.tokenizer.pad_token_id
    start = 0
    while start < len(windows):
        end = start + 1
        while end < len(windows) and (end + 1 - start) * len(windows[end][1].ids) <= tokens:
            end += 1
        chunk = windows[start:end]
        batch = collate([window for _, window in chunk], pad).to(backbone.device)
        if len(batch.labels):
            with amp(precision, backbone.device):
                states = backbone.hidden(batch.ids, batch.mask)[batch.index]
                best = backbone.head_logits(head, states).argmax(dim=-1).tolist()
            where = [(i, item) for i, window in chunk for item in window.items]
            for (i, item), label in zip(where, best, strict=True):
                result[i][item] = labels[label]
        start = end
    return result


def gold_and_predicted(
    gold: Sequence[Sequence[str]], predicted: Sequence[dict[int, str]]
) -> tuple[list[str], list[str]]:
    """Flat lists of gold and predicted labels, one entry per item, none left out."""
    flat_gold = [label for row in gold for label in row]
    flat = [
        answers.get(i, NONE)
        for row, answers in zip(gold, predicted, strict=True)
        for i in range(len(row))
    ]
    return flat_gold, flat


def accuracy(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """Share of items whose label is right."""
    return sum(a == b for a, b in zip(gold, predicted, strict=True)) / len(gold)


def macro_f1(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """Plain mean of the F1 of every label that occurs in the gold data."""
    labels = sorted(set(gold))
    return float(f1_score(gold, predicted, labels=labels, average="macro", zero_division=0))


METRICS: dict[str, Callable[[Sequence[str], Sequence[str]], float]] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
}


def score(gold: Sequence[str], predicted: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    """Each metric, and what always answering the most frequent gold label would score."""
    majority = [Counter(gold).most_common(1)[0][0]] * len(gold)
    return {
        name: {"score": METRICS[name](gold, predicted), "baseline": METRICS[name](gold, majority)}
        for name in metrics
    }
