"""Crafted adapter folders: each is refused for the one thing that is wrong with it.

Every case begins with a folder that passes. Nothing may be written outside the store, left on the
backbone or published. The cases are in `cases_*`; pickles in `test_adapter_pickles`, other ways in
in `test_adapter_doors`.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from cases import OPEN, TAGS
from cases_configurations import BASES, CONFIGS
from cases_files import FILES, JSON
from cases_headers import HEADERS
from cases_heads import HEADS
from cases_peft import PEFT
from cases_weights import WEIGHTS
from crafting import LABELS, Spoiler, Typed, content, fields, pack, rawly, tensors, together
from scenes import PATIENCE, Scene, refused

TABLES = {
    "files": FILES,
    "json": JSON,
    "headers": HEADERS,
    "weights": WEIGHTS,
    "configurations": CONFIGS,
    "backbones": BASES,
    "heads": HEADS,
    "peft": PEFT,
}
CASES = {
    f"{topic}: {name}": case for topic, table in TABLES.items() for name, case in table.items()
}


@pytest.mark.parametrize("name", CASES)
def test_a_spoiled_adapter_is_refused(name: str, scene: Scene) -> None:
    case = CASES[name]
    scene.spoiled(case.of, case.spoil)
    refused(scene, case.said, error=case.error, within=PATIENCE, **case.how)


GOOD: dict[str, tuple[str, dict[str, Any]]] = {
    "near": ("seq_bn_inv", {}),
    "pos": ("seq_bn", TAGS),
    "lora": ("lora", OPEN),
    "prefix": ("prefix_tuning", OPEN),
    "peft": ("peft_lora", {}),
    "ia3": ("peft_ia3", {}),
    "tagger": ("peft_lora", {**TAGS, "labels": tuple(LABELS)}),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_spoiled_was_good(name: str, scene: Scene) -> None:
    method, how = GOOD[name]
    scene.spoiled(name)
    before = scene.seen()
    found = scene.adopt(**how)
    assert found["adapter"]["method"] == method and found["key"] in scene.kept()
    assert scene.seen() == before and scene.bare()


HARMLESS: dict[str, Spoiler] = {
    "a name that is a word of the format": tensors(
        lambda a: {n.replace(".near.", ".encoder."): v for n, v in a.items()}
    ),
    "half precision": tensors(lambda a: {n: Typed("F16", v) for n, v in a.items()}),
    "a name of the folder above": fields(name=".."),
    "files that are not known": together(
        content("x.py", "raise SystemExit"), content("nul.txt", "x")
    ),
    "the latter half of a header empty": rawly(
        lambda header, data: pack(json.dumps(header).encode() + b" " * 40, data)
    ),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_only_odd_passes(name: str, scene: Scene) -> None:
    scene.spoiled("near", HARMLESS[name])
    assert scene.adopt()["adapter"]["method"] == "seq_bn_inv"
    assert scene.bare()
