"""The loop: exact resume, objectives, sampling, micro-batches, order, masks, schedules, what is
kept on the way, and a backbone left as it was."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import shutil
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from transformers import AutoModelForMaskedLM

from adapterxlt import lab
from adapterxlt.compute.backbone import Backbone, Wearing
from adapterxlt.compute.data import APART, Encoded, Mixture, Order, Window, alike, collate
from adapterxlt.compute.encoding import encode, encode_text
from adapterxlt.compute.masking import Masking
from adapterxlt.compute.objectives import mixup_loss, mixup_pairs
from adapterxlt.compute.remembered import Memory
from adapterxlt.compute.snapshots import Outcome, Snapshots
from adapterxlt.compute.steps import Stream
from adapterxlt.compute.training import learning_rate, train
from adapterxlt.core.canon import derive
from adapterxlt.core.errors import StageError
from adapterxlt.core.tasks import TASKS

SPEC = {"method": "seq_bn", "reduction_factor": 4.0, "non_linearity": "relu"}
BUDGET = {
    "steps": 8, "batch": 8, "lr": 1e-2, "schedule": "linear", "warmup": 0.25,
    "weight_decay": 0.05, "clip": 1.0,
}  # fmt: skip
TASK = TASKS["lab-pos"]
HEAD = {"kind": "tagging", "labels": list(TASK.labels)}


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return Backbone(tiny_backbone)


def streams(backbone: Backbone, languages: list[str], batch: int = 8) -> list[Stream]:
    result = []
    for language in languages:
        rows = lab.rows("lab-pos", language, "train")[:40]
        data = encode(backbone.tokenizer, TASK, rows, 64)
        order = Order(len(data.rows), batch, 1, language)
        head = partial(backbone.head_logits, "h")
        result.append(Stream(language, data, order, (("a",),), head))
    return result


def fresh(backbone: Backbone) -> dict[str, torch.nn.Parameter]:
    backbone.reset()
    backbone.add_adapter("a", SPEC, seed=3)
    backbone.add_head("h", HEAD, seed=3)
    return backbone.trainable(["a", "h"])


def run(backbone: Backbone, **more: Any) -> dict[str, torch.Tensor]:
    parameters = fresh(backbone)
    both = streams(backbone, ["lab-root", "lab-mid-mid"])
    train(backbone, parameters, both, BUDGET, seed=5, **more)
    return {**backbone.weights("a"), **backbone.weights("h")}


def test_a_run_stopped_at_every_step_ends_in_the_same_bits(backbone: Backbone) -> None:
    whole = run(backbone)
    kept: list[bytes] = []
    run(backbone, snapshots=Snapshots(save=kept.append, every=0.0))
    assert len(kept) == BUDGET["steps"] - 1
    for data in kept:
        resumed = run(backbone, snapshots=Snapshots(load=lambda data=data: data))
        assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_a_run_that_goes_on_with_nothing_remembered_ends_in_the_same_bits(
    backbone: Backbone,
) -> None:
    """Below the trained layers states are kept; a new process, or a full memory, has none."""

    def run(**more: Any) -> dict[str, torch.Tensor]:
        backbone.reset()
        backbone.add_adapter("a", {**SPEC, "leave_out": [0]}, seed=3)
        backbone.add_head("h", HEAD, seed=3)
        both = streams(backbone, ["lab-root", "lab-mid-mid"])
        parameters = backbone.trainable(["a", "h"])
        train(backbone, parameters, both, {**BUDGET, "steps": 12}, seed=5, **more)
        return {**backbone.weights("a"), **backbone.weights("h")}

    kept: list[bytes] = []
    whole = run(memory=Memory())
    again = run(memory=Memory(), snapshots=Snapshots(save=kept.append, every=0.0))
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    half = Memory()
    run(memory=half)
    for memory in (Memory(), Memory(most=0), Memory(most=half.held // 2), half):
        resumed = run(memory=memory, snapshots=Snapshots(load=lambda: kept[6]))
        assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_training_changes_adapter_and_head_and_nothing_else(backbone: Backbone) -> None:
    before = backbone.digest()
    parameters = fresh(backbone)
    start = {name: p.detach().clone() for name, p in parameters.items()}
    train(backbone, parameters, streams(backbone, ["lab-root"]), BUDGET, seed=5)
    assert all(not torch.equal(start[name], p) for name, p in parameters.items())
    backbone.reset()
    assert backbone.digest() == before
    assert [n for n, p in backbone.model.named_parameters() if p.requires_grad] == []


def test_micro_batches_leave_the_gradient_as_it_is(backbone: Backbone) -> None:
    whole, parts = run(backbone), run(backbone, micro_batch=3)
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-4, atol=1e-6)


def _rows(sizes: Sequence[Sequence[int]]) -> list[tuple[Window, ...]]:
    return [tuple(Window([0] * size, [], [], []) for size in row) for row in sizes]


@given(
    st.lists(st.lists(st.integers(1, 900), min_size=1, max_size=2), min_size=1, max_size=7),
    st.integers(1, 8),
)
def test_rows_of_like_length_are_parted_as_cheaply_as_can_be(
    sizes: list[list[int]], most: int
) -> None:
    def cost(parts: Sequence[Sequence[tuple[Window, ...]]]) -> int:
        each = [[len(window.ids) for row in part for window in row] for part in parts]
        return sum(APART + len(part) * max(part) for part in each)

    rows = _rows(sizes)
    parts = alike(rows, most)
    assert Counter(id(row) for part in parts for row in part) == Counter(map(id, rows))
    assert all(len(part) <= most for part in parts)
    ordered = [row for part in parts for row in part]
    cuts = [c for n in range(len(rows)) for c in itertools.combinations(range(1, len(rows)), n)]
    ways = [
        [ordered[a:b] for a, b in itertools.pairwise([0, *c, len(rows)])]
        for c in cuts
        if max(b - a for a, b in itertools.pairwise([0, *c, len(rows)])) <= most
    ]
    assert cost(parts) == min(map(cost, ways))


@pytest.mark.parametrize("micro_batch", [None, 3])
def test_what_is_not_packed_goes_in_parts_of_like_length(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, micro_batch: int | None
) -> None:
    """Each is as long as its own longest row, and the gradient is that of the whole batch."""
    shapes: list[torch.Size] = []
    scored = backbone.trunk.scored
    monkeypatch.setattr(
        backbone.trunk, "scored", lambda b, k=None: shapes.append(b.ids.shape) or scored(b, k)
    )

    def gradient(apart: int) -> tuple[float, torch.Tensor]:
        shapes.clear()
        monkeypatch.setattr("adapterxlt.compute.data.APART", apart)
        backbone.reset()
        backbone.add_adapter("a", {"method": "prefix_tuning", "prefix_length": 3}, seed=3)
        backbone.add_head("h", HEAD, seed=3)
        some = streams(backbone, ["lab-root"], batch=16)
        return one_step(backbone, some, micro_batch=micro_batch)

    loss, wanted = gradient(10**9)
    assert len(shapes) == (6 if micro_batch else 1)
    whole = sum(rows * length for rows, length in shapes)
    found, parts = gradient(1)
    assert found == pytest.approx(loss, rel=1e-5)
    same_gradient(parts, wanted)
    assert sum(rows for rows, _ in shapes) == 16 and len({length for _, length in shapes}) > 1
    assert sum(rows * length for rows, length in shapes) < (1 if micro_batch else 0.8) * whole


# Batches of other sizes; the third wears an adapter below that the others do not.
MIXED: list[tuple[str, int, tuple[Wearing, ...]]] = [
    ("lab-root", 8, (("a",),)),
    ("lab-mid-mid", 3, (("a",),)),
    ("lab-far-low", 5, (("b", "a"),)),
]
ONE = {**BUDGET, "steps": 1, "clip": None}


def mixed(
    backbone: Backbone, count: int = 3, weights: Sequence[float] = (1.0, 1.0, 1.0)
) -> list[Stream]:
    """The first of the three streams above, on a fresh backbone."""
    fresh(backbone)
    backbone.add_adapter("b", SPEC, seed=4)
    result = []
    for (language, batch, stacks), weight in zip(MIXED[:count], weights, strict=False):
        (stream,) = streams(backbone, [language], batch)
        result.append(dataclasses.replace(stream, stacks=stacks, weight=weight))
    backbone.trainable(["a", "h"])
    return result


def one_step(backbone: Backbone, some: list[Stream], **more: Any) -> tuple[float, torch.Tensor]:
    """Loss and flat gradient of the first step, as `train` leaves it in the parameters."""
    parameters = backbone.trainable(["a", "h"])
    outcome = train(backbone, parameters, some, {**ONE, **more.pop("budget", {})}, seed=5, **more)
    return outcome.losses[0][1], torch.cat([p.grad.flatten() for p in parameters.values()])


def flat_gradient(backbone: Backbone, loss: torch.Tensor) -> torch.Tensor:
    wanted = list(backbone.trainable(["a", "h"]).values())
    parts = torch.autograd.grad(loss, wanted, retain_graph=True)
    return torch.cat([part.flatten() for part in parts])


def states_of(backbone: Backbone, stream: Stream) -> tuple[torch.Tensor, torch.Tensor]:
    """Scored hidden states and labels of a stream's first batch: row by row, without padding."""
    backbone.activate(stream.stacks[0])
    states, labels = [], []
    for row in stream.order.rows(0):
        for window in stream.data.rows[row]:
            ids = torch.tensor([window.ids])
            states.append(backbone.hidden(ids, torch.ones_like(ids))[0, window.positions])
            labels += window.labels
    return torch.cat(states), torch.tensor(labels)


