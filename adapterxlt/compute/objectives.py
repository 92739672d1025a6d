"""What a step minimizes, as pure functions of tensors and seeds: weights of losses, mixup, surgery.

Knows neither backbone nor streams; the training loop calls it. Nothing here keeps state: every
random choice is a function of the seed that is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from adapterxlt.core.canon import derive

ALPHA = 0.4
"""Both parameters of the Beta distribution of mixup's coefficient (Schmidt et al. 2022)."""


def shares(objective: str, weights: Sequence[float], counts: Sequence[int]) -> list[float]:
    """Factor of each batch's mean loss in the loss of the step; they add up to 1.

    Micro is the cross-entropy over the union of all scored items, ``sum(w n L) / sum(w n)`` for
    batches with weights w, counts of items n and mean losses L; every other objective is macro,
    ``sum(w L) / sum(w)``. Without any scored item micro's shares are 0.
    """
    sizes = list(weights)
    if objective == "micro":
        sizes = [weight * count for weight, count in zip(weights, counts, strict=True)]
    total = sum(sizes)
    return [size / total if total else 0.0 for size in sizes]


def mixup_pairs(left: int, right: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which of ``left`` and ``right`` items are mixed, and how: pairs (n, 2), coefficients (n,).

    Pairs are drawn with replacement, as many as the larger side has items. What is published fixes
    the distribution of the coefficient, Beta(0.4, 0.4), and not what shares a draw: here each pair
    has its own.
    """
    generator = np.random.default_rng(seed)
    count = max(left, right)
    sides = [generator.integers(size, size=count) for size in (left, right)]
    lam = generator.beta(ALPHA, ALPHA, size=count).astype(np.float32)
    return torch.from_numpy(np.stack(sides, axis=1)), torch.from_numpy(lam)


def mixup_loss(
    logits_of: Callable[[torch.Tensor], torch.Tensor],
    left_states: torch.Tensor,
    left_labels: torch.Tensor,
    right_states: torch.Tensor,
    right_labels: torch.Tensor,
    pairs: torch.Tensor,
    lam: torch.Tensor,
) -> torch.Tensor:
    """Mean loss of mixed hidden states (mixup on representations, Schmidt et al. 2022).

    Args:
        logits_of: the head, (n, hidden) to (n, labels); it sees mixed states only.
        left_states, right_states: (items of the side, hidden).
        left_labels, right_labels: (items of the side,).
        pairs: (n, 2), an item of the left and one of the right side.
        lam: (n,), the share of the left item in the mixed state, and of its label in the loss.
    """
    left, right = pairs.unbind(1)
    along = lam[:, None]
    logits = logits_of(along * left_states[left] + (1 - along) * right_states[right]).float()
    of_left = cross_entropy(logits, left_labels[left], reduction="none")
    of_right = cross_entropy(logits, right_labels[right], reduction="none")
    return (lam * of_left + (1 - lam) * of_right).mean()


def draw_partners(count: int, seed: int, step: int) -> list[int]:
    """For each of ``count`` gradients (at least two) another one, drawn uniformly."""
    drawn = [derive(seed, "surgery", step, i) % (count - 1) for i in range(count)]
    return [partner + (partner >= i) for i, partner in enumerate(drawn)]


def deconflict(gradients: Sequence[torch.Tensor], partners: Sequence[int]) -> list[torch.Tensor]:
    """Stochastic gradient surgery (Xu and Murray 2022) on flat gradients, each (parameters,).

    A gradient that has a negative dot product with its partner, as the partner was given, loses
    its projection on it; any other comes back as it is.
    """
    result = []
    for gradient, partner in zip(gradients, partners, strict=True):
        # Squares of small gradients vanish in fp32.
        mine, other = gradient.double(), gradients[partner].double()
        dot = mine @ other
        if dot < 0:
            gradient = (mine - dot / (other @ other) * other).to(gradient.dtype)
        result.append(gradient)
    return result
