"""Good adapter folders as the real libraries save them, and ways to spoil a copy of one.

Files are written byte by byte here: the libraries' own writers would not write what these tests
need. A spoiler is a function of the folder; `together` makes one of several.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import adapters
import numpy as np
import peft
import torch
from adapters import AutoAdapterModel
from transformers import AutoModel, AutoModelForTokenClassification

from adapterxlt.core.tasks import TASKS

Spoiler = Callable[[Path], None]
Header = dict[str, Any]
LABELS = list(TASKS["lab-pos"].labels)
CONFIG, HEAD_CONFIG, HEAD = "adapter_config.json", "head_config.json", "model_head.safetensors"
#: What takes a field of a JSON file out.
GONE = object()
_TYPES = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "BF16": "<u2", "I8": "<i1", "BOOL": "?"}


# --- good ones -----------------------------------------------------------------------------------


def good_folders(root: Path, backbone: Path) -> None:
    """An adapter of each kind and format under ``root``, by name."""
    torch.manual_seed(0)
    model = AutoAdapterModel.from_pretrained(backbone, attn_implementation="eager")
    for name, config, safe in (
        ("near", adapters.SeqBnInvConfig(reduction_factor=2), True),
        ("pos", adapters.SeqBnConfig(reduction_factor=4), True),
        ("lora", adapters.LoRAConfig(r=4, alpha=16), False),
        ("prefix", adapters.PrefixTuningConfig(prefix_length=5, bottleneck_size=8), False),
    ):
        model.add_adapter(name, config=config)
        if name == "pos":
            labels = dict(enumerate(LABELS))
            model.add_tagging_head(name, num_labels=len(LABELS), id2label=labels)
        _draw(model, lambda full, name=name: name in full.split("."))
        model.save_adapter(str(root / name), name, use_safetensors=safe)
    targets = {
        f"layer.{i}.{path}"
        for i in range(2)
        for path in ("attention.self.key", "attention.self.value", "output.dense")
    }
    ends = {path for path in targets if path.endswith(".output.dense")}
    low_rank = {"r": 4, "lora_alpha": 16, "target_modules": ["query", "value"]}
    _save(root / "peft", AutoModel, backbone, peft.LoraConfig(**low_rank))
    ia3 = peft.IA3Config(target_modules=targets, feedforward_modules=ends)
    _save(root / "ia3", AutoModel, backbone, ia3)
    tagger = peft.LoraConfig(**low_rank, task_type="TOKEN_CLS")
    of_tags = {"num_labels": len(LABELS)}
    _save(root / "tagger", AutoModelForTokenClassification, backbone, tagger, **of_tags)


def _save(folder: Path, kind: Any, backbone: Path, config: Any, **more: Any) -> None:
    base = kind.from_pretrained(backbone, attn_implementation="eager", **more)
    model = peft.get_peft_model(base, config)
    _draw(model, lambda full: any(of in full for of in ("lora_", "ia3_", "modules_to_save")))
    model.save_pretrained(str(folder))


def _draw(model: Any, own: Callable[[str], bool]) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if own(name):
                parameter.add_(torch.randn(parameter.shape) * 0.2)


# --- any file ------------------------------------------------------------------------------------


def together(*spoilers: Spoiler) -> Spoiler:
    def spoil(folder: Path) -> None:
        for one in spoilers:
            one(folder)

    return spoil


def without(*names: str) -> Spoiler:
    def spoil(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return spoil


def content(name: str, data: bytes | str) -> Spoiler:
    """A file with these bytes and no others."""
    return lambda folder: _write(folder / name, data)


def _write(path: Path, data: bytes | str) -> None:
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def instead(name: str, make: Callable[[Path], object]) -> Spoiler:
    """What ``make`` makes at the place of a file."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return spoil


# --- JSON ----------------------------------------------------------------------------------------


def fields(name: str = CONFIG, of: str | None = None, /, **changes: Any) -> Spoiler:
    """Fields of a JSON file, or of the mapping that is one of its fields, with other values."""

    def spoil(folder: Path) -> None:
        document = json.loads((folder / name).read_bytes())
        where = document if of is None else document[of]
        where.update(changes)
        for key in [key for key, value in where.items() if value is GONE]:
            del where[key]
        (folder / name).write_text(json.dumps(document))

    return spoil


def inner(**changes: Any) -> Spoiler:
    """Fields of an adapter's configuration proper, in the format of `adapters`."""
    return fields(CONFIG, "config", **changes)


