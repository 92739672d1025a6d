"""Predictions and scores of choice, question answering, retrieval and ranking, by brute force: one
window at a time through the model, and plain loops over everything that could be an answer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adapterxlt import lab
from adapterxlt.compute import metrics
from adapterxlt.compute.answers import qa_scores
from adapterxlt.compute.backbone import Backbone
from adapterxlt.compute.data import Encoded, Window
from adapterxlt.compute.encoding import encode
from adapterxlt.compute.evaluation import (
    Composed,
    embed,
    predict_answers,
    predict_choices,
    predict_labels,
)
from adapterxlt.compute.scoring import Candidates, Scored, evaluate, predict
from adapterxlt.compute.scoring import Test as Asked
from adapterxlt.core.errors import StageError
from adapterxlt.core.tasks import TASKS, Task

Row = dict[str, Any]
SPEC = {"method": "seq_bn", "reduction_factor": 4.0, "non_linearity": "relu"}
#: Padded sub-words a pass: one window at a time, a few, all.
BUDGETS = (1, 200, 10**9)


@pytest.fixture(scope="module")
def loaded(tiny_backbone: Path) -> Backbone:
    return Backbone(tiny_backbone)


@pytest.fixture
def backbone(loaded: Backbone) -> Backbone:
    """With two adapters that are no identity."""
    loaded.reset()
    for name in "ab":
        loaded.add_adapter(name, SPEC, seed=ord(name))
    randomize(loaded, "a", 0.3)
    randomize(loaded, "b", 0.3)
    return loaded


def randomize(backbone: Backbone, name: str, size: float) -> None:
    """Weights as of a model that has learnt something: its outputs differ."""
    generator = torch.Generator().manual_seed(ord(name))
    with torch.no_grad():
        for parameter in backbone.trainable([name]).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * size)


def composed(backbone: Backbone, task: Task, **more: Any) -> Composed:
    if "h" in backbone.model.heads:
        backbone.model.delete_head("h")
    backbone.add_head("h", task.head)
    randomize(backbone, "h", 1.0)
    return Composed(backbone, ("a",), "h", **more)


def lab_rows(task: str, language: str, split: str, count: int) -> list[Row]:
    rows = [dict(row) for row in lab.rows(task, language, split)[:count]]
    return [{**r, "label": str(r["label"])} if "label" in r else r for r in rows]


def states(
    backbone: Backbone, window: Window, stack: Sequence[str] = ("a",), layer: int | None = None
) -> torch.Tensor:
    """(length, hidden) of one window alone, from all layers as the model gives them."""
    backbone.model.eval()
    backbone.activate(tuple(stack))
    with torch.inference_mode():
        seen = backbone.model.base_model(torch.tensor([window.ids]), output_hidden_states=True)
    assert len(seen.hidden_states) == backbone.layers + 1
    return seen.hidden_states[-1 if layer is None else layer][0]


def headed(backbone: Backbone, window: Window) -> np.ndarray[Any, Any]:
    """The head's matrix and bias, at the scored positions: (positions, columns), by numpy."""
    weights = backbone.weights("h")
    (matrix,) = (t for t in weights.values() if t.dim() == 2)
    (bias,) = (t for t in weights.values() if t.dim() == 1)
    found = states(backbone, window).numpy()[window.positions] @ matrix.numpy().T + bias.numpy()
    return np.asarray(found, dtype=np.float64)


# --- choice --------------------------------------------------------------------------------------


def test_the_alternative_with_the_highest_score_is_chosen(backbone: Backbone) -> None:
    task = TASKS["lab-choice"]
    rows = lab_rows("lab-choice", "lab-mid-mid", "test", 40)
    model = composed(backbone, task)
    data = encode(backbone.tokenizer, task, rows, 128)
    wanted = [int(np.argmax([headed(backbone, w)[0, 0] for w in row])) for row in data.rows]
    assert set(wanted) == {0, 1}
    found = predict_choices(model, data, ("first", "second"))
    assert found == [{0: ("first", "second")[n]} for n in wanted]
    scored = evaluate(model, Asked(task, "lab-mid-mid", rows, data, task.labels), ["accuracy"])
    right = [row["label"] == str(n) for row, n in zip(rows, wanted, strict=True)]
    most = max(sum(row["label"] == label for row in rows) for label in "01")
    assert scored.metrics == {"accuracy": {"score": sum(right) / 40, "baseline": most / 40}}
    assert scored.predictions == [[str(n)] for n in wanted] and scored.n == 40


