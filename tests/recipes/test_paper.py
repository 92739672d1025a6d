"""The paper's recipes: they validate, plan and keep their keys, on a small folder made here.

No real data is needed: what a plan depends on is how many rows there are, and their bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from adapterxlt.core.canon import digest
from adapterxlt.core.errors import RecipeError
from adapterxlt.core.loading import load_recipe
from adapterxlt.core.tasks import TASKS
from adapterxlt.run.study import Study

FOLDER = Path(__file__).resolve().parents[2] / "recipes" / "paper"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
REGIMES = {
    *("zero-shot", "target-only", "sequential", "joint", "joint-last", "joint-oracle"),
    *("joint-micro", "joint-mixup", "joint-multilingual", "multi-stage", "multi-stage-stack"),
}
#: Tasks whose targets give shots of their validation split.
NO_TRAIN = ("nli", "pawsx")
CONFIG = {"model_type": "xlm-roberta", "num_hidden_layers": 2, "hidden_size": 8, "vocab_size": 50}
CONFIG |= {"intermediate_size": 16, "max_position_embeddings": 514, "pad_token_id": 1}
#: Whole, the four have 46,000 stages. Draws and seeds change numbers in them and nothing else.
ONE = ("draws=[1]", "seeds=[42]")


def row(task: str, language: str, split: str, number: int) -> dict[str, Any]:
    """A row that a reader accepts, different from every other."""
    kind, words = TASKS[task], f"{language} {split} {number}"
    label: Any = kind.labels[number % len(kind.labels)]
    if kind.kind == "tagging":
        tokens = words.split()
        return {kind.inputs[0]: tokens, kind.label: [label.replace("I-", "B-")] * len(tokens)}
    # The benchmark has numbers.
    label = int(label) if label.isdigit() else label
    return {column: f"{column} {words}" for column in kind.inputs} | {kind.label: label}


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(item) + "\n" for item in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A data folder with every language of the recipes, and a backbone as far as planning looks."""
    folder = tmp_path_factory.mktemp("paper")
    for name in NAMES:
        recipe = load_recipe(FOLDER / f"{name}.yaml").recipe
        for task in recipe.tasks:
            for language in (recipe.source, *recipe.targets):
                target = language != recipe.source
                shots = "validation" if target and task in NO_TRAIN else "train"
                for split, count in ((shots, max(recipe.shots) if target else 640), ("test", 4)):
                    rows = [row(task, language, split, i) for i in range(count)]
                    write(folder / "data" / task / language / f"{split}.jsonl", rows)
                text = [{"text": f"text {language} {i}"} for i in range(3)]
                write(folder / "data" / "mono" / language / "wiki.jsonl", text)
    backbone = folder / "backbone"
    backbone.mkdir()
    (backbone / "config.json").write_text(json.dumps(CONFIG))
    (backbone / "model.safetensors").write_bytes(b"weights")
    (backbone / "tokenizer.json").write_text("{}")
    return {
        "data": str(folder / "data"),
        "backbone": str(backbone),
        "store": str(folder / "store"),
    }


@pytest.fixture(scope="module")
def studies(places: dict[str, str]) -> dict[str, Study]:
    return {
        name: Study.open(FOLDER / f"{name}.yaml", overrides=ONE, **places)  # type: ignore[arg-type]
        for name in NAMES
    }


def test_there_is_a_recipe_for_each_task_of_the_paper() -> None:
    assert NAMES == ["nli", "pawsx", "udpos", "wikiann"]
    for name in NAMES:
        recipe = load_recipe(FOLDER / f"{name}.yaml").recipe
        assert recipe.seeds == (42, 43, 44, 45, 46) and len(recipe.draws) > 1
        assert recipe.tasks == (name,) and recipe.name == f"paper-{name}"


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_plans_every_regime_for_every_target(studies: dict[str, Study], name: str) -> None:
    study = studies[name]
    recipe, cells = study.recipe, Counter()
    for cell in study.plan.cells:
        cells[cell.regime] += cell.role == "target"
    assert set(cells) == REGIMES
    assert cells.pop("zero-shot") == len(recipe.targets)
    assert set(cells.values()) == {len(recipe.targets) * len(recipe.shots)}


@pytest.mark.parametrize("name", NAMES)
def test_the_budgets_are_those_of_the_comments(studies: dict[str, Study], name: str) -> None:
    """Batch and schedule of every phase by regime, and the source trained once for all regimes."""
    study = studies[name]
    trained: dict[str, set[tuple[Any, ...]]] = {}
    for key, stage in study.plan.stages.items():
        if stage.kind == "train" and stage.params["objective"] != "mlm":
            budget, phase = stage.params["budget"], study.plan.labels[key].split()[0]
            about = (stage.params["objective"], budget["batch"], budget["schedule"])
            trained.setdefault(phase, set()).add(about)
    mixup = {"nli": 32, "pawsx": 32, "udpos": 16, "wikiann": 16}[name]
    together = {"nli": 8, "pawsx": 32, "udpos": 8, "wikiann": 32}[name]
    assert trained == {
        "source": {("macro", 32, "linear")},
        "shots": {("macro", 32, "constant")},
        "joint": {("macro", 16, "linear"), ("micro", 16, "linear"), ("mixup", mixup, "linear")},
        "multilingual": {("macro", together, "linear")},
        "bilingual": {("macro", 16, "linear")},
    }
    sources = [label for label in study.plan.labels.values() if label.startswith("source ")]
    assert len(sources) == 1


@pytest.mark.parametrize("name", NAMES)
def test_shots_come_from_the_split_of_the_comments(studies: dict[str, Study], name: str) -> None:
    splits = {
        stream["split"]
        for stage in studies[name].plan.stages.values()
        if stage.kind == "train"
        for stream in stage.params["streams"]
        if stream.get("shots")
    }
    assert splits == {"validation" if name in NO_TRAIN else "train"}


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_says_where_it_is_from(name: str) -> None:
    """A comment at every line of the recipe's body, or at the line it goes on from."""
    body = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").partition("source: ")[2]
    body, _, claims = body.partition("claims:")
    assert "# ours" in claims
    bare = [line for line in body.splitlines() if "#" not in line]
    allowed = ("tasks:", "regimes:", "language_adapters:", "budgets:", "classes:")
    assert [line for line in bare if not line.startswith(allowed)] == []


def test_a_grid_beyond_the_data_is_refused_at_its_number(places: dict[str, str]) -> None:
    with pytest.raises(RecipeError, match=r"251 shots, but udpos has 250 train rows in 'af'"):
        Study.open(FOLDER / "udpos.yaml", overrides=["shots+=[251]", *ONE], **places)  # type: ignore[arg-type]


#: Digest of the sorted keys of each plan on this folder. A change means that old results are not
#: found again: never by accident, and with a line in the changelog when on purpose.
GOLDEN = {
    "nli": "9eb3c1d0c30a76bc8b6c3c0cb2fc4b24d4cc221dd9176f491ffa63bdcaa382fb",
    "pawsx": "031d8199102188c454a221bf268288da4fd9b01717461e39ab3a82b52eeca24e",
    "udpos": "ba2fcd1f373feebd61e29a207b977b5d5a39ad9122c2f44f4ebb0160958fbfc8",
    "wikiann": "441c51bceba052afc9cb3db956a0894fd38e706e1b169496248550d797f6368d",
}


@pytest.mark.parametrize("name", NAMES)
def test_golden_keys(studies: dict[str, Study], name: str) -> None:
    assert digest("plan", sorted(studies[name].plan.stages)) == GOLDEN[name]
