"""Verdicts where the truth is planted: supported, refuted, undecided, and what cannot be told."""

import math

import numpy as np
import pytest

from adapterxlt.core.claims import Claim, builtin_claims
from adapterxlt.report.claim_words import cautions, sentence
from adapterxlt.report.claims import judge_all
from adapterxlt.report.claims_view import claims_text, claims_view


def one_row(**columns):
    """The columns of a row that a verdict is a function of."""
    row = {"task": "tagging", "metric": "accuracy", "primary": True, "role": "target"}
    row |= {"resource_class": "high", "distance": 1, "shots": 10, "draw": None, "seed": 1}
    row |= columns
    names = ("task", "metric", "regime", "target", "shots", "draw", "seed")
    return row | {"evaluate_key": repr([row[name] for name in names])}


LANGUAGES = {f"l{i}": ("high", "mid", "low")[i % 3] for i in range(9)}


def study(
    effects,
    *,
    languages=LANGUAGES,
    draws=(1, 2, 3),
    seeds=(1, 2),
    noise=0.01,
    at=1,
    tasks=("tagging",),
):
    """Rows of regimes with these effects: a number, or (mean, sd over languages, sd over runs)."""
    generator = np.random.default_rng(at)
    level = {language: 0.3 + 0.04 * i for i, language in enumerate(languages)}
    rows = []
    for task in tasks:
        for regime, effect in effects.items():
            mean, between, within = effect if isinstance(effect, tuple) else (effect, 0.0, noise)
            for i, (language, name) in enumerate(languages.items()):
                own = mean + between * generator.standard_normal()
                for draw in [None] if regime == "zero-shot" else draws:
                    for seed in seeds:
                        rows.append(
                            one_row(
                                task=task,
                                regime=regime,
                                target=language,
                                resource_class=name,
                                distance=i % 4,
                                shots=0 if regime == "zero-shot" else 10,
                                draw=draw,
                                seed=seed,
                                score=level[language] + own + within * generator.standard_normal(),
                            )
                        )
    return rows


def claim(**part):
    return Claim.model_validate({"name": "planted", "claim": "Planted.", "parts": [part]})


def judged(rows, **part):
    (verdict,) = judge_all([claim(**part)], rows)
    return verdict


BEATS = {"regime": "joint", "than": "sequential", "least": 0.5}


def test_a_planted_difference_is_supported():
    verdict = judged(study({"joint": 0.03, "sequential": 0.0}), **BEATS)
    (found,) = verdict.findings
    assert verdict.outcome == "supported"
    assert found.effect.low < 0.03 < found.effect.high
    assert found.effect.shape == (9, 3, 2) and found.shots == (10,)
    assert len(found.keys) == 2 * 9 * 3 * 2
    assert "joint over sequential: +" in sentence(verdict) and "(supported)" in sentence(verdict)


def test_a_planted_difference_the_other_way_is_refuted():
    assert judged(study({"joint": -0.03, "sequential": 0.0}), **BEATS).outcome == "refuted"


def test_a_difference_too_small_to_matter_is_refuted():
    rows = study({"joint": 0.002, "sequential": 0.0}, noise=0.001)
    verdict = judged(rows, **{**BEATS, "least": 1.5})
    assert verdict.findings[0].effect.low > 0
    assert verdict.outcome == "refuted"


def test_noise_is_undecided_and_says_how_much_more_would_decide():
    verdict = judged(study({"joint": (0.01, 0.06, 0.01), "sequential": 0.0}, at=5), **BEATS)
    (found,) = verdict.findings
    assert verdict.outcome == "undecided"
    assert found.enough > 9
    assert any(f"About {found.enough} languages" in text for text in cautions(found))
    assert any("four of five" in text for text in cautions(found))


def test_planted_verdicts_are_right_nearly_always():
    truths = {"supported": 0.03, "refuted": -0.02}
    for expected, mean in truths.items():
        found = [
            judged(study({"joint": (mean, 0.01, 0.01), "sequential": 0.0}, at=at), **BEATS).outcome
            for at in range(60)
        ]
        assert found.count(expected) >= 57
    # Of no effect at all: almost never supported, often refuted or left open.
    found = [
        judged(study({"joint": (0.0, 0.01, 0.01), "sequential": 0.0}, at=at), **BEATS).outcome
        for at in range(200)
    ]
    assert found.count("supported") <= 11