def test_rows_may_have_different_numbers_of_alternatives(backbone: Backbone) -> None:
    model = composed(backbone, TASKS["lab-choice"])
    data = encode(
        backbone.tokenizer, TASKS["lab-choice"], lab_rows("lab-choice", "lab-root", "test", 8), 64
    )
    windows = [window for row in data.rows for window in row]
    rows = [tuple(windows[:5]), tuple(windows[5:6]), tuple(windows[6:9]), tuple(windows[9:16])]
    found = predict_choices(model, Encoded(rows), "abcdefg")
    wanted = [int(np.argmax([headed(backbone, w)[0, 0] for w in row])) for row in rows]
    assert found == [{0: "abcdefg"[n]} for n in wanted]


# --- question answering --------------------------------------------------------------------------


def best_answer(backbone: Backbone, row: tuple[Window, ...], context: str, longest: int) -> str:
    best, found = -np.inf, (0, 0)
    for window in row:
        scores = headed(backbone, window)
        for i in range(1, len(scores)):
            for j in range(i, min(i + longest, len(scores))):
                if scores[i, 0] + scores[j, 1] > best + 1e-9:
                    best = scores[i, 0] + scores[j, 1]
                    found = (window.spans[i][0], window.spans[j][1])
    return context[slice(*found)].strip()


@pytest.mark.parametrize("longest", [1, 3, 30])
def test_the_best_span_of_all_windows_is_the_answer(backbone: Backbone, longest: int) -> None:
    task = TASKS["lab-qa"]
    rows = lab_rows("lab-qa", "lab-mid-mid", "test", 15)
    rows[2] = {**rows[2], "context": "dud sofu", "answers": {"text": [], "answer_start": []}}
    rows[3] = {**rows[3], "context": "", "answers": {"text": [], "answer_start": []}}
    model = composed(backbone, task)
    data = encode(backbone.tokenizer, task, rows, 36)
    assert max(map(len, data.rows)) >= 3
    contexts = [row["context"] for row in rows]
    wanted = [
        best_answer(backbone, windows, context, longest)
        for windows, context in zip(data.rows, contexts, strict=True)
    ]
    assert predict_answers(model, data, contexts, longest) == wanted
    assert wanted[3] == "" and all(wanted[:3]) and len(set(wanted)) > 8
    # The limit matters, and so do windows after the first.
    assert wanted != [
        best_answer(backbone, windows, context, 2)
        for windows, context in zip(data.rows, contexts, strict=True)
    ]
    alone = Encoded([row[:1] for row in data.rows])
    assert predict_answers(model, alone, contexts, longest) != wanted
    test = Asked(task.model_copy(update={"longest_answer": longest}), "lab-mid-mid", rows, data)
    assert predict(model, test) == wanted


def test_answers_are_scored_beside_the_beginning_of_the_context(backbone: Backbone) -> None:
    task = TASKS["lab-qa"]
    rows = lab_rows("lab-qa", "lab-root", "test", 12)
    model = composed(backbone, task)
    data = encode(backbone.tokenizer, task, rows, 64)
    said = predict(model, Asked(task, "lab-root", rows, data))
    # One answer is made right, one half right.
    rows[0] = {**rows[0], "answers": {"text": ["no", said[0]], "answer_start": [0, 0]}}
    rows[1] = {**rows[1], "answers": {"text": [f"{said[1].split()[0]} zzz"], "answer_start": [0]}}
    test = Asked(task, "lab-root", rows, data)
    scored = evaluate(model, test, ["em_f1", "f1", "exact_match"])
    gold = [row["answers"]["text"] for row in rows]
    count = sorted(len(texts[0].split()) for texts in gold)
    median = (count[5] + count[6]) / 2
    first = [" ".join(row["context"].split()[: round(median)]) for row in rows]
    for answers, name in ((said, "score"), (first, "baseline")):
        exact, overlap = qa_scores(gold, answers, "squad", "lab-root")
        found = {metric: scored.metrics[metric][name] for metric in scored.metrics}
        assert found == {"em_f1": (exact + overlap) / 2, "f1": overlap, "exact_match": exact}
    assert all(values["score"] > 0 for values in scored.metrics.values())
    assert list(scored.metrics) == ["em_f1", "f1", "exact_match"]
    assert scored.predictions == [[answer] for answer in said] and scored.n == 12


