"""A small study through the worker: every stage once, the backbone untouched, rows complete."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from adapterxlt.compute.packing import to_bytes
from adapterxlt.core.errors import UsageError
from adapterxlt.corpora.reading import selection
from adapterxlt.report.results import collect, describe, missing
from adapterxlt.run import worker
from adapterxlt.run.desk import desk_for
from adapterxlt.run.prediction import choose, predict_lines
from adapterxlt.run.scheduler import Silent
from adapterxlt.run.study import Study


@pytest.fixture(scope="module")
def finished(
    tiny_backbone: Path, small_text: str, tmp_path_factory: pytest.TempPathFactory
) -> Study:
    folder = tmp_path_factory.mktemp("study")
    (folder / "small.yaml").write_text(small_text, encoding="utf-8")
    study = Study.open(folder / "small.yaml", store=folder / "s", backbone=str(tiny_backbone))
    listener = Watching(study)
    outcome = study.run(workers=0, listener=listener)
    assert not outcome.failed and not outcome.blocked
    assert Counter(outcome.computed) == Counter(list(study.plan.stages))
    assert len(set(listener.digests)) == 1 and len(listener.digests) == len(study.plan.stages)
    return study


class Watching(Silent):
    """Takes the backbone's digest after every stage."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.digests: list[str] = []

    def finished(self, key: str, error: Exception | None) -> None:
        desk = desk_for(self.study.places)
        assert desk._loaded is not None
        self.digests.append(desk._loaded[1].digest())


def test_shots_are_tokenized_as_the_whole_split_is_and_not_kept(finished: Study) -> None:
    study, desk = finished, desk_for(finished.places)
    notes = [study.store.noted("encoded", name) or {} for name in study.store.notes("encoded")]
    stages = study.plan.stages.values()
    reads = [(stage, read) for stage in stages for read in stage.params.get("streams", ())]
    few = [(stage, read) for stage, read in reads if read.get("shots") is not None]
    kept = {note["of"] for note in notes}
    assert few and kept.isdisjoint(read["data"] for _, read in few)
    for stage, read in few:
        backbone = desk.backbone(stage)
        whole = desk.encoded(backbone, stage, {**read, "shots": None})
        wanted = whole.choose(selection(len(whole.rows), read))
        assert len(wanted.rows) == read["shots"]
        assert to_bytes(desk.encoded(backbone, stage, read)) == to_bytes(wanted)


def test_every_cell_has_its_rows(finished: Study) -> None:
    rows = collect(finished)
    assert missing(finished) == []
    cells = Counter((r["regime"], r["target"], r["shots"]) for r in rows if r["primary"])
    assert cells["zero-shot", "lab-root", 0] == 1
    assert {shots for (regime, _, shots) in cells if regime != "zero-shot"} == {10}
    assert len([c for c in cells if c[0] == "joint-multilingual"]) == 3
    assert all(count == 1 for count in cells.values())
    assert all(0 <= row["score"] <= 1 and row["n"] > 50 for row in rows)
    assert {row["metric"] for row in rows} == {"accuracy", "macro_f1"}


def test_regimes_that_differ_give_adapters_that_differ(finished: Study) -> None:
    weights = set()
    trains = [k for k, s in finished.plan.stages.items() if s.kind == "train"]
    for key in trains:
        record = finished.store.read(key)
        assert record is not None
        weights.add(record.files["adapter.safetensors"])
    assert len(weights) == len(trains)


def test_running_again_computes_nothing(finished: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "run_stage", lambda *a: pytest.fail("a stage ran again"))
    again = Study.open(
        finished.loaded, store=finished.store.root, backbone=finished.places.backbone
    )
    assert again.run(workers=0).computed == []
    assert collect(again) == collect(finished)


def test_only_new_cells_are_computed_when_the_recipe_grows(finished: Study) -> None:
    more = Study.open(
        finished.loaded.document.name, store=finished.store.root,
        backbone=finished.places.backbone, overrides=["targets+=[lab-mid-mid]"],
    )  # fmt: skip
    needed = more.plan.needed(more.done())
    reused = set(more.plan.stages) & set(finished.plan.stages)
    labels = [more.plan.labels[key] for key in needed]
    assert reused and all("lab-mid-mid" in text or "multilingual" in text for text in labels)


def test_a_damaged_file_is_noticed_mended_and_made_again(finished: Study, tmp_path: Path) -> None:
    from adapterxlt.core.errors import StoreDamaged
    from adapterxlt.store.maintenance import fsck
    from adapterxlt.store.store import Store

    copy = tmp_path / "copy"
    shutil.copytree(finished.store.root, copy)
    _, key = finished.cell(regime="joint", target="lab-far-low")
    trained = finished.plan.stages[key].inputs["trained"]
    record = finished.store.read(trained)
    assert record is not None
    path = Store(copy).object_path(record.files["adapter.safetensors"])
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.chmod(0o600)
    path.write_bytes(bytes(data))
    with pytest.raises(StoreDamaged, match="does not match"):
        Store(copy).get(record.files["adapter.safetensors"])
    assert fsck(Store(copy)).damaged == (trained,)
    fsck(Store(copy), mend=True)
    Store(copy).forget(key)
    study = Study.open(finished.loaded, store=copy, backbone=finished.places.backbone)
    assert set(study.run(workers=0).computed) == {trained, key}
    again = study.store.read(trained)
    assert again is not None and again.files == record.files


