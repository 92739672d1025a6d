"""Headers of safetensors files that are not as the format says."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from cases import CANNOT, TINY, W, near
from crafting import (
    Header,
    Spoiler,
    Typed,
    content,
    entry,
    first,
    pack,
    packed,
    rawly,
)


def sized(size: int) -> Spoiler:
    return rawly(lambda header, data: pack(header, data, size))


def with_header(change: Any) -> Spoiler:
    """A file whose header is what ``change`` makes of it."""
    return rawly(lambda header, data: pack(change(header), data))


def shifted(header: Header, by: int) -> Header:
    """The second tensor begins earlier or later; sizes stay."""
    order = sorted(
        (n for n in header if n != "__metadata__"), key=lambda n: header[n]["data_offsets"]
    )
    for name in order[1:]:
        header[name]["data_offsets"] = [at + by for at in header[name]["data_offsets"]]
    return header


def twice(header: Header) -> bytes:
    name = first(header)
    text = json.dumps(header)
    return f"{{{json.dumps(name)}: {json.dumps(header[name])}, {text[1:]}".encode()


SIZE = "the header's size is not that of"
HEADERS = {
    "a header of 2^63 bytes": near(sized(1 << 63), SIZE),
    "a header of 2^64 - 1 bytes": near(sized((1 << 64) - 1), SIZE),
    "a header of no bytes": near(sized(0), SIZE),
    "a header longer than the file": near(sized(1 << 20), SIZE),
    "a header of 9 MiB": near(
        rawly(lambda header, data: pack(json.dumps(header).encode() + b" " * (9 << 20), data)), SIZE
    ),
    "a header that is a list": near(with_header(lambda header: b"[1]"), "the header is not that"),
    "a header with something behind": near(
        with_header(lambda header: json.dumps(header).encode() + b"{}"), "not JSON", "Extra data"
    ),
    "a header of lists in lists": near(
        with_header(lambda header: b'{"x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
        "nested too deep",
    ),
    "a header of a million keys, the last twice": near(
        with_header(
            lambda header: (
                "{" + ",".join(f'"{i:x}":0' for i in range(600_000)) + ',"z":0,"z":0}'
            ).encode()
        ),
        "the key 'z' is there twice",
    ),
    "20,001 tensors": near(
        with_header(lambda header: {f"t{i}": TINY for i in range(20_001)}),
        "20,001 tensors, not 1 to 20,000",
    ),
    "no tensors": near(with_header(lambda header: {}), "0 tensors"),
    "a tensor twice": near(with_header(twice), "adapter_down.0.bias' is there twice"),
    "metadata of other kinds": near(
        with_header(lambda header: {**header, "__metadata__": {"a": [1]}}), "metadata are not texts"
    ),
    "metadata that are a tensor": near(
        with_header(lambda header: {**header, "__metadata__": TINY}), "metadata are not texts"
    ),
    "tensors that overlap": near(with_header(lambda h: shifted(h, -4)), "overlaps another"),
    "a gap between tensors": near(with_header(lambda h: shifted(h, 4)), "leaves a gap before it"),
    "a truncated file": near(
        lambda folder: content(W, (folder / W).read_bytes()[:-40])(folder), "but the tensors end at"
    ),
    "half a header": near(lambda folder: content(W, (folder / W).read_bytes()[:100])(folder), SIZE),
    "bytes behind": near(
        lambda folder: content(W, (folder / W).read_bytes() + b"\0" * 8)(folder),
        "but the tensors end at",
    ),
    "a type that is unknown": near(entry(dtype="F8_E9"), "is of type 'F8_E9', not F32, F16, BF16"),
    "a type that is a list": near(entry(dtype=["F32"]), "is of type ['F32'], not F32"),
    "a type with an escape": near(entry(dtype="\x1b[2J<b>"), r"is of type '\x1b[2J\x3cb\x3e'"),
    "a shape below zero": near(entry(shape=[-1, -32]), CANNOT),
    "a shape of fractions": near(entry(shape=[32.0]), CANNOT),
    "a shape of truth values": near(entry(shape=[True, 16]), CANNOT),
    "a shape of texts": near(entry(shape=["16"]), CANNOT),
    "a shape that is a number": near(entry(shape=16), CANNOT),
    "a shape of nine dimensions": near(entry(shape=[1] * 8 + [16]), CANNOT),
    "a shape whose product overflows": near(entry(shape=[1 << 31] * 4), "of shape [2147483648, "),
    "a size of 2^64": near(entry(shape=[1 << 64]), CANNOT),
    "no numbers, in a shape of 2^93": near(
        rawly(
            lambda header, data: (
                packed({"x": Typed("F32", np.zeros((0,)))})[:0]
                + pack(
                    {"x": {"dtype": "F32", "shape": [0, *[1 << 31] * 3], "data_offsets": [0, 0]}},
                    b"",
                )
            )
        ),
        CANNOT,
    ),
    "a place that ends before it begins": near(entry(data_offsets=[64, 0]), CANNOT),
    "a place of three": near(entry(data_offsets=[0, 32, 64]), CANNOT),
    "a place beyond the file": near(
        entry(data_offsets=[0, 1 << 30]), "of shape [16] has 1073741824"
    ),
    "a field that is unknown": near(entry(url="http://x"), "is not described as the format says"),
    "a tensor without a name": near(with_header(lambda h: {**h, "": TINY}), "not described as"),
    "a name of 501 characters": near(
        with_header(lambda h: {**h, "x" * 501: TINY}), "not described as"
    ),
    "a name of a million characters": near(
        with_header(lambda h: {**h, "x" * 1_000_000: TINY}), "not described as"
    ),
}