def test_the_normalization_is_that_of_the_task(backbone: Backbone) -> None:
    task = TASKS["lab-qa"]
    row = {"context": "die", "question": "", "answers": {"text": ["der"], "answer_start": [0]}}
    model = composed(backbone, task)
    data = encode(backbone.tokenizer, task, [row], 64)
    found = {}
    for style in ("squad", "mlqa"):
        of = task.model_copy(update={"normalization": style, "longest_answer": 10})
        found[style] = evaluate(model, Asked(of, "de", [row], data), ["exact_match"])
        assert found[style].predictions[0][0] in "die"
    # Of articles alone nothing is left.
    assert found["squad"].metrics["exact_match"]["score"] == 0.0
    assert found["mlqa"].metrics["exact_match"]["baseline"] == 1.0


# --- vectors -------------------------------------------------------------------------------------


def unit(vectors: list[Any]) -> np.ndarray[Any, Any]:
    matrix = np.stack([np.asarray(v, dtype=np.float64) for v in vectors])
    return np.asarray(matrix / np.linalg.norm(matrix, axis=1, keepdims=True))


def mean_states(
    backbone: Backbone, data: Encoded, layer: int | None, stack: Sequence[str] = ("a",)
) -> np.ndarray[Any, Any]:
    return unit([states(backbone, row[0], stack, layer).double().mean(0) for row in data.rows])


def bitext(backbone: Backbone, count: int, side: str) -> tuple[list[Row], Encoded]:
    rows = lab_rows("lab-bitext", "lab-near-high", "test", count)
    return rows, encode(backbone.tokenizer, TASKS["lab-bitext"], rows, 128, side=side)


@pytest.mark.parametrize("layer", [1, 2, None])
def test_a_vector_is_the_mean_of_all_states_of_a_layer(
    backbone: Backbone, layer: int | None
) -> None:
    _, data = bitext(backbone, 20, "source")
    model = Composed(backbone, ("a",), tokens=300)
    found = embed(model, data, layer)
    assert found.dtype == np.float32 and found.shape == (20, 32)
    np.testing.assert_allclose(found, mean_states(backbone, data, layer), atol=2e-6)
    inner = [states(backbone, row[0], layer=layer)[1:-1].mean(0) for row in data.rows]
    assert np.abs(found - unit(inner)).max() > 1e-3
    other = mean_states(backbone, data, {1: 2, 2: 1, None: 1}[layer])
    assert np.abs(found - other).max() > 1e-3


def test_a_vector_may_be_that_of_the_first_sub_word(backbone: Backbone) -> None:
    _, data = bitext(backbone, 20, "source")
    found = embed(Composed(backbone, ("a",), tokens=300), data, 1, "cls")
    first = unit([states(backbone, row[0], layer=1)[0] for row in data.rows])
    np.testing.assert_allclose(found, first, atol=2e-6)


def test_with_a_head_a_vector_is_its_projection_of_the_first_state(backbone: Backbone) -> None:
    task = TASKS["lab-ranking"]
    rows = lab_rows("lab-ranking", "lab-root", "test", 20)
    model = composed(backbone, task)
    data = encode(backbone.tokenizer, task, rows, 128, side="query")
    wanted = unit([headed(backbone, row[0])[0] for row in data.rows])
    np.testing.assert_allclose(embed(model, data), wanted, atol=2e-6)


# --- retrieval -----------------------------------------------------------------------------------


