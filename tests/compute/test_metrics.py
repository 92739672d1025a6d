"""Metrics against seqeval, transformers, brute force, and numbers of the public evaluators.

`golden_metrics.json` holds what the evaluators of MLQA and XTREME gave for the questions and
rankings that this file makes up from a seed, in batches: mlqa_evaluation_v1.py of
facebookresearch/MLQA@24bf470b2e68, and evaluate_squad.py, utils_lareqa.py (average_precision_at_k)
and utils_mewslix.py (evaluate) in third_party of google-research/xtreme@838c13b69daa, in their own
units. Whoever changes what is made up here records them again with those.
"""

from __future__ import annotations

import json
import math
import random
import unicodedata
import warnings
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from seqeval.metrics import f1_score as seqeval_f1
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2
from sklearn.metrics import accuracy_score, f1_score
from transformers.data.metrics.squad_metrics import compute_exact, compute_f1

from adapterxlt.compute.answers import ARTICLES, answer_words, first_words, qa_scores
from adapterxlt.compute.metrics import (
    accuracy,
    average_precision_at,
    csls,
    expected_average_precision,
    macro_f1,
    mean_average_precision,
    nearest,
    pos_f1,
    retrieval_accuracy,
    span_f1,
    span_f1_strict,
    spans,
)

Tags = list[list[str]]

UPOS = [
    *("ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM"),
    *("PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X"),
]
NER = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG"]
ODD = [*NER, "B", "I", "B-", "I-PER-X", "I-PER-", "O-PER", "BPER", "IPER"]

GOLDEN = json.loads(Path(__file__).with_name("golden_metrics.json").read_text(encoding="utf-8"))


# --- what the golden numbers are of --------------------------------------------------------------

#: A few words of each language, articles and digits among them; made up of no one's sentences.
WORDS = {
    "en": "the a an The river theatre year-old U.S. Anna's 1,000 42 North of red",
    "es": "el la los las un una unos unas El río niño 1.000 España años lámpara del"
    " ciudad norte elegante Unesco 1492 agua calle verde siglo XV",
    "de": "der die das den dem des ein eine einen einem eines einer Der Straße Übung 3,5 Haus"
    " alte Brücke 1989 Deutsche Fluss im Norden von München grün größer Eimer derart ß",
    "vi": "của là cái chiếc những Của sông Việt Nam người 1975 nước lá cai đẹp"
    " thành phố Hà Nội 54 dân tộc miền bắc Của",
    "hi": "नदी भारत का एक में हिन्दी ज़मीन १२३ 42 वर्ष और कि दिल्ली the",
    "ar": "ال الكتاب كتاب والنهر بال النهر مدينة ١٢ في خالد السلام سالم 42 إلى",
    "zh": "北京 大学 年 的 河流 1998 NBA 三 个 学生 㐀 龦 鿋 一百 iPhone",
}
MARKS = "。、，！？；：「」《》·…—“”„‘’«»‹›¿¡।॥،؟؛٪.,;:!?'\"()[]{}<>/\\|@#$%^&*_~`+=-€°№§†‰·・"
GAPS = " " * 12 + "\t\u00a0\u3000\u2009\n"


class Dice:
    """Choices from a seed by `random()` alone, which Python promises to keep as it is."""

    def __init__(self, seed: str) -> None:
        self.source = random.Random(seed)

    def below(self, n: int) -> int:
        return int(self.source.random() * n)

    def pick(self, some):
        return some[self.below(len(some))]

    def phrase(self, language: str) -> str:
        text = ""
        for _ in range(1 + self.below(6)):
            gap = self.pick(GAPS) if language != "zh" or self.below(4) == 0 else ""
            text += (gap if text else "") + self.pick(WORDS[language].split())
        return text

    def changed(self, text: str, language: str) -> str:
        kind = self.below(12)
        at = self.below(len(text) + 1)
        if kind == 0:
            return text[at:]
        if kind == 1:
            return text[:at]
        if kind == 2:
            return self.pick([text.upper(), text.lower(), text.swapcase(), text.title()])
        if kind == 3:
            return self.pick(WORDS[language].split()) + " " + text
        if kind in (4, 5, 6):
            return text[:at] + self.pick(MARKS) + text[at:]
        if kind == 7:
            return self.pick(["", " ", self.pick(MARKS), self.pick(WORDS[language].split())])
        if kind == 8:
            return unicodedata.normalize("NFD", text)
        if kind == 9:
            words = text.split()
            return " ".join(words[::-1])
        if kind == 10:
            return self.phrase(language)
        return text


