"""Recipes: every fault in one line with its place, overrides, regime files, round trips, schema."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterxlt.core.errors import RecipeError, UsageError
from adapterxlt.core.loading import LoadedRecipe, json_schema, load_recipe, parse_recipe
from adapterxlt.core.recipe import Recipe
from adapterxlt.core.yamlio import Document

BASE = """\
name: base
source: en
targets: [fi, mr]
tasks: [udpos]
regimes: [zero-shot]
"""


def load(text: str, *overrides: str) -> Recipe:
    return parse_recipe(text, "r.yaml", overrides).recipe


def faults(text: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(text, *overrides)
    return str(caught.value).splitlines()


def replaced(field: str, value: str) -> str:
    """The base recipe with one field's line written differently."""
    text, count = re.subn(rf"(?m)^{field}: .*$", f"{field}: {value}", BASE)
    assert count == 1
    return text


def phase(text: str) -> str:
    return replaced("regimes", f"[{{name: own, phases: [{{name: first, {text}}}]}}]")


# Every bad input: the text, the line and the words its one fault must have.
BAD = {
    "misspelt field": (BASE + "shost: [1]\n", 6, "unknown field 'shost'; did you mean 'shots'?"),
    "misspelt regimes": (
        BASE.replace("regimes:", "regime:"),
        5,
        "unknown field 'regime'; did you mean 'regimes'?",
    ),
    "misspelt inner field": (
        BASE + "budget:\n  stesp: 3\n",
        7,
        "unknown field 'budget.stesp'; did you mean 'steps'?",
    ),
    "misspelt field of a language adapter": (
        BASE + "language_adapters: {adapter: {methd: seq_bn_inv}}\n",
        6,
        "seq_bn has no parameter 'methd'; known: ",
    ),
    "misspelt field of a named budget": (
        BASE + "budgets: {source: {epoch: 3}}\n",
        6,
        "unknown field 'budgets.source.epoch'; did you mean 'epochs'?",
    ),
    "misspelt field of a phase": (
        phase("languages: [source], ware: own"),
        5,
        "unknown field 'regimes.0.phases.0.ware'; did you mean 'wear'?",
    ),
    "a word for a number": (BASE + "max_length: long\n", 6, "max_length: "),
    "a number for a word": (replaced("source", "5"), 2, "source: "),
    "a word for a list": (
        replaced("targets", "fi"),
        3,
        "targets: input should be a list, not 'fi'",
    ),
    "a list for a mapping": (BASE + "budget: [3]\n", 6, "budget: input should be a mapping"),
    "a quoted number": (BASE + "budget: {lr: '1e-3'}\n", 6, "budget.lr: "),
    "a truth value for a number": (BASE + "seeds: [true]\n", 6, "seeds.0: "),
    "not a number": (BASE + "budget: {lr: .nan}\n", 6, "budget.lr: "),
    "negative": (BASE + "budget: {lr: -1}\n", 6, "greater than 0, not -1"),
    "seed too large": (BASE + "seeds: [3000000000]\n", 6, "seeds.0: "),
    "both lengths": (
        BASE + "budget: {steps: 3, epochs: 4}\n",
        6,
        "give one of steps, epochs and examples",
    ),
    "unknown scheme of classes": (BASE + "classes: jushi\n", 6, "classes: "),
    "classes with a word for a list": (BASE + "classes: {low: fi}\n", 6, "classes.low: "),
    "classes as a number": (BASE + "classes: 3\n", 6, "classes: "),
    "shots of a phase misspelt": (phase("languages: [source], shots: gird"), 5, "shots: "),
    "shots of a phase not positive": (phase("languages: [target], shots: 0"), 5, "shots"),
    "unknown wear": (phase("languages: [source], wear: owm"), 5, "wear: "),
    "no targets": (replaced("targets", "[]"), 3, "targets: "),
    "no phases": (replaced("regimes", "[{name: own, phases: []}]"), 5, "phases: "),
    "a number for a regime": (replaced("regimes", "[5]"), 5, "regimes.0: "),
    "a name with spaces": (replaced("name", "a b"), 1, "name: "),
    "duplicate key": (
        BASE + "source: de\n",
        6,
        "duplicate key 'source'; first given in line 2",
    ),
    "unknown source": (replaced("source", "qqq"), 2, "unknown language 'qqq'"),
    "unknown target": (replaced("targets", "[fi, fii]"), 3, "unknown language 'fii'; did you mean"),
    "three-letter code": (replaced("targets", "[fin]"), 3, "unknown language 'fin'; write 'fi'"),
    "unknown lab language": (
        replaced("source", "lab-rot"),
        2,
        "unknown language 'lab-rot'; did you mean 'lab-root'?",
    ),
    "unknown task": (replaced("tasks", "[udpo]"), 4, "unknown task 'udpo'; did you mean 'udpos'?"),
    "unknown regime": (
        replaced("regimes", "[zeroshot]"),
        5,
        "unknown regime 'zeroshot'; did you mean 'zero-shot'?",
    ),
    "unknown method": (
        BASE + "task_adapter:\n  method: seq_bnn\n",
        7,
        "unknown method 'seq_bnn'; did you mean 'seq_bn'?",
    ),
    "unknown method of the language adapter": (
        BASE + "language_adapters: {adapter: {method: madx}}\n",
        6,
        "unknown method 'madx'",
    ),
    "an invertible task adapter": (
        BASE + "task_adapter: {method: seq_bn_inv}\n",
        6,
        "write seq_bn",
    ),
    "target is the source": (
        replaced("targets", "[fi, en]"),
        3,
        "target 'en' is the source; take it out",
    ),
    "a target twice": (replaced("targets", "[fi, mr, fi]"), 3, "'fi' stands twice in targets"),
    "a task twice": (replaced("tasks", "[udpos, udpos]"), 4, "'udpos' stands twice in tasks"),
    "a regime twice": (
        replaced("regimes", "[zero-shot, zero-shot]"),
        5,
        "'zero-shot' stands twice in regimes",
    ),
    "a seed twice": (BASE + "seeds: [1, 2, 1]\n", 6, "1 stands twice in seeds"),
    "a draw twice": (BASE + "draws: [1, 1]\n", 6, "1 stands twice in draws"),
    "shots missing": (
        replaced("regimes", "[sequential]"),
        5,
        "regime 'sequential' needs shots; add e.g. shots: [10, 100]",
    ),
    "a word that is no language": (
        phase("languages: [source, targtes], shots: 5"),
        5,
        "'targtes' is no language, class or group; did you mean 'targets'?",
    ),
    "a budget for no phase": (
        BASE + "budgets: {shotz: {steps: 3}}\n",
        6,
        "no regime has a phase 'shotz'; did you mean 'shots'?",
    ),
    "a missing regime file": (replaced("regimes", "[none.yaml]"), 5, "none.yaml"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_input_gives_one_line_with_its_place(name: str) -> None:
    text, line, words = BAD[name]
    found = [fault for fault in faults(text) if "is missing" not in fault]
    assert len(found) == 1, found
    assert found[0].startswith(f"r.yaml:{line}: ") and words in found[0]
    assert not re.search(r"literal\[|dict\[|tuple|NoneType|pydantic", found[0])


def test_every_missing_field_is_named() -> None:
    assert [f.partition(": ")[2] for f in faults("name: x\n")] == [
        f"field {name!r} is missing" for name in ("source", "targets", "tasks", "regimes")
    ]


@pytest.mark.parametrize("text", ["", "- a\n", "word\n", "5\n", "null\n"])
def test_a_recipe_is_a_mapping(text: str) -> None:
    assert faults(text) == ["r.yaml: a recipe is a mapping of fields"]


def test_all_faults_are_reported_at_once_in_file_order() -> None:
    text = """\
name: many
source: qqq
targets: [fi, fi, lab-nowhere]
tasks: [udpo]
regimes: [sequential, zeroshot]
seeds: [1, 1]
task_adapter: {method: lora9}
budgets: {shotz: {steps: 3}}
"""
    found = faults(text)
    assert [fault.split(":")[1] for fault in found] == list("233455678")


def test_schema_faults_are_reported_at_once() -> None:
    text = BASE + "sheeds: [1]\nmax_length: x\nbudget: {lr: 0}\nlimits: {tset: 1}\n"
    assert [fault.split(":")[1] for fault in faults(text)] == list("6789")


def test_faults_of_form_and_of_meaning_are_reported_together() -> None:
    text = replaced("source", "qqq") + "sheeds: [1]\n"
    assert [fault.split(":")[1] for fault in faults(text)] == ["2", "6"]


# Overrides


def test_overrides_replace_append_and_reach_inside() -> None:
    recipe = load(
        BASE + "budget: {steps: 5, batch: 4}\n",
        "seeds=[3, 4]",
        "targets+=[sw]",
        "targets+=yo",
        "budget.steps=7",
        "language_adapters.adapter.reduction_factor=4",
        "precision=bf16",
    )
    assert recipe.seeds == (3, 4)
    assert recipe.targets == ("fi", "mr", "sw", "yo")
    assert (recipe.budget.steps, recipe.budget.batch) == (7, 4)
    assert recipe.language_adapters is not None
    assert recipe.language_adapters.adapter.reduction_factor == 4
    assert recipe.precision == "bf16"


def test_values_of_overrides_are_yaml() -> None:
    recipe = load(BASE, "budget={steps: 3, lr: 1e-5}", "language_adapters=null", "question='a = b'")
    assert recipe.budget.lr == 1e-5 and recipe.language_adapters is None
    assert recipe.question == "a = b"


def test_later_overrides_win_and_the_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(BASE, encoding="utf-8")
    assert load_recipe(path, ["seeds=[2]", "seeds=[3]"]).recipe.seeds == (3,)
    assert load_recipe(path).recipe.seeds == (1,)
    assert path.read_text(encoding="utf-8") == BASE


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seeds", "override 'seeds' has no value; write key=value"),
        ("=3", "override '=3' has no value"),
        ("name+=x", "name is not a list; use = instead of +="),
    ],
)
def test_overrides_without_sense(override: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(BASE, override)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seeds=[1", "not valid YAML"),
        ("seeds=[1, 1]", "1 stands twice in seeds"),
        ("source=qqq", "unknown language 'qqq'"),
        ("targets+=qqq", "unknown language 'qqq'"),
        ("budget.stesp=3", "unknown field 'budget.stesp'; did you mean 'steps'?"),
        ("budget.steps=many", "budget.steps: "),
        ("source.inner=3", "source: "),
        ("regimes=[sequential]", "needs shots"),
    ],
)
def test_faults_of_overrides_name_the_override_not_a_line(override: str, words: str) -> None:
    (fault,) = faults(BASE + "budget: {lr: 1e-3}\n", override)
    assert words in fault
    assert not re.match(r"r\.yaml:\d", fault)


