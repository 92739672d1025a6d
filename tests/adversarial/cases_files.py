"""Files that are missing, too large, or something else; and JSON that is not what it should be."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from cases import Case, W, near
from crafting import CONFIG, content, instead, member, without


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 3 << 30)


def device(path: Path) -> None:
    """What can be read for ever."""
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    except OSError:
        pytest.skip("only root makes devices")


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
PAGE = "<!doctype html><script>alert(1)</script>"
FILES = {
    "an empty folder": near(empty, "there is no adapter_config.json"),
    "no configuration": near(without(CONFIG), "there is no adapter_config.json"),
    "no weights": near(without(W), "there is no adapter.safetensors or pytorch_adapter.bin"),
    "weights of another format": near(
        lambda folder: (folder / W).rename(folder / "adapter_model.safetensors"),
        "there is no adapter.safetensors",
    ),
    "a configuration of no bytes": near(content(CONFIG, b""), f"{CONFIG}: not JSON"),
    "weights of no bytes": near(content(W, b""), f"{W}: the header's size is not that of"),
    "a pointer to weights": near(content(W, POINTER), "the header's size is not that of"),
    "a page for weights": near(content(W, PAGE), "the header's size is not that of"),
    "a page for a configuration": near(content(CONFIG, PAGE), "not JSON"),
    "a configuration of another place": near(
        instead(CONFIG, lambda path: path.symlink_to("/etc/passwd")),
        "adapter_config.json is a link",
    ),
    "weights that are a link": near(
        instead(W, lambda path: path.symlink_to(path.parent / CONFIG)), f"{W} is a link"
    ),
    "a link to nothing": near(
        instead(W, lambda path: path.symlink_to("nowhere")), f"{W} is a link"
    ),
    "a link to itself": near(instead(W, lambda path: path.symlink_to(W)), f"{W} is a link"),
    "a pipe": near(instead(W, os.mkfifo), f"{W} is no plain file"),
    "a pipe beside": near(
        lambda folder: os.mkfifo(folder / "pytorch_adapter.bin"), "pytorch_adapter.bin is no plain"
    ),
    "a device": near(instead(W, device), f"{W} is no plain file"),
    "a folder for weights": near(instead(W, Path.mkdir), f"{W} is no plain file"),
    "3 GiB of weights": near(instead(W, sparse), "3,221,225,472 bytes, more than 2,147,483,648"),
    "3 GiB of configuration": near(
        instead(CONFIG, sparse), f"{CONFIG} has 3,221,225,472 bytes, more than 1,048,576"
    ),
    "1 MiB of configuration": near(
        member("x", json.dumps("x" * (1 << 20))), f"{CONFIG} has ", " bytes, more than 1,048,576"
    ),
    "a pickle that is not allowed": Case(
        "lora", lambda folder: None, ("pytorch_adapter.bin is a pickle", "say allow_pickle")
    ),
}


# --- JSON ----------------------------------------------------------------------------------------

KEYS = ", ".join(f'"k{i}": 0' for i in range(60_000))
JSON = {
    "not UTF-8": near(content(CONFIG, b'{"config": "\xff"}'), "not JSON", "utf-8"),
    "UTF-16": near(content(CONFIG, '{"config": 1}'.encode("utf-16")), "not JSON"),
    "a byte order mark": near(content(CONFIG, b"\xef\xbb\xbf{}"), "not JSON", "BOM"),
    "a list": near(content(CONFIG, "[1]"), "not a JSON object"),
    "a text": near(content(CONFIG, '"x"'), "not a JSON object"),
    "something behind": near(
        lambda folder: content(CONFIG, (folder / CONFIG).read_text() + "{}")(folder),
        "not JSON",
        "Extra data",
    ),
    "a NUL": near(content(CONFIG, '{"config": "\0"}'), "not JSON"),
    "100,000 lists in lists": near(content(CONFIG, "[" * 100_000), "nested too deep"),
    **{
        f"{depth} lists in lists": near(member("x", "[" * depth + "]" * depth), "nested")
        for depth in (60, 700)
    },
    "objects in objects": near(member("x", '{"a":' * 300 + "1" + "}" * 300), "nested"),
    "not a number": near(member("x", "NaN"), "NaN is no number"),
    "infinity": near(member("x", "-Infinity"), "-Infinity is no number"),
    "a number that becomes infinity": near(member("x", "1e999"), "1e999 is no number"),
    "100,000 digits": near(member("x", "7" * 100_000), "77777777777777777777… is no number"),
    "a key twice": near(member("config", "{}"), "the key 'config' is there twice"),
    "a key twice inside": near(member("x", '{"a": 1, "\\u0061": 2}'), "the key 'a' is there twice"),
    "the last of many keys twice": near(
        member("x", f'{{{KEYS}, "last": 1, "last": 2}}'), "the key 'last' is there twice"
    ),
    "a key twice, with control characters": near(
        member("x", '{"\\u001b[31m": 1, "\\u001b[31m": 2}'), r"the key '\x1b[31m' is there twice"
    ),
}
