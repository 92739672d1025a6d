"""Looking at a backbone folder without loading it: sizes, digests, what is missing or unsafe."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from adapterxlt import lab
from adapterxlt.core.bases import base_of, short_name
from adapterxlt.core.canon import digest
from adapterxlt.core.errors import UsageError
from adapterxlt.core.plan import BackboneInfo
from adapterxlt.core.specs import Shape
from adapterxlt.corpora.checkpoints import (
    MOST_CONFIG,
    check_checkpoint,
    check_code,
    check_links,
    read_object,
)
from adapterxlt.corpora.sources import Notes

WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
#: What else says how text becomes sub-words, where a folder has it.
TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
#: More than any encoder has.
MAX_LAYERS, MAX_POSITIONS = 1000, 1 << 20


def lab_backbone() -> BackboneInfo:
    """The laboratory's own backbone, which a `pretrain` stage makes."""
    spec = dict(lab.DEFAULT_SPEC)
    shape = Shape(spec["layers"], spec["hidden"], spec["ffn"], spec["vocab"])
    parameters = shape.block_parameters + shape.hidden * shape.vocabulary
    pretraining = {"spec": spec, "lab": lab.VERSION, "seed": 0}
    return BackboneInfo(
        "lab backbone",
        shape,
        parameters,
        pretraining=pretraining,
        positions=spec["max_length"],
        names=frozenset({"lab", "lab backbone"}),
    )


def folder_backbone(folder: Path, notes: Notes | None = None) -> BackboneInfo:
    """A local folder in the format of transformers; weights as safetensors only.

    Raises:
        UsageError: no folder, a file missing, a configuration that cannot be, an architecture that
            is not supported, or weights that exist only as a pickle.
        RefusedError: it asks for code of its own, or a file is a link to somewhere else.
    """
    folder = Path(folder).absolute()
    if not folder.is_dir():
        raise UsageError("no such backbone folder", where=str(folder), hint="see --backbone")
    for name in ("config.json", WEIGHTS, TOKENIZER):
        if not (folder / name).is_file():
            pickled = name == WEIGHTS and (folder / "pytorch_model.bin").exists()
            hint = "convert its pickled weights to safetensors first" if pickled else ""
            raise UsageError(f"backbone has no {name}", where=str(folder), hint=hint)
    check_links(folder, ("config.json", WEIGHTS, TOKENIZER, *TOKENIZER_SETTINGS))
    config = read_object(folder / "config.json", MOST_CONFIG)
    check_code(config, folder / "config.json")
    for name in TOKENIZER_SETTINGS[:1]:
        if (folder / name).is_file():
            check_code(read_object(folder / name, MOST_CONFIG), folder / name)
    try:
        shape = Shape(
            config["num_hidden_layers"],
            config["hidden_size"],
            config["intermediate_size"],
            config["vocab_size"],
        )
        # Positions of padding and before it are never used in the RoBERTa family.
        unused = 0 if config.get("model_type") == "bert" else config.get("pad_token_id", 1) + 1
        positions = config["max_position_embeddings"] - unused
        if not all(type(size) is int and 0 < size < 2**31 for size in (*_sizes(shape), positions)):
            raise ValueError("sizes are positive whole numbers")
        if shape.layers > MAX_LAYERS or positions > MAX_POSITIONS:
            raise ValueError(f"{shape.layers:,} layers and {positions:,} positions")
        _check_numbers(config)
    except (ValueError, KeyError, TypeError) as error:
        where = str(folder / "config.json")
        raise UsageError(f"not an encoder's configuration: {error}", where=where) from None
    if config.get("model_type") not in ("xlm-roberta", "roberta", "bert"):
        raise UsageError(
            f"architecture {config.get('model_type')!r} is not supported",
            where=str(folder),
            hint="xlm-roberta, roberta and bert are",
        )
    digests = {
        "weights": _digest(folder / WEIGHTS, notes),
        "tokenizer": digest(
            "tokenizer",
            {
                name: _digest(folder / name, notes)
                for name in (TOKENIZER, *TOKENIZER_SETTINGS)
                if (folder / name).is_file()
            },
        ),
        "config": digest("config", _meaning(config)),
    }
    parameters = shape.block_parameters + shape.hidden * shape.vocabulary
    base = base_of(config["model_type"], shape.layers, shape.hidden, shape.vocabulary)
    called = {folder.name, str(config.get("_name_or_path") or ""), base or ""}
    return BackboneInfo(
        folder.name,
        shape,
        parameters,
        digests=digests,
        positions=positions,
        model_type=config["model_type"],
        names=frozenset(short_name(name) for name in called if name),
    )


def check_backbone(folder: Path) -> None:
    """Look at a folder's files closely; see `checkpoints.check_checkpoint`.

    Raises:
        UsageError: what does not fit.
    """
    check_checkpoint(folder, read_object(Path(folder) / "config.json", MOST_CONFIG))


def _check_numbers(config: dict[str, Any]) -> None:
    """``ValueError`` for fields that a library would stumble over, where they are given."""
    heads = config.get("num_attention_heads", 1)
    if type(heads) is not int or heads < 1 or config["hidden_size"] % heads:
        raise ValueError("hidden_size is no multiple of num_attention_heads")
    for name in ("attention_probs_dropout_prob", "hidden_dropout_prob"):
        share = config.get(name, 0.0)
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
            raise ValueError(f"{name} is a share")
    for name in ("pad_token_id", "type_vocab_size"):
        number = config.get(name, 1)
        if type(number) is not int or not 0 <= number < config["vocab_size"]:
            raise ValueError(f"{name} is a whole number below vocab_size")
    if not isinstance(config.get("hidden_act", ""), str):
        raise ValueError("hidden_act is a name")


def _sizes(shape: Shape) -> tuple[int, int, int, int]:
    return shape.layers, shape.hidden, shape.ffn, shape.vocabulary


def _meaning(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration without what says nothing of the function computed."""
    return {k: v for k, v in config.items() if k not in ("_name_or_path", "transformers_version")}


def _digest(path: Path, notes: Notes | None) -> str:
    status = path.stat()
    name = digest("file", [str(path), status.st_size, status.st_mtime_ns])
    known = notes.noted("files", name) if notes is not None else None
    if isinstance(known, dict):
        return str(known["digest"])
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    if notes is not None:
        notes.note("files", name, {"digest": sha.hexdigest()})
    return sha.hexdigest()
