"""An adopted adapter computes what it computes in plain `adapters` or plain `peft`.

The plain side makes the adapter, saves it as these libraries do, and runs it; ours is handed the
folder. Weights are drawn large, so that no adapter is near to doing nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapters
import peft
import pytest
import torch
from adapters import AutoAdapterModel
from adapters.composition import Stack
from safetensors.torch import load, load_file, save_file
from transformers import AutoModel, AutoModelForTokenClassification, AutoTokenizer

from adapterxlt import lab
from adapterxlt.compute.backbone import Backbone
from adapterxlt.core.adapters import AdapterSpec
from adapterxlt.core.dialects import _NAMES, of_adapters
from adapterxlt.core.errors import AdapterXLTError, RefusedError, UsageError
from adapterxlt.core.tasks import TASKS
from adapterxlt.report.results import collect
from adapterxlt.run.adopting import adopt_one
from adapterxlt.run.study import Study
from adapterxlt.store.store import Store

LABELS = list(TASKS["lab-pos"].labels)
PLAIN: dict[str, tuple[Any, str]] = {
    "seq_bn": (adapters.SeqBnConfig(reduction_factor=4), "seq_bn"),
    "seq_bn_inv": (adapters.SeqBnInvConfig(reduction_factor=2), "seq_bn_inv"),
    "seq_bn leaving out": (adapters.SeqBnConfig(leave_out=[1], non_linearity="gelu"), "seq_bn"),
    "double_seq_bn": (adapters.DoubleSeqBnConfig(), "double_seq_bn"),
    "double_seq_bn_inv": (adapters.DoubleSeqBnInvConfig(), "double_seq_bn_inv"),
    "par_bn": (adapters.ParBnConfig(), "par_bn"),
    "compacter": (adapters.CompacterConfig(reduction_factor=4), "compacter"),
    "compacter++": (adapters.CompacterPlusPlusConfig(reduction_factor=4), "compacterpp"),
    "lora": (adapters.LoRAConfig(r=4, alpha=16), "lora"),
    "lora of all": (
        adapters.LoRAConfig(
            attn_matrices=["q", "k", "v"], intermediate_lora=True, output_lora=True
        ),
        "lora",
    ),
    "ia3": (adapters.IA3Config(), "ia3"),
    "prefix_tuning": (adapters.PrefixTuningConfig(prefix_length=5), "prefix_tuning"),
    "flat prefixes": (adapters.PrefixTuningConfig(flat=True, prefix_length=5), "prefix_tuning"),
}
QUERY = ["query", "value"]
PEFT: dict[str, tuple[Any, str]] = {
    "lora": (peft.LoraConfig(r=4, lora_alpha=16, target_modules=QUERY), "peft_lora"),
    "lora by pattern": (
        peft.LoraConfig(target_modules=r".*\.attention\.self\.(query|key|value)"),
        "peft_lora",
    ),
    "lora of one layer": (
        peft.LoraConfig(target_modules=QUERY, layers_to_transform=[1]),
        "peft_lora",
    ),
    "dora": (peft.LoraConfig(r=4, use_dora=True, target_modules=QUERY), "peft_dora"),
    "ia3": (
        peft.IA3Config(
            target_modules=["key", "value", r"output.dense"],
            feedforward_modules=["output.dense"],
        ),
        "peft_ia3",
    ),
}
#: `output.dense` is also the end of `attention.output.dense`, which our (IA)³ does not scale.
PEFT["ia3"][0].target_modules = {f"layer.{i}.{p}" for i in range(2) for p in (
    "attention.self.key", "attention.self.value", "output.dense")}  # fmt: skip
PEFT["ia3"][0].feedforward_modules = {f"layer.{i}.output.dense" for i in range(2)}


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return Backbone(tiny_backbone)


@pytest.fixture
def batch(tiny_backbone: Path) -> dict[str, torch.Tensor]:
    rows = lab.rows("lab-pos", "lab-mid-mid", "test")[:6]
    tokenizer = AutoTokenizer.from_pretrained(tiny_backbone)
    texts = [" ".join(row["tokens"]) for row in rows]
    return dict(tokenizer(texts, padding=True, return_tensors="pt"))


def plain_model(folder: Path) -> Any:
    torch.manual_seed(0)
    return AutoAdapterModel.from_pretrained(folder, attn_implementation="eager").eval()


def shaken(model: Any, own: Callable[[str], bool], seed: int = 7) -> None:
    """Other weights, large ones, for the parameters of an adapter or head."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if own(name):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)


def named(name: str) -> Callable[[str], bool]:
    return lambda full: name in full.split(".")


