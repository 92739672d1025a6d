"""A program of its own: a pickle of tensors in, a safetensors file out, under limits.

Run as ``python -I unpickle.py SOURCE TARGET`` in an empty folder, without the caller's environment;
never imported. Only tensors are made (``weights_only``): code in the pickle is refused, not run.
What it says on stderr is for the caller's message.
"""

import os
import re
import sys
import zipfile

#: Seconds of computing, bytes of what it may write, bytes of memory besides what torch takes.
SECONDS, WRITTEN, MEMORY = 120, 2 << 30, 6 << 30


def main(source: str, target: str) -> None:
    import torch
    from safetensors.torch import save_file

    _limit()
    _check_archive(source)
    loaded = torch.load(source, map_location="cpu", weights_only=True)
    if not isinstance(loaded, dict) or not loaded:
        raise ValueError("it holds no tensors by name")
    tensors, size = {}, 0
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor) or value.is_sparse:
            raise ValueError(f"{ascii(name)[:80]} is not a tensor")
        if value.layout is not torch.strided or value.is_quantized or value.is_complex():
            raise ValueError(f"{ascii(name)[:80]} is no plain tensor")
        size += (own := value.numel() * value.element_size())
        if own > value.untyped_storage().nbytes() or size > WRITTEN:
            raise ValueError(f"{ascii(name)[:80]} is larger than what there is of it")
        # Two names may share memory, which the other format has no word for.
        tensors[name] = value.detach().clone().contiguous()
    save_file(tensors, target)


def _check_archive(source: str) -> None:
    """torch writes archives of records as they are: packed ones, or ones that are there twice, are
    meant to grow."""
    with open(source, "rb") as file:
        if file.read(2) != b"PK":
            return
    with zipfile.ZipFile(source) as archive:
        records = archive.infolist()
    packed = any(record.compress_type != zipfile.ZIP_STORED for record in records)
    if packed or sum(record.file_size for record in records) > os.path.getsize(source):
        raise ValueError("its records are packed")


def _why(error: Exception) -> str:
    text = str(error)
    if "weights_only" in text:
        # torch goes on to say how to open it all the same.
        called = re.search(r"GLOBAL ([\w.]+)", text)
        return f"it calls {called[1]}" if called else "torch cannot read it"
    return f"{type(error).__name__}: {text}".splitlines()[0][:300]


def _limit() -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    with open("/proc/self/statm") if sys.platform == "linux" else _Nothing() as file:
        pages = int(file.read().split()[0])
    now = pages * resource.getpagesize()
    for kind, most in (
        (resource.RLIMIT_CPU, SECONDS),
        (resource.RLIMIT_FSIZE, WRITTEN),
        (resource.RLIMIT_AS, now + MEMORY),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))


class _Nothing:
    """A file of no pages, where the system does not tell how much memory is taken."""

    def __enter__(self) -> "_Nothing":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self) -> str:
        return str(1 << 20)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:
        print(_why(error), file=sys.stderr)
        sys.exit(1)
