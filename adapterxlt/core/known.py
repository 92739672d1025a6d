"""The language adapters that are known to be on a hub, by backbone and language.

A table, never a rule: the names there follow none. `language_adapters: auto` picks from it.
"""

from __future__ import annotations

from functools import lru_cache

from adapterxlt.core.bases import BASES
from adapterxlt.core.errors import UsageError, did_you_mean


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[str, str]]:
    from importlib.resources import files

    text = files(__package__).joinpath("madx.tsv").read_text(encoding="utf-8")
    found: dict[str, dict[str, str]] = {base: {} for base in BASES}
    for line in [line for line in text.splitlines() if not line.startswith("#")][1:]:
        base, language, repository = line.split("\t")
        found[base][language] = repository
    return found


def known_adapters(base: str) -> dict[str, str]:
    """Repositories by language, for a backbone of `BASES` by name, with or without organization.

    Raises:
        UsageError: none is known for a backbone of this name.
    """
    name = base.rpartition("/")[2]
    if name not in _table():
        hint = did_you_mean(name, _table())
        raise UsageError(f"no language adapters are known for {base!r}", hint=hint)
    return dict(_table()[name])