def questions(language: str, batch: int, number: int = 25) -> tuple[list[list[str]], list[str]]:
    """Right answers and predictions of a batch, near to one of the answers."""
    dice = Dice(f"{language} {batch}")
    gold, predicted = [], []
    for _ in range(number):
        answers = [dice.phrase(language) for _ in range(1 + dice.below(3))]
        answers = [dice.changed(answer, language) for answer in answers]
        prediction = dice.pick(answers)
        for _ in range(dice.below(4)):
            prediction = dice.changed(prediction, language)
        gold.append(answers)
        predicted.append(prediction)
    return gold, predicted


def rankings(batch: int, number: int = 25) -> tuple[list[list[str]], list[list[str]], int]:
    """Rankings, some with items twice, what is relevant, and a depth."""
    dice = Dice(f"rankings {batch}")
    pool = [f"c{i}" for i in range(3 + dice.below(40))]
    ranked = [[dice.pick(pool) for _ in range(dice.below(31))] for _ in range(number)]
    relevant = [
        sorted({dice.pick(pool) for _ in range(1 + dice.below(1 if batch % 2 else 25))})
        for _ in range(number)
    ]
    return ranked, relevant, 20 if batch % 3 else 1 + dice.below(12)


# --- labels and spans ----------------------------------------------------------------------------

#: Any order of labels: most such rows are broken, an I- standing where nothing began.
BROKEN = st.lists(st.sampled_from([*NER, "B", "I", "I-PER-X"]), max_size=12)
#: Tags without B-, as older data sets have them.
IO = st.lists(st.sampled_from(["O", "I-PER", "I-LOC"]), max_size=12)


@st.composite
def iob2(draw: st.DrawFn) -> list[str]:
    """A row as an annotator leaves it: every span begins with B-."""
    row: list[str] = []
    for name, length in draw(
        st.lists(st.tuples(st.sampled_from(["", "PER", "LOC", "ORG"]), st.integers(1, 3)))
    ):
        inside = [f"I-{name}"] * (length - 1)
        row += [f"B-{name}", *inside] if name else ["O"] * length
    return row


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tags, Tags]:
    """Gold and predicted rows of equal lengths, the prediction often right."""
    gold, predicted = [], []
    for row in draw(st.lists(st.one_of(iob2(), IO, BROKEN), min_size=1, max_size=5)):
        gold.append(row)
        label = st.sampled_from(NER)
        predicted.append([draw(st.one_of(st.just(tag), label)) for tag in row])
    return gold, predicted


def reference(gold: Tags, predicted: Tags, **options) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sides without a span, and of tags that are no NER
        return float(seqeval_f1(gold, predicted, **options))


def random_pairs(labels: list[str], seed: str, number: int) -> list[tuple[Tags, Tags]]:
    """Rows of random tags with runs, and predictions of which most are right."""
    dice = Dice(seed)
    found = []
    for _ in range(number):
        few = [dice.pick(labels) for _ in range(1 + dice.below(6))]
        gold: Tags = []
        for _ in range(1 + dice.below(5)):
            row: list[str] = []
            for _ in range(dice.below(10)):
                row.append(row[-1] if row and dice.below(3) == 0 else dice.pick(few))
            gold.append(row)
        doubt = 1 + dice.below(8)
        predicted = [[dice.pick(few) if dice.below(doubt) == 0 else t for t in r] for r in gold]
        found.append((gold, predicted))
    return found


@given(st.one_of(iob2(), IO, BROKEN))
def test_spans_are_those_of_seqeval(row: list[str]) -> None:
    assert spans(row) == [(name, first, last + 1) for name, first, last in get_entities(row)]


@given(pairs())
@example(([["O"]], [["O"]]))
@example(([["B-PER"], ["I-PER"]], [["B-PER"], ["I-PER"]]))
def test_span_f1_is_that_of_seqeval(both: tuple[Tags, Tags]) -> None:
    assert span_f1(*both) == pytest.approx(reference(*both), abs=1e-12)


