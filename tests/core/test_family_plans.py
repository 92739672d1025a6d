"""What the family of regimes becomes: what stages share, what they may read, what keys hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from adapterxlt.core.loading import parse_recipe
from adapterxlt.core.plan import Cell, Plan, Stage
from adapterxlt.core.regimes import builtin_regimes
from adapterxlt.run.desk import Places
from adapterxlt.run.requests import Request
from adapterxlt.run.scheduler import execute

Planned = Callable[..., Any]
ALL = list(builtin_regimes())
#: Regimes whose first phase is the source alone, worn as everywhere else.
FROM_SOURCE = ["zero-shot", "sequential", "joint-last", "multi-stage-last"]
#: Regimes that never see the cell's task in another language than the source, whatever the data.
ZERO_SHOT = [n for n, r in builtin_regimes().items() if not r.uses_shots and not r.upper_bound]
TASKS = ("udpos", "nli")

WIDE = f"""\
name: wide
source: en
targets: [fi, mr]
tasks: [{", ".join(TASKS)}]
intermediate: {{udpos: [en, fi, mr, de], nli: [en, mr], ner: []}}
regimes: [{", ".join(ALL)}]
shots: [10]
seeds: [1, 2]
budget: {{epochs: 3, batch: 32}}
"""
ONE = """\
name: one
source: en
targets: [fi, mr]
tasks: [udpos]
intermediate: {nli: [en, mr], ner: [de]}
regimes: [zero-shot]
budget: {epochs: 3, batch: 32}
"""


@pytest.fixture(scope="module")
def wide(planned: Planned) -> Plan:
    plan: Plan = planned(WIDE)[1]
    return plan


def own(planned: Planned, *phases: str, more: str = "", overrides: tuple[str, ...] = ()) -> Plan:
    """The plan of a regime of these phases."""
    body = ", ".join(f"{{{phase}}}" for phase in phases)
    plan: Plan = planned(ONE, f"regimes=[{{name: own, phases: [{body}]{more}}}]", *overrides)[1]
    return plan


def trains(plan: Plan, regime: str, **fields: object) -> list[Stage]:
    """The task-training stages under the first cell of a regime with these fields, inputs first."""
    at = next(
        key
        for cell, key in plan.cells.items()
        if cell.regime == regime and all(getattr(cell, n) == v for n, v in fields.items())
    )
    under = set(plan.ancestors(at))
    return [plan.stages[key] for key in plan.stages if key in under and is_task(plan.stages[key])]


def is_task(stage: Stage) -> bool:
    return stage.kind == "train" and stage.params["objective"] != "mlm"


def under(plan: Plan, *regimes: str) -> Iterator[tuple[Cell, str, Stage]]:
    """(cell, key, stage) of everything that cells of these regimes depend on."""
    for cell, key in plan.cells.items():
        if cell.regime in regimes:
            for ancestor in plan.ancestors(key):
                yield cell, ancestor, plan.stages[ancestor]


def merges(plan: Plan, regime: str = "own") -> list[Stage]:
    return list({k: s for _, k, s in under(plan, regime) if s.kind == "merge"}.values())


# What is shared


def test_regimes_that_begin_with_the_source_share_that_stage(planned: Planned) -> None:
    _, plan = planned(ONE, f"regimes=[{', '.join(FROM_SOURCE)}]", "shots=[10]")
    firsts = {name: trains(plan, name, target="fi")[0].key for name in FROM_SOURCE}
    assert len(set(firsts.values())) == 1
    # Source; by target shots and joint and bilingual; multilingual once.
    assert len([s for s in plan.stages.values() if is_task(s)]) == 1 + 3 * 2 + 1


def test_regimes_that_share_a_prefix_share_it_whole(planned: Planned) -> None:
    names = ["intermediate-multilingual", "intermediate-multilingual-stack"]
    names.append("intermediate-multilingual-fuse")
    _, plan = planned(ONE, f"regimes=[{', '.join(names)}]")
    firsts = [trains(plan, name)[0] for name in names]
    assert len({stage.key for stage in firsts}) == 1
    tasks = [(s["task"], s["language"]) for s in firsts[0].params["streams"]]
    assert tasks == [("ner", "de"), ("nli", "en"), ("nli", "mr")]
    # The intermediate one; source after it, on top of it, and alone; their fusion.
    assert len([s for s in plan.stages.values() if is_task(s)]) == 1 + 3 + 1


def test_a_snapshot_that_one_regime_wants_does_not_part_regimes(planned: Planned) -> None:
    names = ["zero-shot", "zero-shot-average", "zero-shot-oracle", "joint-oracle", "joint-last"]
    _, plan = planned(ONE, f"regimes=[{', '.join(names)}]", "shots=[10]")
    sources = {trains(plan, name)[0].key for name in names}
    assert len(sources) == 1
    assert plan.stages[sources.pop()].params["budget"]["snapshots"] == 10
    _, alone = planned(ONE)
    assert trains(alone, "zero-shot")[0].params["budget"]["snapshots"] is None


class CountingPool:
    """Finishes every stage at once and counts how often each was asked for."""

    workers = 1

    def __init__(self, store: set[str]) -> None:
        self.store, self.count = store, Counter[str]()

    def submit(self, request: Request) -> Future[bool]:
        assert set(request.stage.inputs.values()) <= self.store, "inputs first"
        self.count[request.key] += 1
        self.store.add(request.key)
        future: Future[bool] = Future()
        future.set_result(True)
        return future

    def renew(self) -> None: ...

    def close(self, *, now: bool = False) -> None: ...


def test_all_regimes_together_train_every_stage_once(wide: Plan, planned: Planned) -> None:
    store: set[str] = set()
    pool = CountingPool(store)

    def request(key: str) -> Request:
        places = Places(Path("/none"), "lab", "lab")
        return Request(key, wide.labels[key], wide.stages[key], places)

    outcome = execute(wide, store, pool, request, tick=0.001)  # type: ignore[arg-type]
    assert not outcome.failed and not outcome.blocked
    needed = {ancestor for key in wide.cells.values() for ancestor in wide.ancestors(key)}
    assert pool.count == Counter(dict.fromkeys(needed, 1))
    assert needed == wide.stages.keys(), "nothing is planned that no cell needs"
    trained = sum(stage.kind == "train" for stage in wide.stages.values())
    alone = [planned(WIDE, f"regimes=[{name}]")[1] for name in ALL]
    apart = sum(s.kind == "train" for plan in alone for s in plan.stages.values())
    assert apart > 1.5 * trained


# What may be read


def test_no_train_stage_of_any_regime_reads_a_test_split(wide: Plan) -> None:
    splits = {s["split"] for stage in wide.stages.values() for s in stage.params.get("streams", ())}
    assert splits == {"train", "text"}


@pytest.mark.parametrize("regime", ZERO_SHOT)
def test_a_zero_shot_cell_trains_on_its_own_task_in_the_source_alone(
    regime: str, wide: Plan
) -> None:
    seen = set()
    for cell, _, stage in under(wide, regime):
        if is_task(stage):
            for stream in stage.params["streams"]:
                seen.add((stream["task"] == cell.task, stream["language"] == "en"))
                if stream["task"] == cell.task:
                    assert stream["language"] == "en" and stream["split"] == "train", cell
        if stage.kind == "evaluate" and stage.params["data"]["language"] != "en":
            assert stage is wide.stages[wide.cells[cell]], "only the cell's own score reads labels"
    assert (True, True) in seen or regime == "x"


def test_zero_shot_regimes_are_those_meant() -> None:
    few = {"target-only", "sequential", "sequential-source-dev"}
    few |= {n for n in ALL if n.startswith(("joint", "multi-stage"))}
    assert set(ALL) - set(ZERO_SHOT) == few | {"zero-shot-oracle"}


def test_intermediate_tasks_leave_the_cells_own_out(wide: Plan) -> None:
    for cell, _, stage in under(wide, "intermediate-multilingual"):
        if is_task(stage) and "previous" not in stage.inputs:
            read: dict[str, list[str]] = {}
            for stream in stage.params["streams"]:
                read.setdefault(stream["task"], []).append(stream["language"])
            everything = {"udpos": ["en", "fi", "mr", "de"], "nli": ["en", "mr"]}
            everything["ner"] = ["en", "fi", "mr"]
            assert read == {t: codes for t, codes in everything.items() if t != cell.task}


@pytest.mark.parametrize("regime", ["zero-shot-oracle", "joint-oracle"])
def test_an_oracle_is_told_to_be_one_and_only_chooses(regime: str, planned: Planned) -> None:
    assert builtin_regimes()[regime].upper_bound and builtin_regimes()[regime].per_target
    _, plan = planned(ONE, f"regimes=[{regime}]", "shots=[10]", "budgets={source: {snapshots: 3}}")
    final = set(plan.cells.values())
    choices = [k for k, s in plan.stages.items() if s.kind == "evaluate" and k not in final]
    users = {k: [s for s in plan.stages.values() if k in s.inputs.values()] for k in choices}
    assert len(choices) == 3 * 2, "a score for each snapshot and target"
    for key, used in users.items():
        assert plan.stages[key].params["data"]["split"] == "test"
        assert [(s.kind, s.params["how"]) for s in used] == [("merge", "best")]
    for target in ("fi", "mr"):
        (merge,) = {
            k: s for c, k, s in under(plan, regime) if s.kind == "merge" and c.target == target
        }.values()
        scores = [plan.stages[merge.inputs[f"score:{n}"]] for n in range(3)]
        assert {s.params["data"]["language"] for s in scores} == {target}
        assert [s.params["snapshot"] for s in scores] == [1, 2, None]
        assert [m["snapshot"] for m in merge.params["members"]] == [1, 2, None]
        assert merge.params["metric"] == "pos_f1"
    assert not any(r.upper_bound for n, r in builtin_regimes().items() if "oracle" not in n)


def test_the_best_on_the_sources_development_data_reads_no_target(planned: Planned) -> None:
    text = (ONE, "regimes=[sequential-source-dev]", "shots=[10]")
    _, plan = planned(*text, "budgets={shots: {snapshots: 4}}")
    (merge,) = {
        k: s
        for c, k, s in under(plan, "sequential-source-dev")
        if s.kind == "merge" and c.target == "fi"
    }.values()
    scores = [plan.stages[merge.inputs[f"score:{n}"]] for n in range(4)]
    assert {(s.params["data"]["language"], s.params["data"]["split"]) for s in scores} == {
        ("en", "validation")
    }
    assert {s.params["data"]["wear"] for s in scores} == {"en"}
    assert not builtin_regimes()["sequential-source-dev"].upper_bound


# Snapshots, runs, sums


def test_the_average_and_the_nth_snapshot_are_merges(planned: Planned) -> None:
    kept = "name: a, languages: [source], budget: {snapshots: 3}"
    (average,) = merges(own(planned, kept, more=", finish: average"))
    assert average.params["how"] == "average" and len(average.inputs) == 1
    assert [m["snapshot"] for m in average.params["members"]] == [1, 2, None]
    (second,) = merges(own(planned, kept, more=", finish: 2"))
    assert [m["snapshot"] for m in second.params["members"]] == [2]
    # The last one is the phase's own result, by number too.
    assert merges(own(planned, kept, more=", finish: 3")) == []
    last = own(planned, kept)
    assert own(planned, kept, more=", finish: 3").cells.keys() == last.cells.keys()
    assert own(planned, kept, more=", finish: 3").cells == last.cells
    on = own(planned, kept, "name: b, languages: [source], start: 2")
    (merge,) = merges(on)
    assert trains(on, "own")[1].inputs["previous"] == merge.key == second.key


def test_runs_differ_in_their_number_alone(planned: Planned) -> None:
    first = "name: a, languages: [source]"
    more = "name: b, languages: [source], adapter: new, head: freeze, runs: 3"
    plan = own(planned, first, more)
    one, *runs = trains(plan, "own")
    assert [s.params["run"] for s in runs] == [None, 1, 2]
    bare = [{k: v for k, v in s.params.items() if k != "run"} for s in runs]
    assert bare[0] == bare[1] == bare[2]
    assert runs[0].inputs == runs[1].inputs == runs[2].inputs
    assert runs[0].inputs["heads"] == one.key and runs[0].params["head"] == "freeze"
    (merge,) = merges(plan)
    assert merge.params["how"] == "average"
    assert [merge.inputs[m["input"]] for m in merge.params["members"]] == [s.key for s in runs]
    # One run of a regime that runs once is the first of one that runs thrice.
    single = own(planned, first, more.replace("runs: 3", "runs: 1"))
    assert trains(single, "own")[1].key == runs[0].key


def test_a_combination_of_languages_is_a_sum(planned: Planned) -> None:
    combine = "language_adapters={combine: {mr: {mr: 0.7, sw: 0.3}}}"
    _, plan = planned(ONE, combine)
    plain = planned(ONE)[1]
    by_target = {cell.target: plan.stages[key] for cell, key in plan.cells.items()}
    merge = plan.stages[by_target["mr"].inputs["language:mr"]]
    assert (merge.kind, merge.params["how"], merge.params["weights"]) == (
        "merge",
        "sum",
        [0.7, 0.3],
    )
    members = [plan.stages[merge.inputs[m["input"]]] for m in merge.params["members"]]
    assert [s.params["streams"][0]["language"] for s in members] == ["mr", "sw"]
    unchanged = {c for c in plan.cells if plan.cells[c] == plain.cells[c]}
    assert {c.target for c in unchanged} == {"en", "fi"}


def test_a_sum_of_phases_has_the_last_ones_heads(planned: Planned) -> None:
    _, plan = planned(ONE, "regimes=[ada-merge]")
    key = next(key for cell, key in plan.cells.items() if cell.target == "fi")
    merge = plan.stages[plan.stages[key].inputs["trained"]]
    members = [plan.stages[merge.inputs[m["input"]]] for m in merge.params["members"]]
    assert merge.params["how"] == "sum" and merge.params["weights"] == [1.0, 1.0, -1.0]
    read = [{(s["task"], s["language"]) for s in m.params["streams"]} for m in members]
    assert read == [
        {("udpos", "en")},
        {("nli", "fi"), ("ner", "fi")},
        {("nli", "en"), ("ner", "en")},
    ]


# What is worn


def test_a_pair_is_one_adapter_of_both_texts(planned: Planned) -> None:
    plan = planned(ONE, "regimes=[bad-x]")[1]
    assert {cell.target for cell in plan.cells} == {"fi", "mr"}
    for cell, key in plan.cells.items():
        name = f"en+{cell.target}"
        (stage,) = (s for c, _, s in under(plan, "bad-x") if c == cell and is_task(s))
        assert [s["wear"] for s in stage.params["streams"]] == [name]
        assert plan.stages[key].params["data"]["wear"] == name
        adapter = plan.stages[plan.stages[key].inputs[f"language:{name}"]]
        assert [s["language"] for s in adapter.params["streams"]] == ["en", cell.target]
        assert stage.inputs[f"language:{name}"] == adapter.key


def test_a_pair_is_worn_when_its_snapshots_are_compared(planned: Planned) -> None:
    text = "name: a, languages: [source], wear: pair, budget: {snapshots: 2}"
    plan = own(planned, text, more=", finish: source-dev")
    worn = {
        (cell.target, stage.params["data"]["wear"])
        for cell, _, stage in under(plan, "own")
        if stage.kind == "evaluate"
    }
    assert worn == {("fi", "en+fi"), ("mr", "en+mr")}


def test_a_cycle_wears_source_and_targets_in_turn(planned: Planned) -> None:
    plan = planned(ONE, "regimes=[target-ready]")[1]
    (stage,) = trains(plan, "target-ready")
    assert [s["wear"] for s in stage.params["streams"]] == [["en", "fi", "mr"]]
    assert {r for r in stage.inputs if ":" in r} == {"language:en", "language:fi", "language:mr"}
    for cell, key in plan.cells.items():
        assert plan.stages[key].params["data"]["wear"] == cell.target
    listed = own(planned, "name: a, languages: [source], wear: [source, targets]")
    assert trains(listed, "own")[0].key == stage.key


def test_drop_is_in_training_and_evaluation(planned: Planned) -> None:
    plan = planned(ONE, "regimes=[adapter-drop]")[1]
    (stage,) = trains(plan, "adapter-drop")
    assert stage.params["drop"] == "random"
    assert {plan.stages[key].params["drop"] for key in plan.cells.values()} == {2}
    fixed = own(planned, "name: a, languages: [source], drop: 1")
    assert {fixed.stages[key].params["drop"] for key in fixed.cells.values()} == {1}


# Several tasks


def test_every_task_has_a_head_and_weighs_the_same(planned: Planned) -> None:
    plan = planned(ONE, "regimes=[multitask-multilingual]", "intermediate={nli: [en, fi, mr]}")[1]
    (stage,) = trains(plan, "multitask-multilingual")
    assert list(stage.params["heads"]) == ["nli", "udpos"]
    assert [h["kind"] for h in stage.params["heads"].values()] == ["pair-classification", "tagging"]
    weight = Counter[str]()
    for stream in stage.params["streams"]:
        weight[stream["task"]] += stream["weight"] or 1.0
    assert weight == pytest.approx({"nli": 1.0, "udpos": 1.0})


def test_tasks_may_weigh_and_batch_differently(planned: Planned) -> None:
    phase = "name: a, tasks: [task, nli], languages: [source], weights: {nli: 3.0}"
    plan = own(planned, phase, overrides=("budgets={a: {batch: {task: 8, nli: 2}, epochs: 1}}",))
    (stage,) = trains(plan, "own")
    assert [(s["task"], s["weight"], s["batch"]) for s in stage.params["streams"]] == [
        ("nli", 3.0, 2),
        ("udpos", None, 8),
    ]


def test_cells_of_two_tasks_share_multitask_training_on_the_same_data(planned: Planned) -> None:
    phase = "{name: a, tasks: [udpos, nli], languages: [source]}"
    plan = planned(ONE, f"regimes=[{{name: own, phases: [{phase}]}}]", "tasks=[udpos, nli]")[1]
    assert len([s for s in plan.stages.values() if is_task(s)]) == 1
    # The word `task` and the word `intermediate` stand for the same two in both.
    text = (ONE, "regimes=[multitask]", "tasks=[udpos, nli]", "intermediate=[udpos, nli]")
    assert len([s for s in planned(*text)[1].stages.values() if is_task(s)]) == 1


@pytest.mark.parametrize(
    ("regime", "kind"),
    [
        ("multitask-multilingual", None),
        ("multitask-proportional", {"kind": "proportional"}),
        ("multitask-temperature", {"kind": "temperature", "t": 3.0}),
    ],
)
def test_sampling_is_in_the_key(regime: str, kind: Any, planned: Planned) -> None:
    (stage,) = trains(planned(ONE, f"regimes=[{regime}]")[1], regime)
    assert stage.params["sampling"] == kind


def test_every_difference_between_regimes_is_a_difference_of_keys(wide: Plan) -> None:
    twins: dict[str, set[str]] = {}
    for cell, key in wide.cells.items():
        if (cell.task, cell.target, cell.seed) == ("udpos", "fi", 1):
            twins.setdefault(key, set()).add(cell.regime)
    assert [names for names in twins.values() if len(names) > 1] == []


# Budgets


def steps_of(plan: Plan, regime: str) -> list[int]:
    return [stage.params["budget"]["steps"] for stage in trains(plan, regime, target="fi")]


def test_examples_are_those_of_all_streams(planned: Planned) -> None:
    names = ["zero-shot", "joint", "multitask-multilingual"]
    _, plan = planned(ONE, f"regimes=[{', '.join(names)}]", "shots=[10]", "budget={examples: 3200}")
    assert steps_of(plan, "zero-shot") == [100]
    # Sixteen of the source and the ten shots; 32 of each of four streams.
    assert steps_of(plan, "joint") == [124]
    assert steps_of(plan, "multitask-multilingual") == [25]


def test_a_budget_of_a_phase_in_one_regime_is_that_regimes(planned: Planned) -> None:
    budgets = "budgets={source: {steps: 7}, sequential/source: {steps: 5}}"
    _, plan = planned(ONE, "regimes=[zero-shot, sequential]", "shots=[10]", budgets)
    assert steps_of(plan, "zero-shot") == [7]
    assert steps_of(plan, "sequential")[0] == 5


# Neutral values

DEFAULTS = {
    "tasks": "[task]",
    "shots": "grid",
    "wear": "own",
    "adapter": "continue",
    "head": "keep",
    "objective": "macro",
    "sampling": "balanced",
    "weights": "{task: 1.0}",
    "start": "last",
    "runs": "1",
    "drop": "null",
    "budget": "{snapshots: 1}",
}


def test_defaults_written_out_change_no_key(planned: Planned) -> None:
    languages = ["[source]", "[source, target]"]
    short = [f"name: p{i}, languages: {words}" for i, words in enumerate(languages)]
    spelt = ", ".join(f"{name}: {value}" for name, value in DEFAULTS.items())
    more = ", finish: last, drop: null, task_adapter: {reduction_factor: 16}, language_adapter: {}"
    shots = ("shots=[10]",)
    one = own(planned, *short, overrides=shots)
    for name, value in DEFAULTS.items():
        single = own(planned, *(f"{phase}, {name}: {value}" for phase in short), overrides=shots)
        assert single.cells == one.cells, name
    full = own(planned, *(f"{phase}, {spelt}" for phase in short), more=more, overrides=shots)
    assert full.cells == one.cells and full.stages.keys() == one.stages.keys()


@pytest.mark.parametrize(
    "change",
    [
        *("objective: micro", "objective: mixup", "objective: surgery", "sampling: proportional"),
        *("wear: none", "wear: source", "wear: cycle", "drop: 1", "drop: random", "head: new"),
        *(
            "head: freeze",
            "adapter: stack",
            "runs: 2",
            "adapter: new, task_adapter: {reduction_factor: 8}",
        ),
        *("tasks: [task, nli]", "budget: {snapshots: 2}", "wear: pair", "start: average"),
    ],
)
def test_what_shapes_a_phase_is_in_its_key(change: str, planned: Planned) -> None:
    first, second = "name: a, languages: [source]", "name: b, languages: [source, target]"
    fields = ("shots=[10]", "budgets={a: {snapshots: 2}}")
    plain = own(planned, first, second, overrides=fields)
    other = own(planned, first, f"{second}, {change}", overrides=fields)
    assert not set(plain.cells.values()) & set(other.cells.values())


def test_all_regimes_are_planned_with_one_parse() -> None:
    """The recipe of these tests is one that a user could write."""
    recipe = parse_recipe(WIDE, "wide.yaml").recipe
    assert [r.name for r in recipe.regime_list] == ALL
