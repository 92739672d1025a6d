"""Scores of predictions, each beside what a trivial answer would score.

One function a kind of task, from a composed model and encoded rows to metrics and a prediction for
each row. The formulas are `compute.metrics`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import numpy as np

from adapterxlt.compute import answers, metrics
from adapterxlt.compute.backbone import Wearing
from adapterxlt.compute.data import Encoded
from adapterxlt.compute.evaluation import (
    Composed,
    embed,
    predict_answers,
    predict_choices,
    predict_labels,
)
from adapterxlt.core.errors import StageError
from adapterxlt.core.tasks import Task

Row = Mapping[str, Any]
#: Stands for the prediction of an item that has none; no task has such a label.
NONE = ""
#: How many candidates of a ranking are kept and scored.
RANKED = 20


@dataclass(frozen=True)
class Test:
    """Rows of a task in a language, encoded, and what the labels of the head are."""

    task: Task
    language: str
    rows: Sequence[Row]
    encoded: Encoded
    labels: Sequence[str] = ()


@dataclass(frozen=True)
class Candidates:
    """What is searched: rows of a language, encoded, and what they wear.

    Cells that search the same candidates with the same adapters embed them once: ``name`` says
    which vectors they are in ``memory``.
    """

    rows: Sequence[Row]
    encoded: Encoded
    stack: Wearing
    name: str = ""
    memory: MutableMapping[str, Any] = field(default_factory=dict)

    def vectors(self, model: Composed, **how: Any) -> np.ndarray[Any, Any]:
        """A unit vector for each row, as of `embed`."""
        if self.name not in self.memory:
            worn = replace(model, stack=self.stack)
            self.memory[self.name] = embed(worn, self.encoded, **how)
        found: np.ndarray[Any, Any] = self.memory[self.name]
        return found


@dataclass(frozen=True)
class Scored:
    """Each metric's score and that of a trivial answer; items scored; a prediction a row."""

    metrics: dict[str, dict[str, float]]
    n: int
    predictions: list[list[Any]]


def evaluate(
    model: Composed, test: Test, wanted: Sequence[str], pool: Sequence[Candidates] = ()
) -> Scored:
    """Predict and score.

    Args:
        wanted: names of metrics.
        pool: what retrieval and ranking search.
    """
    return _KINDS[test.task.kind](model, test, wanted, pool)


def predict(model: Composed, test: Test) -> list[Any]:
    """A prediction for each row: the labels of its items, or a text."""
    if test.task.kind == "qa":
        contexts = [row[test.task.inputs[0]] for row in test.rows]
        longest = test.task.options["longest_answer"]
        return list(predict_answers(model, test.encoded, contexts, longest))
    chosen = predict_choices if test.task.kind == "choice" else predict_labels
    return list(chosen(model, test.encoded, test.labels))


def _labels(
    model: Composed, test: Test, wanted: Sequence[str], pool: Sequence[Candidates]
) -> Scored:
    task, found = test.task, predict(model, test)
    column = [row[task.label] for row in test.rows]
    gold = column if task.kind == "tagging" else [[label] for label in column]
    predicted = answers_of(gold, found)
    said = [[label or None for label in row] for row in predicted]
    return Scored(score(gold, predicted, wanted), sum(map(len, gold)), said)


def answers_of(gold: metrics.Tags, predicted: Sequence[dict[int, str]]) -> list[list[str]]:
    """Predicted labels in the form of the gold ones; `NONE` where an item has none."""
    return [
        [answers.get(i, NONE) for i in range(len(row))]
        for row, answers in zip(gold, predicted, strict=True)
    ]


