"""Questions about one participant of a clause, and the clauses that must not answer them.

A question is the clause with "this" alone in the place of the participant it asks for. No clause
of a context or a pool says "this", and their participants differ in their nouns or names, so that
what answers a question is certain. Knows no language; called by the tasks.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Hashable
from dataclasses import dataclass, replace

from adapterxlt.lab.draw import below, chance, pick, pick_skewed
from adapterxlt.lab.lexicon import (
    ADJECTIVES,
    ADVERBS,
    ANIMATE,
    INTRANSITIVE,
    NAMES,
    NOUNS,
    TRANSITIVE,
)
from adapterxlt.lab.meanings import (
    Clause,
    Phrase,
    agent_classes,
    draw_place,
    patient_classes,
    suits,
)

ROLES = ("agent", "patient", "place")

GAP = Phrase("pron.this")


@dataclass(frozen=True)
class Reading:
    """A context of several clauses, and the place of the one that is asked about, and for what."""

    clauses: tuple[Clause, ...]
    asked: int
    role: str


@dataclass(frozen=True)
class Search:
    """A question to find an answer for: the clause that answers it, and the role asked for."""

    answer: Clause
    role: str


@dataclass(frozen=True)
class Sought:
    """A search in a pool of candidates, with a clause that must not be taken for its answer.

    `slots` are the places of the answer and of the distractor among the candidates.
    """

    search: Search
    distractor: Clause
    slots: tuple[int, int]


def ask(clause: Clause, role: str) -> Clause:
    """The question for a participant: how something was done is not repeated in it."""
    asked = {"agent": clause.agent, "patient": clause.patient, "place": clause.place, role: GAP}
    return replace(clause, adverb="", **asked)  # type: ignore[arg-type]


def brief(clause: Clause) -> Clause:
    """The clause without its adjectives and adverb."""
    patient, agent = clause.patient, replace(clause.agent, adjective="")
    patient = replace(patient, adjective="") if patient else None
    return replace(clause, agent=agent, patient=patient, adverb="")


def answers(clause: Clause, question: Clause) -> bool:
    """Whether a clause answers a question, judged by verb, negation, nouns and names alone.

    A clause that does not say where something happened is taken to be possible at any place.
    """
    if (clause.verb, clause.negative) != (question.verb, question.negative):
        return False
    return all(_agrees(clause, question, role) for role in ROLES)


def _agrees(clause: Clause, question: Clause, role: str) -> bool:
    given, asked = getattr(clause, role), getattr(question, role)
    if asked is None or (given is None and role == "place" and asked != GAP):
        return True
    return given is not None and (asked == GAP or bool(given.head == asked.head))


# --- reading --------------------------------------------------------------------------------------


def draw_reading(rng: random.Random, role: str) -> Reading:
    """Two to five clauses of which one answers the question for `role`, the others distract."""
    clause = _draw_clause(rng, role)
    question, clauses, heads = ask(clause, role), [clause], _heads(clause)
    ways = list(_WAYS[:2]) if chance(rng, 0.5) else list(_WAYS[1::-1])
    ways += [pick(rng, _WAYS) for _ in range(2)]
    wanted = 2 + below(rng, 4)
    while len(clauses) < wanted:
        # Also distractors have distractors, or the clause most like the others would be the one
        # that is asked about.
        base = pick(rng, [each for each in clauses if not each.negative])
        other = _distractor(rng, base, role, ways[len(clauses) - 1], heads)
        if not answers(other, question):
            clauses.append(other)
            heads |= _heads(other)
    asked = below(rng, len(clauses))
    clauses[0], clauses[asked] = clauses[asked], clauses[0]
    return Reading(tuple(clauses), asked, role)


# How a distractor differs: the verb stays and all participants change; the participants that the
# question names stay and the verb changes; only the negation and the participant asked for change;
# the participant asked for stays and all else changes.
_WAYS = ("verb", "given", "denied", "asked")


def _distractor(
    rng: random.Random, clause: Clause, role: str, way: str, heads: Collection[str]
) -> Clause:
    roles = [each for each in ROLES if getattr(clause, each) is not None]
    if way == "verb":
        return _changed(rng, clause, roles, heads)
    if way == "denied":
        return _changed(rng, replace(clause, negative=True), [role], heads)
    changing = [role] if way == "given" else [each for each in roles if each != role]
    verbs = [verb for verb in _like(clause.verb) if _fits(verb, clause, changing)]
    return _changed(rng, replace(clause, verb=pick(rng, verbs)), changing, heads)


def _like(verb: str) -> list[str]:
    verbs = TRANSITIVE if verb in TRANSITIVE else INTRANSITIVE
    return [other for other in verbs if other != verb]


def _fits(verb: str, clause: Clause, changing: list[str]) -> bool:
    """Whether another verb takes the participants that stay."""
    agent = None if "agent" in changing else clause.agent
    return suits(verb, agent, None if "patient" in changing else clause.patient)


def _changed(
    rng: random.Random, clause: Clause, roles: Collection[str], heads: Collection[str]
) -> Clause:
    """The clause with new participants in some roles, their nouns and names not in `heads`."""
    taken = set(heads)
    if "agent" in roles:
        agent = _draw_participant(rng, agent_classes(clause.verb), taken)
        clause = replace(clause, agent=agent)
        taken.add(agent.head)
    if "patient" in roles:
        patient = _draw_participant(rng, patient_classes(clause.verb), taken)
        clause = replace(clause, patient=patient)
    if "place" in roles:
        adposition, place = draw_place(rng)
        while place.head in taken:
            adposition, place = draw_place(rng)
        clause = replace(clause, adposition=adposition, place=place)
    return replace(clause, adverb=pick_skewed(rng, ADVERBS) if chance(rng, 0.3) else "")


def _draw_clause(rng: random.Random, role: str) -> Clause:
    """A clause with the role; without a patient it has a place, for the question to name."""
    verb = pick_skewed(rng, TRANSITIVE if role == "patient" or chance(rng, 0.6) else INTRANSITIVE)
    roles = ["agent", "patient"] if verb in TRANSITIVE else ["agent", "place"]
    if role == "place" or chance(rng, 0.2):
        roles.append("place")
    return _changed(rng, Clause(GAP, verb, past=chance(rng, 0.5)), roles, ())


def _draw_participant(
    rng: random.Random, classes: tuple[int, ...], heads: Collection[str]
) -> Phrase:
    while True:
        kind = pick(rng, classes)
        if kind < ANIMATE and chance(rng, 0.3):
            phrase = Phrase(pick_skewed(rng, NAMES))
        else:
            plural = chance(rng, 0.2)
            det = "det.the" if plural or chance(rng, 0.6) else "det.a"
            adjective = pick_skewed(rng, ADJECTIVES) if chance(rng, 0.3) else ""
            phrase = Phrase(pick_skewed(rng, NOUNS[kind]), det, "", plural, adjective)
        if phrase.head not in heads:
            return phrase


def _heads(clause: Clause) -> set[str]:
    return {each.head for each in (clause.agent, clause.patient, clause.place) if each}


# --- search ---------------------------------------------------------------------------------------


def draw_search(rng: random.Random, role: str) -> Search:
    """A clause with agent, patient and place, and what is asked for."""
    verb = pick(rng, TRANSITIVE)
    return Search(_changed(rng, Clause(GAP, verb, past=chance(rng, 0.5)), ROLES, ()), role)


def draw_sought(rng: random.Random, role: str, slots: tuple[int, int]) -> Sought:
    """A search and its distractor: the verb and a given participant, or all that is given but the
    verb, stay the same."""
    search = draw_search(rng, role)
    clause = search.answer
    if chance(rng, 0.5):
        return Sought(search, _distractor(rng, clause, role, "given", _heads(clause)), slots)
    kept = pick(rng, [each for each in ROLES if each != role])
    roles = [each for each in ROLES if each != kept]
    return Sought(search, _changed(rng, clause, roles, _heads(clause)), slots)


def clauses_of(meaning: Search | Sought) -> tuple[Clause, ...]:
    """The answer, and the distractor where there is one."""
    if isinstance(meaning, Search):
        return (meaning.answer,)
    return (meaning.search.answer, meaning.distractor)


def claims(meaning: Search | Sought) -> tuple[Hashable, ...]:
    """What no two searches may have in common.

    A clause is told once in a task, be it with other articles, which some languages lack. In a
    pool also no two candidates have the same verb and the same nouns in all roles but one: then no
    candidate answers the question for another.
    """
    told: list[Hashable] = [_without_articles(clause) for clause in clauses_of(meaning)]
    if isinstance(meaning, Sought):
        told += [
            (role, clause.verb, tuple(getattr(clause, each).head for each in ROLES if each != role))
            for clause in clauses_of(meaning)
            for role in ROLES
        ]
    return tuple(told)


def _without_articles(clause: Clause) -> Clause:
    bare = {each: replace(getattr(clause, each), det="") for each in ROLES}
    return replace(clause, **bare)
