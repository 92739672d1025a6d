"""The lab's languages: one source and eight targets on two graded axes, distance and resource.

Owns the table and nothing that is generated from it; read by the lexicon, the grammar, and by
whoever lists languages.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

SOURCE = "lab-root"


@dataclass(frozen=True)
class LabLanguage:
    """One language of the lab.

    `distance` is source, near, mid or far; `resource` is high, mid, low or unseen (the backbone saw
    no text of it); `order` is the order of subject, verb and object; `script` names the letters;
    `cognates` is the share of lexemes inherited from the source language (1.0 for itself);
    `text_lines` is the number of monolingual lines.
    """

    code: str
    distance: str
    resource: str
    order: str
    script: str
    cognates: float
    text_lines: int


_TABLE = (
    LabLanguage(SOURCE, "source", "high", "SVO", "latin", 1.0, 3000),
    LabLanguage("lab-near-high", "near", "high", "SVO", "latin", 0.70, 3000),
    LabLanguage("lab-near-low", "near", "low", "SVO", "latin", 0.70, 300),
    LabLanguage("lab-mid-high", "mid", "high", "SOV", "latin", 0.30, 3000),
    LabLanguage("lab-mid-mid", "mid", "mid", "VSO", "latin", 0.30, 1000),
    LabLanguage("lab-mid-low", "mid", "low", "SOV", "latin", 0.30, 300),
    LabLanguage("lab-far-mid", "far", "mid", "SOV", "greek", 0.05, 1000),
    LabLanguage("lab-far-low", "far", "low", "VOS", "cyrillic", 0.05, 300),
    LabLanguage("lab-far-none", "far", "unseen", "VSO", "greek", 0.05, 300),
)

LANGUAGES: MappingProxyType[str, LabLanguage] = MappingProxyType({row.code: row for row in _TABLE})


def steps(code: str, source: str) -> int | None:
    """Steps of distance, 0 to 3; None from another source than the lab's. KeyError as `number`."""
    if source != SOURCE:
        return None
    return ("source", "near", "mid", "far").index(LANGUAGES[code].distance)


def number(code: str) -> int:
    """Place of a language in the table, 0 for the source; KeyError for an unknown code."""
    return [row.code for row in _TABLE].index(LANGUAGES[code].code)
