"""The metrics of the public benchmarks, as pure functions of gold answers and predictions.

It owns the formulas alone, and what guessing would score by them; it runs no model and reads no
file. `compute.evaluation` calls it with what a model predicted. All scores lie in 0..1, where the
benchmarks' own scripts print per cent, and all follow those scripts to the letter, slips included:
a score is of use when it can be held against a published one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
from sklearn.metrics import f1_score

Tags = Sequence[Sequence[str]]
"""Labels by row, as many as the row has items."""

# --- labels ------------------------------------------------------------------------------------


def accuracy(gold: Tags, predicted: Tags) -> float:
    """Share of items whose label is right."""
    right, wanted = _flat(gold), _flat(predicted)
    return sum(a == b for a, b in zip(right, wanted, strict=True)) / len(right)


def macro_f1(gold: Tags, predicted: Tags) -> float:
    """Plain mean of the F1 of every label that occurs in the gold data."""
    labels = sorted(set(_flat(gold)))
    # scikit-learn compares texts one by one, and takes many times as long.
    number = {label: i for i, label in enumerate(labels)}
    right, found = ([number.get(label, -1) for label in _flat(rows)] for rows in (gold, predicted))
    scored = range(len(labels))
    return float(f1_score(right, found, labels=scored, average="macro", zero_division=0))


# --- spans -------------------------------------------------------------------------------------


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


def span_f1_strict(gold: Tags, predicted: Tags) -> float:
    """F1 of whole spans that begin with B-, over all rows together.

    As ``f1_score(..., mode="strict", scheme=IOB2)`` of seqeval 1.2.2: an I- that does not go on
    with a span of its type belongs to none, where `span_f1` begins one. 0 where either side has
    no span. What is neither B-, I- nor O stands outside, where seqeval raises an error.

    Raises:
        ValueError: when a row and its predictions differ in length.
    """
    _check_lengths(gold, predicted)
    right = {(i, *span) for i, row in enumerate(gold) for span in _strict_spans(row)}
    found = {(i, *span) for i, row in enumerate(predicted) for span in _strict_spans(row)}
    return _f1(right, found)


def _strict_spans(tags: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """(type, first, one past the last) of every span that begins with B-."""
    start, kind = 0, ""
    for i, tag in enumerate([*tags, "O"]):
        prefix, name = tag[:1], tag[1:].strip("-") or "_"
        if kind and not (prefix == "I" and name == kind):
            yield kind, start, i
            kind = ""
        if prefix == "B":
            start, kind = i, name


def pos_f1(gold: Tags, predicted: Tags) -> float:
    """What XTREME and XTREME-R report for part-of-speech tags: F1 of "chunks" of plain tags.

    They hand words' tags (NOUN, not B-NOUN) to ``f1_score`` of seqeval, which takes the first
    letter for the prefix of a chunk and the rest for its type. This equals version 1.2.2, so

    - words of the same tag side by side are one chunk: right when all of them and both ends are;
    - SYM and SCONJ begin with S, a chunk of one word, and never join;
    - SCONJ and CCONJ are of one type, CONJ: one for the other counts as right where ends agree;
    - X has no rest, and so the type of O, which stands between rows: an X that begins a row
      (but the first one) begins no chunk, one that ends a row ends none, and one that begins a
      row and is followed by another tag makes a chunk from where the last one began. The score
      can depend on the order of the rows where X occurs.

    Older versions (0.0.12, of the time of XTREME) took the whole tag for the type: the last two
    points do not hold for them, nor for scores published with them. The accuracy of tags is
    `accuracy`. An item without a label counts as O. 0 where either side has no chunk.

    Source: ``f1`` in evaluate.py of google-research/xtreme, which installs seqeval unpinned.

    Raises:
        ValueError: when a row and its predictions differ in length.
    """
    _check_lengths(gold, predicted)
    return _f1(_chunks(gold), _chunks(predicted))


def _chunks(rows: Tags) -> set[tuple[str, int, int]]:
    """(type, first, last) of the chunks of all rows, laid end to end with an O after each."""
    found: set[tuple[str, int, int]] = set()
    start, before, kind_before = 0, "O", ""
    for i, tag in enumerate([tag or "O" for row in rows for tag in [*row, "O"]] + ["O"]):
        letter, kind = tag[0], tag[1:].split("-", 1)[-1] or "_"
        change = kind != kind_before
        if (
            before in "ES"
            or (before in "BI" and letter in "BSO")
            or (before not in "O." and change)
        ):
            found.add((kind_before, start, i - 1))
        if (
            letter in "BS"
            or (before in "ESO" and letter in "EI")
            or (letter not in "O." and change)
        ):
            start = i
        before, kind_before = letter, kind
    return found


def _f1(right: AbstractSet[object], found: AbstractSet[object]) -> float:
    """2PR / (P + R), in seqeval's order of operations, so that no last digit differs."""
    hits = len(right & found)
    if not hits:
        return 0.0
    precision, recall = hits / len(found), hits / len(right)
    return 2 * precision * recall / (precision + recall)


