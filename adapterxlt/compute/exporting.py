"""Adapters and heads as files that plain `adapters` and plain `peft` load.

The libraries' own savers write them, under plain names and with the backbone's own name for the
folder that it came from; weights are safetensors. Called by `run.worker`; which pieces there are
is said by `core.exports`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import peft
import safetensors.torch
from adapters.loading import AdapterLoader
from adapters.utils import CONFIG_NAME, SAFE_WEIGHTS_NAME
from peft.utils import SAFETENSORS_WEIGHTS_NAME

from adapterxlt.compute.backbone import Backbone, Tensors
from adapterxlt.compute.methods import peft_config
from adapterxlt.core.composition import Part
from adapterxlt.core.exports import OWN_HEADS, Export, Piece

#: The matrix of a head of one layer, under its neutral name.
_MATRIX = "heads.@.1."


def files_of(
    backbone: Backbone,
    export: Export,
    weights: Callable[[Part], Tensors],
    head: Tensors | None,
    name: str,
) -> dict[str, dict[str, bytes]]:
    """The libraries' files of every piece, by the piece's name.

    Args:
        backbone: bare; it is left bare.
        weights: of an adapter or a fusion, under neutral names (see `Backbone.weights`).
        head: weights of the export's head, which goes to the uppermost piece.
        name: what the files call the backbone.
    """
    found = {}
    with _called(backbone, name):
        for piece in export.pieces:
            own = head if piece is export.top else None
            for one in piece.all():
                found[one.name] = _written(
                    backbone, export, one, weights, own if one is piece else None
                )
    return found


def _written(
    backbone: Backbone,
    export: Export,
    piece: Piece,
    weights: Callable[[Part], Tensors],
    head: Tensors | None,
) -> dict[str, bytes]:
    save = _save_peft if piece.library == "peft" else _save_adapter
    if piece.members:
        save = _save_fusion
    with tempfile.TemporaryDirectory(prefix="adapterxlt-") as scratch:
        try:
            save(backbone, export, piece, weights, head, Path(scratch))
        finally:
            backbone.reset()
        files = {path.name: path.read_bytes() for path in sorted(Path(scratch).iterdir())}
    return files


def _save_adapter(
    backbone: Backbone,
    export: Export,
    piece: Piece,
    weights: Callable[[Part], Tensors],
    head: Tensors | None,
    folder: Path,
) -> None:
    own = weights(piece.part)
    backbone.add_adapter(piece.name, piece.part.spec or {}, weights=own)
    if head is not None:
        # The library saves, loads and activates a head with the adapter of the same name; what goes
        # by that name has then the weights of both.
        _add_head(backbone, export, {**own, **head})
        backbone.model.save_head(str(folder), piece.name, use_safetensors=True)
    state, config = AdapterLoader(backbone.model).save_to_state_dict(piece.name)
    # Layers share the module that makes prefixes, which `save_adapter` cannot write as safetensors:
    # each tensor goes by its shortest name alone, and is loaded into the one module there is.
    names = sorted(state, key=lambda name: (-name.count("."), name))
    once = {state[name].data_ptr(): name for name in names}
    tensors = {name: state[name].contiguous() for name in sorted(once.values())}
    safetensors.torch.save_file(tensors, str(folder / SAFE_WEIGHTS_NAME))
    text = json.dumps(config, indent=2, sort_keys=True)
    (folder / CONFIG_NAME).write_text(text, encoding="utf-8")


def _save_fusion(
    backbone: Backbone,
    export: Export,
    piece: Piece,
    weights: Callable[[Part], Tensors],
    head: Tensors | None,
    folder: Path,
) -> None:
    for member in piece.members:
        backbone.add_adapter(member.name, member.part.spec or {}, weights=weights(member.part))
    names = tuple(member.name for member in piece.members)
    backbone.add_fusion(names, weights=weights(piece.part))
    if head is not None:
        _add_head(backbone, export, head)
    backbone.model.save_adapter_fusion(
        str(folder),
        list(names),
        with_head=piece.name if head is not None else False,
        use_safetensors=True,
    )


def _save_peft(
    backbone: Backbone,
    export: Export,
    piece: Piece,
    weights: Callable[[Part], Tensors],
    head: Tensors | None,
    folder: Path,
) -> None:
    """As `PeftModel.save_pretrained`: for the model of `transformers` whose head is kept with the
    adapter, or for the bare encoder, and then the head stands beside it as `adapters` saves one."""
    spec, model = dict(piece.part.spec or {}), backbone.model
    prefix = f"{model.base_model_prefix}."
    backbone.add_adapter(piece.name, spec, weights=weights(piece.part))
    config = peft_config(spec, backbone.layers)
    model.peft_config = {piece.name: config}
    try:
        # Whether the vocabulary has grown would be asked of a hub.
        state = peft.get_peft_model_state_dict(
            model, adapter_name=piece.name, save_embedding_layers=False
        )
    finally:
        del model.peft_config
    dropped = range(export.drop or 0)
    if dropped:
        # peft cannot skip layers: what is not worn is left out.
        out = sorted({*(spec.get("leave_out") or ()), *dropped})
        config = peft_config({**spec, "leave_out": out}, backbone.layers)
        gone = tuple(f"{prefix}encoder.layer.{i}." for i in dropped)
        state = {name: tensor for name, tensor in state.items() if not name.startswith(gone)}
    if export.form == "own" and head is not None:
        _, module, config.task_type = OWN_HEADS[export.kind or ""]
        config.modules_to_save = [module]
        state |= {name.replace(_MATRIX, f"{module}."): tensor for name, tensor in head.items()}
    else:
        config.task_type = "FEATURE_EXTRACTION"
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    config.base_model_name_or_path = model.config.name_or_path
    config.inference_mode = True
    for field in ("target_modules", "feedforward_modules"):
        if getattr(config, field, None) is not None:
            # A set has no order that lasts.
            setattr(config, field, sorted(getattr(config, field)))
    config.save_pretrained(str(folder))
    full = {f"base_model.model.{name}": tensor.contiguous() for name, tensor in state.items()}
    safetensors.torch.save_file(full, str(folder / SAFETENSORS_WEIGHTS_NAME), {"format": "pt"})
    if export.form == "linear" and head is not None:
        backbone.reset()
        _add_head(backbone, export, head)
        model.save_head(str(folder), piece.name, use_safetensors=True)


def _add_head(backbone: Backbone, export: Export, weights: Tensors) -> None:
    assert export.head is not None
    name = export.top.name
    backbone.add_head(name, export.head.spec or {}, weights=weights)
    if export.labels:
        # Alternatives of a choice have no names for the library, which then makes some up.
        label2id = {label: number for number, label in enumerate(export.labels)}
        backbone.model.heads[name].config["label2id"] = label2id


@contextmanager
def _called(backbone: Backbone, name: str) -> Iterator[None]:
    """The libraries write down where the backbone came from: let that be its name, no path."""
    config = backbone.model.config
    kept, config.name_or_path = config.name_or_path, name
    try:
        yield
    finally:
        config.name_or_path = kept
