"""Every shipped recipe opens with what it answers and its command, loads, and can be planned."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterxlt.core.canon import digest
from adapterxlt.core.recipe import load_recipe
from adapterxlt.run.study import Study
from adapterxlt.shipped import recipe_folder, recipes

FOLDER = Path(__file__).resolve().parents[2] / "recipes"
FILES = sorted(FOLDER.rglob("*.yaml"))
NAMES = [str(path.relative_to(FOLDER).with_suffix("")) for path in FILES]


def header(path: Path) -> str:
    """The comment block at the beginning of a file."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(lines)


def test_there_are_recipes_and_all_are_found() -> None:
    assert {"quickstart/lab", "local/udpos"} <= set(NAMES)
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
    assert loaded.recipe.is_lab or loaded.recipe.data is None, "no path of one machine"


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


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_recipe_plans(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    recipe = load_recipe(path).recipe
    places = {}
    if not recipe.is_lab:
        shared: Path = request.getfixturevalue("shared")
        places = {"data": str(shared / "data"), "backbone": str(shared / "models" / "mini")}
    study = Study.open(path, store=tmp_path / "store", **places)
    assert {cell.target for cell in study.plan.cells} >= set(recipe.targets)
    assert {cell.regime for cell in study.plan.cells} == {r.name for r in recipe.regime_list}
    assert sum(study.work(key).flops for key in study.plan.stages) > 0


#: Digest of the sorted keys of each plan. A change means that old results are not found again:
#: never by accident, and with a line in the changelog when on purpose.
GOLDEN = {
    "quickstart/lab": "4da0c4c21cd76dbd9788643d33cef0bdf21c2abded8f87a52f2c15652d8f61e0",
    "local/udpos": "c69449558f315ad28828f5e1af9bcdf2433b976d98faba9b6bd04259be74b3d9",
    "local/nli": "deb2f35829a4059986ad47cdb6b1241c263dc7c438cb11458e4a72ecd7bc2a4e",
}


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_golden_keys(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    places = {}
    if not load_recipe(path).recipe.is_lab:
        shared: Path = request.getfixturevalue("shared")
        places = {"data": str(shared / "data"), "backbone": str(shared / "models" / "mini")}
    study = Study.open(path, store=tmp_path / "store", **places)
    name = str(path.relative_to(FOLDER).with_suffix(""))
    assert digest("plan", sorted(study.plan.stages)) == GOLDEN[name]
