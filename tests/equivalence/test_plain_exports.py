"""What is exported gives the outputs that were scored, in the libraries alone.

Studies are trained for a few steps and exported; then one process that cannot import the package
runs every folder's `load.py` and gives it real rows (`load_exports.py`). Its outputs are compared
with those of the evaluation, on the same padded batch: there they are equal to the bit.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from adapterxlt import lab
from adapterxlt.compute.data import collate
from adapterxlt.compute.encoding import encode
from adapterxlt.compute.evaluation import Composed
from adapterxlt.core.errors import StageError, UsageError
from adapterxlt.core.methods import METHODS
from adapterxlt.core.plan import Cell
from adapterxlt.report.handing import hand_over
from adapterxlt.run.desk import desk_for
from adapterxlt.run.study import Study

TARGET = "lab-mid-mid"
RECIPE = """\
name: exported
data: lab
source: lab-root
targets: [lab-mid-mid]
tasks: [lab-pos]
regimes: [zero-shot]
shots: [4]
seeds: [3]
language_adapters: {adapter: {method: seq_bn_inv}, budget: {steps: 2, batch: 8, lr: 5e-2}}
task_adapter: {method: seq_bn}
budget: {steps: 3, batch: 8, lr: 3e-2, warmup: 0.0}
limits: {train: 24, test: 8, text: 24}
"""
#: Parameters that suit a hidden size of 32.
SMALL = {
    "compacter": "reduction_factor: 4",
    "compacterpp": "reduction_factor: 4",
    "prefix_tuning": "prefix_length: 3, bottleneck_size: 5",
    "mam": "prefix_length: 3, bottleneck_size: 5",
    "unipelt": "prefix_length: 3, bottleneck_size: 5",
    "peft_oft": "block_size: 4",
    "peft_vera": "r: 8",
    "peft_randlora": "r: 8, alpha: 20.0",
    "peft_fourierft": "n_frequency: 50, scaling: 20.0",
}
NO_LANGUAGE = "language_adapters=null"


def task_adapter(method: str, more: str = "") -> str:
    parts = ", ".join(part for part in (f"method: {method}", SMALL.get(method), more) if part)
    return f"task_adapter={{{parts}}}"


@dataclass(frozen=True)
class Case:
    """A study, a part of one of its cells, and what is compared."""

    name: str
    overrides: tuple[str, ...]
    task: str = "lab-pos"
    role: str = "composition"
    regime: str | None = None
    states: bool = False
    libraries: tuple[str, ...] = ("adapters",)
    backbone: str = "tiny"


def methods() -> list[Case]:
    """Every method as a task adapter: under a language adapter where both go together."""
    found = []
    for name, row in METHODS.items():
        if row.library == "none" or "task" not in row.roles:
            continue
        alone = not row.stackable
        libraries = (row.library,) if alone else tuple(dict.fromkeys((row.library, "adapters")))
        more = (NO_LANGUAGE,) if alone else ()
        found.append(Case(name, (task_adapter(name), *more), libraries=libraries))
    for name in ("peft_lora", "peft_dora", "peft_ia3"):
        overrides = (task_adapter(name), NO_LANGUAGE)
        found.append(Case(f"{name} alone", overrides, libraries=("peft",)))
    return found


def kinds() -> list[Case]:
    """Every kind of head, kept by either library."""
    found = []
    for task in ("lab-nli", "lab-topic", "lab-choice", "lab-qa", "lab-ranking"):
        for method in ("seq_bn", "peft_lora"):
            overrides = (f"tasks=[{task}]", task_adapter(method))
            libraries = ("adapters",) if method == "seq_bn" else ("peft", "adapters")
            found.append(Case(f"{task} {method}", overrides, task, libraries=libraries))
    return found


STACK = """regimes=[{name: stacked, phases: [{name: first, languages: [source]}, \
{name: second, languages: [target], shots: grid, adapter: stack}]}]"""
FUSE = """regimes=[{name: fused, phases: [{name: first, languages: [source]}, \
{name: second, languages: [target], shots: grid, adapter: new}, \
{name: fusion, languages: [source], adapter: fuse}]}]"""
DROP = "regimes=[{name: dropped, drop: 1, phases: [{name: first, languages: [source]}]}]"
LANGUAGE = "language_adapters={adapter: {method: %s}, budget: {steps: 2, batch: 8, lr: 5e-2}}"


def others() -> list[Case]:
    """Compositions of more than two, and parts of them."""
    both = ("peft", "adapters")
    lora = task_adapter("peft_lora", "targets: attention")
    return [
        Case("stack", (STACK,)),
        Case("stack peft", (STACK, lora), libraries=both),
        Case("fusion", (FUSE,)),
        Case("fusion alone", (FUSE, NO_LANGUAGE), role="task"),
        Case("drop", (DROP,)),
        Case("drop peft", (DROP, task_adapter("peft_lora")), libraries=both),
        Case("language peft", (LANGUAGE % "peft_lora",), libraries=("adapters", "peft")),
        Case(
            "both peft",
            (LANGUAGE % "peft_lora", task_adapter("peft_lora")),
            libraries=("peft",),
        ),
        Case(
            "both peft, two methods",
            (LANGUAGE % "peft_lora", task_adapter("peft_ia3")),
            libraries=("peft",),
        ),
        Case("left out", (task_adapter("seq_bn", "leave_out: [0]"),)),
        Case("left out peft", (task_adapter("peft_lora", "leave_out: [0]"),), libraries=both),
        Case("retrieval", ("tasks=[lab-bitext]",), "lab-bitext"),
        Case("retrieval peft", ("tasks=[lab-bitext]", LANGUAGE % "peft_lora"), "lab-bitext",
             libraries=("peft",)),
        # A tokenizer that gives types, which nothing was trained with.
        Case("two segments", (NO_LANGUAGE, "tasks=[lab-nli]"), "lab-nli", backbone="bert"),
        Case(
            "two segments peft",
            (NO_LANGUAGE, "tasks=[lab-nli]", task_adapter("peft_ia3")),
            "lab-nli",
            libraries=("peft",),
            backbone="bert",
        ),
        Case("laboratory", (), backbone="lab"),
        Case("task part", (), role="task"),
        Case("task part peft", (task_adapter("peft_lora"),), role="task", libraries=("peft",)),
        Case("language part", (), role="language"),
        Case("language part states", (), role="language", states=True),
        Case("language part peft", (LANGUAGE % "peft_lora",), role="language", states=True,
             libraries=("peft",)),
    ]  # fmt: skip


CASES = {case.name: case for case in (*methods(), *kinds(), *others())}
#: Also loaded with the attention that the libraries take when none is named.
DEFAULTS = ("seq_bn", "prefix_tuning", "peft_dora")


class Exports:
    """Every case trained and exported, and the outputs of the plain libraries."""

    def __init__(self, folder: Path, backbones: dict[str, str]) -> None:
        self.folder, self.backbones = folder, backbones
        self.recipe = folder / "r.yaml"
        self.recipe.write_text(RECIPE, encoding="utf-8")
        self.studies: dict[tuple[str, ...], Study] = {}
        jobs = [self._export(case) for case in CASES.values()]
        jobs += [self._by_default(CASES[name]) for name in DEFAULTS]
        self.outputs = plain_outputs(folder, jobs)

    def study(self, case: Case) -> Study:
        at = (case.backbone, *case.overrides)
        if at not in self.studies:
            study = Study.open(
                self.recipe,
                store=self.folder / "store",
                backbone=self.backbones[case.backbone],
                overrides=case.overrides,
            )
            outcome = study.run(workers=0)
            assert not outcome.failed, outcome.failed
            self.studies[at] = study
        return self.studies[at]

    def cell(self, case: Case) -> Cell:
        cell, _ = self.study(case).cell(target=TARGET, task=case.task)
        return cell

    def path(self, case: Case) -> Path:
        return self.folder / "out" / case.name.replace(" ", "-")

    def _export(self, case: Case) -> dict[str, Any]:
        hand_over(self.study(case), self.cell(case), case.role, self.path(case))  # type: ignore[arg-type]
        return self._job(case)

    def _job(self, case: Case) -> dict[str, Any]:
        return {
            "name": case.name,
            "folder": str(self.path(case)),
            # The laboratory's own backbone comes with the folder.
            "arguments": [self.backbones[case.backbone]] * (case.backbone != "lab"),
            "task": case.task,
            "rows": self.rows(case),
            "states": case.states,
        }

    def _by_default(self, case: Case) -> dict[str, Any]:
        folder = self.folder / "default" / case.name
        shutil.copytree(self.path(case), folder)
        text = (folder / "load.py").read_text(encoding="utf-8")
        plain = text.replace(', attn_implementation="eager"', "")
        assert plain != text
        (folder / "load.py").write_text(plain, encoding="utf-8")
        return {**self._job(case), "name": f"{case.name} default", "folder": str(folder)}

    def rows(self, case: Case) -> list[dict[str, Any]]:
        """Real rows, by length in sub-words, which is how an evaluation puts them into batches."""
        task = self.study(case).corpus.task(case.task)
        rows = [dict(row) for row in lab.rows(case.task, TARGET, "test")[:8]]
        side = task.inputs[0] if task.kind in ("retrieval", "ranking") else None
        desk = desk_for(self.study(case).places)
        stage = self.study(case).plan.stages[self.study(case).plan.cells[self.cell(case)]]
        tokenizer = desk.backbone(stage).tokenizer
        windows = encode(tokenizer, task, rows, 128, side=side, labelled=False).rows
        assert task.kind == "choice" or {len(row) for row in windows} == {1}
        order = sorted(range(len(rows)), key=lambda i: len(windows[i][0].ids))
        return [rows[i] for i in order]

    def ours(
        self, case: Case, worn: bool = True, packed: bool = False
    ) -> dict[tuple[int, int], torch.Tensor]:
        """The evaluation's outputs by row and window, at its positions; with ``worn`` false,
        without any adapter; packed as it does it, or one window a row."""
        study = self.study(case)
        task = study.corpus.task(case.task)
        stage = study.plan.stages[study.plan.cells[self.cell(case)]]
        side = task.inputs[0] if task.kind in ("retrieval", "ranking") else None
        desk = desk_for(study.places)
        try:
            model, _, _ = desk.compose(stage)
            data = encode(
                model.backbone.tokenizer, task, self.rows(case), 128, side=side, labelled=False
            )
            whole = model.stack
            stack = {"task": whole[-1:], "language": whole[:1]}.get(case.role, whole)
            stack = stack if worn else ()
            seen = Composed(model.backbone, stack, model.head, model.precision, model.drop)
            look = self._look(case, seen, stage) if not packed else model.outputs
            if not packed:
                pad = model.backbone.tokenizer.pad_token_id
                model.backbone.batch = partial(collate, pad=pad)  # type: ignore[method-assign]
            return {(i, n): part.clone() for i, n, _, part in seen.each(data, look)}
        finally:
            vars(model.backbone).pop("batch", None)
            desk.reset()

    def _look(self, case: Case, model: Composed, stage: Any) -> Callable[..., torch.Tensor]:
        backbone = model.backbone
        if case.states or case.role == "language":

            def at_positions(batch: Any) -> torch.Tensor:
                states = backbone.hidden(batch.ids, batch.mask)[batch.index]
                return states if case.states else backbone.lm_logits(states)

            return at_positions
        if case.task == "lab-bitext":

            def mean(batch: Any) -> torch.Tensor:
                states = backbone.hidden(batch.ids, batch.mask, 2)
                weights = batch.mask[..., None]
                return (states * weights).sum(1) / weights.sum(1)

            return mean
        return model.outputs

    def theirs(self, case: Case, name: str = "") -> dict[tuple[int, int], torch.Tensor]:
        """The plain outputs at the same positions."""
        outputs = self.outputs[name or case.name]
        study = self.study(case)
        task = study.corpus.task(case.task)
        rows = self.rows(case)
        if case.role == "language" or (task.kind in ("tagging", "qa")):
            desk = desk_for(study.places)
            stage = study.plan.stages[study.plan.cells[self.cell(case)]]
            tokenizer = desk.backbone(stage).tokenizer
            windows = encode(tokenizer, task, rows, 128, labelled=False).rows
            return {(i, 0): outputs[i, row[0].positions] for i, row in enumerate(windows)}
        if task.kind == "choice":
            return {(i, n): outputs[i, n].view(1, 1) for i in range(len(rows)) for n in range(2)}
        return {(i, 0): outputs[i : i + 1] for i in range(len(rows))}


def plain_outputs(folder: Path, jobs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """What `load_exports.py` says of each job, in a process that knows nothing of the package."""
    (folder / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    program = Path(__file__).with_name("load_exports.py")
    outputs = folder / "outputs.safetensors"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    run = subprocess.run(
        [sys.executable, str(program), str(folder / "jobs.json"), str(outputs)],
        cwd=folder,
        env={**environment, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return load_file(outputs)


def bert(folder: Path) -> str:
    """A BERT without skill, to which two types of segments are not the same."""
    words = sorted({w for r in lab.rows("lab-nli", lab.SOURCE, "train")[:400]
                    for w in f"{r['premise']} {r['hypothesis']}".split()})  # fmt: skip
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    tokenizer = Tokenizer(WordLevel({piece: i for i, piece in enumerate(pieces)}, "[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{f"{n}_token": f"[{n.upper()}]" for n in ("pad", "unk", "cls", "sep", "mask")},
    ).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(
        vocab_size=len(pieces), intermediate_size=64, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, initializer_range=0.3, **sizes,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Iterator[Exports]:
    folder = tmp_path_factory.mktemp("exports")
    backbones = {"tiny": str(tiny_backbone), "bert": bert(folder / "bert"), "lab": "lab"}
    with pytest.MonkeyPatch.context() as patch:
        small = {"steps": 3, "batch": 8, "layers": 2, "hidden": 32, "ffn": 64}
        for name, value in small.items():
            patch.setitem(lab.DEFAULT_SPEC, name, value)
        # Every training collects garbage, and the libraries' own objects are many.
        gc.freeze()
        yield Exports(folder, backbones)
        gc.unfreeze()


def files_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def difference(ours: dict[Any, torch.Tensor], theirs: dict[Any, torch.Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    assert all(ours[at].shape == theirs[at].shape for at in ours)
    return max(float((ours[at] - theirs[at]).abs().max()) for at in ours)


@pytest.mark.parametrize("name", CASES)
def test_plain_libraries_give_the_outputs_that_were_scored(name: str, exports: Exports) -> None:
    case = CASES[name]
    ours = exports.ours(case)
    found = difference(ours, exports.theirs(case))
    print(f"max difference {name}: {found:.3g}")
    # Equal to the bit; but the fresh matrices of a fusion ask for gradients when they are loaded,
    # and torch then multiplies in another order.
    assert found <= (2e-6 if "fusion" in name else 0)
    assert difference(ours, exports.ours(case, worn=False)) > 1e-3
    if not (case.states or case.role == "language" or case.task == "lab-bitext"):
        # As an evaluation packs them, sums are in another order.
        assert difference(ours, exports.ours(case, packed=True)) <= 1e-5
    text = (exports.path(case) / "load.py").read_text(encoding="utf-8")
    for library in ("adapters", "peft"):
        assert (f"import {library}\n" in text or f"from {library}" in text) == (
            library in case.libraries
        )


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_libraries_default_attention_differs_by_rounding(name: str, exports: Exports) -> None:
    case = CASES[name]
    assert difference(exports.ours(case), exports.theirs(case, f"{name} default")) <= 1e-5


def test_files_are_safe_plain_and_know_nothing_of_this_machine(exports: Exports) -> None:
    places = [str(exports.folder), *exports.backbones.values(), str(Path.home()), "xlt_"]
    places = [place for place in places if place != "lab"]
    kinds = set()
    for case in CASES.values():
        for path in exports.path(case).rglob("*"):
            if path.is_file():
                data = path.read_bytes()
                assert not [p for p in places if p.encode() in data], path
                kinds.add(path.name if path.suffix == ".py" else path.suffix)
    assert kinds == {"load.py", ".json", ".md", ".safetensors"}
    config = json.loads((exports.path(CASES["seq_bn"]) / "task/adapter_config.json").read_text())
    assert config["model_name"] == Path(exports.backbones["tiny"]).name
    config = json.loads((exports.path(CASES["peft_ia3"]) / "task/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == Path(exports.backbones["tiny"]).name
    for field in ("target_modules", "feedforward_modules"):
        assert config[field] == sorted(config[field])


def test_exporting_again_gives_the_same_bytes(exports: Exports, tmp_path: Path) -> None:
    for name in ("peft_dora", "fusion"):
        case = CASES[name]
        hand_over(exports.study(case), exports.cell(case), "composition", tmp_path / name)
        assert files_of(tmp_path / name) == files_of(exports.path(case))


def test_the_manifest_says_what_it_is_of(exports: Exports) -> None:
    case = CASES["stack"]
    study, cell = exports.study(case), exports.cell(case)
    key = study.plan.cells[cell]
    stages = study.plan.stages
    trained = stages[key].inputs["trained"]
    below = stages[trained].inputs["below"]
    found = json.loads((exports.path(case) / "adapterxlt.json").read_text())
    assert list(found) == sorted(found)
    assert found["format"] == 1 and found["role"] == "composition" and found["key"] == key
    assert found["keys"] == {
        "evaluate": key,
        "head": trained,
        "language": stages[key].inputs[f"language:{TARGET}"],
        "task": trained,
        "task-1": below,
    }
    assert found["backbone"] == study.backbone.digests and found["backbone_key"] is None
    assert found["task"] == "lab-pos"
    assert found["labels"] == list(study.corpus.task("lab-pos").labels)
    assert found["spec"]["task"] == stages[trained].params["adapter"]
    part = json.loads((exports.path(case) / "language" / "adapterxlt.json").read_text())
    alone = json.loads((exports.path(CASES["language part"]) / "adapterxlt.json").read_text())
    assert {**part, "keys": None} == {**alone, "keys": None}
    assert part["role"] == "language" and part["key"] == found["keys"]["language"]
    assert part["task"] is None and part["labels"] is None
    ours = json.loads((exports.path(CASES["laboratory"]) / "adapterxlt.json").read_text())
    made = exports.study(CASES["laboratory"])
    assert ours["backbone"] is None
    assert made.plan.stages[ours["backbone_key"]].kind == "pretrain"


def test_the_labels_come_with_the_head(exports: Exports) -> None:
    for name, labels in (("seq_bn", None), ("lab-choice seq_bn", ["0", "1"])):
        case = CASES[name]
        wanted = labels or list(exports.study(case).corpus.task(case.task).labels)
        head = json.loads((exports.path(case) / "task" / "head_config.json").read_text())
        assert head["config"]["label2id"] == {label: i for i, label in enumerate(wanted)}


def test_a_folder_with_something_in_it_is_left_alone(exports: Exports, tmp_path: Path) -> None:
    case = CASES["seq_bn"]
    study, cell = exports.study(case), exports.cell(case)
    full, file, link = tmp_path / "full", tmp_path / "file", tmp_path / "link"
    full.mkdir()
    (full / "mine").write_text("mine")
    file.write_text("mine")
    link.symlink_to(tmp_path / "nowhere")
    for place in (full, file, link):
        with pytest.raises(UsageError, match="not an empty folder"):
            hand_over(study, cell, "composition", place)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "link", "mine"]
    empty = tmp_path / "new" / "empty"
    empty.mkdir(parents=True)
    assert hand_over(study, cell, "composition", empty) == empty
    assert (empty / "task" / "adapter.safetensors").is_file()
    assert [path.name for path in empty.parent.iterdir()] == ["empty"]


def test_what_is_no_adapter_is_refused(exports: Exports, tmp_path: Path) -> None:
    full = Case("full", (task_adapter("full"),))
    for case, role, what in (
        (full, "composition", "full fine-tuning trains no adapter"),
        (full, "task", "full fine-tuning trains no adapter"),
        (CASES["peft_lora alone"], "language", "wears no language adapter"),
        (CASES["retrieval"], "task", "nothing was trained on tasks"),
    ):
        with pytest.raises(UsageError, match=what):
            hand_over(exports.study(case), exports.cell(case), role, tmp_path / "out")  # type: ignore[arg-type]
        assert list(tmp_path.iterdir()) == []
    hand_over(exports.study(full), exports.cell(full), "language", tmp_path / "out")
    assert (tmp_path / "out" / "adapter.safetensors").is_file()


def test_a_lost_stage_is_an_error_and_leaves_nothing(exports: Exports, tmp_path: Path) -> None:
    case = CASES["left out"]
    study, cell = exports.study(case), exports.cell(case)
    trained = study.plan.stages[study.plan.cells[cell]].inputs["trained"]
    again = Study.open(
        exports.recipe,
        store=exports.folder / "store",
        backbone=exports.backbones["tiny"],
        overrides=case.overrides,
    )
    record = again.store.record_path(trained)
    kept = record.read_bytes()
    record.unlink()
    desk_for.cache_clear()
    try:
        with pytest.raises(StageError, match="not in the store"):
            hand_over(again, cell, "composition", tmp_path / "out")
    finally:
        record.write_bytes(kept)
        desk_for.cache_clear()
    assert list(tmp_path.iterdir()) == []