@given(pairs())
def test_accuracy_and_macro_f1_are_those_of_scikit_learn(both: tuple[Tags, Tags]) -> None:
    gold, predicted = both
    flat = [tag for row in gold for tag in row]
    if not flat:
        return
    answers = [tag for row in predicted for tag in row]
    assert accuracy(gold, predicted) == pytest.approx(accuracy_score(flat, answers))
    labels = sorted(set(flat))
    each = f1_score(flat, answers, labels=labels, average=None, zero_division=0)
    assert macro_f1(gold, predicted) == pytest.approx(sum(each) / len(each))


@given(pairs())
@example(([["O"]], [["O"]]))
@example(([["B-PER"]], [["O"]]))
@example(([["I-PER"]], [["I-PER"]]))
def test_strict_span_f1_is_that_of_seqeval(both: tuple[Tags, Tags]) -> None:
    assert span_f1_strict(*both) == reference(*both, mode="strict", scheme=IOB2)


def test_strict_span_f1_is_that_of_seqeval_on_malformed_tags() -> None:
    scores = []
    for gold, predicted in random_pairs(ODD, "strict", 3000):
        scores.append(span_f1_strict(gold, predicted))
        expected = reference(gold, predicted, mode="strict", scheme=IOB2)
        assert scores[-1] == expected, (gold, predicted)
    assert sum(0 < score < 1 for score in scores) > 1000


def test_strict_span_f1_by_hand() -> None:
    gold = [["B-PER", "I-PER", "O", "B-LOC"]]
    assert span_f1_strict(gold, [["I-PER", "I-PER", "O", "B-LOC"]]) == pytest.approx(2 / 3)
    assert span_f1(gold, [["I-PER", "I-PER", "O", "B-LOC"]]) == 1.0
    # A missing prediction, and a tag of another scheme, stand outside.
    assert span_f1_strict(gold, [["B-PER", "I-PER", "", "S-LOC"]]) == pytest.approx(2 / 3)


def test_pos_f1_is_that_of_seqeval() -> None:
    scores = []
    for gold, predicted in random_pairs(UPOS, "tags", 4000):
        scores.append(pos_f1(gold, predicted))
        assert scores[-1] == reference(gold, predicted), (gold, predicted)
    assert sum(0 < score < 1 for score in scores) > 2000


@pytest.mark.parametrize("labels", [ODD, ["X", "O", "SYM", "INTJ", "SCONJ", "CCONJ", "_"]])
def test_pos_f1_is_that_of_seqeval_on_any_tags(labels: list[str]) -> None:
    odd = [*labels, "E-PER", "S-PER", ".", "E", "S", "-", "NN-P-A"]
    for gold, predicted in random_pairs(odd, "odd tags", 2000):
        assert pos_f1(gold, predicted) == reference(gold, predicted), (gold, predicted)


def test_pos_f1_by_hand() -> None:
    # Two nouns are one chunk: half of it is nothing. The other chunk, of a verb, is right.
    assert pos_f1([["NOUN", "NOUN", "VERB"]], [["NOUN", "ADJ", "VERB"]]) == pytest.approx(2 / 5)
    assert pos_f1([["SCONJ", "NOUN"]], [["CCONJ", "NOUN"]]) == 1.0
    assert pos_f1([["SYM", "SYM"]], [["SYM", "NOUN"]]) == pytest.approx(1 / 2)
    assert pos_f1([["NOUN"], ["NOUN"]], [["NOUN"], ["VERB"]]) == pytest.approx(1 / 2)
    # No chunk on either side: an X alone in its row never ends.
    assert pos_f1([["X"]], [["X"]]) == 0.0
    # A missing prediction is no chunk.
    assert pos_f1([["NOUN", "VERB"]], [["", "VERB"]]) == pytest.approx(2 / 3)


def test_the_place_of_x_makes_pos_f1_depend_on_the_order_of_rows() -> None:
    gold, predicted = [["X", "NOUN"], ["NOUN"]], [["X", "NOUN"], ["VERB"]]
    assert pos_f1(gold, predicted) == pytest.approx(2 / 3)
    # Now the X goes on from the chunk of the row before, of which only the end is the same.
    gold, predicted = [["ADJ", "NOUN"], ["X", "NOUN"]], [["ADJ", "ADJ"], ["X", "NOUN"]]
    assert pos_f1(gold, predicted) == reference(gold, predicted) == pytest.approx(2 / 7)


