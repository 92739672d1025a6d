"""The lab's questions, answers and candidates: right by what they say, and by what they mean."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pytest

from adapterxlt import lab
from adapterxlt.lab import grammar, lexicon, questions, tasks

LANGUAGES = tuple(lab.LANGUAGES)
TARGETS = LANGUAGES[1:]


def both(task: str, split: str = "train") -> list[tuple[Any, dict[str, Any]]]:
    """Meanings of the source's rows beside the rows."""
    meant = tasks.meanings(task, lab.SOURCE, split)
    return list(zip(meant, lab.rows(task, lab.SOURCE, split), strict=True))


# --- question answering ---------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_answers_are_whole_words_of_the_context(language: str) -> None:
    for split in lab.SPLITS:
        for row in lab.rows("lab-qa", language, split):
            texts, starts = row["answers"]["text"], row["answers"]["answer_start"]
            assert len(texts) == len(starts) > 0
            assert len(set(zip(texts, starts, strict=True))) == len(texts)
            assert 2 <= len(row["context"].split(f" {lab.STOP} ")) <= 5
            for text, start in zip(texts, starts, strict=True):
                padded = f" {row['context']} "
                assert padded[start : start + len(text) + 2] == f" {text} "


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_answer_put_into_the_question_says_the_clause_again(language: str) -> None:
    """The question word, and only it, stands for the answer: read from the words alone."""
    gap = lexicon.forms(language)["pron.this"]
    adverbs = {lexicon.forms(language)[adverb] for adverb in lexicon.ADVERBS}
    checked = 0
    for row in lab.rows("lab-qa", language, "test"):
        words = row["question"].split()
        if words.count(gap) > 1:
            continue
        told = " ".join(row["answers"]["text"][0] if word == gap else word for word in words)
        start = row["answers"]["answer_start"][0]
        clauses, offset = row["context"].split(f" {lab.STOP} "), 0
        for clause in clauses:
            if offset <= start < offset + len(clause):
                extra = Counter(clause.split()) - Counter(told.split())
                missing = Counter(told.split()) - Counter(clause.split())
                changed = {word for word in (*extra, *missing) if word not in adverbs}
                # At most the verb, which agrees with a plural agent and not with the gap.
                assert len(extra) <= 2 and len(changed) <= 2
                checked += not changed
            offset += len(clause) + len(f" {lab.STOP} ")
    assert checked > 200


def test_one_clause_answers_and_the_others_distract() -> None:
    for split in lab.SPLITS:
        verbs = givens = 0
        for item, _ in both("lab-qa", split):
            clause = item.clauses[item.asked]
            question = questions.ask(clause, item.role)
            found = [questions.answers(each, question) for each in item.clauses]
            assert found.count(True) == 1 and found[item.asked]
            others = [each for each in item.clauses if each is not clause]
            verbs += any(each.verb == clause.verb for each in others)
            given = [role for role in questions.ROLES if role != item.role]
            givens += any(
                getattr(each, role) == getattr(clause, role) is not None
                for each in others
                for role in given
            )
        assert min(verbs, givens) > 0.65 * lab.size("lab-qa", lab.SOURCE, split)


def test_the_clause_asked_about_is_not_the_one_most_like_the_others() -> None:
    """Without the question it is not found much more often than by chance, which is 0.32."""
    right = 0
    for item, row in both("lab-qa"):
        told = [set(each.split()) for each in row["context"].split(f" {lab.STOP} ")]
        alike = [sum(len(one & two) for two in told) - len(one) for one in told]
        right += alike.index(max(alike)) == item.asked
    assert right / 2000 < 0.45


def test_what_a_question_asks_for_and_where_its_answer_is_are_mixed() -> None:
    items = tasks.meanings("lab-qa", lab.SOURCE, "train")
    assert {role for role, n in Counter(item.role for item in items).items() if n > 600} == set(
        questions.ROLES
    )
    first = sum(item.asked == 0 for item in items) / len(items)
    assert 0.25 < first < 0.40


@pytest.mark.parametrize("language", LANGUAGES)
def test_test_questions_ask_the_same_in_every_language(language: str) -> None:
    for root, row in zip(
        lab.rows("lab-qa", lab.SOURCE, "test"), lab.rows("lab-qa", language, "test"), strict=True
    ):
        contexts = [each["context"].split(f" {lab.STOP} ") for each in (root, row)]
        assert len(contexts[0]) == len(contexts[1])
        places = [
            each["context"][: each["answers"]["answer_start"][0]].count(f" {lab.STOP} ")
            for each in (root, row)
        ]
        assert places[0] == places[1]


# --- retrieval ------------------------------------------------------------------------------------


def test_bitext_has_one_translation_of_each_sentence() -> None:
    for language in TARGETS:
        rows = lab.rows("lab-bitext", language, "test")
        assert len({row["source"] for row in rows}) == len({row["target"] for row in rows}) == 300
        assert [r["target"] for r in rows] == [
            r["target"] for r in lab.rows("lab-bitext", TARGETS[0], "test")
        ]
        meant = tasks.meanings("lab-bitext", language, "test")
        assert [row["source"] for row in rows] == [grammar.sentence(m, language) for m in meant]


def test_relevant_candidates_are_the_answer_in_all_languages() -> None:
    texts = {
        row["id"]: (language, place, row["text"])
        for language in LANGUAGES
        for place, row in enumerate(lab.rows("lab-ranking", language, "candidates"))
    }
    candidates = tasks.meanings("lab-ranking", lab.SOURCE, "candidates")
    assert len(set(candidates)) == len(candidates) == 600
    assert len(texts) == 600 * len(LANGUAGES)
    met = set()
    for item, row in both("lab-ranking", "test"):
        found = [texts[each] for each in row["relevant"]]
        assert [language for language, _, _ in found] == list(LANGUAGES)
        place = found[0][1]
        assert all(each == place for _, each, _ in found)
        assert candidates[place] == item.search.answer
        met.add(place)
        for language in TARGETS:
            other = lab.rows("lab-ranking", language, "test")[int(row["id"][-4:])]
            assert other["relevant"] == row["relevant"]
    assert len(met) == 300
    for language in LANGUAGES:
        said = {row["text"] for row in lab.rows("lab-ranking", language, "candidates")}
        assert len(said) == 600


def test_every_search_has_one_answer_among_the_candidates() -> None:
    by_verb = defaultdict(list)
    for clause in tasks.meanings("lab-ranking", lab.SOURCE, "candidates"):
        by_verb[clause.verb].append(clause)
    for item, _ in both("lab-ranking", "test"):
        question = questions.ask(questions.brief(item.search.answer), item.search.role)
        found = [each for each in by_verb[question.verb] if questions.answers(each, question)]
        assert found == [item.search.answer]
        assert item.distractor != item.search.answer


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_candidate_is_told_in_training(language: str) -> None:
    pool = {row["text"] for row in lab.rows("lab-ranking", language, "candidates")}
    for split in ("train", "validation"):
        for row in lab.rows("lab-ranking", language, split):
            assert row["answer"] not in pool
            assert len(row["query"].split()) <= len(row["answer"].split())