@pytest.mark.parametrize(
    ("mean", "expected"), [(0.03, "ahead"), (-0.03, "behind"), (0.001, "equal")]
)
def test_questions_have_answers(mean, expected):
    rows = study({"joint": mean, "sequential": 0.0}, noise=0.006)
    verdict = judged(rows, **{**BEATS, "direction": "either", "least": 1})
    assert [found.outcome for found in verdict.findings] == [expected]
    assert (verdict.claim.asks, verdict.outcome) == (True, "measured")


def test_classes_are_told_apart():
    low = {language: name for language, name in LANGUAGES.items() if name == "low"}
    rest = {language: name for language, name in LANGUAGES.items() if name != "low"}
    rows = study({"joint": 0.05, "sequential": 0.0}, languages=low)
    rows += study({"joint": 0.0, "sequential": 0.0}, languages=rest, noise=0.004)
    verdict = judged(rows, **BEATS, each="class")
    outcomes = {found.about: found.outcome for found in verdict.findings}
    assert outcomes["low-resource languages"] == "supported"
    assert outcomes["high-resource languages"] == "refuted"
    assert verdict.findings[0].about == "" and len(verdict.findings) == 4


def test_instability_and_runs_below():
    rows = study({"sequential": (0.02, 0.0, 0.04), "zero-shot": (0.0, 0.0, 0.01)}, seeds=(1, 2, 3))
    spread = judged(rows, measure="instability", regime="sequential", than="zero-shot", least=1.25)
    below = judged(rows, measure="below", regime="sequential", than="zero-shot", least=5)
    assert spread.outcome == below.outcome == "supported"
    assert spread.findings[0].effect.low < math.log(4) < spread.findings[0].effect.high
    # Normal scores: Phi(-0.02 / sqrt(0.04^2 + 0.01^2)).
    assert below.findings[0].effect.value == pytest.approx(0.314, abs=0.08)
    less = judged(rows, measure="instability", regime="zero-shot", than="sequential",
                  direction="lower", least=1.25)  # fmt: skip
    assert less.outcome == "supported"


def test_one_regime_over_languages_classes_and_distance():
    rows = study({"zero-shot": 0.0}, noise=0.002)
    for row in rows:
        row["score"] = 0.8 - 0.1 * row["distance"] + 0.001 * int(row["target"][1:])
        row["resource_class"] = ("high", "high", "low", "low")[row["distance"]]
    varies = judged(rows, measure="language-spread", regime="zero-shot", least=5)
    far = judged(rows, measure="per-distance", regime="zero-shot", direction="lower", least=1)
    poor = judged(
        rows,
        measure="between-classes",
        regime="zero-shot",
        more="high",
        fewer=["low", "unseen"],
        least=2,
    )
    assert varies.outcome == far.outcome == poor.outcome == "supported"
    assert far.findings[0].effect.value == pytest.approx(-0.1, abs=0.005)
    assert "step" in far.findings[0].measured


def test_all_parts_have_to_hold():
    rows = study({"joint": 0.03, "sequential": 0.0, "multi-stage": -0.03})
    two = Claim.model_validate(
        {"name": "two", "claim": "Two.", "parts": [BEATS, {**BEATS, "regime": "multi-stage"}]}
    )
    (verdict,) = judge_all([two], rows)
    assert [found.outcome for found in verdict.findings] == ["supported", "refuted"]
    assert verdict.outcome == "refuted"