def nearest(similarity: np.ndarray[Any, Any]) -> list[int]:
    """The most similar candidate of each query, by a plain loop; it must be clear."""
    found = []
    for line in similarity:
        order = sorted(range(len(line)), key=lambda j: -line[j])
        assert line[order[0]] - line[order[1]] > 1e-7
        found.append(order[0])
    return found


def local_scaling(similarity: np.ndarray[Any, Any], k: int = 10) -> np.ndarray[Any, Any]:
    found = np.empty_like(similarity)
    for i, j in itertools.product(*map(range, similarity.shape)):
        row, column = sorted(similarity[i])[-k:], sorted(similarity[:, j])[-k:]
        found[i, j] = 2 * similarity[i, j] - sum(row) / len(row) - sum(column) / len(column)
    return found


@pytest.mark.parametrize("csls", [False, True])
@pytest.mark.parametrize("backward", [False, True])
def test_retrieval_finds_the_nearest_sentence(
    backbone: Backbone, csls: bool, backward: bool
) -> None:
    """In either direction: what is searched wears its own language's adapter."""
    sides = ["target", "source"] if backward else ["source", "target"]
    (rows, here), (_, there) = (bitext(backbone, 60, side) for side in sides)
    task = TASKS["lab-bitext"].model_copy(update={"csls": csls, "layer": 1})
    pool = [Candidates(rows, there, ("b",))]
    model = Composed(backbone, ("a",), tokens=500)
    scored = evaluate(model, Asked(task, "lab-near-high", rows, here), ["accuracy"], pool)
    queries = mean_states(backbone, there, 1, ("b",))
    candidates = mean_states(backbone, here, 1, ("a",))
    plain = queries @ candidates.T
    wanted = nearest(local_scaling(plain) if csls else plain)
    assert scored.predictions == [[n] for n in wanted]
    score = sum(i == n for i, n in enumerate(wanted)) / 60
    assert scored.metrics == {"accuracy": {"score": pytest.approx(score), "baseline": 1 / 60}}
    assert scored.n == 60
    # Scaling changes what is found, and so does the direction.
    assert nearest(local_scaling(plain)) != nearest(plain) != nearest(plain.T)


def test_the_layer_of_retrieval_is_the_second_above_the_middle(backbone: Backbone) -> None:
    """With two layers the last one; whatever the task says goes before."""
    (rows, here), (_, there) = (bitext(backbone, 30, side) for side in ("source", "target"))
    pool, model = [Candidates(rows, there, ("b",))], Composed(backbone, ("a",))
    found = {}
    for layer in (None, 1, 2):
        task = TASKS["lab-bitext"].model_copy(update={"layer": layer})
        found[layer] = evaluate(model, Asked(task, "x", rows, here), ["accuracy"], pool).predictions
    assert found[None] == found[2] != found[1]
    task = TASKS["lab-bitext"].model_copy(update={"pooling": "cls"})
    first = evaluate(model, Asked(task, "x", rows, here), ["accuracy"], pool).predictions
    assert first != found[None]


# --- ranking -------------------------------------------------------------------------------------


def ranked(
    backbone: Backbone, queries: list[Row], parts: list[list[Row]], stacks: Sequence[str] = "ab"
) -> tuple[Scored, list[list[str]]]:
    """What is scored, and the ranking by plain loops."""
    task = TASKS["lab-ranking"]
    model = composed(backbone, task)
    tokenizer = backbone.tokenizer
    asked = encode(tokenizer, task, queries, 128, side="query")
    pool = [
        Candidates(rows, encode(tokenizer, task, rows, 128, side="text"), (stack,))
        for rows, stack in zip(parts, stacks, strict=True)
    ]
    scored = evaluate(model, Asked(task, "lab-root", queries, asked), ["map@20"], pool)
    weights = backbone.weights("h")
    (matrix,) = (t.double() for t in weights.values() if t.dim() == 2)
    (bias,) = (t.double() for t in weights.values() if t.dim() == 1)

    def vector(window: Window, stack: str) -> np.ndarray[Any, Any]:
        return np.asarray(matrix @ states(backbone, window, (stack,))[0].double() + bias)

    found = [
        (row["id"], vector(windows[0], stack))
        for part, stack in zip(pool, stacks, strict=True)
        for row, windows in zip(part.rows, part.encoded.rows, strict=True)
    ]
    order = []
    for (window,) in asked.rows:
        query = vector(window, "a")
        cosines = [
            (-float(query @ v / np.linalg.norm(query) / np.linalg.norm(v)), name)
            for name, v in found
        ]
        order.append([name for _, name in sorted(cosines)][:20])
    return scored, order


