"""The reading verbs answer at once: they import nothing that models need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = [
    "torch",
    "transformers",
    "adapters",
    "peft",
    "sklearn",
    "matplotlib",
    "tokenizers",
    "scipy",
]
HEAVY += ["pandas", "pyarrow", "datasets"]

PROGRAM = """
import contextlib, io, json, sys
from adapterxlt import cli
with contextlib.redirect_stdout(io.StringIO()) as out:
    result = cli.cli(json.loads(sys.argv[1]), standalone_mode=False)
print(json.dumps([len(out.getvalue()), sorted(set(json.loads(sys.argv[2])) & set(sys.modules))]))
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["ls", "languages"],
        ["ls", "recipes"],
        ["show", "joint"],
        ["schema"],
        ["validate", "RECIPE", "--resolved"],
        ["plan", "RECIPE"],
        ["status", "RECIPE"],
        ["results", "RECIPE", "--json"],
        ["export", "--help"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_reading_verbs_import_no_modelling_library(
    arguments: list[str], study: list[str], tmp_path: Path
) -> None:
    given = [part for word in arguments for part in (study if word == "RECIPE" else [word])]
    # Only an estimate needs the speed of a matrix product.
    heavy = HEAVY if arguments[0] == "plan" else [*HEAVY, "numpy"]
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(given), json.dumps(heavy)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    length, imported = json.loads(run.stdout)
    assert length > 0 and imported == []


#: What only verbs that do something need.
LATER = ["pydantic", "numpy", "ruamel", "ruamel.yaml", "yaml", "rich", "jinja2", "filelock"]


def test_help_of_every_verb_imports_nothing_that_takes_time(tmp_path: Path) -> None:
    program = """
import contextlib, io, json, sys
from adapterxlt import cli
for verb in ["", *cli.cli.commands]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        cli.cli([*[verb][:bool(verb)], "--help"], standalone_mode=False)
    assert "Usage: " in out.getvalue(), verb
found = set(json.loads(sys.argv[1])) & set(sys.modules)
print(json.dumps([len(cli.cli.commands), sorted(found)]))
"""
    run = subprocess.run(
        [sys.executable, "-c", program, json.dumps([*HEAVY, *LATER])],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    verbs, imported = json.loads(run.stdout)
    assert verbs > 10 and imported == []
