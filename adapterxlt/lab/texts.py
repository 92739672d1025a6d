"""Running text of each language, and sentences said in two languages.

Text is what a language model or a language adapter is trained on; it carries no labels. Never used
by the tasks; called by the pretraining and by whoever trains language adapters.
"""

from __future__ import annotations

import functools

from adapterxlt.lab.draw import chance, generator, pick
from adapterxlt.lab.grammar import sentence, word
from adapterxlt.lab.languages import LANGUAGES, SOURCE
from adapterxlt.lab.meanings import LABELS, draw_meaning, draw_pair

# Written between the two sentences of a line that has two.
STOP = "."

_LINKS = dict(zip(LABELS, ("link.thus", "link.also", "link.no"), strict=True))


@functools.cache
def text(language: str) -> tuple[str, ...]:
    """Monolingual lines, `LANGUAGES[language].text_lines` of them; KeyError for an unknown code.

    One line in three is one sentence. The others are two sentences about one event, the second
    opened by a connective that says how it relates to the first (it follows, it adds, it denies),
    as connectives do in running text; meanings differ between languages.
    """
    return tuple(_line(language, index) for index in range(LANGUAGES[language].text_lines))


def parallel(language: str, n: int) -> tuple[tuple[str, str], ...]:
    """The first `n` pairs (source sentence, sentence of `language`), one meaning each.

    Used in pretraining alone. KeyError for an unknown language, ValueError for a negative `n`.
    """
    if n < 0:
        raise ValueError(f"parallel: n is {n}; give 0 or more")
    LANGUAGES[language]
    pairs = []
    for index in range(n):
        meaning = draw_meaning(generator("parallel", language, index))
        pairs.append((sentence(meaning, SOURCE), sentence(meaning, language)))
    return tuple(pairs)


def _line(language: str, index: int) -> str:
    rng = generator("text", language, index)
    if chance(rng, 1 / 3):
        return sentence(draw_meaning(rng), language)
    label = pick(rng, LABELS)
    first, second = draw_pair(rng, label)
    link = word(_LINKS[label], language)
    return f"{sentence(first, language)} {STOP} {link} {sentence(second, language)}"
