"""What the configurations of `adapters` say, in the words of `core.methods`.

A configuration is understood whole or refused: a field that is not known here, or that has a value
no method here stands for, would make another function of the same numbers. Values in, values out;
names of tensors are needed where a configuration says less than the file.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from adapterxlt.core.adapters import AdapterSpec
from adapterxlt.core.counts import TARGETS
from adapterxlt.core.errors import RefusedError
from adapterxlt.core.methods import METHODS

#: Names that stand for whole configurations of `adapters`, also those of its predecessor.
_NAMES: dict[str, dict[str, Any]] = {
    **{n: {"method": n} for n in ("seq_bn", "double_seq_bn", "par_bn", "compacter")},
    **{n: {"method": n} for n in ("prefix_tuning", "lora", "ia3")},
    # With an invertible block the library has the factor of task adapters, not that of MAD-X.
    **{n: {"method": n, "reduction_factor": 16} for n in ("seq_bn_inv", "double_seq_bn_inv")},
    "prefix_tuning_flat": {"method": "prefix_tuning", "flat": True},
    "compacter++": {"method": "compacterpp"},
}
_NAMES |= {
    "pfeiffer": _NAMES["seq_bn"],
    "pfeiffer+inv": _NAMES["seq_bn_inv"],
    "houlsby": _NAMES["double_seq_bn"],
    "houlsby+inv": _NAMES["double_seq_bn_inv"],
    "parallel": _NAMES["par_bn"],
}
#: What files without a version call activations, and what these are called now.
_ACTIVATIONS = {"gelu": "gelu_new", "gelu_orig": "gelu"}

#: Fields that say nothing of the function computed: how weights were drawn, what was dropped out.
_OF_TRAINING = frozenset(
    {"init_weights", "init_weights_seed", "phm_c_init", "phm_init_range"}
    | {"hypercomplex_nonlinearity", "learn_phm"}
)
#: Values of fields that a bottleneck of ours has, where a method says no other.
_BOTTLENECK: dict[str, Any] = {
    "original_ln_before": True,
    "original_ln_after": True,
    "residual_before_ln": True,
    "adapter_residual_before_ln": False,
    "ln_before": False,
    "ln_after": False,
    "is_parallel": False,
    "scaling": 1.0,
    "use_gating": False,
    "cross_adapter": False,
    "dropout": 0.0,
    "stochastic_depth": 0.0,
    "phm_layer": False,
    "inv_adapter": None,
    "architecture": None,
}
_PHM: dict[str, Any] = {
    "factorized_phm_W": True,
    "shared_W_phm": False,
    "shared_phm_rule": True,
    "factorized_phm_rule": False,
    "phm_bias": True,
}
#: (attention, feed-forward, parallel, low-rank) -> method without an invertible block.
_PLACES = {
    (False, True, False, False): "seq_bn",
    (True, True, False, False): "double_seq_bn",
    (False, True, True, False): "par_bn",
    (False, True, False, True): "compacterpp",
    (True, True, False, True): "compacter",
}
_LORA: dict[str, Any] = {
    "architecture": "lora",
    "selfattn_lora": True,
    "use_gating": False,
    "use_dora": False,
    "dtype": None,
}
_PREFIX: dict[str, Any] = {
    "architecture": "prefix_tuning",
    "encoder_prefix": True,
    "non_linearity": "tanh",
    "use_gating": False,
    "cross_prefix": None,
    "shared_gating": None,
}


def quoted(value: object, most: int = 80) -> str:
    """A foreign value for a message: short, without control characters, and no markup to a page."""
    text = ascii(value).replace("<", r"\x3c").replace(">", r"\x3e")
    return text if len(text) <= most else text[:most] + "…"


class Config:
    """A configuration whose fields are taken one by one; what is left over is refused."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.left, self.where = dict(values), where

    def take(self, name: str, default: Any = None) -> Any:
        return self.left.pop(name, default)

    def number(self, name: str, default: Any = None, *, whole: bool = False) -> Any:
        value = self.take(name, default)
        # What is nearer to nothing makes sizes that no number holds.
        fits = type(value) in ((int,) if whole else (int, float))
        if not fits or not (value == 0 or 1e-6 <= value <= 1e9):
            raise self.refuse(name, value)
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.take(name, default)
        if not isinstance(value, bool):
            raise self.refuse(name, value)
        return value

    def layers(self, name: str = "leave_out") -> list[int]:
        value = self.take(name) or []
        fits = isinstance(value, list) and len(value) <= 100
        if not fits or not all(type(i) is int and 0 <= i < 100 for i in value):
            raise self.refuse(name, value)
        return sorted(set(value))

    def same(self, wanted: Mapping[str, Any]) -> None:
        """Fields that must have these values where they are there; any where it is ``None``."""
        for name, value in wanted.items():
            there, found = name in self.left, self.take(name)
            # Nothing is as good as false, and not as good as true or a number.
            same = found == value or (found is None and not value)
            if there and value is not None and not same:
                raise self.refuse(name, found)

    def done(self) -> None:
        for name in sorted(self.left.keys() - _OF_TRAINING):
            if self.left[name] not in (None, False, [], {}, ""):
                raise self.refuse(name, self.left[name])

    def refuse(self, name: str, value: Any) -> RefusedError:
        what = f"no method here has {quoted(name)} {quoted(value)}"
        return RefusedError(what, where=self.where)


# --- adapters ------------------------------------------------------------------------------------


