"""The scheduler over a pool that computes nothing: order, failures, broken workers, events."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterxlt.core.errors import DataError
from adapterxlt.core.plan import Cell, Plan, Stage
from adapterxlt.run.desk import Places
from adapterxlt.run.requests import Request
from adapterxlt.run.scheduler import LAST, TRIES, Several, Silent, execute


class MemoryStore(set):  # type: ignore[type-arg]
    """As much of a store as the scheduler looks at: which keys are there."""


class MemoryPool:
    """Finishes submitted stages one round later, in an order of its own."""

    def __init__(
        self,
        store: MemoryStore,
        workers: int = 1,
        outcome: Callable[[str], BaseException | None] = lambda label: None,
        newest_first: bool = False,
    ) -> None:
        self.store, self.workers, self.outcome = store, workers, outcome
        self.newest_first = newest_first
        self.submitted: list[str] = []
        self.pending: list[tuple[Future[bool], Request]] = []
        self.most = self.renewed = 0
        self.closed: list[bool] = []

    def submit(self, request: Request) -> Future[bool]:
        assert all(key in self.store for key in request.stage.inputs.values()), "inputs first"
        assert not self.closed
        future: Future[bool] = Future()
        future.set_running_or_notify_cancel()
        self.submitted.append(request.label)
        self.pending.append((future, request))
        self.most = max(self.most, len(self.pending))
        if len(self.pending) >= self.workers:
            self.finish_one()
        return future

    def finish_one(self) -> None:
        future, request = self.pending.pop(-1 if self.newest_first else 0)
        error = self.outcome(request.label)
        if error is None:
            self.store.add(request.key)
            future.set_result(True)
        else:
            future.set_exception(error)

    def renew(self) -> None:
        self.renewed += 1

    def close(self, *, now: bool = False) -> None:
        self.closed.append(now)


class Ears(Silent):
    """A listener that lets the pool go on at every tick and notes what it hears."""

    def __init__(self, pool: MemoryPool) -> None:
        self.pool = pool
        self.heard: list[tuple[str, str]] = []

    def started(self, key: str) -> None:
        self.heard.append(("started", key))

    def finished(self, key: str, error: Exception | None) -> None:
        self.heard.append(("failed" if error else "finished", key))

    def tick(self, running: list[str]) -> None:
        if self.pool.pending:
            self.pool.finish_one()


def graph(
    edges: dict[str, list[str]], cells: list[str] | None = None
) -> tuple[Plan, dict[str, str]]:
    plan, keys = Plan(), {}
    for name, inputs in edges.items():
        stage = Stage("pretrain", {"name": name}, {i: keys[i] for i in inputs})
        keys[name] = plan.add(stage, name)
    for i, name in enumerate(cells if cells is not None else list(edges)):
        plan.cells[Cell("t", "r", str(i), 0, None, 1)] = keys[name]
    return plan, keys


DIAMOND = {"base": [], "left": ["base"], "right": ["base"], "top": ["left", "right"], "alone": []}


def go(plan: Plan, pool: MemoryPool, **more: Any) -> Any:
    places = Places(Path("/none"), "lab", "lab")

    def request(key: str) -> Request:
        return Request(key, plan.labels[key], plan.stages[key], places)

    return execute(plan, pool.store, pool, request, listener=Ears(pool), tick=0.01, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("newest_first", [False, True])
def test_every_stage_runs_once_inputs_first(workers: int, newest_first: bool) -> None:
    plan, keys = graph(DIAMOND)
    pool = MemoryPool(MemoryStore(), workers, newest_first=newest_first)
    outcome = go(plan, pool)
    assert sorted(pool.submitted) == sorted(DIAMOND)
    assert sorted(outcome.computed) == sorted(keys.values())
    assert outcome.failed == {} == outcome.blocked and pool.closed == [False]
    assert pool.most <= workers


@pytest.mark.parametrize("workers", [1, 2])
def test_the_last_evaluations_wait_for_the_last_trainings(workers: int) -> None:
    plan, trainings = Plan(), LAST * workers + 4
    for n in range(trainings):
        trained = plan.add(Stage("pretrain", {"name": n}, {}), f"train {n}")
        scored = plan.add(Stage("evaluate", {"name": n}, {"trained": trained}), f"score {n}")
        plan.cells[Cell("t", "r", str(n), 0, None, 1)] = scored
    pool = MemoryPool(MemoryStore(), workers)
    go(plan, pool)
    done = [label.split() for label in pool.submitted]
    early = [kind for kind, _ in done[:-LAST]].index("score")
    # Results are there early, and what is at the end is short.
    assert early <= workers
    if workers == 1:
        assert done == [[kind, str(n)] for n in range(trainings) for kind in ("train", "score")]
    else:
        assert [kind for kind, _ in done[-LAST * workers :]] == ["score"] * LAST * workers
    assert [int(n) for kind, n in done if kind == "train"] == list(range(trainings))


def test_one_worker_takes_plan_order() -> None:
    plan, _ = graph(DIAMOND)
    pool = MemoryPool(MemoryStore())
    go(plan, pool)
    assert pool.submitted == list(DIAMOND)


def test_what_is_in_the_store_or_for_nobody_does_not_run() -> None:
    plan, keys = graph({**DIAMOND, "unused": []}, cells=["top"])
    store = MemoryStore({keys["left"]})
    pool = MemoryPool(store)
    go(plan, pool)
    assert pool.submitted == ["base", "right", "top"]
    again = MemoryPool(store)
    assert go(plan, again).computed == [] and again.submitted == []


@pytest.mark.parametrize("workers", [1, 3])
def test_a_failure_blocks_only_what_depends_on_it(workers: int) -> None:
    edges = {**DIAMOND, "after alone": ["alone"], "roof": ["top"]}
    plan, keys = graph(edges)
    pool = MemoryPool(
        MemoryStore(),
        workers,
        outcome=lambda label: (
            DataError("gone", where="f:1", hint="look") if label == "left" else None
        ),
    )
    outcome = go(plan, pool)
    assert outcome.failed == {keys["left"]: "f:1: gone; look"}
    assert outcome.blocked == {keys["top"]: keys["left"], keys["roof"]: keys["left"]}
    assert {plan.labels[key] for key in outcome.computed} == {
        "base",
        "right",
        "alone",
        "after alone",
    }
    assert pool.renewed == 0


def test_an_error_of_ours_is_told_with_its_type() -> None:
    plan, keys = graph({"a": []})
    outcome = go(plan, MemoryPool(MemoryStore(), outcome=lambda _: ValueError("odd")))
    assert outcome.failed == {keys["a"]: "ValueError: odd"}


def test_dead_workers_are_replaced_and_the_rest_runs() -> None:
    plan, keys = graph(DIAMOND)
    pool = MemoryPool(
        MemoryStore(), outcome=lambda label: BrokenProcessPool("x") if label == "left" else None
    )
    outcome = go(plan, pool)
    assert pool.renewed == TRIES == pool.submitted.count("left")
    assert "a worker process died in each of 3 tries" in outcome.failed[keys["left"]]
    assert "--micro-batch" in outcome.failed[keys["left"]]
    assert {plan.labels[key] for key in outcome.computed} == {"base", "right", "alone"}


def test_what_dies_beside_another_is_no_failure(tmp_path: Path) -> None:
    """Every worker of an executor dies with one of them. The last try is alone, and smaller."""
    plan, events = Plan(), tmp_path / "events.jsonl"
    streams = [{"split": "train"}, {"split": "train", "batch": 12}]
    for name in "abcd":
        params = {"n": name, "objective": "macro", "budget": {"batch": 8}, "streams": streams}
        plan.cells[Cell("t", "r", name, 0, None, 1)] = plan.add(Stage("train", params, {}), name)
    beside: list[tuple[str, list[str], int | None]] = []

    class Fatal(MemoryPool):
        """`a` kills whatever runs at once."""

        def finish_one(self) -> None:
            labels = [request.label for _, request in self.pending]
            if "a" not in labels:
                super().finish_one()
                return
            pending, self.pending = self.pending, []
            for future, request in pending:
                beside.append((request.label, labels, request.micro_batch))
                future.set_exception(BrokenProcessPool("x"))

    outcome = go(plan, Fatal(MemoryStore(), 3), events=events)
    assert {plan.labels[key] for key in outcome.computed} == {"b", "c", "d"}
    assert [plan.labels[key] for key in outcome.failed] == ["a"]
    last = [one for one in beside if one[0] == "a"]
    assert len(last) == TRIES and last[-1] == ("a", ["a"], 6) and last[0][2] is None
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    told = [(line["key"], line["tries"]) for line in lines if line["event"] == "retried"]
    assert [tries for key, tries in told if key in outcome.failed] == [1, 2]


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_stage_whose_worker_dies_now_and_then_is_finished(deaths: int) -> None:
    plan, _ = graph(DIAMOND)
    left = ["left"] * deaths

    def outcome(label: str) -> BrokenProcessPool | None:
        return BrokenProcessPool("x") if label in left and not left.remove(label) else None

    pool = MemoryPool(MemoryStore(), 2, outcome=outcome)
    found = go(plan, pool)
    assert not found.failed and not found.blocked and len(found.computed) == len(DIAMOND)
    assert pool.renewed == deaths


def test_the_end_of_a_traceback_is_told_of_what_was_not_foreseen(tmp_path: Path) -> None:
    plan, keys = graph({"a": [], "b": []})
    errors = {"a": ValueError("odd"), "b": DataError("foreseen")}
    for error in errors.values():
        try:
            raise error
        except (ValueError, DataError):
            pass
    events = tmp_path / "events.jsonl"
    outcome = go(plan, MemoryPool(MemoryStore(), outcome=errors.get), events=events)
    assert outcome.tails.keys() == {keys["a"]}
    assert "raise error" in outcome.tails[keys["a"]] and "odd" in outcome.tails[keys["a"]]
    told = [json.loads(line) for line in events.read_text().splitlines()]
    assert [e.get("tail") for e in told if e["event"] == "failed"] == [
        outcome.tails[keys["a"]],
        None,
    ]


def test_stages_of_a_broken_executor_are_over_before_it_is_renewed() -> None:
    """An executor that breaks fails its futures one by one; renewing it twice cancels new ones."""
    plan, _ = graph({name: [] for name in "abcd"})

    class Breaking(MemoryPool):
        def finish_one(self) -> None:
            if self.renewed or not self.pending:
                super().finish_one()
                return
            super().finish_one()
            rest, self.pending = self.pending, []
            for future, _ in rest:
                Timer(0.1, future.set_exception, [BrokenProcessPool("x")]).start()

    errors = {"a": BrokenProcessPool("x")}
    pool = Breaking(MemoryStore(), 3, outcome=lambda label: errors.pop(label, None))
    outcome = go(plan, pool)
    assert pool.renewed == 1 and not outcome.failed
    assert len(outcome.computed) == 4


def test_a_pool_found_broken_when_a_stage_is_submitted_is_renewed() -> None:
    """A worker can die between two stages: then `submit` itself raises."""
    plan, _ = graph({name: [] for name in "abc"})

    class Broken(MemoryPool):
        def submit(self, request: Request) -> Future[bool]:
            if request.label == "b" and not self.renewed:
                raise BrokenProcessPool("a child process terminated abruptly")
            return super().submit(request)

    pool = Broken(MemoryStore())
    outcome = go(plan, pool)
    assert pool.renewed == 1
    assert {plan.labels[k] for k in outcome.computed} >= {"a", "c"}
    assert len(outcome.computed) + len(outcome.failed) == 3


def test_an_interruption_stops_the_pool_at_once(tmp_path: Path) -> None:
    plan, _ = graph(DIAMOND)
    events = tmp_path / "events.jsonl"

    class Interrupted(MemoryPool):
        def submit(self, request: Request) -> Future[bool]:
            if request.label == "right":
                raise KeyboardInterrupt
            return super().submit(request)

    pool = Interrupted(MemoryStore())
    with pytest.raises(KeyboardInterrupt):
        go(plan, pool, events=events)
    assert pool.closed == [True]
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    assert lines[-1]["event"] == "interrupted"


def test_events_tell_the_story(tmp_path: Path) -> None:
    plan, keys = graph({"base": [], "left": ["base"], "top": ["left"]})
    events = tmp_path / "notes" / "events.jsonl"
    pool = MemoryPool(
        MemoryStore(), outcome=lambda label: ValueError("odd") if label == "left" else None
    )
    go(plan, pool, events=events, about={"versions": {"adapterxlt": "1"}})
    lines = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
    assert all(line.pop("time") > 1e9 for line in lines)
    assert len({line.pop("run") for line in lines}) == 1
    run, finished = lines[0], lines[2]
    assert run.pop("host") and run.pop("pid") == os.getpid() and "born" in run
    assert 0 <= finished.pop("seconds") < 5
    assert {name: value for name, value in run.items() if name != "born"} == {
        "event": "run",
        "needed": 3,
        "workers": 1,
        "versions": {"adapterxlt": "1"},
    }
    assert lines[1:] == [
        {"event": "started", "key": keys["base"], "label": "base"},
        {"event": "finished", "key": keys["base"]},
        {"event": "started", "key": keys["left"], "label": "left"},
        {"event": "failed", "key": keys["left"], "reason": "ValueError: odd"},
        {"event": "blocked", "key": keys["top"], "by": keys["left"]},
        {"event": "ended", "computed": 1, "failed": 1, "blocked": 1},
    ]
    go(plan, MemoryPool(pool.store), events=events)
    again = [json.loads(line) for line in events.read_text().splitlines()][len(lines) :]
    assert [line["event"] for line in again] == ["run", *["started", "finished"] * 2, "ended"]
    assert len({line["run"] for line in again}) == 1


def test_the_listener_is_told_what_the_log_is(tmp_path: Path) -> None:
    plan, _ = graph(DIAMOND)
    events, told = tmp_path / "events.jsonl", []

    class Told(Ears):
        def told(self, event: dict[str, Any]) -> None:
            told.append(event)

    pool, places = MemoryPool(MemoryStore(), 2), Places(Path("/none"), "lab", "lab")
    execute(
        plan,
        pool.store,  # type: ignore[arg-type]
        pool,
        lambda key: Request(key, plan.labels[key], plan.stages[key], places),
        listener=Several([Silent(), Told(pool)]),
        events=events,
        tick=0.01,
    )
    assert told == [json.loads(line) for line in events.read_text().splitlines()]
    assert len(told) == 2 + 2 * len(DIAMOND)


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    plan, _ = graph(DIAMOND)
    (tmp_path / "file").write_text("")
    for events in (tmp_path / "file" / "events.jsonl", tmp_path):
        outcome = go(plan, MemoryPool(MemoryStore()), events=events)
        assert len(outcome.computed) == len(DIAMOND)


def test_what_another_run_computed_and_shares_of_a_cohort_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, keys = graph({name: [] for name in "abc"})
    monkeypatch.setattr("adapterxlt.run.scheduler.signature", lambda plan, key: "alike")
    events = tmp_path / "events.jsonl"

    class Slow(MemoryPool):
        def finish_one(self) -> None:
            time.sleep(0.2)
            future, request = self.pending.pop(0)
            self.store.update(request.keys)
            future.set_result(len(request.keys) > 1)

    go(plan, Slow(MemoryStore()), events=events, cohort=2)
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    told = {line["key"]: line for line in lines if line["event"] == "finished"}
    assert "elsewhere" not in told[keys["a"]] and "elsewhere" not in told[keys["b"]]
    assert told[keys["c"]]["elsewhere"] is True
    # Two that ran at once had half of the worker each.
    a, b, c = (told[keys[key]]["seconds"] for key in "abc")
    assert 0.1 <= a < 0.2 <= c and a == pytest.approx(b, abs=0.02)


def test_the_listener_hears_what_happens() -> None:
    plan, keys = graph({"a": [], "b": ["a"]})
    pool = MemoryPool(MemoryStore(), outcome=lambda label: ValueError() if label == "b" else None)
    ears = Ears(pool)
    places = Places(Path("/none"), "lab", "lab")
    execute(
        plan,
        pool.store,  # type: ignore[arg-type]
        pool,
        lambda key: Request(key, plan.labels[key], plan.stages[key], places),
        listener=ears,
    )
    assert ears.heard == [
        *(("started", keys["a"]), ("finished", keys["a"])),
        *(("started", keys["b"]), ("failed", keys["b"])),
    ]


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_in_any_graph_failures_block_exactly_what_is_above_them(data: st.DataObject) -> None:
    edges: dict[str, list[str]] = {}
    for i in range(data.draw(st.integers(1, 10))):
        below = data.draw(st.lists(st.sampled_from(list(edges)), unique=True)) if edges else []
        edges[f"s{i}"] = below
    bad = set(data.draw(st.lists(st.sampled_from(list(edges)), unique=True)))
    plan, keys = graph(edges)
    pool = MemoryPool(
        MemoryStore(),
        data.draw(st.integers(1, 4)),
        outcome=lambda label: ValueError(label) if label in bad else None,
        newest_first=data.draw(st.booleans()),
    )
    outcome = go(plan, pool)
    stopped: set[str] = set()
    for name, below in edges.items():
        if stopped.intersection(below) or bad.intersection(below):
            stopped.add(name)
    assert {plan.labels[k] for k in outcome.blocked} == stopped
    assert {plan.labels[k] for k in outcome.failed} == bad - stopped
    assert {plan.labels[k] for k in outcome.computed} == edges.keys() - bad - stopped
    assert set(outcome.blocked.values()) <= outcome.failed.keys()
    assert len(pool.submitted) == len(set(pool.submitted)) == len(keys) - len(stopped)
