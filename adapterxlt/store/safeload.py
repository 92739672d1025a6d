"""A stranger's adapter folder, looked at without trusting it: files by role, JSON, tensors.

Only files of known names are opened, sizes are capped before anything is read, a header is checked
before its numbers are, and nothing foreign becomes a path, a module name or code. What is
wrong is a ``RefusedError`` that says which check failed. `run.adoptions` and the worker call it;
which tensors an adapter must have is a matter of `core.dialects` and `compute.adoption`.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterxlt.core.dialects import quoted
from adapterxlt.core.errors import RefusedError, UsageError

if TYPE_CHECKING:
    import numpy as np

#: Names that are opened, by what they are. Of two for one role the first is taken.
ROLES: dict[str, dict[str, tuple[str, ...]]] = {
    "adapters": {
        "weights": ("adapter.safetensors", "pytorch_adapter.bin"),
        "head_config": ("head_config.json",),
        "head": ("model_head.safetensors", "pytorch_model_head.bin"),
    },
    "peft": {"weights": ("adapter_model.safetensors", "adapter_model.bin")},
}
CONFIG = "adapter_config.json"
#: What our own exports say of themselves besides.
MANIFEST = "adapterxlt.json"
KNOWN = frozenset(
    {CONFIG, MANIFEST}
    | {name for roles in ROLES.values() for names in roles.values() for name in names}
)

#: Bytes of a JSON file, of a file of weights and of a safetensors header; tensors of a file.
MOST_JSON, MOST_WEIGHTS, MOST_HEADER = 1 << 20, 2 << 30, 8 << 20
MOST_TENSORS = 20_000
#: Lists and objects of a JSON file in one another; what is deeper can be read and not be shown.
MOST_DEPTH = 50
#: Characters of a text that is shown or kept.
MOST_TEXT = 200

_TYPES = {"F32": 4, "F16": 2, "BF16": 2}
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def check_name(name: str, where: str) -> None:
    """Refuse a file's name, with its folders, that could mean another place than it says.

    Raises:
        RefusedError: ``..``, absolute paths, backslashes, drives, control characters, and names
            that Windows keeps for devices or changes.
    """
    for part in name.split("/"):
        odd = (
            part in ("", ".", "..")
            or re.search(r'[\\:\x00-\x1f\x7f*?"<>|]', part)
            or _DEVICES.fullmatch(part)
            or part.endswith((".", " "))
        )
        if odd:
            raise RefusedError(f"a file has the name {shown(name)}", where=where)


def folder_files(folder: Path) -> dict[str, Path]:
    """The files of known names in a folder, by name.

    Raises:
        UsageError: no such folder.
        RefusedError: a file of a known name is a link, no plain file, or too large.
    """
    if not folder.is_dir():
        raise UsageError("no such adapter folder", where=str(folder))
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name not in KNOWN:
            continue
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            what = "a link" if stat.S_ISLNK(status.st_mode) else "no plain file"
            hint = "copy the files, or name it as hub:organization/name"
            raise RefusedError(f"{path.name} is {what}", where=str(folder), hint=hint)
        check_size(path.name, status.st_size, str(folder))
        found[path.name] = path
    return found


def read_plain(path: Path, where: str) -> bytes:
    """The bytes of a file that `folder_files` gave; by now another one may go by its name.

    Raises:
        RefusedError: it is a link or no plain file any more, or grows.
        OSError: it cannot be read.
    """
    # Neither through a link, nor waiting for somebody to write into a pipe.
    careful = ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY")
    flags = os.O_RDONLY | sum(getattr(os, name, 0) for name in careful)
    try:
        handle = os.open(path, flags)
    except OSError:
        if path.is_symlink():
            raise RefusedError(f"{path.name} is a link", where=where) from None
        raise
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise RefusedError(f"{path.name} is no plain file", where=where)
        check_size(path.name, status.st_size, where)
        with os.fdopen(handle, "rb", closefd=False) as file:
            data = file.read(status.st_size + 1)
    finally:
        os.close(handle)
    if len(data) != status.st_size:
        raise RefusedError(f"{path.name} changes while it is read", where=where)
    return data


def check_count(described: int, given: int, where: str) -> None:
    """Refuse a file that cannot hold what its configuration describes, before modules are made of
    it: a rank of a billion has no such file.

    Args:
        described, given: numbers of parameters.
    """
    if not described <= 2 * given:
        what = f"its configuration describes {described:,} parameters, and its file has {given:,}"
        raise RefusedError(what, where=where)


def check_size(name: str, size: int, where: str) -> None:
    """Refuse a file of a known name that is larger than any has reason to be."""
    most = MOST_JSON if name.endswith(".json") else MOST_WEIGHTS
    if size > most:
        raise RefusedError(f"{name} has {size:,} bytes, more than {most:,}", where=where)


def roles_of(names: Mapping[str, Any], config: Mapping[str, Any], where: str) -> dict[str, str]:
    """Format and files of an adapter by role, told by what its configuration says.

    Returns:
        ``{"format": "adapters" or "peft", "config": name, "weights": name, ...}``; `head` and
        `head_config` where there are both.

    Raises:
        RefusedError: neither format, or no weights.
    """
    if "peft_type" in config:
        format = "peft"
    elif "config" in config and any(k in config for k in ("version", "model_class", "model_type")):
        format = "adapters"
    else:
        what = f"{CONFIG} is of neither adapters (config, version) nor peft (peft_type)"
        raise RefusedError(what, where=where)
    found = {"format": format, "config": CONFIG}
    for role, known in ROLES[format].items():
        name = next((name for name in known if name in names), None)
        if name is not None:
            found[role] = name
    if "weights" not in found:
        names_of = " or ".join(ROLES[format]["weights"])
        raise RefusedError(f"there is no {names_of}", where=where)
    if ("head" in found) != ("head_config" in found):
        found.pop("head", None)
        found.pop("head_config", None)
    return found


# --- JSON ----------------------------------------------------------------------------------------


def read_json(data: bytes, where: str) -> dict[str, Any]:
    """A JSON object from a stranger.

    Raises:
        RefusedError: it is too large or too deep, no JSON, has a key twice, or a number that is
            NaN or infinite.
    """
    if len(data) > MOST_JSON:
        raise RefusedError(f"{len(data):,} bytes of JSON", where=where)
    value = _json(data, where)
    if not isinstance(value, dict):
        raise RefusedError("not a JSON object", where=where)
    return value


def _json(data: bytes, where: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for name, item in pairs:
            if name in value:
                raise RefusedError(f"the key {shown(name)} is there twice", where=where)
            value[name] = item
        return value

    def none(text: str) -> Any:
        number = f"{text[:20]}…" if len(text) > 20 else text
        raise RefusedError(f"{number} is no number that can be meant", where=where)

    def whole(text: str) -> int:
        return int(text) if len(text) <= 20 else none(text)

    def real(text: str) -> float:
        number = float(text)
        return number if math.isfinite(number) else none(text)

    try:
        text = data.decode("utf-8")
        value = json.loads(
            text, object_pairs_hook=once, parse_constant=none, parse_float=real, parse_int=whole
        )
    except RecursionError:
        raise RefusedError("its JSON is nested too deep", where=where) from None
    except ValueError as error:
        raise RefusedError(f"not JSON: {shown(str(error))}", where=where) from None
    level = [value]
    for _ in range(MOST_DEPTH):
        level = [part for one in level for part in _parts(one)]
    if level:
        raise RefusedError("its JSON is nested too deep", where=where)
    return value


def _parts(value: Any) -> Iterable[Any]:
    """What is in a list or object."""
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def shown(value: object) -> str:
    """A foreign value for a message, see `core.dialects.quoted`."""
    return quoted(value, MOST_TEXT)


# --- safetensors ---------------------------------------------------------------------------------


def header_of(data: memoryview, where: str) -> dict[str, tuple[str, tuple[int, ...], int, int]]:
    """The tensors of a safetensors file: type, shape, first byte and one past the last.

    Raises:
        RefusedError: anything that is not exactly as the format says: a header larger than the
            file, unknown types, sizes that do not match, gaps, overlaps or bytes left over.
    """
    if len(data) > MOST_WEIGHTS:
        raise RefusedError(f"{len(data):,} bytes of weights", where=where)
    size = int.from_bytes(data[:8], "little") if len(data) >= 8 else -1
    if not 2 <= size <= min(MOST_HEADER, len(data) - 8):
        raise RefusedError("the header's size is not that of a safetensors file", where=where)
    if data[8] != ord("{"):
        raise RefusedError("the header is not that of a safetensors file", where=where)
    header = _json(bytes(data[8 : 8 + size]), where)
    _check_metadata(header.pop("__metadata__", {}), where)
    if not header or len(header) > MOST_TENSORS:
        what = f"{len(header):,} tensors, not 1 to {MOST_TENSORS:,}"
        raise RefusedError(what, where=where)
    found = {}
    for name, entry in header.items():
        found[name] = (*_entry(name, entry, where),)
    end = 0
    for name, (_, _, begin, stop) in sorted(found.items(), key=lambda item: item[1][2:]):
        if begin != end:
            what = "overlaps another" if begin < end else "leaves a gap before it"
            raise RefusedError(f"the tensor {shown(name)} {what}", where=where)
        end = stop
    if 8 + size + end != len(data):
        what = f"{len(data):,} bytes, but the tensors end at {8 + size + end:,}"
        raise RefusedError(what, where=where)
    return {
        n: (t, s, 8 + size + begin, 8 + size + stop) for n, (t, s, begin, stop) in found.items()
    }


def _check_metadata(value: Any, where: str) -> None:
    texts = isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    if not texts:
        raise RefusedError("the header's metadata are not texts", where=where)


def _entry(name: str, entry: Any, where: str) -> tuple[str, tuple[int, ...], int, int]:
    say = f"the tensor {shown(name)}"
    fields = {"dtype", "shape", "data_offsets"}
    if not isinstance(entry, dict) or set(entry) != fields or not name or len(name) > 500:
        raise RefusedError(f"{say} is not described as the format says", where=where)
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in _TYPES:
        known = ", ".join(_TYPES)
        raise RefusedError(f"{say} is of type {shown(kind)}, not {known}", where=where)
    whole = all(isinstance(part, list) for part in (shape, offsets)) and all(
        type(n) is int and 0 <= n <= MOST_WEIGHTS for n in (*shape, *offsets)
    )
    # No adapter has a tensor of no numbers, which may have a shape that no array can have.
    if not whole or 0 in shape or len(shape) > 8 or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise RefusedError(f"{say} has a shape or place that cannot be", where=where)
    if math.prod(shape) * _TYPES[kind] != offsets[1] - offsets[0]:
        what = f"{say} of shape {shape} has {offsets[1] - offsets[0]} bytes"
        raise RefusedError(what, where=where)
    return kind, tuple(shape), offsets[0], offsets[1]


def tensors_of(data: bytes | memoryview, where: str) -> dict[str, np.ndarray[Any, Any]]:
    """The tensors of a safetensors file as fp32, after every check of `header_of`.

    Raises:
        RefusedError: also where a number is NaN or infinite.
    """
    import numpy as np

    view = memoryview(data)
    found = {}
    for name, (kind, shape, begin, end) in header_of(view, where).items():
        part = view[begin:end]
        if kind == "BF16":
            wide = np.frombuffer(part, "<u2").astype("<u4") << np.uint32(16)
            values = wide.view("<f4")
        else:
            values = np.frombuffer(part, "<f4" if kind == "F32" else "<f2").astype("<f4")
        if not np.isfinite(values).all():
            odd = int(np.count_nonzero(~np.isfinite(values)))
            raise RefusedError(f"{odd} of the numbers of {shown(name)} are not finite", where=where)
        found[name] = values.reshape(shape)
    return found