def losses_of(backbone: Backbone, some: list[Stream]) -> list[torch.Tensor]:
    """Losses of the scored items of each stream's first batch."""
    each = [states_of(backbone, stream) for stream in some]
    return [
        cross_entropy(backbone.head_logits("h", states), labels, reduction="none")
        for states, labels in each
    ]


def same_gradient(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.5, 2.0, 0.25)])
def test_macro_and_micro_are_what_they_say(backbone: Backbone, weights: tuple[float, ...]) -> None:
    items = losses_of(backbone, mixed(backbone, 3, weights))
    assert len({len(part) for part in items}) == 3
    macro = sum(w * part.mean() for w, part in zip(weights, items, strict=True)) / sum(weights)
    above = sum(w * part.sum() for w, part in zip(weights, items, strict=True))
    micro = above / sum(w * len(part) for w, part in zip(weights, items, strict=True))
    assert abs(float((macro - micro).detach())) > 1e-4
    if set(weights) == {1.0}:
        assert micro.item() == pytest.approx(torch.cat(items).mean().item())
    wanted = {
        name: (float(loss.detach()), flat_gradient(backbone, loss))
        for name, loss in (("macro", macro), ("micro", micro))
    }
    for objective, (loss, gradient) in wanted.items():
        for size in (None, 2):
            some = mixed(backbone, 3, weights)
            found = one_step(backbone, some, objective=objective, micro_batch=size)
            assert found[0] == pytest.approx(loss, abs=2e-6)
            same_gradient(found[1], gradient)


