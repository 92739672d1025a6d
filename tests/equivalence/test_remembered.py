"""Lower layers that are not trained are computed once for each window, and nothing else changes:
trainings and predictions are those of a run that computes them every time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from small_backbones import put, random_windows, save, shake

from adapterxlt.compute.backbone import Backbone
from adapterxlt.compute.data import Batch, Encoded, Order, Window
from adapterxlt.compute.evaluation import Composed, predict_labels
from adapterxlt.compute.masking import masked_lm
from adapterxlt.compute.remembered import Memory, below, free_layers
from adapterxlt.compute.snapshots import Snapshots
from adapterxlt.compute.steps import Stream, amp
from adapterxlt.compute.training import train
from adapterxlt.compute.trunk import Trunk
from adapterxlt.core.adapters import AdapterSpec

LAYERS, ROWS, BATCH = 4, 13, 5
LANGUAGE = {"method": "seq_bn_inv"}
TASK = {"method": "seq_bn", "reduction_factor": 4.0, "leave_out": [0, 1]}
HEAD = {"kind": "tagging", "labels": list("abcd")}
# Three epochs.
BUDGET = {
    "steps": 9, "batch": BATCH, "lr": 1e-2, "schedule": "linear", "warmup": 0.25,
    "weight_decay": 0.05, "clip": 1.0,
}  # fmt: skip
LANGUAGES = ("one", "other")
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module", autouse=True)
def single_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=["bert", "xlm-r"])
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return Backbone(save(tmp_path_factory.mktemp("small"), request.param, layers=LAYERS))


@pytest.fixture(scope="module")
def dropping(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    folder = tmp_path_factory.mktemp("small")
    return Backbone(save(folder, "xlm-r", layers=LAYERS, dropout=0.1))


@pytest.fixture
def lowest(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The windows that went through lower layers to be remembered."""
    seen: list[bytes] = []
    plain = Trunk.lowest

    def spy(self: Trunk, batch: Batch, depth: int | None = None) -> torch.Tensor:
        seen.extend(piece.tobytes() for piece in batch.pieces())
        return plain(self, batch, depth)

    monkeypatch.setattr(Trunk, "lowest", spy)
    return seen


def data_of(language: str) -> Encoded:
    seed = LANGUAGES.index(language)
    lengths = [3 + 7 * (i + seed) % 23 for i in range(ROWS)]
    return Encoded([(window,) for window in random_windows(lengths, seed, share=0.5)])


def wear(backbone: Backbone, spec: dict[str, Any], seed: int = 3, **languages: Any) -> None:
    put(backbone, {name: languages.get(name, LANGUAGE) for name in LANGUAGES})
    backbone.add_adapter("t", AdapterSpec(**spec).resolved(backbone.layers), seed=seed)
    backbone.add_head("h", HEAD, seed=seed)


def run(backbone: Backbone, **how: Any) -> tuple[list[float], Weights]:
    """The loss of every step, and the weights at the end."""
    some = []
    for language in LANGUAGES:
        data = data_of(language)
        order = Order(len(data.rows), BATCH, 1, language)
        logits = partial(backbone.head_logits, "h")
        some.append(Stream(language, data, order, ((language, "t"),), logits))
    losses: list[float] = []
    train(
        backbone, backbone.trainable(["t", "h"]), some, BUDGET, seed=5,
        progress=lambda step, steps, loss: losses.append(loss), **how,
    )  # fmt: skip
    return losses, {**backbone.weights("t"), **backbone.weights("h")}


