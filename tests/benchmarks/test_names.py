"""Benchmarks take hours and are not run here: what they import by name has to exist."""

from __future__ import annotations

import ast
import importlib
from importlib.util import find_spec
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPTS = sorted(FOLDER.glob("*.py"))
OURS = {"adapterxlt", *(path.stem for path in SCRIPTS)}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_what_a_benchmark_imports_exists(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    tree = ast.parse(script.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in OURS:
            module = importlib.import_module(str(node.module))
            packaged = hasattr(module, "__path__")
            for alias in node.names:
                below = packaged and find_spec(f"{node.module}.{alias.name}")
                assert hasattr(module, alias.name) or below, (
                    f"line {node.lineno}: {node.module} has no {alias.name}"
                )
