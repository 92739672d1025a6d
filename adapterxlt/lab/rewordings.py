"""Pairs of sentences of much the same words, which mean the same or do not.

As in PAWS, how many words the sentences share tells nothing. In six pairs of ten all of them: a
paraphrase moves the place to the other end of the clause, or exchanges two clauses; any other pair
also exchanges two participants or the owners of two adjectives. In the rest one sentence denies
another verb, which is a paraphrase if and only if that is the opposite verb. Knows no language;
called by the tasks.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from adapterxlt.lab.draw import below, chance, pick, pick_skewed
from adapterxlt.lab.events import RINGS
from adapterxlt.lab.lexicon import (
    ADJECTIVES,
    ADVERBS,
    INTRANSITIVE,
    NAMES,
    NOUNS,
    SHARED,
    TRANSITIVE,
)
from adapterxlt.lab.meanings import (
    Clause,
    Meaning,
    Phrase,
    agent_classes,
    antonym,
    draw_place,
    patient_classes,
    serial,
)

#: "1" is a paraphrase.
REWORDING_LABELS = ("0", "1")

#: What is said, the same said otherwise, and something else in the same words as that.
_Told = tuple[Meaning, Meaning, Meaning]

# An adverb that is also an adposition or an adjective would be misread beside a noun.
_ADVERBS = tuple(adverb for adverb in ADVERBS if adverb not in SHARED)


@dataclass(frozen=True)
class Rewording:
    """Two meanings to be said, the second with its place `moved` (see `grammar.say`).

    `flipped` is true where the second is the first sentence of the row.
    """

    first: Meaning
    second: Meaning
    moved: bool
    flipped: bool
    label: str


def draw_rewording(rng: random.Random, label: str, turn: int) -> Rewording:
    """A pair with the label "1" (paraphrase) or "0"; KeyError for another label.

    The kinds of pairs take turns, ten in a round. All that a pair could say is drawn before the
    label is looked at, so neither sentence alone nor the kind tells it.
    """
    if label not in REWORDING_LABELS:
        raise KeyError(label)
    place = turn % 10
    draw = _draw_single if place < 5 else _draw_opposed if place < 9 else _draw_joined
    first, same, other = draw(rng)
    second = same if label == "1" else other
    return Rewording(first, second, draw is _draw_single, chance(rng, 0.5), label)


def _draw_single(rng: random.Random) -> _Told:
    """One clause with a place, the same, and the same with its participants, or the owners of its
    adjectives, exchanged.

    Participants that are exchanged are names, which have no case; all are singular, so that the
    verb agrees with either.
    """
    verb = pick_skewed(rng, TRANSITIVE)
    if chance(rng, 0.5):
        one, two = (Phrase(name) for name in _distinct(rng, NAMES))
        others = two, one
    else:
        mine, theirs = _distinct(rng, ADJECTIVES)
        agent, patient = _draw_heads(rng, verb)
        one, two = (
            Phrase(agent, "det.the", adjective=mine),
            Phrase(patient, "det.the", adjective=theirs),
        )
        others = replace(one, adjective=theirs), replace(two, adjective=mine)
    clause = Clause(one, verb, two, past=chance(rng, 0.5))
    clause = _with_rest(rng, clause, chance(rng, 0.2), True)
    edited = replace(clause, agent=others[0], patient=others[1])
    return Meaning((clause,)), Meaning((clause,)), Meaning((edited,))


def _draw_heads(rng: random.Random, verb: str) -> tuple[str, str]:
    agent = patient = pick_skewed(rng, NOUNS[pick(rng, agent_classes(verb))])
    while patient == agent:
        patient = pick_skewed(rng, NOUNS[pick(rng, patient_classes(verb))])
    return agent, patient


def _draw_opposed(rng: random.Random) -> _Told:
    """One clause, the denial of the opposite, and the denial of something not opposed to it."""
    verb = pick(rng, TRANSITIVE)
    ring = serial(verb) % RINGS
    # Verbs of rings 2k and 2k+1 all take these classes, so that participants tell nothing.
    agent = Phrase(pick_skewed(rng, NOUNS[ring | 1]), "det.the")
    agent = Phrase(pick_skewed(rng, NAMES)) if chance(rng, 0.5) else agent
    patient = Phrase(pick_skewed(rng, NOUNS[patient_classes(verb)[0]]), "det.the")
    past = chance(rng, 0.5)
    clause = Clause(agent, verb, patient, past=past)
    clause = _with_rest(rng, clause, chance(rng, 0.2), chance(rng, 0.3))
    others = [each for each in TRANSITIVE if serial(each) % RINGS in (ring, ring ^ 1)]
    others = [each for each in others if each not in (verb, antonym(verb))]
    same = replace(clause, verb=antonym(verb), negative=True)
    return Meaning((clause,)), Meaning((same,)), Meaning((replace(same, verb=pick(rng, others)),))


def _draw_joined(rng: random.Random) -> _Told:
    """Two clauses, the same the other way round, and so with their participants exchanged."""
    heads, past = _distinct(rng, NAMES), chance(rng, 0.5)
    verbs = _distinct(rng, INTRANSITIVE)
    one, two = (
        Clause(Phrase(head), verb, past=past) for head, verb in zip(heads, verbs, strict=True)
    )
    crossed = [replace(two, agent=one.agent), replace(one, agent=two.agent)]
    crossed = crossed[::-1] if chance(rng, 0.5) else crossed
    return _joined(one, two), _joined(two, one), _joined(*crossed)


def _joined(*clauses: Clause) -> Meaning:
    return Meaning(clauses, "cconj.and")


def _with_rest(rng: random.Random, clause: Clause, adverb: bool, where: bool) -> Clause:
    """The clause with an adverb and a place, where they are wanted."""
    adposition, place = draw_place(rng) if where else ("", None)
    how = pick_skewed(rng, _ADVERBS) if adverb else ""
    return replace(clause, adverb=how, adposition=adposition, place=place)


def _distinct(rng: random.Random, items: tuple[str, ...]) -> tuple[str, str]:
    first, second = below(rng, len(items)), below(rng, len(items) - 1)
    return items[first], items[second + (second >= first)]
