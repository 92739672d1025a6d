"""Errors: one line, the right exit code, and whole after a trip between processes."""

from __future__ import annotations

import pickle

import pytest

from adapterxlt.core import errors
from adapterxlt.core.errors import Fault, RecipeError, did_you_mean


def test_parts_that_are_empty_are_left_out() -> None:
    assert str(errors.UsageError("what")) == "what"
    assert str(errors.UsageError("what", where="f:1", hint="do")) == "f:1: what; do"
    assert str(Fault("what", hint="do")) == "what; do"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        *(("StageError", 1), ("UsageError", 2), ("DataError", 2), ("StoreDamaged", 3)),
        ("RefusedError", 5),
    ],
)
def test_exit_codes_and_pickling(kind: str, code: int) -> None:
    error = getattr(errors, kind)("what", where="f:1", hint="do")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error) and str(back) == str(error) == "f:1: what; do"
    assert back.exit_code == code


def test_a_recipe_error_keeps_every_fault() -> None:
    error = RecipeError([Fault("one", "f:1"), Fault("two", "f:2", "do")])
    back = pickle.loads(pickle.dumps(error))
    assert str(back) == "f:1: one\nf:2: two; do" and back.exit_code == 2
    assert back.faults == error.faults


def test_suggestions() -> None:
    assert did_you_mean("sequental", ["sequential", "joint"]) == "did you mean 'sequential'?"
    assert did_you_mean("xyz", ["b", "a"]) == "known: a, b"
    assert did_you_mean("xyz", []) == ""
    assert did_you_mean("zzz", [f"name-{i}" for i in range(13)]) == "13 are known"