def test_micro_is_macro_when_the_counts_are_equal(backbone: Backbone) -> None:
    def step(objective: str) -> torch.Tensor:
        first, *_ = mixed(backbone, 1)
        some = [first, dataclasses.replace(first, stacks=(("b", "a"),)), first]
        return one_step(backbone, some, objective=objective)[1]

    same_gradient(step("micro"), step("macro"))


@pytest.mark.parametrize("count", [2, 3])
def test_mixup_mixes_the_first_stream_with_each_other(backbone: Backbone, count: int) -> None:
    some = mixed(backbone, count, (1.0, 3.0, 1.0))
    head = some[0].logits
    source, *others = [states_of(backbone, stream) for stream in some]
    parts = []
    for i, other in enumerate(others):
        pairs, lam = mixup_pairs(len(source[1]), len(other[1]), derive(5, "mixup", 0, i))
        assert len(pairs) == max(len(source[1]), len(other[1]))
        parts.append(mixup_loss(head, *source, *other, pairs, lam))
    loss = parts[0] if count == 2 else (3 * parts[0] + parts[1]) / 4
    wanted = float(loss.detach()), flat_gradient(backbone, loss)
    some = mixed(backbone, count, (1.0, 3.0, 1.0))
    found = one_step(backbone, some, objective="mixup", micro_batch=2)
    assert found[0] == pytest.approx(wanted[0], abs=2e-6)
    same_gradient(found[1], wanted[1])


def only(label: int, stream: Stream) -> Stream:
    """The same rows, every item with the same label: two of these are in conflict."""
    rows = [
        tuple(dataclasses.replace(w, labels=[label] * len(w.labels)) for w in row)
        for row in stream.data.rows
    ]
    return dataclasses.replace(stream, data=Encoded(rows))