# Regimes of one's own

OWN = """\
name: careful
phases:
  - {name: start, languages: [source]}
  - name: high
    languages: [high, target]
    shots: 20
    wear: source
"""


def test_a_regime_inline_and_from_a_file_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "careful.yaml").write_text(OWN, encoding="utf-8")
    path = tmp_path / "r.yaml"
    path.write_text(replaced("regimes", "[own/careful.yaml, zero-shot]"), encoding="utf-8")
    lines = "".join(f"    {line}\n" for line in OWN.splitlines())
    inline = (
        BASE.replace("regimes: [zero-shot]", "regimes:") + "  -" + lines[3:] + "  - zero-shot\n"
    )
    from_file, written = load_recipe(path).recipe, load(inline)
    assert from_file == written
    assert from_file.regime_list[0].phases[1].shots == 20
    assert from_file.regime_list[1].name == "zero-shot"


def test_faults_of_a_regime_file_name_that_file(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(
        "name: bad\nphases:\n  - name: a\n    languages: [source]\n    waer: own\n    head: bald\n",
        encoding="utf-8",
    )
    path = tmp_path / "r.yaml"
    path.write_text(replaced("regimes", "[bad.yaml]"), encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    lines = str(caught.value).splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        f"{tmp_path / 'bad.yaml'}:{n}" for n in (5, 6)
    ]
    assert "unknown field 'phases.0.waer'; did you mean 'wear'?" in lines[0]


def test_a_regime_file_that_is_no_mapping_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("- a\n", encoding="utf-8")
    (tmp_path / "dup.yaml").write_text("name: a\nname: b\n", encoding="utf-8")
    path = tmp_path / "r.yaml"
    path.write_text(replaced("regimes", "[bad.yaml, dup.yaml]"), encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2 and "bad.yaml" in lines[0] and "dup.yaml:2" in lines[1]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such recipe"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9\n")
    with pytest.raises(UsageError, match="cannot be read"):
        load_recipe(tmp_path / "latin.yaml")
    with pytest.raises(UsageError, match="cannot be read"):
        load_recipe(tmp_path)


# What a recipe says


def test_budgets_go_from_the_papers_to_the_phases_own() -> None:
    recipe = load(
        replaced("regimes", "[sequential]") + "shots: [10]\nbudget: {steps: 100, lr: 1e-3}\n"
        "budgets: {shots: {epochs: 5, warmup: 0.2}}\n"
    )
    source, shots = recipe.regime_list[0].phases
    first = recipe.phase_budget(recipe.regime_list[0], source)
    assert (first.steps, first.epochs, first.lr, first.batch, first.weight_decay) == (
        *(100, None, 1e-3, 32),
        0.05,
    )
    then = recipe.phase_budget(recipe.regime_list[0], shots)
    assert (then.steps, then.epochs, then.lr, then.schedule, then.warmup) == (
        *(None, 5, 1e-3),
        *("constant", 0.2),
    )


def test_classes_sort_targets() -> None:
    recipe = load(replaced("targets", "[fi, de, yo]") + "classes: {mine: [fi, yo]}\n")
    assert [recipe.class_of(code) for code in recipe.targets] == ["mine", "other", "mine"]

    def members(word: str, of: Recipe = recipe) -> tuple[str, ...]:
        return of.members(word, "udpos", "fi")

    assert members("mine") == ("fi", "yo") and members("target") == ("fi",)
    assert members("targets") == recipe.targets
    assert members("source") == ("en",) and members("sw") == ("sw",)
    lab = load(BASE.replace("[fi, mr]", "[lab-near-low, lab-mid-mid]"))
    assert members("low", lab) == ("lab-near-low",) and members("mid", lab) == ("lab-mid-mid",)
    assert load(BASE, "data=lab").is_lab and not load(BASE).is_lab


# Round trips

_CODES = ["en", "fi", "mr", "de", "zh", "sw", "yo", "id", "no", "lab-root", "lab-far-low"]
_TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t"), max_size=30
)
_small = st.integers(1, 1000)
_POSITIVE = st.floats(1e-8, 100.0)
_WEARS = st.sampled_from(["own", "source", "none"])


