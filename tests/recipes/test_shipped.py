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
    "lab/all": "b8ba3ab8cf51f78db495639bb7b59b12",
    "lab/shots": "855a369b378e97588dde2cc1bf87bc97",
    "local/fewshot-ner": "46d2f8bf68521c98fbfbcf102484cc5c",
    "local/fewshot-udpos": "12d9ec25ca0cead1d67f83b93474bb40",
    "local/lareqa": "2943f44c95b5e43d1fc60e0b2e1bdb2a",
    "local/mlqa": "6b96ed5b54977fd632f97d660f4e855a",
    "local/ner": "ef0677d7342346c2231fe6ebf607c5ef",
    "local/nli": "56737a44905924fd6e4cdd6ce5dcfd46",
    "local/pawsx": "a61c05e6afa807c5b87d1a35dd21a709",
    "local/sentiment": "1703489efa213b74ad7d4d0597f14d2a",
    "local/sib200": "fe71f7abbcc27c8282569f7cf828f3cf",
    "local/tatoeba": "532d2a4ccbfd0f9b77b4754790159fc0",
    "local/tydiqa": "363e3d69974fd2a6a6ebbc5e45607d7f",
    "local/udpos": "4d862edf473683e10fdfad260fffe67d",
    "local/xcopa": "3fc57255845cc2a3c733f5508fc656be",
    "local/xquad": "ef7c9b314a5551d4fab7178e28ae0561",
    "methods/adapters": "494ccac494422cfc78f80ea08a64a211",
    "methods/language-arithmetic": "21526888e3ebede8efaca263d42b00b2",
    "methods/related": "71ccbaf92765a24f51e19ffad02175e4",
    "plug-in/mad-x": "a2e5294ad70baca33d404d6d242b509c",
    "question/lab-examples": "32210d1aa8f9205eb8f640f6f7b70daa",
    "question/lab": "a226899128835bdda16c96f098ba5a72",
    "question/local-examples": "053554509ed66d289f406f9699c94dfa",
    "question/local": "b0358486da188a2bfb13c9f7029b6f26",
    "quickstart/lab": "4c924e01b3956c747ad36156a4f141ce",
}


@pytest.mark.parametrize("name", PLANNED)
def test_golden_keys(name: str, planned: Callable[[str], Study]) -> None:
    assert digest("plan", sorted(planned(name).plan.stages))[:32] == GOLDEN[name]
