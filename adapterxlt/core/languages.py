"""The table of languages: codes, script, family and how much text the field has for each.

It owns ``languages.tsv`` (whose header names the source of every column) and the three rules that
turn it into resource classes; it never guesses a missing value, never touches the network and
knows nothing of the laboratory's own ``lab-`` languages. Recipes, regimes, data readers, the
command line and the report call it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

SCHEMES: tuple[str, ...] = ("joshi", "cc100", "wikipedia")
"""Names that `resource_class` takes as ``scheme``."""

_COLUMNS = (
    *("code", "iso639_3", "name", "script", "family", "joshi", "cc100_gib"),
    *("wikipedia_articles", "aliases"),
)


@dataclass(frozen=True, slots=True)
class Language:
    """One row of the table.

    Attributes:
        code: the code used in practice, ISO 639-1 where there is one, else 639-3 (or, for
            nah, oto and ber, the group code of the data sets).
        iso639_3: ISO 639-3 code; empty for the three group codes.
        name: English name.
        script: ISO 15924 code of the usual script in the data.
        family: top-level family, with a branch after a colon for the large ones.
        joshi: class 0 to 5 of Joshi et al. 2020 (acl-main.560), or None when not known.
        cc100_gib: GiB of text in XLM-R's training corpus (Conneau et al. 2020, table 6);
            0 when the language is not in it, None when not known.
        wikipedia_articles: articles of the Wikipedia in the language in 2026, or None when not
            known; articles that bots wrote count like others.
        aliases: further codes of the same language.
    """

    code: str
    iso639_3: str
    name: str
    script: str
    family: str
    joshi: int | None
    cc100_gib: float | None
    wikipedia_articles: int | None
    aliases: tuple[str, ...]


class UnknownLanguage(KeyError):
    """A code that is no code, ISO 639-3 code or alias of the table.

    Attributes:
        code: what was asked for.
        suggestions: codes that may have been meant, the likeliest first; can be empty.
    """

    def __init__(self, code: str, suggestions: tuple[str, ...] = ()) -> None:
        super().__init__(code, suggestions)
        self.code = code
        self.suggestions = suggestions

    def __str__(self) -> str:
        # KeyError shows the repr of its arguments, which is no sentence.
        text = f"unknown language {self.code!r}"
        if self.suggestions:
            text += "; did you mean " + " or ".join(self.suggestions) + "?"
        return text


def get(code: str) -> Language:
    """The language of a code, an ISO 639-3 code or an alias (exact, lower case).

    Raises:
        UnknownLanguage: nothing in the table has that code.
    """
    language = _index().get(code)
    if language is None:
        raise UnknownLanguage(code, _suggest(code))
    return language


def canonical(code: str) -> str:
    """The table's own code for a code, an ISO 639-3 code or an alias.

    Raises:
        UnknownLanguage: nothing in the table has that code.
    """
    return get(code).code


@lru_cache(maxsize=1)
def all_languages() -> tuple[Language, ...]:
    """Every language of the table, ordered by code."""
    # Imported here: the machinery behind package resources costs more than the whole table.
    from importlib.resources import files

    text = files(__package__).joinpath("languages.tsv").read_text(encoding="utf-8")
    header, *rows = [line for line in text.splitlines() if line and not line.startswith("#")]
    if tuple(header.split("\t")) != _COLUMNS:
        raise ValueError(f"languages.tsv: columns are {header!r}, expected {_COLUMNS}")
    return tuple(_read(row) for row in rows)


def resource_class(code: str, scheme: str = "joshi") -> str:
    """How well resourced a language is.

    Args:
        code: a code, an ISO 639-3 code or an alias.
        scheme: ``joshi``: classes 4-5 are ``high``, 3 ``mid``, 0-2 ``low``. ``cc100``: from
            20 GiB ``high``, from 1 GiB ``mid``, less ``low``, nothing at all ``unseen``.
            ``wikipedia``: from 1,000,000 articles ``high``, from 100,000 ``mid``, less ``low``.

    Returns:
        ``high``, ``mid``, ``low``, ``unseen`` or, when the table has no value, ``unknown``.

    Raises:
        UnknownLanguage: nothing in the table has that code.
        ValueError: the scheme is not one of `SCHEMES`.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"unknown scheme {scheme!r}; use one of {', '.join(SCHEMES)}")
    language = get(code)
    if scheme == "joshi":
        return _joshi_group(language.joshi)
    if scheme == "cc100":
        return _cc100_group(language.cc100_gib)
    return _wikipedia_group(language.wikipedia_articles)


