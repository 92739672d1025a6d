"""gc, bundle and unbundle as from a shell: what they take, print and refuse."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterxlt.core.canon import digest
from adapterxlt.run.keeping import note_name, remember
from adapterxlt.store.store import Store

Call = Callable[..., Any]


@pytest.fixture
def stored(opened: Any) -> Any:
    """The study, noted, with two of its stages done and one of nobody's; written long ago."""
    store, plan = opened.store, opened.plan
    remember(store, "small", opened.loaded.resolved_text(), plan.stages)
    for key in list(plan.stages)[:2]:
        files = {"adapter.safetensors": key.encode()}
        store.publish(key, plan.stages[key].canonical(), files, {"seconds": 1.0})
    stage = {"kind": "train", "params": {}, "inputs": {}}
    store.publish(digest("stage", stage), stage, {"f": b"nobody's"}, {})
    then = time.time() - 100 * 3600
    for path in store.root.rglob("*"):
        os.utime(path, (then, then))
    return opened


def test_gc_shows_and_removes(call: Call, stored: Any) -> None:
    answer = call("gc", "--dry-run")
    assert answer.code == 0 and len(list(Store(stored.store.root))) == 3
    kinds = [line.split()[:2] for line in answer.out.splitlines()]
    assert ["record", "1"] in kinds and ["object", "1"] in kinds
    assert answer.err.startswith("2 files and folders of ") and answer.err.endswith("would go\n")
    assert call("gc").err.endswith(" went\n")
    assert set(Store(stored.store.root)) == set(list(stored.plan.stages)[:2])
    assert call("gc").err == "0 files and folders of 0 bytes went\n"


def test_gc_for_a_recipe_keeps_its_stages_alone(call: Call, stored: Any, study: list[str]) -> None:
    answer = call("gc", *study, "regimes=[zero-shot]", "language_adapters=null")
    assert answer.code == 0, answer.err
    assert list(Store(stored.store.root)) == []
    assert list(Store(stored.store.root).notes("studies")) == []
    assert call("gc", "--store", "none").code == 2 and not Path("none").exists()


def test_gc_of_a_damaged_store_is_exit_code_3(call: Call, stored: Any) -> None:
    stored.store.record_path(next(iter(stored.plan.stages))).write_text("{")
    answer = call("gc")
    assert answer.code == 3 and "fsck --mend" in answer.refusal


def test_a_study_is_bundled_and_taken_over(call: Call, stored: Any, study: list[str]) -> None:
    answer = call("bundle", "b.tar", *study)
    assert answer.code == 0 and answer.err.startswith("2 stages with 2 files, ")
    assert call("unbundle", "b.tar", "--store", "other").err == (
        "2 of 2 stages and 2 of 2 files were new\n"
    )
    other = Store("other")
    assert set(other) == set(list(stored.plan.stages)[:2])
    name = note_name(stored.loaded.resolved_text(), stored.plan.stages)
    assert other.noted("studies", name) == stored.store.noted("studies", name)
    # Without a recipe all that is noted; nobody's stage is not.
    assert call("bundle", "c.tar").code == 0
    assert Path("c.tar").read_bytes() == Path("b.tar").read_bytes()
    assert "already exists" in call("bundle", "c.tar").refusal
    data = bytearray(Path("b.tar").read_bytes())
    data[1100] ^= 1
    Path("b.tar").write_bytes(data)
    answer = call("unbundle", "b.tar", "--store", "third")
    assert answer.code == 5 and "b.tar" in answer.refusal


def test_plan_finds_what_was_taken_over(call: Call, stored: Any, study: list[str]) -> None:
    call("bundle", "b.tar", *study)
    shutil.rmtree(".adapterxlt")
    before = call("plan", *study, "--keys").out.splitlines()
    call("unbundle", "b.tar")
    after = call("plan", *study, "--keys").out.splitlines()
    assert len(before) - len(after) == 2


def test_a_marker_is_mended_from_the_shell(call: Call, stored: Any, study: list[str]) -> None:
    (stored.store.root / "format.json").write_text("")
    for verb in (["plan", *study], ["fsck"], ["gc"]):
        answer = call(*verb)
        assert answer.code == 3 and "fsck --mend" in answer.refusal
    answer = call("fsck", "--mend")
    assert answer.code == 0 and "did not say the format" in answer.out
    assert call("fsck").code == 0 and len(list(Store(stored.store.root))) == 3


def test_overrides_are_of_a_recipe(call: Call, stored: Any) -> None:
    answer = call("bundle", "b.tar", "seeds=[1]")
    assert answer.code == 2 and "overrides of no recipe" in answer.refusal
