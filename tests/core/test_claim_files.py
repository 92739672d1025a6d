"""Claims in recipes: names, files and written out; each fault with its line and what was meant."""

import pytest

from adapterxlt import lab
from adapterxlt.core import languages
from adapterxlt.core.claims import builtin_claims
from adapterxlt.core.errors import RecipeError, UsageError
from adapterxlt.core.loading import load_recipe, parse_recipe, read_claim
from adapterxlt.core.regimes import builtin_regimes

RECIPE = """\
name: with-claims
source: en
targets: [fi, sw]
tasks: [udpos]
regimes: [zero-shot, sequential, joint]
shots: [10]
"""
CLAIM = """\
name: mine
claim: Mine.
parts:
  - {regime: joint, than: sequential, least: 1}
"""


def test_left_out_all_that_apply_are_asked():
    names = [claim.name for claim in parse_recipe(RECIPE, "r.yaml").recipe.claim_list]
    assert "joint-beats-sequential" in names and "few-shots-help" in names
    assert "multi-stage-adds" not in names and "intermediate-or-multitask" not in names


def test_names_files_and_claims_in_the_recipe(tmp_path):
    (tmp_path / "mine.yaml").write_text(CLAIM)
    path = tmp_path / "r.yaml"
    inline = (
        "  - {name: inline, claim: Inline., parts: [{measure: language-spread, regime: zero-shot}]}"
    )
    path.write_text(f"{RECIPE}claims:\n  - multi-stage-adds\n  - mine.yaml\n{inline}\n")
    recipe = load_recipe(path).recipe
    assert [claim.name for claim in recipe.claim_list] == ["multi-stage-adds", "mine", "inline"]
    again = parse_recipe(load_recipe(path).resolved_text(), str(path)).recipe
    assert again == recipe


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("claims: [joint-beat-sequential]", "r.yaml:7: unknown claim 'joint-beat-sequential'; did"),
        (
            "claims:\n  - name: x\n    claim: X.\n    parts: [{regime: jiont, than: sequential}]",
            "r.yaml:10: claim 'x': unknown regime 'jiont'; did you mean 'joint'?",
        ),
        (
            "claims:\n  - name: x\n    claim: X.\n    parts: [{regime: joint, then: sequential}]",
            "did you mean 'than'?",
        ),
        ("claims: [nowhere.yaml]", "r.yaml:7: claim file 'nowhere.yaml' cannot be read"),
    ],
)
def test_faults_have_lines(text, said):
    with pytest.raises(RecipeError) as caught:
        parse_recipe(f"{RECIPE}{text}\n", "r.yaml")
    assert said in str(caught.value)


def test_a_claim_by_itself(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(CLAIM)
    assert read_claim(str(path)).name == "mine"
    assert read_claim("few-shots-help") == builtin_claims()["few-shots-help"]
    with pytest.raises(UsageError, match="did you mean 'few-shots-help'"):
        read_claim("few-shot-help")
    path.write_text(CLAIM.replace("least: 1", "leest: 1"))
    with pytest.raises(RecipeError, match=r"mine.yaml:4: unknown field 'parts.0.leest'.*'least'"):
        read_claim(str(path))


def test_shipped_claims_name_regimes_that_there_are():
    for claim in builtin_claims().values():
        for part in claim.parts:
            assert set(part.regime) | set(part.than or ()) <= set(builtin_regimes())


def test_claims_enter_no_key():
    plain = parse_recipe(RECIPE, "r.yaml").recipe
    asked = parse_recipe(RECIPE + "claims: [few-shots-help]\n", "r.yaml").recipe
    assert plain.model_copy(update={"claims": asked.claims}) == asked


def test_distances_are_steps():
    # Another script for Hindi and Chinese; another family for Finnish and Chinese.
    found = {code: languages.distance("en", code) for code in ("de", "fr", "hi", "fi", "zh")}
    assert found == {"de": 0, "fr": 1, "hi": 2, "fi": 2, "zh": 3}
    recipe = parse_recipe(RECIPE, "r.yaml").recipe
    assert (recipe.distance_of("fi"), recipe.distance_of("lab-near-low")) == (2, None)
    assert [
        lab.steps(code, lab.SOURCE) for code in (lab.SOURCE, "lab-near-low", "lab-far-none")
    ] == [0, 1, 3]