def distance(code: str, other: str) -> int:
    """How far apart two languages are, by rule: one step for another branch of a family, two for
    another family, one more for another script. 0 to 3.

    Raises:
        UnknownLanguage: nothing in the table has that code.
    """
    one, two = get(code), get(other)
    families = [language.family.partition(":")[0] for language in (one, two)]
    steps = 2 if families[0] != families[1] else int(one.family != two.family)
    return steps + int(one.script != two.script)


def _joshi_group(joshi: int | None) -> str:
    if joshi is None:
        return "unknown"
    return "high" if joshi >= 4 else "mid" if joshi == 3 else "low"


def _cc100_group(gib: float | None) -> str:
    if gib is None:
        return "unknown"
    if gib == 0:
        return "unseen"
    return "high" if gib >= 20 else "mid" if gib >= 1 else "low"


def _wikipedia_group(articles: int | None) -> str:
    if articles is None:
        return "unknown"
    return "high" if articles >= 1_000_000 else "mid" if articles >= 100_000 else "low"


def _read(row: str) -> Language:
    cells = row.split("\t")
    if len(cells) != len(_COLUMNS):
        raise ValueError(f"languages.tsv: {len(cells)} cells instead of {len(_COLUMNS)}: {row!r}")
    code, iso639_3, name, script, family, joshi, gib, articles, aliases = cells
    return Language(
        code=code,
        iso639_3=iso639_3,
        name=name,
        script=script,
        family=family,
        joshi=int(joshi) if joshi else None,
        cc100_gib=float(gib) if gib else None,
        wikipedia_articles=int(articles) if articles else None,
        aliases=tuple(aliases.split(",")) if aliases else (),
    )


@lru_cache(maxsize=1)
def _index() -> dict[str, Language]:
    index: dict[str, Language] = {}
    for language in all_languages():
        for key in (language.code, language.iso639_3, *language.aliases):
            if key and index.setdefault(key, language) is not language:
                raise ValueError(f"languages.tsv: {key!r} stands for two languages")
    return index


@lru_cache(maxsize=1)
def _terms() -> dict[str, list[str]]:
    """Lower-case names, whole ones before single words, to the codes they may mean."""
    terms: dict[str, list[str]] = {}
    for language in all_languages():
        terms.setdefault(language.name.lower(), []).append(language.code)
    for language in all_languages():
        for word in language.name.lower().replace("(", " ").replace(")", " ").split():
            codes = terms.setdefault(word, [])
            if language.code not in codes:
                codes.append(language.code)
    return terms


def _suggest(code: str, limit: int = 3) -> tuple[str, ...]:
    from difflib import get_close_matches

    index, terms = _index(), _terms()
    asked = code.strip().lower()
    # A region or script after the code (pt-BR, zho_Hans) or upper case is the likeliest slip.
    found = [key for key in (asked, asked.replace("_", "-").partition("-")[0]) if key in index]
    codes = [index[key].code for key in found]
    if not codes:
        codes += terms.get(asked, [])
    if not codes and len(asked) > 3:
        for term in get_close_matches(asked, terms, n=limit, cutoff=0.7):
            codes += terms[term]
    if not codes and len(asked) <= 4:
        near = get_close_matches(asked, index, n=len(index), cutoff=0.5)
        # Many short codes are equally near; the first letter is seldom the wrong one.
        codes += [index[key].code for key in sorted(near, key=lambda key: key[0] != asked[0])]
    return tuple(dict.fromkeys(codes))[:limit]
