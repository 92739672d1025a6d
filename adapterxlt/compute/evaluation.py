"""Predictions of a composed model: labels, answers and vectors. Scoring is `compute.scoring`.

Every item of every row is predicted, but for words that the tokenizer leaves without a sub-word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from adapterxlt.compute.backbone import Backbone, Wearing
from adapterxlt.compute.data import Batch, Encoded, Window
from adapterxlt.compute.memory import is_short, release
from adapterxlt.compute.remembered import Memory, Remembered, below
from adapterxlt.compute.steps import amp


@dataclass(frozen=True)
class Composed:
    """A backbone with what it wears, as an evaluation looks through it.

    Attributes:
        stack: adapters, lowest first.
        head: name of the head on the backbone; ``None`` where states themselves are looked at.
        drop: the first so many layers wear no adapters (AdapterDrop).
        tokens: padded sub-words per forward pass; a matter of memory and speed. Fewer where memory
            is short.
        memory: where states of layers that other evaluations share are remembered.
        own: what on the stack is not shared.
    """

    backbone: Backbone
    stack: Wearing
    head: str | None = None
    precision: str = "fp32"
    drop: int | None = None
    tokens: int = 4096
    memory: Memory | None = None
    own: frozenset[str] = frozenset()

    def outputs(self, batch: Batch) -> torch.Tensor:
        """What the head says of each scored position: (positions, columns of the head)."""
        assert self.head is not None
        return self.backbone.head_logits(self.head, self.backbone.scored(batch, self.below))

    @cached_property
    def below(self) -> Remembered | None:
        """What is remembered of the layers below ``own``, once the stack is active."""
        return below(self.backbone, self.memory, self.own) if self.memory is not None else None

    def each(
        self, data: Encoded, look: Callable[[Batch], torch.Tensor]
    ) -> Iterator[tuple[int, int, Window, torch.Tensor]]:
        """(row, window of the row, the window, what ``look`` gives for its positions)."""
        backbone = self.backbone
        windows = [(i, n, w) for i, row in enumerate(data.rows) for n, w in enumerate(row)]
        windows = sorted(windows, key=lambda place: len(place[2].ids))
        backbone.model.eval()
        backbone.compute_in(self.precision)
        backbone.activate(self.stack, skip_layers=range(self.drop or 0))
        start, tokens = 0, self.tokens
        while start < len(windows):
            end = start + 1
            while end < len(windows) and (end + 1 - start) * len(windows[end][2].ids) <= tokens:
                end += 1
            chunk = windows[start:end]
            batch = backbone.batch([window for _, _, window in chunk])
            if len(batch.index[0]):
                seen = self._seen(batch, look, last=len(chunk) == 1)
                if seen is None:
                    release(backbone.device)
                    tokens = len(chunk) * len(chunk[-1][2].ids) // 2
                    continue
                sizes = [len(window.positions) for _, _, window in chunk]
                for (i, n, window), part in zip(chunk, seen.split(sizes), strict=True):
                    yield i, n, window, part
            start = end

    def _seen(
        self, batch: Batch, look: Callable[[Batch], torch.Tensor], last: bool
    ) -> torch.Tensor | None:
        """What ``look`` gives for a batch; nothing where memory is short, unless it is the ``last``
        that a batch can be made of."""
        try:
            with torch.inference_mode(), amp(self.precision, self.backbone.device):
                return look(batch).float().cpu()
        except (MemoryError, RuntimeError) as error:
            if last or not is_short(error):
                raise
        return None


def predict_labels(model: Composed, data: Encoded, labels: Sequence[str]) -> list[dict[int, str]]:
    """Predicted label of every scored item of every row: one ``{item: label}`` a row."""
    result: list[dict[int, str]] = [{} for _ in data.rows]
    for i, _, window, outputs in model.each(data, model.outputs):
        best = outputs.argmax(dim=-1).tolist()
        result[i] |= {item: labels[b] for item, b in zip(window.items, best, strict=True)}
    return result


def predict_choices(model: Composed, data: Encoded, labels: Sequence[str]) -> list[dict[int, str]]:
    """The label of the alternative with the highest score, of equal ones the first."""
    scores = [[float("-inf")] * len(row) for row in data.rows]
    for i, n, _, outputs in model.each(data, model.outputs):
        scores[i][n] = float(outputs[0, 0])
    return [{0: labels[row.index(max(row))]} for row in scores]


def predict_answers(
    model: Composed, data: Encoded, contexts: Sequence[str], longest: int
) -> list[str]:
    """The characters of the best span of each context; empty where a context has no sub-word.

    The best span is that with the highest sum of start and end scores over all windows of the row,
    of at most ``longest`` sub-words.
    """
    best: list[tuple[float, int, int]] = [(float("-inf"), 0, 0) for _ in data.rows]
    for i, _, window, outputs in model.each(data, model.outputs):
        if len(window.spans) < 2:
            continue
        # The first position stands for no answer in this window.
        first, last = outputs[1:].unbind(1)
        scores = first[:, None] + last[None, :]
        allowed = torch.ones_like(scores).triu().tril(longest - 1).bool()
        scores = scores.masked_fill(~allowed, float("-inf"))
        place = int(scores.argmax())
        begin, end = divmod(place, scores.shape[1])
        found = (float(scores[begin, end]), window.spans[begin + 1][0], window.spans[end + 1][1])
        # Windows come in order of length: of equal spans the one that stands first in the text.
        best[i] = max(best[i], found, key=lambda one: (one[0], -one[1]))
    pairs = zip(contexts, best, strict=True)
    # Of many tokenizers a word's first sub-word has the space before it.
    return [context[begin:end].strip() for context, (_, begin, end) in pairs]


def embed(
    model: Composed, data: Encoded, layer: int | None = None, pooling: str = "mean"
) -> np.ndarray[Any, Any]:
    """A unit vector for each row of one window: (rows, columns of the head), fp32.

    Args:
        layer: without a head, whose states are read; (rows, hidden).
        pooling: of these the `mean` over all sub-words, special tokens among them, or the first
            one's (`cls`).
    """

    def pooled(batch: Batch) -> torch.Tensor:
        states = model.backbone.trunk.lowest(batch, layer)
        parts = [states[row, begin:end] for row, begin, end in batch.spots]
        return torch.stack([part[0] if pooling == "cls" else part.mean(0) for part in parts])

    look = model.outputs if model.head is not None else pooled
    found: dict[int, torch.Tensor] = {i: part[0] for i, _, _, part in model.each(data, look)}
    vectors = torch.stack([found[i] for i in range(len(found))])
    return np.ascontiguousarray(torch.nn.functional.normalize(vectors, dim=-1).numpy())
