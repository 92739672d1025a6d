"""From a resolved `AdapterSpec` to the configuration that a library builds modules from.

Only what a row of `core.methods.METHODS` names is passed on, because `adapters` accepts any key.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import adapters
import torch
from adapters import AdapterConfig, ConfigUnion

from adapterxlt.core.counts import MATRIX_PATHS, layers_of
from adapterxlt.core.forms import Part
from adapterxlt.core.methods import METHODS, target_matrices


def config_of(spec: Mapping[str, Any]) -> AdapterConfig:
    """`adapters`' configuration of a resolved specification (`AdapterSpec.resolved`)."""
    row = METHODS[spec["method"]]
    if row.library != "adapters":
        raise ValueError(f"{row.name} is no method of adapters")
    more: dict[str, Any] = {"leave_out": list(spec.get("leave_out") or [])}
    parts = [getattr(adapters, p.config)(**_arguments(p, spec), **more) for p in row.parts]
    if "targets" in row.parameters:
        wanted = target_matrices(spec)
        letters = [name[0] for name in ("query", "key", "value") if name in wanted]
        inner, outer = "intermediate" in wanted, "output" in wanted
        parts[0] = parts[0].replace(
            attn_matrices=letters, intermediate_lora=inner, output_lora=outer
        )
    return parts[0] if len(parts) == 1 else ConfigUnion(*parts)


def _arguments(part: Part, spec: Mapping[str, Any]) -> dict[str, Any]:
    parameters = METHODS[spec["method"]].parameters
    found = {
        argument: spec.get(name, parameters[name].default) for argument, name in part.takes.items()
    }
    return {**part.fixed, **found}


def target_paths(spec: Mapping[str, Any], layers: int) -> list[str]:
    """Modules of the encoder that a method of peft wraps."""
    paths = [MATRIX_PATHS[matrix] for matrix in target_matrices(spec)]
    return [f"layer.{i}.{path}" for i in layers_of(spec, layers) for path in paths]


def peft_config(spec: Mapping[str, Any], layers: int) -> Any:
    """peft's configuration of a resolved specification, for an encoder of so many layers."""
    import peft

    (part,) = METHODS[spec["method"]].parts
    paths = target_paths(spec, layers)
    more: dict[str, Any] = {"target_modules": paths}
    if part.config == "IA3Config":
        more["feedforward_modules"] = [
            path for path in paths if path.endswith(MATRIX_PATHS["output"])
        ]
    return getattr(peft, part.config)(**_arguments(part, spec), **more)


def inject(encoder: torch.nn.Module, name: str, spec: Mapping[str, Any], layers: int) -> None:
    """Wrap the encoder's matrices with modules of peft, in place.

    As `peft.inject_adapter_in_model`, which declines methods with a part that all layers share.
    """
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
    from peft.tuners.boft import layer as boft

    paths = target_paths(spec, layers)
    # The random parts of an earlier adapter, which a later one of the method would take away.
    shared = {
        (path, name_of): getattr(encoder.get_submodule(path), name_of)
        for path in paths
        for name_of in ("vera_A", "vera_B", "randlora_A", "randlora_B")
        if hasattr(encoder.get_submodule(path), name_of)
    }
    # BOFT compiles a CUDA extension when it finds a compiler: other modules, other rounding.
    kept, boft.get_fbd_cuda = boft.get_fbd_cuda, lambda: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = peft_config(spec, layers)
            PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](encoder, config, adapter_name=name)
    finally:
        boft.get_fbd_cuda = kept
        # Another method would find the first one's configuration and take it for its own.
        if hasattr(encoder, "peft_config"):
            del encoder.peft_config
    for (path, name_of), earlier in shared.items():
        # Where another method's wrapper stands in front, nothing was taken away.
        now = getattr(encoder.get_submodule(path), name_of, earlier)
        for other in earlier:
            if other not in now:
                now[other] = earlier[other]