def same(found: tuple[list[float], Weights], wanted: tuple[list[float], Weights]) -> None:
    assert found[0] == pytest.approx(wanted[0], abs=2e-6) and len(set(found[0])) == BUDGET["steps"]
    assert found[1].keys() == wanted[1].keys()
    for name, tensor in wanted[1].items():
        torch.testing.assert_close(found[1][name], tensor, rtol=1e-3, atol=5e-5)


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], int]] = {
    # Language adapter, task adapter, of the training, and how deep is remembered at least.
    "leave_out": (LANGUAGE, TASK, {}, 2),
    "leave_out all but the last": (LANGUAGE, {**TASK, "leave_out": [0, 1, 2]}, {}, 3),
    "leave_out all": (LANGUAGE, {**TASK, "leave_out": [0, 1, 2, 3]}, {}, 4),
    "drop": (LANGUAGE, {**TASK, "leave_out": None}, {"drop": 2}, 2),
    "drop and leave_out": (LANGUAGE, TASK, {"drop": 1}, 2),
    "drop random": (LANGUAGE, {**TASK, "leave_out": [0]}, {"drop": "random"}, 1),
    "micro": (LANGUAGE, TASK, {"objective": "micro", "micro_batch": 2}, 2),
    "mixup": (LANGUAGE, TASK, {"objective": "mixup"}, 2),
    "surgery": (LANGUAGE, TASK, {"objective": "surgery"}, 2),
    "sampling": (LANGUAGE, TASK, {"sampling": {"kind": "proportional"}}, 2),
    "lora over lora": (
        {"method": "peft_lora"}, {"method": "peft_lora", "leave_out": [0, 1]}, {}, 2
    ),
    "double over lora": (
        {"method": "lora"}, {"method": "double_seq_bn", "leave_out": [0, 1]}, {}, 2
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_training_over_what_is_remembered_is_the_same(
    backbone: Backbone, case: str, lowest: list[bytes]
) -> None:
    language, task, how, depth = CASES[case]
    found = {}
    for remembered in (False, True):
        wear(backbone, task, **dict.fromkeys(LANGUAGES, language))
        lowest.clear()
        memory = Memory() if remembered else None
        found[remembered] = run(backbone, memory=memory, **how)
        assert bool(lowest) is remembered
    same(found[True], found[False])
    backbone.activate(("one", "t"), range(how["drop"]) if isinstance(how.get("drop"), int) else ())
    assert free_layers(backbone, {"t", "h"}) == depth
    assert memory is not None and memory.held > 0


@pytest.mark.parametrize("how", [{}, {"objective": "mixup"}, {"micro_batch": 2}], ids=str)
def test_each_window_goes_through_the_lower_layers_once(
    backbone: Backbone, lowest: list[bytes], how: dict[str, Any]
) -> None:
    wear(backbone, TASK)
    memory = Memory()
    run(backbone, memory=memory, **how)
    every = [row[0] for language in LANGUAGES for row in data_of(language).rows]
    assert sorted(lowest) == sorted(
        torch.tensor(w.ids, dtype=torch.int32).numpy().tobytes() for w in every
    )
    assert [len(states) for states in memory.known.values()] == [ROWS, ROWS]
    assert memory.held == sum(len(w.ids) for w in every) * 32 * 4
    kept = [states for known in memory.known.values() for states in known.values()]
    assert not any(states.requires_grad or states.is_inference() for states in kept)


def test_stages_over_the_same_lower_layers_share_what_is_remembered(
    backbone: Backbone, lowest: list[bytes]
) -> None:
    """Of another seed, another method and another head, above the same language adapters."""
    memory = Memory()
    wear(backbone, TASK)
    run(backbone, memory=memory)
    for spec, seed in ((TASK, 4), ({"method": "peft_lora", "leave_out": [0, 1]}, 3)):
        wear(backbone, spec, seed)
        wanted = run(backbone)
        wear(backbone, spec, seed)
        lowest.clear()
        held = memory.held
        same(run(backbone, memory=memory), wanted)
        assert lowest == [] and memory.held == held


RELU = {"method": "seq_bn", "non_linearity": "relu"}
# What is changed of a stack of "one" and "other": put on, worn, skipped, precision, depth.
CHANGED: dict[str, dict[str, Any]] = {
    "weights": {"shaken": "other"},
    "method": {"specs": {"one": {"method": "double_seq_bn"}, "other": RELU}},
    "activation": {"specs": {"one": LANGUAGE, "other": {**RELU, "non_linearity": "gelu"}}},
    "order": {"stack": ("other", "one")},
    "less": {"stack": ("one",)},
    "more": {"stack": ("one", "other", "more")},
    "bare": {"stack": ()},
    "drop": {"skip": (1,)},
    "depth": {"depth": 2},
    "bf16": {"precision": "bf16"},
}


@pytest.mark.parametrize("what", CHANGED)
def test_what_goes_through_something_else_is_not_shared(
    backbone: Backbone, lowest: list[bytes], what: str
) -> None:
    memory = Memory()
    windows = [row[0] for row in data_of("one").rows]

    def states(
        specs: dict[str, Any] | None = None,
        stack: tuple[str, ...] = ("one", "other"),
        skip: tuple[int, ...] = (),
        precision: str = "fp32",
        depth: int = 3,
        shaken: str | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Remembered and computed."""
        put(backbone, specs or {"one": LANGUAGE, "other": RELU})
        if shaken is not None:
            shake(backbone, shaken, 77)
        backbone.add_adapter("more", AdapterSpec(method="seq_bn").resolved(LAYERS))
        shake(backbone, "more", 78)
        top = AdapterSpec(method="seq_bn", leave_out=list(range(depth))).resolved(LAYERS)
        backbone.add_adapter("t", top)
        backbone.compute_in(precision)
        backbone.activate((*stack, "t"), skip)
        batch = backbone.batch(windows)
        known = below(backbone, memory, {"t"})
        assert known is not None and known.depth == depth
        with torch.no_grad(), amp(precision, backbone.device):
            found = known.states(batch, backbone.trunk.lowest)
            seen = len(lowest)
            wanted = backbone.trunk.lowest(batch, depth)
            del lowest[seen:]
        rows = [(row, slice(begin, end)) for row, begin, end in batch.spots]
        return tuple(torch.cat([part[at].float() for at in rows]) for part in (found, wanted))

    first, wanted = states()
    torch.testing.assert_close(first, wanted, rtol=0, atol=1e-5)
    assert len(lowest) == ROWS
    assert torch.equal(states()[0], first) and len(lowest) == ROWS
    found, wanted = states(**CHANGED[what])
    far = 1e-2 if what == "bf16" else 1e-5
    torch.testing.assert_close(found, wanted, rtol=0, atol=far)
    assert (found - first).abs().max() > (1e-3 if what == "bf16" else 0.01)
    assert len(lowest) == 2 * ROWS and len(memory.known) == 2
    assert torch.equal(states()[0], first) and len(lowest) == 2 * ROWS


PREFIX = {"prefix_length": 3, "bottleneck_size": 5}


@pytest.mark.parametrize("method", ["prefix_tuning", "unipelt"])
def test_what_is_for_a_whole_row_is_not_remembered(backbone: Backbone, method: str) -> None:
    """The gates of UniPELT are means over a row with its padding; prefixes stand outside the
    layers, and whether a layer goes without them is not seen in their weights."""
    language, memory = {"method": method, **PREFIX}, Memory()
    for how in ({}, {"drop": 1}):
        found = []
        for given in (None, memory):
            wear(backbone, {**TASK, "leave_out": [0]}, one=language, other=language)
            found.append(run(backbone, memory=given, **how))
        same(*found)
    assert memory.held == 0


def test_nothing_that_is_drawn_is_remembered(dropping: Backbone, lowest: list[bytes]) -> None:
    memory = Memory()
    found = []
    for given in (None, memory):
        wear(dropping, TASK)
        found.append(run(dropping, memory=given))
    assert lowest == [] and memory.held == 0
    assert found[0][0] == found[1][0]


@pytest.mark.parametrize("how", [{}, {"objective": "surgery"}, {"drop": 1}], ids=str)
def test_without_dropout_below_it_is(
    dropping: Backbone, lowest: list[bytes], how: dict[str, Any]
) -> None:
    """And what is drawn above is the same."""
    spec = {**TASK, "leave_out": None} if "drop" in how else TASK
    depth, found = (1 if "drop" in how else 2), []
    drawn: list[tuple[bool, ...]] = []

    def look(*_: Any) -> None:
        drawn.append(tuple(dropping.trunk.draws(n) for n in (0, depth, depth + 1)))

    for given in (None, Memory()):
        wear(dropping, spec)
        layer = dropping.model.base_model.encoder.layer[-1]
        handle = layer.attention.self.query.register_forward_hook(look)
        found.append(run(dropping, memory=given, quiet=True, **how))
        handle.remove()
        assert not dropping.model.training
    assert set(drawn) == {(False, False, True)}
    same(found[1], found[0])
    assert len(lowest) == 2 * ROWS
    wear(dropping, spec)
    loud = run(dropping, **how)
    assert max(abs(a - b) for a, b in zip(loud[0], found[0][0], strict=True)) > 1e-3


def test_masked_text_is_not_remembered(backbone: Backbone, lowest: list[bytes]) -> None:
    wear(backbone, TASK)
    masking, criterion = masked_lm(backbone, 0.15, "fp32")
    data = data_of("one")
    order = Order(len(data.rows), BATCH, 1, "text")
    stream = Stream(
        "text", data, order, (("one", "t"),), backbone.lm_states, masking, criterion=criterion
    )
    memory = Memory()
    train(backbone, backbone.trainable(["t"]), [stream], BUDGET, seed=5, memory=memory)
    assert lowest == [] and memory.held == 0 and not memory.known


@pytest.mark.parametrize("depth", [2, 4])
def test_bf16_is_remembered_too(backbone: Backbone, depth: int) -> None:
    found = []
    for memory in (None, Memory()):
        wear(backbone, {**TASK, "leave_out": list(range(depth))})
        found.append(run(backbone, memory=memory, precision="bf16"))
    assert found[1][0] == pytest.approx(found[0][0], abs=1e-2)
    wear(backbone, {**TASK, "leave_out": list(range(depth))})
    assert run(backbone)[0] != found[0][0]


def test_what_is_remembered_already_changes_no_bit(backbone: Backbone) -> None:
    """A run that goes on with nothing remembered ends where it would have, and so does one after
    other stages."""
    kept: list[bytes] = []
    wear(backbone, TASK)
    memory = Memory()
    whole = run(backbone, memory=memory, snapshots=Snapshots(save=kept.append, every=0.0))
    assert len(kept) == BUDGET["steps"] - 1
    for data in (None, *kept[1::3]):
        for given in (memory, Memory(), Memory(9_000)):
            wear(backbone, TASK)
            snapshots = Snapshots(load=lambda data=data: data)
            losses, weights = run(backbone, memory=given, snapshots=snapshots)
            assert losses == whole[0][-len(losses) :]
            assert all(torch.equal(weights[name], whole[1][name]) for name in weights)


def test_no_more_is_kept_than_there_is_room_for(backbone: Backbone, lowest: list[bytes]) -> None:
    wear(backbone, TASK)
    wanted = run(backbone)
    for most in (0, 1, 6_000, 20_000):
        memory = Memory(most)
        wear(backbone, TASK)
        lowest.clear()
        same(run(backbone, memory=memory), wanted)
        assert memory.held <= most
        states = [one for known in memory.known.values() for one in known.values()]
        assert memory.held == sum(one.numel() * 4 for one in states)
        assert bool(states) is (most > 1) and len(lowest) > 2 * ROWS


def test_what_is_not_asked_for_any_more_is_forgotten_when_half_is_full() -> None:
    memory = Memory(most=1000)
    for name in "abc":
        memory.add(name, b"x", torch.zeros(30))
    memory.leave_only({"a"})
    assert memory.held == 3 * 120 and set(memory.known) == {"a", "b", "c"}
    memory.add("c", b"y", torch.zeros(40))
    memory.add("c", b"z", torch.zeros(200))
    memory.leave_only({"a", "c", "d"})
    assert memory.held == 2 * 120 + 160 and set(memory.known["c"]) == {b"x", b"y"}
    assert set(memory.known) == {"a", "c"}


# --- evaluations ---------------------------------------------------------------------------------


def test_cells_share_the_lower_layers_of_what_they_score(
    backbone: Backbone, lowest: list[bytes]
) -> None:
    data, memory = data_of("one"), Memory()

    def predict(seed: int, tokens: int, memory: Memory | None) -> tuple[list[Any], list[Any]]:
        """What the head says, and the labels; the head tells positions apart."""
        wear(backbone, TASK, seed)
        plain = Composed(backbone, ("one", "t"), "h")
        said = torch.cat([part for *_, part in plain.each(data, plain.outputs)])
        (bias,) = (p for n, p in backbone.trainable(["h"]).items() if n.endswith("bias"))
        with torch.no_grad():
            bias.sub_(said.mean(0))
        model = replace(plain, tokens=tokens, memory=memory, own=frozenset({"t"}))
        found = [part for *_, part in model.each(data, model.outputs)]
        return found, predict_labels(model, data, HEAD["labels"])

    for seed, times in ((1, 1), (2, 0), (3, 0)):
        wanted = predict(seed, 10**9, None)
        assert lowest == []
        found = predict(seed, 60, memory)
        assert len(lowest) == times * ROWS
        lowest.clear()
        for one, other in zip(found[0], wanted[0], strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
        assert found[1] == wanted[1]
        assert len({label for row in found[1] for label in row.values()}) > 1
    assert predict(1, 60, None)[1] != predict(2, 60, None)[1]


def test_trainings_and_evaluations_share(backbone: Backbone, lowest: list[bytes]) -> None:
    memory = Memory()
    wear(backbone, TASK)
    run(backbone, memory=memory)
    lowest.clear()
    model = Composed(backbone, ("other", "t"), "h", memory=memory, own=frozenset({"t"}))
    predict_labels(model, data_of("other"), HEAD["labels"])
    assert lowest == []
    # The same windows under another language's adapter.
    other = Composed(backbone, ("one", "t"), "h", memory=memory, own=frozenset({"t"}))
    predict_labels(other, data_of("other"), HEAD["labels"])
    assert len(lowest) == ROWS


def test_a_window_is_known_by_its_sub_words_alone(backbone: Backbone, lowest: list[bytes]) -> None:
    """What is scored of it and in what company it stands may change."""
    memory = Memory()
    wear(backbone, TASK)
    model = Composed(backbone, ("one", "t"), "h", memory=memory, own=frozenset({"t"}))
    data = data_of("one")
    predict_labels(model, data, HEAD["labels"])
    lowest.clear()
    again = Encoded([(Window(row[0].ids, [0], [0], [0]),) for row in data.rows[::2]])
    predict_labels(model, again, HEAD["labels"])
    assert lowest == []
    changed = [Window([*row[0].ids[:-1], 7], [0], [0], [0]) for row in data.rows[:3]]
    predict_labels(model, Encoded([(window,) for window in changed]), HEAD["labels"])
    assert len(lowest) == 3
