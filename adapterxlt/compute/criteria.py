"""The loss of each kind of task, as pure functions of a head's outputs and the rows of a batch.

Sums over terms, so that micro-batches add up to the batch: a term is an item of tagging,
classification and masked language modelling, a row of choice and ranking, a window of question
answering. Knows neither backbone nor streams; the training loop calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn.functional import cross_entropy, normalize
from torch.nn.utils.rnn import pad_sequence

from adapterxlt.compute.data import Window
from adapterxlt.compute.softmax import linear_cross_entropy

Rows = Sequence[tuple[Window, ...]]
Loss = Callable[[torch.Tensor, torch.Tensor, Rows], torch.Tensor]


@dataclass(frozen=True)
class Criterion:
    """How a batch is scored.

    Attributes:
        loss: summed over terms, of outputs (scored positions, columns of the head), labels (all
            labels of the batch) and rows.
        terms: how many terms rows have.
        splits: whether parts of a batch can be scored by themselves, as micro-batches are.
    """

    loss: Loss
    terms: Callable[[Rows], int]
    splits: bool = True


def _items(outputs: torch.Tensor, labels: torch.Tensor, rows: Rows) -> torch.Tensor:
    return cross_entropy(outputs, labels, reduction="sum")


def _choices(outputs: torch.Tensor, labels: torch.Tensor, rows: Rows) -> torch.Tensor:
    """Softmax over the alternatives of a row, each scored by one number."""
    return cross_entropy(_padded(outputs[:, 0], map(len, rows)), labels, reduction="sum")


def _spans(outputs: torch.Tensor, labels: torch.Tensor, rows: Rows) -> torch.Tensor:
    """Mean of the losses of the first and of the last position, softmax over those of a window."""
    sizes = [len(window.positions) for row in rows for window in row]
    both = zip(outputs.unbind(1), labels.view(-1, 2).unbind(1), strict=True)
    losses = [cross_entropy(_padded(c, sizes), gold, reduction="sum") for c, gold in both]
    return torch.stack(losses).mean()


def _in_batch(
    outputs: torch.Tensor, labels: torch.Tensor, rows: Rows, *, temperature: float
) -> torch.Tensor:
    """Softmax over the answers of the batch, of cosines with the query.

    Another row's answer with the same text is not a wrong one; it is left out.
    """
    queries, answers = normalize(outputs[0::2], dim=-1), normalize(outputs[1::2], dim=-1)
    scores = queries @ answers.T / temperature
    texts = [tuple(answer.ids) for _, answer in rows]
    same = [[i != j and a == b for j, b in enumerate(texts)] for i, a in enumerate(texts)]
    scores = scores.masked_fill(torch.tensor(same, device=scores.device), float("-inf"))
    gold = torch.arange(len(texts), device=scores.device)
    return cross_entropy(scores, gold, reduction="sum")


def _padded(values: torch.Tensor, sizes: Any) -> torch.Tensor:
    """One line a group, (groups, longest), what is not there at minus infinity."""
    groups = values.split(list(sizes))
    return pad_sequence(list(groups), batch_first=True, padding_value=float("-inf"))


def vocabulary(
    weight: torch.Tensor, bias: torch.Tensor, number: torch.Tensor | None = None
) -> Criterion:
    """Masked language modelling, of states before the output embeddings (pieces, hidden).

    Args:
        number: which of the pieces a piece of the vocabulary is; all are there when left out.
    """

    def loss(states: torch.Tensor, labels: torch.Tensor, rows: Rows) -> torch.Tensor:
        gold = labels if number is None else number[labels]
        return linear_cross_entropy(states, weight, bias, gold)

    return Criterion(loss, ITEMS.terms)


ITEMS = Criterion(_items, lambda rows: sum(len(w.labels) for row in rows for w in row))


def criterion_of(head: Mapping[str, Any]) -> Criterion:
    """The criterion of a head, as `Task.head` describes it."""
    if head["kind"] == "choice":
        return Criterion(_choices, len)
    if head["kind"] == "qa":
        return Criterion(_spans, lambda rows: sum(map(len, rows)))
    if head["kind"] == "ranking":
        loss = partial(_in_batch, temperature=head["temperature"])
        return Criterion(loss, len, splits=False)
    return ITEMS