@pytest.mark.parametrize("size", [None, 3])
def test_surgery_takes_away_what_is_in_conflict(backbone: Backbone, size: int | None) -> None:
    def two() -> list[Stream]:
        first, *_ = mixed(backbone, 1)
        # Once other labels are out of the way, what one of the two gains the other loses.
        both = [only(0, first), only(1, first)]
        train(backbone, backbone.trainable(["a", "h"]), both, BUDGET, seed=5)
        return both

    losses = [items.mean() for items in losses_of(backbone, two())]
    one, other = (flat_gradient(backbone, loss) for loss in losses)
    dot = one @ other
    assert float(dot) < -1e-3 * float(one.norm() * other.norm())
    wanted = (one - dot / (other @ other) * other + other - dot / (one @ one) * one) / 2
    loss, found = one_step(backbone, two(), objective="surgery", micro_batch=size)
    assert loss == pytest.approx(float(sum(losses).detach()) / 2, abs=2e-6)
    same_gradient(found, wanted)
    _, macro = one_step(backbone, two())
    assert not torch.allclose(found, macro, rtol=1e-2)


def test_surgery_without_conflict_is_macro_to_the_bit(backbone: Backbone) -> None:
    def step(objective: str) -> torch.Tensor:
        first, *_ = mixed(backbone, 1)
        twice = dataclasses.replace(first, stacks=(("b", "a"),), weight=2.0)
        return one_step(backbone, [first, twice, first], objective=objective)[1]

    assert torch.equal(step("surgery"), step("macro"))


@pytest.mark.parametrize("objective", ["mixup", "surgery"])
def test_objectives_of_pairs_refuse_what_has_no_meaning(backbone: Backbone, objective: str) -> None:
    some = mixed(backbone)
    parameters = backbone.trainable(["a", "h"])
    refuse = partial(train, backbone, parameters, budget=ONE, seed=5, objective=objective)
    with pytest.raises(StageError, match="two or more"):
        refuse(some[:1])
    with pytest.raises(StageError, match="balanced"):
        refuse(some, sampling={"kind": "proportional"})
    with pytest.raises(StageError, match="no regularizer"):
        refuse(some, regularizer=lambda: torch.zeros(()))
    with pytest.raises(KeyError):
        train(backbone, parameters, some, ONE, seed=5, objective="best")


@pytest.mark.parametrize("objective", ["macro", "micro"])
def test_a_regularizer_is_added_once_a_step(backbone: Backbone, objective: str) -> None:
    plain = one_step(backbone, mixed(backbone), objective=objective, micro_batch=2)
    some = mixed(backbone)
    parameters = backbone.trainable(["a", "h"])
    flat = torch.cat([p.detach().flatten() for p in parameters.values()])

    def squares() -> torch.Tensor:
        return torch.stack([p.square().sum() for p in parameters.values()]).sum()

    more = one_step(backbone, some, objective=objective, micro_batch=2, regularizer=squares)
    assert more[0] - plain[0] == pytest.approx(float(flat.square().sum()), rel=1e-5)
    same_gradient(more[1] - plain[1], 2 * flat)


def numbered(stream: Stream, numbers: list[int]) -> Stream:
    """The stream, writing down the number of each of its batches."""

    class Noted(Order):
        def rows(self, number: int) -> list[int]:
            numbers.append(number)
            return super().rows(number)

    order = Noted(stream.order.count, stream.order.batch, 1, stream.name)
    return dataclasses.replace(stream, order=order)


@pytest.mark.parametrize(
    ("sampling", "t"),
    [({"kind": "proportional"}, 1.0), ({"kind": "temperature", "t": 5.0}, 5.0)],
)
def test_streams_are_drawn_by_their_size(sampling: dict[str, Any], t: float) -> None:
    sizes, steps = [900, 90, 10], 20_000
    mixture = Mixture(sizes, steps, sampling, seed=3)
    slots = np.array([mixture.slots(step) for step in range(steps)])
    assert slots.shape == (steps, 3, 2)
    chances = np.array(sizes) ** (1 / t) / (np.array(sizes) ** (1 / t)).sum()
    flat = slots.reshape(-1, 2)
    for stream, chance in enumerate(chances):
        for slot in range(3):
            share = (slots[:, slot, 0] == stream).mean()
            assert share == pytest.approx(chance, abs=4 * np.sqrt(chance * (1 - chance) / steps))
        numbers = flat[flat[:, 0] == stream, 1]
        assert numbers.tolist() == list(range(len(numbers)))
    again, other = (Mixture(sizes, steps, sampling, seed).slots(steps - 1) for seed in (3, 4))
    assert again == [tuple(pair) for pair in slots[-1].tolist()] != other


