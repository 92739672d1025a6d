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

from adapterxlt.compute.backbone import Backbone, Wearing
from adapterxlt.compute.data import Encoded, collate
from adapterxlt.compute.training import amp

#: Stands for the prediction of an item that has none; no task has such a label.
NONE = ""


@torch.inference_mode()  # type: ignore[untyped-decorator]
def predict(
    backbone: Backbone,
    head: str,
    stack: Wearing,
    data: Encoded,
    labels: Sequence[str],
    *,
    precision: str = "fp32",
    drop: int | None = None,
    tokens: int = 4096,
) -> list[dict[int, str]]:
    """Predicted label of every scored item of every row: one ``{item: label}`` a row.

    Args:
        drop: the first so many layers wear no adapters (AdapterDrop).
        tokens: padded sub-words per forward pass; a matter of memory and speed.
    """
    backbone.model.eval()
    backbone.activate(stack, skip_layers=range(drop or 0))
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


Tags = Sequence[Sequence[str]]
"""Labels by row, as many as the row has items."""


def answers_of(gold: Tags, predicted: Sequence[dict[int, str]]) -> list[list[str]]:
    """Predicted labels in the form of the gold ones; `NONE` where an item has none."""
    return [
        [answers.get(i, NONE) for i in range(len(row))]
        for row, answers in zip(gold, predicted, strict=True)
    ]


def accuracy(gold: Tags, predicted: Tags) -> float:
    """Share of items whose label is right."""
    right, wanted = _flat(gold), _flat(predicted)
    return sum(a == b for a, b in zip(right, wanted, strict=True)) / len(right)


def macro_f1(gold: Tags, predicted: Tags) -> float:
    """Plain mean of the F1 of every label that occurs in the gold data."""
    right = _flat(gold)
    labels = sorted(set(right))
    return float(f1_score(right, _flat(predicted), labels=labels, average="macro", zero_division=0))


def span_f1(gold: Tags, predicted: Tags) -> float:
    """F1 of whole spans, type and both ends right, over all rows together.

    As conlleval and seqeval's default mode: a span also begins at an I- that does not go on
    with what stands before it. 0 where neither side has a span.
    """
    right = {(i, *span) for i, row in enumerate(gold) for span in spans(row)}
    found = {(i, *span) for i, row in enumerate(predicted) for span in spans(row)}
    return 2 * len(right & found) / (len(right) + len(found)) if right or found else 0.0


def spans(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """(type, first, one past the last) of every span of IOB2 tags."""
    found: list[tuple[str, int, int]] = []
    start, kind = 0, ""
    for i, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        name = name or "_"
        inside = prefix == "I" and name == kind
        if kind and not inside:
            found.append((kind, start, i))
            kind = ""
        if prefix in ("B", "I") and not inside:
            start, kind = i, name
    return found


METRICS: dict[str, Callable[[Tags, Tags], float]] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "span_f1": span_f1,
}


def score(gold: Tags, predicted: Tags, metrics: Sequence[str]) -> dict[str, Any]:
    """Each metric, and what always answering the most frequent gold label would score."""
    most = Counter(_flat(gold)).most_common(1)[0][0]
    majority = [[most] * len(row) for row in gold]
    return {
        name: {"score": METRICS[name](gold, predicted), "baseline": METRICS[name](gold, majority)}
        for name in metrics
    }


def _flat(rows: Tags) -> list[str]:
    return [label for row in rows for label in row]
