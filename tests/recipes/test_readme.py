"""What the README shows works as it stands there: the study, and a regime that is not shipped."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adapterxlt.core.adoption import Reference
from adapterxlt.core.loading import parse_recipe
from adapterxlt.core.regimes import builtin_regimes
from adapterxlt.core.tasks import TASKS
from adapterxlt.corpora.reading import Reading
from adapterxlt.run.study import Study

README = Path(__file__).resolve().parents[2] / "README.md"
BLOCKS = re.findall(r"```yaml\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def block(opening: str) -> str:
    found = [text for text in BLOCKS if text.startswith(opening)]
    assert len(found) == 1, f"one block opens with {opening!r}"
    return found[0]


def test_the_study_of_the_readme_is_a_recipe() -> None:
    text = block("name: my-study")
    recipe = parse_recipe(text, "my-study.yaml").recipe
    assert recipe.targets == ("fi", "uk", "mr") and len(text.splitlines()) <= 20


def test_a_new_regime_is_a_file(tmp_path: Path) -> None:
    text = block("name: intermediate-then-joint")
    assert "intermediate-then-joint" not in builtin_regimes()
    path = tmp_path / "intermediate-then-joint.yaml"
    path.write_text(text, encoding="utf-8")
    study = Study.open(
        README.parent / "recipes" / "quickstart" / "lab.yaml",
        store=tmp_path / "store",
        overrides=[f"regimes=[zero-shot, '{path}']", "intermediate=[lab-nli]"],
    )
    chains = [s for s in study.plan.stages.values() if "below" in s.inputs]
    assert chains and all(s.params["objective"] == "surgery" for s in chains)
    first = study.plan.stages[chains[0].inputs["below"]]
    assert {stream["task"] for stream in first.params["streams"]} == {"lab-nli"}
    assert len(first.params["streams"]) == 1 + len(study.recipe.targets)


@pytest.mark.parametrize("name", sorted(builtin_regimes()))
def test_the_readme_names_every_regime(name: str) -> None:
    text = README.read_text(encoding="utf-8")
    short = re.sub(r"^(intermediate-multilingual|multi-stage|multitask)(?=-)", "", name)
    assert f"`{name}`" in text or f"`{short}`" in text


def test_the_readme_names_every_task() -> None:
    text = README.read_text(encoding="utf-8")
    missing = [name for name, task in TASKS.items() if not task.lab and f"`{name}`" not in text]
    assert not missing


def test_own_data_of_the_readme_is_a_recipe(tmp_path: Path) -> None:
    text = block("name: my-own-data")
    recipe = parse_recipe(text, str(tmp_path / "own.yaml")).recipe
    assert recipe.task("topics").columns == ("headline", "topic")
    assert recipe.task("questions").places[0].revision
    for language in ("en", "fi", "sw"):
        path = tmp_path / "news" / f"{language}.csv"
        path.parent.mkdir(exist_ok=True)
        lines = (f"{language} news {i},{'sport' if i % 2 else 'culture'}" for i in range(40))
        path.write_text("\n".join(["headline,topic", *lines]) + "\n", encoding="utf-8")
    corpus = Reading.of(recipe, None, tmp_path).open(None)
    assert corpus.task("topics").labels == ("culture", "sport")
    assert [corpus.info("topics", "fi", s).rows for s in ("train", "validation", "test")] == [
        32,
        4,
        4,
    ]


def test_adopted_adapters_of_the_readme_are_a_recipe() -> None:
    recipe = parse_recipe(block("name: plugged-in"), "plugged-in.yaml").recipe
    found = {code: recipe.adopts(code) for code in ("tr", "sw", "de", "en")}
    assert found["en"] is None and all(one.allow_pickle for one in found.values() if one)
    references = [Reference.parse(one.adapter) for one in found.values() if one]
    assert [one.place for one in references] == ["hub", "folder", "peft"]
    assert recipe.regime_list[1].adopted(1) is recipe.regime_list[1].phases[0]