def test_a_large_power_of_a_large_size_is_still_a_chance() -> None:
    mixture = Mixture([10**6, 10**5], 50, {"kind": "temperature", "t": 0.01}, seed=1)
    assert mixture.slots(49) == [(0, 98), (0, 99)]
    with pytest.raises(KeyError):
        Mixture([1, 2], 5, {"kind": "fair"}, seed=1)


def test_drawn_streams_pass_through_their_rows_in_whole_epochs(backbone: Backbone) -> None:
    some = mixed(backbone)
    numbers: list[list[int]] = [[], [], []]
    noted = [numbered(stream, seen) for stream, seen in zip(some, numbers, strict=True)]
    outcome = train(
        backbone, backbone.trainable(["a", "h"]), noted, {**BUDGET, "steps": 9}, seed=5,
        sampling={"kind": "temperature", "t": 2.0},
    )  # fmt: skip
    assert sum(map(len, numbers)) == 27
    assert len({len(seen) for seen in numbers}) > 1
    assert all(seen == list(range(len(seen))) for seen in numbers)
    rows = [order.order.rows(n) for order, seen in zip(some, numbers, strict=True) for n in seen]
    assert outcome.examples == sum(map(len, rows))


def test_balanced_takes_a_batch_of_every_stream(backbone: Backbone) -> None:
    assert Mixture([5, 9], 4, None, seed=1).slots(3) == [(0, 3), (1, 3)]
    first, *_ = mixed(backbone, 1)
    count = len(first.data.rows)
    order = Order(count, count - 5, 1, "x")
    outcome = train(
        backbone, backbone.trainable(["a", "h"]), [dataclasses.replace(first, order=order)] * 2,
        {**BUDGET, "steps": 4}, seed=5,
    )  # fmt: skip
    # Two epochs of two batches, of two streams.
    assert outcome.examples == 4 * count
    assert outcome.tokens == 4 * sum(len(w.ids) for row in first.data.rows for w in row)


Worn = list[tuple[Wearing, list[int]]]


