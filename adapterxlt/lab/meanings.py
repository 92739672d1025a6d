"""The shared meaning space: clauses over concepts, how they are drawn, and how they are edited.

Knows no language; the grammar says a meaning in one, the tasks take labels from it. A meaning is a
frozen value, so equal meanings compare and hash equal.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from adapterxlt.lab.draw import below, chance, pick, pick_skewed
from adapterxlt.lab.lexicon import (
    ADJECTIVES,
    ADPOSITIONS,
    ADVERBS,
    ANIMATE,
    CLASSES,
    HYPERNYMS,
    INTRANSITIVE,
    NAMES,
    NOUNS,
    NUMERALS,
    PRONOUNS,
    TRANSITIVE,
)

ANIMATE_CLASSES = tuple(range(ANIMATE))
PLACE_CLASSES = (CLASSES - 2, CLASSES - 1)
THING_CLASSES = tuple(range(ANIMATE, CLASSES - 2))


@dataclass(frozen=True)
class Phrase:
    """A participant: a noun (with determiner, numeral, adjective), a name or a pronoun.

    A noun with a `name` is a named one and has nothing else beside it.
    """

    head: str
    det: str = ""
    numeral: str = ""
    plural: bool = False
    adjective: str = ""
    name: str = ""


@dataclass(frozen=True)
class Clause:
    """Who did what to whom, how and where; `adposition` and `place` are both set or both empty."""

    agent: Phrase
    verb: str
    patient: Phrase | None = None
    adverb: str = ""
    adposition: str = ""
    place: Phrase | None = None
    past: bool = False
    negative: bool = False


@dataclass(frozen=True)
class Meaning:
    """One clause, or two joined by the conjunction `link`."""

    clauses: tuple[Clause, ...]
    link: str = ""


def draw_meaning(rng: random.Random) -> Meaning:
    """A meaning of one clause, or (one in five) of two."""
    first = draw_clause(rng)
    if not chance(rng, 0.2):
        return Meaning((first,))
    return Meaning((first, draw_clause(rng)), pick(rng, ("cconj.and", "cconj.but")))


def draw_clause(rng: random.Random) -> Clause:
    """A clause; the verb limits the classes of its participants."""
    verb = pick_skewed(rng, TRANSITIVE if chance(rng, 0.6) else INTRANSITIVE)
    agent = draw_phrase(rng, pick(rng, agent_classes(verb)), free=True)
    patient = None
    if verb in TRANSITIVE:
        patient = draw_phrase(rng, pick(rng, patient_classes(verb)), free=True)
    adverb = pick_skewed(rng, ADVERBS) if chance(rng, 0.3) else ""
    adposition, place = draw_place(rng) if chance(rng, 0.3) else ("", None)
    past, negative = chance(rng, 0.5), chance(rng, 0.2)
    return Clause(agent, verb, patient, adverb, adposition, place, past, negative)


def draw_named_meaning(rng: random.Random) -> Meaning:
    """A meaning as of `draw_meaning`, where more participants and places bear a name."""
    meaning = draw_meaning(rng)
    return replace(meaning, clauses=tuple(_named(rng, clause) for clause in meaning.clauses))


def _named(rng: random.Random, clause: Clause) -> Clause:
    agent, patient = _with_name(rng, clause.agent), clause.patient
    if patient is not None:
        patient = _with_name(rng, patient)
    adposition, place = clause.adposition, clause.place
    if place is None and chance(rng, 0.4):
        adposition, place = draw_place(rng)
    if place is not None:
        # A name alone is a place here, and a person elsewhere: it needs context to tag.
        alone = chance(rng, 0.25)
        place = Phrase(pick_skewed(rng, NAMES)) if alone else _with_name(rng, place)
    return replace(clause, agent=agent, patient=patient, adposition=adposition, place=place)


def _with_name(rng: random.Random, phrase: Phrase) -> Phrase:
    if not phrase.head.startswith("noun."):
        return phrase
    if class_of(phrase.head) < ANIMATE and chance(rng, 0.4):
        return Phrase(pick_skewed(rng, NAMES))
    return Phrase(phrase.head, name=pick_skewed(rng, NAMES)) if chance(rng, 0.3) else phrase


def draw_phrase(rng: random.Random, kind: int, free: bool) -> Phrase:
    """A phrase whose noun is of class `kind`; `free` lets names and pronouns stand for it."""
    if free and chance(rng, 0.3):
        if kind < ANIMATE and chance(rng, 0.6):
            return Phrase(pick_skewed(rng, NAMES))
        return Phrase(pick(rng, PRONOUNS))
    head = pick_skewed(rng, NOUNS[kind]) if chance(rng, 0.88) else HYPERNYMS[kind]
    adjective = pick_skewed(rng, ADJECTIVES) if chance(rng, 0.35) else ""
    form = below(rng, 6)
    if form == 0:
        return Phrase(head, "", pick_skewed(rng, NUMERALS), True, adjective)
    if form == 1:
        return Phrase(head, "", "", True, adjective)
    if form == 2:
        return Phrase(head, "det.the", "", True, adjective)
    return Phrase(head, ("det.the", "det.a", "det.this")[form - 3], "", False, adjective)


def draw_place(rng: random.Random) -> tuple[str, Phrase]:
    """An adposition and a definite place."""
    noun = pick_skewed(rng, NOUNS[pick(rng, PLACE_CLASSES)])
    return pick_skewed(rng, ADPOSITIONS), Phrase(noun, "det.the")


def agent_classes(verb: str) -> tuple[int, ...]:
    """The two animate classes that can do what the verb says."""
    first = serial(verb) % ANIMATE
    return (first, (first + 1) % ANIMATE)


def patient_classes(verb: str) -> tuple[int, ...]:
    """The two classes that a transitive verb can be done to."""
    half = serial(verb) // 2
    return (THING_CLASSES[half % len(THING_CLASSES)], (half // 2) % ANIMATE)


def _done_to(verb: str) -> tuple[int, ...]:
    return patient_classes(verb) if verb in TRANSITIVE else ()


def antonym(concept: str) -> str:
    """The opposite of a verb, an adjective or an adverb (an involution)."""
    kind, _, number = concept.rpartition(".")
    return f"{kind}.{int(number) ^ 1}"


def suits(verb: str, agent: Phrase | None, patient: Phrase | None) -> bool:
    """Whether drawn clauses could have the verb with these nouns; None and names always suit."""
    return not any(
        phrase is not None and phrase.head not in NAMES and class_of(phrase.head) not in classes
        for phrase, classes in ((agent, agent_classes(verb)), (patient, _done_to(verb)))
    )


def class_of(noun: str) -> int:
    """Class of a noun, of a member as of the class word itself."""
    return int(noun.split(".")[1])


def entity(phrase: Phrase, place: bool = False) -> str:
    """What a phrase names: PER, LOC or OBJ by the class of its noun; empty where it has no name."""
    if phrase.head in NAMES:
        return "LOC" if place else "PER"
    if not phrase.name:
        return ""
    kind = class_of(phrase.head)
    return "PER" if kind < ANIMATE else "LOC" if kind in PLACE_CLASSES else "OBJ"


def serial(concept: str) -> int:
    """Number of a concept within its kind, of `do.3` 3."""
    return int(concept.rpartition(".")[2])


# --- pairs of meanings with a known relation ------------------------------------------------------

LABELS = ("entailment", "neutral", "contradiction")


def draw_pair(rng: random.Random, label: str) -> tuple[Meaning, Meaning]:
    """Premise and hypothesis in the relation `label`; KeyError for an unknown label.

    Both speak of the same participants and event, as annotators of natural inference data are told
    to assume. The hypothesis is drawn before the label is looked at and fits every label, so it
    tells nothing about the label; the premise is the hypothesis made richer (entailment), poorer
    (neutral) or opposed (contradiction), at times with unrelated additions. Below a negation only
    the definite agent is touched, since leaving out any other part would not keep the truth.
    """
    told = _draw_hypothesis(rng)
    premise, touched = told, frozenset[str]()
    if label == "neutral":
        premise, touched = _made_poorer(rng, told)
    elif label == "contradiction":
        premise, touched = _opposed(rng, told)
    elif label != "entailment":
        raise KeyError(label)
    # Mostly one part more in a true pair and one less in an open one: the lengths of both sentences
    # together help, as lexical overlap does in any natural inference data.
    wanted = 1 + chance(rng, 0.3) if label == "entailment" else int(chance(rng, 0.3))
    slots = [slot for slot in _empty_slots(premise) if slot not in touched]
    while wanted and slots:
        slot = slots.pop(below(rng, len(slots)))
        premise = _filled(rng, premise, slot)
        wanted -= 1
    clauses: tuple[Clause, ...] = (premise,)
    # A further clause is always possible; it makes the premise richer where no slot was free.
    if wanted or chance(rng, 0.12):
        other = draw_clause(rng)
        clauses = (premise, other) if chance(rng, 0.5) else (other, premise)
    return Meaning(clauses, "cconj.and" if len(clauses) > 1 else ""), Meaning((told,))


def _draw_hypothesis(rng: random.Random) -> Clause:
    verb = pick_skewed(rng, TRANSITIVE if chance(rng, 0.5) else INTRANSITIVE)
    kind = pick(rng, agent_classes(verb))
    head = pick_skewed(rng, NOUNS[kind]) if chance(rng, 0.88) else HYPERNYMS[kind]
    negative, adjective = chance(rng, 0.45), ""
    if negative or head == HYPERNYMS[kind] or chance(rng, 0.4):
        adjective = pick_skewed(rng, ADJECTIVES)
    agent = Phrase(head, "det.the", "", chance(rng, 0.3), adjective)
    patient = None
    if verb in TRANSITIVE:
        head = pick_skewed(rng, NOUNS[pick(rng, patient_classes(verb))])
        patient = Phrase(head, "det.a")
    adverb = pick_skewed(rng, ADVERBS) if chance(rng, 0.35) else ""
    adposition, place = draw_place(rng) if chance(rng, 0.35) else ("", None)
    past = chance(rng, 0.5)
    return Clause(agent, verb, patient, adverb, adposition, place, past, negative)


def _empty_slots(clause: Clause) -> list[str]:
    slots = [] if clause.agent.adjective else ["agent"]
    slots += ["head"] if clause.agent.head in HYPERNYMS else []
    if not clause.negative:
        slots += [] if clause.adverb else ["adverb"]
        slots += [] if clause.place else ["place"]
        slots += ["patient"] if clause.patient and not clause.patient.adjective else []
    return slots


def _filled(rng: random.Random, clause: Clause, slot: str) -> Clause:
    if slot == "agent":
        return replace(clause, agent=replace(clause.agent, adjective=pick(rng, ADJECTIVES)))
    if slot == "head":
        member = pick_skewed(rng, NOUNS[class_of(clause.agent.head)])
        return replace(clause, agent=replace(clause.agent, head=member))
    if slot == "adverb":
        return replace(clause, adverb=pick(rng, ADVERBS))
    if slot == "place":
        adposition, place = draw_place(rng)
        return replace(clause, adposition=adposition, place=place)
    assert clause.patient is not None
    return replace(clause, patient=replace(clause.patient, adjective=pick(rng, ADJECTIVES)))


def _made_poorer(rng: random.Random, clause: Clause) -> tuple[Clause, frozenset[str]]:
    slots = ["agent"] if clause.agent.adjective else []
    if not clause.negative:
        slots += ["adverb"] if clause.adverb else []
        slots += ["place"] if clause.place else []
    # With nothing to leave out, the premise names only the class of the agent.
    if not slots or (clause.agent.head not in HYPERNYMS and chance(rng, 0.1)):
        general = replace(clause.agent, head=HYPERNYMS[class_of(clause.agent.head)])
        return replace(clause, agent=general), frozenset(("head",))
    slot = pick(rng, slots)
    touched = frozenset((slot,))
    if slot == "agent":
        return replace(clause, agent=replace(clause.agent, adjective="")), touched
    if slot == "adverb":
        return replace(clause, adverb=""), touched
    return replace(clause, adposition="", place=None), touched


def _opposed(rng: random.Random, clause: Clause) -> tuple[Clause, frozenset[str]]:
    # 0.82 of the affirmative and all of the negative clauses are toggled, so that as many premises
    # are negative here (0.45) as under the other labels.
    if clause.negative or chance(rng, 0.82):
        touched = frozenset(("agent",)) if clause.negative else frozenset[str]()
        return replace(clause, negative=not clause.negative), touched
    ways = ["verb", "head"]
    ways += ["agent"] if clause.agent.adjective else []
    ways += ["adverb"] if clause.adverb else []
    way = pick(rng, ways)
    if way == "verb":
        return replace(clause, verb=antonym(clause.verb)), frozenset()
    if way == "adverb":
        return replace(clause, adverb=antonym(clause.adverb)), frozenset()
    agent = clause.agent
    if way == "agent":
        return replace(clause, agent=replace(agent, adjective=antonym(agent.adjective))), (
            frozenset()
        )
    others = [kind for kind in ANIMATE_CLASSES if kind != class_of(agent.head)]
    other = pick_skewed(rng, NOUNS[pick(rng, others)])
    return replace(clause, agent=replace(agent, head=other)), frozenset()
