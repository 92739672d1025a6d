"""Claims in words: what was found of each, in a sentence, and what a reader must know beside it."""

from __future__ import annotations

import math

from adapterxlt.core.claims import OF_TWO
from adapterxlt.report.claims import ALPHA, SIZES, Finding, Verdict, either


def sentence(verdict: Verdict, *, outcomes: bool = True) -> str:
    """The answer in one sentence, with the outcome of each part behind it."""
    if verdict.outcome == "not measured":
        why = next(f.why for f in verdict.findings if f.outcome == "not measured")
        return f"Not measured: {why}."
    said = [f"{f.about + ': ' if f.about else ''}{words(f, outcomes)}" for f in verdict.findings]
    return f"{'; '.join(said)}."


def answer(verdict: Verdict) -> str:
    """What a page opens with: a question's answer, or a claim, its verdict and what was found."""
    if verdict.claim.asks:
        return sentence(verdict)
    several = len(verdict.findings) > 1
    said = sentence(verdict, outcomes=several)
    return f"{verdict.claim.claim.rstrip('.')}: {verdict.outcome}. {said}"


def words(finding: Finding, outcome: bool = True) -> str:
    """What was found of a part, as half a sentence."""
    effect, part = finding.effect, finding.part
    if effect is None:
        return f"not measured, {finding.why}"
    interval = ""
    if effect.known:
        interval = f" [{finding.shown(effect.low)}, {finding.shown(effect.high)}]"
    number = f"{finding.shown(effect.value)}{interval}"
    regime, than = finding.regime, finding.than
    if part.measure == "difference":
        head = {
            "ahead": f"{regime} is ahead of {than}",
            "behind": f"{regime} is behind {than}",
            "equal": f"{regime} and {than} are equal within {part.least:g} points",
        }.get(finding.outcome, f"{regime} over {than}")
        text = f"{head}: {number} points"
    elif part.measure == "instability":
        text = f"{regime} spreads {number} times as far over runs as {than}"
    elif part.measure == "below":
        text = f"{number} % of the runs of {regime} are below {than}"
    elif part.measure == "language-spread":
        text = f"{regime} spreads {number} points over languages"
    elif part.measure == "between-classes":
        text = f"{regime} in {either(part.more)} over {either(part.fewer)}: {number} points"
    else:
        text = f"{regime} changes by {number} points a step of distance"
    told = finding.outcome in ("ahead", "behind", "equal") or not outcome
    return text if told else f"{text} ({finding.outcome})"


def cautions(finding: Finding) -> tuple[str, ...]:
    """What a reader must know beside a number, a sentence each."""
    effect, part = finding.effect, finding.part
    if effect is None:
        return (f"Not measured: {finding.why}.",)
    out = []
    languages, _, seeds = effect.shape
    if not effect.known:
        out.append("One value: no interval can be given, and nothing is decided.")
    elif effect.over == "runs" and part.over == "languages":
        out.append("One language: the interval is over its runs and tells nothing of others.")
    elif languages < 5 and effect.over == "languages":
        out.append(f"{languages} languages: the interval leans on normal differences among them.")
    if seeds == 1 and part.measure in OF_TWO:
        out.append("One training seed: the interval tells nothing of other seeds.")
    if effect.left_out:
        out.append(f"{effect.left_out} runs are left out, since others of their kind lack.")
    least = math.log(part.least) if part.measure == "instability" else part.least / 100
    found = finding.detectable
    open_yet = finding.outcome == "undecided" and part.measure not in SIZES
    if found is not None and open_yet and found > least > 0:
        reads = f"{math.exp(found):.2f}" if part.measure == "instability" else f"{100 * found:.1f}"
        out.append(
            f"This design finds {reads} {finding.unit} or more in four of five studies; "
            f"it would mostly miss the {part.least:g} that matter."
        )
    if finding.outcome == "undecided" and effect.known:
        what = "languages" if effect.over == "languages" else "seeds"
        if finding.corrected is not None and finding.corrected > ALPHA >= (effect.p or 0):
            out.append("By itself it would be decided; among so many measured it may be chance.")
        elif finding.enough is not None:
            out.append(
                f"About {finding.enough} {what} like these would decide; there are {effect.n}."
            )
        else:
            out.append(f"No reachable number of {what} would decide, were the effect as found.")
    return tuple(out)
