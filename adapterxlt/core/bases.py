"""Which backbone an adapter is for: known ones by name and sizes, and the check of what it says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from adapterxlt.core.errors import RefusedError

#: Backbones that are known by name: type of model, layers, hidden size, vocabulary.
BASES: dict[str, tuple[str, int, int, int]] = {
    "xlm-roberta-base": ("xlm-roberta", 12, 768, 250002),
    "xlm-roberta-large": ("xlm-roberta", 24, 1024, 250002),
    "bert-base-multilingual-cased": ("bert", 12, 768, 119547),
}


def base_of(model_type: str, layers: int, hidden: int, vocabulary: int) -> str | None:
    """The known backbone of these sizes; another one trained on from it has them too."""
    wanted = (model_type, layers, hidden, vocabulary)
    return next((name for name, sizes in BASES.items() if sizes == wanted), None)


def check_base(
    made_for: Mapping[str, Any],
    *,
    names: frozenset[str],
    model_type: str,
    hidden: int,
    digests: Mapping[str, str] | None,
    vouched: str | None,
    where: str,
) -> None:
    """Refuse an adapter that was made for another backbone.

    Args:
        names: what this backbone is called, without organizations.
        digests: of this backbone.
        vouched: the name that the recipe says is this backbone's too.

    Raises:
        RefusedError: another type or hidden size, other digests (which an export of ours has), or
            another name.
    """
    for what, of, own in (
        ("for models of type", "model_type", model_type),
        ("for a hidden size of", "hidden_size", hidden),
    ):
        if made_for.get(of) not in (None, own):
            found = f"it is {what} {made_for[of]!r}, and the backbone has {own!r}"
            raise RefusedError(found, where=where)
    its = made_for.get("digests")
    if its is not None and digests is not None:
        if dict(its) != dict(digests):
            what = "it was trained on a backbone with other weights, tokenizer or configuration"
            raise RefusedError(what, where=where)
        return
    name = made_for.get("model_name")
    if name is None or name == vouched or short_name(name) in names:
        return
    what = f"it was made for {name!r}, and the backbone is {', '.join(sorted(names))}"
    raise RefusedError(what, where=where, hint=f"if that is the same, say base: {name}")


def short_name(name: str) -> str:
    """A model's name in lower case, without the folders or the organization it is in."""
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1].lower()
