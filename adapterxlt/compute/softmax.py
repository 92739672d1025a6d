"""Cross-entropy over a vocabulary without the logits of a whole batch in memory.

The gradient is made along with the loss, a few positions at a time: of a quarter of a million
pieces, the logits of one batch and what is made from them would take gigabytes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import linear

#: Bytes of logits that are in memory at once.
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
        size = max(1, MOST // (4 * len(weight)))
        gradient = torch.empty_like(states)
        total = states.new_zeros((), dtype=torch.float32)
        with torch.autocast(states.device.type, enabled=False):
            for start in range(0, len(states), size):
                part = slice(start, start + size)
                logits = linear(states[part].to(weight.dtype), weight, bias).float()
                gold = labels[part, None]
                highest = logits.amax(-1, keepdim=True)
                chosen = logits.gather(1, gold) - highest
                logits.sub_(highest).exp_()
                sums = logits.sum(-1, keepdim=True)
                total += (sums.log() - chosen).sum()
                logits.div_(sums).scatter_add_(1, gold, -torch.ones_like(chosen))
                gradient[part] = (logits.to(weight.dtype) @ weight).to(states.dtype)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0], None, None, None
