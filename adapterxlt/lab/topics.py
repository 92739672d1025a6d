"""Four topics, the words they have in common, and short texts about one of them.

Every noun, verb, adjective and adverb belongs to two topics, so one word leaves two of them open
and a text is about the one that most of its words belong to. Knows no language; called by the
tasks.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

from adapterxlt.lab.draw import chance, pick, pick_skewed
from adapterxlt.lab.lexicon import (
    ADJECTIVES,
    ADPOSITIONS,
    ADVERBS,
    INTRANSITIVE,
    MEMBERS,
    NAMES,
    NOUNS,
    TRANSITIVE,
)
from adapterxlt.lab.meanings import (
    PLACE_CLASSES,
    Clause,
    Phrase,
    agent_classes,
    class_of,
    patient_classes,
    serial,
)

TOPICS = ("home", "field", "market", "road")

_PAIRS = tuple(combinations(TOPICS, 2))
_KINDS = ("noun", "go", "do", "adj", "adv")


def topics_of(concept: str) -> tuple[str, ...]:
    """The two topics a word belongs to; none for names, pronouns and function words."""
    if concept.partition(".")[0] not in _KINDS:
        return ()
    number = serial(concept)
    if concept.startswith("noun."):
        number += class_of(concept) * MEMBERS
    return _PAIRS[number % len(_PAIRS)]


def counts(clauses: Sequence[Clause]) -> Counter[str]:
    """How many words of the clauses belong to each topic."""
    return Counter(
        topic for clause in clauses for concept in _concepts(clause) for topic in topics_of(concept)
    )


def draw_about(rng: random.Random, topic: str) -> tuple[Clause, ...]:
    """One or two clauses, more of whose words belong to `topic` than to any other.

    KeyError for an unknown topic. Some words, about one in six, are drawn without regard to it.
    """
    if topic not in TOPICS:
        raise KeyError(topic)
    while True:
        clauses = tuple(_draw_clause(rng, topic) for _ in range(1 + chance(rng, 0.5)))
        found = counts(clauses)
        if all(found[topic] > found[other] for other in TOPICS if other != topic):
            return clauses


def _concepts(clause: Clause) -> list[str]:
    phrases = [each for each in (clause.agent, clause.patient, clause.place) if each]
    nouns = [concept for phrase in phrases for concept in (phrase.head, phrase.adjective)]
    return [concept for concept in (clause.verb, clause.adverb, *nouns) if concept]


def _draw_clause(rng: random.Random, topic: str) -> Clause:
    verb = _draw(rng, topic, TRANSITIVE if chance(rng, 0.6) else INTRANSITIVE)
    agent = _draw_phrase(rng, topic, agent_classes(verb))
    if chance(rng, 0.15):
        agent = Phrase(pick_skewed(rng, NAMES))
    patient = _draw_phrase(rng, topic, patient_classes(verb)) if verb in TRANSITIVE else None
    adverb = _draw(rng, topic, ADVERBS) if chance(rng, 0.3) else ""
    adposition, place = "", None
    if chance(rng, 0.3):
        adposition = pick_skewed(rng, ADPOSITIONS)
        place = Phrase(_draw(rng, topic, NOUNS[pick(rng, PLACE_CLASSES)]), "det.the")
    return Clause(
        agent, verb, patient, adverb, adposition, place, chance(rng, 0.5), chance(rng, 0.2)
    )


def _draw_phrase(rng: random.Random, topic: str, classes: tuple[int, ...]) -> Phrase:
    head = _draw(rng, topic, NOUNS[pick(rng, classes)])
    adjective = _draw(rng, topic, ADJECTIVES) if chance(rng, 0.3) else ""
    plural = chance(rng, 0.3)
    return Phrase(head, "det.the" if plural else "det.a", "", plural, adjective)


def _draw(rng: random.Random, topic: str, concepts: Sequence[str]) -> str:
    own = [concept for concept in concepts if topic in topics_of(concept)]
    return pick_skewed(rng, concepts if chance(rng, 1 / 6) else own)