def average_precision(names: list[str], relevant: set[str]) -> float:
    total = 0.0
    for rank, name in enumerate(names[:20], start=1):
        if name in relevant:
            total += len(relevant & set(names[:rank])) / rank
    return total / min(20, len(relevant))


def pool_rows(count: int = 30) -> list[list[Row]]:
    return [
        lab_rows("lab-ranking", language, "candidates", count)
        for language in ("lab-root", "lab-mid-mid")
    ]


@pytest.mark.parametrize("stacks", ["aa", "ab"])
def test_ranking_is_over_the_candidates_of_all_languages(backbone: Backbone, stacks: str) -> None:
    parts = pool_rows()
    # Fewer than there are ranks: what is found is of both languages.
    del parts[0][8:]
    names = [row["id"] for part in parts for row in part]
    queries = [
        # One of what is relevant is not among the candidates.
        {**row, "relevant": [names[i], names[i + 20], names[2 * i], "elsewhere"][: 1 + i % 4]}
        for i, row in enumerate(lab_rows("lab-ranking", "lab-root", "test", 12))
    ]
    scored, order = ranked(backbone, queries, parts, stacks)
    assert [found for (found,) in scored.predictions] == order
    assert all(len({name.partition("-candidates")[0] for name in some}) == 2 for some in order)
    relevant = [set(row["relevant"]) - {"elsewhere"} for row in queries]
    each = [average_precision(*pair) for pair in zip(order, relevant, strict=True)]
    chance = [metrics.expected_average_precision(len(r), 38) for r in relevant]
    assert scored.metrics["map@20"]["score"] == pytest.approx(sum(each) / 12)
    assert 0 < scored.metrics["map@20"]["score"] < 1
    assert scored.metrics["map@20"]["baseline"] == pytest.approx(sum(chance) / 12)
    assert scored.n == 12


def test_candidates_may_say_what_they_answer(backbone: Backbone) -> None:
    parts = pool_rows()
    queries = lab_rows("lab-ranking", "lab-root", "test", 6)
    wanted = {row["id"]: {parts[0][i]["id"], parts[1][i]["id"]} for i, row in enumerate(queries)}
    plain = [{**row, "relevant": sorted(wanted[row["id"]])} for row in queries]
    for part in parts:
        for row, query in zip(part, queries, strict=False):
            row["answers"] = [query["id"]]
    silent = [{k: v for k, v in row.items() if k != "relevant"} for row in queries]
    scored, order = ranked(backbone, silent, parts)
    each = [
        average_precision(names, wanted[q["id"]]) for names, q in zip(order, queries, strict=True)
    ]
    assert scored.metrics["map@20"]["score"] == pytest.approx(sum(each) / 6)
    # Said on both sides, it is no more than said once.
    again, _ = ranked(backbone, plain, parts)
    assert again.metrics == scored.metrics
    for part in parts:
        for row in part:
            row.pop("answers", None)
    assert ranked(backbone, plain, parts)[0].metrics == scored.metrics
    # And either side adds to the other.
    parts[1][20]["answers"] = [queries[0]["id"], queries[3]["id"], "of nobody"]
    more, _ = ranked(backbone, plain, parts)
    for i in (0, 3):
        wanted[queries[i]["id"]].add(parts[1][20]["id"])
    each = [
        average_precision(names, wanted[q["id"]]) for names, q in zip(order, queries, strict=True)
    ]
    assert more.metrics["map@20"]["score"] == pytest.approx(sum(each) / 6)


