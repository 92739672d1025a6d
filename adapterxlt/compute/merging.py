"""Arithmetic on adapters and heads: averages and weighted sums of their tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch


def weighted(
    members: Sequence[Mapping[str, torch.Tensor]], weights: Sequence[float]
) -> dict[str, torch.Tensor]:
    """The weighted sum of equally named tensors, summed in double precision.

    One member of weight 1 comes back as it is. Raises ``ValueError`` where names or shapes differ.
    """
    first = members[0]
    shapes = {name: tensor.shape for name, tensor in first.items()}
    for other in members[1:]:
        if {name: tensor.shape for name, tensor in other.items()} != shapes:
            raise ValueError("only adapters of one form can be merged")
    result = {}
    for name, tensor in first.items():
        total = sum(w * m[name].double() for m, w in zip(members, weights, strict=True))
        assert isinstance(total, torch.Tensor)
        result[name] = total.to(tensor.dtype)
    return result