def states(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(**batch)[0]
    return found


def adopted(reference: Path, folder: Path, store: Path, **how: Any) -> dict[str, Any]:
    return adopt_one(
        str(reference), str(folder), store=str(store), base_folder=Path("/"),
        listener=lambda line: None, **how,
    )  # fmt: skip


def worn(backbone: Backbone, found: dict[str, Any], store: Path, batch: Any) -> torch.Tensor:
    """Our states with what was adopted, from the bytes in the store."""
    record = Store(store).read(found["key"])
    assert record is not None
    weights = load(Store(store).get(record.files["adapter.safetensors"]))
    backbone.reset()
    backbone.add_adapter("a", found["adapter"], weights=weights)
    backbone.activate(("a",))
    with torch.no_grad():
        return backbone.hidden(batch["input_ids"], batch["attention_mask"])


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "pickle"])
@pytest.mark.parametrize("name", PLAIN)
def test_an_adapter_of_adapters(
    name: str, safe: bool, tiny_backbone: Path, backbone: Backbone, batch: Any, tmp_path: Path
) -> None:
    config, method = PLAIN[name]
    if safe and config.architecture == "prefix_tuning":
        pytest.skip("the library cannot save what shares memory as safetensors")
    model = plain_model(tiny_backbone)
    model.add_adapter("theirs", config=config)
    bare = states(model.base_model, batch)
    shaken(model, named("theirs"))
    model.save_adapter(str(tmp_path / "a"), "theirs", use_safetensors=safe)
    model.set_active_adapters("theirs")
    expected = states(model.base_model, batch)
    assert (expected - bare).abs().max() > 0.05
    found = adopted(tmp_path / "a", tiny_backbone, tmp_path / "s", allow_pickle=not safe)
    assert found["adapter"]["method"] == method and found["pickle"] is not safe
    assert torch.equal(worn(backbone, found, tmp_path / "s", batch), expected)


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "pickle"])
@pytest.mark.parametrize("name", PEFT)
def test_an_adapter_of_peft(
    name: str, safe: bool, tiny_backbone: Path, backbone: Backbone, batch: Any, tmp_path: Path
) -> None:
    config, method = PEFT[name]
    base = AutoModel.from_pretrained(tiny_backbone, attn_implementation="eager")
    bare = states(base.eval(), batch)
    model = peft.get_peft_model(base, config).eval()
    shaken(model, lambda full: "lora_" in full or "ia3_" in full)
    model.save_pretrained(str(tmp_path / "a"), safe_serialization=safe)
    expected = states(model, batch)
    assert (expected - bare).abs().max() > 0.05
    found = adopted(tmp_path / "a", tiny_backbone, tmp_path / "s", allow_pickle=not safe)
    assert found["adapter"]["method"] == method
    torch.testing.assert_close(
        worn(backbone, found, tmp_path / "s", batch), expected, atol=2e-6, rtol=0
    )


# --- old dialects --------------------------------------------------------------------------------


