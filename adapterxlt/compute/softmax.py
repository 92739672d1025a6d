"""Cross-entropy over a vocabulary without its logits in memory.

The gradient is made along with the loss, in one pass over the output matrix, a few thousand pieces
at a time: of a quarter of a million pieces, the logits of one batch and what is made from them
would take gigabytes, and the matrix is too large to be read for a few positions at a time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import softplus

from adapterxlt.compute.products import linear

#: Pieces whose logits are in memory at once: so many that products are as fast as of all, so few
#: that what is made of them stays in a processor's cache.
PIECES = 4096
#: Bytes of logits that are in memory at once, whatever number of positions there is.
MOST = 64 << 20


def linear_cross_entropy(
    states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Summed cross-entropy of ``linear(states, weight, bias)`` and labels.

    The matrix is frozen; products are in its type, the softmax is in fp32.

    Args:
        states: (positions, hidden).
        weight: (pieces, hidden).
        bias: (pieces,).
        labels: (positions,), indices of pieces.
    """
    if weight.requires_grad or bias.requires_grad:
        raise ValueError("the output matrix is not frozen")
    total: torch.Tensor = _LinearCrossEntropy.apply(states, weight, bias, labels)
    return total


class _LinearCrossEntropy(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        labels: torch.Tensor,
    ) -> torch.Tensor:
        # Each piece but the right one adds to sums that are relative to the highest logit so far;
        # of loss and gradient the right one's part stands apart, so that neither is a small
        # difference of large numbers.
        size = max(1, min(PIECES, MOST // (4 * max(1, len(states)))))
        wide, inner = states.new_zeros(states.shape, dtype=torch.float32), states.to(weight.dtype)
        sums, right = wide.new_zeros((2, len(states), 1))
        highest = torch.full_like(sums, torch.finfo(torch.float32).min)
        with torch.autocast(states.device.type, enabled=False):
            for start in range(0, len(weight), size):
                part = weight[start : start + size]
                logits = linear(inner, part, bias[start : start + size]).float()
                place = labels[:, None] - start
                inside = (place >= 0) & (place < len(part))
                place = place.clamp(0, len(part) - 1)
                found = logits.gather(1, place)
                right = torch.where(inside, found, right)
                logits.scatter_(1, place, torch.where(inside, -torch.inf, found))
                before, highest = highest, torch.maximum(highest, logits.amax(-1, keepdim=True))
                shrink = (before - highest).exp_()
                logits.sub_(highest).exp_()
                sums.mul_(shrink).add_(logits.sum(-1, keepdim=True))
                wide.mul_(shrink).add_(linear(logits.to(weight.dtype), part.T))
            # The odds of all others against the right one.
            odds = sums.log() + highest - right
            others = wide.div_(sums.clamp_min_(torch.finfo(torch.float32).tiny))
            gradient = others.sub_(weight[labels]).mul_(odds.sigmoid()).to(states.dtype)
            total = softplus(odds).sum()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0], None, None, None
