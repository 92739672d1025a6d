"""Shares, mixup and surgery as pure functions, against formulas written out and known laws."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from torch.nn.functional import cross_entropy

from adapterxlt.compute.objectives import (
    deconflict,
    draw_partners,
    mixup_loss,
    mixup_pairs,
    shares,
)

NUMBERS = st.lists(st.integers(1, 50), min_size=1, max_size=5)


@given(NUMBERS, st.data())
def test_shares_are_those_of_the_formulas(weights: list[int], data: st.DataObject) -> None:
    size = len(weights)
    counts = data.draw(st.lists(st.integers(1, 90), min_size=size, max_size=size))
    macro = [Fraction(w, sum(weights)) for w in weights]
    items = sum(w * n for w, n in zip(weights, counts, strict=True))
    micro = [Fraction(w * n, items) for w, n in zip(weights, counts, strict=True)]
    assert shares("macro", weights, counts) == pytest.approx([float(f) for f in macro])
    assert shares("surgery", weights, counts) == pytest.approx([float(f) for f in macro])
    assert shares("micro", weights, counts) == pytest.approx([float(f) for f in micro])
    assert shares("micro", weights, [7] * size) == pytest.approx([float(f) for f in macro])


def test_no_scored_item_is_no_division_by_zero() -> None:
    assert shares("micro", [1.0, 2.0], [0, 0]) == [0.0, 0.0]
    assert shares("micro", [1.0, 2.0], [0, 5]) == [0.0, 1.0]


def sides(left: int, right: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(left * 100 + right)
    states = [torch.randn(n, 6, generator=generator, requires_grad=True) for n in (left, right)]
    labels = [torch.randint(4, (n,), generator=generator) for n in (left, right)]
    return states[0], labels[0], states[1], labels[1]


def test_mixup_with_all_weight_on_the_source_is_the_loss_of_the_source() -> None:
    head = torch.nn.Linear(6, 4)
    left, left_labels, right, right_labels = sides(9, 9)
    identity = torch.arange(9)[:, None].expand(9, 2)
    loss = mixup_loss(head, left, left_labels, right, right_labels, identity, torch.ones(9))
    plain = cross_entropy(head(left), left_labels)
    torch.testing.assert_close(loss, plain, rtol=1e-6, atol=0.0)
    (wanted,) = torch.autograd.grad(plain, left)
    mine, theirs = torch.autograd.grad(loss, (left, right))
    torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-8)
    assert torch.equal(theirs, torch.zeros_like(right))


def test_mixup_is_the_cross_entropy_of_soft_labels() -> None:
    head = torch.nn.Linear(6, 4)
    left, left_labels, right, right_labels = sides(5, 11)
    pairs, lam = mixup_pairs(5, 11, seed=3)
    loss = mixup_loss(head, left, left_labels, right, right_labels, pairs, lam)
    wanted = 0.0
    for (i, j), share in zip(pairs.tolist(), lam.tolist(), strict=True):
        logits = (share * left[i] + (1 - share) * right[j]) @ head.weight.T + head.bias
        soft = torch.zeros(4)
        soft[left_labels[i]] += share
        soft[right_labels[j]] += 1 - share
        wanted = wanted - (soft * torch.log_softmax(logits, 0)).sum() / len(pairs)
    torch.testing.assert_close(loss, wanted)
    swapped = mixup_loss(head, right, right_labels, left, left_labels, pairs.flip(1), 1 - lam)
    torch.testing.assert_close(loss, swapped)


def test_the_head_is_applied_after_mixing() -> None:
    left, left_labels, right, right_labels = sides(4, 4)
    seen = []

    def head(states: torch.Tensor) -> torch.Tensor:
        seen.append(states)
        return states[:, :4] ** 3

    pairs, lam = mixup_pairs(4, 4, seed=1)
    mixup_loss(head, left, left_labels, right, right_labels, pairs, lam)
    (mixed,) = seen
    for row, (i, j), share in zip(mixed, pairs.tolist(), lam.tolist(), strict=True):
        torch.testing.assert_close(row, share * left[i] + (1 - share) * right[j])


def test_coefficients_are_of_the_beta_distribution_one_for_each_pair() -> None:
    _, lam = mixup_pairs(20_000, 10, seed=11)
    assert len(lam.unique()) > 15_000
    assert stats.kstest(lam.double().numpy(), stats.beta(0.4, 0.4).cdf).pvalue > 1e-4
    assert stats.kstest(lam.double().numpy(), stats.beta(0.5, 0.5).cdf).pvalue < 1e-6


@pytest.mark.parametrize(("left", "right"), [(3, 9000), (9000, 3), (9000, 9000)])
def test_pairs_are_uniform_with_replacement_as_many_as_the_larger_side(
    left: int, right: int
) -> None:
    pairs, lam = mixup_pairs(left, right, seed=5)
    assert pairs.shape == (9000, 2) and lam.shape == (9000,)
    for column, size in zip(pairs.T, (left, right), strict=True):
        counts = np.bincount(column.numpy(), minlength=size)
        assert len(counts) == size
        if size == 3:
            assert stats.chisquare(counts).pvalue > 1e-4
        else:
            # Of n draws with replacement from n items, 1/e of the items are never drawn.
            assert (counts == 0).mean() == pytest.approx(np.exp(-1), abs=0.02)


def test_pairs_are_a_function_of_the_seed() -> None:
    first, again, other = (mixup_pairs(7, 50, seed) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0]) and not torch.equal(first[1], other[1])


VECTORS = st.integers(1, 6).flatmap(
    lambda size: st.lists(
        st.lists(st.floats(-1e4, 1e4, width=32), min_size=size, max_size=size),
        min_size=2,
        max_size=4,
    )
)


@given(VECTORS, st.integers(0, 10**6))
def test_surgery_leaves_no_conflict_with_the_drawn_gradient(
    rows: list[list[float]], seed: int
) -> None:
    gradients = [torch.tensor(row) for row in rows]
    partners = draw_partners(len(rows), seed, 0)
    before = [gradient.clone() for gradient in gradients]
    result = deconflict(gradients, partners)
    for i, partner in enumerate(partners):
        mine, other = np.array(rows[i]), np.array(rows[partner])
        wanted = mine - min(mine @ other, 0.0) / ((other @ other) or 1.0) * other
        scale = np.linalg.norm(mine) * np.linalg.norm(other)
        assert float(result[i].double() @ gradients[partner].double()) >= -1e-6 * scale
        np.testing.assert_allclose(
            result[i].numpy(), wanted, rtol=1e-5, atol=1e-6 * abs(mine).max()
        )
        if mine @ other >= 0:
            assert torch.equal(result[i], gradients[i])
    assert all(torch.equal(a, b) for a, b in zip(gradients, before, strict=True))


@given(st.floats(1e-30, 1e-10))
def test_surgery_sees_small_conflicts(scale: float) -> None:
    left, right = torch.tensor([-1.0, 1.0]) * scale, torch.tensor([1.0, 0.0]) * scale
    assume(float(right[0]) > 0)
    result = deconflict([left, right], [1, 0])
    torch.testing.assert_close(result[0] / scale, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(result[1] / scale, torch.tensor([0.5, 0.5]))


def test_partners_are_others_drawn_uniformly_and_anew_each_step() -> None:
    drawn = np.array([draw_partners(4, 9, step) for step in range(3000)])
    for i in range(4):
        counts = np.bincount(drawn[:, i], minlength=4)
        assert counts[i] == 0
        assert stats.chisquare(np.delete(counts, i)).pvalue > 1e-4
    assert draw_partners(4, 9, 1) == drawn[1].tolist()
    assert not np.array_equal(drawn, [draw_partners(4, 8, step) for step in range(3000)])
    assert draw_partners(2, 1, 1) == [1, 0]