@pytest.fixture
def worn(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> Worn:
    """What each batch wore, and the layers it went without."""
    seen: Worn = []
    activate = backbone.activate

    def spy(stack: Wearing, skip_layers: Sequence[int] = ()) -> None:
        seen.append((stack, list(skip_layers)))
        activate(stack, skip_layers)

    monkeypatch.setattr(backbone, "activate", spy)
    return seen


def test_batches_wear_their_stacks_in_turn(backbone: Backbone, worn: Worn) -> None:
    first, *_ = mixed(backbone, 1)
    stacks: tuple[Wearing, ...] = (("a",), ("b", "a"), ())
    some = [dataclasses.replace(first, stacks=stacks), first]
    train(backbone, backbone.trainable(["a", "h"]), some, {**BUDGET, "steps": 4}, seed=5)
    assert [stack for stack, _ in worn] == [
        ("a",), ("a",), ("b", "a"), ("a",), (), ("a",), ("a",), ("a",)
    ]  # fmt: skip


def test_drawn_streams_wear_by_their_own_count(backbone: Backbone, worn: Worn) -> None:
    first, second = mixed(backbone, 2)
    stacks: list[tuple[Wearing, ...]] = [(("a",), ("b", "a"), ()), (("b",), ("a", "b"))]
    some = [
        dataclasses.replace(s, stacks=own) for s, own in zip((first, second), stacks, strict=True)
    ]
    sampling = {"kind": "proportional"}
    train(backbone, backbone.trainable(["a", "h"]), some, BUDGET, seed=5, sampling=sampling)
    for own in stacks:
        mine = [stack for stack, _ in worn if stack in own]
        assert mine and mine == [own[i % len(own)] for i in range(len(mine))]
    assert len(worn) == 2 * BUDGET["steps"]


def test_drop_takes_the_adapters_of_the_first_layers(backbone: Backbone, worn: Worn) -> None:
    def skipped(drop: int | str | None, seed: int = 5, objective: str = "macro") -> list[list[int]]:
        some = mixed(backbone, 2)
        worn.clear()
        train(
            backbone, backbone.trainable(["a", "h"]), some, {**BUDGET, "steps": 12},
            seed=seed, drop=drop, objective=objective,
        )  # fmt: skip
        assert len(worn) == 24
        assert [skip for _, skip in worn[0::2]] == [skip for _, skip in worn[1::2]]
        return [skip for _, skip in worn[0::2]]

    assert skipped(None) == skipped(0) == [[]] * 12
    assert skipped(1) == skipped(1, objective="mixup") == [[0]] * 12
    drawn = skipped("random")
    assert {tuple(skip) for skip in drawn} == {(), (0,)}
    assert 2 < drawn.count([0]) < 10
    assert drawn == skipped("random", objective="surgery") != skipped("random", seed=6)


def test_adapters_that_are_dropped_are_left_alone_and_resume(
    backbone: Backbone, worn: Worn
) -> None:
    def go(snapshots: Snapshots | None = None, objective: str = "macro") -> dict[str, torch.Tensor]:
        some = mixed(backbone, 2)
        train(
            backbone, backbone.trainable(["a", "h"]), some, {**BUDGET, "steps": 3}, seed=5,
            drop=backbone.layers, snapshots=snapshots, objective=objective,
        )  # fmt: skip
        return {**backbone.weights("a"), **backbone.weights("h")}

    mixed(backbone)
    start = backbone.weights("a")
    saved: list[bytes] = []
    for objective in ("macro", "surgery"):
        whole = go(Snapshots(save=saved.append, every=0.0), objective)
        assert all(torch.equal(whole[name], start[name]) for name in start)
        resumed = go(Snapshots(load=saved.pop), objective)
        assert all(torch.equal(resumed[name], whole[name]) for name in whole)


class _Stop(Exception):
    pass


def test_weights_are_kept_at_the_ends_of_the_parts(backbone: Backbone) -> None:
    def go(parts: int | None, stop: int = 99, **more: Any) -> tuple[Outcome, dict[str, Any]]:
        outcome, some = Outcome(), mixed(backbone, 2)
        parameters = backbone.trainable(["a", "h"])

        def progress(step: int, steps: int, loss: float) -> None:
            if step == stop:
                raise _Stop

        budget = {**BUDGET, "snapshots": parts}
        with contextlib.suppress(_Stop):
            outcome = train(backbone, parameters, some, budget, seed=5, progress=progress, **more)
        return outcome, {name: p.detach().clone() for name, p in parameters.items()}

    def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
        return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)

    saved: list[bytes] = []
    outcome, last = go(3, snapshots=Snapshots(save=saved.append, every=0.0))
    stopped = [go(None, stop=step)[1] for step in (3, 6)]
    assert len(outcome.kept) == 2
    assert all(equal(one, other) for one, other in zip(outcome.kept, stopped, strict=True))
    assert not equal(outcome.kept[1], last)
    for data in saved:
        resumed, end = go(3, snapshots=Snapshots(load=lambda data=data: data))
        assert equal(end, last) and len(resumed.kept) == 2
        assert all(equal(a, b) for a, b in zip(resumed.kept, outcome.kept, strict=True))
    for none in (None, 1):
        assert go(none)[0].kept == []


def test_more_parts_than_steps_keep_a_step_twice(backbone: Backbone) -> None:
    saved: list[bytes] = []
    some = mixed(backbone, 1)
    budget = {**BUDGET, "steps": 2, "snapshots": 5}
    outcome = train(
        backbone, backbone.trainable(["a", "h"]), some, budget, seed=5,
        snapshots=Snapshots(save=saved.append, every=0.0),
    )  # fmt: skip
    name = next(iter(outcome.kept[0]))
    one, two, three, four = (kept[name] for kept in outcome.kept)
    assert torch.equal(one, two) and torch.equal(three, four) and not torch.equal(two, three)
    assert len(saved) == 1


