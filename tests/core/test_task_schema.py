"""Tasks as data: what a kind fills in, what does not fit it, and how plans treat each kind."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from adapterxlt.core.errors import RecipeError
from adapterxlt.core.loading import parse_recipe
from adapterxlt.core.lowering import lower
from adapterxlt.core.plan import BackboneInfo, Plan, Stage
from adapterxlt.core.recipe import Recipe
from adapterxlt.core.tasks import KINDS, TASKS, Task, kinds

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BASE = """\
name: tasks
source: en
targets: [de, th]
tasks: [xquad]
regimes: [zero-shot]
shots: [10]
language_adapters: {budget: {steps: 5}}
budget: {steps: 3, batch: 4}
"""

Plans = Callable[..., tuple[Recipe, Plan]]


@pytest.fixture
def plans(fake_corpus: Any, backbone: BackboneInfo) -> Plans:
    def make(*overrides: str) -> tuple[Recipe, Plan]:
        recipe = parse_recipe(BASE, "t.yaml", overrides).recipe
        corpus = fake_corpus()
        corpus.known = recipe.task
        return recipe, lower(recipe, corpus, backbone)

    return make


def faults(*overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(BASE, "t.yaml", overrides)
    return str(caught.value)


def evaluations(plan: Plan, language: str) -> list[Stage]:
    found = (plan.stages[key] for cell, key in plan.cells.items() if cell.target == language)
    return list(found)


def test_every_shipped_task_is_whole() -> None:
    assert {task.kind for task in TASKS.values()} == set(kinds()) == set(KINDS)
    for name, task in TASKS.items():
        assert task.name == name and task.summary and task.metrics
        assert bool(task.labels) == KINDS[task.kind].labelled, name
        assert task.lab or (task.places and task.places[0].folder), "a folder may have any"
    assert "ner" in TASKS and "xyz" not in TASKS
    with pytest.raises(KeyError):
        TASKS["xyz"]


def test_a_kind_gives_columns_metrics_and_options() -> None:
    task = Task(kind="choice").filled()
    assert task.columns == ("premise", "question", "choice1", "choice2", "label")
    assert task.metrics == ("accuracy",) and task.primary == "accuracy"
    assert Task(kind="tagging").filled().options == {}
    qa = Task(kind="qa", stride=32).filled()
    assert qa.options == {"normalization": "squad", "stride": 32, "longest_answer": 30}
    # How answers are compared is no matter of training.
    assert qa.head == {"kind": "qa", "labels": [], "stride": 32}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kind": "tagging", "csls": True}, "csls says nothing of tagging"),
        ({"kind": "qa", "places": [{"folder": "a", "files": "b"}]}, "one of folder, files and hub"),
        ({"kind": "qa", "places": [{}]}, "one of folder, files and hub"),
        ({"kind": "qa", "hub": "a/b"}, "need a revision"),
        ({"kind": "qa", "hub": "a/b", "revision": "main"}, "a revision is a commit"),
        ({"kind": "qa", "files": "a", "revision": COMMIT}, "only a hub has revisions"),
        ({"kind": "qa", "files": "a", "divide": {"train": 0.5, "test": 0.4}}, "add up to 1"),
        ({"kind": "qa", "flies": "a"}, "Extra inputs"),
        ({"kind": "qas"}, "Input should be"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        Task.model_validate(given)


def test_a_single_place_may_stand_in_the_task() -> None:
    short = Task.model_validate({"kind": "qa", "hub": "a/b", "revision": COMMIT, "config": "c"})
    place = {"hub": "a/b", "revision": COMMIT, "config": "c"}
    assert short == Task.model_validate({"kind": "qa", "places": [place]})
    assert short.places[0].reading() == {}


def test_languages_by_name_are_of_the_only_place() -> None:
    given = {"kind": "tagging", "files": "{language}.conllu", "languages": {"sw": "swahili"}}
    task = Task.model_validate(given)
    assert task.places[0].languages == {"sw": "swahili"} and task.languages is None
    task = Task.model_validate({**given, "languages": ["sw"]})
    assert task.languages == ("sw",) and task.places[0].languages is None


def test_an_entry_goes_over_the_shipped_task_of_its_name() -> None:
    recipe = parse_recipe(BASE, "t.yaml", ["datasets={xquad: {normalization: mlqa}}"]).recipe
    task = recipe.task("xquad")
    assert task.normalization == "mlqa" and task.places == TASKS["xquad"].places
    recipe = parse_recipe(BASE, "t.yaml", ["datasets={xquad: {folder: other}}"]).recipe
    assert [p.folder for p in recipe.task("xquad").places] == ["other"]
    assert recipe.task("xquad").languages == TASKS["xquad"].languages
    resolved = parse_recipe(BASE, "t.yaml", ["datasets={xquad: {folder: other}}"]).resolved_text()
    assert parse_recipe(resolved, "again.yaml").recipe == recipe


def test_targets_of_each_task_or_of_its_benchmark(plans: Plans) -> None:
    recipe, plan = plans("targets=all", "tasks=[xquad, tatoeba]")
    assert recipe.targets_of("xquad") == TASKS["xquad"].languages[1:]  # type: ignore[index]
    assert {c.target for c in plan.cells if c.task == "tatoeba"} == set(
        TASKS["tatoeba"].languages or ()
    )
    recipe, plan = plans("targets={xquad: [de], udpos: [fi, wo]}", "tasks=[xquad, udpos]")
    assert recipe.all_targets == ("de", "fi", "wo")
    cells = {(c.task, c.target) for c in plan.cells if c.role == "target"}
    assert cells == {("xquad", "de"), ("udpos", "fi"), ("udpos", "wo")}
    assert "task 'udpos' has no targets" in faults("targets={xquad: [de]}", "tasks=[xquad, udpos]")
    said = faults("targets={xquda: [de], xquad: [de]}")
    assert "targets of 'xquda', which is no task here" in said and "did you mean 'xquad'" in said
    assert "task 'nli' has no targets" in faults("targets=all", "tasks=[nli]")
    assert "target 'en' is the source" in faults("targets={xquad: [en]}")


def test_a_source_outside_the_benchmark_is_not_scored(plans: Plans) -> None:
    _, plan = plans("tasks=[xcopa, xquad]")
    assert {c.task for c in plan.cells if c.role == "source"} == {"xquad"}


def test_retrieval_searches_the_other_side_in_the_source(plans: Plans) -> None:
    _, plan = plans("tasks=[tatoeba]", "targets=[de]")
    (stage,) = evaluations(plan, "de")
    trained = [stage for stage in plan.stages.values() if stage.kind == "train"]
    assert {stage.params["objective"] for stage in trained} == {"mlm"}
    assert "trained" not in stage.inputs
    (there,) = stage.params["pool"]
    assert (there["language"], there["side"], there["wear"]) == ("de", "target", "en")
    assert set(stage.inputs) == {"language:de", "language:en"}


def test_retrieval_after_other_tasks_goes_on_from_them(plans: Plans) -> None:
    _, plan = plans(
        "tasks=[tatoeba, xquad]", "targets=[de]", "regimes=[intermediate, multitask]",
        "intermediate={nli: [en]}",
    )  # fmt: skip
    for cell, key in plan.cells.items():
        trained = plan.stages[plan.stages[key].inputs["trained"]]
        tasks = {stream["task"] for stream in trained.params["streams"]}
        if cell.task == "tatoeba":
            assert tasks == {"nli"}
        else:
            assert tasks == ({"xquad"} if cell.regime == "intermediate" else {"xquad", "nli"})


@pytest.mark.parametrize("regime", ["sequential", "joint", "zero-shot-average"])
def test_nothing_can_be_asked_of_a_task_without_training(regime: str) -> None:
    said = faults("tasks=[tatoeba]", f"regimes=[{regime}]", "budgets={source: {snapshots: 3}}")
    assert "nothing is trained on 'tatoeba'" in said


def test_ranking_searches_the_candidates_of_the_recipes_languages(plans: Plans) -> None:
    _, plan = plans("tasks=[lareqa]")
    for stage in evaluations(plan, "de"):
        pool = stage.params["pool"]
        assert [part["language"] for part in pool] == ["en", "de", "th"]
        assert [part["wear"] for part in pool] == ["en", "de", "th"]
        assert {part["split"] for part in pool} == {"candidates"}
    _, plan = plans("tasks=[lareqa]", "datasets={lareqa: {pool: [de]}}")
    assert all(len(s.params["pool"]) == 1 for s in evaluations(plan, "th"))


def test_mixup_is_of_items() -> None:
    said = faults("regimes=[joint-mixup]")
    assert "mixes items, which 'xquad' (qa) has none of" in said
    said = faults("intermediate={tatoeba: [de]}", "regimes=[intermediate]")
    assert "nothing is trained on 'tatoeba'" in said


def test_options_of_evaluation_leave_training_as_it_is(plans: Plans) -> None:
    def keys(override: str) -> tuple[set[str], set[str]]:
        _, plan = plans(override)
        trained = {key for key, stage in plan.stages.items() if stage.kind == "train"}
        return trained, set(plan.cells.values())

    trained, scored = keys("datasets={}")
    for override in ("{normalization: mlqa}", "{longest_answer: 5}"):
        other = keys(f"datasets={{xquad: {override}}}")
        assert other[0] == trained and not other[1] & scored
    assert not keys("datasets={xquad: {stride: 7}}")[0] >= trained
