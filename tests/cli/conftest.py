"""The command line called in this process, and a small study it can plan without a model."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapterxlt import cli
from adapterxlt.run.study import Study

RECIPE = """\
# A test's recipe.
name: small
source: en
targets: [fi]
tasks: [udpos]
regimes: [zero-shot, sequential]
shots: [2]
"""
CONFIG = {"model_type": "xlm-roberta", "num_hidden_layers": 2, "hidden_size": 8, "vocab_size": 50}
CONFIG |= {"intermediate_size": 16, "max_position_embeddings": 130}


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def refusal(self) -> str:
        """The one line of an error without anything else."""
        assert self.out == "" and "Traceback" not in self.err
        lines = self.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("adapterxlt: "), self.err
        return lines[0].removeprefix("adapterxlt: ")


Call = Callable[..., Answer]


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """``call("plan", "r.yaml")`` as from a shell in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ADAPTERXLT_STORE", raising=False)

    def run(*arguments: object) -> Answer:
        monkeypatch.setattr("sys.argv", ["adapterxlt", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return Answer(code, out, err)

    return run


@pytest.fixture
def study(tmp_path: Path) -> list[str]:
    """Arguments that name a recipe, its data and something that looks like a backbone."""
    (tmp_path / "r.yaml").write_text(RECIPE, encoding="utf-8")
    row = json.dumps({"tokens": ["a", "b"], "upos": ["NOUN", "VERB"]}) + "\n"
    text = json.dumps({"text": "a b"}) + "\n"
    for language in ("en", "fi"):
        for name in ("udpos/{}/train", "udpos/{}/test", "mono/{}/bible"):
            path = tmp_path / "data" / f"{name.format(language)}.jsonl.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress((text if "mono" in name else row).encode() * 4))
    backbone = tmp_path / "backbone"
    backbone.mkdir()
    (backbone / "config.json").write_text(json.dumps(CONFIG))
    (backbone / "model.safetensors").write_bytes(_weights())
    (backbone / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0}}}')
    return ["r.yaml", "--data", "data", "--backbone", "backbone"]


def _weights() -> bytes:
    """Tensors as `CONFIG` says, as far as anybody looks before a library does."""
    shapes = {
        "embeddings.word_embeddings.weight": [50, 8],
        "embeddings.position_embeddings.weight": [130, 8],
        "encoder.layer.0.attention.self.query.weight": [8, 8],
        "encoder.layer.0.intermediate.dense.weight": [16, 8],
        "encoder.layer.1.intermediate.dense.weight": [16, 8],
    }
    header, end = {}, 0
    for name, (rows, columns) in shapes.items():
        span = [end, end + 4 * rows * columns]
        header[name] = {"dtype": "F32", "shape": [rows, columns], "data_offsets": span}
        end = span[1]
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(end)


@pytest.fixture
def opened(call: Call, study: list[str]) -> Study:
    """The same study as a value."""
    return Study.open(study[0], data=study[2], backbone=study[4])
