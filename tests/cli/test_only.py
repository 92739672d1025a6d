"""Single stages, as an array of jobs runs them: `plan --keys` and `run --only`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

RECIPE = """\
name: waves
data: lab
source: lab-root
targets: [lab-far-low]
tasks: [lab-pos]
regimes: [zero-shot, sequential]
shots: [4]
budget: {steps: 2, batch: 4}
language_adapters: {budget: {steps: 2, batch: 4}}
limits: {train: 20, test: 8, text: 20}
"""


@pytest.fixture
def given(tmp_path: Path, tiny_backbone: Path) -> list[str]:
    (tmp_path / "waves.yaml").write_text(RECIPE, encoding="utf-8")
    return ["waves.yaml", "--backbone", str(tiny_backbone), "--store", "s"]


def waves(call: Any, given: list[str]) -> list[tuple[int, str, str]]:
    answer = call("plan", *given, "--keys")
    assert answer.code == 0
    lines = [line.split(" ", 2) for line in answer.out.splitlines()]
    return [(int(wave), key, label) for wave, key, label in lines]


def test_a_study_is_run_wave_by_wave(call: Any, given: list[str], tmp_path: Path) -> None:
    whole = waves(call, given)
    assert [wave for wave, _, _ in whole] == sorted(wave for wave, _, _ in whole)
    assert {wave for wave, _, _ in whole} == {1, 2, 3, 4}
    first = [key for wave, key, _ in whole if wave == 1]
    assert len(first) == 2
    answer = call("run", *given, "--workers", 0, *(f"--only={key}" for key in first))
    assert answer.code == 0 and answer.out == "" and not (tmp_path / "results").exists()
    left = waves(call, given)
    assert {key for _, key, _ in whole} - {key for _, key, _ in left} == set(first)
    assert len({wave for wave, _, _ in left}) == 3
    # Running one again ends at once.
    assert call("run", *given, "--workers", 0, "--only", first[0]).code == 0
    assert waves(call, given) == left
    for wave in (2, 3, 4):
        for at, key, _ in whole:
            if at == wave:
                assert call("run", *given, "--workers", 0, "--only", key).code == 0
    assert waves(call, given) == []
    assert "sequential" in call("results", *given).out


def test_what_cannot_run_alone_is_refused(call: Any, given: list[str]) -> None:
    whole = waves(call, given)
    second = next(key for wave, key, _ in whole if wave == 2)
    below = next(key for wave, key, label in whole if wave == 1)
    for key, what in (
        (second, "which is not in the store"),
        ("ffffffff", "ffffffff"),
        (below[:3], below[:3]),
    ):
        answer = call("run", *given, "--workers", 0, "--only", key)
        assert answer.code == 2 and what in answer.refusal
    said = call("run", *given, "--workers", 0, "--only", second).refusal
    assert "run --only" in said and any(key in said for wave, key, _ in whole if wave == 1)
    assert call("plan", *given, "--keys", "--json").code == 2


def test_too_many_threads_are_said(call: Any, given: list[str], monkeypatch: Any) -> None:
    monkeypatch.setattr("adapterxlt.run.pools.cores", lambda: 2)
    key = next(key for wave, key, _ in waves(call, given) if wave == 1)
    answer = call("run", *given, "--workers", 2, "--threads", 2, "--only", key)
    assert answer.code == 0 and "share 2 cores" in answer.err