def score(
    gold: metrics.Tags, predicted: metrics.Tags, wanted: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Metrics of labels, and what always giving the most frequent gold label would score."""
    most = Counter(label for row in gold for label in row).most_common(1)[0][0]
    majority = [[most] * len(row) for row in gold]
    return {
        name: {"score": LABEL_METRICS[name](gold, predicted), "baseline": base(gold, majority)}
        for name, base in ((name, LABEL_METRICS[name]) for name in wanted)
    }


LABEL_METRICS: dict[str, Callable[[metrics.Tags, metrics.Tags], float]] = {
    "accuracy": metrics.accuracy,
    "macro_f1": metrics.macro_f1,
    "span_f1": metrics.span_f1,
    "span_f1_strict": metrics.span_f1_strict,
    "pos_f1": metrics.pos_f1,
}


def _answers(
    model: Composed, test: Test, wanted: Sequence[str], pool: Sequence[Candidates]
) -> Scored:
    """The trivial answer is the beginning of the context, as long as answers are."""
    said, context = predict(model, test), test.task.inputs[0]
    gold = [list(row[test.task.label]["text"]) for row in test.rows]
    words = round(median([len(text.split()) for texts in gold for text in texts[:1]] or [1]))
    first = [answers.first_words(row[context], max(1, words)) for row in test.rows]
    style = test.task.options["normalization"]
    pairs = [answers.qa_scores(gold, each, style, test.language) for each in (said, first)]
    found = {"exact_match": [p[0] for p in pairs], "f1": [p[1] for p in pairs]}
    found["em_f1"] = [sum(pair) / 2 for pair in pairs]
    scores = {name: dict(zip(("score", "baseline"), found[name], strict=True)) for name in wanted}
    return Scored(scores, len(gold), [[answer] for answer in said])


def _translations(
    model: Composed, test: Test, wanted: Sequence[str], pool: Sequence[Candidates]
) -> Scored:
    """Whether a sentence of the source is nearest to its translation, which is in the same row.

    The direction is that of XTREME: the source looks for the target language's. By chance, one in
    so many.
    """
    layers, options = model.backbone.layers, test.task.options
    how: dict[str, Any] = {
        "layer": options["layer"] or min(layers // 2 + 2, layers),
        "pooling": options["pooling"] or "mean",
    }
    candidates = embed(model, test.encoded, **how)
    (there,) = pool
    queries = there.vectors(model, **how)
    similarity = queries @ candidates.T
    if options["csls"]:
        similarity = metrics.csls(similarity)
    found = metrics.retrieval_accuracy(similarity)
    scores = {"accuracy": {"score": found, "baseline": 1 / len(candidates)}}
    nearest = similarity.argmax(axis=1).tolist()
    return Scored({name: scores[name] for name in wanted}, len(queries), [[i] for i in nearest])


def _ranking(
    model: Composed, test: Test, wanted: Sequence[str], pool: Sequence[Candidates]
) -> Scored:
    """Candidates of all languages in one pool, ranked by cosine."""
    queries = embed(model, test.encoded)
    parts = [candidates.vectors(model) for candidates in pool]
    ids = [row["id"] for candidates in pool for row in candidates.rows]
    if len(set(ids)) != len(ids):
        raise StageError("two candidates of the pool have one id")
    answering: dict[str, list[str]] = {}
    for candidates in pool:
        for row in candidates.rows:
            for query in row.get("answers") or ():
                answering.setdefault(query, []).append(row["id"])
    known = set(ids)
    relevant = [
        {i for i in row.get("relevant") or () if i in known} | set(answering.get(row["id"], ()))
        for row in test.rows
    ]
    if not all(relevant):
        lost = test.rows[relevant.index(set())].get("id")
        raise StageError(f"none of the candidates is relevant for the query {lost!r}")
    best = metrics.nearest(queries, np.concatenate(parts), min(RANKED, len(ids)))
    ranked = [[ids[i] for i in row] for row in best.tolist()]
    chance = [metrics.expected_average_precision(len(r), len(ids), RANKED) for r in relevant]
    scores = {
        "map@20": {
            "score": metrics.mean_average_precision(ranked, relevant, RANKED),
            "baseline": sum(chance) / len(chance),
        }
    }
    return Scored({name: scores[name] for name in wanted}, len(queries), [[r] for r in ranked])


_KINDS: dict[str, Callable[[Composed, Test, Sequence[str], Sequence[Candidates]], Scored]] = {
    "tagging": _labels,
    "classification": _labels,
    "pair-classification": _labels,
    "choice": _labels,
    "qa": _answers,
    "retrieval": _translations,
    "ranking": _ranking,
}
