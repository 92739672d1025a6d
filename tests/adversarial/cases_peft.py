"""Configurations of `peft` that no method here stands for."""

from __future__ import annotations

from cases import MANY, NO_METHOD, NO_PLACE, Case, of_peft
from crafting import GONE, fields

SLOW = [
    r"(\w|.)" * 49 + "Q",
    r"(a|.|\w)" * 30,
    ".*.*.*.*.*.*.*x",
    "(.*)*x",
    "(.+)+x",
    r"(.*)\1\1\1x",
    "((((((((((a|.)(a|.)(a|.)(a|.)(a|.)(a|.)(a|.)(a|.)(a|.)(a|.)x",
    "(" * 150 + ")" * 150,
]
PEFT = {
    "an unknown method": of_peft(fields(peft_type="UNKNOWN"), f"{NO_METHOD} 'peft_type' 'UNKNOWN'"),
    "a method that is a list": of_peft(fields(peft_type=["LORA"]), f"{NO_METHOD} 'peft_type'"),
    "no method": of_peft(fields(peft_type=None), f"{NO_METHOD} 'peft_type' None"),
    "neither of the formats": of_peft(fields(peft_type=GONE), "is of neither adapters"),
    "a configuration of adapters besides": of_peft(
        fields(config={"r": 4}), f"{NO_METHOD} 'config'"
    ),
    "ranks by pattern": of_peft(fields(rank_pattern={"query": 8}), f"{NO_METHOD} 'rank_pattern'"),
    "alphas by pattern": of_peft(
        fields(alpha_pattern={"query": 8}), f"{NO_METHOD} 'alpha_pattern'"
    ),
    "another scaling": of_peft(fields(use_rslora=True), f"{NO_METHOD} 'use_rslora' True"),
    "all biases": of_peft(fields(bias="all"), f"{NO_METHOD} 'bias' 'all'"),
    "biases of its own": of_peft(fields(lora_bias=True), f"{NO_METHOD} 'lora_bias' True"),
    "layers again": of_peft(fields(layer_replication=[[0, 2]]), f"{NO_METHOD} 'layer_replication'"),
    "tokens of its own": of_peft(
        fields(trainable_token_indices=[1]), f"{NO_METHOD} 'trainable_token_indices'"
    ),
    "parameters in place of modules": of_peft(
        fields(target_parameters=["x"]), f"{NO_METHOD} 'target_parameters'"
    ),
    "routes between adapters": of_peft(
        fields(arrow_config={"top_k": 3}), f"{NO_METHOD} 'arrow_config'"
    ),
    "modules kept whole": of_peft(
        fields(modules_to_save=["word_embeddings"]), f"{NO_METHOD} 'modules_to_save'"
    ),
    "modules kept whole that are a text": of_peft(
        fields(modules_to_save="pooler"), f"{NO_METHOD} 'modules_to_save' 'pooler'"
    ),
    "weights drawn from the backbone's": of_peft(
        fields(init_lora_weights="pissa"), f"{NO_METHOD} 'init_lora_weights' 'pissa'"
    ),
    "weights drawn from a list": of_peft(fields(init_lora_weights=["x"]), "'init_lora_weights'"),
    "a rank of a billion": of_peft(fields(r=MANY), "its configuration describes 256,000,000,000"),
    "a rank below zero": of_peft(fields(r=-4), f"{NO_METHOD} 'r' -4"),
    "a rank that is a truth value": of_peft(fields(r=True), f"{NO_METHOD} 'r' True"),
    "another alpha than a number": of_peft(
        fields(lora_alpha="16"), f"{NO_METHOD} 'lora_alpha' '16'"
    ),
    "an unknown field": of_peft(fields(kasa_config={"x": 1}), f"{NO_METHOD} 'kasa_config'"),
    "DoRA without magnitudes": of_peft(fields(use_dora=True), "4 of 12 tensors are missing"),
    "targets that are a path": of_peft(
        fields(target_modules="../../etc/passwd"), f"{NO_METHOD} 'target_modules' '../../etc"
    ),
    "targets that are none": of_peft(fields(target_modules=[]), f"{NO_METHOD} 'target_modules' []"),
    "targets that are nothing": of_peft(
        fields(target_modules=None), f"{NO_METHOD} 'target_modules'"
    ),
    "targets that are lists": of_peft(
        fields(target_modules=[["query"]]), f"{NO_METHOD} 'target_modules'"
    ),
    "100,000 targets": of_peft(
        fields(target_modules=["query"] * 100_000), f"{NO_METHOD} 'target_modules'"
    ),
    "targets that are elsewhere": of_peft(
        fields(target_modules=["q_proj"]), f"{NO_METHOD} 'target_modules' ['q_proj']"
    ),
    "targets with markup": of_peft(fields(target_modules="<b>"), r"'target_modules' '\x3cb\x3e'"),
    "other targets": of_peft(fields(target_modules=["query", "key"]), f"{NO_METHOD} 'matrices'"),
    "an expression that is none": of_peft(
        fields(target_modules="(query"), f"{NO_METHOD} 'target_modules'"
    ),
    "an expression that warns": of_peft(
        fields(target_modules="[[query]"), f"{NO_METHOD} 'target_modules'"
    ),
    **{
        f"an expression that takes for ever, {i}": of_peft(
            fields(target_modules=text), f"{NO_METHOD} 'target_modules'"
        )
        for i, text in enumerate(SLOW)
    },
    "layers beyond the backbone": of_peft(
        fields(layers_to_transform=[99]), f"{NO_METHOD} 'layers_to_transform' [99]"
    ),
    "layers that are texts": of_peft(
        fields(layers_to_transform=["0"]), f"{NO_METHOD} 'layers_to_transform'"
    ),
    "a layer less": of_peft(fields(layers_to_transform=[0]), "layer.1.", NO_PLACE),
    "another pattern of layers": of_peft(
        fields(layers_pattern="h"), f"{NO_METHOD} 'layers_pattern'"
    ),
    "other targets of (IA)³": Case(
        "ia3", fields(target_modules=["key"]), (f"{NO_METHOD} 'target_modules' ['key']",)
    ),
    "(IA)³ without a feed-forward block": Case(
        "ia3", fields(feedforward_modules=[]), (f"{NO_METHOD} 'feedforward_modules' []",)
    ),
    "transposed matrices": Case(
        "ia3", fields(fan_in_fan_out=True), (f"{NO_METHOD} 'fan_in_fan_out'",)
    ),
}
