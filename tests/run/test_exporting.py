"""What an export calls its backbone, and the recipe that goes with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterxlt.core.loading import load_recipe, parse_recipe
from adapterxlt.run.exporting import backbone_name


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/models/xlm-roberta-base", "xlm-roberta-base"),
        ("/hub/models--FacebookAI--xlm/snapshots/e73636d4", "FacebookAI/xlm"),
        ("/hub/models--a--b--c/snapshots/e73636d4", "a/b--c"),
        ("models/mini/", "mini"),
    ],
)
def test_a_backbone_goes_by_its_own_name(folder: str, name: str) -> None:
    assert backbone_name(Path(folder)) == name


def test_a_recipe_leaves_its_machine_behind(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        """\
name: mine
source: en
targets: [fi]
tasks: [topics]
regimes: [zero-shot]
backbone: /home/someone/models/mini
data: ~/data
question: Is this/that right?
datasets:
  topics:
    kind: classification
    files: /home/someone/{language}/{split}.csv
    labels: [/, a/b, B-X]
language_adapters: {places: [{files: text/fi.txt}]}
""",
        encoding="utf-8",
    )
    loaded = load_recipe(path)
    text = loaded.portable_text()
    assert "someone" not in text and "home" not in text and "~" not in text
    again = parse_recipe(text, "again").recipe
    assert again.backbone == "mini" and again.data == "data"
    task = again.datasets["topics"]
    assert task.places[0].files == "{split}.csv" and task.labels == ("/", "a/b", "B-X")
    assert again.question == "Is this/that right?"
    kept = {"backbone", "data", "datasets"}
    assert again.model_dump(exclude=kept) == loaded.recipe.model_dump(exclude=kept)
    assert loaded.recipe.backbone == "/home/someone/models/mini"
