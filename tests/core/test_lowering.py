"""What each regime becomes: streams, wear, budgets, what goes on from what, and what keys hold."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest

from adapterxlt.core import canon
from adapterxlt.core import plan as plan_module
from adapterxlt.core.canon import digest
from adapterxlt.core.errors import DataError
from adapterxlt.core.loading import parse_recipe
from adapterxlt.core.lowering import lower
from adapterxlt.core.plan import BackboneInfo, Cell, Plan, Stage
from adapterxlt.core.regimes import builtin_regimes
from adapterxlt.core.specs import BASE_BUDGET, Budget, Shape, resolve_budget
from adapterxlt.core.tasks import TASKS

Planned = Callable[..., Any]


def chain(plan: Plan, cell: Cell) -> list[Stage]:
    """The train stages of a cell, first to last."""
    key: str | None = plan.stages[plan.cells[cell]].inputs["trained"]
    found = []
    while key is not None:
        found.append(plan.stages[key])
        key = plan.stages[key].inputs.get("previous")
    return found[::-1]


def cell(
    regime: str, target: str = "fi", shots: int = 0, draw: int | None = None, **more: Any
) -> Cell:
    return Cell(
        "udpos", regime, target, shots, draw, more.get("seed", 1), more.get("role", "target")
    )


def keys(plan: Plan, *regimes: str) -> dict[Cell, str]:
    return {cell: key for cell, key in plan.cells.items() if not regimes or cell.regime in regimes}


EN = {"language": "en", "wear": "en"}
FI = {"language": "fi", "wear": "fi", "shots": 100, "draw": 2}
MR = {"language": "mr", "wear": "mr", "shots": 100, "draw": 2}
SOURCE = ([EN], 32, 3 * 16, "linear", 0.1)
SHOTS = ([FI], 32, 50 * 4, "constant", 0.0)
MULTILINGUAL = ([EN, FI, MR], 8, 3 * 63, "linear", 0.1)
BILINGUAL = ([EN, FI], 16, 3 * 32, "linear", 0.1)

# The paper's table: what every phase of a regime reads and wears, batch, steps (epochs of 500
# source rows or of 100 shots), schedule and warm-up. A later phase goes on from the one before.
TABLE: dict[str, list[tuple[Any, ...]]] = {
    "zero-shot": [SOURCE],
    "target-only": [SHOTS],
    "sequential": [SOURCE, SHOTS],
    "joint": [BILINGUAL],
    "joint-multilingual": [MULTILINGUAL],
    "multi-stage": [MULTILINGUAL, BILINGUAL],
}


def test_the_regimes_of_the_paper_are_there_in_its_order() -> None:
    assert [name for name in builtin_regimes() if name in TABLE] == list(TABLE)


@pytest.mark.parametrize("regime", TABLE)
def test_a_regime_becomes_the_stages_of_the_papers_table(
    regime: str, planned: Planned, six: str
) -> None:
    _, plan = planned(six)
    at = cell(regime) if regime == "zero-shot" else cell(regime, shots=100, draw=2)
    stages = chain(plan, at)
    assert len(stages) == len(TABLE[regime])
    before: Stage | None = None
    for stage, (streams, batch, steps, schedule, warmup) in zip(stages, TABLE[regime], strict=True):
        params = stage.params
        read = [
            {k: v for k, v in s.items() if k in ("language", "wear", "shots", "draw")}
            for s in params["streams"]
        ]
        assert read == streams
        assert {s["split"] for s in params["streams"]} == {"train"}
        assert params["budget"] == {
            "batch": batch,
            "steps": steps,
            "lr": 1e-4,
            "schedule": schedule,
            "warmup": warmup,
            "weight_decay": 0.05,
            "clip": 1.0,
            "snapshots": None,
        }
        assert params["objective"] == "macro" and params["seed"] == 1
        assert params["heads"] == {
            "udpos": {"kind": "tagging", "labels": list(TASKS["udpos"].labels)}
        }
        neutral = ("sampling", "head", "drop", "run")
        assert [params[name] for name in neutral] == [None] * 4
        assert {s["weight"] for s in params["streams"]} == {None}
        assert stage.inputs.get("previous") == (before.key if before else None)
        worn = {role for role in stage.inputs if role.startswith("language:")}
        assert worn == {f"language:{s['wear']}" for s in streams}
        before = stage


def test_evaluations_wear_the_language_they_score(planned: Planned, six: str) -> None:
    _, plan = planned(six)
    for at, key in plan.cells.items():
        stage = plan.stages[key]
        assert stage.kind == "evaluate"
        assert stage.params["data"]["language"] == stage.params["data"]["wear"] == at.target
        assert stage.params["data"]["split"] == "test"
        language = plan.stages[stage.inputs[f"language:{at.target}"]]
        assert language.params["objective"] == "mlm"
        assert language.params["streams"][0]["language"] == at.target


def test_the_cells_are_the_grid(planned: Planned, six: str) -> None:
    _, plan = planned(six)
    count = {name: len(keys(plan, name)) for name in TABLE}
    # (targets + source where one adapter serves all) x shots x draws x seeds
    assert count == {
        "zero-shot": 3 * 2,
        "target-only": 16,
        "sequential": 16,
        "joint": 16,
        "joint-multilingual": 3 * 8,
        "multi-stage": 16,
    }
    assert {at.role for at in plan.cells if at.target == "en"} == {"source"}


def test_regimes_share_their_first_stage(planned: Planned, six: str) -> None:
    _, plan = planned(six)
    source = chain(plan, cell("zero-shot"))[0]
    at = cell("sequential", "mr", 10, 1)
    assert chain(plan, at)[0] == source
    assert (
        chain(plan, cell("multi-stage", "mr", 10, 1))[0]
        == chain(plan, cell("joint-multilingual", "fi", 10, 1))[0]
    )
    trained = [
        s for s in plan.stages.values() if s.kind == "train" and s.params["objective"] == "macro"
    ]
    # source and, by shots, draw and target: shots alone, shots after source, joint, bilingual;
    # by shots and draw: multilingual. All of it for two seeds.
    assert len(trained) == 2 * (1 + 4 * (2 * 2 * 2) + 2 * 2)
    assert len([s for s in plan.stages.values() if s.params.get("objective") == "mlm"]) == 3


def test_the_plan_counts_who_shares_a_stage(planned: Planned, six: str) -> None:
    _, plan = planned(six)
    source = chain(plan, cell("zero-shot"))[0].key
    # Two targets and the source of zero-shot, and the sequential cells of this seed.
    assert plan.sharing[source] == 3 + 2 * 2 * 2
    assert plan.sharing[plan.cells[cell("zero-shot")]] == 1


# What keys hold


def test_names_and_questions_are_in_no_key(planned: Planned, six: str) -> None:
    _, plan = planned(six)
    _, renamed = planned(six, "name=other", "question=why", "data=/x", "backbone=/y")
    assert renamed.cells == plan.cells and renamed.stages.keys() == plan.stages.keys()
    text = str([stage.canonical() for stage in renamed.stages.values()])
    assert "other" not in text and "/x" not in text and "why" not in text


def test_the_name_of_a_regime_or_phase_is_in_no_key(planned: Planned, six: str) -> None:
    _, plan = planned(six)
    own = "[{name: mine, summary: x, phases: [{name: apple, languages: [source]}, {name: pear, "
    own += "languages: [target], budget: {epochs: 50, schedule: constant, warmup: 0.0}}]}]"
    _, other = planned(six, f"regimes={own}")
    for at, key in keys(other).items():
        same = cell("sequential", at.target, at.shots, at.draw, seed=at.seed)
        assert plan.cells[same] == key


def test_the_order_of_targets_and_regimes_changes_no_single_target_stage(
    planned: Planned, six: str
) -> None:
    alone = ("zero-shot", "target-only", "sequential", "joint")
    _, plan = planned(six, "targets=[fi, mr, sw]")
    for order in permutations(["fi", "mr", "sw"]):
        _, other = planned(
            six,
            f"targets=[{', '.join(order)}]",
            "regimes=[joint, sequential, zero-shot, target-only]",
        )
        assert keys(other, *alone) == keys(plan, *alone)


def test_more_targets_change_no_single_target_stage(planned: Planned, six: str) -> None:
    alone = ("zero-shot", "target-only", "sequential", "joint")
    _, plan = planned(six)
    _, more = planned(six, "targets+=[sw, yo]", "seeds+=9", "shots+=50", "draws+=3", "tasks+=nli")
    for at, key in keys(plan, *alone).items():
        assert more.cells[at] == key


def test_a_seed_changes_training_but_no_language_adapter(planned: Planned, six: str) -> None:
    _, plan = planned(six)
    one, two = (chain(plan, cell("zero-shot", seed=s))[0] for s in (1, 2))
    assert one.key != two.key and one.inputs == two.inputs
    assert {**one.params, "seed": 0} == {**two.params, "seed": 0}


def test_draw_and_shots_change_the_few_shot_stage_alone(planned: Planned, six: str) -> None:
    _, plan = planned(six)
    stages = [chain(plan, cell("sequential", shots=k, draw=d)) for k in (10, 100) for d in (1, 2)]
    assert len({first.key for first, _ in stages}) == 1
    assert len({second.key for _, second in stages}) == 4
    (_, a), (_, b) = stages[0], stages[1]
    (x,), (y,) = a.params["streams"], b.params["streams"]
    assert {**x, "draw": 0} == {**y, "draw": 0}
    assert {k: v for k, v in a.params.items() if k != "streams"} == {
        k: v for k, v in b.params.items() if k != "streams"
    }


def _changed(plan: Plan, other: Plan) -> set[Cell]:
    assert plan.cells.keys() == other.cells.keys()
    return {at for at in plan.cells if plan.cells[at] != other.cells[at]}


def test_a_changed_file_changes_only_what_reads_it(
    planned: Planned, six: str, fake_corpus: Any
) -> None:
    _, plan = planned(six)
    _, train = planned(six, corpus=fake_corpus(salt={("fi", "train"): "new"}))
    assert {(at.regime, at.target) for at in _changed(plan, train)} == {
        *((r, "fi") for r in ("target-only", "sequential", "joint")),
        *(("joint-multilingual", t) for t in ("en", "fi", "mr")),
        *(("multi-stage", t) for t in ("fi", "mr")),
    }
    _, test = planned(six, corpus=fake_corpus(salt={("fi", "test"): "new"}))
    assert {at.target for at in _changed(plan, test)} == {"fi"}
    new = test.stages.keys() - plan.stages.keys()
    assert {test.stages[key].kind for key in new} == {"evaluate"}
    _, text = planned(six, corpus=fake_corpus(salt={("mr", "text"): "new"}))
    assert {at.target for at in _changed(plan, text) if "multi" not in at.regime} == {"mr"}


@pytest.mark.parametrize(
    "override",
    [
        *("budget.lr=1e-5", "budget.weight_decay=0.0", "budget.batch=31", "max_length=64"),
        *("precision=bf16", "task_adapter={reduction_factor: 4}", "task_adapter={leave_out: [2]}"),
        *("task_adapter={non_linearity: gelu}", "task_adapter={method: lora}", "source=de"),
        *("language_adapters={mask: 0.3}", "language_adapters={seed: 7}", "language_adapters=null"),
        *("limits={train: 100}", "limits={test: 10}", "limits={text: 10}"),
        "language_adapters={texts: [bible]}",
    ],
)
def test_what_shapes_a_result_is_in_its_key(override: str, planned: Planned, six: str) -> None:
    _, plan = planned(six)
    _, other = planned(six, override)
    before, after = keys(plan, "joint"), keys(other, "joint")
    assert before.keys() == after.keys()
    assert not set(before.values()) & set(after.values())


@pytest.mark.parametrize(
    "override",
    [
        *(
            "task_adapter={method: seq_bn, reduction_factor: 16, non_linearity: relu}",
            "seeds=[1, 2]",
        ),
        *(
            "limits={train: 500, test: 80, text: 1000}",
            "max_length=128",
            "task_adapter={leave_out: []}",
        ),
        *("budget={epochs: 3}", "budget={epochs: 3, batch: 32, lr: 1e-4, clip: 1, warmup: 0.1}"),
        *("task_adapter={reduction_factor: 16.0}", "language_adapters={}", "limits={test: 9999}"),
    ],
)
def test_defaults_written_out_change_no_key(override: str, planned: Planned, six: str) -> None:
    assert planned(six, override)[1].cells == planned(six)[1].cells


def test_backbones_are_told_apart_by_digest_not_by_name(
    planned: Planned, six: str, backbone: BackboneInfo
) -> None:
    from dataclasses import replace

    _, plan = planned(six)
    assert planned(six, of=replace(backbone, name="moved"))[1].cells == plan.cells
    for part in ("weights", "tokenizer", "config"):
        digests = {**(backbone.digests or {}), part: "d" * 64}
        _, other = planned(six, of=replace(backbone, digests=digests))
        assert not other.stages.keys() & plan.stages.keys()


def test_a_backbone_that_is_pretrained_is_the_first_stage(planned: Planned, six: str) -> None:
    lab = BackboneInfo("lab backbone", Shape(2, 8, 16, 50), 999, pretraining={"spec": {"steps": 3}})
    _, plan = planned(six, of=lab)
    first = next(iter(plan.stages))
    assert plan.stages[first].kind == "pretrain" and plan.sharing[first] == len(plan.cells)
    assert all(s.inputs["backbone"] == first for k, s in plan.stages.items() if k != first)
    other = BackboneInfo("x", lab.shape, 1, pretraining={"spec": {"steps": 4}})
    assert not planned(six, of=other)[1].stages.keys() & plan.stages.keys()


# Data rules


def test_a_test_split_cannot_reach_a_train_stage(
    planned: Planned, six: str, fake_corpus: Any
) -> None:
    stream = {"task": "udpos", "language": "fi", "split": "test", "data": "0" * 64}
    with pytest.raises(AssertionError, match="never reach a train stage"):
        Stage("train", {"streams": [{**stream, "split": "train"}, stream]})

    class Leaky(fake_corpus):  # type: ignore[misc, valid-type]
        def shots_split(self, task: str, language: str) -> str:
            return "test"

    with pytest.raises(AssertionError, match="never reach a train stage"):
        planned(six, corpus=Leaky())


def test_no_train_stage_reads_what_is_scored(planned: Planned, six: str) -> None:
    _, plan = planned(six)
    read = {s["data"] for stage in plan.stages.values() for s in stage.params.get("streams", ())}
    scored = {s.params["data"]["data"] for s in plan.stages.values() if s.kind == "evaluate"}
    assert read and scored and not read & scored


def test_shots_come_from_validation_where_there_is_no_train(
    planned: Planned, six: str, fake_corpus: Any
) -> None:
    _, plan = planned(six, corpus=fake_corpus(no_train=("mr",)))
    streams = chain(plan, cell("joint-multilingual", shots=10, draw=1))[0].params["streams"]
    assert [s["split"] for s in streams] == ["train", "train", "validation"]


def test_limits_count_rows_and_change_epochs(planned: Planned, six: str) -> None:
    _, plan = planned(six, "limits={train: 100, test: 10, text: 64}")
    (stage,) = chain(plan, cell("zero-shot"))
    assert stage.params["streams"][0]["limit"] == 100
    assert stage.params["budget"]["steps"] == 3 * 4
    language = plan.stages[stage.inputs["language:en"]]
    assert language.params["streams"][0]["limit"] == 64
    assert language.params["budget"]["steps"] == 3 * 2
    evaluation = plan.stages[plan.cells[cell("zero-shot")]]
    assert evaluation.params["data"]["limit"] == 10


def test_missing_data_is_an_error_of_the_data(
    six: str, backbone: BackboneInfo, fake_corpus: Any
) -> None:
    class Poor(fake_corpus):  # type: ignore[misc, valid-type]
        def info(self, task: str, language: str, split: str) -> Any:
            raise DataError("none")

    with pytest.raises(DataError):
        lower(parse_recipe(six, "r.yaml").recipe, Poor(), backbone)


# Regimes of one's own


def own(six: str, planned: Planned, phases: str, *more: str) -> Plan:
    plan: Plan = planned(six, f"regimes=[{{name: own, phases: [{phases}]}}]", *more)[1]
    return plan


def test_wear_source_and_none(six: str, planned: Planned) -> None:
    plan = own(six, planned, "{name: a, languages: [source, target], wear: source}")
    at = cell("own", shots=10, draw=1)
    (stage,) = chain(plan, at)
    assert [s["wear"] for s in stage.params["streams"]] == ["en", "en"]
    assert {r for r in stage.inputs if ":" in r} == {"language:en"}
    assert plan.stages[plan.cells[at]].params["data"]["wear"] == "en"
    bare = own(six, planned, "{name: a, languages: [source, target], wear: none}")
    (stage,) = chain(bare, at)
    assert [s["wear"] for s in stage.params["streams"]] == [None, None] and not stage.inputs
    assert all(s.params.get("objective") != "mlm" for s in bare.stages.values())


def test_without_language_adapters_wear_is_in_no_key(six: str, planned: Planned) -> None:
    plans = [
        own(six, planned, f"{{name: a, languages: [source], wear: {w}}}", "language_adapters=null")
        for w in ("own", "source", "none")
    ]
    assert plans[0].cells == plans[1].cells == plans[2].cells


def test_groups_of_languages_and_fixed_shots(six: str, planned: Planned) -> None:
    plan = own(six, planned, "{name: a, languages: [high, de], shots: 7}", "targets=[fi, yo]")
    (at, *_), (stage,) = list(plan.cells), chain(plan, next(iter(plan.cells)))
    assert at.shots == 0 and at.draw == 1 and at.role == "source"
    assert [s["language"] for s in stage.params["streams"]] == ["fi", "de"]
    assert {s["shots"] for s in stage.params["streams"]} == {7}
    everything = own(six, planned, "{name: a, languages: [target], shots: all}")
    (at, *_), (stage,) = list(everything.cells), chain(everything, next(iter(everything.cells)))
    assert at.draw is None and "shots" not in stage.params["streams"][0]
    assert stage.params["budget"]["steps"] == 3 * 16


def test_a_language_named_twice_is_read_once(six: str, planned: Planned) -> None:
    plan = own(six, planned, "{name: a, languages: [source, targets, target, en]}")
    (stage,) = chain(plan, cell("own", "mr", 10, 1))
    assert [s["language"] for s in stage.params["streams"]] == ["en", "fi", "mr"]


def test_new_adapter_and_new_head(six: str, planned: Planned) -> None:
    first = "{name: a, languages: [source]}"
    at = cell("own", shots=10, draw=1)
    plan = own(six, planned, first + ", {name: b, languages: [target], head: new}")
    one, two = chain(plan, at)
    assert two.params["head"] == "new" and two.inputs["previous"] == one.key
    alone = own(six, planned, "{name: b, languages: [target]}")
    fresh = "{name: b, languages: [target], adapter: new"
    # A new adapter goes on from nothing, and then neither does its head unless the phase says so.
    for more in ("", ", head: new"):
        assert own(six, planned, f"{first}, {fresh}{more}}}").cells[at] == alone.cells[at]
    (kept,) = chain(own(six, planned, f"{first}, {fresh}, head: keep}}"), at)
    assert kept.inputs["heads"] == one.key and "previous" not in kept.inputs
    assert kept.params["head"] is None and kept.params["adapter"] == one.params["adapter"]
    for head in ("keep", "new"):
        only = own(six, planned, f"{{name: b, languages: [target], head: {head}}}")
        assert only.cells[at] == alone.cells[at]


def test_a_task_that_two_words_stand_for_is_read_once(six: str, planned: Planned) -> None:
    more = ("tasks=[udpos, nli]", "seeds=[1]")
    twice = own(six, planned, "{name: a, tasks: [task, nli], languages: [source]}", *more)
    once = own(six, planned, "{name: a, languages: [source]}", *more)
    for at, key in once.cells.items():
        assert (twice.cells[at] == key) == (at.task == "nli")


# Budgets


@pytest.mark.parametrize(
    ("budget", "longest", "per_step", "steps"),
    [
        (Budget(epochs=3, batch=32), 64, 32, 6),
        (Budget(epochs=3, batch=32), 65, 64, 9),
        (Budget(epochs=50, batch=32), 1, 1, 50),
        (Budget(steps=7, batch=32), 10_000, 32, 7),
        (Budget(examples=640, batch=32), 10_000, 32, 20),
        (Budget(examples=640, batch=32), 10_000, 96, 7),
        (Budget(examples=1, batch=32), 10_000, 96, 1),
    ],
)
def test_a_length_becomes_steps(budget: Budget, longest: int, per_step: int, steps: int) -> None:
    resolved = resolve_budget(budget.over(BASE_BUDGET), longest, per_step)
    assert resolved["steps"] == steps and not {"epochs", "examples"} & resolved.keys()
    assert resolved["lr"] == 1e-4


@pytest.mark.parametrize(("asked", "kept"), [(None, None), (1, None), (4, 4), (10, 7), (7, 7)])
def test_no_more_snapshots_than_steps_and_one_is_none(asked: int | None, kept: int | None) -> None:
    budget = Budget(steps=7, snapshots=asked).over(BASE_BUDGET)
    assert resolve_budget(budget, 100, 32)["snapshots"] == kept


# Golden keys: they move only when somebody means them to (then EPOCHS is raised too).

GOLDEN = {
    ("zero-shot", 0): "40b6b1074e001fa8",
    ("target-only", 10): "ba115e775658c5b1",
    ("sequential", 10): "29042e2b9a9eba3b",
    ("joint", 10): "8f76a4724d07417f",
    ("joint-multilingual", 10): "757fdfa4808131f8",
    ("multi-stage", 10): "e96b434ef36bd3d7",
}


def test_golden_keys(planned: Planned, six: str) -> None:
    _, plan = planned(six)
    found = {
        (regime, shots): plan.cells[cell(regime, shots=shots, draw=1 if shots else None)][:16]
        for regime, shots in GOLDEN
    }
    assert found == GOLDEN


def test_the_whole_plan_is_golden(planned: Planned, six: str) -> None:
    _, plan = planned(six)
    assert digest("plan", list(plan.stages))[:16] == "453aeb2a80dddf2d"


# Large plans

MANY = (
    "targets=[fi, mr, de, zh, sw, yo, id, uk, ru, fr, es, it, ar, hi, ta, te, tr, vi, ja, ko]",
    "shots=[1, 5, 10, 50, 100]",
    "draws=[1, 2, 3, 4, 5]",
)


def test_ten_thousand_cells_are_planned_in_seconds(planned: Planned, six: str) -> None:
    started = time.process_time()
    _, plan = planned(six, *MANY, "seeds=[1, 2, 3, 4, 5]")
    assert len(plan.cells) > 10_000
    assert sum(plan.sharing.values()) > len(plan.cells)
    assert time.process_time() - started < 5


def test_a_key_is_made_once_a_stage(
    planned: Planned, six: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def counted(tag: str, value: Any) -> str:
        made.append(tag)
        return digest(tag, value)

    monkeypatch.setattr(plan_module, "digest", counted)
    _, plan = planned(six, *MANY, "seeds=[1]")
    # Cells that share a whole regime's stage find it by what they are, not by its key.
    assert len(plan.stages) <= len(made) < 1.1 * len(plan.stages)


def test_what_seeds_share_is_worked_out_once(
    planned: Planned, six: str, fake_corpus: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Counting(fake_corpus):  # type: ignore[misc, valid-type]
        def info(self, task: str, language: str, split: str) -> Any:
            asked.append("info")
            return super().info(task, language, split)

    def counted(value: Any) -> str:
        asked.append("form")
        return form(value)

    form = canon._mapping
    monkeypatch.setattr(canon, "_mapping", counted)
    counts, stages = [], []
    for seeds in ("[1]", "[1, 2]", "[1, 2, 3]"):
        asked.clear()
        _, plan = planned(six, *MANY, f"seeds={seeds}", corpus=Counting())
        counts.append(Counter(asked))
        stages.append(len(plan.stages))
    assert {count["info"] for count in counts} == {counts[0]["info"]}
    # A stage more is three mappings more: itself, its parameters and its inputs.
    forms = [count["form"] - 3 * n for count, n in zip(counts, stages, strict=True)]
    assert counts[0]["info"] > 0 and max(forms) - min(forms) < 0.1 * stages[0]