def of_adapters(config: Mapping[str, Any], names: Collection[str], where: str) -> AdapterSpec:
    """The adapter that an ``adapter_config.json`` of `adapters` describes.

    Args:
        config: the whole file.
        names: of the tensors that come with it.

    Raises:
        RefusedError: no method here computes what it describes.
    """
    version, values = config.get("version"), config.get("config")
    if isinstance(values, str):
        if values not in _NAMES:
            raise RefusedError(f"no method here is called {quoted(values)}", where=where)
        return spec_of(dict(_NAMES[values]), where)
    if not isinstance(values, dict):
        raise RefusedError("it has no configuration", where=where)
    given = Config(values, where)
    architecture = values.get("architecture")
    if architecture == "lora":
        return _lora(given, version)
    if architecture == "prefix_tuning":
        return _prefix(given)
    if architecture is not None:
        raise given.refuse("architecture", architecture)
    return _bottleneck(given, version, config.get("type"), names)


def _bottleneck(given: Config, version: Any, type_of: Any, names: Collection[str]) -> AdapterSpec:
    block = given.take("invertible_adapter")
    if isinstance(block, dict):
        # The first dialect said it in a configuration of its own.
        inner = block.get("non_linearity")
        if inner not in (None, given.left.get("non_linearity")):
            raise given.refuse("invertible_adapter", block)
        given.left["inv_adapter"] = block.get("block_type")
        given.left["inv_adapter_reduction_factor"] = block.get("reduction_factor")
    elif block:
        raise given.refuse("invertible_adapter", block)
    inverted, factor = given.take("inv_adapter"), given.take("inv_adapter_reduction_factor")
    if type_of == "text_task" and not any("invertible" in name for name in names):
        inverted = None  # declared and not used, as task adapters of the first dialect have it
    if inverted not in (None, "nice") or (inverted and factor not in (2, None)):
        raise given.refuse("inv_adapter", f"{inverted} / {factor}")
    parallel, low_rank = given.flag("is_parallel"), given.flag("phm_layer")
    places = given.flag("mh_adapter"), given.flag("output_adapter")
    method = _PLACES.get((*places, parallel, low_rank))
    if method is None or (inverted and low_rank) or (inverted and parallel):
        raise given.refuse(
            "mh_adapter, output_adapter, is_parallel, phm_layer", (*places, parallel)
        )
    activation = given.take("non_linearity")
    if version is None and isinstance(activation, str):
        activation = _ACTIVATIONS.get(activation, activation)
    if isinstance(activation, str):
        activation = activation.lower()
    if activation not in METHODS[method].parameters["non_linearity"].choices:
        raise given.refuse("non_linearity", activation)
    found: dict[str, Any] = {
        "method": f"{method}_inv" if inverted else method,
        "reduction_factor": given.number("reduction_factor"),
        "non_linearity": activation,
        "leave_out": given.layers() or None,
    }
    fixed = {**_BOTTLENECK, "original_ln_before": method == "seq_bn" or method == "compacterpp"}
    if parallel:
        # Where it is parallel, what would be done to a sequential one's input is not read.
        fixed |= {"scaling": 4.0, "residual_before_ln": None}
    if low_rank:
        found |= {name: given.number(name, whole=True) for name in ("phm_dim", "phm_rank")}
        given.same(_PHM)
    else:
        for name in (*_PHM, "phm_dim", "phm_rank"):
            given.take(name)
    given.same(fixed)
    given.done()
    return spec_of(found, given.where)


def _lora(given: Config, version: Any) -> AdapterSpec:
    r, alpha = given.number("r", whole=True), given.number("alpha")
    if isinstance(version, str) and _before(version, (1, 1)):
        alpha = r  # the library's scaling was another one then
    scale = given.take("composition_mode", "add") == "scale"
    letters = given.take("attn_matrices", ["q", "v"])
    inner, outer = given.flag("intermediate_lora"), given.flag("output_lora")
    dropout, out = given.number("dropout", 0.0), given.layers()
    words = {"q": "query", "k": "key", "v": "value"}
    texts = isinstance(letters, list) and all(isinstance(letter, str) for letter in letters)
    if not texts or not set(letters) <= words.keys():
        raise given.refuse("attn_matrices", letters)
    given.same(_LORA)
    given.done()
    matrices = {words[letter] for letter in letters}
    matrices |= ({"intermediate"} if inner else set()) | ({"output"} if outer else set())
    if scale:
        if r != 1 or matrices != set(METHODS["ia3"].matrices) or dropout:
            raise given.refuse("composition_mode", "scale")
        return spec_of({"method": "ia3", "leave_out": out or None}, given.where)
    found = {"method": "lora", "r": r, "alpha": alpha, "dropout": dropout}
    return spec_of(
        found | {"targets": targets_of(matrices, given), "leave_out": out or None}, given.where
    )


def _prefix(given: Config) -> AdapterSpec:
    found = {
        "method": "prefix_tuning",
        "prefix_length": given.number("prefix_length", 30, whole=True),
        "bottleneck_size": given.number("bottleneck_size", 512, whole=True),
        "flat": given.flag("flat"),
        "dropout": given.number("dropout", 0.0),
        "leave_out": given.layers() or None,
    }
    given.same(_PREFIX)
    given.done()
    return spec_of(found, given.where)


def _before(version: str, wanted: tuple[int, int]) -> bool:
    """Whether it is a version of `adapters` before one."""
    numbers = re.fullmatch(r"adapters\.(\d{1,4})\.(\d{1,4}).*", version)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) < wanted


def targets_of(matrices: Collection[str], given: Config) -> str:
    for name, targets in TARGETS.items():
        if set(targets) == set(matrices):
            return name
    raise given.refuse("matrices", sorted(matrices))


def spec_of(found: dict[str, Any], where: str) -> AdapterSpec:
    """The specification; what is out of range is refused."""
    spec = AdapterSpec(**{k: v for k, v in found.items() if v is not None})
    for _, what, _ in spec.faults():
        raise RefusedError(what, where=where)
    return spec