@pytest.mark.parametrize("metric", [span_f1_strict, pos_f1])
def test_rows_of_different_lengths_are_refused(metric) -> None:
    with pytest.raises(ValueError, match="differ in number or length"):
        metric([["O", "O"]], [["O"]])
    with pytest.raises(ValueError, match="differ in number or length"):
        metric([["O"], []], [["O"]])


# --- answers to questions ------------------------------------------------------------------------


@pytest.mark.parametrize("language", ARTICLES)
def test_mlqa_scores_are_those_of_its_evaluator(language: str) -> None:
    for batch, expected in enumerate(GOLDEN["mlqa"][language]):
        scores = [100 * score for score in qa_scores(*questions(language, batch), "mlqa", language)]
        assert scores == pytest.approx(expected, rel=1e-12, abs=1e-12), batch


@pytest.mark.parametrize("language", ARTICLES)
def test_squad_scores_are_those_of_the_evaluator_in_xtreme(language: str) -> None:
    for batch, expected in enumerate(GOLDEN["squad"][language]):
        both = qa_scores(*questions(language, batch), "squad", language)
        assert [100 * score for score in both] == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_the_golden_questions_tell_styles_and_languages_apart() -> None:
    """Else the comparisons above would say little of what is particular to each."""
    for language in WORDS:
        assert GOLDEN["mlqa"][language] != GOLDEN["squad"][language]
        for other in WORDS:
            scores = [
                [100 * score for score in qa_scores(*questions(language, batch), "mlqa", other)]
                for batch in range(len(GOLDEN["mlqa"][language]))
            ]
            same = np.allclose(scores, GOLDEN["mlqa"][language], rtol=1e-12, atol=1e-12)
            # Hindi text has nothing that the rules of some others would change.
            assert same == (language == other) or language == "hi"


@pytest.mark.parametrize("language", WORDS)
def test_squad_scores_are_those_of_transformers(language: str) -> None:
    for batch in range(40):
        for answers, prediction in zip(*questions(language, batch), strict=True):
            scores = qa_scores([answers], [prediction], "squad", language)
            assert scores[0] == max(compute_exact(answer, prediction) for answer in answers)
            # The script of SQuAD 1.1 gives no F1 to two empty answers, that of 2.0 does.
            expected = max(
                compute_f1(answer, prediction) if answer_words(answer, "squad", "en") else 0
                for answer in answers
            )
            assert scores[1] == expected, (answers, prediction)


@given(st.text(max_size=20), st.text(max_size=20))
def test_squad_scores_are_those_of_transformers_on_any_text(answer: str, prediction: str) -> None:
    for one, other in ((answer, prediction), (answer, f"the {answer}!"), (answer, answer[1:])):
        both = qa_scores([[one]], [other], "squad", "en")
        if answer_words(one, "squad", "en"):
            assert both == (compute_exact(one, other), compute_f1(one, other))


def test_answers_by_hand() -> None:
    assert answer_words("The (old)  Theatre, a-b", "squad", "en") == ["old", "theatre", "ab"]
    assert answer_words("Das alte «Haus» the", "mlqa", "de") == ["alte", "haus", "the"]
    assert answer_words("The alte «Haus»", "squad", "de") == ["alte", "«haus»"]
    # Every ال goes, within a word too; the conjunction before it is left alone.
    assert answer_words("والكتاب سالم", "mlqa", "ar") == ["و", "كتاب", "س", "م"]
    assert answer_words("在1998年，NBA 球队", "mlqa", "zh") == [
        "在",
        "1998",
        "年",
        "nba",
        "球",
        "队",
    ]
    assert answer_words("在1998年，NBA 球队", "squad", "zh") == ["在1998年，nba", "球队"]
    # Not a language of MLQA: no articles are left out, no characters split.
    assert answer_words("Le 東京、タワー", "mlqa", "ja") == ["le", "東京タワー"]
    both = qa_scores([["red house", "blue"], ["x"]], ["the red", "X."], "squad", "en")
    assert both == (0.5, pytest.approx((2 / 3 + 1) / 2))


