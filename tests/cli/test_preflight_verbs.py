"""`plan` shows what a study needs; `run` refuses what cannot fit before anything starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapterxlt.run import preflight
from adapterxlt.run.preflight import GIB, Machine
from adapterxlt.run.study import Study


def machine(monkeypatch: pytest.MonkeyPatch, disk: int, memory: int) -> None:
    monkeypatch.setattr(preflight, "machine", lambda *_: Machine(disk, memory))


def test_plan_shows_what_is_needed_and_what_there_is(
    call: Any, study: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, 100 * GIB, 7 * GIB)
    out = call("plan", *study).out
    assert "Needs about " in out and "(100.0 GiB free)" in out and "(7.0 GiB available)" in out
    assert "refuse" not in out
    needs = json.loads(call("plan", *study, "--json").out)["totals"]["needs"]
    assert needs["machine"]["disk"] == 100 * GIB and needs["needs"]["left"] > 0
    machine(monkeypatch, 1, 1)
    answer = call("plan", *study)
    assert answer.code == 0 and answer.out.count("run will refuse: ") == 2


@pytest.mark.parametrize(
    ("disk", "memory", "said"),
    [(1, 7 * GIB, "free disk"), (100 * GIB, GIB // 2, "give a --micro-batch")],
)
def test_run_refuses_before_anything_starts(
    call: Any,
    study: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    disk: int,
    memory: int,
    said: str,
) -> None:
    machine(monkeypatch, disk, memory)
    started: list[object] = []
    monkeypatch.setattr(Study, "fetch", lambda *_, **__: started.append("fetch"))
    monkeypatch.setattr(Study, "run", lambda *_, **__: started.append("run"))
    answer = call("run", *study, "--workers", "1")
    assert answer.code == 2 and said in answer.refusal and "--no-preflight" in answer.refusal
    assert not started and not (tmp_path / "results").exists()


def test_run_starts_anyway_when_told_to(
    call: Any, study: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, 1, 1)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Study, "run", stop)
    assert call("run", *study, "--workers", "1", "--no-preflight").code == 130
