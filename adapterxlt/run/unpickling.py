"""Pickled weights, converted once in a process of their own; this process opens no pickle.

The program that does it is `compute/unpickle.py`: limits, no environment, tensors only. What it
makes is kept in the store and trusted no more than any other stranger's file.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from adapterxlt.core.canon import sha256_hex
from adapterxlt.core.errors import RefusedError
from adapterxlt.store.safeload import check_size, header_of, shown
from adapterxlt.store.store import Store

_PROGRAM = Path(__file__).resolve().parent.parent / "compute" / "unpickle.py"
#: Seconds until it is given up.
PATIENCE = 300


def pickle_refused(name: str, where: str) -> RefusedError:
    """The error of weights that are a pickle where none is allowed."""
    hint = "say allow_pickle: true to have it opened once, in a process of its own"
    return RefusedError(f"{name} is a pickle", where=where, hint=hint)


def unpickled(store: Store, data: bytes, where: str) -> bytes:
    """The tensors of a pickle as the bytes of a safetensors file.

    Raises:
        RefusedError: it is no pickle of tensors alone, or takes too much to find out.
    """
    name = sha256_hex(data)
    known = store.noted("unpickled", name)
    if known is not None and store.keep_whole(known["object"]):
        return store.get(known["object"])
    made = _convert(data, where)
    header_of(memoryview(made), where)  # what is refused is not kept
    store.note("unpickled", name, {"object": store.put(made)})
    return made


def _convert(data: bytes, where: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="adapterxlt-") as folder:
        source, target = Path(folder) / "source.bin", Path(folder) / "target.safetensors"
        source.write_bytes(data)
        command = [sys.executable, "-I", str(_PROGRAM), str(source), str(target)]
        try:
            done = subprocess.run(
                command, cwd=folder, env={}, capture_output=True, timeout=PATIENCE
            )
        except subprocess.TimeoutExpired:
            raise RefusedError("the pickle takes too long to open", where=where) from None
        if done.returncode or not target.is_file():
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            why = shown(said[-1]) if said else f"it ended with {done.returncode}"
            raise RefusedError(f"not a pickle of tensors alone: {why}", where=where)
        check_size(target.name, target.stat().st_size, where)
        return target.read_bytes()