@pytest.mark.parametrize("style", ["squad", "mlqa"])
def test_a_question_without_answers_wants_none(style: str) -> None:
    assert qa_scores([[]], [""], style, "en") == (1.0, 1.0)
    assert qa_scores([[]], [" the, "], style, "en") == (1.0, 1.0)
    assert qa_scores([[], []], ["no", ""], style, "en") == (0.5, 0.5)
    # An answer that is an article alone is an answer: same words, but no word in common.
    assert qa_scores([["the"]], ["a"], style, "en") == (1.0, 0.0)


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(ValueError, match="style 'trivia' is not one of squad, mlqa"):
        qa_scores([["a"]], ["a"], "trivia", "en")
    with pytest.raises(ValueError, match="no question"):
        qa_scores([], [], "squad", "en")
    with pytest.raises(ValueError, match="zip"):
        qa_scores([["a"]], [], "squad", "en")


def test_first_words() -> None:
    assert first_words("  One two\n three  four", 3) == "One two three"
    assert first_words("one", 3) == "one"
    assert first_words("", 3) == ""
    with pytest.raises(ValueError, match="0 words"):
        first_words("one", 0)


# --- retrieval -----------------------------------------------------------------------------------


def test_average_precision_is_that_of_xtreme() -> None:
    for batch, expected in enumerate(GOLDEN["lareqa"]):
        ranked, relevant, k = rankings(batch)
        found = [average_precision_at(*pair, k) for pair in zip(ranked, relevant, strict=True)]
        assert found == expected, batch
        mean = mean_average_precision(ranked, relevant, k)
        assert mean == pytest.approx(np.mean(expected), abs=1e-12)


def test_with_one_relevant_item_it_is_the_reciprocal_rank_of_mewsli_x() -> None:
    for i, expected in enumerate(GOLDEN["mewslix"]):
        ranked, relevant, k = rankings(2 * i + 1)  # those of odd numbers have one each
        assert mean_average_precision(ranked, relevant, k) == pytest.approx(expected, abs=1e-12)


def test_average_precision_by_hand() -> None:
    assert average_precision_at(list("axb"), "ab") == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision_at(list("axb"), "ab", 2) == pytest.approx(1 / 2)
    # More relevant than ranks: over the ranks; fewer: over the relevant, found or not.
    assert average_precision_at(list("abc"), "abcdef", 3) == 1.0
    assert average_precision_at(list("abc"), "abcdef", 20) == pytest.approx(1 / 2)
    assert average_precision_at(list("aab"), "ab") == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision_at([], "a") == 0.0
    assert mean_average_precision([["a"], []], ["a", "a"]) == 0.5


def test_average_precision_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing is relevant"):
        average_precision_at(["a"], [])
    with pytest.raises(ValueError, match="at 0"):
        average_precision_at(["a"], ["a"], 0)
    with pytest.raises(ValueError, match="no query"):
        mean_average_precision([], [])
    with pytest.raises(ValueError, match="zip"):
        mean_average_precision([["a"]], [])


@pytest.mark.parametrize("relevant, candidates, k", [(1, 1, 20), (3, 7, 4), (7, 7, 3), (1, 9, 20)])
def test_expected_average_precision_is_the_mean_over_all_places(
    relevant: int, candidates: int, k: int
) -> None:
    """Every set of places is equally likely in a random order; all of them are counted."""
    scores = []
    for places in combinations(range(candidates), relevant):
        ranked = [f"r{i}" if i in places else f"n{i}" for i in range(candidates)]
        scores.append(average_precision_at(ranked, [f"r{i}" for i in places], k))
    found = expected_average_precision(relevant, candidates, k)
    assert found == pytest.approx(sum(scores) / len(scores), abs=1e-12)


def test_expected_average_precision_by_simulation() -> None:
    rng = np.random.default_rng(7)
    items = np.array([f"c{i}" for i in range(300)])
    scores = [average_precision_at(list(rng.permutation(items)), items[:11]) for _ in range(4000)]
    error = np.std(scores) / math.sqrt(len(scores))
    assert abs(np.mean(scores) - expected_average_precision(11, 300)) < 4 * error
    for bad in ((0, 5, 3), (6, 5, 3), (1, 5, 0)):
        with pytest.raises(ValueError, match="no average precision"):
            expected_average_precision(*bad)


