"""Shortcuts are off unless asked for, and are in the keys of what they shape and of what is made
from that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from adapterxlt.core.loading import parse_recipe
from adapterxlt.core.plan import Plan
from adapterxlt.core.specs import Shortcuts

Planned = Callable[..., Any]
SOFTMAX, QUIET = "shortcuts={corpus_softmax: true}", "shortcuts={frozen_dropout_off: true}"


def is_text(plan: Plan, key: str) -> bool:
    stage = plan.stages[key]
    return stage.kind == "train" and stage.params["objective"] == "mlm"


def above(plan: Plan, keys: set[str]) -> set[str]:
    """These and all that is made from them."""
    found = set(keys)
    while True:
        more = {k for k, stage in plan.stages.items() if found & set(stage.inputs.values())}
        if more <= found:
            return found
        found |= more


def trainings(plan: Plan, text: bool) -> set[str]:
    trained = {key for key, stage in plan.stages.items() if stage.kind == "train"}
    return {key for key in trained if is_text(plan, key) is text}


@pytest.mark.parametrize(
    "override",
    [
        "shortcuts={}",
        "shortcuts={corpus_softmax: false}",
        "shortcuts={corpus_softmax: false, frozen_dropout_off: false}",
    ],
)
def test_what_is_off_is_in_no_key(planned: Planned, six: str, override: str) -> None:
    _, plan = planned(six)
    _, other = planned(six, override)
    assert list(other.stages) == list(plan.stages) and other.cells == plan.cells
    assert not any(stage.params.get("shortcuts") for stage in plan.stages.values())


def test_the_softmax_changes_language_adapters_and_what_wears_them(
    planned: Planned, six: str
) -> None:
    # Some cells wear no language adapter.
    text = six + "language_adapters: {}\n"
    extra = (
        "regimes+={name: bare, phases: [{name: first, languages: [source], wear: none}]}",
        "regimes+={name: worn, phases: [{name: first, languages: [source], wear: source}]}",
    )
    _, plan = planned(text, *extra)
    _, other = planned(text, *extra, SOFTMAX)
    shaped = above(plan, trainings(plan, text=True))
    kept = plan.stages.keys() - shaped
    assert plan.stages.keys() & other.stages.keys() == kept
    assert {plan.stages[key].kind for key in kept} == {"train", "evaluate"}
    assert len(other.stages) == len(plan.stages)
    for cell, key in plan.cells.items():
        assert (key == other.cells[cell]) is (cell.regime == "bare")
    for key in trainings(other, text=True):
        assert other.stages[key].params["shortcuts"] == {"corpus_softmax": True}
    for key in trainings(other, text=False):
        assert other.stages[key].params["shortcuts"] is None


def test_dropout_changes_other_trainings_and_what_is_made_from_them(
    planned: Planned, six: str
) -> None:
    _, plan = planned(six)
    _, other = planned(six, QUIET)
    shaped = above(plan, trainings(plan, text=False))
    kept = plan.stages.keys() & other.stages.keys()
    assert kept == plan.stages.keys() - shaped == trainings(plan, text=True)
    assert len(kept) == 3 and len(other.stages) == len(plan.stages)
    assert not set(plan.cells.values()) & set(other.cells.values())
    for key in trainings(other, text=False):
        assert other.stages[key].params["shortcuts"] == {"frozen_dropout_off": True}


def test_both_change_what_either_does(planned: Planned, six: str) -> None:
    plans = [
        planned(six, *more)[1]
        for more in (
            (),
            (SOFTMAX,),
            (QUIET,),
            ("shortcuts={corpus_softmax: true, frozen_dropout_off: true}",),
        )
    ]
    keys = [set(plan.cells.values()) for plan in plans]
    assert len(set.union(*keys)) == sum(map(len, keys))
    plain, softmax, quiet, both = (trainings(plan, text=True) for plan in plans)
    assert both == softmax != plain == quiet


def test_an_adopted_language_adapter_is_what_it_is(planned: Planned, six: str) -> None:
    """Without any training of text the softmax changes nothing."""
    _, plan = planned(six, "language_adapters=null")
    _, other = planned(six, "language_adapters=null", SOFTMAX)
    assert other.cells == plan.cells


@pytest.mark.parametrize("bad", ["shortcuts={corpus: true}", "shortcuts={corpus_softmax: 1}"])
def test_no_other_shortcuts(six: str, bad: str) -> None:
    with pytest.raises(Exception, match="shortcuts"):
        parse_recipe(six, "recipe.yaml", [bad])


def test_those_that_are_on_are_said_in_words() -> None:
    assert Shortcuts().said() == [] and Shortcuts().of("corpus_softmax") is None
    one = Shortcuts(frozen_dropout_off=True)
    assert one.of("corpus_softmax") is None
    assert one.of("corpus_softmax", "frozen_dropout_off") == {"frozen_dropout_off": True}
    (said,) = one.said()
    assert said.startswith("No dropout below")
