"""Metrics of question answering: exact match and F1 of answers, normalized as the evaluators do.

Owns the formulas of SQuAD 1.1 and MLQA, slips included, and the trivial answer; runs no model.
Scores lie in 0..1. `compute.scoring` calls it.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache

Answers = Sequence[Sequence[str]]
"""Right answers by question, any of which will do."""

#: What MLQA's evaluator leaves out in each of its languages, as whole words of lower case. The
#: Arabic article is written to its noun and is handled apart; hi and zh have none.
ARTICLES = {
    "en": "a an the",
    "es": "un una unos unas el la los las",
    "hi": "",
    "vi": "của là cái chiếc những",
    "de": "ein eine einen einem eines einer der die das den dem des",
    "ar": "",
    "zh": "",
}
STYLES = ("squad", "mlqa")


def qa_scores(
    gold: Answers, predicted: Sequence[str], style: str, language: str
) -> tuple[float, float]:
    """Exact match and F1, means over questions of the best over the question's right answers.

    Their mean is the one number that XTREME gives a task (``avg_metric`` in its evaluate.py).

    With P and G the multisets of words of the prediction and of an answer, as `answer_words`
    makes them, exact match is whether the words are the same in the same order, and F1 is
    ``2pr / (p + r)`` for ``p = |P ∩ G| / |P|`` and ``r = |P ∩ G| / |G|``; 0 where they share none,
    even where both are empty.

    A question without right answers is right by both when the prediction has no words, wrong
    otherwise, as in SQuAD 2.0; the scripts of SQuAD 1.1 and MLQA know no such questions.

    Args:
        style: "squad" for the script of SQuAD 1.1, which XTREME uses for XQuAD and TyDi QA in all
            languages, or "mlqa" for that of MLQA.
        language: the code of the answers' language; only "mlqa" looks at it.

    Source: evaluate-v1.1.py of SQuAD (Rajpurkar et al. 2016), mlqa_evaluation_v1.py of
    facebookresearch/MLQA (Lewis et al. 2020), the copies of both in google-research/xtreme.

    Raises:
        ValueError: for an unknown style, no question, or other than one prediction a question.
    """
    if not gold:
        raise ValueError("no question to score")
    exact = overlap = 0.0
    for answers, prediction in zip(gold, predicted, strict=True):
        words = answer_words(prediction, style, language)
        if not answers:
            exact += not words
            overlap += not words
            continue
        wanted = [answer_words(answer, style, language) for answer in answers]
        exact += words in wanted
        overlap += max(_word_f1(words, others) for others in wanted)
    return exact / len(gold), overlap / len(gold)


def answer_words(text: str, style: str, language: str) -> list[str]:
    """Words of an answer as they are compared: lower case, no punctuation, no articles.

    - "squad" leaves out ASCII punctuation (and symbols such as $ and +) and a, an, the, in
      whatever language, and splits at white space: in Chinese, Japanese and Thai a sentence
      without spaces is one word.
    - "mlqa" leaves out Unicode's punctuation too (`Po`, `Ps`, ...) and the articles of the
      language, then splits at white space, and in zh around every character U+4E00 to U+9FA5.
      In ar every "ال" becomes a space, not the article alone: the script's pattern for one at
      the beginning of a word can never match, and its other half takes all. In vi what is left
      out are classifiers and the copula, and only where composed (NFC).

    MLQA has the languages of `ARTICLES`; its script raises an error for others. Here they keep
    their articles and are split at white space, ja and th, written without spaces, too.

    Raises:
        ValueError: for an unknown style.
    """
    text = text.lower()
    if style == "squad":
        text = text.translate(_ASCII_PUNCTUATION)
        return _articles("en").sub(" ", text).split()
    if style != "mlqa":
        raise ValueError(f"style {style!r} is not one of {', '.join(STYLES)}")
    text = "".join(character for character in text if not _punctuation(character))
    if language == "ar":
        return text.replace("ال", " ").split()
    if language == "zh":
        return _IDEOGRAPH.sub(r" \g<0> ", text).split()
    if ARTICLES.get(language):
        text = _articles(language).sub(" ", text)
    return text.split()


_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
_IDEOGRAPH = re.compile("[\u4e00-\u9fa5]")


@cache
def _articles(language: str) -> re.Pattern[str]:
    return re.compile(rf"\b({'|'.join(ARTICLES[language].split())})\b")


@cache
def _punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def _word_f1(words: list[str], wanted: list[str]) -> float:
    common = (Counter(words) & Counter(wanted)).total()
    if not common:
        return 0.0
    precision, recall = common / len(words), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def first_words(context: str, words: int) -> str:
    """The first words of a passage, split at white space: an answer that reads no question."""
    if words < 1:
        raise ValueError(f"a baseline of {words} words is no answer")
    return " ".join(context.split(maxsplit=words)[:words])
