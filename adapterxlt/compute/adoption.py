"""A stranger's tensors on a backbone: names and shapes must be exactly those of the modules that
the specification makes here, and what comes of them is in the form of our own stages.

Called by the worker's `adopt` stage, with tensors that `store.safeload` has read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from adapterxlt.compute.backbone import Backbone, Tensors
from adapterxlt.core.adapters import adapter_parameters
from adapterxlt.core.errors import RefusedError
from adapterxlt.core.methods import METHODS
from adapterxlt.core.specs import Shape
from adapterxlt.store.safeload import check_count, shown

Arrays = Mapping[str, np.ndarray[Any, Any]]

#: In a tensor's name, what is followed by the name of the adapter or head.
_HOLDERS = frozenset(
    {"adapters", "prefix_tunings", "prefix_gates", "loras", "shared_parameters"}
    | {"invertible_adapters", "heads"}
)
#: What the predecessor of `adapters` called these.
_OLD = {
    "attention_text_task_adapters": "adapters",
    "attention_text_lang_adapters": "adapters",
    "layer_text_task_adapters": "adapters",
    "layer_text_lang_adapters": "adapters",
    "invertible_lang_adapters": "invertible_adapters",
}
#: Where names begin to be the same in every model.
_STARTS = frozenset(
    {"encoder", "invertible_adapters", "prefix_tuning", "shared_parameters", "heads"}
    | {"classifier", "qa_outputs"}
)
#: Heads of transformers' classes as ours: dropout, matrix, and of two layers activation and so on.
_STATIC = {
    "classifier": "heads.@.1",
    "qa_outputs": "heads.@.1",
    "classifier.dense": "heads.@.1",
    "classifier.out_proj": "heads.@.4",
}


def adopt(
    backbone: Backbone,
    spec: Mapping[str, Any],
    weights: Arrays,
    head: tuple[Mapping[str, Any], list[int], Arrays] | None,
    where: str,
) -> tuple[Tensors, Tensors | None]:
    """An adapter's tensors under our neutral names, and those of its head.

    Args:
        spec: `AdapterSpec.resolved`.
        weights: of the adapter by foreign names; of `peft` the head's may be among them.
        head: its form as of `Backbone.add_head`, which of its outputs is each label of the task,
            and its tensors; those of the adapter's file where it has none of its own.

    Raises:
        RefusedError: a tensor is missing, left over, given twice or of another shape.
    """
    shape = _shape(backbone)
    given = sum(values.size for values in weights.values())
    check_count(adapter_parameters(spec, shape), given, where)
    named = _named(weights, where)
    # In peft's format a head is among the adapter's tensors, under the names of transformers.
    peft = METHODS[spec["method"]].library == "peft"
    theirs = {_neutral(name)[0] for name in weights if peft and "heads" not in name.split(".")}
    of_head = {n: values for n, values in named.items() if n in theirs and n.startswith("heads.")}
    of_adapter = {n: values for n, values in named.items() if n not in of_head}
    backbone.add_adapter("adopted", spec)
    tensors = _fit(backbone, "adopted", of_adapter, where)
    if head is None:
        return tensors, None
    form, order, own = head
    found = _named(own, where) or of_head
    backbone.add_head("adopted_head", form)
    taken = _fit(backbone, "adopted_head", found, where)
    last = max(name.split(".")[2] for name in taken)
    for name, tensor in taken.items():
        if name.split(".")[2] == last and form["labels"] and form["kind"] != "choice":
            taken[name] = tensor[order].contiguous()
    return tensors, taken


def _named(given: Arrays, where: str) -> Arrays:
    """Tensors by their neutral names: all of one adapter or head, and in modules of a model."""
    named, owners = {}, set()
    for name, values in given.items():
        neutral, before, owner = _neutral(name)
        if "@" in name.split(".") or not all(part.isidentifier() for part in before):
            raise RefusedError(f"the tensor {shown(name)} has no place here", where=where)
        named[neutral] = values
        owners.add(owner)
    if len(named) < len(given):
        raise RefusedError("two tensors have names that mean the same", where=where)
    if len(owners - {None}) > 1:
        raise RefusedError(f"the tensors are of {len(owners - {None})} adapters", where=where)
    return named


def _shape(backbone: Backbone) -> Shape:
    config = backbone.model.config
    sizes = (config.num_hidden_layers, config.hidden_size, config.intermediate_size)
    return Shape(*sizes, config.vocab_size)


def _neutral(name: str) -> tuple[str, list[str], str | None]:
    """A foreign tensor's name without the model's prefix and the adapter's name, and these two."""
    owner = None
    parts = [_OLD.get(part, part) for part in name.split(".")]
    start = next((i for i, part in enumerate(parts) if part in _STARTS), 0)
    before, parts = parts[:start], parts[start:]
    for i in range(len(parts) - 2):
        if parts[i] in _HOLDERS:
            owner, parts[i + 1] = parts[i + 1], "@"
    if parts[-1] == "lora_magnitude_vector":
        parts.append("weight")  # peft saves the one tensor of this module under its name
    stem = ".".join(parts[:-1])
    neutral = f"{_STATIC[stem]}.{parts[-1]}" if stem in _STATIC else ".".join(parts)
    return neutral, before, owner


def _fit(backbone: Backbone, name: str, given: Arrays, where: str) -> Tensors:
    """What is given as the parameters of what goes by ``name``, under our neutral names.

    A parameter that several modules share may be there under each of its names, if all agree.
    """
    wanted = backbone.aliases(name)
    known = {alias: own for own, aliases in wanted.items() for alias in map(_plain, aliases)}
    left = sorted(alias for alias in given if _plain(alias) not in known)
    if left:
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        raise RefusedError(f"the tensor {shown(left[0])}{more} has no place here", where=where)
    found: Tensors = {}
    shapes = {own: tuple(tensor.shape) for own, tensor in backbone.weights(name).items()}
    for alias, values in given.items():
        own = known[_plain(alias)]
        if values.shape != shapes[own]:
            what = f"the tensor {shown(alias)} is {values.shape}, not {shapes[own]}"
            raise RefusedError(what, where=where)
        tensor = torch.from_numpy(np.array(values, dtype=np.float32))
        if own in found and not torch.equal(found[own], tensor):
            raise RefusedError(f"{shown(alias)} differs under another of its names", where=where)
        found[own] = tensor
    lacking = sorted(shapes.keys() - found.keys())
    if lacking:
        what = f"{len(lacking)} of {len(shapes)} tensors are missing, {shown(_plain(lacking[0]))}"
        raise RefusedError(f"{what} among them", where=where)
    return {own: found[own] for own in shapes}


def _plain(name: str) -> str:
    """A name of ours or a foreign one in the form in which they are compared: of peft the adapter's
    own name is not in the foreign ones."""
    parts = name.split(".")
    start = next((i for i, part in enumerate(parts) if part in _STARTS), 0)
    return ".".join(part for part in parts[start:] if part != "@")
