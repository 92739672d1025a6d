"""A backbone's files looked at closely, before a library opens them: no code, no lies, no surprise.

Header of the weights, vocabulary and settings of the tokenizer against what the configuration says.
No number of a tensor is read. `run.study` asks before anything runs; planning needs no more than
`corpora.backbones` tells.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapterxlt.core.errors import RefusedError, UsageError
from adapterxlt.core.plain import json_of, plain_bytes, utf8

#: Bytes of a configuration, of a tokenizer, and of the header of weights.
MOST_CONFIG, MOST_TOKENIZER, MOST_HEADER = 1 << 20, 256 << 20, 32 << 20
#: Lists and objects in one another.
MOST_DEPTH = 50
#: Fields of a configuration that have a library run or fetch something of their maker's.
CODE = ("auto_map", "custom_pipelines", "quantization_config", "trust_remote_code")
#: Fields of a tokenizer's settings that name files, which would be read in place of the folder's.
FILES = ("tokenizer_file", "vocab_file", "merges_file", "added_tokens_file")
#: Families of tokenizers that have a fast form in transformers, which needs one JSON file alone.
TOKENIZERS = (
    *("XLMRoberta", "Roberta", "Bert", "PreTrained", "Camembert", "Electra", "DistilBert"),
    *("Albert", "GPT2"),
)
_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1}
_BYTES |= {"BOOL": 1}
_LAYER = re.compile(r"(?:^|\.)encoder\.layer\.(\d{1,4})\.")


def read_object(path: Path, most: int) -> dict[str, Any]:
    """A JSON object of a file.

    Raises:
        UsageError: it cannot be read, is larger than ``most`` bytes, or is something else.
    """
    try:
        found = json_of(utf8(plain_bytes(path, most)))
    except OSError as error:
        raise UsageError(f"cannot be read: {error}", where=str(path)) from None
    except ValueError as error:
        raise UsageError(f"not JSON: {error}", where=str(path)) from None
    if not isinstance(found, dict):
        raise UsageError("not a JSON object", where=str(path))
    level: list[Any] = [found]
    for _ in range(MOST_DEPTH):
        level = [part for one in level for part in _parts(one)]
    if level:
        raise UsageError("not JSON: nested too deep", where=str(path))
    return found


def _parts(value: Any) -> list[Any]:
    """What is in a list or object."""
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def check_links(folder: Path, names: tuple[str, ...]) -> None:
    """Refuse files that are links to somewhere else; into a hub's own cache they may go.

    Raises:
        RefusedError: one leaves the folder.
    """
    roots = [folder.resolve()]
    if folder.parent.name == "snapshots":
        roots.append(folder.parent.parent.resolve() / "blobs")
    for name in names:
        path = folder / name
        if path.is_symlink() and not any(root in path.resolve().parents for root in roots):
            hint = "copy the file, or name the folder that it is in"
            raise RefusedError(f"{name} is a link out of the folder", where=str(folder), hint=hint)


def check_code(settings: Mapping[str, Any], path: Path) -> None:
    """Refuse settings that ask for code or for other files.

    Raises:
        RefusedError: a field of `CODE` or `FILES` is there, or an unknown kind of tokenizer.
    """
    for name in CODE:
        if settings.get(name):
            hint = "no code comes with a backbone: take the field out if the model works without"
            raise RefusedError(f"it asks for code with {name!r}", where=str(path), hint=hint)
    if path.name != "tokenizer_config.json":
        return
    for name in FILES:
        if settings.get(name):
            hint = "take the field out: what is read is tokenizer.json"
            raise RefusedError(f"{name!r} names another file", where=str(path), hint=hint)
    kind = settings.get("tokenizer_class")
    family = re.fullmatch(r"(\w+?)Tokenizer(?:Fast)?", kind) if isinstance(kind, str) else None
    if kind is not None and (family is None or family[1] not in TOKENIZERS):
        hint = f"write {TOKENIZERS[0]}TokenizerFast, or that of {', '.join(TOKENIZERS[1:])}"
        raise RefusedError(f"unknown tokenizer_class {kind!r}", where=str(path), hint=hint)


def check_checkpoint(folder: Path, config: Mapping[str, Any]) -> None:
    """Compare weights and tokenizer with a configuration whose sizes are whole numbers.

    Raises:
        UsageError: the first thing that does not fit, with its file.
    """
    shapes = tensors_of(folder / "model.safetensors")
    _check_shapes(folder / "model.safetensors", shapes, config)
    pieces = pieces_of(folder / "tokenizer.json")
    if pieces > config["vocab_size"]:
        what = f"{pieces:,} pieces, but the configuration has {config['vocab_size']:,} embeddings"
        raise UsageError(what, where=str(folder / "tokenizer.json"), hint="files of two backbones?")


def tensors_of(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of a safetensors file by name, from its header.

    Raises:
        UsageError: the header is not what the format says, or does not fit the file's size.
    """
    say = str(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(MOST_HEADER, size - 8):
                raise ValueError("the size of its header cannot be")
            header = json_of(utf8(file.read(length)))
        if not isinstance(header, dict):
            raise ValueError("its header is no object")
        header.pop("__metadata__", None)
        spans = sorted((_span(name, entry), name) for name, entry in header.items())
        end = 0
        for (begin, stop), name in spans:
            if begin != end:
                raise ValueError(f"the tensor {name[:100]!r} overlaps, or leaves a gap")
            end = stop
        if 8 + length + end != size:
            raise ValueError(f"it has {size:,} bytes, but its tensors end at {8 + length + end:,}")
    except OSError as error:
        raise UsageError(f"cannot be read: {error}", where=say) from None
    except ValueError as error:
        hint = "copy it again"
        raise UsageError(f"not a safetensors file: {error}", where=say, hint=hint) from None
    return {name: tuple(entry["shape"]) for name, entry in header.items()}


def _span(name: str, entry: Any) -> tuple[int, int]:
    """First byte of a tensor and the one behind it; ``ValueError`` where its shape has others."""
    fields = ("dtype", "shape", "data_offsets")
    if not isinstance(entry, dict) or not all(field in entry for field in fields):
        raise ValueError(f"the tensor {name[:100]!r} is not described")
    shape, offsets, kind = entry["shape"], entry["data_offsets"], entry["dtype"]
    numbers = isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2
    whole = numbers and all(type(n) is int and 0 <= n < 1 << 48 for n in (*shape, *offsets))
    if not whole or len(shape) > 8 or not isinstance(kind, str) or kind not in _BYTES:
        raise ValueError(f"the tensor {name[:100]!r} has a type, shape or place that cannot be")
    if math.prod(shape) * _BYTES[kind] != offsets[1] - offsets[0]:
        raise ValueError(f"the tensor {name[:100]!r} has not the bytes of its shape")
    return offsets[0], offsets[1]


def _check_shapes(
    path: Path, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]
) -> None:
    hidden = config["hidden_size"]
    wanted = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], hidden),
        "encoder.layer.0.intermediate.dense.weight": (config["intermediate_size"], hidden),
        "encoder.layer.0.attention.self.query.weight": (hidden, hidden),
    }
    if "type_vocab_size" in config:
        wanted["embeddings.token_type_embeddings.weight"] = (config["type_vocab_size"], hidden)
    for part, shape in wanted.items():
        found = next((of for name, of in shapes.items() if f".{name}".endswith(f".{part}")), None)
        if found is None:
            raise UsageError(f"no tensor {part!r}", where=str(path), hint="is it an encoder?")
        if found != shape:
            what = f"{part!r} has the shape {list(found)}, the configuration says {list(shape)}"
            raise UsageError(what, where=str(path), hint="files of two backbones?")
    layers = {int(match[1]) for name in shapes if (match := _LAYER.search(name))}
    lacking = next((i for i in range(config["num_hidden_layers"]) if i not in layers), None)
    if lacking is not None:
        what = f"no layer {lacking}, the configuration has {config['num_hidden_layers']}"
        raise UsageError(what, where=str(path), hint="files of two backbones?")


def pieces_of(path: Path) -> int:
    """One more than the highest number of a piece in a fast tokenizer's file.

    Raises:
        UsageError: it is none.
    """
    value = read_object(path, MOST_TOKENIZER)
    model = value.get("model")
    pieces = model.get("vocab") if isinstance(model, dict) else None
    try:
        if isinstance(pieces, dict):
            numbers = [_number(number) for number in pieces.values()]
        elif isinstance(pieces, list):
            numbers = [len(pieces) - 1]
        else:
            raise ValueError("it has no vocabulary")
        numbers += [_number(added["id"]) for added in value.get("added_tokens") or ()]
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"not a fast tokenizer: {error}", where=str(path)) from None
    if not numbers or min(numbers) < 0:
        raise UsageError("not a fast tokenizer: it has no vocabulary", where=str(path))
    return max(numbers) + 1


def _number(value: Any) -> int:
    if type(value) is not int:
        raise ValueError("a piece has no number")
    return value
