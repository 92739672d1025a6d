"""Labelled rows of the lab's tasks, taken from meanings.

One function a task turns a meaning into a row in a language; adding a task is adding that function,
one that draws its meanings, and a line in `TASKS`. Never trains or scores; called by the readers of
data.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from adapterxlt.lab.draw import generator
from adapterxlt.lab.grammar import ENTITY_TAGS, TAGS, say, say_entities, sentence
from adapterxlt.lab.languages import LANGUAGES, SOURCE, number
from adapterxlt.lab.meanings import (
    LABELS,
    Meaning,
    draw_meaning,
    draw_named_meaning,
    draw_pair,
)

SPLITS = ("train", "validation", "test")
SOURCE_TRAIN = 2000
TARGET_TRAIN = 500
VALIDATION = 200
TEST = 300


@dataclass(frozen=True)
class LabTask:
    """How a task draws what its rows mean, how a row says it in a language, and its label names.

    `draw(rng, index)` gives a hashable meaning; `row(meaning, language)` the row without its id.
    """

    labels: tuple[str, ...]
    draw: Callable[[random.Random, int], Hashable]
    row: Callable[[Any, str], dict[str, Any]]


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


TASKS: Mapping[str, LabTask] = MappingProxyType(
    {
        "lab-pos": LabTask(TAGS, _draw_sentence, _tagging_row),
        "lab-nli": LabTask(LABELS, _draw_inference, _inference_row),
        "lab-ner": LabTask(ENTITY_TAGS, _draw_named, _entity_row),
    }
)


@functools.cache
def rows(task: str, language: str, split: str) -> tuple[dict[str, Any], ...]:
    """The rows of one split, in a fixed order; KeyError for an unknown task, language or split.

    lab-pos rows have "id", "tokens" and "upos" (two lists of equal length), lab-ner rows "ner_tags"
    in the place of "upos", lab-nli rows "id", "premise", "hypothesis" and "label". Row i of `test`
    means the same in every language; all other meanings differ between languages and between
    splits. The rows are shared between callers: copy one before changing it.
    """
    spec = TASKS[task]
    return tuple(
        {"id": f"{language}-{split}-{index:04d}", **spec.row(meaning, language)}
        for index, meaning in enumerate(meanings(task, language, split))
    )


def size(language: str, split: str) -> int:
    """How many rows a split has, without making them; KeyError for an unknown name."""
    source = SOURCE_TRAIN if LANGUAGES[language].code == SOURCE else TARGET_TRAIN
    return {"train": source, "validation": VALIDATION, "test": TEST}[split]


def meanings(task: str, language: str, split: str) -> tuple[Any, ...]:
    """What the rows of one split mean, in their order; KeyError as in `rows`."""
    if split not in SPLITS:
        raise KeyError(split)
    place, count = number(language), size(language, split)
    # The one series of a task is cut into: test, validation by language, train by language.
    if split == "test":
        start = 0
    elif split == "validation":
        start = TEST + place * VALIDATION
    else:
        start = TEST + len(LANGUAGES) * VALIDATION
        start += SOURCE_TRAIN + (place - 1) * TARGET_TRAIN if place else 0
    return _series(task)[start : start + count]


@functools.cache
def _series(task: str) -> tuple[Any, ...]:
    """Distinct meanings, enough for every split of every language."""
    spec = TASKS[task]
    total = TEST + len(LANGUAGES) * VALIDATION + SOURCE_TRAIN + (len(LANGUAGES) - 1) * TARGET_TRAIN
    seen: dict[Hashable, None] = {}
    for index in range(total):
        attempt, before = 0, len(seen)
        while len(seen) == before:
            seen[spec.draw(generator("task", task, index, attempt), index)] = None
            attempt += 1
    return tuple(seen)
