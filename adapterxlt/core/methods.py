"""The registry of adapter methods: one row each. Adding a method is adding a row.

A row says which configuration class of which library it stands for, by name, and which of its
arguments are parameters here; `compute.methods` builds modules from that. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from adapterxlt.core import counts
from adapterxlt.core.counts import TARGETS
from adapterxlt.core.forms import FieldFault, Method, Parameter, Part, Resolved
from adapterxlt.core.specs import Shape

# Parameters that several rows share.

_NON_LINEARITIES = ("relu", "gelu", "gelu_new", "swish", "tanh")


def _factor(default: float) -> Parameter:
    return Parameter(float, default, "hidden size divided by bottleneck size", above=0)


def _activation(default: str) -> Parameter:
    return Parameter(str, default, "between the projections", choices=_NON_LINEARITIES)


def _whole(default: int, doc: str, low: int = 1) -> Parameter:
    return Parameter(int, default, doc, low=low)


def _rank(default: int) -> Parameter:
    return _whole(default, "rank")


def _alpha(default: float) -> Parameter:
    return Parameter(float, default, "the update is scaled by alpha / r", above=0)


_DROPOUT = Parameter(float, 0.0, "dropout of what goes into the update", low=0, below=1)


def _targets(*choices: str) -> Parameter:
    doc = "matrices of each layer that it acts on"
    return Parameter(str, "query-value", doc, choices=choices or tuple(TARGETS))


def _bn(factor: float, activation: str) -> dict[str, Parameter]:
    return {"reduction_factor": _factor(factor), "non_linearity": _activation(activation)}


def _same(*names: str, **renamed: str) -> dict[str, str]:
    """Arguments called like their parameters, and ``argument=parameter`` for others."""
    return {**{name: name for name in names}, **renamed}


_BN = _same("reduction_factor", "non_linearity")
_PHM = {
    "phm_dim": _whole(4, "number of summands of a Kronecker product; divides both widths"),
    "phm_rank": _rank(1),
}
_PREFIX = {
    "prefix_length": _whole(30, "prefix positions of each layer"),
    "bottleneck_size": _whole(512, "inner width of the network that makes the prefixes"),
}


def _bottleneck_row(
    name: str,
    summary: str,
    config: str,
    factor: float,
    activation: str,
    places: int,
    inverted: bool = False,
) -> Method:
    return Method(
        name,
        summary,
        "adapters",
        (Part(config, _BN),),
        _bn(factor, activation),
        counts.bottleneck(places, inverted),
        frozenset({"bottleneck"} | ({"parallel"} if name == "par_bn" else set())),
        stackable=name != "par_bn",
        invertible=inverted,
        roles=("language",) if inverted else ("language", "task"),
        fusible=name != "par_bn",
    )


def _peft_row(
    name: str,
    summary: str,
    config: str,
    parameters: dict[str, Parameter],
    share: Callable[[Resolved, int, int], int],
    *,
    fixed: Mapping[str, Any] | None = None,
    touches: str = "added",
    roles: tuple[str, ...] = ("language", "task"),
    misfits: Callable[[Resolved, Shape], Iterable[FieldFault]] | None = None,
    **renamed: str,
) -> Method:
    named = [n for n in parameters if n not in renamed.values()]
    return Method(
        f"peft_{name}",
        summary,
        "peft",
        (Part(config, _same(*named, **renamed), fixed or {}),),
        {**parameters, "targets": _targets()},
        counts.per_matrix(share),
        frozenset(touches.split()),
        roles=roles,
        misfits=misfits,
    )


_ROWS = (
    _bottleneck_row(
        "seq_bn",
        "bottleneck after the feed-forward block (Pfeiffer)",
        "SeqBnConfig",
        16.0,
        "relu",
        1,
    ),
    _bottleneck_row(
        "seq_bn_inv",
        "seq_bn with an invertible block (MAD-X)",
        "SeqBnInvConfig",
        2.0,
        "relu",
        1,
        inverted=True,
    ),
    _bottleneck_row(
        "double_seq_bn",
        "bottleneck after attention and feed-forward (Houlsby)",
        "DoubleSeqBnConfig",
        16.0,
        "swish",
        2,
    ),
    _bottleneck_row(
        "double_seq_bn_inv",
        "double_seq_bn with an invertible block",
        "DoubleSeqBnInvConfig",
        2.0,
        "swish",
        2,
        inverted=True,
    ),
    _bottleneck_row(
        "par_bn",
        "bottleneck beside the feed-forward block",
        "ParBnConfig",
        2.0,
        "relu",
        1,
    ),
    Method(
        "compacter",
        "double_seq_bn of low-rank Kronecker products (Karimi Mahabadi et al. 2021)",
        "adapters",
        (Part("CompacterConfig", {**_BN, **_same("phm_dim", "phm_rank")}),),
        {**_bn(32.0, "gelu"), **_PHM},
        counts.compacter(2),
        frozenset({"bottleneck"}),
        fusible=True,
        misfits=counts.phm_misfits,
    ),
    Method(
        "compacterpp",
        "Compacter++: seq_bn of low-rank Kronecker products",
        "adapters",
        (Part("CompacterPlusPlusConfig", {**_BN, **_same("phm_dim", "phm_rank")}),),
        {**_bn(32.0, "gelu"), **_PHM},
        counts.compacter(1),
        frozenset({"bottleneck"}),
        fusible=True,
        misfits=counts.phm_misfits,
    ),
    Method(
        "prefix_tuning",
        "learnt keys and values before those of the text (Li and Liang 2021)",
        "adapters",
        (Part("PrefixTuningConfig", _same(*_PREFIX, "flat", "dropout")),),
        {
            **_PREFIX,
            "flat": Parameter(bool, False, "prefixes as parameters, without the network"),
            "dropout": Parameter(float, 0.0, "dropout of the prefixes", low=0, below=1),
        },
        counts.prefix,
        frozenset({"prefix"}),
    ),
    Method(
        "lora",
        "low-rank updates of matrices (Hu et al. 2022)",
        "adapters",
        (Part("LoRAConfig", _same("r", "alpha", "dropout")),),
        {
            "r": _rank(8),
            "alpha": _alpha(8.0),
            "dropout": _DROPOUT,
            "targets": _targets("query-value", "attention", "attention-ffn"),
        },
        counts.lora,
        frozenset({"matrices"}),
    ),
    Method(
        "ia3",
        "scales keys, values and the feed-forward block's inner states (Liu et al. 2022)",
        "adapters",
        (Part("IA3Config"),),
        {},
        counts.ia3,
        frozenset({"matrices"}),
        matrices=("key", "value", "intermediate"),
    ),
    Method(
        "mam",
        "Mix-and-Match: prefixes and a parallel bottleneck (He et al. 2022)",
        "adapters",
        (Part("PrefixTuningConfig", _same(*_PREFIX)), Part("ParBnConfig", _BN)),
        {**_PREFIX, "bottleneck_size": _whole(800, _PREFIX["bottleneck_size"].doc)}
        | _bn(2.0, "relu"),
        lambda spec, shape: counts.prefix(spec, shape) + counts.bottleneck(1)(spec, shape),
        frozenset({"prefix", "bottleneck", "parallel"}),
        stackable=False,
    ),
    Method(
        "unipelt",
        "UniPELT: prefixes, bottleneck and low-rank updates, each gated (Mao et al. 2022)",
        "adapters",
        (
            Part("PrefixTuningConfig", _same(*_PREFIX), {"use_gating": True}),
            Part("SeqBnConfig", _BN, {"use_gating": True}),
            Part("LoRAConfig", _same("r", "alpha"), {"use_gating": True}),
        ),
        {**_PREFIX, "prefix_length": _whole(10, _PREFIX["prefix_length"].doc)}
        | {**_bn(16.0, "relu"), "r": _rank(8), "alpha": _alpha(2.0)},
        counts.unipelt,
        frozenset({"prefix", "bottleneck", "matrices"}),
        matrices=("query", "value"),
    ),
    _peft_row(
        *("lora", "peft's low-rank updates of matrices (Hu et al. 2022)", "LoraConfig"),
        {"r": _rank(8), "alpha": _alpha(8.0), "dropout": _DROPOUT},
        lambda spec, i, o: int(spec["r"]) * (i + o),
        lora_alpha="alpha",
        lora_dropout="dropout",
    ),
    _peft_row(
        *("dora", "low-rank updates of direction beside magnitudes (Liu et al. 2024)"),
        "LoraConfig",
        {"r": _rank(8), "alpha": _alpha(8.0), "dropout": _DROPOUT},
        lambda spec, i, o: int(spec["r"]) * (i + o) + o,
        fixed={"use_dora": True},
        lora_alpha="alpha",
        lora_dropout="dropout",
    ),
    Method(
        "peft_ia3",
        "peft's scaling of keys, values and the feed-forward block's inner states",
        "peft",
        (Part("IA3Config"),),
        {},
        counts.ia3,
        frozenset({"added"}),
        matrices=("key", "value", "output"),
    ),
    _peft_row(
        *("boft", "orthogonal rotations in blocks, with magnitudes; one butterfly factor"),
        "BOFTConfig",
        {"block_size": _whole(4, "width of a block; divides the inputs", 2)},
        lambda spec, i, o: i * int(spec["block_size"]) + o,
        fixed={"boft_n_butterfly_factor": 1},
        misfits=counts.block_misfits,
        boft_block_size="block_size",
    ),
    _peft_row(
        *("oft", "orthogonal rotations in blocks (Qiu et al. 2023)", "OFTConfig"),
        {"block_size": _whole(32, "width of a block; divides the inputs", 2)},
        lambda spec, i, o: i * (int(spec["block_size"]) - 1) // 2,
        misfits=counts.block_misfits,
        oft_block_size="block_size",
    ),
    _peft_row(
        *("vera", "vectors that scale random matrices which all layers share"),
        "VeraConfig",
        {
            "r": _rank(256),
            "dropout": _DROPOUT,
            "d_initial": Parameter(float, 0.1, "first value of the inner vector", above=0),
        },
        lambda spec, i, o: int(spec["r"]) + o,
        # peft finds no room for a second one, and training wears one for each language.
        roles=("task",),
        touches="added plain",
        fixed={"save_projection": False, "projection_prng_key": 0},
        vera_dropout="dropout",
    ),
    _peft_row(
        *("hra", "chains of Householder reflections (Yuan et al. 2024)", "HRAConfig"),
        {"r": _rank(8)},
        lambda spec, i, o: int(spec["r"]) * i,
        touches="replaced",
    ),
    _peft_row(
        *("loha", "Hadamard products of two low-rank updates (Hyeon-Woo et al. 2022)"),
        "LoHaConfig",
        {"r": _rank(8), "alpha": _alpha(8.0)},
        lambda spec, i, o: 2 * int(spec["r"]) * (i + o),
    ),
    _peft_row(
        *("randlora", "full-rank updates from scaled random bases (Albert et al. 2025)"),
        "RandLoraConfig",
        {"r": _rank(32), "alpha": _alpha(640.0), "dropout": _DROPOUT},
        counts.randlora,
        touches="added plain",
        fixed={"save_projection": False, "projection_prng_key": 0},
        randlora_alpha="alpha",
        randlora_dropout="dropout",
    ),
    _peft_row(
        *("fourierft", "updates from few Fourier coefficients (Gao et al. 2024)"),
        "FourierFTConfig",
        {
            "n_frequency": _whole(1000, "coefficients of each matrix"),
            "scaling": Parameter(float, 150.0, "of the update", above=0),
        },
        lambda spec, i, o: int(spec["n_frequency"]),
        fixed={"init_weights": True, "random_loc_seed": 777},
        misfits=counts.frequency_misfits,
    ),
    Method(
        "full",
        "all weights of the encoder, trained on a copy: the reference, never a default",
        "none",
        (),
        {},
        counts.full,
        frozenset({"backbone"}),
        roles=("task",),
        leaves_out=False,
    ),
)

METHODS: Mapping[str, Method] = MappingProxyType({row.name: row for row in _ROWS})


def clash(lower: str, upper: str) -> str:
    """Why adapters of these methods cannot stand in one stack, or an empty string.

    Each pair of methods has been run: `tests/compute/test_methods_compute.py`.
    """
    below, above = METHODS[lower], METHODS[upper]
    ways, both = below.touches | above.touches, below.touches & above.touches
    if "bottleneck" in both and "parallel" in ways:
        return "a parallel bottleneck puts itself in the place of another one in its layer"
    if "matrices" in both and (lower, upper) != ("ia3", "ia3"):
        return f"{upper} takes the update of {lower} for its input, in place of the hidden states"
    if below.library == "peft" and "plain" in above.touches:
        return f"peft puts {upper} on plain matrices only, not on those of {lower}"
    if lower == upper or "peft" not in (below.library, above.library):
        return ""
    if "replaced" in above.touches and below.touches & {"matrices", "added"}:
        return f"{upper} computes from the backbone's weights and passes {lower} by"
    if "replaced" in below.touches and "backbone" in above.touches:
        return (
            f"{lower} reads the backbone's weights without gradients, which {upper} trains them by"
        )
    if "replaced" in below.touches and "matrices" in above.touches:
        return f"{lower} computes from the backbone's weights and passes {upper} by"
    return ""


def target_matrices(spec: Resolved) -> tuple[str, ...]:
    """The matrices of a layer that a resolved specification acts on."""
    return METHODS[spec["method"]].matrices or TARGETS[spec["targets"]]