def _some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


_BUDGETS = st.builds(
    lambda body, length: {**body, **length},
    _some(
        batch=_small,
        lr=_POSITIVE,
        schedule=st.sampled_from(["linear", "constant"]),
        warmup=st.floats(0, 0.99),
        weight_decay=st.floats(0, 1),
        clip=_POSITIVE,
    ),
    st.sampled_from([{}, {"steps": 7}, {"epochs": 3}]),
)


def _adapters(*methods: str) -> st.SearchStrategy[dict[str, Any]]:
    return _some(
        method=st.sampled_from(methods),
        reduction_factor=st.sampled_from([2, 2.5, 16, 16.0]),
        non_linearity=st.sampled_from(["relu", "gelu", "swish", "tanh"]),
        leave_out=st.lists(st.integers(0, 11), unique=True, max_size=3),
    )


_PHASES = st.builds(
    lambda need, more: {**need, **more},
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["a", "b", "c-1"]),
            "languages": st.lists(
                st.sampled_from(["source", "target", "targets", "de"]), min_size=1, unique=True
            ),
        }
    ),
    _some(
        shots=st.sampled_from(["grid", "all", 5]),
        wear=_WEARS,
        adapter=st.sampled_from(["continue", "new"]),
        head=st.sampled_from(["keep", "new"]),
        budget=_BUDGETS,
    ),
)
_REGIMES = st.sampled_from(["zero-shot", "sequential", "multi-stage"]) | st.fixed_dictionaries(
    {
        "name": st.sampled_from(["own-1", "own-2", "1e5"]),
        "phases": st.lists(_PHASES, min_size=1, max_size=2, unique_by=lambda p: p["name"]),
    }
)