def test_what_everything_answers_scores_as_by_chance(backbone: Backbone) -> None:
    """Fewer candidates than ranks, all relevant, some said twice."""
    parts = pool_rows(3)
    queries = [
        {**row, "relevant": [row["id"] for part in parts for row in part]}
        for row in lab_rows("lab-ranking", "lab-root", "test", 2)
    ]
    for part in parts:
        part[0]["answers"] = [row["id"] for row in queries]
    scored, _ = ranked(backbone, queries, parts)
    assert scored.metrics == {"map@20": {"score": pytest.approx(1), "baseline": pytest.approx(1)}}
    assert all(len(found) == 6 for (found,) in scored.predictions)


def test_two_candidates_of_one_id_are_an_error(backbone: Backbone) -> None:
    parts = pool_rows(3)
    parts[1][2]["id"] = parts[0][0]["id"]
    with pytest.raises(StageError, match="one id"):
        ranked(backbone, lab_rows("lab-ranking", "lab-root", "test", 2), parts)


@pytest.mark.parametrize("relevant", [[], ["elsewhere"], None])
def test_a_query_that_nothing_answers_is_an_error(backbone: Backbone, relevant: Any) -> None:
    parts = pool_rows(3)
    queries = [
        {**row, "relevant": [parts[0][0]["id"]]}
        for row in lab_rows("lab-ranking", "lab-root", "test", 3)
    ]
    queries[1]["relevant"] = relevant
    with pytest.raises(StageError, match=f"relevant for the query '{queries[1]['id']}'"):
        ranked(backbone, queries, parts)


# --- batches of evaluation -----------------------------------------------------------------------


def test_predictions_do_not_depend_on_what_goes_through_together(backbone: Backbone) -> None:
    tokenizer = backbone.tokenizer
    for name in ("lab-choice", "lab-qa", "lab-pos", "lab-nli"):
        task = TASKS[name]
        rows = lab_rows(name, "lab-mid-mid", "test", 20)
        data = encode(tokenizer, task, rows, 40)
        model = composed(backbone, task)
        test = Asked(task, "lab-mid-mid", rows, data, task.labels)
        found = [evaluate(replace(model, tokens=tokens), test, task.metrics) for tokens in BUDGETS]
        assert found[0] == found[1] == found[2]
        if task.kind != "pair-classification":
            assert len({str(answer) for answer in found[0].predictions}) > 1
        if task.kind not in ("choice", "qa"):
            assert predict(model, test) == predict_labels(model, data, task.labels)


def test_vectors_do_not_depend_on_what_goes_through_together(backbone: Backbone) -> None:
    _, data = bitext(backbone, 25, "target")
    each = [embed(Composed(backbone, ("a",), tokens=tokens), data, 2) for tokens in BUDGETS]
    for other in each[1:]:
        np.testing.assert_allclose(other, each[0], atol=1e-6)


@pytest.mark.parametrize("tokens", [1, 100, 4096])
def test_a_pass_has_no_more_sub_words_than_its_budget(backbone: Backbone, tokens: int) -> None:
    """But for a window that is longer alone."""
    _, data = bitext(backbone, 25, "source")
    seen: list[tuple[int, ...]] = []

    def look(batch: Any) -> torch.Tensor:
        seen.append((len(batch.spots), *batch.ids.shape))
        return torch.zeros(len(batch.index[0]), 1)

    places = [(i, n) for i, n, *_ in Composed(backbone, ("a",), tokens=tokens).each(data, look)]
    assert sorted(places) == [(i, 0) for i in range(25)]
    assert sum(count for count, _, _ in seen) == 25
    assert all(count == 1 or rows * length <= tokens for count, rows, length in seen)
    assert tokens != 4096 or len(seen) == 1


def test_candidates_are_embedded_once_for_a_name(backbone: Backbone) -> None:
    task = TASKS["lab-ranking"]
    rows = list(lab.rows("lab-ranking", "lab-root", "candidates"))[:6]
    data = encode(backbone.tokenizer, task, rows, 64, side="text")
    model, memory = composed(backbone, task), {}
    first = Candidates(rows, data, model.stack, "one", memory)
    seen = first.vectors(model)
    assert Candidates(rows, data.choose([0]), model.stack, "one", memory).vectors(model) is seen
    other = Candidates(rows, data.choose([0]), model.stack, "two", memory).vectors(model)
    assert len(other) == 1 and set(memory) == {"one", "two"}
