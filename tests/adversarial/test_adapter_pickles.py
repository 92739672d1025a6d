"""Pickled weights that hold code, or are made to grow: refused, nothing run, within bounds.

Each is handed over with leave to open pickles. What code in them would make is a file beside the
adapter, which must not be there afterwards.
"""

from __future__ import annotations

import importlib.util
import io
import os
import pickle
import resource
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from crafting import HEAD, together, without
from scenes import Scene, refused

from adapterxlt.core.errors import RefusedError
from adapterxlt.run import unpickling
from adapterxlt.store.store import Store

#: Seconds within which a pickle is refused: most of them are another process's imports.
PATIENCE = 40.0
NAME = "pytorch_adapter.bin"
ALONE = "not a pickle of tensors alone: "


class Call:
    """What a pickle calls when it is opened."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def saved(value: Any, **how: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **how)
    return file.getvalue()


def good(scene: Scene) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(scene.good / "lora" / NAME, weights_only=True)
    return found


def archive(data: bytes, packed: bool = False, **changes: bytes) -> bytes:
    """torch's archive with other records, by the end of their names; packed, or as they are."""
    file = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(file, "w", kind) as target:
        for name in source.namelist():
            record = changes.get(name.rpartition("/")[2], source.read(name))
            target.writestr(name, record)
    return file.getvalue()


# --- code ----------------------------------------------------------------------------------------


def shell(scene: Scene) -> bytes:
    return saved({"a": Call(os.system, f"touch {scene.canary}")})


def evaluated(scene: Scene) -> bytes:
    code = f"open({str(scene.canary)!r}, 'w')"
    return pickle.dumps({"a": Call(eval, code)}, protocol=2)


def in_a_tensor(scene: Scene) -> bytes:
    """Code in what a tensor carries besides its numbers."""
    tensors = good(scene)
    next(iter(tensors.values())).hook = Call(os.system, f"touch {scene.canary}")  # type: ignore[attr-defined]
    return saved(tensors)