def test_the_same_comparison_in_two_claims_is_corrected_once():
    rows = study({"joint": (0.02, 0.02, 0.01), "sequential": 0.0, "zero-shot": -0.1})
    alone = judged(rows, **BEATS).findings[0]
    twice = judge_all([claim(**BEATS), claim(**{**BEATS, "least": 1})], rows)
    assert {f.corrected for v in twice for f in v.findings} == {alone.effect.p}
    three = judge_all([claim(**BEATS), claim(regime="joint", than="zero-shot")], rows)
    assert max(f.corrected for v in three for f in v.findings) == pytest.approx(
        max(alone.effect.p, 2 * min(f.effect.p for v in three for f in v.findings))
    )


def test_several_tasks_weigh_the_same_in_each_language():
    rows = study({"joint": 0.02, "sequential": 0.0}, tasks=("tagging",), noise=0.0)
    rows += study({"joint": 0.06, "sequential": 0.0}, tasks=("topics",), noise=0.0)
    (found,) = judged(rows, **BEATS).findings
    assert found.effect.value == pytest.approx(0.04)
    assert found.effect.shape == (9, 3, 2)
    assert len(judged(rows, **BEATS, each="task").findings) == 3


def test_the_source_and_other_metrics_are_left_out():
    rows = study({"joint": 0.03, "sequential": 0.0})
    more = [
        one_row(regime="joint", target="en", role="source", score=1.0),
        one_row(regime="joint", target="l0", metric="f1", primary=False, draw=1, seed=1, score=9.0),
    ]
    assert judged(rows, **BEATS) == judged([*rows, *more], **BEATS)


def test_upper_bounds_are_marked():
    rows = study({"joint": 0.03, "sequential": 0.0})
    for row in rows:
        row["upper_bound"] = row["regime"] == "joint"
    assert "joint (upper bound) over sequential" in sentence(judged(rows, **BEATS))


def test_what_cannot_be_measured_is_said():
    rows = study({"joint": 0.03})
    verdict = judged(rows, **BEATS)
    assert verdict.outcome == "not measured"
    assert sentence(verdict) == "Not measured: there are no scores of sequential."
    rows = study(
        {"joint": 0.03, "sequential": 0.0}, languages={"l0": "high"}, draws=(1,), seeds=(1,)
    )
    (found,) = judged(rows, **BEATS).findings
    assert (found.outcome, found.effect.known) == ("undecided", False)
    assert "[" not in found.measured
    assert any("no interval" in text for text in cautions(found))


def test_one_seed_one_language_and_lacking_runs_are_said():
    rows = study({"joint": 0.03, "sequential": 0.0}, seeds=(1,))
    assert any("One training seed" in text for text in cautions(judged(rows, **BEATS).findings[0]))
    rows = study({"joint": 0.03, "sequential": 0.0}, languages={"l0": "high"})
    assert any("One language" in text for text in cautions(judged(rows, **BEATS).findings[0]))
    rows = study({"joint": 0.03, "sequential": 0.0})
    rows[0]["score"] = math.nan
    (found,) = judged(rows, **BEATS).findings
    assert found.effect.left_out == 5
    assert any("left out" in text for text in cautions(found))
    assert math.isfinite(found.effect.value)


def test_shipped_claims_are_read_and_shown():
    claims = list(builtin_claims().values())
    assert claims[0].name == "intermediate-or-multitask"
    assert len(claims) == 8
    rows = study({"joint": 0.03, "sequential": 0.02, "zero-shot": 0.0})
    shown = claims_view(judge_all(claims, rows))
    text = claims_text(shown, lab=True)
    assert "laboratory" in text.splitlines()[0]
    assert "A few examples of the target language improve on zero-shot transfer. SUPPORTED" in text
    assert "multi-stage − joint: –, not measured" in text
    by_name = {one["name"]: one for one in shown}
    assert by_name["few-shots-help"]["findings"][0]["keys"]


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        ({"regime": "joint"}, "needs 'than'"),
        ({"regime": "joint", "than": "sequential", "more": "high"}, "has no 'more'"),
        ({"measure": "between-classes", "regime": "zero-shot"}, "needs 'more'"),
        ({"measure": "instability", "regime": "a", "than": "b", "least": 0.5}, "at least 1"),
    ],
)
def test_claims_that_say_too_little_are_refused(part, fault):
    with pytest.raises(ValueError, match=fault):
        claim(**part)
