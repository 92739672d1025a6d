"""What stands in the places of the encoder's own parameters, which are never trained or changed.

The method `full` trains copies; in mixed precision the frozen matrices are halves. A stand-in is
put where the encoder's module looks for its parameter, and the own one is put back after it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch


class StandIns:
    """The encoder's own parameters by place, without the pooler's, and what stands in for them.

    Args:
        encoder: a model of transformers without heads.
    """

    def __init__(self, encoder: torch.nn.Module) -> None:
        self._places = {
            f"{path}.{name}" if path else name: (module, name)
            for path, module in encoder.named_modules()
            for name in module._parameters
            if module._parameters[name] is not None and not path.startswith("pooler")
        }
        self._own: dict[str, Any] = {
            place: module._parameters[name] for place, (module, name) in self._places.items()
        }
        self._halves: dict[str, torch.nn.Parameter] = {}
        self.copies: dict[str, dict[str, torch.nn.Parameter]] = {}
        """By the name of an adapter of `full`, and by place."""

    def copy(self, name: str, device: torch.device) -> None:
        """Copy all parameters for an adapter."""
        self.copies[name] = {
            place: torch.nn.Parameter(own.detach().to(device, copy=True), requires_grad=False)
            for place, own in self._own.items()
        }

    def put(self, names: Iterable[str], *, halved: bool, but: Collection[str] = ()) -> None:
        """Put the copies of the first of these adapters that has some in their places, and halves
        in those of the other matrices.

        Args:
            but: places of modules whose matrices stay, since their values are looked at.
        """
        instead = self._halved(but) if halved else {}
        copies = next((self.copies[name] for name in names if name in self.copies), {})
        instead.update(copies)
        for place, (module, name) in self._places.items():
            module._parameters[name] = instead.get(place, self._own[place])

    def _halved(self, but: Collection[str]) -> dict[str, torch.nn.Parameter]:
        """The matrices in bf16."""
        if not self._halves:
            for place, (module, _) in self._places.items():
                if isinstance(module, torch.nn.Linear):
                    cast = self._own[place].detach().to(torch.bfloat16)
                    self._halves[place] = torch.nn.Parameter(cast, requires_grad=False)
        return {at: half for at, half in self._halves.items() if at.rpartition(".")[0] not in but}