# --- retrieval ---------------------------------------------------------------------------------


def average_precision_at(ranked: Sequence[str], relevant: Collection[str], k: int = 20) -> float:
    """Sum of the precision at each rank up to k that holds something relevant, over min(k, R).

    ``AP@k = 1 / min(k, R) * sum over i <= k of rel(i) * hits(i) / i`` for R relevant items: 1 when
    the first min(k, R) ranks are all relevant. An item ranked twice counts where it first stands,
    and takes up both ranks. With one relevant item it is the reciprocal of its rank.

    Source: ``average_precision_at_k`` in third_party/utils_lareqa.py of google-research/xtreme,
    with which XTREME-R scores LAReQA (the repository of LAReQA has no evaluator). The mAP@20 of
    Mewsli-X, ``evaluate`` in third_party/utils_mewslix.py, is the mean reciprocal rank within k;
    as a mention has one entity, and a ranking lacks duplicates, the two are the same.

    Raises:
        ValueError: when nothing is relevant, or k is below 1.
    """
    wanted = set(relevant)
    if k < 1:
        raise ValueError(f"precision at {k} is not defined; k must be at least 1")
    if not wanted:
        raise ValueError("average precision is not defined where nothing is relevant")
    total, hits = 0.0, 0
    seen: set[str] = set()
    for rank, item in enumerate(ranked[:k], start=1):
        if item in wanted and item not in seen:
            seen.add(item)
            hits += 1
            total += hits / rank
    return total / min(len(wanted), k)


def mean_average_precision(
    ranked_lists: Sequence[Sequence[str]], relevants: Sequence[Collection[str]], k: int = 20
) -> float:
    """Mean of `average_precision_at` over queries; a query without a ranking has an empty one.

    Raises:
        ValueError: for no queries, or other than one set of relevant items a ranking.
    """
    if not ranked_lists:
        raise ValueError("no query to score")
    pairs = zip(ranked_lists, relevants, strict=True)
    return sum(average_precision_at(*pair, k) for pair in pairs) / len(ranked_lists)


def expected_average_precision(relevant: int, candidates: int, k: int = 20) -> float:
    """Expected `average_precision_at` of a random order of all candidates.

    The item at rank i is relevant with probability R/N, and given that each of the i - 1 before
    it with (R - 1)/(N - 1), so that
    ``E = 1 / min(k, R) * R/N * sum over i <= min(k, N) of (1 + (i - 1)(R - 1)/(N - 1)) / i``.

    Raises:
        ValueError: unless 1 <= relevant <= candidates and k >= 1.
    """
    if not 1 <= relevant <= candidates or k < 1:
        raise ValueError(f"no average precision at {k} of {relevant} in {candidates} candidates")
    others = (relevant - 1) / max(candidates - 1, 1)
    ranks = range(1, min(k, candidates) + 1)
    total = sum((1 + (rank - 1) * others) / rank for rank in ranks)
    return relevant / candidates * total / min(k, relevant)


def retrieval_accuracy(similarity: np.ndarray) -> float:
    """Share of queries whose most similar candidate, the first of equals, has their own index.

    As Tatoeba (Artetxe and Schwenk 2019) and XTREME score translation retrieval.

    Args:
        similarity: (queries, candidates); candidates beyond the queries are distractors.

    Raises:
        ValueError: when there is no query, or a query has no candidate of its index.
    """
    queries, candidates = similarity.shape
    if not 0 < queries <= candidates:
        raise ValueError(f"{queries} queries need their own among {candidates} candidates")
    return float(np.mean(similarity.argmax(axis=1) == np.arange(queries)))


