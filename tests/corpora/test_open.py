"""Opening a study: everything the recipe asks of the data and the backbone is checked at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterxlt.core.errors import AdapterXLTError, RecipeError, UsageError
from adapterxlt.corpora.backbones import folder_backbone
from adapterxlt.run.keeping import remember
from adapterxlt.run.study import Study, store_root
from adapterxlt.store.store import Store

Write = Callable[..., Path]
CONFIG = {"model_type": "xlm-roberta", "num_hidden_layers": 2, "hidden_size": 8, "vocab_size": 50}
CONFIG |= {"intermediate_size": 16, "max_position_embeddings": 130, "transformers_version": "4"}

RECIPE = """\
name: small
source: en
targets:
  - fi
  - sw
tasks: [udpos]
regimes: [zero-shot, sequential]
shots: [5, 10]
"""


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    """A folder that looks like a backbone as far as planning looks."""
    path = tmp_path / "backbone"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    (path / "model.safetensors").write_bytes(b"weights")
    (path / "tokenizer.json").write_text("{}")
    return path


@pytest.fixture
def data(folder: Path, write: Write, sentences: Callable[[int], list[Any]]) -> Path:
    write("udpos/en/train", sentences(40))
    for language in ("en", "fi", "sw"):
        write(f"udpos/{language}/test", sentences(6))
        write(f"mono/{language}/bible", [{"text": f"text {language}"}])
    write("udpos/fi/train", sentences(20))
    write("udpos/sw/validation", sentences(10))
    return folder


@pytest.fixture
def open_study(tmp_path: Path, data: Path, backbone: Path) -> Callable[..., Study]:
    def opened(*overrides: str, text: str = RECIPE, **more: Any) -> Study:
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        places = {"store": tmp_path / "store", "data": str(data), "backbone": str(backbone)}
        return Study.open(path, overrides=overrides, **{**places, **more})

    return opened


def lines(caught: pytest.ExceptionInfo[AdapterXLTError], tmp_path: Path) -> list[str]:
    return [line.removeprefix(str(tmp_path) + "/") for line in str(caught.value).splitlines()]


def test_a_study_is_planned_when_opened_and_remembered_when_run(
    open_study: Callable[..., Study], tmp_path: Path
) -> None:
    study = open_study()
    # zero-shot: two targets and the source; sequential: two targets and two grids of shots.
    assert len(study.plan.cells) == 3 + 4
    folder = tmp_path / "store" / "notes" / "studies"
    assert not folder.exists()
    for again in (study, open_study()):
        remember(again.store, again.recipe.name, again.loaded.resolved_text(), again.plan.stages)
    (note,) = folder.iterdir()
    value: Any = study.store.noted("studies", note.stem)
    assert value["name"] == "small" and value["keys"] == sorted(study.plan.stages)
    assert study.done() == set() and study.speed.origin == "a calibration of this machine"


def test_a_cell_is_found_by_its_fields(open_study: Callable[..., Study]) -> None:
    study = open_study()
    cell, key = study.cell(regime="sequential", target="sw", shots=10)
    assert study.plan.cells[cell] == key and (cell.target, cell.shots) == ("sw", 10)
    with pytest.raises(UsageError, match="no cell with target=yo"):
        study.cell(target="yo")


def test_more_shots_than_rows_is_one_line_at_the_number(
    open_study: Callable[..., Study], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as caught:
        open_study(text=RECIPE.replace("[5, 10]", "\n  - 5\n  - 15"))
    assert lines(caught, tmp_path) == [
        "recipe.yaml:10: 15 shots, but udpos has 10 validation rows in 'sw'; take 10 or fewer"
    ]


def test_fixed_shots_of_a_phase_are_checked_too(
    open_study: Callable[..., Study], tmp_path: Path
) -> None:
    own = "regimes=[{name: own, phases: [{name: a, languages: [target], shots: 12}]}]"
    with pytest.raises(RecipeError) as caught:
        open_study(own)
    (line,) = lines(caught, tmp_path)
    assert "12 shots, but udpos has 10 validation rows in 'sw'" in line


def test_every_target_without_data_is_named_at_its_line(
    open_study: Callable[..., Study], tmp_path: Path
) -> None:
    text = RECIPE.replace("  - sw", "  - sw\n  - yo\n  - ha").replace(
        "[zero-shot, sequential]", "[zero-shot]"
    )
    with pytest.raises(RecipeError) as caught:
        open_study(text=text)
    found = lines(caught, tmp_path)
    for number, code in ((6, "yo"), (7, "ha")):
        assert any(
            line.startswith(f"recipe.yaml:{number}: udpos: no test data for '{code}'")
            and "languages with udpos: en fi sw" in line
            for line in found
        )
    assert sum("no monolingual text" in line for line in found) == 2
    assert len(found) == 4


def test_a_target_without_data_is_not_named_again_for_its_shots(
    open_study: Callable[..., Study], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as caught:
        open_study("language_adapters=null", "targets=[yo]")
    (line,) = lines(caught, tmp_path)
    assert "no test data for 'yo'" in line


def test_a_faulty_row_is_named_through_the_recipe(
    open_study: Callable[..., Study], tmp_path: Path, write: Write
) -> None:
    path = write("udpos/sw/test", [{"tokens": ["a"], "upos": ["NUON"]}])
    with pytest.raises(RecipeError) as caught:
        open_study()
    (line,) = lines(caught, tmp_path)
    assert line.startswith("recipe.yaml:5: label 'NUON' is outside the label set of udpos")
    assert f"({path}:1)" in line and line.endswith("did you mean 'NOUN'?")


def test_a_language_only_a_phase_names_is_checked(open_study: Callable[..., Study]) -> None:
    own = "regimes=[{name: own, phases: [{name: a, languages: [source, de], shots: all}]}]"
    with pytest.raises(AdapterXLTError, match=r"no .* data for 'de'") as caught:
        open_study(own)
    assert caught.value.exit_code == 2


def test_data_and_backbone_are_asked_for(open_study: Callable[..., Study]) -> None:
    with pytest.raises(UsageError, match="the recipe names no data; give --data DIR"):
        open_study(data=None)
    with pytest.raises(UsageError, match="the recipe names no backbone; give --backbone DIR"):
        open_study(backbone=None)


def test_places_in_a_recipe_are_relative_to_it(
    open_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    here = open_study(text=RECIPE + "data: data\nbackbone: backbone\n", data=None, backbone=None)
    there = open_study()
    assert here.places == there.places and here.plan.cells == there.plan.cells


def test_longer_rows_than_the_backbone_has_positions_are_refused(
    open_study: Callable[..., Study],
) -> None:
    with pytest.raises(AdapterXLTError, match="128") as caught:
        open_study("max_length=512")
    assert caught.value.exit_code == 2


def test_the_store_is_given_or_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADAPTERXLT_STORE", raising=False)
    assert store_root() == Path(".adapterxlt")
    monkeypatch.setenv("ADAPTERXLT_STORE", "/somewhere")
    assert store_root() == Path("/somewhere") and store_root("/else") == Path("/else")


# Backbones


def test_the_digests_of_a_backbone_are_those_of_its_meaning(backbone: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    first = folder_backbone(backbone, store)
    assert (first.shape.layers, first.shape.hidden, first.shape.vocabulary) == (2, 8, 50)
    assert folder_backbone(backbone) == folder_backbone(backbone, Store(store.root)) == first
    moved = backbone.rename(backbone.with_name("moved"))
    (moved / "config.json").write_text(
        json.dumps({**CONFIG, "_name_or_path": "x", "transformers_version": "5"})
    )
    assert folder_backbone(moved, store).digests == first.digests
    for name, content in (
        ("model.safetensors", "w2"),
        ("tokenizer.json", "[]"),
        ("config.json", json.dumps({**CONFIG, "layer_norm_eps": 1})),
    ):
        before = folder_backbone(moved, store).digests
        (moved / name).write_text(content)
        after = folder_backbone(moved, store).digests
        assert before is not None and after is not None
        assert sum(before[part] != after[part] for part in before) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "tokenizer.json").unlink(), "backbone has no tokenizer.json"),
        (lambda f: (f / "config.json").unlink(), "backbone has no config.json"),
        (lambda f: (f / "model.safetensors").unlink(), "backbone has no model.safetensors"),
        (
            lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
            "convert its pickled weights to safetensors first",
        ),
        (lambda f: (f / "config.json").write_text("{"), "config.json: not JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json: not a JSON object"),
        (lambda f: (f / "config.json").write_text("{}"), "not an encoder's configuration"),
        (lambda f: (f / "config.json").write_bytes(b"\xff"), "config.json: not JSON: not UTF-8"),
        (
            lambda f: (f / "config.json").write_text(json.dumps({**CONFIG, "hidden_size": "8"})),
            "not an encoder's configuration",
        ),
        (
            lambda f: (f / "config.json").write_text(json.dumps({**CONFIG, "model_type": "gpt2"})),
            "architecture 'gpt2' is not supported; xlm-roberta, roberta and bert are",
        ),
    ],
)
def test_folders_that_are_no_backbone(
    backbone: Path, change: Callable[[Path], Any], words: str
) -> None:
    change(backbone)
    with pytest.raises(UsageError) as caught:
        folder_backbone(backbone)
    assert words in str(caught.value) and str(backbone) in str(caught.value)


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such backbone folder"):
        folder_backbone(tmp_path / "none")
