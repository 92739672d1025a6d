"""States that come out of layers which training leaves as they are, remembered by window.

The lowest layers of a phase, up to the first with something to train, give the same states for a
window every time, as long as nothing in them is drawn. Windows are known by their sub-words, and
what they went through by a name; several stages may share one memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch

from adapterxlt.compute.data import Batch, alone

if TYPE_CHECKING:
    from adapterxlt.compute.backbone import Backbone

Lowermost = Callable[[Batch, int], torch.Tensor]


@dataclass
class Memory:
    """States (length, hidden) by what gave them and by sub-words, fp32, on the CPU; ``most`` bytes.

    What finds no room is not kept: phases go through their rows in turn, so that throwing out the
    oldest would keep nothing.
    """

    most: int = 2 << 30
    held: int = 0
    known: dict[str, dict[bytes, torch.Tensor]] = field(default_factory=dict)

    def add(self, name: str, window: bytes, states: torch.Tensor) -> None:
        """Keep a window's states where there is room."""
        size = states.numel() * states.element_size()
        if self.held + size <= self.most:
            self.known.setdefault(name, {})[window] = states
            self.held += size

    def leave_only(self, names: set[str]) -> None:
        """Forget what went through anything else, once half of the room is taken."""
        if self.held * 2 < self.most:
            return
        self.known = {name: states for name, states in self.known.items() if name in names}
        kept = (one for states in self.known.values() for one in states.values())
        self.held = sum(one.numel() * one.element_size() for one in kept)


class Known(Protocol):
    """States that come out of the lowest ``depth`` layers, for the windows of a batch."""

    @property
    def depth(self) -> int: ...
    def states(self, batch: Batch, lowest: Lowermost) -> torch.Tensor: ...


@dataclass(frozen=True)
class Remembered:
    """The output of the lowest ``depth`` layers under what is active, whose name this is."""

    memory: Memory
    name: str
    depth: int

    def states(self, batch: Batch, lowest: Lowermost) -> torch.Tensor:
        """States (rows, length, hidden) that come out of the layers, zero at padding.

        What is not known is computed, without gradients, and kept where there is room. Each window
        goes through alone: what it gives depends neither on what stood beside it when it was first
        seen nor on what is remembered, so that a run that goes on ends in the same bits.
        """
        known = self.memory.known.get(self.name, {})
        parts = []
        for pieces, (row, begin, end) in zip(batch.pieces(), batch.spots, strict=True):
            window = pieces.tobytes()
            if window in known:
                parts.append(known[window].to(batch.ids.device))
                continue
            # What is kept may be trained above later.
            with torch.inference_mode(False), torch.no_grad():
                found = lowest(alone(batch.ids[row, begin:end]), self.depth).float()[0]
            self.memory.add(self.name, window, found.cpu())
            known = self.memory.known.get(self.name, {})
            parts.append(found)
        states = parts[0].new_zeros((*batch.ids.shape, parts[0].shape[-1]))
        for part, (row, begin, end) in zip(parts, batch.spots, strict=True):
            states[row, begin:end] = part
        return states


def free_layers(backbone: Backbone, own: Set[str]) -> int:
    """How many of the lowest layers have nothing of these names that acts in them."""
    return max(0, min([backbone.layers, *(layer for _, layer, _ in backbone.acting(own))]))


def below(backbone: Backbone, memory: Memory, own: Set[str]) -> Remembered | None:
    """The lowest layers in which nothing of ``own`` acts, under what is active; nothing where there
    is none such, where something is drawn in them, or where a window's states are not its own.
    """
    depth = free_layers(backbone, own)
    if depth == 0 or not backbone.apart or backbone.trunk.draws(depth):
        return None
    through = hashlib.sha256(f"{depth} {backbone.halved}".encode())
    for name, spec in backbone.worn.items():
        found = [(n, p) for n, layer, p in backbone.acting([name]) if layer < depth]
        if name in own or not found:
            continue
        # Of equal weights another activation or scale makes other states.
        through.update(repr(sorted((spec or {}).items())).encode())
        for n, parameter in found:
            through.update(n.encode() + parameter.detach().cpu().numpy().tobytes())
    return Remembered(memory, through.hexdigest(), depth)
