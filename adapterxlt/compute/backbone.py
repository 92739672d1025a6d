"""A frozen backbone: loading it, putting adapters and heads on it, taking their weights off.

The backbone's own parameters are never trained or changed (see `stand_ins`). What is added goes by
short names chosen by the caller; stored tensors carry ``@`` in the place of the name, so results
hold no labels.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from adapters.composition import Fuse, Stack
from adapters.methods.bottleneck import BottleneckLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.nn.functional import linear

from adapterxlt.compute.data import Batch, Encoded, Window, collate, pieces_of
from adapterxlt.compute.loading import load, masked_head
from adapterxlt.compute.methods import config_of, inject, target_paths
from adapterxlt.compute.products import freeze
from adapterxlt.compute.randomness import seed_draws
from adapterxlt.compute.remembered import Known
from adapterxlt.compute.stand_ins import StandIns
from adapterxlt.compute.trunk import Trunk
from adapterxlt.core.canon import derive
from adapterxlt.core.errors import StageError
from adapterxlt.core.forms import Method
from adapterxlt.core.methods import METHODS, clash

Tensors = dict[str, torch.Tensor]
#: What a batch wears, lowest first: names, and tuples of names where AdapterFusion combines them.
Wearing = tuple[str | tuple[str, ...], ...]


def fusion_name(names: tuple[str, ...]) -> str:
    """What the fusion of these adapters goes by."""
    return ",".join(names)


class Backbone:
    """A backbone in memory. Between stages `reset` takes off everything that was added.

    Args:
        folder: configuration, safetensors weights and fast tokenizer, in transformers' format.
        device: where it computes, `cpu` or `cuda`.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.model: Any
        self.model, self.tokenizer = load(folder, self.device)
        self.trunk = Trunk(self.model)
        self.model.requires_grad_(False)
        if self.device.type != "cpu":
            self.trunk.stay(*(masked_head(self.model) or ())[-1:])
        self.model.to(self.device)
        if self.device.type == "cpu":
            freeze(self.model.base_model)
        self._own = dict(self.model.named_parameters())
        self._modules = dict(self.model.named_modules())
        self._stand_ins = StandIns(self.model.base_model)
        self._specs: dict[str, Mapping[str, Any]] = {}
        self._names: list[str] = []
        self._wrapped: set[str] = set()
        self._worn: tuple[Wearing, tuple[int, ...]] = ((), ())
        self.halved = False

    @property
    def hidden_size(self) -> int:
        return int(self.model.config.hidden_size)

    @property
    def layers(self) -> int:
        """Number of layers."""
        return int(self.model.config.num_hidden_layers)

    @property
    def max_length(self) -> int:
        """Longest sequence in sub-words."""
        return int(self.model.config.max_position_embeddings) - self.trunk.first_position

    def has(self, name: str) -> bool:
        """Whether an adapter goes by this name."""
        return name in self._specs

    def _method(self, name: str) -> Method:
        return METHODS[self._specs[name]["method"]]

    def add_adapter(
        self, name: str, spec: Mapping[str, Any], *, seed: int = 0, weights: Tensors | None = None
    ) -> None:
        """Add an adapter, drawn from ``seed`` or with the given weights.

        Args:
            spec: `AdapterSpec.resolved`.
        """
        if name in self._specs:
            raise ValueError(f"{name!r} is on the backbone already")
        row = METHODS[spec["method"]]
        out = sorted({i + self.layers if i < 0 else i for i in spec.get("leave_out") or ()})
        spec = {**spec, "leave_out": out or None}
        worn = self._worn
        self.compute_in("fp32")
        with torch.random.fork_rng():
            seed_draws(derive(seed, "adapter"), self.device)
            if row.library == "adapters":
                self.model.add_adapter(name, config=config_of(spec))
            elif row.library == "peft":
                # What peft reads of a weight is the backbone's own.
                self.activate(())
                self._wrap(name, spec)
            else:
                self._stand_ins.copy(name, self.device)
        self._specs[name] = spec
        self._added(name, weights)
        self._wear(*worn)

    def _wrap(self, name: str, spec: Mapping[str, Any]) -> None:
        encoder = self.model.base_model.encoder
        paths = target_paths(spec, self.layers)
        inject(encoder, name, spec, self.layers)
        self._wrapped.update(paths)
        for path in paths:
            encoder.get_submodule(path).train(self.model.training)

    def add_fusion(
        self, names: tuple[str, ...], *, seed: int = 0, weights: Tensors | None = None
    ) -> None:
        """Add AdapterFusion over these adapters (Pfeiffer et al. 2021), which `activate` knows as
        their tuple.

        Raises:
            StageError: an adapter's method has no bottleneck to fuse.
        """
        for name in names:
            method = self._method(name).name
            if not METHODS[method].fusible:
                raise StageError(f"AdapterFusion cannot combine adapters of {method}")
        with torch.random.fork_rng():
            seed_draws(derive(seed, "fusion"), self.device)
            self.model.add_adapter_fusion(Fuse(*names), set_active=False)
        self._added(fusion_name(names), weights)

    def fusion_loss(self) -> torch.Tensor:
        """The library's regularization of the fusions that are worn: their value matrices are
        kept near the identity. Zero where none is worn.
        """
        total = torch.zeros((), device=self.device)
        same = torch.eye(self.hidden_size, device=self.device)
        for part in self._worn[0]:
            if isinstance(part, str):
                continue
            for module in self.model.modules():
                if isinstance(module, BottleneckLayer):
                    fusion = module.adapter_fusion_layer
                    if fusion_name(part) in fusion:
                        value = fusion[fusion_name(part)].value.weight
                        total = total + 0.01 * (same - value).pow(2).sum()
        return total

    def add_head(
        self, name: str, head: Mapping[str, Any], *, seed: int = 0, weights: Tensors | None = None
    ) -> None:
        """Add a linear head on the last layer: on every sub-word, or on the first one.

        That of question answering has two columns, that of choice one, and that of ranking, a
        projection, as many as the layer.
        """
        kind, labels = head["kind"], dict(enumerate(head["labels"]))
        with torch.random.fork_rng():
            seed_draws(derive(seed, "head"), self.device)
            if kind == "tagging":
                self.model.add_tagging_head(
                    name, num_labels=len(labels), id2label=labels, **_layers(head)
                )
            elif kind == "qa":
                self.model.add_qa_head(name, num_labels=2, **_layers(head))
            elif kind == "choice":
                self.model.add_multiple_choice_head(name, num_choices=len(labels), **_layers(head))
            elif kind == "ranking":
                self.model.add_classification_head(name, num_labels=self.hidden_size, layers=1)
            else:
                self.model.add_classification_head(
                    name, num_labels=len(labels), id2label=labels, **_layers(head)
                )
        self._added(name, weights)

    def _added(self, name: str, weights: Tensors | None) -> None:
        if name not in self._names:
            self._names.append(name)
        if self.device.type != "cpu":
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
        copies = self._stand_ins.copies.get(name)
        if copies is not None:
            return {f"@.{place}": copy for place, copy in copies.items()}
        found = {}
        for full, parameter in self.model.named_parameters():
            parts = full.split(".")
            if name in parts:
                # peft puts what it wraps under a name of its own; that may be another adapter's.
                plain = [part for part in parts if part != "base_layer"]
                found[".".join("@" if part == name else part for part in plain)] = parameter
        return found

    def aliases(self, name: str) -> dict[str, list[str]]:
        """Every name of each parameter that goes by ``name``, by its neutral one: modules may share
        a parameter, and files then name it more than once."""
        owned = {id(parameter): n for n, parameter in self._parameters(name).items()}
        found: dict[str, list[str]] = {n: [] for n in owned.values()}
        for full, parameter in self.model.named_parameters(remove_duplicate=False):
            if id(parameter) in owned:
                parts = [part for part in full.split(".") if part != "base_layer"]
                plain = ".".join("@" if part == name else part for part in parts)
                found[owned[id(parameter)]].append(plain)
        return found

    def weights(self, name: str) -> Tensors:
        """Copies of the weights that go by ``name``, under neutral names, on the CPU in fp32."""
        return {n: p.detach().cpu().clone() for n, p in self._parameters(name).items()}

    def trainable(self, names: Iterable[str]) -> dict[str, torch.nn.Parameter]:
        """Mark exactly these as trainable; their parameters as ``<name>:<neutral name>``."""
        self.model.requires_grad_(False)
        for parameter in self._own.values():
            parameter.requires_grad_(False)
        for copies in self._stand_ins.copies.values():
            for parameter in copies.values():
                parameter.requires_grad_(False)
        chosen = {f"{name}:{n}": p for name in names for n, p in self._parameters(name).items()}
        for parameter in chosen.values():
            parameter.requires_grad_(True)
        return chosen

    def activate(self, stack: Wearing, skip_layers: Iterable[int] = ()) -> None:
        """Make a batch wear these adapters, lowest first; an empty stack is the bare backbone.

        Args:
            stack: names; a tuple of names is their fusion.
            skip_layers: layers without their adapters (AdapterDrop, Rücklé et al. 2021). What
                stands outside the layers stays, and so do weights of `full`.

        Raises:
            StageError: two of the methods cannot stand in one stack.
        """
        wanted = (tuple(stack), tuple(sorted(set(skip_layers))))
        if wanted == self._worn:
            return
        for i, lower in enumerate(stack):
            for upper in stack[i + 1 :]:
                for one in _members(lower):
                    for other in _members(upper):
                        reason = clash(self._method(one).name, self._method(other).name)
                        if reason:
                            raise StageError(f"adapters do not go together: {reason}")
        self._wear(*wanted)

    def _wear(self, stack: Wearing, skip: tuple[int, ...]) -> None:
        self._worn = (stack, skip)
        parts = []
        for part in stack:
            if isinstance(part, tuple) and len(part) > 1:
                parts.append(Fuse(*part))
            else:
                library = self._method(_members(part)[0]).library
                parts += _members(part) if library == "adapters" else ()
        self.model.set_active_adapters(
            Stack(*parts) if parts else None, skip_layers=list(skip) or None
        )
        flat = [name for part in stack for name in _members(part)]
        self._wear_wrappers(flat, skip)
        # peft looks at the values of what it wraps.
        wrapped = {f"encoder.{path}" for path in self._wrapped}
        self._stand_ins.put(flat, halved=self.halved, but=wrapped)

    def compute_in(self, precision: str) -> None:
        """Get ready for mixed precision (``bf16``) or for none (``fp32``), until `reset`.

        The frozen matrices are cast once, where autocast would cast them at every use; what comes
        out is the same to the bit.
        """
        halved = precision == "bf16"
        if halved != self.halved:
            self.halved = halved
            self._wear(*self._worn)

    def _wear_wrappers(self, names: list[str], skip: tuple[int, ...]) -> None:
        """As `set_adapter` of peft's layers, which would also change what is trainable."""
        for path in self._wrapped:
            worn = [] if int(path.split(".")[1]) in skip else names
            for layer in _wrappers(self.model.base_model.encoder.get_submodule(path)):
                held = {n for kind in layer.adapter_layer_names for n in getattr(layer, kind)}
                active = [name for name in worn if name in held]
                layer._disable_adapters = not active
                layer._active_adapter = active

    def hidden(
        self, ids: torch.Tensor, mask: torch.Tensor, layer: int | None = None
    ) -> torch.Tensor:
        """Hidden states (windows, length, hidden) under the active adapters; see `Trunk.hidden`."""
        return self.trunk.hidden(ids, mask, layer)

    def batch(self, windows: Sequence[Window], seed: int = 0) -> Batch:
        """Windows as a batch on the device, packed unless what is worn forbids it.

        Args:
            seed: of the dropout that is drawn for it.
        """
        pad = self.tokenizer.pad_token_id
        return collate(windows, pad, pack=self.apart, seed=seed).to(self.device)

    @property
    def apart(self) -> bool:
        """Whether the states of a window are its own under what is worn, whatever else stands in
        its row: prefixes are for a whole row, and the gates of UniPELT means over it."""
        return all("prefix" not in self._method(n).touches for n in self.worn if n in self._specs)

    def scored(self, batch: Batch, below: Known | None = None) -> torch.Tensor:
        """Hidden states (scored, hidden) at the scored positions; see `Trunk.scored`."""
        return self.trunk.scored(batch, below)

    def acting(self, names: Iterable[str]) -> Iterator[tuple[str, int, torch.nn.Parameter]]:
        """(neutral name, layer, parameter) of what goes by names, without skipped layers; what
        stands below all layers is in -1, and a head above them.
        """
        for name in sorted(names):
            for n, parameter in self._parameters(name).items():
                found = re.search(r"\.layer\.(\d+)\.", n)
                layer = int(found[1]) if found else -1
                if n.startswith("heads."):
                    yield n, self.layers, parameter
                elif name in self._stand_ins.copies or layer not in self._worn[1]:
                    yield n, -1 if name in self._stand_ins.copies else layer, parameter

    @property
    def worn(self) -> dict[str, Mapping[str, Any] | None]:
        """What is active, lowest first: the specifications of adapters by name, and their fusions,
        which have none."""
        parts = [_members(part) for part in self._worn[0]]
        return {
            name: self._specs.get(name) for part in parts for name in (*part, fusion_name(part))
        }

    def head_logits(self, name: str, states: torch.Tensor) -> torch.Tensor:
        """Logits (positions, labels) of a head for hidden states (positions, hidden)."""
        return torch.nn.Sequential.forward(self.model.heads[name], states)

    def lm_states(self, states: torch.Tensor) -> torch.Tensor:
        """What stands before the output embeddings of the backbone's own masked-LM head, for
        hidden states (positions, hidden).

        The inverse of the active invertible adapter is a part of it (MAD-X, Pfeiffer et al. 2020,
        section 3.3.3).
        """
        for layer in list(self._lm_head())[:-1]:
            states = layer(states)
        inverse = self.model.base_model.get_invertible_adapter()
        if inverse is not None:
            # The library's coupling block wants (batch, length, hidden).
            states = inverse(states[None], rev=True)[0]
        return states

    def lm_output(self, pieces: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Output embeddings (pieces, hidden) and biases (pieces,), in the type of computation.

        Args:
            pieces: of which ones; all when left out.
        """
        output, dtype = self._lm_head()[-1], torch.bfloat16 if self.halved else torch.float32
        weight, bias = output.weight.detach(), output.bias.detach()
        if pieces is not None:
            weight, bias = weight[pieces], bias[pieces]
        return weight.to(self.device, dtype), bias.to(self.device, dtype)

    def read(self, data: Iterable[Encoded], *, masked: bool = False) -> None:
        """Get ready for the sub-words of splits. Where the model is on an accelerator, which the
        vocabulary would take much of, it gets their embeddings alone.

        Args:
            masked: whether any piece of the vocabulary may come in the place of another.
        """
        if self.device.type == "cpu":
            return
        special = torch.tensor(self.tokenizer.all_special_ids)
        pieces = None if masked else torch.cat([pieces_of(data), special]).unique()
        self.trunk.read(pieces, self.device)

    def lm_logits(self, states: torch.Tensor) -> torch.Tensor:
        """Logits (positions, vocabulary) of the backbone's own masked-LM head."""
        return linear(self.lm_states(states), *self.lm_output())

    def _lm_head(self) -> Any:
        head = masked_head(self.model)
        if head is None:
            raise StageError(
                "the backbone has no masked-LM head, which language adapters are trained with",
                hint="use a ...ForMaskedLM checkpoint, or language_adapters: null",
            )
        return head

    def reset(self) -> None:
        """Take off everything that was added; checks that the modules are those it came with."""
        self.halved = False
        self._wear((), ())
        encoder = self.model.base_model.encoder
        prefix = next(n for n, module in self._modules.items() if module is encoder)
        for path in self._wrapped:
            parent, _, last = path.rpartition(".")
            setattr(encoder.get_submodule(parent), last, self._modules[f"{prefix}.{path}"])
        self._wrapped.clear()
        self._stand_ins.copies.clear()
        for name in self._names:
            if name in self.model.adapters_config.fusions:
                self.model.delete_adapter_fusion(name)
        for name in self._names:
            if name in self.model.adapters_config:
                self.model.delete_adapter(name)
            if name in self.model.heads:
                self.model.delete_head(name)
        self._names.clear()
        self._specs.clear()
        self.model.requires_grad_(False)
        for now, own in (
            (dict(self.model.named_parameters()), self._own),
            (dict(self.model.named_modules()), self._modules),
        ):
            odd = {n for n in now.keys() | own.keys() if now.get(n) is not own.get(n)}
            if odd or list(now) != list(own):
                raise AssertionError(f"left on the backbone: {sorted(odd)}")

    def digest(self) -> str:
        """SHA-256 over the backbone's own weights, in order; equal before and after any stage."""
        sha = hashlib.sha256()
        for name, own in self._own.items():
            sha.update(name.encode())
            sha.update(own.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return sha.hexdigest()


def _layers(head: Mapping[str, Any]) -> dict[str, Any]:
    """How many matrices a head has: one, but for adopted ones that say otherwise."""
    layers = head.get("layers") or 1
    return {"layers": layers, "activation_function": head.get("activation") or "tanh"}


def _members(part: str | tuple[str, ...]) -> tuple[str, ...]:
    return (part,) if isinstance(part, str) else part


def _wrappers(module: torch.nn.Module) -> Iterator[Any]:
    """The modules of peft around a matrix, outermost first."""
    while isinstance(module, BaseTunerLayer):
        yield module
        module = module.base_layer