def in_a_tar(scene: Scene) -> bytes:
    """The format of torch before 0.1.10."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as target:
        parts = {"sys_info": {}, "pickle": Call(os.system, f"touch {scene.canary}")}
        parts |= {"storages": 0, "tensors": 0}
        for name, value in parts.items():
            data = pickle.dumps(value, protocol=2)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            target.addfile(info, io.BytesIO(data))
    return file.getvalue()


def before_archives(scene: Scene) -> bytes:
    """The format of torch before 1.6: pickles one after the other."""
    value = {"a": Call(os.system, f"touch {scene.canary}")}
    return saved(value, _use_new_zipfile_serialization=False)


def script(scene: Scene) -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)
    return file.getvalue()


CODE: dict[str, tuple[Callable[[Scene], bytes], str]] = {
    "a command": (shell, "it calls posix.system"),
    "an expression": (evaluated, "it calls eval"),
    "a command in a tensor": (in_a_tensor, "it calls posix.system"),
    "a command in a tar": (in_a_tar, "torch cannot read it"),
    "a command before archives": (before_archives, "it calls posix.system"),
    "a program of torch": (script, "its records are packed"),
}


# --- growth --------------------------------------------------------------------------------------


def zeros(scene: Scene) -> bytes:
    """64 MiB of nothing, packed into 64 KiB."""
    return archive(saved({"a": torch.zeros(1 << 24)}), packed=True)


def twice(scene: Scene) -> bytes:
    """One record that is listed a thousand times."""
    file = io.BytesIO()
    data = saved({"a": torch.zeros(1 << 16)})
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(file, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
        target.filelist += [one for one in target.filelist if one.file_size > 1 << 16] * 1000
    return file.getvalue()


def stretched(scene: Scene) -> bytes:
    return saved({"a": torch.zeros(1).expand(500_000_000)})


def asked_for(scene: Scene) -> bytes:
    """A storage of eight gigabytes, in the format before archives."""
    data = saved({"a": torch.zeros(77_777)}, _use_new_zipfile_serialization=False)
    return data.replace(struct.pack("<i", 77_777), struct.pack("<i", (1 << 31) - 1))


GROWTH: dict[str, tuple[Callable[[Scene], bytes], str]] = {
    "zeros, packed": (zeros, "its records are packed"),
    "records that are listed twice": (twice, "its records are packed"),
    "one number as half a billion": (stretched, "'a' is larger than what there is of it"),
    "a storage of gigabytes": (asked_for, ALONE),
    "a page": (lambda _: b"<!doctype html><script>alert(1)</script>", "torch cannot read it"),
}
PICKLES = CODE | GROWTH


@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_is_refused(name: str, scene: Scene) -> None:
    make, said = PICKLES[name]
    (scene.spoiled("lora") / NAME).write_bytes(make(scene))
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    refused(scene, (said,), error=RefusedError, within=PATIENCE, allow_pickle=True)
    # In units of 1,024 bytes, of all children so far: torch itself takes a good part of it.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss <= max(largest, 1_000_000)


# --- what is no adapter, looked into without another process -------------------------------------


@pytest.fixture(scope="module")
def program() -> Any:
    """The program that converts, as a module, without its limits, which would be this process's."""
    path = Path(unpickling.__file__).parent.parent / "compute" / "unpickle.py"
    spec = importlib.util.spec_from_file_location("unpickle_program", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module._limit = lambda: None  # type: ignore[attr-defined]
    return module


def nested() -> bytes:
    value: Any = ()
    for _ in range(300):
        value = [value]
    return saved({"a": value})


def endless() -> bytes:
    value: dict[str, Any] = {}
    value["a"] = value
    return saved(value)


def of_one(value: Any) -> bytes:
    return saved({"a": value})


THINGS = {
    "lists in lists": (nested(), "'a' is not a tensor"),
    "itself in itself": (endless(), "'a' is not a tensor"),
    "a text": (of_one("x"), "'a' is not a tensor"),
    "a sparse tensor": (of_one(torch.eye(3).to_sparse()), "'a' is not a tensor"),
    "complex numbers": (of_one(torch.zeros(3, dtype=torch.complex64)), "'a' is no plain tensor"),
    "a tensor elsewhere": (of_one(torch.zeros(3, device="meta")), "Cannot copy out of meta"),
    "a list of tensors": (saved([torch.zeros(3)]), "it holds no tensors by name"),
    "nothing": (saved({}), "it holds no tensors by name"),
    "names that are numbers": (saved({1: torch.zeros(3)}), "1 is not a tensor"),
    "half a character": (saved({"\ud800": torch.zeros(3)}), "Error"),
    "no bytes": (b"", "EOFError"),
    "half an archive": (of_one(torch.zeros(300))[:900], "BadZipFile"),
    "no archive": (b"PK\3\4" + bytes(100), "BadZipFile"),
    "a record that is too short": (archive(of_one(torch.zeros(300)), **{"0": bytes(16)}), "size"),
    "many names for one storage": (
        saved({str(i): one for one in [torch.zeros(1 << 20)] for i in range(600)}),
        "'512' is larger",
    ),
}


@pytest.mark.parametrize("name", THINGS)
def test_what_is_no_adapter_is_not_converted(name: str, program: Any, tmp_path: Path) -> None:
    data, said = THINGS[name]
    (tmp_path / "source.bin").write_bytes(data)
    with pytest.raises(Exception) as caught:
        program.main(str(tmp_path / "source.bin"), str(tmp_path / "target"))
    why = program._why(caught.value)
    assert said in why and len(why) <= 300
    assert not (tmp_path / "target").exists()


def test_what_is_converted_is_checked_as_any_other_file(scene: Scene) -> None:
    folder, store = scene.spoiled("lora"), Store(scene.store)
    before = list(store.objects())
    for value, said in (
        (torch.zeros(3, dtype=torch.int8), "the tensor 'a' is of type 'I8', not F32, F16, BF16"),
        (torch.full((3,), torch.nan), "3 of the numbers of 'a' are not finite"),
    ):
        (folder / NAME).write_bytes(of_one(value))
        refused(scene, (said,), error=RefusedError, within=PATIENCE, allow_pickle=True)
        if value.dtype == torch.int8:  # what its header refuses is not even kept
            assert list(store.objects()) == before


@pytest.mark.parametrize("name", ["a command"])
def test_the_code_would_have_run(name: str, scene: Scene) -> None:
    """The canary sings where a pickle is opened as pickles are."""
    make, _ = CODE[name]
    file = scene.root / "opened.bin"
    file.write_bytes(make(scene))
    program = f"import torch; torch.load({str(file)!r}, weights_only=False)"
    subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert scene.canary.exists()


def test_a_head_with_code_is_refused(scene: Scene) -> None:
    def spoil(folder: Path) -> None:
        (folder / "pytorch_model_head.bin").write_bytes(shell(scene))

    scene.spoiled("pos", together(without(HEAD), spoil))
    said = ("it calls posix.system",)
    how = {"task": "lab-pos", "allow_pickle": True}
    refused(scene, said, error=RefusedError, within=PATIENCE, **how)


def test_peft_with_code_is_refused(scene: Scene) -> None:
    def spoil(folder: Path) -> None:
        (folder / "adapter_model.bin").write_bytes(shell(scene))

    scene.spoiled("peft", together(without("adapter_model.safetensors"), spoil))
    said = ("adapter_model.bin is a pickle",)
    refused(scene, said, error=RefusedError, within=PATIENCE)
    said = ("it calls posix.system",)
    refused(scene, said, error=RefusedError, within=PATIENCE, allow_pickle=True)


def test_a_shared_tensor_that_differs_under_its_other_name(scene: Scene) -> None:
    folder = scene.spoiled("prefix")
    tensors = torch.load(folder / NAME, weights_only=True)
    name = next(name for name in tensors if name.endswith("wte.weight"))
    tensors[name] = tensors[name] + 1
    torch.save(tensors, folder / NAME)
    said = ("differs under another of its names",)
    refused(scene, said, error=RefusedError, within=PATIENCE, allow_pickle=True)
