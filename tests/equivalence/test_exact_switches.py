"""Less work for the same states: packed rows, the last layer at what is scored, matrices cast once.

What must come out is what the library's own forward pass gives for each window alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_backbones import (
    attention,
    library_states,
    put,
    random_windows,
    save,
)

from adapterxlt.compute.backbone import Backbone, Wearing, fusion_name
from adapterxlt.compute.data import GRAIN, ROOM, Batch, Window, collate, first_fit, join
from adapterxlt.compute.steps import amp
from adapterxlt.compute.trunk import Trunk

BACKBONES = [(kind, which) for kind in ("bert", "roberta", "xlm-r") for which in ("eager", "sdpa")]
SEQ = {"method": "seq_bn", "reduction_factor": 4.0}
INV = {"method": "seq_bn_inv"}
PREFIX = {"prefix_length": 3, "bottleneck_size": 5}
# What is put on, and in which order it is worn.
PACKED: dict[str, tuple[dict[str, dict[str, Any]], Wearing]] = {
    "bare": ({}, ()),
    "seq_bn": ({"a": SEQ}, ("a",)),
    "seq_bn_inv, seq_bn": ({"l": INV, "a": SEQ}, ("l", "a")),
    "double": ({"a": {"method": "double_seq_bn"}}, ("a",)),
    "double_inv, left out": (
        {"l": {"method": "double_seq_bn_inv"}, "a": {**SEQ, "leave_out": [0, -1]}}, ("l", "a")
    ),
    "parallel": ({"a": {"method": "par_bn"}}, ("a",)),
    "compacter": ({"a": {"method": "compacter", "reduction_factor": 4}}, ("a",)),
    "seq_bn_inv, lora": (
        {"l": INV, "a": {"method": "lora", "targets": "attention-ffn"}}, ("l", "a")
    ),
    "ia3": ({"l": {"method": "ia3"}, "a": {"method": "ia3"}}, ("l", "a")),
    "peft_lora": ({"a": {"method": "peft_lora", "targets": "attention-ffn"}}, ("a",)),
    "seq_bn_inv, peft_dora": ({"l": INV, "a": {"method": "peft_dora"}}, ("l", "a")),
    "fusion": ({"a": SEQ, "b": INV}, (("a", "b"),)),
    "fusion, seq_bn": ({"a": SEQ, "b": SEQ, "c": SEQ}, (("a", "b"), "c")),
    "full": ({"l": INV, "a": {"method": "full"}}, ("l", "a")),
}  # fmt: skip
ALONE: dict[str, tuple[dict[str, dict[str, Any]], Wearing]] = {
    "prefix_tuning": ({"a": {"method": "prefix_tuning", **PREFIX}}, ("a",)),
    "seq_bn_inv, prefix_tuning": (
        {"l": INV, "a": {"method": "prefix_tuning", **PREFIX}}, ("l", "a")
    ),
    "unipelt": ({"a": {"method": "unipelt", **PREFIX}}, ("a",)),
    "mam": ({"a": {"method": "mam", **PREFIX}}, ("a",)),
}  # fmt: skip
LENGTHS = (3, 40, 17, 5, 31, 9, 2, 22, 8, 40, 1)


@pytest.fixture(scope="module", params=BACKBONES, ids=" ".join)
def backbone(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backbone]:
    threads = torch.get_num_threads()
    # What is so small takes longer with more, above all beside other processes.
    torch.set_num_threads(1)
    yield load(*request.param, tmp_path_factory.mktemp("small"))
    torch.set_num_threads(threads)


def load(kind: str, which: str, folder: Path) -> Backbone:
    with attention(which):
        backbone = Backbone(save(folder, kind))
    module = backbone.model.base_model.encoder.layer[0].attention.self
    assert ("Sdpa" in type(module).__name__) is (which == "sdpa")
    assert kind.replace("-", "") in type(backbone.model).__name__.lower()
    return backbone


def names(specs: dict[str, Any], stack: Wearing) -> list[str]:
    return [*specs, *(fusion_name(part) for part in stack if isinstance(part, tuple))]


def gradients(
    states: torch.Tensor, parameters: dict[str, torch.nn.Parameter]
) -> dict[str, torch.Tensor]:
    """Of a sum in which each state weighs differently; taken off the parameters."""
    weights = torch.sin(torch.arange(states.numel(), dtype=torch.float32)).view(states.shape)
    if states.requires_grad:
        (states * weights).sum().backward()
    found = {}
    for name, parameter in parameters.items():
        found[name] = torch.zeros(()) if parameter.grad is None else parameter.grad
        parameter.grad = None
    return found


def close(found: torch.Tensor, wanted: torch.Tensor, far: float = 1e-5) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=far)


def both_ways(
    backbone: Backbone,
    specs: dict[str, Any],
    stack: Wearing,
    skip: tuple[int, ...] = (),
    alone: bool = True,
) -> Batch:
    """Check states and gradients of a batch against each window alone, or in these very rows; the
    batch."""
    windows = random_windows(LENGTHS)
    parameters = backbone.trainable(names(specs, stack))
    backbone.activate(stack, skip)
    batch = backbone.batch(windows)
    states = backbone.scored(batch)
    wanted = library_states(backbone, windows)
    if not alone:
        base = backbone.model.base_model
        wanted = base(batch.ids, attention_mask=batch.mask)[0][batch.index]
    assert 0.3 < wanted.std() < 3
    # Prefixes are larger than what is looked at in a text, and so are their last bits.
    close(states, wanted, 1e-5 if batch.packed else 4e-5)
    for (name, one), other in zip(
        gradients(states, parameters).items(), gradients(wanted, parameters).values(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 + 2e-6 * other.abs().max(),
                                   msg=lambda said, name=name: f"{name}: {said}")  # fmt: skip
    return batch


@pytest.mark.parametrize("case", PACKED)
def test_packed_rows_give_what_each_window_gives_alone(backbone: Backbone, case: str) -> None:
    specs, stack = PACKED[case]
    put(backbone, specs, stack)
    for skip in ((), (0,)) if specs else ((),):
        batch = both_ways(backbone, specs, stack, skip)
        assert batch.packed and batch.packable and len(batch.ids) < len(LENGTHS) / 2
        assert batch.ids.shape[1] <= ROOM


@pytest.mark.parametrize("case", ALONE)
def test_prefixes_are_not_packed(backbone: Backbone, case: str) -> None:
    specs, stack = ALONE[case]
    put(backbone, specs, stack)
    for skip in ((), (0,)):
        # The gates of UniPELT are means over a row with its padding.
        batch = both_ways(backbone, specs, stack, skip, alone=case != "unipelt")
        assert not batch.packed and not batch.packable and len(batch.ids) == len(LENGTHS)
    # Under anything else they would be.
    backbone.activate(stack[:-1])
    assert backbone.batch(random_windows(LENGTHS)).packed


def test_positions_of_a_row_would_see_other_windows_without_the_mask(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(backbone, {"a": SEQ})
    backbone.activate(("a",))
    windows = random_windows(LENGTHS)
    batch = backbone.batch(windows)
    with torch.no_grad():
        wanted = library_states(backbone, windows)
        close(backbone.scored(batch), wanted)
        # Places counted from the beginning of the row, too, are others.
        row = torch.arange(batch.ids.shape[1]).expand_as(batch.ids)
        off = (backbone.scored(replace(batch, places=row)) - wanted).abs()
        assert off.max() > 0.1
        plain = Trunk._seen
        monkeypatch.setattr(
            Trunk, "_seen", lambda self, batch: plain(self, replace(batch, packed=False))
        )
        off = (backbone.scored(batch) - wanted).abs()
        assert off.max() > 0.1


def test_a_few_windows_among_many_empty_places_are_not_packed(backbone: Backbone) -> None:
    """Also what is alone in its row is right beside padding."""
    put(backbone, {})
    backbone.activate(())
    for lengths in ((40, 39, 38), (64,), (70, 69)):
        windows = random_windows(lengths)
        batch = backbone.batch(windows)
        assert not batch.packed and batch.packable
        with torch.no_grad():
            close(backbone.scored(batch), library_states(backbone, windows))


def test_batches_that_are_joined_stay_what_they_are(backbone: Backbone) -> None:
    put(backbone, {})
    backbone.activate(())
    some = [random_windows(LENGTHS, 1), random_windows((12,), 2), random_windows((50, 49, 48), 3)]
    batch = join([backbone.batch(windows) for windows in some], backbone.tokenizer.pad_token_id)
    assert batch.packed
    with torch.no_grad():
        wanted = [library_states(backbone, windows) for windows in some]
        close(backbone.scored(batch), torch.cat(wanted))


@given(st.lists(st.integers(1, 78), min_size=1, max_size=14), st.integers(0, 9))
@settings(max_examples=40)
@example([1] * 14, 0)
@example([32] * 8, 0)
def test_any_lengths_may_be_packed(backbone: Backbone, lengths: list[int], seed: int) -> None:
    if not backbone.has("a"):
        put(backbone, {"l": INV, "a": SEQ})
    backbone.activate(("l", "a"))
    windows = random_windows(lengths, seed)
    with torch.no_grad():
        close(backbone.scored(backbone.batch(windows)), library_states(backbone, windows))


def test_padding_may_be_a_piece_of_a_text(backbone: Backbone) -> None:
    """A text that has the very letters of the padding token; RoBERTa counts no place for it."""
    put(backbone, {})
    backbone.activate(())
    windows = random_windows(LENGTHS)
    for window, at in ((windows[2], 6), (windows[2], 7), (windows[3], 0), (windows[4], 30)):
        window.ids[at] = backbone.tokenizer.pad_token_id
    batch = backbone.batch(windows)
    assert batch.packed
    with torch.no_grad():
        close(backbone.scored(batch), library_states(backbone, windows))


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-r"])
def test_rows_may_be_longer_than_what_the_backbone_reads(kind: str, tmp_path: Path) -> None:
    backbone = Backbone(save(tmp_path, kind, positions=22))
    windows = random_windows([9, 3, 18, 5, 6, 4])
    batch = backbone.batch(windows)
    assert batch.packed and batch.ids.shape[1] > 22
    with torch.no_grad():
        close(backbone.scored(batch), library_states(backbone, windows))


# --- where windows stand -------------------------------------------------------------------------


@given(st.lists(st.integers(1, 90), max_size=40), st.integers(1, 90))
def test_every_window_has_a_spot_of_its_own(lengths: list[int], room: int) -> None:
    spots = first_fit(lengths, room)
    assert [end - begin for _, begin, end in spots] == lengths
    rows: dict[int, list[tuple[int, int]]] = {}
    for row, begin, end in spots:
        rows.setdefault(row, []).append((begin, end))
    assert sorted(rows) == list(range(len(rows))) and len(rows) <= len(lengths)
    for taken in rows.values():
        taken.sort()
        # One after the other, without gaps.
        assert taken[0][0] == 0
        assert all(one[1] == other[0] for one, other in pairwise(taken))
        assert taken[-1][1] <= room or len(taken) == 1
    # No two of the rows would go into one.
    ends = sorted(taken[-1][1] for taken in rows.values())
    assert len(ends) < 2 or ends[0] + ends[1] > room


@given(st.lists(st.integers(1, 90), min_size=1, max_size=20), st.booleans(), st.integers(0, 9))
def test_a_batch_has_all_of_its_windows(lengths: list[int], pack: bool, seed: int) -> None:
    windows = random_windows(lengths, seed)
    batch = collate(windows, 1, pack=pack)
    assert [piece.tolist() for piece in batch.pieces()] == [window.ids for window in windows]
    assert batch.labels.tolist() == [label for window in windows for label in window.labels]
    scored = [window.ids[p] for window in windows for p in window.positions]
    assert batch.ids[batch.index].tolist() == scored
    owner = [n for n, window in enumerate(windows) for _ in window.positions]
    assert batch.windows[batch.index].tolist() == owner
    places = [p for window in windows for p in window.positions]
    assert batch.places[batch.index].tolist() == places
    assert int(batch.mask.sum()) == sum(lengths)
    assert (batch.ids[batch.mask == 0] == 1).all()
    plain = len(lengths) * max(lengths)
    assert batch.ids.numel() < 0.95 * plain if batch.packed else batch.ids.numel() == plain
    assert pack or not batch.packed
    assert batch.ids.shape[1] % GRAIN == 0 or not batch.packed


# --- the last layer ------------------------------------------------------------------------------

SCORED: dict[str, list[list[int]]] = {
    # Positions of windows of 20, 12, 9, 7 and 6 sub-words.
    "one each": [[0], [0], [0], [0], [0]],
    "one of all": [[], [], [4], [], []],
    "few": [[1, 5], [3], [], [6, 2, 0], [1]],
    "twice": [[5, 5, 1], [3, 3], [0], [6], [1, 1]],
    "all of one": [list(range(20)), [], [], [], []],
    "all": [list(range(n)) for n in (20, 12, 9, 7, 6)],
    "none": [[], [], [], [], []],
}


@pytest.mark.parametrize("case", SCORED)
def test_the_last_layer_at_scored_positions_equals_all_of_it(backbone: Backbone, case: str) -> None:
    specs, stack = PACKED["seq_bn_inv, lora"]
    put(backbone, specs, stack)
    parameters = backbone.trainable(specs)
    backbone.activate(stack)
    plain = random_windows((20, 12, 9, 7, 6))
    windows = [
        Window(window.ids, at, [0] * len(at), at)
        for window, at in zip(plain, SCORED[case], strict=True)
    ]
    whole: list[int] = []
    handle = backbone.model.base_model.encoder.layer[-1].register_forward_hook(
        lambda *_: whole.append(1)
    )
    for batch in (backbone.batch(windows), collate(windows, 0, pack=False)):
        whole.clear()
        states = backbone.scored(batch)
        # Where most is scored, or positions cannot be by themselves, it is computed whole.
        assert bool(whole) is (case == "all" or not batch.packable)
        wanted = backbone.trunk.lowest(batch)[batch.index]
        assert states.shape == (sum(map(len, SCORED[case])), 32)
        close(states, wanted)
        for one, other in zip(
            gradients(states, parameters).values(),
            gradients(wanted, parameters).values(),
            strict=True,
        ):
            close(one, other)
    handle.remove()


# --- bf16 ----------------------------------------------------------------------------------------

EVERY = {**PACKED, **ALONE}


@pytest.mark.parametrize("case", EVERY)
def test_matrices_that_are_cast_once_give_the_same_bits(backbone: Backbone, case: str) -> None:
    """As under plain autocast, which casts at every use."""
    specs, stack = EVERY[case]
    put(backbone, specs, stack)
    parameters = backbone.trainable(names(specs, stack))
    backbone.activate(stack)
    batch = backbone.batch(random_windows(LENGTHS))
    found, types = [], []
    for precision in ("fp32", "bf16", "fp32"):
        backbone.compute_in(precision)
        encoder = backbone.model.base_model.encoder
        types.append([p.dtype for p in encoder.parameters() if p.dim() == 2])
        with amp("bf16", backbone.device):
            states = backbone.scored(batch).float()
        found.append((states.detach(), gradients(states, parameters)))
    (plain, slopes), *others = found
    for states, mine in others:
        assert torch.equal(states, plain)
        assert all(torch.equal(mine[name], slopes[name]) for name in slopes)
    with torch.no_grad():
        backbone.compute_in("fp32")
        off = (backbone.scored(batch) - plain).abs().max()
        assert 1e-3 < off < 0.5
    assert set(types[0]) == set(types[2]) == {torch.float32}
    assert torch.bfloat16 in types[1] or "full" in case


def test_matrices_that_are_trained_or_looked_at_stay_as_they_are(backbone: Backbone) -> None:
    put(backbone, {"f": {"method": "full"}, "d": {"method": "peft_dora"}})
    own = backbone._own
    halves = [n for n in own if ".layer." in n and "LayerNorm" not in n]
    backbone.compute_in("bf16")
    layers = backbone.model.base_model.encoder.layer

    def types(layer: Any) -> dict[str, torch.dtype]:
        found = {}
        for name in ("attention.self.query", "attention.self.key", "output.dense"):
            module = layer.get_submodule(name)
            found[name] = getattr(module, "base_layer", module).weight.dtype
        return found

    half, whole = torch.bfloat16, torch.float32
    for layer in layers:
        # peft looks at the values of the matrices that it wraps, worn or not.
        assert list(types(layer).values()) == [whole, half, half]
        assert layer.output.LayerNorm.weight.dtype == whole
    assert backbone.model.base_model.embeddings.word_embeddings.weight.dtype == whole
    backbone.activate(("f",))
    for layer in layers:
        assert list(types(layer).values()) == [whole] * 3
    backbone.activate(())
    assert types(layers[0])["output.dense"] == half
    backbone.reset()
    assert not backbone.halved and len(halves) == 3 * 12
    now = dict(backbone.model.named_parameters())
    assert list(now) == list(own) and all(now[name] is own[name] for name in own)
    assert {p.dtype for p in now.values()} == {whole}


def test_a_stage_in_bf16_leaves_nothing_to_the_next(backbone: Backbone) -> None:
    put(backbone, {"a": SEQ})
    before = backbone.digest()
    batch = backbone.batch(random_windows(LENGTHS))
    with torch.no_grad():
        plain = backbone.scored(batch)
        backbone.compute_in("bf16")
        backbone.activate(("a",))
        with amp("bf16", backbone.device):
            assert not torch.equal(backbone.scored(batch), plain)
        # What is put on in between sees the matrices themselves.
        put(backbone, {"a": {"method": "peft_dora"}})
        assert torch.equal(backbone.scored(batch), plain)
        backbone.reset()
        assert torch.equal(backbone.scored(batch), plain)
    assert backbone.digest() == before
