"""Products of fp32 states with frozen matrices on a CPU, by the faster library of those torch has.

torch asks MKL for them, which takes twice as long as oneDNN on AMD's processors. Both are exact to
rounding; which one is asked depends on the processor's maker alone.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

#: Multiplications of a product that oneDNN is asked for: it takes half a millisecond to get ready
#: for a shape, in which MKL does two or three as large as this.
LEAST = 1 << 24


@cache
def by_onednn() -> bool:
    """Whether oneDNN is there and the faster one here."""
    made_by = platform.processor()
    with suppress(OSError):
        made_by += Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return there and "AuthenticAMD" in made_by


def linear(
    states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """As torch's ``linear``, of (..., inner) and (outer, inner); no gradient is kept."""
    plain = states.device.type == "cpu" and states.dtype == weight.dtype == torch.float32
    if not (plain and by_onednn() and states.numel() * len(weight) >= LEAST):
        return states @ weight.T if bias is None else functional.linear(states, weight, bias)
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
    return found


def freeze(model: torch.nn.Module) -> None:
    """Have the matrices of a model on the CPU, which are never trained, multiplied as `linear`
    does it. Their values stay where they are."""
    if not by_onednn():
        return
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            own = module.weight.detach()
            module._parameters["weight"] = torch.Tensor._make_subclass(_Frozen, own, False)


class _Frozen(torch.nn.Parameter):  # type: ignore[misc]
    """A matrix of fp32 that knows how it is multiplied, and is like any other in all else."""

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            if func is functional.linear and not given and cls._plain(*args[:2]):
                return _Linear.apply(*args, *[None] * (3 - len(args)))
            return func(*args, **given)

    @staticmethod
    def _plain(states: torch.Tensor, weight: torch.Tensor) -> bool:
        mixed = torch.is_autocast_enabled(states.device.type)
        return isinstance(weight, _Frozen) and not (weight.requires_grad or mixed)


class _Linear(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return linear(states, weight, bias)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,), (weight,) = upstream, ctx.saved_tensors
        of_states, _, of_bias = ctx.needs_input_grad
        with torch._C.DisableTorchFunctionSubclass():
            return (
                linear(gradient, weight.t()) if of_states else None,
                None,
                gradient.flatten(0, -2).sum(0) if of_bias else None,
            )
