"""Several processes that train one stage, as `accelerate launch` and `torchrun` start them.

Each goes through a share of every batch's rows; gradients are summed, so that all of them make the
same step. A process by itself is the only rank there is.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable
from datetime import timedelta
from functools import lru_cache
from typing import Any

import torch


class Ranks:
    """Which process this is, and what all of them know together.

    Args:
        state: `accelerate.PartialState`; ``None`` for a process by itself.
    """

    def __init__(self, state: Any = None) -> None:
        self.state = state
        self.count: int = state.num_processes if state is not None else 1
        self.number: int = state.process_index if state is not None else 0

    @property
    def first(self) -> bool:
        """Whether this is the process that publishes and reports."""
        return self.number == 0

    def mine(self, place: int) -> bool:
        """Whether a piece of work, counted over all of them, is this process's."""
        return place % self.count == self.number

    def agree(self, value: Any) -> Any:
        """The first process's value, in all of them."""
        if self.count == 1:
            return value
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]

    def sum(self, loss: float, parameters: Iterable[torch.nn.Parameter]) -> float:
        """Sum losses and gradients over the processes, in place; a parameter that none of them
        has touched stays without a gradient."""
        if self.count == 1:
            return loss
        from accelerate.utils import reduce

        every = list(parameters)
        facts = [loss, *(float(p.grad is not None) for p in every)]
        parts = [torch.tensor(facts, device=every[0].device)]
        parts += [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in every]
        total = reduce(torch.cat(parts), "sum")
        whole, *touches = total[: len(facts)].tolist()
        gradients = total[len(facts) :].split([p.numel() for p in every])
        for parameter, touched, gradient in zip(every, touches, gradients, strict=True):
            parameter.grad = gradient.view_as(parameter) if touched else None
        return float(whole)


@lru_cache(maxsize=2)
def ranks(device: str = "cpu") -> Ranks:
    """This process among those that were started together; alone where there is one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Ranks()
    from accelerate import PartialState

    # The others wait while the first evaluates.
    state = PartialState(cpu=device == "cpu", timeout=timedelta(days=7))
    # Its threads let go of tensors, for which they need an interpreter: a process that ends before
    # they do is aborted now and then.
    atexit.register(state.destroy_process_group)
    return Ranks(state)
