"""Labelled rows of the lab's tasks, taken from meanings.

One function a task turns a meaning into a row in a language; adding a task is adding that function,
one that draws its meanings, and a line in `TASKS`. Never trains or scores; called by the readers of
data.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from adapterxlt.lab.draw import digest, generator
from adapterxlt.lab.events import QUESTIONS, Choice, draw_choice
from adapterxlt.lab.grammar import ENTITY_TAGS, TAGS, say, say_entities, say_parts, sentence
from adapterxlt.lab.languages import LANGUAGES, SOURCE, number
from adapterxlt.lab.meanings import (
    LABELS,
    Clause,
    Meaning,
    draw_meaning,
    draw_named_meaning,
    draw_pair,
)
from adapterxlt.lab.questions import (
    ROLES,
    Reading,
    Search,
    Sought,
    ask,
    brief,
    claims,
    clauses_of,
    draw_reading,
    draw_search,
    draw_sought,
)
from adapterxlt.lab.rewordings import REWORDING_LABELS, Rewording, draw_rewording
from adapterxlt.lab.texts import STOP
from adapterxlt.lab.topics import TOPICS, draw_about

SPLITS = ("train", "validation", "test")
SOURCE_TRAIN = 2000
TARGET_TRAIN = 500
VALIDATION = 200
TEST = 300
CANDIDATES = 2 * TEST
# A sentence to be found by its translation has at least as many words in the source language.
LEAST_WORDS = 5


def _itself(meaning: Hashable) -> tuple[Hashable, ...]:
    return (meaning,)


@dataclass(frozen=True)
class LabTask:
    """How a task draws what its rows mean, how a row says it in a language, and its label names.

    `kind` is what is done with a row; `labels` is empty where rows have none. `draw(rng, index)`
    gives a hashable meaning; `row(meaning, language)` the row without its id; `claims(meaning)`
    what no two meanings of the task may have in common. `source` is false where the source
    language has no rows.
    """

    kind: str
    labels: tuple[str, ...]
    draw: Callable[[random.Random, int], Hashable]
    row: Callable[[Any, str], dict[str, Any]]
    splits: tuple[str, ...] = SPLITS
    claims: Callable[[Any], tuple[Hashable, ...]] = _itself
    source: bool = True


def _draw_sentence(rng: random.Random, index: int) -> Meaning:
    return draw_meaning(rng)


def _tagging_row(meaning: Meaning, language: str) -> dict[str, Any]:
    words = say(meaning, language)
    return {"tokens": [form for form, _ in words], "upos": [tag for _, tag in words]}


def _draw_inference(rng: random.Random, index: int) -> tuple[Meaning, Meaning, str]:
    label = LABELS[index % len(LABELS)]
    return (*draw_pair(rng, label), label)


def _inference_row(meaning: tuple[Meaning, Meaning, str], language: str) -> dict[str, Any]:
    premise, hypothesis, label = meaning
    return {
        "premise": sentence(premise, language),
        "hypothesis": sentence(hypothesis, language),
        "label": label,
    }


def _draw_named(rng: random.Random, index: int) -> Meaning:
    return draw_named_meaning(rng)


def _entity_row(meaning: Meaning, language: str) -> dict[str, Any]:
    words = say_entities(meaning, language)
    return {"tokens": [form for form, _ in words], "ner_tags": [tag for _, tag in words]}


def _draw_paraphrase(rng: random.Random, index: int) -> Rewording:
    # A round of the kinds for each label, so that every split has as many of each for both.
    return draw_rewording(rng, REWORDING_LABELS[index % 2], index // 2)


def _paraphrase_row(meaning: Rewording, language: str) -> dict[str, Any]:
    told = [sentence(meaning.first, language), sentence(meaning.second, language, meaning.moved)]
    first, second = told[::-1] if meaning.flipped else told
    return {"sentence1": first, "sentence2": second, "label": meaning.label}


def _draw_choice(rng: random.Random, index: int) -> Choice:
    return draw_choice(rng, QUESTIONS[index % 2], index // 2 % 2)


def _choice_row(meaning: Choice, language: str) -> dict[str, Any]:
    first, second = meaning.choices
    return {
        "premise": sentence(meaning.premise, language),
        "question": meaning.question,
        "choice1": sentence(first, language),
        "choice2": sentence(second, language),
        "label": meaning.label,
    }


def _draw_reading(rng: random.Random, index: int) -> Reading:
    return draw_reading(rng, ROLES[index % len(ROLES)])


def _reading_row(meaning: Reading, language: str) -> dict[str, Any]:
    clause = meaning.clauses[meaning.asked]
    told = [sentence(Meaning((each,)), language) for each in meaning.clauses]
    found = _answers(meaning, language)
    return {
        "context": f" {STOP} ".join(told),
        "question": sentence(Meaning((ask(clause, meaning.role),)), language),
        "answers": {"text": [text for text, _ in found], "answer_start": [at for _, at in found]},
    }


def _answers(meaning: Reading, language: str) -> list[tuple[str, int]]:
    """Right answers and their character offsets: first the participant in the clause that answers,
    then without its determiner, then wherever else the same participant is named alike."""
    clause = meaning.clauses[meaning.asked]
    phrase = getattr(clause, meaning.role)
    bare = replace(clause, **{meaning.role: replace(phrase, det="")})
    words = _words_of(bare, meaning.role, language)
    found: list[tuple[str, int]] = []
    start = 0
    for place, each in enumerate(meaning.clauses):
        for role, forms in say_parts(each, language):
            text = " ".join(forms)
            if role in ROLES and getattr(each, role) == phrase:
                asked = place == meaning.asked and role == meaning.role
                found.insert(0 if asked else len(found), (text, start))
                if asked and text != words:
                    later = len(text) - len(words) if text.endswith(f" {words}") else 0
                    found.insert(1, (words, start + later))
            start += len(text) + 1
        start += len(STOP) + 1
    return [each for each in found if each[0] in (found[0][0], words)]


def _words_of(clause: Clause, role: str, language: str) -> str:
    return " ".join(dict(say_parts(clause, language))[role])


def _said(meaning: Meaning) -> tuple[Hashable, ...]:
    """What is said in each language: some do not tell every two meanings apart."""
    return tuple((language, sentence(meaning, language)) for language in LANGUAGES)


def _draw_long_sentence(rng: random.Random, index: int) -> Meaning:
    meaning = draw_meaning(rng)
    while len(say(meaning, SOURCE)) < LEAST_WORDS:
        meaning = draw_meaning(rng)
    return meaning


def _bitext_row(meaning: Meaning, language: str) -> dict[str, Any]:
    return {"source": sentence(meaning, language), "target": sentence(meaning, SOURCE)}


def _draw_search(rng: random.Random, index: int) -> Search | Sought:
    role = ROLES[index % len(ROLES)]
    if index >= TEST:
        return draw_search(rng, role)
    places = _shuffled_candidates()
    return draw_sought(rng, role, (places[index], places[index + TEST]))


@functools.cache
def _shuffled_candidates() -> tuple[int, ...]:
    """Places of the candidates: those of a question tell nothing about its number."""
    return tuple(sorted(range(CANDIDATES), key=lambda place: digest("candidates", place)))


def _ranking_row(meaning: Search | Sought | Clause, language: str) -> dict[str, Any]:
    if isinstance(meaning, Clause):
        return {"text": sentence(Meaning((meaning,)), language)}
    search = meaning if isinstance(meaning, Search) else meaning.search
    question = ask(brief(search.answer), search.role)
    row: dict[str, Any] = {"query": sentence(Meaning((question,)), language)}
    if isinstance(meaning, Search):
        return {**row, "answer": sentence(Meaning((search.answer,)), language)}
    return {**row, "relevant": [_id(each, "candidates", meaning.slots[0]) for each in LANGUAGES]}


def _draw_topical(rng: random.Random, index: int) -> tuple[tuple[Clause, ...], str]:
    topic = TOPICS[index % len(TOPICS)]
    return draw_about(rng, topic), topic


def _topic_row(meaning: tuple[tuple[Clause, ...], str], language: str) -> dict[str, Any]:
    clauses, topic = meaning
    told = [sentence(Meaning((clause,)), language) for clause in clauses]
    return {"text": f" {STOP} ".join(told), "label": topic}


TASKS: Mapping[str, LabTask] = MappingProxyType(
    {
        "lab-pos": LabTask("tagging", TAGS, _draw_sentence, _tagging_row),
        "lab-nli": LabTask("pair-classification", LABELS, _draw_inference, _inference_row),
        "lab-ner": LabTask("tagging", ENTITY_TAGS, _draw_named, _entity_row),
        "lab-paraphrase": LabTask(
            "pair-classification", REWORDING_LABELS, _draw_paraphrase, _paraphrase_row
        ),
        "lab-choice": LabTask("choice", ("0", "1"), _draw_choice, _choice_row),
        "lab-qa": LabTask("qa", (), _draw_reading, _reading_row),
        "lab-bitext": LabTask(
            "retrieval", (), _draw_long_sentence, _bitext_row, ("test",), _said, source=False
        ),
        "lab-ranking": LabTask(
            "ranking", (), _draw_search, _ranking_row, (*SPLITS, "candidates"), claims
        ),
        "lab-topic": LabTask("classification", TOPICS, _draw_topical, _topic_row),
    }
)


@functools.cache
def rows(task: str, language: str, split: str) -> tuple[dict[str, Any], ...]:
    """The rows of one split, in a fixed order; KeyError for an unknown task or language, or a split
    that the task does not have in that language.

    Besides "id" rows have, by task: lab-pos "tokens" and "upos" (two lists of equal length);
    lab-ner "tokens" and "ner_tags"; lab-nli "premise", "hypothesis", "label"; lab-paraphrase
    "sentence1", "sentence2", "label"; lab-choice "premise", "question", "choice1", "choice2" and
    "label" (0 or 1); lab-qa "context", "question" and "answers" (lists "text" and "answer_start",
    in characters, the best answer first); lab-bitext "source", "target"; lab-ranking "query" and
    "answer", in `test` "query" and "relevant" (ids of candidates in all languages), in `candidates`
    "text"; lab-topic "text", "label". Row i of `test`, and of `candidates`, means the same in every
    language; all other meanings differ between languages and between splits. The rows are shared
    between callers: copy one before changing it.
    """
    row = TASKS[task].row
    return tuple(
        {"id": _id(language, split, index), **row(meaning, language)}
        for index, meaning in enumerate(meanings(task, language, split))
    )


def _id(language: str, split: str, index: int) -> str:
    return f"{language}-{split}-{index:04d}"


def size(task: str, language: str, split: str) -> int:
    """How many rows a split has, without making them; KeyError as in `rows`."""
    spec, source = TASKS[task], LANGUAGES[language].code == SOURCE
    if split not in spec.splits or (source and not spec.source):
        raise KeyError(split)
    return {
        "train": SOURCE_TRAIN if source else TARGET_TRAIN,
        "validation": VALIDATION,
        "test": TEST,
        "candidates": CANDIDATES,
    }[split]


def meanings(task: str, language: str, split: str) -> tuple[Any, ...]:
    """What the rows of one split mean, in their order; KeyError as in `rows`."""
    place, count = number(language), size(task, language, split)
    if split == "candidates":
        return _candidates(task)
    # The one series of a task is cut into: test, validation by language, train by language.
    if split == "test":
        start = 0
    elif split == "validation":
        start = TEST + place * VALIDATION
    else:
        start = TEST + len(LANGUAGES) * VALIDATION
        start += SOURCE_TRAIN + (place - 1) * TARGET_TRAIN if place else 0
    return _series(task)[start : start + count]


def _candidates(task: str) -> tuple[Clause, ...]:
    pool: dict[int, Clause] = {}
    for sought in _series(task)[:TEST]:
        pool.update(zip(sought.slots, clauses_of(sought), strict=True))
    return tuple(pool[slot] for slot in range(CANDIDATES))


@functools.cache
def _series(task: str) -> tuple[Any, ...]:
    """Distinct meanings, enough for every split of every language."""
    spec, total = TASKS[task], TEST
    if "train" in spec.splits:
        total += len(LANGUAGES) * (VALIDATION + TARGET_TRAIN) + SOURCE_TRAIN - TARGET_TRAIN
    found: list[Hashable] = []
    claimed: set[Hashable] = set()
    for index in range(total):
        attempt = 0
        while len(found) == index:
            meaning = spec.draw(generator("task", task, index, attempt), index)
            claim = spec.claims(meaning)
            if claimed.isdisjoint(claim):
                found.append(meaning)
                claimed.update(claim)
            attempt += 1
    return tuple(found)
