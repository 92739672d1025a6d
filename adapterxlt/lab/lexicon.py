"""The shared concepts and, for each language, their word forms.

A cognate is the source word after the language's sound changes, written in its script; any other
word is made of syllables drawn for that language alone. Never looks at sentences; called by the
grammar and, for the concept lists, by the meanings.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType

from adapterxlt.lab.draw import digest
from adapterxlt.lab.languages import LANGUAGES, SOURCE

ANIMATE = 4
CLASSES = 8
MEMBERS = 5

NOUNS = tuple(tuple(f"noun.{c}.{m}" for m in range(MEMBERS)) for c in range(CLASSES))
HYPERNYMS = tuple(f"class.{c}" for c in range(CLASSES))
NAMES = tuple(f"name.{i}" for i in range(10))
INTRANSITIVE = tuple(f"go.{i}" for i in range(8))
TRANSITIVE = tuple(f"do.{i}" for i in range(12))
ADJECTIVES = tuple(f"adj.{i}" for i in range(12))
ADVERBS = tuple(f"adv.{i}" for i in range(6))
ADPOSITIONS = tuple(f"adp.{i}" for i in range(4))
NUMERALS = tuple(f"num.{i}" for i in range(3))
PRONOUNS = ("pron.he", "pron.she", "pron.they", "pron.this")
DETERMINERS = ("det.the", "det.a", "det.this")
FUNCTION = ("cconj.and", "cconj.but", "part.not", "link.thus", "link.also", "link.no")
AFFIXES = ("affix.plural", "affix.past", "affix.object")

CONCEPTS = (
    *HYPERNYMS,
    *(noun for members in NOUNS for noun in members),
    *NAMES,
    *INTRANSITIVE,
    *TRANSITIVE,
    *ADJECTIVES,
    *ADVERBS,
    *ADPOSITIONS,
    *NUMERALS,
    *PRONOUNS,
    *DETERMINERS,
    *FUNCTION,
    *AFFIXES,
)

# Words that are one lexeme with another part of speech, in every language (zero derivation), so
# that a word list alone cannot tag a sentence.
SHARED: Mapping[str, str] = MappingProxyType(
    {
        "go.0": "noun.4.0",
        "go.2": "noun.5.1",
        "go.5": "noun.7.2",
        "do.0": "noun.4.1",
        "do.3": "noun.5.0",
        "do.4": "noun.6.0",
        "do.9": "noun.5.3",
        "adj.0": "noun.6.1",
        "adj.3": "noun.7.0",
        "adj.6": "noun.0.2",
        "adv.0": "adp.0",
        "adv.3": "adp.2",
        "adv.4": "adj.4",
        "name.1": "noun.6.3",
        "name.4": "noun.7.4",
        "pron.this": "det.this",
    }
)

LEXEMES = tuple(concept for concept in CONCEPTS if concept not in SHARED)

_VOWELS = "aeiou"
_CONSONANTS = "bdfgklmnprstvz"
# For each script the letters that stand for those of the source, vowels first.
_SCRIPTS = {
    "latin": "aeioubdfgklmnprstvz",
    "greek": "αεηουβδφγκλμνπρστχζ",
    "cyrillic": "аеиоубдфгклмнпрствз",
}
# Sound changes by language, letter by letter; the letters w, c, y, x and h occur in no source word.
_CHANGES: Mapping[str, Mapping[str, str]] = {
    "lab-near-high": {"v": "w"},
    "lab-near-low": {"z": "c"},
    "lab-mid-high": {"k": "x", "u": "y"},
    "lab-mid-mid": {"t": "h", "i": "y"},
    "lab-mid-low": {"p": "h", "o": "y"},
}


def cognate(word: str, language: str) -> str:
    """What a source word becomes in a language: its sound changes, then its script."""
    changes = _CHANGES.get(language, {})
    return _write("".join(changes.get(letter, letter) for letter in word), language)


def cognates(language: str) -> frozenset[str]:
    """The lexemes inherited from the source: exactly `round(share * lexemes)` of them."""
    ranked = sorted(LEXEMES, key=lambda name: digest("cognate", language, name))
    return frozenset(ranked[: round(LANGUAGES[language].cognates * len(LEXEMES))])


@functools.cache
def forms(language: str) -> Mapping[str, str]:
    """Stem of every concept in a language, affixes included; KeyError for an unknown language.

    Stems of distinct lexemes differ, and no drawn stem equals the cognate it stands in for.
    """
    inherited = cognates(language) if language != SOURCE else frozenset()
    source = forms(SOURCE) if language != SOURCE else {}
    stems = {name: cognate(source[name], language) for name in LEXEMES if name in inherited}
    taken = set(stems.values())
    for name in LEXEMES:
        if name in inherited:
            continue
        avoid = {cognate(source[name], language)} if source else set()
        attempt = 0
        while (word := _coin(language, name, attempt)) in taken or word in avoid:
            attempt += 1
        taken.add(word)
        stems[name] = word
    return MappingProxyType({concept: stems[SHARED.get(concept, concept)] for concept in CONCEPTS})


def _coin(language: str, name: str, attempt: int) -> str:
    """A new word: one syllable for an affix or function word (two after a few clashes), else two
    or three."""
    number = digest("word", language, name, attempt)
    kind = name.partition(".")[0]
    if kind in ("adp", "det", "pron", "cconj", "part", "affix"):
        syllables = 1 + (attempt > 3)
    else:
        syllables = 2 + number % 2
    letters = []
    for _ in range(syllables):
        number, c = divmod(number // 2, len(_CONSONANTS))
        number, v = divmod(number, len(_VOWELS))
        letters.append(_CONSONANTS[c] + _VOWELS[v])
    number, last = divmod(number, 3)
    if last == 0:
        letters.append(_CONSONANTS[number % len(_CONSONANTS)])
    return _write("".join(letters), language)


def _write(word: str, language: str) -> str:
    glyphs = _SCRIPTS[LANGUAGES[language].script]
    return word.translate(str.maketrans(_VOWELS + _CONSONANTS, glyphs))
