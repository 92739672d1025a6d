"""The seed of torch's own generators, from which initialization and adapters' dropout draw."""

from __future__ import annotations

import torch


def seed_draws(seed: int, device: torch.device) -> None:
    """As `torch.manual_seed`, which also writes down where it was called from for devices that are
    not there: a millisecond each time."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)