def test_retrieval_accuracy() -> None:
    rng = np.random.default_rng(1)
    similarity = rng.standard_normal((50, 70)).astype(np.float32)
    similarity[np.arange(30), np.arange(30)] += 3
    right = sum(max(range(70), key=lambda j: row[j]) == i for i, row in enumerate(similarity))
    assert retrieval_accuracy(similarity) == right / 50
    assert 0.4 < right / 50 < 1
    # Of equals the first: all are equal, so that the first query alone is right.
    assert retrieval_accuracy(np.zeros((4, 5))) == 0.25
    for shape in ((3, 2), (0, 4)):
        with pytest.raises(ValueError, match="need their own"):
            retrieval_accuracy(np.zeros(shape))


@pytest.mark.parametrize("shape, k", [((1, 1), 10), ((12, 9), 3), ((30, 41), 10), ((4, 60), 10)])
def test_csls_is_its_formula(shape: tuple[int, int], k: int) -> None:
    cosines = np.random.default_rng(2).uniform(-1, 1, shape).astype(np.float32)
    before = cosines.copy()
    found = csls(cosines, k)
    assert found.dtype == np.float32
    assert np.array_equal(cosines, before)
    expected = np.empty(shape)
    for i in range(shape[0]):
        for j in range(shape[1]):
            near = sorted(map(float, cosines[i]))[-k:], sorted(map(float, cosines[:, j]))[-k:]
            mean = [sum(some) / len(some) for some in near]
            expected[i, j] = 2 * float(cosines[i, j]) - mean[0] - mean[1]
    assert np.allclose(found, expected, rtol=0, atol=1e-6)


def test_csls_takes_a_hub_back() -> None:
    similarity = np.full((6, 6), 0.1) + 0.4 * np.eye(6)
    similarity[:, 0] = 0.6
    assert retrieval_accuracy(similarity) == pytest.approx(1 / 6)
    assert retrieval_accuracy(csls(similarity, 3)) == 1.0


@settings(deadline=None)
@given(st.integers(0, 9), st.integers(1, 40), st.integers(1, 50), st.integers(1, 45), st.data())
def test_nearest_is_a_stable_sort(
    queries: int, candidates: int, k: int, block: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    # Small whole numbers, so that many products are equal.
    left = rng.integers(-2, 3, (queries, 3)).astype(np.float32)
    right = rng.integers(-2, 3, (candidates, 3)).astype(np.float32)
    expected = np.argsort(-(left @ right.T), axis=1, kind="stable")[:, :k]
    found = nearest(left, right, k, block)
    assert found.shape == (queries, min(k, candidates))
    assert np.array_equal(found, expected)


def test_nearest_does_not_depend_on_the_block() -> None:
    """Every vector stands twice, in different blocks: the first of both comes first."""
    rng = np.random.default_rng(3)
    half = rng.standard_normal((1003, 96)).astype(np.float32)
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    candidates, queries = np.concatenate([half, half]), half[:600] + np.float32(0.01)
    found = nearest(queries, candidates, 7)
    for block in (64, 999):
        assert np.array_equal(nearest(queries, candidates, 7, block), found)
    assert np.array_equal(found[:, 1] - found[:, 0], np.full(600, 1003))
    exact = queries.astype(np.float64) @ half.astype(np.float64).T
    assert np.array_equal(found[:, ::2], np.argsort(-exact, axis=1)[:, :4])


def test_nearest_takes_both_zeros_for_equal() -> None:
    """Products of either sign too small for float32 are 0 and -0."""
    candidates = np.array([[-1e-30], [1e-30], [-1e-30], [1.0]], dtype=np.float32)
    found = nearest(np.array([[1e-30]], dtype=np.float32), candidates, 4, 3)
    assert found.tolist() == [[3, 0, 1, 2]]


def test_nearest_refuses_what_has_no_order() -> None:
    bad = np.array([[1.0, np.nan]], dtype=np.float32)
    with pytest.raises(ValueError, match="not a number"):
        nearest(bad, np.ones((3, 2), dtype=np.float32), 1)
    with pytest.raises(ValueError, match="no 0 nearest"):
        nearest(np.ones((1, 2)), np.ones((3, 2)), 0)
    with pytest.raises(ValueError, match="of 0 candidates"):
        nearest(np.ones((1, 2)), np.ones((0, 2)), 2)
