"""Cross-entropy over a vocabulary a few pieces at a time, against torch's over all logits; among
the pieces of a text, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from adapterxlt import lab
from adapterxlt.compute import softmax
from adapterxlt.compute.backbone import Backbone
from adapterxlt.compute.criteria import ITEMS
from adapterxlt.compute.data import Encoded, Order, Window, pieces_of
from adapterxlt.compute.encoding import encode_text
from adapterxlt.compute.masking import Masking, masked_lm
from adapterxlt.compute.softmax import linear_cross_entropy
from adapterxlt.compute.steps import Stream, amp
from adapterxlt.compute.training import train

POSITIONS, HIDDEN, PIECES = 37, 16, 501
#: Bytes of the logits of one position.
ONE = 4 * PIECES
#: Of less than one piece of all positions, of one, some, most, all, more.
ROOMS = [1, ONE, 5 * ONE + 3, 36 * ONE, POSITIONS * ONE, 1 << 30]


def some(
    seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """States, matrix, bias, labels."""
    draw = torch.Generator().manual_seed(seed)
    states = scale * torch.randn(POSITIONS, HIDDEN, generator=draw)
    weight = torch.randn(PIECES, HIDDEN, generator=draw).to(dtype)
    bias = torch.randn(PIECES, generator=draw).to(dtype)
    return states, weight, bias, torch.randint(PIECES, (POSITIONS,), generator=draw)


def by_hand(
    states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss and its gradient, in float64."""
    inner = states.detach().double().requires_grad_()
    logits = inner @ weight.double().T + bias.double()
    loss = cross_entropy(logits, labels, reduction="sum")
    loss.backward()
    assert inner.grad is not None
    return loss.detach(), inner.grad


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("scale", [0.0, 1.0, 40.0])
def test_loss_and_gradient_are_those_of_all_logits(
    monkeypatch: pytest.MonkeyPatch, room: int, scale: float
) -> None:
    monkeypatch.setattr(softmax, "MOST", room)
    states, weight, bias, labels = some(scale=scale)
    wanted, slope = by_hand(states, weight, bias, labels)
    states.requires_grad_()
    loss = linear_cross_entropy(states, weight, bias, labels)
    assert loss.dtype == torch.float32 and loss.shape == ()
    assert float(loss.detach()) == pytest.approx(float(wanted), rel=1e-6)
    (2.5 * loss / 7).backward()
    # Of large logits the last bit is larger.
    tight = 2e-6 if scale < 2 else 5e-5
    torch.testing.assert_close(states.grad, (slope * 2.5 / 7).float(), rtol=1e-5, atol=tight)
    plain = cross_entropy(states.detach() @ weight.T + bias, labels, reduction="sum")
    torch.testing.assert_close(loss.detach(), plain)


