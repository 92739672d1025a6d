"""Every shipped recipe opens with what it answers and its command, loads, and can be planned."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from adapterxlt.core.canon import digest
from adapterxlt.core.loading import load_recipe
from adapterxlt.run.study import Study
from adapterxlt.shipped import recipe_folder, recipes

FOLDER = Path(__file__).resolve().parents[2] / "recipes"
FILES = sorted(FOLDER.rglob("*.yaml"))
NAMES = [str(path.relative_to(FOLDER).with_suffix("")) for path in FILES]
#: Those that are planned here; test_paper.py and test_xtreme.py plan the others.
PLANNED = [name for name in NAMES if not name.startswith(("paper/", "xtreme-r"))]


def header(path: Path) -> str:
    """The comment block at the beginning of a file."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(lines)


def test_there_are_recipes_and_all_are_found() -> None:
    assert {"quickstart/lab", "local/udpos", "local/fewshot-ner", "question/lab"} <= set(NAMES)
    assert recipe_folder() == FOLDER and list(recipes()) == NAMES


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_recipe_opens_with_what_it_is(path: Path) -> None:
    opening = header(path)
    assert opening and f"adapterxlt run {path.relative_to(FOLDER).with_suffix('')}" in opening
    assert len(opening.split()) > 20


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_recipe_loads_and_says_its_question(path: Path) -> None:
    loaded = load_recipe(path)
    assert loaded.recipe.question.endswith("?")
    assert loaded.recipe.is_lab or loaded.recipe.data in (None, "hub"), "no path of one machine"


def test_names_of_recipes_are_their_own() -> None:
    names = [load_recipe(path).recipe.name for path in FILES]
    assert len(set(names)) == len(names), "results/NAME is one folder a recipe"


def test_recipes_are_installed_with_the_package() -> None:
    import configparser
    from fnmatch import fnmatch

    setup = configparser.ConfigParser()
    setup.read(FOLDER.parent / "setup.cfg")
    globs = setup["options.data_files"]
    for path in FILES:
        place = path.relative_to(FOLDER.parent)
        pattern = globs.get(f"share/adapterxlt/{place.parent}", "")
        assert any(fnmatch(str(place), glob) for glob in pattern.split()), (
            f"{place} is not installed"
        )


@pytest.fixture(scope="module")
def planned(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Study]:
    """``planned(name)``: the recipe of that name, planned once."""
    store = tmp_path_factory.mktemp("store")

    @cache
    def plan(name: str) -> Study:
        path = FOLDER / f"{name}.yaml"
        places = {}
        if not load_recipe(path).recipe.is_lab:
            shared: Path = request.getfixturevalue("shared")
            places = {"data": str(shared / "data"), "backbone": str(shared / "models" / "mini")}
        return Study.open(path, store=store, **places)

    return plan


@pytest.mark.parametrize("name", PLANNED)
def test_a_recipe_plans(name: str, planned: Callable[[str], Study]) -> None:
    study = planned(name)
    recipe = study.recipe
    assert {cell.target for cell in study.plan.cells} >= set(recipe.targets)
    assert {cell.regime for cell in study.plan.cells} == {r.name for r in recipe.regime_list}
    assert sum(study.work(key).flops for key in study.plan.stages) > 0


#: Half a digest of the sorted keys of each plan. A change means that old results are not found
#: again: never by accident, and with a line in the changelog when on purpose.
GOLDEN = {
    "lab/all": "171e39e19d4a23a6f924a79a8de08fe4",
    "lab/shots": "f8eda12bb530f095a87d3b9585211645",
    "local/fewshot-ner": "777c592fa49b846b9ea87caaecbc79e8",
    "local/fewshot-udpos": "e8eced83c7293110b4424936595ff2be",
    "local/lareqa": "2e109441b6d9a6d74e9ff5c084316137",
    "local/mlqa": "b055e4006fd5cf82b02ca6e1ebbf7660",
    "local/ner": "941d81c855ee17961ac4cbe8e8e1e8ca",
    "local/nli": "1b7caab2e238910b02e4afc81b6fcf1b",
    "local/pawsx": "e048f52f72e44a0531321f80b02b9c1e",
    "local/sentiment": "d7650ac4ec9a96af5f86a03d8a0c4163",
    "local/sib200": "3a1d38839cd7ec879b57dd1802cf8eef",
    "local/tatoeba": "10f5e56de3ca6b0563e68c348dc148d7",
    "local/tydiqa": "e20d0372081e7f9e972b67ab8c7fa9fd",
    "local/udpos": "f34f51d034c3e89d60c1ad9d3f02c7c6",
    "local/xcopa": "04637e19dbde276ea62753922308af1d",
    "local/xquad": "4586c0783ae42f7d8278b9a06888fd42",
    "methods/adapters": "8373ccb85fb209834ede098320180443",
    "methods/language-arithmetic": "5f6b6877ec6e782fece23e8e11e7d9d0",
    "methods/related": "70c199ee54445866dafe3706a2e20d45",
    "plug-in/mad-x": "8dd7229d7327882054d2d39f78f30221",
    "question/lab-examples": "a4fe9c49c110c523e707de08ab8fc6bc",
    "question/lab": "c2bdee7bb7be3a312541390d15077608",
    "question/local-examples": "eb320688f76e8b0d754f665b40951b0e",
    "question/local": "a892f7c907af226176fa10d71eadee1d",
    "quickstart/lab": "8441625f0e213ebe9c886e254f815f41",
}


@pytest.mark.parametrize("name", PLANNED)
def test_golden_keys(name: str, planned: Callable[[str], Study]) -> None:
    assert digest("plan", sorted(planned(name).plan.stages))[:32] == GOLDEN[name]
