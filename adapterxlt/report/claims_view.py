"""Verdicts as the page and the command line show them: words, numbers, and links to their runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adapterxlt.report.claim_words import answer, cautions, sentence
from adapterxlt.report.claims import Finding, Verdict
from adapterxlt.report.comparisons import p_text

#: Links to single evaluations beside a claim; more are counted.
LINKS = 12


def claims_view(
    verdicts: Sequence[Verdict], anchors: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """A mapping a claim, of text, numbers, and places on the page of the evaluations behind it."""
    return [
        {
            "name": verdict.claim.name,
            "claim": verdict.claim.claim,
            "source": verdict.claim.source,
            "asks": verdict.claim.asks,
            "outcome": verdict.outcome,
            "answer": answer(verdict),
            "sentence": sentence(verdict),
            "findings": [_finding(one, anchors or {}) for one in verdict.findings],
        }
        for verdict in verdicts
    ]


def claims_text(shown: Sequence[Mapping[str, Any]], *, lab: bool = False) -> str:
    """A view as plain text: a block a claim, ending in a newline."""
    if not shown:
        return "No claim can be measured on the regimes of this study.\n"
    out = ["What follows is about the laboratory, not about any real language.", ""] if lab else []
    for claim in shown:
        out.append(
            claim["claim"] if claim["asks"] else f"{claim['claim']} {claim['outcome'].upper()}"
        )
        for one in claim["findings"]:
            where = f" ({one['about']})" if one["about"] != "all" else ""
            shots = f", shots {one['shots']}" if one["shots"] else ""
            p = f", p by Holm {one['corrected_text']}" if one["corrected"] is not None else ""
            out.append(f"  {one['what']}{where}: {one['measured']}, {one['outcome']}")
            if one["value"] is not None:
                out.append(f"    at least {one['least']} would matter; {one['n']}{shots}{p}")
            out += [f"    {caution}" for caution in one["cautions"]]
        out.append("")
    return "\n".join(out)


def _finding(one: Finding, anchors: Mapping[str, str]) -> dict[str, Any]:
    part, effect = one.part, one.effect
    links = [anchors[key] for key in one.keys if key in anchors]
    shots = ", ".join(str(number) for number in one.shots if number)
    return {
        "what": _what(one),
        "about": one.about or "all",
        "shots": shots,
        "measured": one.measured,
        "value": None if effect is None else effect.value,
        "low": None if effect is None else effect.low,
        "high": None if effect is None else effect.high,
        "p": None if effect is None else effect.p,
        "corrected": one.corrected,
        "corrected_text": p_text(one.corrected),
        "least": f"{part.least:g} {one.unit}",
        "direction": part.direction,
        "over": "" if effect is None else effect.over,
        "n": one.n,
        "outcome": one.outcome,
        "detectable": one.shown(one.detectable).lstrip("+"),
        "enough": one.enough,
        "cautions": cautions(one),
        "languages": [] if effect is None else _languages(one),
        "evaluations": len(one.keys),
        "keys": list(one.keys),
        "links": links[:LINKS],
    }


def _what(one: Finding) -> str:
    """What is measured, in a few words."""
    part = one.part
    return {
        "difference": f"{one.regime} − {one.than}",
        "instability": f"spread of {one.regime} / of {one.than}",
        "below": f"runs of {one.regime} below {one.than}",
        "language-spread": f"spread of {one.regime} over languages",
        "between-classes": f"{one.regime}: {_joined(part.more)} − {_joined(part.fewer)}",
        "per-distance": f"{one.regime}, a step of distance",
    }[part.measure]


def _joined(names: tuple[str, ...] | None) -> str:
    return "/".join(names or ())


def _languages(one: Finding) -> list[tuple[str, str]]:
    """The effect in each language, or its score where languages are what is compared."""
    assert one.effect is not None
    of_scores = one.part.measure in ("language-spread", "between-classes", "per-distance")
    return [
        (name, f"{100 * value:.1f}" if of_scores else one.shown(value))
        for name, value in one.effect.by_language
    ]