def test_data_that_changed_after_planning_are_refused(
    finished: Study, tiny_backbone: Path, tmp_path: Path
) -> None:
    from adapterxlt import lab

    folder = tmp_path / "data"
    for language in ("en", "fi"):
        for split in ("train", "test"):
            path = folder / "udpos" / language / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = lab.rows("lab-pos", "lab-root", split)[:20]
            path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "name: r\nsource: en\ntargets: [fi]\ntasks: [udpos]\nregimes: [zero-shot]\n"
        "language_adapters: null\nbudget: {steps: 2, batch: 4, lr: 1e-3}\n",
        encoding="utf-8",
    )
    study = Study.open(recipe, store=tmp_path / "s", data=str(folder), backbone=str(tiny_backbone))
    train = folder / "udpos" / "en" / "train.jsonl"
    train.write_text(train.read_text(encoding="utf-8") + "\n\n", encoding="utf-8")
    outcome = study.run(workers=0)
    assert ["changed since planning" in reason for reason in outcome.failed.values()] == [True]
    assert len(outcome.blocked) == 2
    reasons = {row["reason"] for row in missing(study, outcome)}
    assert len(reasons) == 1 and "source udpos" in reasons.pop()


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_a_backbone_that_changed_after_planning_is_refused(
    name: str, finished: Study, tiny_backbone: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "backbone"
    shutil.copytree(tiny_backbone, folder)
    study = Study.open(
        finished.loaded.document.name, store=tmp_path / "s", backbone=str(folder),
        overrides=["regimes=[zero-shot]", "language_adapters=null"],
    )  # fmt: skip
    assert set(study.plan.stages) < set(
        Study.open(
            finished.loaded.document.name, store=tmp_path / "s", backbone=str(tiny_backbone),
            overrides=["language_adapters=null"],
        ).plan.stages
    )  # fmt: skip
    data = (folder / name).read_bytes()
    # Another last weight, or another last blank.
    end = bytes([data[-1] ^ 1]) if name.endswith("safetensors") else data[-1:] + b"\n"
    (folder / name).write_bytes(data[:-1] + end)
    outcome = study.run(workers=0)
    assert [r for r in outcome.failed.values() if "backbone has changed since planning" in r]
    assert not outcome.computed


def test_bf16_trains_and_has_keys_of_its_own(finished: Study) -> None:
    half = Study.open(
        finished.loaded.document.name, store=finished.store.root,
        backbone=finished.places.backbone,
        overrides=["precision=bf16", "regimes=[zero-shot]", "language_adapters=null"],
    )  # fmt: skip
    assert not set(half.plan.stages) & set(finished.plan.stages)
    assert not half.run(workers=0).failed
    record = half.store.read(next(iter(half.plan.stages)))
    assert record is not None and record.facts["final_loss"] > 0


def test_predict_answers_each_word_as_the_evaluation_did(finished: Study) -> None:
    from adapterxlt import lab

    cell, key = choose(finished, "lab-far-low", regime="joint")
    assert (cell.regime, cell.shots) == ("joint", 10)
    rows = lab.rows("lab-pos", "lab-far-low", "test")[:20]
    lines = [" ".join(row["tokens"]) for row in rows]
    answers = [json.loads(x) for x in predict_lines(finished, key, lines, as_json=True)]
    record = finished.store.read(key)
    assert record is not None
    stored = finished.store.get(record.files["predictions.jsonl"]).decode().splitlines()
    assert [a["upos"] for a in answers] == [json.loads(line)[1] for line in stored]
    text = next(iter(predict_lines(finished, key, ["ba ba"])))
    assert [part.partition("/")[0] for part in text.split()] == ["ba", "ba"]


def test_predict_asks_for_what_exists(finished: Study) -> None:
    with pytest.raises(UsageError, match="no language"):
        choose(finished, "lab-far-lo")
    with pytest.raises(UsageError, match="no cell"):
        choose(finished, "lab-far-low", shots=11)


def test_description_names_every_stage_and_split(finished: Study) -> None:
    about = describe(finished)
    assert {stage["key"] for stage in about["stages"]} == set(finished.plan.stages)
    assert all(stage["state"] == "done" and stage["seconds"] > 0 for stage in about["stages"])
    used = {(d["task"], d["language"], d["split"]) for d in about["data"]}
    assert ("lab-pos", "lab-root", "train") in used and ("text", "lab-far-low", "text") in used
    assert about["lab"] and about["versions"]["adapters"]
