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
    "lab/all": "5617f0aa17ac729fd3ff55331c4d12a1",
    "lab/shots": "855a369b378e97588dde2cc1bf87bc97",
    "local/fewshot-ner": "908050191ed2ee5c63487f4f7ff13649",
    "local/fewshot-udpos": "eb67a7707cd42649d81e2e063a21dc05",
    "local/lareqa": "2943f44c95b5e43d1fc60e0b2e1bdb2a",
    "local/mlqa": "6b96ed5b54977fd632f97d660f4e855a",
    "local/ner": "ef0677d7342346c2231fe6ebf607c5ef",
    "local/nli": "924ab91f70499ca3a93771597f5bf357",
    "local/pawsx": "a61c05e6afa807c5b87d1a35dd21a709",
    "local/sentiment": "1703489efa213b74ad7d4d0597f14d2a",
    "local/sib200": "fe71f7abbcc27c8282569f7cf828f3cf",
    "local/tatoeba": "532d2a4ccbfd0f9b77b4754790159fc0",
    "local/tydiqa": "363e3d69974fd2a6a6ebbc5e45607d7f",
    "local/udpos": "3ed2756145fa002505ac144017d33986",
    "local/xcopa": "3fc57255845cc2a3c733f5508fc656be",
    "local/xquad": "ef7c9b314a5551d4fab7178e28ae0561",
    "methods/adapters": "4c3a7a661f9b80ac92b0e5b95310b6d6",
    "methods/language-arithmetic": "fe064262170e89d2f832cf3266eae798",
    "methods/related": "a7bc84300df958089aab0441418eb09e",
    "plug-in/mad-x": "e1c4f4124627d0b2cb001a0edc81702a",
    "question/lab-examples": "2efee95f424939d557702241f2bc035c",
    "question/lab": "7a8fa5a7093d4f2519f8ffaa180d6b21",
    "question/local-examples": "707da253e92da5ce62e7d3bfc7063ecb",
    "question/local": "13ebae9648a88627efe287a3faeed37f",
    "quickstart/lab": "32ea04bf0cfea9cb91038bda9f5b3d01",
}


@pytest.mark.parametrize("name", PLANNED)
def test_golden_keys(name: str, planned: Callable[[str], Study]) -> None:
    assert digest("plan", sorted(planned(name).plan.stages))[:32] == GOLDEN[name]