def rewritten(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def first_dialect(config: dict[str, Any]) -> None:
    """As the first version wrote it: no version, the invertible block by itself, an old name."""
    del config["version"]
    inner = config["config"]
    kept = ("mh_adapter", "output_adapter", "reduction_factor", "original_ln_before", "ln_after")
    kept += ("original_ln_after", "ln_before", "residual_before_ln", "adapter_residual_before_ln")
    factor = inner["inv_adapter_reduction_factor"]
    block = {"block_type": "nice", "non_linearity": "gelu", "reduction_factor": factor}
    config["config"] = {name: inner[name] for name in kept}
    config["config"] |= {"non_linearity": "gelu", "invertible_adapter": block}
    config |= {"type": "text_lang", "model_class": "BertModelWithHeads"}


OLD_NAMES = {
    ".output.adapters.": ".output.layer_text_lang_adapters.",
    "invertible_adapters.": "invertible_lang_adapters.",
}


def test_the_first_dialect(
    tiny_backbone: Path, backbone: Backbone, batch: Any, tmp_path: Path
) -> None:
    """Names of tensors and of activations as of 2020; the library itself says what they mean."""
    model = plain_model(tiny_backbone)
    config = adapters.SeqBnInvConfig(non_linearity="gelu_new", reduction_factor=2)
    model.add_adapter("tr", config=config)
    shaken(model, named("tr"))
    folder = tmp_path / "a"
    model.save_adapter(str(folder), "tr", use_safetensors=True)
    tensors = load_file(folder / "adapter.safetensors")
    for new, old in OLD_NAMES.items():
        tensors = {name.replace(new, old): tensor for name, tensor in tensors.items()}
    assert sum("text_lang" in name for name in tensors) == len(tensors) - 8
    (folder / "adapter.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_adapter.bin")
    rewritten(folder, first_dialect)
    other = plain_model(tiny_backbone)
    info: dict[str, Any] = {}
    other.load_adapter(str(folder), load_as="theirs", set_active=True, loading_info=info)
    found = adopted(folder, tiny_backbone, tmp_path / "s", allow_pickle=True)
    assert found["adapter"]["method"] == "seq_bn_inv"
    assert found["adapter"]["non_linearity"] == "gelu_new"
    ours = worn(backbone, found, tmp_path / "s", batch)
    model.set_active_adapters("tr")
    assert torch.equal(ours, states(model.base_model, batch))
    assert torch.equal(ours, states(other.base_model, batch))


def test_a_task_adapter_that_declares_an_invertible_block_it_has_not_got(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    model = plain_model(tiny_backbone)
    model.add_adapter("sst", config=adapters.SeqBnConfig(reduction_factor=2))
    model.save_adapter(str(tmp_path / "a"), "sst", use_safetensors=True)

    def declares(config: dict[str, Any]) -> None:
        config["type"] = "text_task"
        config["config"] |= {"inv_adapter": "nice", "inv_adapter_reduction_factor": 2}

    rewritten(tmp_path / "a", declares)
    assert adopted(tmp_path / "a", tiny_backbone, tmp_path / "s")["adapter"]["method"] == "seq_bn"
    rewritten(tmp_path / "a", lambda config: config.update(type="text_lang"))
    with pytest.raises(RefusedError, match="8 of 16 tensors are missing"):
        adopted(tmp_path / "a", tiny_backbone, tmp_path / "s2")


def test_low_rank_updates_from_before_their_scaling_was_mended(
    tiny_backbone: Path, backbone: Backbone, batch: Any, tmp_path: Path
) -> None:
    model = plain_model(tiny_backbone)
    model.add_adapter("a", config=adapters.LoRAConfig(r=4, alpha=16))
    shaken(model, named("a"))
    model.save_adapter(str(tmp_path / "a"), "a", use_safetensors=True)
    (tmp_path / "a" / "pytorch_adapter.bin").touch()  # the library looks for it before it reads
    rewritten(tmp_path / "a", lambda config: config.update(version="adapters.1.0.1"))
    other = plain_model(tiny_backbone)
    other.load_adapter(str(tmp_path / "a"), set_active=True, use_safetensors=True)
    found = adopted(tmp_path / "a", tiny_backbone, tmp_path / "s")
    assert found["adapter"]["alpha"] == found["adapter"]["r"] == 4
    ours = worn(backbone, found, tmp_path / "s", batch)
    assert torch.equal(ours, states(other.base_model, batch))


@pytest.mark.parametrize("name", _NAMES)
def test_a_configuration_may_be_a_name(name: str) -> None:
    """What the library says that it stands for."""
    written = {"config": adapters.AdapterConfig.load(name).to_dict(), "version": "adapters.1.3.0"}
    names = {"roberta.invertible_adapters.a.F.0.weight"}
    by_name = of_adapters({**written, "config": name}, names, "")
    assert by_name.resolved() == of_adapters(written, names, "").resolved()


# --- heads ---------------------------------------------------------------------------------------


def tagged(model: Any, folder: Path, labels: list[str], name: str = "pos", **head: Any) -> None:
    model.add_adapter(name, config=adapters.SeqBnConfig(reduction_factor=4))
    model.add_tagging_head(name, num_labels=len(labels), id2label=dict(enumerate(labels)), **head)
    shaken(model, named(name))
    model.save_adapter(str(folder), name, use_safetensors=True)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_head_in_another_order(
    layers: int, tiny_backbone: Path, backbone: Backbone, batch: Any, tmp_path: Path
) -> None:
    model, labels = plain_model(tiny_backbone), LABELS[::-1]
    tagged(model, tmp_path / "a", labels, layers=layers)
    model.set_active_adapters("pos")
    model.active_head = "pos"
    expected = states(model, batch)[..., [labels.index(label) for label in LABELS]]
    found = adopted(tmp_path / "a", tiny_backbone, tmp_path / "s", task="lab-pos")
    ours = worn(backbone, found, tmp_path / "s", batch)
    record = Store(tmp_path / "s").read(found["key"])
    assert record is not None
    form = record.stage["params"]["heads"]["lab-pos"]
    head = load(Store(tmp_path / "s").get(record.files["head-lab-pos.safetensors"]))
    backbone.add_head("h", form, weights=head)
    with torch.no_grad():
        logits = backbone.head_logits("h", ours)
    torch.testing.assert_close(logits, expected, atol=1e-6, rtol=0)


def test_a_head_of_peft_has_no_labels(
    tiny_backbone: Path, backbone: Backbone, batch: Any, tmp_path: Path
) -> None:
    base = AutoModelForTokenClassification.from_pretrained(
        tiny_backbone, num_labels=len(LABELS), attn_implementation="eager"
    )
    config = peft.LoraConfig(r=4, target_modules=QUERY, task_type="TOKEN_CLS")
    model = peft.get_peft_model(base, config).eval()
    shaken(model, lambda full: "lora_" in full or "modules_to_save" in full)
    model.save_pretrained(str(tmp_path / "a"))
    with pytest.raises(UsageError, match="the head does not say its labels; say labels: "):
        adopted(tmp_path / "a", tiny_backbone, tmp_path / "s", task="lab-pos")
    labels = (LABELS[1], LABELS[0], *LABELS[2:])
    found = adopted(tmp_path / "a", tiny_backbone, tmp_path / "s", task="lab-pos", labels=labels)
    ours = worn(backbone, found, tmp_path / "s", batch)
    record = Store(tmp_path / "s").read(found["key"])
    assert record is not None
    head = load(Store(tmp_path / "s").get(record.files["head-lab-pos.safetensors"]))
    backbone.add_head("h", record.stage["params"]["heads"]["lab-pos"], weights=head)
    with torch.no_grad():
        logits = backbone.head_logits("h", ours)
    order = [labels.index(label) for label in LABELS]
    torch.testing.assert_close(logits, states(model, batch)[..., order], atol=2e-6, rtol=0)


# --- studies -------------------------------------------------------------------------------------

STUDY = """\
name: plugged
data: lab
source: lab-root
targets: [lab-near-high]
tasks: [lab-pos]
regimes:
  - name: theirs
    phases: [{name: adopted, adopt: ./pos}]
  - name: theirs-then-shots
    phases:
      - {name: adopted, adopt: ./pos}
      - {name: shots, languages: [target]}
  - name: stacked
    phases:
      - {name: adopted, adopt: ./pos}
      - {name: shots, languages: [target], adapter: stack}
  - zero-shot
shots: [20]
language_adapters:
  lab-near-high: ./near
  adapter: {method: seq_bn_inv, reduction_factor: 2}
  budget: {steps: 3, batch: 8, lr: 1e-3}
budget: {steps: 4, batch: 8, lr: 1e-3}
limits: {train: 60, test: 40, text: 60}
"""


def plug(folder: Path, backbone: Path) -> Any:
    """A language adapter and a task adapter with its head, as the library saves them."""
    model = plain_model(backbone)
    model.add_adapter("near", config=adapters.SeqBnInvConfig(reduction_factor=2))
    shaken(model, named("near"))
    model.save_adapter(str(folder / "near"), "near", use_safetensors=True)
    tagged(model, folder / "pos", LABELS[::-1])
    return model


def predictions(model: Any, folder: Path, rows: Any, labels: list[str]) -> list[list[str]]:
    """Of plain `adapters`: a word's label is that at its first sub-word."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for row in rows:
        batch = tokenizer([row["tokens"]], is_split_into_words=True, return_tensors="pt")
        words = batch.word_ids(0)
        best = states(model, dict(batch))[0].argmax(-1).tolist()
        found.append([labels[best[words.index(i)]] for i in range(len(row["tokens"]))])
    return found


def test_a_study_with_adopted_adapters(tiny_backbone: Path, tmp_path: Path) -> None:
    """To the digit what plain `adapters` gives with the same stack and head."""
    model = plug(tmp_path, tiny_backbone)
    (tmp_path / "r.yaml").write_text(STUDY)
    study = Study.open(tmp_path / "r.yaml", store=tmp_path / "s", backbone=str(tiny_backbone))
    labels = [study.plan.labels[k] for k, s in study.plan.stages.items() if s.kind == "adopt"]
    assert labels == ["adopt lab-pos from ./pos", "adopt language lab-near-high from ./near"]
    outcome = study.run(workers=0)
    assert not outcome.failed
    rows = {(r["regime"], r["target"], r["metric"]): r["score"] for r in collect(study)}
    test = [dict(row) for row in lab.rows("lab-pos", "lab-near-high", "test")[:40]]
    model.active_adapters = Stack("near", "pos")
    model.active_head = "pos"
    said = predictions(model, tiny_backbone, test, LABELS[::-1])
    pairs = [
        (a, b)
        for row, own in zip(test, said, strict=True)
        for a, b in zip(row["upos"], own, strict=True)
    ]
    score = sum(a == b for a, b in pairs) / len(pairs)
    assert rows["theirs", "lab-near-high", "accuracy"] == score
    assert rows["theirs-then-shots", "lab-near-high", "accuracy"] != score
    # What goes on from an adopted adapter begins with its weights and its head.
    trained = next(
        s for k, s in study.plan.stages.items()
        if s.kind == "train" and "previous" in s.inputs
    )  # fmt: skip
    assert study.plan.stages[trained.inputs["previous"]].kind == "adopt"
    assert trained.params["adapter"] == AdapterSpec(method="seq_bn", reduction_factor=4).resolved()
    again = Study.open(tmp_path / "r.yaml", store=tmp_path / "s", backbone=str(tiny_backbone))
    assert again.plan.stages.keys() == study.plan.stages.keys()
    assert not again.plan.needed(again.done())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("adopt: ./pos}]", "adopt: ./near}]"), "folder near|./near has no head for lab-pos"),
        (("./near", "hub:org/near"), "hub:org/near is not locked; run adapterxlt lock"),
        (("./near", "org/near"), "write hub:org/near, or ./org/near for a folder"),
        (("./near", "./nowhere"), "nowhere: no such adapter folder"),
        (("./near", "auto"), "no adapters are known for this backbone"),
        (("lab-near-high: ./near", "lab-neer: ./near"), "lab-neer"),
        (("tasks: [lab-pos]", "tasks: [lab-nli]"), "has a head of tagging, and lab-nli is pair"),
        (("adopt: ./pos}]", "adopt: ./pos, start: last}]"), "is not trained: take start out"),
        (("adapter: stack", "adapter: stack, start: average"), "has no snapshots"),
    ],
)
def test_what_cannot_be_adopted_is_said(
    change: tuple[str, str], said: str, tiny_backbone: Path, tmp_path: Path
) -> None:
    plug(tmp_path, tiny_backbone)
    text = STUDY.replace(*change, 1)
    assert text != STUDY
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(AdapterXLTError, match=said):
        Study.open(tmp_path / "r.yaml", store=tmp_path / "s", backbone=str(tiny_backbone))


def test_what_changes_after_planning_is_refused(tiny_backbone: Path, tmp_path: Path) -> None:
    plug(tmp_path, tiny_backbone)
    (tmp_path / "r.yaml").write_text(STUDY)
    study = Study.open(tmp_path / "r.yaml", store=tmp_path / "s", backbone=str(tiny_backbone))
    tensors = load_file(tmp_path / "near" / "adapter.safetensors")
    save_file({k: t + 1 for k, t in tensors.items()}, tmp_path / "near" / "adapter.safetensors")
    with pytest.raises(RefusedError, match="is not what it was when it was looked at"):
        study.run(workers=0)


@pytest.mark.shared
def test_a_real_backbone_wears_a_stranger(shared: Path, tmp_path: Path) -> None:
    """Finnish tags on the shared backbone: the same digits as plain `adapters`."""
    folder, task = shared / "models" / "mini", TASKS["udpos"]
    labels = list(task.labels)[::-1]
    model = plain_model(folder)
    model.add_adapter("fi", config=adapters.SeqBnInvConfig(reduction_factor=4))
    shaken(model, named("fi"))
    model.save_adapter(str(tmp_path / "fi"), "fi")
    tagged(model, tmp_path / "pos", labels)
    recipe = STUDY.replace("lab-near-high", "fi").replace(
        "./near", "{adapter: ./fi, allow_pickle: true}"
    )
    recipe = recipe.replace("data: lab\n", "").replace("lab-root", "en").replace("lab-pos", "udpos")
    lines = recipe.splitlines()
    first, last = lines.index("  - name: theirs-then-shots"), lines.index("  - zero-shot")
    (tmp_path / "r.yaml").write_text("\n".join([*lines[:first], *lines[last + 1 :]]))
    study = Study.open(
        tmp_path / "r.yaml", store=tmp_path / "s", data=str(shared / "data"), backbone=str(folder)
    )
    assert not study.run(workers=0).failed
    scores = {(r["target"], r["metric"]): r["score"] for r in collect(study)}
    rows = study.corpus.rows("udpos", "fi", "test")[:40]
    model.active_adapters = Stack("fi", "pos")
    model.active_head = "pos"
    said = predictions(model, folder, rows, labels)
    pairs = [
        (a, b)
        for row, own in zip(rows, said, strict=True)
        for a, b in zip(row["upos"], own, strict=True)
    ]
    assert scores["fi", "accuracy"] == sum(a == b for a, b in pairs) / len(pairs)
