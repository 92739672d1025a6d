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
    "lab/all": "b6b0ca9e1755dc6c0e6d3136bdfb9d42",
    "lab/shots": "e9b295051032d9d51e25b9e8f95f7be0",
    "local/fewshot-ner": "1b58ce00b72e5f8f5c7dddbd9add8aca",
    "local/fewshot-udpos": "bf7a5c6d0ba3ee0738e0e78e44f0e14f",
    "local/lareqa": "4ff3b6353a282db2310a2d88f6d45b55",
    "local/mlqa": "5a12b70e00dfce3decba70ff9a2344fa",
    "local/ner": "b77238de8e6710bdd2ac75c774d91665",
    "local/nli": "5757b84f56b8d190255e8ba5fbb0cf8b",
    "local/pawsx": "07d3aec9b42fbf72c901fddcba85e4b5",
    "local/sentiment": "9a35dd4f672f7b1c8fe713f91867b2f2",
    "local/sib200": "705f51d5143f30f8a688762de0040e7a",
    "local/tatoeba": "4f178f3d018852fc000d9d48190f2b29",
    "local/tydiqa": "e8a229c229c213c0d9d7e10a9ef80abb",
    "local/udpos": "9fa75cd83264442acf03500ff38fa351",
    "local/xcopa": "47351bc08b563c49d0cf7d60bc0c8bb8",
    "local/xquad": "941d3eb7ec48e1b666d89ad472b379d6",
    "methods/adapters": "44e56016629160cf21eb86e1d1fb9bf5",
    "methods/language-arithmetic": "613b53da3e832abe2bd1c0e99407727c",
    "methods/related": "9ea6c46170c6c54ca2aa7af5f627b05c",
    "plug-in/mad-x": "0570928ce76701403328b818ced1c3d2",
    "question/lab-examples": "84605c2c0453d10537cc6f8c94d7b83e",
    "question/lab": "c7a04156ec956c9c55ff122e929923d9",
    "question/local-examples": "6ec19c054c54abc49271172910dd9327",
    "question/local": "74cf180fcd7e59a51f4f67e107f1b02c",
    "quickstart/lab": "625e0d7005caf24a788d028486b1c149",
}


@pytest.mark.parametrize("name", PLANNED)
def test_golden_keys(name: str, planned: Callable[[str], Study]) -> None:
    assert digest("plan", sorted(planned(name).plan.stages))[:32] == GOLDEN[name]