@pytest.mark.parametrize(
    ("objective", "sampling", "drop"),
    [
        ("micro", {"kind": "proportional"}, None),
        ("macro", {"kind": "temperature", "t": 3.0}, "random"),
        ("mixup", None, None),
        ("surgery", None, "random"),
    ],
)
def test_every_objective_and_sampling_resumes_to_the_bit(
    backbone: Backbone, worn: Worn, objective: str, sampling: dict[str, Any] | None, drop: Any
) -> None:
    def go(snapshots: Snapshots) -> tuple[Outcome, dict[str, torch.Tensor]]:
        some = mixed(backbone)
        some[1] = dataclasses.replace(some[1], stacks=(("a",), ("b", "a")))
        outcome = train(
            backbone, backbone.trainable(["a", "h"]), some, {**BUDGET, "steps": 4}, seed=5,
            objective=objective, sampling=sampling, drop=drop, snapshots=snapshots,
        )  # fmt: skip
        return outcome, {**backbone.weights("a"), **backbone.weights("h")}

    saved: list[bytes] = []
    outcome, whole = go(Snapshots(save=saved.append, every=0.0))
    assert len(saved) == 3
    for step, data in enumerate(saved, 1):
        again, resumed = go(Snapshots(load=lambda data=data: data))
        assert all(torch.equal(resumed[name], whole[name]) for name in whole)
        assert again.resumed_at == step and again.losses == outcome.losses
        assert (again.tokens, again.examples) == (outcome.tokens, outcome.examples)


def test_a_snapshot_of_another_form_starts_anew(backbone: Backbone) -> None:
    saved: list[bytes] = []
    whole = run(backbone, snapshots=Snapshots(save=saved.append, every=0.0))
    old = saved[3].replace(b'{"form": 2', b'{"form": 1')
    assert old != saved[3]
    again = run(backbone, snapshots=Snapshots(load=lambda: old))
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_a_loss_that_is_not_finite_is_an_error(backbone: Backbone) -> None:
    parameters = fresh(backbone)
    with torch.no_grad():
        next(iter(parameters.values())).fill_(float("nan"))
    with pytest.raises(StageError, match="loss is nan at step 1"):
        train(backbone, parameters, streams(backbone, ["lab-root"]), BUDGET, seed=5)


def test_weights_that_do_not_fit_are_refused(backbone: Backbone) -> None:
    fresh(backbone)
    weights = backbone.weights("a")
    backbone.reset()
    with pytest.raises(StageError, match="do not fit"):
        backbone.add_adapter("a", {**SPEC, "reduction_factor": 8.0}, weights=weights)
    backbone.reset()
    with pytest.raises(StageError, match="do not fit"):
        backbone.add_adapter("a", {**SPEC, "leave_out": [1]}, weights=weights)
    backbone.reset()
    missing = dict(list(weights.items())[1:])
    with pytest.raises(StageError, match="do not fit"):
        backbone.add_adapter("a", SPEC, weights=missing)
    backbone.reset()


def test_stored_weights_come_back_the_same(backbone: Backbone) -> None:
    fresh(backbone)
    spec = {**SPEC, "method": "seq_bn_inv"}
    backbone.add_adapter("b", spec, seed=9)
    weights = backbone.weights("b")
    assert any("invertible" in name for name in weights)
    backbone.reset()
    backbone.add_adapter("c", spec, seed=1, weights=weights)
    again = backbone.weights("c")
    assert again.keys() == weights.keys()
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    backbone.reset()


def test_masked_words_are_predicted_as_by_the_checkpoint(
    tmp_path: Path, tiny_backbone: Path
) -> None:
    """With the bias of its output, which `AutoAdapterModel` leaves at zero."""
    folder = tmp_path / "b"
    shutil.copytree(tiny_backbone, folder)
    model = AutoModelForMaskedLM.from_pretrained(folder, attn_implementation="eager").eval()
    torch.nn.init.normal_(model.lm_head.bias)
    model.save_pretrained(folder)
    ids = torch.tensor([[0, 9, 10, 11, 2], [0, 12, 4, 13, 2]])
    own = Backbone(folder)
    own.model.eval()
    with torch.inference_mode():
        expected = model(ids, attention_mask=torch.ones_like(ids)).logits
        states = own.hidden(ids, torch.ones_like(ids))
        torch.testing.assert_close(own.lm_logits(states.flatten(0, 1)), expected.flatten(0, 1))
    assert model.lm_head.bias.abs().max() > 1


