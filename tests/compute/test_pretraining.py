"""The lab's backbone: it learns, it repeats itself, and everyone's loaders read it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from adapters import AutoAdapterModel
from transformers import AutoModelForMaskedLM, AutoTokenizer

from adapterxlt import lab
from adapterxlt.compute import pretraining
from adapterxlt.compute.snapshots import Snapshots

TINY = {
    **lab.DEFAULT_SPEC,
    "steps": 30,
    "batch": 16,
    "layers": 1,
    "hidden": 32,
    "heads": 2,
    "ffn": 32,
    "vocab": 400,
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than they bring at this size, and much more on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object], list[float]]:
    folder = tmp_path_factory.mktemp("backbone")
    losses: list[float] = []
    before = torch.random.get_rng_state()
    result = pretraining.pretrain(
        folder, spec=TINY, seed=3, on_step=lambda step, steps, loss: losses.append(loss)
    )
    assert torch.equal(before, torch.random.get_rng_state())
    return folder, result, losses


def test_loss_falls(made: tuple[Path, dict[str, object], list[float]]) -> None:
    _, result, losses = made
    assert len(losses) == result["steps"] == 30
    assert sum(losses[-5:]) < sum(losses[:5]) - 0.5
    assert result["loss"] == pytest.approx(sum(losses[-3:]) / 3)
    assert isinstance(result["tokens"], int) and result["tokens"] > 30 * 16 * 3


def test_going_on_from_a_snapshot_ends_in_the_same_bytes(
    made: tuple[Path, dict[str, object], list[float]], tmp_path: Path
) -> None:
    folder, result, _ = made
    kept: list[bytes] = []
    pretraining.pretrain(
        tmp_path / "whole", spec=TINY, seed=3, snapshots=Snapshots(save=kept.append, every=0.0)
    )
    assert len(kept) == 29
    steps: list[int] = []
    resumed = pretraining.pretrain(
        tmp_path / "rest", spec=TINY, seed=3, snapshots=Snapshots(load=lambda: kept[11]),
        on_step=lambda step, total, loss: steps.append(step),
    )  # fmt: skip
    assert steps[0] == 13 and resumed == result
    weights = (folder / "model.safetensors").read_bytes()
    assert (tmp_path / "rest" / "model.safetensors").read_bytes() == weights


def test_same_arguments_same_bytes_another_seed_others(
    made: tuple[Path, dict[str, object], list[float]], tmp_path: Path
) -> None:
    folder, result, _ = made
    torch.manual_seed(99)
    assert pretraining.pretrain(tmp_path / "again", spec=TINY, seed=3) == result
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
    pretraining.pretrain(tmp_path / "other", spec=TINY, seed=4)
    other = (tmp_path / "other" / "model.safetensors").read_bytes()
    assert other != (folder / "model.safetensors").read_bytes()


def test_folder_holds_data_only(made: tuple[Path, dict[str, object], list[float]]) -> None:
    names = {path.name for path in made[0].iterdir()}
    assert names >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
    }
    assert {Path(name).suffix for name in names} == {".json", ".safetensors"}
    assert json.loads((made[0] / "config.json").read_text())["model_type"] == "xlm-roberta"


def test_tokenizer_loads_and_writes_pairs_as_xlmr(
    made: tuple[Path, dict[str, object], list[float]],
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(made[0])
    assert [tokenizer.convert_tokens_to_ids(each) for each in pretraining.SPECIAL] == list(range(5))
    assert tokenizer.mask_token_id == pretraining.MASK
    first, second = lab.text("lab-root")[0].split()[:2], lab.text("lab-far-low")[0].split()[:2]
    parts = [
        tokenizer(" ".join(each), add_special_tokens=False)["input_ids"] for each in (first, second)
    ]
    both = tokenizer(" ".join(first), " ".join(second))
    assert both["input_ids"] == [0, *parts[0], 2, 2, *parts[1], 2]
    assert "token_type_ids" not in both
    assert tokenizer.decode(parts[1]) == " ".join(second)
    for language in lab.LANGUAGES:
        for line in lab.text(language)[:50]:
            assert pretraining.UNK not in tokenizer(line)["input_ids"]


def test_models_load(made: tuple[Path, dict[str, object], list[float]]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(made[0])
    batch = tokenizer(["", lab.text("lab-root")[0]], padding=True, return_tensors="pt")
    plain = AutoModelForMaskedLM.from_pretrained(made[0])
    assert plain(**batch).logits.shape[-1] == len(tokenizer)
    model = AutoAdapterModel.from_pretrained(made[0])
    model.add_adapter("task", config="seq_bn[reduction_factor=4]")
    model.add_tagging_head("task", num_labels=3)
    model.set_active_adapters("task")
    assert model(**batch).logits.shape == (2, batch["input_ids"].shape[1], 3)
    own, theirs = plain.roberta.state_dict(), model.roberta.state_dict()
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(own[name], theirs[name])


def test_unseen_languages_are_not_read() -> None:
    lines, pairs = pretraining.corpus()
    unseen = {line.split(f" {lab.STOP} ")[0] for line in lab.text("lab-far-none")}
    assert not unseen & {line[0] for line in lines}
    assert not {b for _, b in lab.parallel("lab-far-none", 300)} & {b for _, b in pairs}


def test_masking_hides_one_sentence_of_a_pair() -> None:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.tensor([[0, *range(5, 25), 2, 2, *range(25, 45), 2]] * 200)
    shown, chosen, wanted = pretraining._mask(inputs, 0.2, 50, generator)
    assert not (chosen & (inputs < 5)).any()
    assert torch.equal(inputs[chosen], wanted)
    assert torch.equal(inputs[~chosen], shown[~chosen])
    left, right = chosen[:, :21].any(1), chosen[:, 22:].any(1)
    assert not (left & right).any()
    assert 0.15 < chosen.sum() / (inputs >= 5).sum() < 0.25
    assert 0.75 < (shown[chosen] == pretraining.MASK).float().mean() < 0.85


def test_spec_is_closed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stepz"):
        pretraining.pretrain(tmp_path, spec={**TINY, "stepz": 1}, seed=0)
    with pytest.raises(KeyError, match="steps"):
        pretraining.pretrain(tmp_path, spec={k: v for k, v in TINY.items() if k != "steps"}, seed=0)