@st.composite
def _recipes(draw: st.DrawFn) -> dict[str, Any]:
    codes = draw(st.lists(st.sampled_from(_CODES), min_size=2, max_size=5, unique=True))
    regimes = draw(
        st.lists(
            _REGIMES,
            min_size=1,
            max_size=3,
            unique_by=lambda r: r if isinstance(r, str) else r["name"],
        )
    )
    seeds = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=3, unique=True)
    value = {
        "name": draw(st.from_regex(r"\A[a-z0-9][a-z0-9._-]{0,10}\Z")),
        "source": codes[0],
        "targets": codes[1:],
        "tasks": draw(
            st.lists(st.sampled_from(["udpos", "nli", "lab-pos"]), min_size=1, unique=True)
        ),
        "regimes": regimes,
        "shots": draw(st.lists(_small, min_size=1, max_size=3, unique=True)),
    }
    optional = _some(
        question=_TEXT,
        backbone=_TEXT,
        data=_TEXT,
        draws=seeds,
        seeds=seeds,
        classes=st.sampled_from(["joshi", "cc100"])
        | st.dictionaries(_TEXT, st.lists(st.sampled_from(_CODES)), max_size=2),
        language_adapters=st.none()
        | _some(
            adapter=_adapters("seq_bn_inv", "seq_bn", "double_seq_bn_inv"),
            budget=_BUDGETS,
            seed=st.integers(0, 9),
            mask=st.floats(0.01, 0.9),
            texts=st.lists(_TEXT, max_size=2),
        ),
        task_adapter=_adapters("seq_bn", "double_seq_bn"),
        budget=_BUDGETS,
        budgets=st.dictionaries(st.sampled_from(["source", "shots", "joint"]), _BUDGETS),
        limits=_some(train=_small, test=_small, text=_small),
        max_length=st.integers(8, 8192),
        precision=st.sampled_from(["fp32", "bf16"]),
    )
    return {**value, **draw(optional)}


