"""Products with frozen matrices: both libraries give the same, and a frozen matrix is a matrix."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from adapterxlt.compute import products
from adapterxlt.compute.backbone import Backbone

THERE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
onednn = pytest.mark.skipif(not THERE, reason="torch has no oneDNN here")
IDS = torch.tensor([[0, 9, 17, 30, 4, 2], [0, 12, 8, 5, 2, 1]])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Has oneDNN asked for products, whatever processor this is; the shapes of their matrices."""
    shapes: list[tuple[int, ...]] = []
    by = torch.ops.mkldnn._linear_pointwise

    class Counted:
        @staticmethod
        def _linear_pointwise(states: torch.Tensor, weight: torch.Tensor, *more: object) -> object:
            shapes.append(tuple(weight.shape))
            return by(states, weight, *more)

    monkeypatch.setattr(products, "by_onednn", lambda: True)
    monkeypatch.setattr(products, "LEAST", 1)
    monkeypatch.setattr(torch.ops, "mkldnn", Counted)
    return shapes


def layer(inner: int = 24, outer: int = 40) -> torch.nn.Linear:
    torch.manual_seed(3)
    return torch.nn.Linear(inner, outer)


@onednn
@pytest.mark.parametrize("shape", [(5, 24), (2, 7, 24), (1, 1, 24), (0, 24)], ids=str)
def test_a_frozen_matrix_has_the_products_and_gradients_of_any(
    asked: list[tuple[int, ...]], shape: tuple[int, ...]
) -> None:
    plain, frozen = layer(), layer()
    products.freeze(frozen)
    states = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = []
    for module in (plain, frozen):
        mine = states.clone().requires_grad_()
        given = module(mine)
        (given.sin() * torch.arange(40)).sum().backward()
        found.append((given.detach(), mine.grad, module.bias.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert asked == ([(40, 24), (24, 40)] if states.numel() else [])
    assert frozen.weight.grad is None and type(given) is torch.Tensor


@onednn
def test_small_products_are_not_worth_it(
    asked: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "LEAST", 5 * 24 * 40)
    weight = torch.ones(40, 24)
    products.linear(torch.ones(4, 24), weight)
    assert asked == []
    products.linear(torch.ones(5, 24), weight)
    assert asked == [(40, 24)]


@onednn
def test_no_gradient_is_made_that_nobody_asks_for(asked: list[tuple[int, ...]]) -> None:
    frozen = layer().requires_grad_(False)
    products.freeze(frozen)
    with torch.inference_mode():
        frozen(torch.ones(3, 24))
    assert not frozen(torch.ones(3, 24)).requires_grad
    assert asked == [(40, 24)] * 2


@onednn
def test_a_frozen_matrix_is_like_any_other_in_all_else(asked: list[tuple[int, ...]]) -> None:
    plain, frozen = layer(), layer()
    where = frozen.weight.data_ptr()
    products.freeze(frozen)
    weight = frozen.weight
    assert weight.data_ptr() == where and not weight.requires_grad
    assert isinstance(weight, torch.nn.Parameter)
    assert [name for name, _ in frozen.named_parameters()] == ["weight", "bias"]
    assert torch.equal(weight, plain.weight) and type(weight + 1) is torch.Tensor
    assert torch.equal(weight.norm(dim=1), plain.weight.norm(dim=1))
    states = torch.randn(3, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(frozen(states), plain(states)) and frozen(states).dtype == torch.bfloat16
    assert asked == []
    weight.requires_grad_(True)
    frozen(states).sum().backward()
    assert weight.grad is not None and asked == []


@onednn
def test_a_backbone_gives_the_same_states(
    tiny_backbone: Path, asked: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_onednn = Backbone(tiny_backbone)
    found = by_onednn.hidden(IDS, (IDS != 1).long())
    assert len(asked) == 6 * by_onednn.layers
    monkeypatch.setattr(products, "by_onednn", lambda: False)
    plain = Backbone(tiny_backbone)
    torch.testing.assert_close(found, plain.hidden(IDS, (IDS != 1).long()), rtol=1e-4, atol=1e-5)
    assert by_onednn.digest() == plain.digest()
    by_onednn.add_adapter("a", {"method": "seq_bn"})
    by_onednn.compute_in("bf16")
    by_onednn.reset()
    assert len(asked) == 6 * by_onednn.layers
    by_onednn.hidden(IDS, (IDS != 1).long())
    assert len(asked) == 6 * by_onednn.layers  # it no longer is the faster one


@pytest.fixture
def forgotten() -> Iterator[Callable[[], bool]]:
    products.by_onednn.cache_clear()
    yield products.by_onednn
    products.by_onednn.cache_clear()


@pytest.mark.parametrize(
    ("processor", "info", "there", "wanted"),
    [
        ("x86_64", "vendor_id\t: AuthenticAMD\n", True, True),
        ("x86_64", "vendor_id\t: GenuineIntel\n", True, False),
        ("AMD64 Family 25 Model 33 Stepping 0, AuthenticAMD", None, True, True),
        ("arm", None, True, False),
        ("x86_64", "vendor_id\t: AuthenticAMD\n", False, False),
    ],
)
def test_the_processor_decides(
    forgotten: Callable[[], bool],
    monkeypatch: pytest.MonkeyPatch,
    processor: str,
    info: str | None,
    there: bool,
    wanted: bool,
) -> None:
    def read(path: Path, **how: object) -> str:
        if info is None:
            raise FileNotFoundError(path)
        return info

    monkeypatch.setattr(platform, "processor", lambda: processor)
    monkeypatch.setattr(Path, "read_text", read)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: there)
    assert forgotten() is (wanted and (THERE or not there))
