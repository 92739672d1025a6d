"""A frozen backbone: loading it, putting adapters and heads on it, taking their weights off.

No backbone weight is ever trained or changed. What is added goes by short names chosen by the
caller; stored tensors carry ``@`` in the place of the name, so results hold no labels.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# Set before transformers is imported: nothing here may ask a hub for anything.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import transformers
from adapters import AutoAdapterModel
from adapters.composition import Stack
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from adapterxlt.compute.methods import config_of
from adapterxlt.core.canon import derive
from adapterxlt.core.errors import StageError, UsageError

Tensors = dict[str, torch.Tensor]
LM_HEAD = "default"


class Backbone:
    """A backbone in memory. Between stages `reset` takes off everything that was added.

    Args:
        folder: configuration, safetensors weights and fast tokenizer, in transformers' format.
        device: where it computes, `cpu` or `cuda`.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.device = torch.device(device)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        # It warns that adapters are not active whenever the base model is called directly.
        logging.getLogger("adapters").setLevel(logging.ERROR)
        # The pooler is not in a masked LM's checkpoint and never used; its weights are drawn here.
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model: Any = AutoAdapterModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
        self.tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, use_fast=True
        )
        if not self.tokenizer.is_fast:
            raise UsageError("the tokenizer has no fast form", where=str(folder))
        if len(self.tokenizer) > self.model.config.vocab_size:
            what = f"{len(self.tokenizer)} pieces, but {self.model.config.vocab_size} embeddings"
            raise UsageError(f"tokenizer and weights do not match: {what}", where=str(folder))
        self.model.requires_grad_(False)
        self.model.to(self.device)
        self._own = [name for name, _ in self.model.named_parameters()]
        self._names: list[str] = []

    @property
    def hidden_size(self) -> int:
        return int(self.model.config.hidden_size)

    @property
    def max_length(self) -> int:
        """Longest sequence in sub-words; XLM-R counts positions from the padding index on."""
        config = self.model.config
        offset = config.pad_token_id + 1 if "roberta" in config.model_type else 0
        return int(config.max_position_embeddings) - offset

    def add_adapter(
        self, name: str, spec: Mapping[str, Any], *, seed: int = 0, weights: Tensors | None = None
    ) -> None:
        """Add an adapter, drawn from ``seed`` or with the given weights."""
        with torch.random.fork_rng():
            torch.manual_seed(derive(seed, "adapter"))
            self.model.add_adapter(name, config=config_of(spec))
        self._added(name, weights)

    def add_head(
        self, name: str, head: Mapping[str, Any], *, seed: int = 0, weights: Tensors | None = None
    ) -> None:
        """Add a linear head on the last layer: on every sub-word, or on the first one."""
        labels = dict(enumerate(head["labels"]))
        with torch.random.fork_rng():
            torch.manual_seed(derive(seed, "head"))
            if head["kind"] == "tagging":
                self.model.add_tagging_head(name, num_labels=len(labels), id2label=labels)
            else:
                self.model.add_classification_head(
                    name, num_labels=len(labels), layers=1, id2label=labels
                )
        self._added(name, weights)

    def _added(self, name: str, weights: Tensors | None) -> None:
        if name not in self._names:
            self._names.append(name)
        self.model.to(self.device)
        mine = self._parameters(name)
        for parameter in mine.values():
            parameter.requires_grad_(False)
        if weights is None:
            return
        wanted = {n: tuple(p.shape) for n, p in mine.items()}
        given = {n: tuple(tensor.shape) for n, tensor in weights.items()}
        if wanted != given:
            odd = sorted(n for n in wanted.keys() | given.keys() if wanted.get(n) != given.get(n))
            what = f"{odd[0]} is {given.get(odd[0], 'missing')}, not {wanted.get(odd[0], 'known')}"
            raise StageError(f"weights do not fit the adapter or head: {what}")
        with torch.no_grad():
            for n, parameter in mine.items():
                parameter.copy_(weights[n])

    def _parameters(self, name: str) -> dict[str, torch.nn.Parameter]:
        """Parameters of what goes by ``name``, under their neutral names."""
        found = {}
        for full, parameter in self.model.named_parameters():
            parts = full.split(".")
            if name in parts:
                found[".".join("@" if part == name else part for part in parts)] = parameter
        return found

    def weights(self, name: str) -> Tensors:
        """Copies of the weights that go by ``name``, under neutral names, on the CPU in fp32."""
        return {n: p.detach().cpu().clone() for n, p in self._parameters(name).items()}

    def trainable(self, names: Iterable[str]) -> dict[str, torch.nn.Parameter]:
        """Mark exactly these as trainable and return their parameters."""
        self.model.requires_grad_(False)
        chosen = {n: p for name in names for n, p in self._parameters(name).items()}
        for parameter in chosen.values():
            parameter.requires_grad_(True)
        return chosen

    def activate(self, stack: tuple[str, ...]) -> None:
        """Make a batch wear these adapters, lowest first; an empty stack is the bare backbone."""
        self.model.set_active_adapters(Stack(*stack) if stack else None)

    def hidden(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Last hidden states, shape (batch, length, hidden), under the active adapters."""
        return self.model.base_model(input_ids=ids, attention_mask=mask)[0]

    def head_logits(self, name: str, states: torch.Tensor) -> torch.Tensor:
        """Logits (positions, labels) of a head for hidden states (positions, hidden)."""
        return torch.nn.Sequential.forward(self.model.heads[name], states)

    def lm_logits(self, states: torch.Tensor) -> torch.Tensor:
        """Logits (positions, vocabulary) of the backbone's own masked-LM head.

        The inverse of the active invertible adapter stands before the output embedding
        (MAD-X, Pfeiffer et al. 2020, section 3.3.3).
        """
        head = self._lm_head()
        for layer in list(head)[:-1]:
            states = layer(states)
        inverse = self.model.base_model.get_invertible_adapter()
        if inverse is not None:
            # The library's coupling block wants (batch, length, hidden).
            states = inverse(states[None], rev=True)[0]
        return head[-1](states)

    def _lm_head(self) -> Any:
        head = dict(self.model.heads).get(LM_HEAD)
        if head is None or head.config["head_type"] != "masked_lm":
            raise StageError(
                "the backbone has no masked-LM head, which language adapters are trained with",
                hint="use a ...ForMaskedLM checkpoint, or language_adapters: null",
            )
        return head

    def reset(self) -> None:
        """Take off every adapter and head that was added; checks that nothing is left."""
        self.model.set_active_adapters(None)
        for name in self._names:
            if name in self.model.adapters_config:
                self.model.delete_adapter(name)
            if name in self.model.heads:
                self.model.delete_head(name)
        self._names.clear()
        self.model.requires_grad_(False)
        left = [name for name, _ in self.model.named_parameters()]
        if left != self._own:
            raise AssertionError(f"left on the backbone: {sorted(set(left) ^ set(self._own))}")

    def digest(self) -> str:
        """SHA-256 over the backbone's own weights, in order; equal before and after any stage."""
        sha = hashlib.sha256()
        own = dict(self.model.named_parameters())
        for name in self._own:
            sha.update(name.encode())
            sha.update(own[name].detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return sha.hexdigest()