@given(st.integers(0, 40), st.integers(2, 60), st.integers(1, 5000), st.integers(0, 99))
@settings(max_examples=60)
def test_any_sizes(positions: int, pieces: int, room: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    states = torch.randn(positions, 4, generator=draw)
    weight, bias = torch.randn(pieces, 4, generator=draw), torch.randn(pieces, generator=draw)
    labels = torch.randint(pieces, (positions,), generator=draw)
    wanted, slope = by_hand(states, weight, bias, labels)
    states.requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(softmax, "MOST", room)
        loss = linear_cross_entropy(states, weight, bias, labels)
        loss.backward()
    assert float(loss.detach()) == pytest.approx(float(wanted), rel=1e-5, abs=1e-6)
    torch.testing.assert_close(states.grad, slope.float(), rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("room", ROOMS)
def test_in_bf16_products_are_halved_and_the_softmax_is_not(
    monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """Under autocast, as torch's own would be."""
    monkeypatch.setattr(softmax, "MOST", room)
    states, weight, bias, labels = some(dtype=torch.bfloat16)
    exact, slope = by_hand(states, weight, bias, labels)
    found = []
    for own in (True, False):
        given = states.clone().requires_grad_()
        with amp("bf16", torch.device("cpu")):
            if own:
                loss = linear_cross_entropy(given, weight, bias, labels)
            else:
                logits = torch.nn.functional.linear(given, weight, bias).float()
                loss = cross_entropy(logits, labels, reduction="sum")
        loss.backward()
        assert loss.dtype == given.grad.dtype == torch.float32
        found.append((loss.detach(), given.grad))
    (loss, mine), (plain, theirs) = found
    torch.testing.assert_close(loss, plain, rtol=1e-5, atol=0)
    torch.testing.assert_close(mine, theirs, rtol=2e-2, atol=2e-2)
    assert float(loss.detach()) == pytest.approx(float(exact), rel=1e-2)
    torch.testing.assert_close(mine, slope.float(), rtol=0.1, atol=0.05)


def test_states_in_bf16_get_a_gradient_in_bf16() -> None:
    states, weight, bias, labels = some(dtype=torch.bfloat16)
    half = states.bfloat16().requires_grad_()
    linear_cross_entropy(half, weight, bias, labels).backward()
    assert half.grad is not None and half.grad.dtype == torch.bfloat16
    wanted = by_hand(states.bfloat16(), weight, bias, labels)[1]
    torch.testing.assert_close(half.grad.float(), wanted.float(), rtol=0.1, atol=0.05)


@pytest.mark.parametrize("trained", ["weight", "bias"])
def test_a_matrix_that_is_trained_is_refused(trained: str) -> None:
    states, weight, bias, labels = some()
    {"weight": weight, "bias": bias}[trained].requires_grad_()
    with pytest.raises(ValueError, match="not frozen"):
        linear_cross_entropy(states, weight, bias, labels)


@pytest.mark.parametrize("room", ROOMS)
def test_no_more_logits_are_there_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    sizes: list[int] = []

    def spy(
        states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        found = torch.nn.functional.linear(states, weight, bias)
        # Of logits; products of the backward pass have no bias.
        sizes.extend([] if bias is None else [found.shape[1]])
        return found

    monkeypatch.setattr(softmax, "MOST", room)
    monkeypatch.setattr(softmax, "linear", spy)
    states, weight, bias, labels = some()
    linear_cross_entropy(states.requires_grad_(), weight, bias, labels).backward()
    one = 4 * POSITIONS
    assert sum(sizes) == PIECES and all(n * one <= max(room, one) for n in sizes)
    # And no smaller parts than must be.
    assert len(sizes) == -(-PIECES // max(1, min(room // one, PIECES)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sure", [2.0, 8.0, 16.0])
def test_what_is_nearly_certain_keeps_its_digits(sure: float, dtype: torch.dtype) -> None:
    """Loss and gradient are then small, and not differences of what is large."""
    states, weight, bias, labels = some(scale=0.1, dtype=dtype)
    bias[labels] += sure
    wanted, slope = by_hand(states.to(dtype), weight, bias, labels)
    states.requires_grad_()
    loss = linear_cross_entropy(states, weight, bias, labels)
    loss.backward()
    near = 1e-5 if dtype == torch.float32 else 3e-2
    assert float(loss.detach()) == pytest.approx(float(wanted), rel=near)
    assert float((states.grad - slope).norm() / slope.norm()) < near


def test_nothing_as_large_as_all_logits_is_ever_made(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    most = 0

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal most
            found = function(*args, **(kwargs or {}))
            if isinstance(found, torch.Tensor):
                most = max(most, found.numel() * found.element_size())
            return found

    monkeypatch.setattr(softmax, "MOST", 5 * ONE)
    states, weight, bias, labels = some()
    with Sizes():
        linear_cross_entropy(states.requires_grad_(), weight, bias, labels).backward()
    # The matrix itself is larger than the logits of five positions.
    assert 4 * ONE <= most <= max(5 * ONE, weight.numel() * 4) < POSITIONS * ONE


# --- among the pieces of a text ------------------------------------------------------------------


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return Backbone(tiny_backbone)


def text(backbone: Backbone) -> Encoded:
    return encode_text(backbone.tokenizer, lab.text("lab-far-low")[:12], 40)


def windows(data: Encoded) -> list[Window]:
    return [window for row in data.rows for window in row]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_loss_is_over_the_columns_of_the_pieces(backbone: Backbone, precision: str) -> None:
    backbone.reset()
    data = text(backbone)
    pieces = pieces_of([data])
    assert len(pieces) < backbone.model.config.vocab_size / 2
    masking, criterion = masked_lm(backbone, 0.15, precision, pieces)
    some = masking.apply(windows(data), 3)
    labels = torch.tensor([label for window in some for label in window.labels])
    rows = [(window,) for window in some]
    batch = backbone.batch(some)
    assert torch.equal(batch.labels, labels) and criterion.terms(rows) == ITEMS.terms(rows)
    with torch.no_grad(), amp(precision, backbone.device):
        states = backbone.lm_states(backbone.scored(batch)).float()
        logits = backbone.lm_logits(backbone.scored(batch)).float()
        found = criterion.loss(states, batch.labels, rows)
    column = {piece: n for n, piece in enumerate(pieces.tolist())}
    gold = torch.tensor([column[label] for label in labels.tolist()])
    wanted = cross_entropy(logits[:, pieces], gold, reduction="sum")
    torch.testing.assert_close(found, wanted, rtol=1e-5 if precision == "fp32" else 1e-3, atol=0)
    whole = cross_entropy(logits, labels, reduction="sum")
    assert float(whole) > float(wanted) + 1
    _, plain = masked_lm(backbone, 0.15, precision)
    close = plain.loss(states, batch.labels, rows)
    torch.testing.assert_close(close, whole, rtol=1e-5 if precision == "fp32" else 1e-3, atol=0)
    backbone.reset()


def test_masks_put_in_nothing_but_pieces_of_the_text(backbone: Backbone) -> None:
    data = text(backbone)
    pieces = set(pieces_of([data]).tolist())
    special = set(backbone.tokenizer.all_special_ids)
    # Often, so that there are many random replacements.
    own, _ = masked_lm(backbone, 0.9, "fp32", pieces_of([data]))
    plain, _ = masked_lm(backbone, 0.9, "fp32")

    def put_in(masking: Masking) -> set[int]:
        found = set()
        for seed in range(30):
            masked = masking.apply(windows(data), seed)
            for before, after in zip(windows(data), masked, strict=True):
                pairs = zip(before.ids, after.ids, strict=True)
                found |= {new for old, new in pairs if new not in (old, masking.mask_id)}
        return found

    few, many = put_in(own), put_in(plain)
    assert few == pieces - special and len(many - pieces) > 100
    assert not many & special
    # Which positions are hidden, and how, does not depend on it.
    for one, other in zip(own.apply(windows(data), 1), plain.apply(windows(data), 1), strict=True):
        assert (one.positions, one.labels) == (other.positions, other.labels)
        hidden = [[i == own.mask_id for i in window.ids] for window in (one, other)]
        assert hidden[0] == hidden[1]


def test_pieces_of_splits_are_all_of_theirs_once() -> None:
    some = [Encoded([(Window([7, 3, 3], [], [], []), Window([9], [], [], [])), ()]), Encoded([])]
    assert pieces_of([*some, Encoded([(Window([3, 1], [], [], []),)])]).tolist() == [1, 3, 7, 9]


@pytest.mark.parametrize("shortcut", [False, True])
def test_a_language_adapter_learns_as_with_the_logits(backbone: Backbone, shortcut: bool) -> None:
    """Trained by this loss, and by torch's over the logits of the library's own head."""
    spec = {"method": "seq_bn_inv", "reduction_factor": 2.0, "non_linearity": "relu"}
    budget = {
        "steps": 6, "batch": 5, "lr": 1e-2, "schedule": "linear", "warmup": 0.25,
        "weight_decay": 0.05, "clip": 1.0,
    }  # fmt: skip
    data = text(backbone)
    pieces = pieces_of([data]) if shortcut else None
    columns = pieces if pieces is not None else torch.arange(len(backbone.tokenizer))
    number = torch.full((len(backbone.tokenizer),), -1)
    number[columns] = torch.arange(len(columns))

    def plainly(states: torch.Tensor) -> torch.Tensor:
        head = backbone.model.heads["default"]
        inverse = backbone.model.base_model.get_invertible_adapter()
        for layer in list(head)[:-1]:
            states = layer(states)
        return head[-1](inverse(states[None], rev=True)[0])[:, columns]

    found = []
    for own in (True, False):
        backbone.reset()
        backbone.add_adapter("l", spec, seed=3)
        masking, criterion = masked_lm(backbone, 0.15, "fp32", pieces)
        how: dict[str, Any] = {"logits": backbone.lm_states, "criterion": criterion}
        if not own:
            loss = lambda outputs, labels, rows: cross_entropy(  # noqa: E731
                outputs, number[labels], reduction="sum"
            )
            how = {"logits": plainly, "criterion": type(criterion)(loss, ITEMS.terms)}
        order = Order(len(data.rows), 5, 1, "text")
        stream = Stream("text", data, order, (("l",),), masking=masking, **how)
        outcome = train(backbone, backbone.trainable(["l"]), [stream], budget, seed=5)
        found.append((outcome, backbone.weights("l")))
    (outcome, weights), (other, wanted) = found
    assert [step for step, _ in outcome.losses] == [1, 2, 3, 4, 5, 6]
    for (_, one), (_, two) in zip(outcome.losses, other.losses, strict=True):
        assert one == pytest.approx(two, abs=1e-5)
    for name, tensor in wanted.items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=2e-5)
    backbone.reset()