def test_the_invertible_block_acts_before_and_after(backbone: Backbone) -> None:
    backbone.reset()
    backbone.add_adapter("b", {**SPEC, "method": "seq_bn_inv"}, seed=9)
    ids = torch.tensor([[0, 9, 10, 11, 2]])
    mask = torch.ones_like(ids)
    with torch.inference_mode():
        backbone.activate(("b",))
        with_block = backbone.hidden(ids, mask)
        logits = backbone.lm_logits(with_block[0])
        plain = backbone.model(ids, attention_mask=mask, head="default").logits[0]
        backbone.activate(())
        bare = backbone.hidden(ids, mask)
    torch.testing.assert_close(logits, plain)
    assert not torch.allclose(with_block, bare)
    backbone.reset()


def test_order_is_one_pass_an_epoch_and_stateless() -> None:
    order = Order(53, 8, 1, "x")
    assert order.per_epoch == math.ceil(53 / 8)
    epochs = [[i for step in range(e * 7, e * 7 + 7) for i in order.rows(step)] for e in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(53))] * 2
    assert epochs[0] != epochs[1]
    assert Order(53, 8, 1, "x").rows(9) == order.rows(9)
    assert Order(53, 8, 2, "x").rows(0) != order.rows(0)
    assert Order(53, 8, 1, "y").rows(0) != Order(53, 8, 1, "x").rows(0)


def test_the_shorter_side_is_cycled() -> None:
    order = Order(10, 16, 1, "shots")
    assert all(sorted(order.rows(step)) == list(range(10)) for step in range(5))


def test_masks_hide_about_their_share_and_keep_the_rest() -> None:
    windows = [Window([0, *range(10, 60), 2], [], [], []) for _ in range(200)]
    masking = Masking(0.15, mask_id=4, vocabulary=100)
    masked = masking.apply(windows, seed=11)
    scored = sum(len(w.positions) for w in masked)
    assert 0.13 < scored / (200 * 50) < 0.17
    fates = {"mask": 0, "kept": 0, "other": 0}
    for before, after in zip(windows, masked, strict=True):
        assert after.labels == [before.ids[p] for p in after.positions]
        for p in range(len(before.ids)):
            if p not in after.positions:
                assert after.ids[p] == before.ids[p]
            elif after.ids[p] == 4:
                fates["mask"] += 1
            else:
                fates["kept" if after.ids[p] == before.ids[p] else "other"] += 1
    assert 0.76 < fates["mask"] / scored < 0.84
    assert 0.06 < fates["kept"] / scored < 0.14
    assert masking.apply(windows, seed=11) == masked
    assert masking.apply(windows, seed=12) != masked


def test_schedule() -> None:
    rates = [learning_rate(BUDGET, step) for step in range(8)]
    assert rates[:2] == [0.005, 0.01]
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] == pytest.approx(0.01 / 6)
    constant = {**BUDGET, "schedule": "constant", "warmup": 0.0}
    assert {learning_rate(constant, step) for step in range(8)} == {0.01}


def test_long_rows_become_windows_and_every_word_is_scored(backbone: Backbone) -> None:
    row = lab.rows("lab-pos", "lab-root", "train")[0]
    words, tags = row["tokens"] * 9, row["upos"] * 9
    data = encode(backbone.tokenizer, TASK, [{"tokens": words, "upos": tags}], 16)
    windows = data.rows[0]
    assert len(windows) > 1 and all(len(window.ids) <= 16 for window in windows)
    assert [item for window in windows for item in window.items] == list(range(len(words)))
    labels = [TASK.labels[label] for window in windows for label in window.labels]
    assert labels == tags
    batch = collate(windows, backbone.tokenizer.pad_token_id)
    assert batch.ids.shape == batch.mask.shape
    first = backbone.tokenizer(words[:1], is_split_into_words=True)["input_ids"][1]
    assert batch.ids[batch.index[0][0], batch.index[1][0]] == first


def test_long_texts_are_cut_and_counted(backbone: Backbone) -> None:
    task = TASKS["lab-nli"]
    rows = [dict(r) for r in lab.rows("lab-nli", "lab-root", "train")[:3]]
    rows[1]["premise"] = " ".join([rows[1]["premise"]] * 10)
    data = encode(backbone.tokenizer, task, rows, 64)
    assert data.cut == {1}
    assert max(len(window.ids) for row in data.rows for window in row) == 64
    text = encode_text(backbone.tokenizer, [rows[1]["premise"]], 20)
    assert len(text.rows[0]) > 1 and max(len(w.ids) for w in text.rows[0]) == 20