def head(**changes: Any) -> Spoiler:
    """Fields of a head's configuration proper."""
    return fields(HEAD_CONFIG, "config", **changes)


def member(name: str, raw: str, file: str = CONFIG) -> Spoiler:
    """One more member of a JSON file's object, its value written as it is, before the others."""

    def spoil(folder: Path) -> None:
        text = (folder / file).read_text()
        (folder / file).write_text(f'{{"{name}": {raw}, ' + text.lstrip()[1:])

    return spoil


# --- safetensors ---------------------------------------------------------------------------------


def pack(header: Any, data: bytes, size: int | None = None) -> bytes:
    """A safetensors file of any header, which may be bytes, whose size may be a lie."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + data


def unpack(file: bytes) -> tuple[Header, bytes]:
    size = int.from_bytes(file[:8], "little")
    return json.loads(file[8 : 8 + size]), file[8 + size :]


def weights_of(folder: Path) -> Path:
    names = ("adapter.safetensors", "adapter_model.safetensors")
    return next(folder / name for name in names if (folder / name).is_file())


def rawly(change: Callable[[Header, bytes], bytes], name: str | None = None) -> Spoiler:
    """A file of tensors as other bytes: made from its header and its data."""

    def spoil(folder: Path) -> None:
        path = folder / name if name else weights_of(folder)
        path.write_bytes(change(*unpack(path.read_bytes())))

    return spoil


def entry(**changes: Any) -> Spoiler:
    """The first tensor's description with other values; data as they were."""

    def change(header: Header, data: bytes) -> bytes:
        header[first(header)].update(changes)
        return pack(header, data)

    return rawly(change)


def first(header: Mapping[str, Any]) -> str:
    """The tensor whose data come first."""
    names = [name for name in header if name != "__metadata__"]
    return min(names, key=lambda name: header[name]["data_offsets"])


class Typed:
    """Numbers with the format's own word for their type."""

    def __init__(self, kind: str, values: Any) -> None:
        self.kind, self.values = kind, np.asarray(values).astype(_TYPES[kind])


Arrays = dict[str, Any]


def packed(arrays: Mapping[str, Any]) -> bytes:
    """A safetensors file of arrays, and of `Typed` ones."""
    header: Header = {}
    data = b""
    for name, given in arrays.items():
        one = given if isinstance(given, Typed) else Typed("F32", given)
        raw = np.ascontiguousarray(one.values).tobytes()
        span = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": one.kind, "shape": list(one.values.shape), "data_offsets": span}
        data += raw
    return pack(header, data)


def arrays_of(file: bytes) -> Arrays:
    header, data = unpack(file)
    found = {}
    for name, of in header.items():
        if name != "__metadata__":
            begin, end = of["data_offsets"]
            values = np.frombuffer(data[begin:end], _TYPES[of["dtype"]])
            found[name] = values.reshape(of["shape"]).copy()
    return found


def tensors(change: Callable[[Arrays], Arrays | None], name: str | None = None) -> Spoiler:
    """The tensors of a file, changed in place or replaced by what comes back."""

    def spoil(folder: Path) -> None:
        path = folder / name if name else weights_of(folder)
        arrays = arrays_of(path.read_bytes())
        changed = change(arrays)
        path.write_bytes(packed(arrays if changed is None else changed))

    return spoil


def one_of(arrays: Arrays, part: str) -> str:
    """The first name with this part."""
    return next(name for name in arrays if part in name)


def replaced(part: str, change: Callable[[Any], Any]) -> Spoiler:
    """One tensor's numbers made others."""

    def spoil(arrays: Arrays) -> None:
        name = one_of(arrays, part)
        arrays[name] = change(arrays[name])

    return tensors(spoil)


def renamed(part: str, change: Callable[[str], str]) -> Spoiler:
    """One tensor under another name."""

    def spoil(arrays: Arrays) -> None:
        name = one_of(arrays, part)
        arrays[change(name)] = arrays.pop(name)

    return tensors(spoil)


def besides(name: str | Callable[[str], str], shape: tuple[int, ...] | None = None) -> Spoiler:
    """One tensor more: of a name, or of a name made from that of a weight there is."""

    def spoil(arrays: Arrays) -> None:
        own = one_of(arrays, "weight")
        more = np.zeros(shape, np.float32) if shape is not None else arrays[own] + 1
        arrays[name if isinstance(name, str) else name(own)] = more

    return tensors(spoil)
