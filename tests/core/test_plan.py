"""Plans: order, what is needed, what stands in the way, and what a key is made of."""

from __future__ import annotations

import pickle
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterxlt.core import plan as plan_module
from adapterxlt.core.plan import Cell, Plan, Stage


def toy() -> tuple[Plan, dict[str, str]]:
    """``base`` under ``left`` and ``right``, scored twice; ``left`` has a second layer."""
    plan = Plan()
    keys: dict[str, str] = {}

    def add(name: str, kind: str, **inputs: str) -> None:
        params: dict[str, Any] = {"name": name}
        if kind == "train":
            params["streams"] = []
        keys[name] = plan.add(Stage(kind, params, {r: keys[k] for r, k in inputs.items()}), name)

    add("base", "pretrain")
    add("left", "train", backbone="base")
    add("right", "train", backbone="base")
    add("upper", "train", backbone="base", previous="left")
    add("score left", "evaluate", trained="upper", backbone="base")
    add("score right", "evaluate", trained="right", backbone="base")
    plan.cells[Cell("t", "l", "fi", 0, None, 1)] = keys["score left"]
    plan.cells[Cell("t", "r", "fi", 0, None, 1)] = keys["score right"]
    return plan, keys


def names(plan: Plan, keys: list[str]) -> list[str]:
    return [plan.labels[key] for key in keys]


def test_everything_is_needed_at_first_inputs_first() -> None:
    plan, _ = toy()
    assert names(plan, plan.needed(set())) == [
        *("base", "left", "right", "upper", "score left", "score right"),
    ]


def test_only_what_missing_scores_need_is_needed() -> None:
    plan, keys = toy()
    assert plan.needed({keys["score left"], keys["score right"]}) == []
    assert names(plan, plan.needed({keys["score left"]})) == ["base", "right", "score right"]
    # The upper layer is there, so what it was made from is not needed again.
    done = {keys["upper"], keys["base"], keys["score right"]}
    assert names(plan, plan.needed(done)) == ["score left"]


def test_states_and_their_reasons() -> None:
    plan, keys = toy()
    states = {plan.labels[k]: v for k, v in plan.states({keys["base"], keys["right"]}).items()}
    assert states["base"][0] == states["right"][0] == "cached"
    assert states["left"] == ("ready", "not in the store; inputs are there")
    assert states["upper"] == ("waiting", "needs left")
    assert states["score left"] == ("waiting", "needs upper")
    assert states["score right"][0] == "ready"
    nothing = {plan.labels[k]: v for k, v in plan.states(set()).items()}
    assert nothing["upper"] == ("waiting", "needs left and 1 more")


def test_a_stage_whose_inputs_are_not_there_is_a_mistake() -> None:
    plan, _ = toy()
    with pytest.raises(AssertionError, match="inputs must be added first"):
        plan.add(Stage("evaluate", {}, {"trained": "0" * 64}), "lost")


def test_equal_stages_are_one_and_the_first_label_stays() -> None:
    plan, keys = toy()
    again = Stage("train", {"streams": [], "name": "left"}, {"backbone": keys["base"]})
    assert plan.add(again, "another name") == keys["left"]
    assert plan.labels[keys["left"]] == "left" and len(plan.stages) == 6


def test_ancestors_and_sharing() -> None:
    plan, keys = toy()
    assert set(plan.ancestors(keys["score left"])) == {
        keys[name] for name in ("score left", "upper", "left", "base")
    }
    assert {plan.labels[k]: n for k, n in plan.sharing.items()} == {
        "base": 2,
        "left": 1,
        "right": 1,
        "upper": 1,
        "score left": 1,
        "score right": 1,
    }


@pytest.mark.parametrize(
    "other",
    [
        Stage("evaluate", {"a": 1}, {"x": "k"}),
        Stage("pretrain", {"a": 2}, {"x": "k"}),
        Stage("pretrain", {"a": 1, "b": 0}, {"x": "k"}),
        Stage("pretrain", {"a": 1}, {"y": "k"}),
        Stage("pretrain", {"a": 1}, {"x": "l"}),
        Stage("pretrain", {"a": 1}, {}),
        Stage("pretrain", {"a": 1.0}, {"x": "k"}),
    ],
)
def test_kind_parameters_and_inputs_make_the_key(other: Stage) -> None:
    assert other.key != Stage("pretrain", {"a": 1}, {"x": "k"}).key


def test_the_epoch_of_a_kind_makes_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {kind: Stage(kind, {"streams": []}).key for kind in plan_module.EPOCHS}
    monkeypatch.setitem(plan_module.EPOCHS, "train", plan_module.EPOCHS["train"] + 1)
    after = {kind: Stage(kind, {"streams": []}).key for kind in plan_module.EPOCHS}
    assert {kind for kind in before if before[kind] != after[kind]} == {"train"}


def test_a_stage_travels_between_processes() -> None:
    stage = Stage("pretrain", {"a": [1, {"b": 2.5}]}, {"x": "k"})
    back = pickle.loads(pickle.dumps(stage))
    assert back == stage and back.key == stage.key


@given(st.data())
def test_needed_is_closed_and_ordered(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    plan = Plan()
    keys: list[str] = []
    for i in range(count):
        inputs = data.draw(st.lists(st.sampled_from(keys), unique=True)) if keys else []
        stage = Stage("pretrain", {"i": i}, {str(j): key for j, key in enumerate(inputs)})
        keys.append(plan.add(stage, str(i)))
    for i, key in enumerate(data.draw(st.lists(st.sampled_from(keys), unique=True))):
        plan.cells[Cell("t", "r", str(i), 0, None, 1)] = key
    done = set(data.draw(st.lists(st.sampled_from(keys), unique=True)))
    needed = plan.needed(done)
    seen = set(done)
    for key in needed:
        assert key not in seen
        assert set(plan.stages[key].inputs.values()) <= seen, "inputs come first"
        seen.add(key)
    assert set(plan.cells.values()) <= seen, "every missing cell is computed"
    users = {k for key in needed for k in plan.stages[key].inputs.values()}
    assert set(needed) <= users | set(plan.cells.values()), "nothing is computed for nobody"
    for key, (state, _) in plan.states(done).items():
        inputs_there = all(k in done for k in plan.stages[key].inputs.values())
        assert state == ("cached" if key in done else "ready" if inputs_there else "waiting")


def test_cells_sort_and_name_themselves() -> None:
    cells = [Cell("t", "r", "fi", k, 1, s) for k in (10, 5) for s in (2, 1)]
    random.Random(0).shuffle(cells)
    assert [(c.shots, c.seed) for c in sorted(cells)] == [(5, 1), (5, 2), (10, 1), (10, 2)]
    assert cells[0].label().startswith("t r fi ") and "draw 1" in cells[0].label()
    assert Cell("t", "zero-shot", "fi", 0, None, 3).label() == "t zero-shot fi seed 3"
