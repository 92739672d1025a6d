"""What the configurations of `peft` say, in the words of `core.methods`: LoRA, DoRA and (IA)³.

As in `core.dialects`: understood whole, or refused.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from adapterxlt.core.adapters import AdapterSpec
from adapterxlt.core.counts import MATRIX_PATHS
from adapterxlt.core.dialects import Config, spec_of, targets_of
from adapterxlt.core.methods import METHODS

#: Fields of every configuration of `peft` that say nothing of the function computed.
_PEFT_SILENT = frozenset(
    {"peft_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision"}
    | {"task_type", "inference_mode", "megatron_core", "megatron_config"}
    | {"init_ia3_weights", "qalora_group_size", "runtime_config", "ephemeral_gpu_offload"}
    | {"loftq_config", "corda_config", "eva_config", "velora_config"}
)
#: Modules that are saved whole beside an adapter: heads, which `core.dialects_heads` knows.
_WHOLE = frozenset({"classifier", "qa_outputs", "score"})
#: How often a stranger's expression may be tried at most; counted before it is used.
_MOST_TRIES = 2_000_000


def of_peft(config: Mapping[str, Any], layers: int, where: str) -> AdapterSpec:
    """The adapter that an ``adapter_config.json`` of `peft` describes: LoRA, DoRA or (IA)³.

    Args:
        layers: of the backbone.

    Raises:
        RefusedError: no method here computes what it describes.
    """
    given = Config({k: v for k, v in config.items() if k not in _PEFT_SILENT}, where)
    kind = config["peft_type"]
    if kind not in ("LORA", "IA3"):
        raise given.refuse("peft_type", kind)
    whole = given.take("modules_to_save") or []
    texts = isinstance(whole, list) and all(isinstance(name, str) for name in whole)
    if not texts or not set(whole) <= _WHOLE:
        raise given.refuse("modules_to_save", whole)
    matrices, out = _reached(given, layers)
    if kind == "IA3":
        feedforward = given.take("feedforward_modules")
        if matrices != set(METHODS["peft_ia3"].matrices):
            raise given.refuse("target_modules", sorted(matrices))
        inner = {(i, "output") for i in range(layers) if i not in out}
        if _matched("feedforward_modules", feedforward, layers, given) != inner:
            raise given.refuse("feedforward_modules", feedforward)
        given.same({"fan_in_fan_out": False})
        given.done()
        return spec_of({"method": "peft_ia3", "leave_out": out or None}, where)
    found: dict[str, Any] = {
        "method": "peft_dora" if given.flag("use_dora") else "peft_lora",
        "r": given.number("r", 8, whole=True),
        "alpha": given.number("lora_alpha", 8),
        "dropout": given.number("lora_dropout", 0.0),
        "targets": targets_of(matrices, given),
        "leave_out": out or None,
    }
    drawn = given.take("init_lora_weights", True)
    if drawn not in (True, False, None, "gaussian", "orthogonal"):
        raise given.refuse("init_lora_weights", drawn)  # these change the backbone's own weights
    given.same({"bias": "none"})
    given.done()
    return spec_of(found, where)


def _reached(given: Config, layers: int) -> tuple[set[str], list[int]]:
    """Matrices that the targets of a configuration reach, and the layers that they leave out."""
    targets = given.take("target_modules")
    reached = _matched("target_modules", targets, layers, given)
    only = given.take("layers_to_transform")
    pattern = given.take("layers_pattern")
    if pattern not in (None, "layer", "layers", ["layer"], [], ""):
        raise given.refuse("layers_pattern", pattern)
    if only is not None:
        chosen = [only] if type(only) is int else only
        if not isinstance(chosen, list) or not all(type(i) is int for i in chosen):
            raise given.refuse("layers_to_transform", only)
        reached = {(i, matrix) for i, matrix in reached if i in chosen}
        if not reached:
            raise given.refuse("layers_to_transform", only)
    by_layer = [{matrix for i, matrix in reached if i == layer} for layer in range(layers)]
    kinds = {frozenset(found) for found in by_layer if found}
    if len(kinds) != 1:
        raise given.refuse("target_modules", targets)
    return set(next(iter(kinds))), [i for i, found in enumerate(by_layer) if not found]


def _matched(name: str, targets: Any, layers: int, given: Config) -> set[tuple[int, str]]:
    """(layer, matrix) of the encoder's matrices that targets name, as `peft` reads them."""
    places = {
        f"base_model.model.roberta.encoder.layer.{i}.{path}": (i, matrix)
        for i in range(layers)
        for matrix, path in MATRIX_PATHS.items()
    }
    if targets == "all-linear":
        return set(places.values())
    if isinstance(targets, str):
        pattern = _pattern(name, targets, given)
        return {at for path, at in places.items() if pattern.fullmatch(path)}
    texts = isinstance(targets, list) and all(isinstance(t, str) for t in targets)
    if not texts or not 0 < len(targets) <= 10_000:
        raise given.refuse(name, targets)
    wanted = set(targets)
    return {at for path, at in places.items() if any(end in wanted for end in _endings(path))}


def _endings(path: str) -> Iterable[str]:
    parts = path.split(".")
    return (".".join(parts[i:]) for i in range(len(parts)))


def _pattern(name: str, text: str, given: Config) -> re.Pattern[str]:
    """A stranger's expression, if it is a plain one: others can take for ever."""
    plain = re.fullmatch(r"[\w.|()\\\[\]*+?-]{1,300}", text)
    repeats, groups, ways = len(re.findall(r"[*+?]", text)), text.count("("), text.count("|") + 1
    # At most: each way to end the repeats in a path of seventy characters, with each way through
    # the groups.
    tries = math.comb(70 + repeats, repeats) * ways ** max(groups, 1)
    if not plain or tries > _MOST_TRIES or groups > 20 or re.search(r"\)[*+?]", text):
        raise given.refuse(name, text)
    try:
        with warnings.catch_warnings():
            # What a later version of Python may read otherwise is a warning now.
            warnings.simplefilter("error")
            return re.compile(text)
    except (re.error, Warning):
        raise given.refuse(name, text) from None
