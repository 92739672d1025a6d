"""Backbone folders of any content: looked at closely, they fit or are told why not, soon."""

from __future__ import annotations

import json
import random
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mutating import Watch, mutated_bytes, mutated_value, numbered

from adapterxlt.core.errors import AdapterXLTError, RefusedError, UsageError
from adapterxlt.corpora.backbones import check_backbone, folder_backbone

CONFIG: dict[str, Any] = {
    "model_type": "xlm-roberta",
    "num_hidden_layers": 1,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "vocab_size": 6,
    "max_position_embeddings": 12,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "hidden_dropout_prob": 0.1,
    "hidden_act": "gelu",
}
TOKENIZER: dict[str, Any] = {
    "model": {"type": "Unigram", "vocab": [["<s>", 0.0], ["<pad>", 0.0], ["a", -1.0], ["b", -2.0]]},
    "added_tokens": [{"id": 4, "content": "<mask>"}],
}
SETTINGS: dict[str, Any] = {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 10}
SHAPES = {
    "roberta.embeddings.word_embeddings.weight": [6, 8],
    "roberta.embeddings.position_embeddings.weight": [12, 8],
    "roberta.embeddings.token_type_embeddings.weight": [1, 8],
    "roberta.encoder.layer.0.attention.self.query.weight": [8, 8],
    "roberta.encoder.layer.0.intermediate.dense.weight": [16, 8],
}


def weights(change: Callable[[dict[str, Any]], Any] | None = None) -> bytes:
    """A safetensors file of zeros, its header changed."""
    header: dict[str, Any] = {}
    end = 0
    for name, (rows, columns) in SHAPES.items():
        size = 4 * rows * columns
        header[name] = {
            "dtype": "F32",
            "shape": [rows, columns],
            "data_offsets": [end, end + size],
        }
        end += size
    said = header if change is None else change(header)
    text = json.dumps(said).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * end


def write(folder: Path, **files: bytes) -> None:
    folder.mkdir(exist_ok=True)
    named = {"config": "config.json", "tokenizer": "tokenizer.json", "weights": "model.safetensors"}
    named["settings"] = "tokenizer_config.json"
    good = {
        "config": json.dumps(CONFIG).encode(),
        "tokenizer": json.dumps(TOKENIZER).encode(),
        "weights": weights(),
        "settings": json.dumps(SETTINGS).encode(),
    }
    for name, data in {**good, **files}.items():
        (folder / named[name]).write_bytes(data)


def look(folder: Path) -> None:
    folder_backbone(folder)
    check_backbone(folder)


def _mutated(draw: random.Random) -> dict[str, bytes]:
    which = draw.choice(["config", "config", "tokenizer", "weights", "weights", "settings"])
    if which == "weights":
        if draw.random() < 0.5:
            return {which: weights(lambda header: mutated_value(draw, header, [header, SHAPES]))}
        return {which: mutated_bytes(draw, [weights()])}
    value = {"config": CONFIG, "tokenizer": TOKENIZER, "settings": SETTINGS}[which]
    if draw.random() < 0.3:
        return {which: mutated_bytes(draw, [json.dumps(value).encode()])}
    changed = mutated_value(draw, value, [CONFIG, TOKENIZER, SETTINGS])
    return {which: json.dumps(changed).encode()}


def _fuzz(count: int, folder: Path) -> None:
    watch = Watch()
    for name, draw in numbered(count, "backbone"):
        files = _mutated(draw)
        write(folder, **files)
        watch.case(f"{name} ({', '.join(files)})", lambda: look(folder))
    watch.over(count)


def test_the_seed_is_valid(tmp_path: Path) -> None:
    write(tmp_path / "good")
    look(tmp_path / "good")


def told(folder: Path, error: type[AdapterXLTError] = UsageError) -> str:
    with pytest.raises(AdapterXLTError) as caught:
        look(folder)
    text = str(caught.value)
    assert caught.type is error and text.startswith(str(folder)) and text.isprintable()
    return text.removeprefix(str(folder))


def config(**changes: Any) -> dict[str, bytes]:
    return {"config": json.dumps({**CONFIG, **changes}).encode()}


