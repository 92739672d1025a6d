"""The whole family of regimes as data: what loads, what is refused, each fault at its line."""

from __future__ import annotations

import re

import pytest

from adapterxlt.core import regimes
from adapterxlt.core.catalogs import Catalog
from adapterxlt.core.errors import RecipeError
from adapterxlt.core.loading import parse_recipe
from adapterxlt.core.regimes import ORDER, Phase, Regime, builtin_regimes
from adapterxlt.core.specs import Budget

BASE = """\
name: base
source: en
targets: [fi, mr]
tasks: [udpos, nli]
regimes:
"""
#: How a regime of one's own begins; its phases follow from line 8 on.
OWN = "  - name: own\n    phases:\n"
A, B, NEW = (
    "name: a, languages: [source]",
    "name: b, languages: [source]",
    "name: c, languages: [source], adapter: new",
)


def own(*phases: str, more: str = "") -> str:
    """A recipe with one regime, a phase a line, the first in line 8."""
    return BASE + OWN + "".join(f"      - {{{phase}}}\n" for phase in phases) + more


def faults(text: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "r.yaml")
    return str(caught.value).splitlines()


@pytest.mark.parametrize("name", builtin_regimes())
def test_a_built_in_regime_loads_back_and_describes_itself(name: str) -> None:
    regime = builtin_regimes()[name]
    assert Regime.model_validate(regime.model_dump(mode="json", exclude_none=True)) == regime
    assert regime.name == name and regime.summary.endswith(".")
    for phase in regime.phases:
        line = phase.describe()
        assert line.startswith(f"{phase.name}: ") and "\n" not in line and len(line) < 160
        for word in {word for _, words, _ in phase.parts for word in words}:
            assert word in line
        said = {
            phase.objective: phase.objective != "macro",
            "head frozen": phase.heads == "freeze",
            f"from {phase.start}": phase.start != "last",
            f"average of {phase.runs} runs": phase.runs > 1,
            f"drop {phase.drop}": phase.drop is not None,
        }
        for words, expected in said.items():
            assert (words in line) == expected, words


def test_only_regimes_that_are_named_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = Catalog("regimes", lambda name, value: Regime.model_validate(value), ())
    monkeypatch.setattr(regimes, "_REGIMES", catalog)
    text = "name: a\nsource: en\ntargets: [fi]\ntasks: [udpos]\nshots: [1]\n"
    parse_recipe(text + "regimes: [joint, sequential]\nbudgets: {source: {steps: 3}}\n", "r.yaml")
    assert catalog._read.keys() == {"joint", "sequential"}
    with pytest.raises(KeyError):
        builtin_regimes()["../tasks/udpos"]


def test_every_built_in_regime_has_its_place_in_the_order() -> None:
    assert list(builtin_regimes()) == list(ORDER)


