"""Costs from records: what is summed once, what is left out or unknown; and their table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterxlt.core import plan as plans
from adapterxlt.core.cost import Work
from adapterxlt.core.plan import Plan, Stage
from adapterxlt.report import costs
from adapterxlt.report.html import build
from adapterxlt.report.overviews import cost_table
from adapterxlt.store.store import Store

Row = dict[str, Any]
HEAD, ADAPTER, LANGUAGE = b"h" * 11, b"a" * 101, b"l" * 1009


class World:
    """A plan and a store to which stages are added as if they had run."""

    def __init__(self, root: Path) -> None:
        self.plan, self.store = Plan(), Store(root)
        self.count = 0

    def add(self, kind: str, files: dict[str, bytes], facts: Row, **inputs: str) -> str:
        self.count += 1
        objective = "mlm" if facts.pop("mlm", False) else "macro"
        heads = {name[5:-12]: {} for name in files if name.startswith("head-")}
        params = {"streams": [], "objective": objective, "number": self.count, "heads": heads}
        params |= {"snapshot": facts.pop("snapshot", None)}
        stage = Stage(kind, params, {role.replace("_", ":"): k for role, k in inputs.items()})
        key = self.plan.add(stage, f"{kind} {self.count}")
        self.store.publish(key, stage.canonical(), files, facts)
        return key

    def train(self, number: int, **inputs: str) -> str:
        """A training whose figures are told apart by their digits."""
        facts: Row = {"steps": 10 * number, "tokens": 1000 * number, "parameters": 100 + number}
        facts |= {"training_seconds": 0.5 * number, "examples": 7 * number}
        facts |= {"peak_memory": 10_000 - number, "seconds": 99.0}
        files = {"adapter.safetensors": ADAPTER + bytes([number]), "head-pos.safetensors": HEAD}
        return self.add("train", files, facts, **inputs)

    def work(self, key: str) -> Work:
        return Work("task", 0, 0, 500.0, 2e6)

    def of(self, key: str) -> Row:
        return costs.of_cell(self, key, "pos")  # type: ignore[arg-type]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setitem(plans.EPOCHS, "merge", 1)
    world = World(tmp_path / "s")
    files = {"adapter.safetensors": LANGUAGE}
    facts: Row = {"steps": 10**6, "tokens": 10**6, "parameters": 10**6, "mlm": True}
    facts |= {"peak_memory": 10**9}
    world.base = world.add("pretrain", {"model": b"m" * 10**5}, {})  # type: ignore[attr-defined]
    world.own = world.add("train", files, dict(facts))  # type: ignore[attr-defined]
    other = {"adapter.safetensors": LANGUAGE + b"2"}
    world.other = world.add("train", other, dict(facts))  # type: ignore[attr-defined]
    return world


def test_sums_over_the_trainings_of_tasks_alone(world: Any) -> None:
    first = world.train(1, backbone=world.base, language_fi=world.own)
    second = world.train(2, backbone=world.base, previous=first, language_en=world.other)
    key = world.add("evaluate", {}, {}, backbone=world.base, trained=second, language_fi=world.own)
    assert world.of(key) == {
        "parameters": 102,
        "stored_bytes": len(ADAPTER) + 1 + len(HEAD) + len(LANGUAGE),
        "steps": 30,
        "examples": 21,
        "tokens": 3000,
        # The closed form says 2e6 operations for 500 sub-words.
        "flops": 3000 * 2e6 / 500,
        "seconds": 1.5,
        "peak_memory": 9_999,
    }


def test_a_merge_stands_between_and_a_shared_stage_counts_once(world: Any) -> None:
    root = world.train(1)
    left, right = world.train(2, previous=root), world.train(3, previous=root)
    files = {"adapter.safetensors": b"x" * 50, "head-pos.safetensors": b"y" * 5}
    merged = world.add("merge", files, {"seconds": 9.0}, member_0=left, member_1=right)
    key = world.add("evaluate", {}, {}, trained=merged)
    found = world.of(key)
    assert (found["steps"], found["parameters"], found["peak_memory"]) == (60, 103, 9_999)
    assert found["stored_bytes"] == 55 and found["seconds"] == 3.0
    # A training that goes on from the merge has the last word on what is trainable.
    last = world.train(4, previous=merged)
    found = world.of(world.add("evaluate", {}, {}, trained=last))
    assert (found["steps"], found["parameters"]) == (100, 104)


def test_a_merge_of_language_adapters_is_no_training_of_a_task(world: Any) -> None:
    files = {"adapter.safetensors": b"z" * 77}
    mixed = world.add("merge", files, {}, member_0=world.own, member_1=world.other)
    train = world.train(1, language_fi=mixed)
    found = world.of(world.add("evaluate", {}, {}, trained=train, language_fi=mixed))
    assert found["steps"] == 10 and found["stored_bytes"] == len(ADAPTER) + 1 + len(HEAD) + 77


def test_frozen_adapters_below_and_heads_of_other_tasks(world: Any) -> None:
    files = {"adapter.safetensors": b"b" * 33, "head-nli.safetensors": b"n" * 500}
    facts = {"steps": 1, "tokens": 1, "parameters": 1}
    below = world.add("train", files, dict(facts))
    files = {"adapter.safetensors": b"t" * 55, "head-pos.safetensors": b"p" * 7}
    files |= {"adapter.1.safetensors": b"s" * 54, "head-pos.1.safetensors": b"p" * 6}
    top = world.add("train", files, dict(facts), below=below)
    found = world.of(world.add("evaluate", {}, {}, trained=top))
    assert found["stored_bytes"] == 33 + 55 + 7
    assert found["steps"] == 2 and found["parameters"] == 1
    # One of its snapshots, and what goes on from a stack, are as big as they are.
    then = world.add("evaluate", {}, {"snapshot": 1}, trained=top)
    assert world.of(then)["stored_bytes"] == 33 + 54 + 6
    on = world.of(world.add("evaluate", {}, {}, trained=world.train(1, previous=top)))
    assert on["stored_bytes"] == 33 + len(ADAPTER) + 1 + len(HEAD)


def test_a_fusion_needs_its_members(world: Any) -> None:
    left, right = world.train(1), world.train(2)
    files = {"adapter.safetensors": b"f" * 300}
    facts = {"steps": 4, "tokens": 1, "parameters": 5}
    fused = world.add("train", files, facts, fuse_0=left, fuse_1=right)
    found = world.of(world.add("evaluate", {}, {}, trained=fused))
    assert found["stored_bytes"] == 300 + 2 * (len(ADAPTER) + 1) + len(HEAD)
    assert (found["steps"], found["parameters"]) == (34, 5)


def test_what_a_record_lacks_is_unknown_not_zero(world: Any) -> None:
    first = world.train(1)
    facts = {"steps": 5, "tokens": 50, "parameters": 9}
    old = world.add("train", {"adapter.safetensors": b"o"}, facts, previous=first)
    found = world.of(world.add("evaluate", {}, {}, trained=old))
    assert found["steps"] == 15 and found["tokens"] == 1050 and found["flops"] == 1050 * 4e3
    assert found["examples"] is found["peak_memory"] is found["seconds"] is None
    world.store.forget(first)
    found = world.of(world.add("evaluate", {}, {}, trained=old))
    assert found["steps"] is None and found["parameters"] == 9
    world.store.object_path(world.store.read(world.own).files["adapter.safetensors"]).unlink()
    gone = world.add("evaluate", {}, {}, trained=old, language_fi=world.own)
    assert world.of(gone)["stored_bytes"] is None


def lines_of(table: Any) -> dict[tuple[str, str], dict[str, str]]:
    return {line[:2]: dict(zip(table.header, line, strict=True)) for line in table.body}


def test_table_means_over_runs_then_targets(row_of: Callable[..., Row]) -> None:
    rows = [
        row_of(target="lab-one", seed=0, steps=100, peak_memory=3_000_000),
        row_of(target="lab-one", seed=1, steps=300, peak_memory=9_000_000),
        row_of(target="lab-two", seed=0, steps=600, stored_bytes=2_000, flops=2.5e15),
        row_of(target="lab-src", role="source", resource_class="source", steps=10**9),
        row_of(metric="macro_f1", primary=False, steps=10**9),
        row_of(target="lab-one", regime="old", examples=None),
    ]
    rows[2]["peak_memory"] = 1
    table = cost_table(rows, "tagging")
    found = lines_of(table)
    assert found["joint", "10"]["steps"] == "400"
    assert found["joint", "10"]["peak MB"] == "9"
    assert found["joint", "10"]["stored kB"] == "99"
    assert found["joint", "10"]["TFLOPs"] == "1,250"
    assert found["joint", "10"]["mean score"] == "50.0"
    assert found["old", "10"]["examples"] == "–" and found["old", "10"]["steps"] == "150"
    assert any("does not tell" in note for note in table.notes)
    assert any("Language adapters and the backbone's" in note for note in table.notes)


def test_lines_of_missing_runs_and_upper_bounds(rows: list[Row]) -> None:
    missing = [{"task": "tagging", "regime": "two-stage", "target": "lab-bel", "shots": 10}]
    table = cost_table(rows, "tagging", missing=missing)
    found = lines_of(table)
    assert set(list(found["two-stage", "10"].values())[2:]) == {"–"}
    assert ("oracle-stop (upper bound)", "10") in found
    assert any("target labels" in note for note in table.notes)


def test_page_shows_costs_of_every_task(rows: list[Row], study: Row) -> None:
    other = [{**r, "task": "choice", "evaluate_key": r["evaluate_key"][::-1]} for r in rows]
    page = build([*rows, *other], study)
    for task in ("tagging", "choice"):
        assert f"{task}: cost beside score" in page
    assert "<td>15,251</td><td>196</td><td>150</td><td>4,800</td><td>41,653</td>" in page
    assert "<td>0.0465</td><td>2.25</td><td>612</td>" in page