def each(**changes: Any) -> dict[str, bytes]:
    """Weights whose header says other things of every tensor."""
    return {"weights": weights(lambda h: {name: {**of, **changes} for name, of in h.items()})}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (config(hidden_size=2**30), "has the shape \\[6, 8\\], the configuration says"),
        (config(hidden_size="8"), "not an encoder's configuration"),
        (config(hidden_size=True), "sizes are positive whole numbers"),
        (config(vocab_size=2**31 - 1), "has the shape \\[6, 8\\], the configuration says"),
        (config(num_hidden_layers=10**6), "1,000,000 layers"),
        (config(num_hidden_layers=2), "no layer 1, the configuration has 2"),
        (config(intermediate_size=10**9), "has the shape \\[16, 8\\]"),
        (config(max_position_embeddings=10**9), "positions"),
        (config(max_position_embeddings=1000), "has the shape \\[12, 8\\]"),
        (config(type_vocab_size=5), "has the shape \\[1, 8\\]"),
        (config(num_attention_heads=3), "no multiple of num_attention_heads"),
        (config(num_attention_heads=0), "no multiple of num_attention_heads"),
        (config(hidden_dropout_prob=None), "hidden_dropout_prob is a share"),
        (config(hidden_dropout_prob=1.5), "hidden_dropout_prob is a share"),
        (config(hidden_act=[]), "hidden_act is a name"),
        (config(pad_token_id=7), "pad_token_id is a whole number below vocab_size"),
        (config(model_type="gpt2"), "architecture 'gpt2' is not supported"),
        (config(model_type=["bert"]), "is not supported"),
        ({"config": b"[]"}, "/config.json: not a JSON object"),
        ({"config": b"{" * 3000}, "/config.json: not JSON"),
        ({"config": b'{"a":' * 5000 + b"1" + b"}" * 5000}, "/config.json: not JSON: nested too"),
        ({"config": b" " * (2 << 20)}, "/config.json: cannot be read: it is larger than"),
        ({"config": b"\xff\xfe{\0}\0"}, "/config.json: not JSON: not UTF-8"),
        ({"tokenizer": b"no"}, "/tokenizer.json: not JSON"),
        ({"tokenizer": b"{}"}, "/tokenizer.json: not a fast tokenizer: it has no vocabulary"),
        ({"tokenizer": b'{"model": {"vocab": {"a": -1}}}'}, "/tokenizer.json: not a fast"),
        ({"tokenizer": b'{"model": {"vocab": {"a": "0"}}}'}, "a piece has no number"),
        ({"tokenizer": b'{"model": {"vocab": {"a": 6}}}'}, "7 pieces, but .* 6 embeddings"),
        ({"weights": b""}, "/model.safetensors: not a safetensors file"),
        ({"weights": b"\xff" * 50}, "the size of its header cannot be"),
        ({"weights": weights()[:-1]}, "bytes, but its tensors end at"),
        ({"weights": weights() + b"x"}, "bytes, but its tensors end at"),
        ({"weights": weights(lambda header: [])}, "its header is no object"),
        ({"weights": weights(lambda header: {"a": 1})}, "'a' is not described"),
        (each(shape=[1 << 40, 1 << 40]), "has not the bytes of its shape"),
        (each(dtype="F128"), "has a type, shape or place that cannot be"),
        (each(shape=[-6, -8]), "has a type, shape or place that cannot be"),
        ({"weights": weights(lambda h: {f"{k}x": v for k, v in h.items()})}, "no tensor"),
    ],
)
def test_what_does_not_fit_is_told_with_its_file(
    tmp_path: Path, files: dict[str, bytes], said: str
) -> None:
    write(tmp_path / "b", **files)
    assert re.search(said, told(tmp_path / "b"))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("config", {**CONFIG, "auto_map": {"AutoModel": "evil.Model"}}),
        ("config", {**CONFIG, "quantization_config": {"quant_method": "x"}}),
        ("settings", {**SETTINGS, "auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}),
        ("settings", {**SETTINGS, "tokenizer_file": "/etc/passwd"}),
        ("settings", {**SETTINGS, "vocab_file": "../elsewhere"}),
        ("settings", {"tokenizer_class": "TransfoXLTokenizer"}),
        ("settings", {"tokenizer_class": "os.system"}),
        ("settings", {"tokenizer_class": 7}),
    ],
)
def test_code_and_other_files_are_refused(
    tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    write(tmp_path / "b", **{name: json.dumps(settings).encode()})
    told(tmp_path / "b", RefusedError)


def test_links_may_not_leave_the_folder_but_for_a_hubs_cache(tmp_path: Path) -> None:
    cache = tmp_path / "models--a--b"
    folder = cache / "snapshots" / "0123"
    folder.parent.mkdir(parents=True)
    write(folder)
    blob = cache / "blobs" / "abc"
    blob.parent.mkdir()
    (folder / "config.json").rename(blob)
    (folder / "config.json").symlink_to("../../blobs/abc")
    look(folder)
    outside = tmp_path / "outside.json"
    outside.write_bytes(blob.read_bytes())
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(outside)
    assert "config.json is a link out of the folder" in told(folder, RefusedError)


def test_pickled_weights_are_not_opened(tmp_path: Path) -> None:
    write(tmp_path / "b")
    (tmp_path / "b" / "model.safetensors").rename(tmp_path / "b" / "pytorch_model.bin")
    assert "convert its pickled weights to safetensors first" in told(tmp_path / "b")


def test_what_a_library_raises_is_one_line_of_ours(tmp_path: Path) -> None:
    """Past the checks: the tokenizer's own parser does not know this model."""
    torch = pytest.importorskip("torch")
    from adapterxlt.compute.loading import load

    write(tmp_path / "b")
    look(tmp_path / "b")
    with pytest.raises(UsageError, match=r"^[^\n]*: the backbone cannot be loaded: [^\n]*$"):
        load(tmp_path / "b", torch.device("cpu"))


def test_mutated_backbones_fit_or_are_told_why_not(tmp_path: Path) -> None:
    _fuzz(500, tmp_path / "backbone")


@pytest.mark.slow
@pytest.mark.torture
def test_five_thousand_mutated_backbones(tmp_path: Path) -> None:
    _fuzz(5_000, tmp_path / "backbone")