# What no regime can be: the phases, the words of the one fault. The fault is at the regime.
REFUSED = {
    "stack first": ([f"{A}, adapter: stack"], "phase 'a': adapter stack needs a phase before it"),
    "fuse first": ([f"{A}, adapter: fuse"], "phase 'a': adapter fuse needs a phase before it"),
    "fuse one chain": ([A, f"{B}, adapter: fuse"], "fuse needs two phases with adapters of their"),
    "fuse a stack": (
        [A, f"{B}, adapter: stack", NEW, "name: d, languages: [source], adapter: fuse"],
        "phase 'd': fuse takes phases of one adapter each",
    ),
    "start first": ([f"{A}, start: average"], "start average needs a phase to go on from"),
    "start new": ([A, f"{NEW}, start: 2"], "phase 'c': start 2 needs a phase to go on from"),
    "freeze first": ([f"{A}, head: freeze"], "there is no head to freeze yet"),
    "start of runs": ([f"{A}, runs: 2", f"{B}, start: average"], "an average of runs"),
    "an adapter for one that goes on": (
        [A, f"{B}, task_adapter: {{reduction_factor: 8}}"],
        "phase 'b': task_adapter is for a new or stacked adapter",
    ),
    "surgery of a fusion": (
        [A, NEW, "name: d, languages: [source, target], adapter: fuse, objective: surgery"],
        "phase 'd': a fusion is trained with macro or micro",
    ),
    "one name twice": ([A, A], "every phase needs a name of its own"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_regime_that_cannot_be_is_one_fault_with_its_line(name: str) -> None:
    phases, words = REFUSED[name]
    (fault,) = faults(own(*phases))
    # A regime is refused as a whole, so the place is where it begins.
    assert re.match(r"r\.yaml:[67]: ", fault) and words in fault


# What no phase can be; the fault is at the phase.
PHASES = {
    "mixup sampled": ("objective: mixup, sampling: proportional", "mixup needs balanced sampling"),
    "surgery sampled": (
        "objective: surgery, sampling: {temperature: 2.0}",
        "surgery needs balanced sampling",
    ),
    "surgery alone": ("objective: surgery, languages: [target]", "surgery needs two languages"),
    "mixup of tasks": ("objective: mixup, tasks: [task, ner]", "mixup is for one task"),
    "weights": ("weights: {nli: 2.0}", "weights must be of task"),
    "by task": ("tasks: [task, ner], languages: {task: [source]}", "by task must name task, ner"),
    "others by task": ("languages: {nli: [source]}", "languages by task must name task"),
}


@pytest.mark.parametrize("name", PHASES)
def test_a_phase_that_cannot_be_is_one_fault_with_its_line(name: str) -> None:
    fields, words = PHASES[name]
    start = "name: b" if "languages" in fields else "name: b, languages: [source, targets]"
    (fault,) = faults(own(A, f"{start}, {fields}", more="shots: [3]\n"))
    assert fault.startswith("r.yaml:9: ") and words in fault


# What a phase's fields may not hold: line 8, and the words of the one fault.
FIELDS = {
    "temperature": ("sampling: {temperature: 0.5}", "sampling.temperature: "),
    "sampling": ("sampling: balancd", "sampling: "),
    "start": ("start: lst", "start: "),
    "drop": ("drop: rnd", "drop: "),
    "runs": ("runs: 0", "runs: "),
    "runs without end": ("runs: 1000000", "runs: "),
    "weight": ("weights: {task: 0.0}", "weights.task: "),
    "objective": ("objective: macor", "objective: "),
    "no languages": ("languages: []", "languages: the list is empty"),
    "snapshots": ("budget: {snapshots: 0}", "snapshots: "),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_cannot_be_is_one_fault_with_its_line(name: str) -> None:
    fields, words = FIELDS[name]
    start = "name: a" if "languages" in fields else A
    (fault,) = faults(own(f"{start}, {fields}"))
    assert fault.startswith("r.yaml:8: ") and words in fault
    assert not re.search(r"<\w+>|literal\[|dict\[|tuple|pydantic", fault)


# What only the recipe as a whole can tell: text, line, words of the one fault.
MEANING = {
    "unknown task": (
        own("name: a, tasks: [udpo], languages: [source]"),
        8,
        "phase 'a': unknown task 'udpo'; did you mean 'udpos'?",
    ),
    "misspelt word for tasks": (
        own("name: a, tasks: [task, intermediat], languages: [source]"),
        8,
        "unknown task 'intermediat'; did you mean 'intermediate'?",
    ),
    "unknown task among the intermediate ones": (
        BASE + "  [intermediate]\nintermediate: {ner: [en], udpoz: [en]}\n",
        7,
        "unknown task 'udpoz'; did you mean 'udpos'?",
    ),
    "unknown language of an intermediate task": (
        BASE + "  [intermediate]\nintermediate: {ner: [en, qqq]}\n",
        7,
        "unknown language 'qqq'",
    ),
    "languages of the intermediate task for another": (
        own("name: a, languages: [intermediate], shots: all", more="intermediate: {ner: [en]}\n"),
        8,
        "languages 'intermediate' of 'task'; write source, targets or codes",
    ),
    "no such word to wear": (
        own(f"{A}, wear: [source, targtes]"),
        8,
        "'targtes' is no language, class or group; did you mean 'targets'?",
    ),
    "snapshots that are not kept": (
        own(A, f"{B}, start: average"),
        9,
        "wants the snapshot average of phase 'a', which keeps 1; add budgets: {a: {snapshots: 10}}",
    ),
    "a snapshot beyond those that are kept": (
        own(f"{A}, budget: {{snapshots: 3}}", f"{B}, start: 4"),
        9,
        "wants the snapshot 4 of phase 'a', which keeps 3",
    ),
    "a choice by a task that is not trained": (
        own(
            "name: a, tasks: [ner], languages: [source], budget: {snapshots: 3}",
            f"{B}, start: oracle",
        ),
        9,
        "oracle needs phase 'a' to train the task",
    ),
    "a fusion of what cannot be fused": (
        own(A, NEW, "name: d, languages: [source], adapter: fuse")
        + "task_adapter: {method: lora}\n",
        11,
        "'lora' cannot be fused, as 'own' asks",
    ),
    "a task adapter that stands on no other": (
        BASE + "  [zero-shot]\ntask_adapter: {method: par_bn}\n",
        7,
        "'par_bn' cannot be stacked on 'seq_bn_inv'",
    ),
    "a method for languages alone": (
        BASE + "  [zero-shot]\ntask_adapter: {method: seq_bn_inv}\n",
        7,
        "'seq_bn_inv' is for language adapters only; write seq_bn",
    ),
    "a combination of nothing": (
        BASE + "  [zero-shot]\nlanguage_adapters:\n  combine: {fi: {}}\n",
        8,
        "language_adapters.combine.fi: ",
    ),
    "batches by task for a language adapter": (
        BASE + "  [multitask]\nintermediate: [ner]\nbudget: {batch: {task: 8, intermediate: 4}}\n",
        8,
        "a language adapter has no tasks to give batches to",
    ),
    "an unknown language of a combination": (
        BASE + "  [zero-shot]\nlanguage_adapters:\n  combine: {fi: {fi: 0.5, fii: 0.5}}\n",
        8,
        "unknown language 'fii'",
    ),
    "a budget of no phase of that regime": (
        own(A, more="budgets: {own/b: {steps: 3}}\n"),
        9,
        "no regime has a phase 'own/b'; did you mean 'own/a'?",
    ),
}


@pytest.mark.parametrize("name", MEANING)
def test_a_recipe_that_means_nothing_is_one_fault_with_its_line(name: str) -> None:
    text, line, words = MEANING[name]
    found = faults(text)
    assert len(found) == 1 and found[0].startswith(f"r.yaml:{line}: ") and words in found[0], found


def test_an_intermediate_task_is_asked_for_by_every_task_that_lacks_one() -> None:
    text = BASE + "  [intermediate]\n"
    assert [f.partition(": ")[2] for f in faults(text)] == [
        f"regime 'intermediate' needs an intermediate task besides {task!r}; "
        "add e.g. intermediate: {nli: [en]}"
        for task in ("udpos", "nli")
    ]
    (fault,) = faults(text + "intermediate: [udpos]\n")
    assert "besides 'udpos'" in fault
    assert parse_recipe(text + "intermediate: [udpos, nli]\n", "r.yaml").recipe.tasks_of(
        "intermediate", "nli"
    ) == ("udpos",)


def test_a_word_to_wear_stands_for_no_intermediate_task() -> None:
    (fault,) = faults(own(f"{A}, wear: [intermediate]", more="intermediate: {ner: [en]}\n"))
    assert fault.startswith("r.yaml:8: ")


def test_a_fusion_goes_on_from_no_snapshot() -> None:
    """It fuses the ends of the phases; a `start` would be left aside without a word."""
    phases = [f"{A}, budget: {{snapshots: 3}}", f"{NEW}, budget: {{snapshots: 3}}"]
    (fault,) = faults(own(*phases, "name: d, languages: [source], adapter: fuse, start: average"))
    assert "start average" in fault


# What the parts of a regime are


def phase(**fields: object) -> Phase:
    return Phase.model_validate({"name": "p", "languages": ["source"], **fields})


@pytest.mark.parametrize(
    ("fields", "per_target"),
    [
        ({}, False),
        ({"languages": ["source", "targets"]}, False),
        ({"languages": ["target"]}, True),
        ({"wear": "cycle"}, False),
        ({"wear": "pair"}, True),
        ({"wear": ["source", "targets"]}, False),
        ({"wear": ["source", "target"]}, True),
        ({"start": "oracle"}, True),
        ({"start": "source-dev"}, False),
        ({"tasks": ["task", "ner"], "languages": {"task": ["source"], "ner": ["target"]}}, True),
    ],
)
def test_what_makes_a_phase_differ_from_target_to_target(
    fields: dict[str, object], per_target: bool
) -> None:
    assert phase(**fields).per_target is per_target


def test_which_phases_a_later_one_needs() -> None:
    def needed(*phases: dict[str, object]) -> tuple[int, ...]:
        named = [{"name": f"p{i}", "languages": ["source"], **p} for i, p in enumerate(phases)]
        return Regime.model_validate({"name": "r", "phases": named}).needed

    new: dict[str, object] = {"adapter": "new"}
    assert needed({}, {}) == (0, 1)
    assert needed({}, {**new}) == (1,), "nothing of the first phase is left"
    assert needed({}, {**new, "head": "keep"}) == (0, 1)
    assert needed({}, {**new, "head": "freeze"}) == (0, 1)
    assert needed({}, {"adapter": "stack"}) == (0, 1)
    assert needed({}, {}, {**new}, {"adapter": "fuse"}) == (0, 1, 2, 3)
    assert needed({}, {**new}, {**new}, {}) == (2, 3)
    assert builtin_regimes()["run-average"].needed == (0, 1)


def test_a_fusion_fuses_the_end_of_every_chain() -> None:
    named = [
        {"name": f"p{i}", "languages": ["source"], "adapter": adapter}
        for i, adapter in enumerate(["new", "continue", "new", "new", "continue", "fuse"])
    ]
    regime = Regime.model_validate({"name": "r", "phases": named})
    assert regime.builds_on(5) == (1, 2, 4) and regime.builds_on(4) == (3,)
    assert regime.builds_on(0) == regime.builds_on(2) == ()


def test_budgets_of_a_phase_and_of_a_phase_in_a_regime() -> None:
    text = BASE.replace("regimes:\n", "regimes: [sequential, zero-shot]\nshots: [3]\n")
    text += "budget: {steps: 9}\nbudgets:\n  source: {lr: 1e-3, batch: 5}\n"
    recipe = parse_recipe(text + "  sequential/source: {examples: 70, batch: 6}\n", "r").recipe
    sequential, zero = recipe.regime_list
    one = recipe.phase_budget(sequential, sequential.phases[0])
    assert (one.steps, one.examples, one.batch, one.lr) == (None, 70, 6, 1e-3)
    other = recipe.phase_budget(zero, zero.phases[0])
    assert (other.steps, other.examples, other.batch, other.lr) == (9, None, 5, 1e-3)
    assert Budget(epochs=3).over(one).examples is None


def test_a_recipe_says_how_many_snapshots_whatever_the_regime_says() -> None:
    text = BASE.replace("regimes:\n", "regimes: [zero-shot, zero-shot-average]\n")
    for more, kept in (("", 10), ("budgets: {source: {snapshots: 4}}\n", 4)):
        recipe = parse_recipe(text + more, "r.yaml").recipe
        found = [recipe.phase_budget(r, r.phases[0]).snapshots for r in recipe.regime_list]
        assert found == [kept, kept], "regimes share their source phase"
    alone = parse_recipe(text, "r.yaml", ["regimes=[zero-shot]"]).recipe
    (regime,) = alone.regime_list
    assert alone.phase_budget(regime, regime.phases[0]).snapshots is None
