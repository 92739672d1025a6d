"""How each language says a meaning: word order, affixes, agreement, articles, and the gold tags.

Never draws anything, so one meaning has one sentence per language; called by the texts and the
tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from adapterxlt.lab.languages import LANGUAGES
from adapterxlt.lab.lexicon import forms
from adapterxlt.lab.meanings import Clause, Meaning, Phrase, entity

TAGS = ("ADJ", "ADP", "ADV", "CCONJ", "DET", "NOUN", "NUM", "PART", "PRON", "PROPN", "VERB")

ENTITY_TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-OBJ", "I-OBJ")

Tagged = tuple[str, str]
#: Form, part of speech and IOB2 tag.
_Word = tuple[str, str, str]
#: Name of a part of a clause, and its words.
_Part = tuple[str, list[_Word]]
_T = TypeVar("_T")

_TAG_OF = {
    "noun": "NOUN",
    "class": "NOUN",
    "name": "PROPN",
    "pron": "PRON",
    "go": "VERB",
    "do": "VERB",
    "adj": "ADJ",
    "adv": "ADV",
    "adp": "ADP",
    "num": "NUM",
    "det": "DET",
    "cconj": "CCONJ",
    "part": "PART",
}


@dataclass(frozen=True)
class Grammar:
    """Where a language puts its words, and what it marks on them.

    `*_first` means before the word it goes with (noun, verb or clause); `articles` is false where
    definite and indefinite nouns look alike; `case` marks patients; `agreement` marks number on
    adjectives; `prefixing` puts affixes in front of the stem, and a named noun before its name.
    """

    adjective_first: bool = True
    determiner_first: bool = True
    adposition_first: bool = True
    negation_first: bool = True
    adverb_first: bool = False
    place_first: bool = False
    articles: bool = True
    case: bool = False
    agreement: bool = False
    prefixing: bool = False


_GRAMMARS: Mapping[str, Grammar] = {
    "lab-root": Grammar(),
    "lab-near-high": Grammar(adverb_first=True),
    "lab-near-low": Grammar(adjective_first=False),
    "lab-mid-high": Grammar(adposition_first=False, negation_first=False, case=True),
    "lab-mid-mid": Grammar(adjective_first=False, place_first=True, agreement=True),
    "lab-mid-low": Grammar(adposition_first=False, adverb_first=True, agreement=True),
    "lab-far-mid": Grammar(
        adposition_first=False, adverb_first=True, place_first=True, articles=False, case=True
    ),
    "lab-far-low": Grammar(
        adjective_first=False, determiner_first=False, agreement=True, prefixing=True
    ),
    "lab-far-none": Grammar(
        adjective_first=False, negation_first=False, articles=False, case=True, prefixing=True
    ),
}


def grammar(language: str) -> Grammar:
    """A language's grammar; KeyError for an unknown code."""
    return _GRAMMARS[language]


def say(meaning: Meaning, language: str, moved: bool = False) -> tuple[Tagged, ...]:
    """The words of a meaning in a language with their tags, in order: ((form, tag), ...).

    `moved` names the parts of every clause that stand where the language puts them only at times:
    "place" at the other end of its clause, "adverb" at the beginning. Words and meaning stay.
    """
    return tuple((form, tag) for form, tag, _ in _words(meaning, language, moved))


def say_entities(meaning: Meaning, language: str) -> tuple[Tagged, ...]:
    """As `say`, with the IOB2 tags of what is named: ((form, tag), ...)."""
    return tuple((form, tag) for form, _, tag in _words(meaning, language))


def say_parts(clause: Clause, language: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The parts of a clause in order, each with its words: ((part, (form, ...)), ...).

    Parts are "agent", "verb", "patient", "negation", "adverb", "adposition" and "place".
    """
    parts = _parts(clause, language)
    return tuple((part, tuple(form for form, _, _ in words)) for part, words in parts)


def sentence(meaning: Meaning, language: str, moved: bool = False) -> str:
    """The words of a meaning in a language, joined by spaces; `moved` as in `say`."""
    return " ".join(form for form, _ in say(meaning, language, moved))


def word(concept: str, language: str) -> str:
    """Bare form of one concept."""
    return forms(language)[concept]


def _words(meaning: Meaning, language: str, moved: bool = False) -> list[_Word]:
    words: list[_Word] = []
    for place, clause in enumerate(meaning.clauses):
        if place:
            words.append(_word(meaning.link, language))
        words.extend(each for _, part in _parts(clause, language, moved) for each in part)
    return words


def _parts(clause: Clause, language: str, moved: bool = False) -> list[_Part]:
    rules = _GRAMMARS[language]
    # The mark of a plural subject's present verb is the plural of nouns: it needs context to tag.
    affix = "affix.past" if clause.past else "affix.plural" if _many(clause.agent) else ""
    verb = [("verb", [_word(clause.verb, language, affix)])]
    if clause.negative:
        _add(verb, [("negation", [_word("part.not", language)])], rules.negation_first)
    if clause.adverb:
        _add(verb, [("adverb", [_word(clause.adverb, language)])], rules.adverb_first)
    sides = {"S": [("agent", _phrase(clause.agent, language))], "V": verb, "O": []}
    if clause.patient:
        sides["O"] = [("patient", _phrase(clause.patient, language, rules.case))]
    parts = [each for side in LANGUAGES[language].order for each in sides[side]]
    if clause.place:
        where = [("place", _phrase(clause.place, language, place=True))]
        adposition = [("adposition", [_word(clause.adposition, language)])]
        _add(where, adposition, rules.adposition_first)
        _add(parts, where, rules.place_first != moved)
    return parts


def _phrase(
    phrase: Phrase, language: str, marked: bool = False, place: bool = False
) -> list[_Word]:
    rules = _GRAMMARS[language]
    noun = phrase.head.startswith(("noun.", "class."))
    affixes = ["affix.plural"] if phrase.plural else []
    affixes += ["affix.object"] if marked and noun else []
    words = [_word(phrase.head, language, *affixes)]
    if phrase.name:
        _add(words, [_word(phrase.name, language)], not rules.prefixing)
    if kind := entity(phrase, place):
        marks = ("B-", *("I-" for _ in words[1:]))
        words = [
            (form, tag, mark + kind) for (form, tag, _), mark in zip(words, marks, strict=True)
        ]
    if phrase.adjective:
        agreed = ("affix.plural",) if phrase.plural and rules.agreement else ()
        _add(words, [_word(phrase.adjective, language, *agreed)], rules.adjective_first)
    if phrase.numeral:
        _add(words, [_word(phrase.numeral, language)], rules.determiner_first)
    if phrase.det and (rules.articles or phrase.det == "det.this"):
        _add(words, [_word(phrase.det, language)], rules.determiner_first)
    return words


def _many(phrase: Phrase) -> bool:
    return phrase.plural or phrase.head == "pron.they"


def _add(words: list[_T], more: list[_T], first: bool) -> None:
    if first:
        words[:0] = more
    else:
        words.extend(more)


def _word(concept: str, language: str, *affixes: str) -> _Word:
    stems = forms(language)
    form = stems[concept]
    for affix in affixes:
        if affix:
            prefixing = _GRAMMARS[language].prefixing
            form = stems[affix] + form if prefixing else form + stems[affix]
    return form, _TAG_OF[concept.partition(".")[0]], "O"