@settings(max_examples=60, deadline=None)
@given(_recipes())
def test_the_resolved_text_reads_back_equal(value: dict[str, Any]) -> None:
    recipe = Recipe.model_validate(value)
    text = LoadedRecipe(recipe, Document("r.yaml", "", {})).resolved_text()
    again = parse_recipe(text, "again.yaml")
    assert again.recipe == recipe
    assert again.resolved_text() == text


@pytest.mark.parametrize(
    "text",
    [
        *("\t", "a\u2028b", "\ufeff", "\u202e", "no", "1e-5", "0o17", " a ", "", "#"),
        *("x" * 90 + "\\u0000 y", "x" * 88 + " \\" * 9),
    ],
)
def test_odd_texts_survive_the_resolved_text(text: str) -> None:
    recipe = load(BASE).model_copy(update={"question": text})
    again = LoadedRecipe(recipe, Document("r.yaml", "", {})).resolved_text()
    assert load(again).question == text


def test_the_resolved_text_has_every_default() -> None:
    text = parse_recipe(BASE, "r.yaml").resolved_text()
    for line in ("precision: fp32", "max_length: 128", "method: seq_bn_inv", "mask: 0.15"):
        assert line in text


# The schema for editors, checked with the few words of JSON Schema that pydantic writes.


