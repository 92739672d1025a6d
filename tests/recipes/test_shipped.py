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
    "lab/all": "aebd409f4c0fc5b35e0e1fb57677ee59",
    "lab/shots": "9192ae3f2d03b016fafaf733f2f997eb",
    "local/fewshot-ner": "162af4b7bbddbec6798fd6a85f745a7d",
    "local/fewshot-udpos": "5c90ae21744ef73c8832b11b0205ca00",
    "local/lareqa": "27b14eb62db2039f9bf407aa4e359b47",
    "local/mlqa": "732819fb7c71206b5cb8524d97777cea",
    "local/ner": "8f72a4710c4f320014c8677e221d73e1",
    "local/nli": "aef270c6500882aee8be3d4f910de8aa",
    "local/pawsx": "28834e5e4e1b8a888553c5de306001f6",
    "local/sentiment": "5cacfe86b6014255836d6e16d8a77eb2",
    "local/sib200": "9b24ea68cdaa4fdac9d1cfd6e054d7c4",
    "local/tatoeba": "69501722103e979162f845a284e20371",
    "local/tydiqa": "cb811c12e6f6e29f868638b5f784eb04",
    "local/udpos": "fefc999c20a62848e3586bcc88194ac4",
    "local/xcopa": "a304de11d8d9fb5370ae9c7296cc44b1",
    "local/xquad": "739bea5eee1884c8c6b3a7264b5bab69",
    "methods/adapters": "e0d7fcb3085bc6175a67aae2294a1263",
    "methods/language-arithmetic": "0f676acd4eda9247ae60e03a8ed3dff8",
    "methods/related": "f0f3d18aa177a8475ad7f86fb3db0649",
    "plug-in/mad-x": "47b2d99fd4c32f6ae90a8beb266ba108",
    "question/lab-examples": "fc7ff153934b5bb516a92be32187aaef",
    "question/lab": "dbcc86cc183bbaf09db3aeeb4cdbacc6",
    "question/local-examples": "e1957ace3ca52be96f0aa5319c6beea6",
    "question/local": "43007023f108eb8de0570473dd0f4e36",
    "quickstart/lab": "e6c5370ae345db8676d74191ac0c3263",
}


@pytest.mark.parametrize("name", PLANNED)
def test_golden_keys(name: str, planned: Callable[[str], Study]) -> None:
    assert digest("plan", sorted(planned(name).plan.stages))[:32] == GOLDEN[name]