def csls(similarity: np.ndarray, k: int = 10) -> np.ndarray:
    """Cross-domain similarity local scaling: a cosine less what either side has to anything.

    ``csls(q, c) = 2 cos(q, c) - r(q) - r(c)``, where r is the mean cosine of an item to the k most
    similar ones of the other side (to all where there are fewer): it takes hubs, which are near
    to everything, back. Source: Conneau et al. 2018 (Word translation without parallel data), §2.3.

    Args:
        similarity: (queries, candidates) cosines; it is left as it is.

    Returns:
        (queries, candidates), float32.
    """
    cosines = np.asarray(similarity, dtype=np.float32)
    result = 2 * cosines
    for axis in (0, 1):
        size = cosines.shape[axis]
        count = min(k, size)
        top = np.partition(cosines, size - count, axis=axis)
        top = np.take(top, np.arange(size - count, size), axis=axis)
        result -= top.mean(axis=axis, keepdims=True, dtype=np.float64).astype(np.float32)
    return result


def nearest(queries: np.ndarray, candidates: np.ndarray, k: int, block: int = 4096) -> np.ndarray:
    """Indices of the k candidates of the greatest dot product, the greatest first.

    Equals are in the order of their indices, so that the answer is one whatever the block. Dot
    products are summed in float64 and rounded to float32: in float32 alone, two equal candidates
    may score differently, depending on where in a block they stand.

    Args:
        queries: (queries, dimensions), float32.
        candidates: (candidates, dimensions), float32; normalized, the products are cosines.
        k: how many; all candidates where there are fewer.
        block: candidates at a time; memory grows with it, and not with the candidates.

    Returns:
        (queries, min(k, candidates)), int64.

    Raises:
        ValueError: when a dot product is not a number.
    """
    total = len(candidates)
    count = min(k, total)
    if count < 1:
        raise ValueError(f"no {k} nearest of {total} candidates")
    wide = np.asarray(queries, dtype=np.float64)
    # Keys of the best so far, by query: the score above, and below it the index, from the end,
    # so that all keys differ and the greater key is the better candidate.
    best = np.empty((len(wide), 0), dtype=np.int64)
    for start in range(0, total, block):
        some = np.asarray(candidates[start : start + block], dtype=np.float64).T
        backward = np.int64(total - 1) - np.arange(start, start + some.shape[1], dtype=np.int64)
        kept = []
        for first in range(0, max(len(wide), 1), _QUERIES):
            rows = slice(first, first + _QUERIES)
            keys = _ordered((wide[rows] @ some).astype(np.float32)) << 32 | backward
            both = np.concatenate([best[rows], keys], axis=1)
            if both.shape[1] > count:
                both = np.partition(both, both.shape[1] - count, axis=1)[:, -count:]
            kept.append(both)
        best = np.concatenate(kept)
    best.sort(axis=1)
    return (total - 1) - (best[:, ::-1] & 0xFFFFFFFF)


#: Queries at a time in `nearest`; with blocks of 4096, under 100 MB of scores and keys.
_QUERIES = 512


def _ordered(scores: np.ndarray) -> np.ndarray:
    """int64 in the order of float32 scores, equal where they are (0 and -0 too)."""
    if np.isnan(scores.min(initial=0)):
        raise ValueError("a dot product is not a number")
    bits = (scores + np.float32(0)).view(np.int32)
    # Negative floats are stored as sign and magnitude: turned over, they are ordered.
    ordered: np.ndarray = (bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))).astype(np.int64)
    return ordered


# --- shared ------------------------------------------------------------------------------------


def _flat(rows: Tags) -> list[str]:
    return [label for row in rows for label in row]


def _check_lengths(gold: Tags, predicted: Tags) -> None:
    lengths = [len(row) for row in gold], [len(row) for row in predicted]
    if lengths[0] != lengths[1]:
        raise ValueError("rows and their predictions differ in number or length")