def _schema_faults(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> list[str]:
    if "$ref" in schema:
        schema = {**root["$defs"][schema["$ref"].rpartition("/")[2]], **schema}
    known = {"$ref", "$defs", "title", "description", "default", "type", "properties", "required"}
    known |= {"additionalProperties", "items", "minItems", "minLength", "pattern", "const", "enum"}
    known |= {
        "minProperties",
        "propertyNames",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "maxItems",
        "anyOf",
        "oneOf",
    }
    assert schema.keys() <= known, f"the validator of this test lacks {schema.keys() - known}"
    for word in ("anyOf", "oneOf"):
        if word in schema and all(_schema_faults(value, s, root) for s in schema[word]):
            return [f"{value!r} fits no branch"]
    kinds = {"object": dict, "array": list, "string": str, "number": (int, float), "integer": int}
    kinds |= {"boolean": bool, "null": type(None)}
    if "type" in schema:
        fits = isinstance(value, kinds[schema["type"]])
        if not fits or (isinstance(value, bool) and schema["type"] != "boolean"):
            return [f"{value!r} is no {schema['type']}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{value!r} not in {schema['enum']}"]
    if "const" in schema and value != schema["const"]:
        return [f"{value!r} is not {schema['const']!r}"]
    found = []
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        found.append(f"{value!r} does not match")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        if not low <= value <= high or value <= schema.get("exclusiveMinimum", value - 1):
            found.append(f"{value} out of range")
        if value >= schema.get("exclusiveMaximum", value + 1):
            found.append(f"{value} out of range")
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            found.append("too short")
        if len(value) > schema.get("maxItems", len(value)):
            found.append("too long")
        for item in value:
            found += _schema_faults(item, schema.get("items", {}), root)
    if isinstance(value, dict):
        found += ["too short"] if len(value) < schema.get("minProperties", 0) else []
        found += [f"{name} is missing" for name in schema.get("required", ()) if name not in value]
        more = schema.get("additionalProperties", True)
        for name, item in value.items():
            inner = schema.get("properties", {}).get(name, more)
            if inner is False:
                found.append(f"{name} is unknown")
            elif isinstance(inner, dict):
                found += _schema_faults(item, inner, root)
    return found


@settings(max_examples=30, deadline=None)
@given(_recipes())
def test_what_loads_fits_the_schema(value: dict[str, Any]) -> None:
    schema = json_schema()
    assert _schema_faults(value, schema, schema) == []
    resolved = json.loads(Recipe.model_validate(value).model_dump_json())
    assert _schema_faults(resolved, schema, schema) == []


def _written() -> dict[str, str]:
    """The recipes that are shipped and those in the README, by name."""
    root = Path(__file__).resolve().parents[2]
    found = {str(path): path.read_text(encoding="utf-8") for path in root.glob("recipes/**/*.yaml")}
    readme = (root / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(name: (?:my-|plugged).*?)```", readme, re.DOTALL)
    return found | {f"README {i}": text for i, text in enumerate(blocks)}


def test_what_is_shipped_and_shown_fits_the_schema() -> None:
    """As it is written, with the short forms: an editor must not underline it."""
    from adapterxlt.core.yamlio import parse

    schema, written = json_schema(), _written()
    assert len(written) > 25
    found = {n: _schema_faults(parse(t, n).value, schema, schema) for n, t in written.items()}
    assert not {name: faults for name, faults in found.items() if faults}


@pytest.mark.parametrize(
    "override",
    [
        *("seeds=1", "shots=[0]", "source=5", "precision=fp16", "max_length=3", "targets=[]"),
        *("budget={lr: 0}", "budget={stesp: 1}", "datasets={a: {kind: tagging, fiels: a}}"),
        *(
            "datasets={a: {kind: tagging, places: [{fiels: a}]}}",
            "nothing=1",
            "regimes=[{name: a}]",
        ),
        "regimes=[{name: a, phases: [{name: a, languages: [source], waer: own}]}]",
    ],
)
def test_what_does_not_load_does_not_fit_the_schema(override: str) -> None:
    from adapterxlt.core.yamlio import parse

    key, _, text = override.partition("=")
    value = {**parse(BASE, "r.yaml").value, key: parse(text, "o").value}
    schema = json_schema()
    assert _schema_faults(value, schema, schema)
    assert faults(BASE, override)


def test_every_field_of_the_schema_says_what_it_is() -> None:
    schema = json_schema()
    assert schema["title"] == "adapterxlt recipe" and schema["additionalProperties"] is False
    silent = [
        n
        for n, field in schema["properties"].items()
        if not (field.get("description") or "$ref" in field)
    ]
    assert set(silent) <= {"source", "targets", "tasks", "shots", "precision"}


def test_a_language_of_a_class_is_known() -> None:
    text = (
        "name: r\nsource: en\ntargets: [fi]\ntasks: [udpos]\nregimes: [zero-shot]\n"
        "classes:\n  high: [fi]\n  low: [mrr]\n"
    )
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "r.yaml")
    assert str(caught.value).startswith("r.yaml:8: unknown language 'mrr'; did you mean ")


@pytest.mark.parametrize(
    ("written", "adopted"),
    [
        ("auto", {"any": "auto"}),
        ("{adopt: auto, missing: error}", {"any": "auto"}),
        ("{fi: ./fi, adopt: {sw: auto}}", {"sw": "auto", "fi": "./fi"}),
        ("{fi: {adapter: ./fi, allow_pickle: true}}", {"fi": "./fi"}),
    ],
)
def test_what_language_adapters_may_be_short_for(written: str, adopted: dict[str, str]) -> None:
    from adapterxlt.core.yamlio import parse

    value = {**parse(BASE, "r.yaml").value, "language_adapters": parse(written, "o").value}
    assert _schema_faults(value, json_schema(), json_schema()) == []
    recipe = Recipe.model_validate(value)
    found = recipe.language_adapters
    assert found is not None
    assert {code: one.adapter for code, one in found.adopt.items()} == adopted
    assert found.adapter.method == "seq_bn_inv"
    assert Recipe.model_validate(json.loads(recipe.model_dump_json())) == recipe
    short = recipe.adopts("de")
    assert (short is not None) == ("any" in adopted)


@pytest.mark.parametrize(
    "text", ["{fi: org/fi}", "{fi: 'hub:../x'}", "{fi: 'hub:a/b@..'}", "{fi: 'hub:a'}", "{fi: x}"]
)
def test_what_is_no_reference_is_a_fault_with_its_line(text: str) -> None:
    (said,) = faults(BASE, f"language_adapters={text}")
    assert ("language_adapters" in said and "write hub:" in said) or "a revision is" in said


def test_a_misspelt_intermediate_task_beside_one_that_is_not_trained_on() -> None:
    text = "name: t\nsource: en\ntargets: [de]\ntasks: [tatoeba]\nregimes: [zero-shot, multitask]\n"
    with pytest.raises(RecipeError) as caught:
        load(text + "intermediate: {nli: [en], tydiqaa: [en]}\nlanguage_adapters: null\n")
    assert str(caught.value) == "r.yaml:6: unknown task 'tydiqaa'; did you mean 'tydiqa'?"
