"""SECURITY.md promises what tests hold: each that it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_promise_names_tests_that_are_there() -> None:
    promised, _, rest = (ROOT / "SECURITY.md").read_text(encoding="utf-8").partition("## What is n")
    paragraphs = [part for part in promised.split("\n\n") if part.startswith("**")]
    assert len(paragraphs) >= 10 and rest
    for paragraph in paragraphs:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", paragraph)
        assert named, paragraph
        for path, name in named:
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
