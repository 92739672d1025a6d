"""The rule of cause and effect between events, and choices between two events.

What transitive verbs say comes in four rings of three: each verb of a ring causes the next one and
is caused by the one before, with the same participants. Knows no language; called by the tasks.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from adapterxlt.lab.draw import below, chance, pick, pick_skewed
from adapterxlt.lab.lexicon import ADJECTIVES, ADVERBS, NAMES, NOUNS, TRANSITIVE
from adapterxlt.lab.meanings import Clause, Meaning, Phrase, draw_place, patient_classes, serial

QUESTIONS = ("cause", "effect")

#: Verbs of a ring are this far apart, which gives them the same classes of agents and of things.
RINGS = 4
_RING = len(TRANSITIVE) // RINGS


@dataclass(frozen=True)
class Choice:
    """What happened, what is asked about it, and the two events to choose from."""

    premise: Meaning
    question: str
    choices: tuple[Meaning, Meaning]
    label: int


def effect(verb: str) -> str:
    """The verb that says what comes of the events that a transitive verb says."""
    return TRANSITIVE[(serial(verb) + RINGS) % len(TRANSITIVE)]


def cause(verb: str) -> str:
    """The verb that says what brings about the events that a transitive verb says."""
    return TRANSITIVE[(serial(verb) - RINGS) % len(TRANSITIVE)]


def draw_choice(rng: random.Random, question: str, label: int) -> Choice:
    """A choice whose right answer stands at place `label`; KeyError for an unknown question.

    The wrong event has the same participants. In one row of three it is the effect where the cause
    is asked, or the reverse, else an event of another ring; every verb is right and wrong equally
    often.
    """
    verb = pick(rng, TRANSITIVE)
    answers = {"cause": cause(verb), "effect": effect(verb)}
    right = answers.pop(question)
    wrong = answers.popitem()[1]
    ring = serial(verb) % RINGS
    if chance(rng, 2 / 3):
        wrong = TRANSITIVE[(ring ^ 1) + RINGS * below(rng, _RING)]
    # Rings 2k and 2k+1 have one class of agents and one of things in common, so that participants
    # do not tell from which of the two a verb was taken.
    agent = Phrase(pick_skewed(rng, NOUNS[ring | 1]), "det.the")
    agent = Phrase(pick_skewed(rng, NAMES)) if chance(rng, 0.3) else agent
    patient = Phrase(pick_skewed(rng, NOUNS[patient_classes(verb)[0]]), "det.the")
    past = chance(rng, 0.5)
    told = [Meaning((Clause(agent, each, patient, past=past),)) for each in (right, wrong)]
    premise = _draw_premise(rng, Clause(agent, verb, patient, past=past))
    first, second = told if label == 0 else told[::-1]
    return Choice(Meaning((premise,)), question, (first, second), label)


def _draw_premise(rng: random.Random, event: Clause) -> Clause:
    agent, patient = event.agent, event.patient
    assert patient is not None
    if agent.det and chance(rng, 0.4):
        agent = replace(agent, adjective=pick_skewed(rng, ADJECTIVES))
    if chance(rng, 0.4):
        patient = replace(patient, adjective=pick_skewed(rng, ADJECTIVES))
    adverb = pick_skewed(rng, ADVERBS) if chance(rng, 0.3) else ""
    adposition, place = draw_place(rng) if chance(rng, 0.3) else ("", None)
    return replace(
        event, agent=agent, patient=patient, adverb=adverb, adposition=adposition, place=place
    )
