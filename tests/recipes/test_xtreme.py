"""XTREME-R's recipe: planned whole without a network and without data, at pinned commits."""

from __future__ import annotations

import json
import re
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from adapterxlt.core.canon import digest
from adapterxlt.core.tasks import TASKS, XTREME_R
from adapterxlt.run.study import Study

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "xtreme-r.yaml"
#: How many languages the benchmark's evaluator has for each task (google-research/xtreme@838c13b).
LANGUAGES = {
    "xnli": 15,
    "xcopa": 11,
    "udpos": 38,
    "wikiann": 48,
    "xquad": 12,
    "mlqa": 7,
    "tydiqa": 9,
    "tatoeba": 41,
    "mewslix": 11,
    "lareqa": 11,
}
CONFIG = {"model_type": "xlm-roberta", "num_hidden_layers": 2, "hidden_size": 8, "vocab_size": 50}
CONFIG |= {"intermediate_size": 16, "max_position_embeddings": 514, "pad_token_id": 1}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """The recipe, planned where any connection is an error; a backbone as far as planning looks."""

    def refuse(*_: Any) -> None:
        raise AssertionError("planning asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    folder = tmp_path / "backbone"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer.json").write_bytes(b"tokenizer")
    return Study.open(RECIPE, store=tmp_path / "store", backbone=str(folder))


def test_the_registry_has_the_benchmarks_tasks_and_languages() -> None:
    assert set(XTREME_R) == set(LANGUAGES)
    assert {name: len(TASKS[name].languages or ()) for name in XTREME_R} == LANGUAGES
    fifty = {code for name in XTREME_R for code in TASKS[name].languages or ()}
    assert len(fifty) == 50
    for task in TASKS.values():
        assert len(set(task.languages or ())) == len(task.languages or ()), task.name


def test_every_task_on_a_hub_is_pinned_and_says_its_training_size() -> None:
    for name in (*XTREME_R, "siqa", "squad", "pawsx", "americasnli", "sentiment"):
        places = [place for place in TASKS[name].places if place.hub]
        assert places or name == "mewslix"
        for place in places:
            assert re.fullmatch(r"[0-9a-f]{40}", place.revision or "")
            trains = place.splits is None or "train" in place.splits
            assert place.rows.get("train") or not trains or name == "wikiann"


def test_it_plans_whole_without_network_or_data(study: Study) -> None:
    cells = Counter(cell.task for cell in study.plan.cells)
    runs = len(study.recipe.seeds) * len(study.recipe.regimes)
    assert cells == {task: LANGUAGES[task] * runs for task in XTREME_R if task != "mewslix"}
    for task in study.recipe.tasks:
        scored = {cell.target for cell in study.plan.cells if cell.task == task}
        assert scored == set(TASKS[task].languages or ())
    assert len(study.recipe.all_targets) == 49
    splits = study.hub_splits()
    assert {split.hub for split in splits} >= {"facebook/xnli", "google/xquad", "lighteval/siqa"}
    trained = [s for s in study.plan.stages.values() if s.kind == "train"]
    read = {(d["task"], d["language"]) for s in trained for d in s.params["streams"]}
    # Zero-shot: on a benchmark's own tasks nothing but English is trained on.
    assert {language for task, language in read if task in XTREME_R} == {"en"}
    assert not any(task == "tatoeba" for task, _ in read)


def test_retrieval_is_of_the_backbone_and_of_what_was_trained_on_other_tasks(study: Study) -> None:
    by_regime: dict[str, set[bool]] = {}
    for cell, key in study.plan.cells.items():
        if cell.task == "tatoeba":
            by_regime.setdefault(cell.regime, set()).add("trained" in study.plan.stages[key].inputs)
    assert by_regime.pop("zero-shot") == {False}
    assert set(map(frozenset, by_regime.values())) == {frozenset({True})}


def test_golden_keys(study: Study) -> None:
    assert digest("plan", sorted(study.plan.stages))[:32] == "6a6ed71256dc65dbc279ca18d893dbeb"
