"""Configurations of `adapters` that no method here stands for, and adapters of other backbones."""

from __future__ import annotations

import json

from cases import MANY, NO_METHOD, NO_PLACE, OPEN, Case, near, of_peft, pos
from crafting import GONE, content, fields, inner

CONFIGS = {
    "neither format": near(fields(config=GONE), "is of neither adapters", "nor peft"),
    "a configuration without a version": near(
        fields(version=GONE, model_class=GONE, model_type=GONE), "is of neither adapters"
    ),
    "both formats": near(fields(peft_type="LORA"), "there is no adapter_model.safetensors"),
    "a configuration that is a list": near(fields(config=[1]), "it has no configuration"),
    "a configuration that is nothing": near(fields(config=None), "it has no configuration"),
    "an unknown name": near(
        fields(config="<b>../../x"), r"no method here is called '\x3cb\x3e../../x'"
    ),
    "an unknown field": near(inner(apply_twice=True), f"{NO_METHOD} 'apply_twice' True"),
    "an unknown field with a long value": near(inner(x=["y" * 90_000]), f"{NO_METHOD} 'x' ['yyy"),
    "an unknown field with a long name": near(inner(**{"z" * 90_000: 1}), f"{NO_METHOD} 'zzz"),
    "another scaling": near(inner(scaling=2.0), f"{NO_METHOD} 'scaling' 2.0"),
    "a learnt scaling": near(inner(scaling="learned"), f"{NO_METHOD} 'scaling' 'learned'"),
    "a norm after": near(inner(ln_after=True), f"{NO_METHOD} 'ln_after' True"),
    "no residual": near(inner(residual_before_ln=False), f"{NO_METHOD} 'residual_before_ln' False"),
    "no word on the residual": near(
        inner(residual_before_ln=None), f"{NO_METHOD} 'residual_before_ln' None"
    ),
    "a residual of the adapter": near(
        inner(adapter_residual_before_ln=True), f"{NO_METHOD} 'adapter_residual_before_ln'"
    ),
    "another norm before": near(
        inner(original_ln_before=False), f"{NO_METHOD} 'original_ln_before'"
    ),
    "gates": near(inner(use_gating=True), f"{NO_METHOD} 'use_gating' True"),
    "a factor of nothing": near(inner(reduction_factor=0), "reduction_factor", "out of range"),
    "a factor below zero": near(inner(reduction_factor=-2), f"{NO_METHOD} 'reduction_factor' -2"),
    "a factor of a billionth": near(inner(reduction_factor=1e-9), "reduction_factor' 1e-09"),
    "a factor near nothing": near(inner(reduction_factor=5e-324), "reduction_factor' 5e-324"),
    "a factor for each layer": near(
        inner(reduction_factor={"1": 2, "default": 16}), f"{NO_METHOD} 'reduction_factor' {{'1'"
    ),
    "a factor that is a text": near(inner(reduction_factor="2"), "'reduction_factor' '2'"),
    "a factor that is a truth value": near(inner(reduction_factor=True), "'reduction_factor' True"),
    "another factor": near(inner(reduction_factor=4), "is (16,), not (8,)"),
    "a factor that describes too much": near(
        inner(reduction_factor=0.001), "its configuration describes", "parameters, and its file has"
    ),
    "code for an activation": near(
        inner(non_linearity="__import__('os').system('x')"), f"{NO_METHOD} 'non_linearity'"
    ),
    "markup for an activation": near(inner(non_linearity="<script>"), r"'\x3cscript\x3e'"),
    "control characters for an activation": near(
        inner(non_linearity="\x1b[31m\n" * 1000), r"'non_linearity' '\x1b[31m\n\x1b"
    ),
    "a list for an activation": near(inner(non_linearity=["relu"]), "non_linearity"),
    "a method in its place": near(inner(method="full"), f"{NO_METHOD} 'method' 'full'"),
    "all layers left out": near(inner(leave_out=[0, 1]), "leave_out [0, 1] of the layers 0 to 1"),
    "a layer left out that is none": near(inner(leave_out=[7]), "leave_out [7] of the layers"),
    "a layer left out from the end": near(inner(leave_out=[-1]), f"{NO_METHOD} 'leave_out' [-1]"),
    "a billion left out": near(inner(leave_out=[MANY]), f"{NO_METHOD} 'leave_out'"),
    "20,000 left out": near(inner(leave_out=[0] * 20_000), f"{NO_METHOD} 'leave_out' [0, 0"),
    "a layer left out after all": near(inner(leave_out=[1]), "layer.1.", NO_PLACE),
    "another invertible block": near(inner(inv_adapter="glow"), f"{NO_METHOD} 'inv_adapter'"),
    "another factor of that block": near(
        inner(inv_adapter_reduction_factor=4), f"{NO_METHOD} 'inv_adapter' 'nice / 4'"
    ),
    "a block of the first dialect": near(
        inner(invertible_adapter={"block_type": ["glow"]}), f"{NO_METHOD} 'inv_adapter'"
    ),
    "a block of no dialect": near(inner(invertible_adapter="nice"), "invertible_adapter"),
    "nowhere": near(inner(output_adapter=False), f"{NO_METHOD} 'mh_adapter, output_adapter"),
    "both places": near(inner(mh_adapter=True), "original_ln_before"),
    "a place that is a number": near(inner(mh_adapter=1), f"{NO_METHOD} 'mh_adapter' 1"),
    "parallel": near(inner(is_parallel=True), f"{NO_METHOD} 'mh_adapter"),
    "low rank": near(inner(phm_layer=True), f"{NO_METHOD} 'mh_adapter"),
    "low rank of a billion": pos(inner(phm_layer=True, phm_rank=MANY), "describes"),
    "low rank of odd parts": pos(inner(phm_layer=True, phm_dim=7), "phm_dim 7 does not divide"),
    "another architecture": near(
        inner(architecture="union"), f"{NO_METHOD} 'architecture' 'union'"
    ),
    "an architecture that is a list": near(
        inner(architecture=["lora"]), f"{NO_METHOD} 'architecture'"
    ),
    "fields of another method": near(inner(r=8, alpha=8), f"{NO_METHOD} 'alpha' 8"),
    "the architecture of another": near(inner(architecture="prefix_tuning"), f"{NO_METHOD}"),
    "matrices in no order that is known": Case(
        "lora", inner(attn_matrices=[["q"], "v"]), (f"{NO_METHOD} 'attn_matrices'",), OPEN
    ),
    "matrices that are objects": Case(
        "lora", inner(attn_matrices=[{}]), (f"{NO_METHOD} 'attn_matrices'",), OPEN
    ),
    "a rank of a billion": Case("lora", inner(r=MANY), ("describes 256,000,000,000",), OPEN),
    "a rank of nothing": Case("lora", inner(r=0), ("r: 0 is out of range",), OPEN),
    "a rank that is a fraction": Case("lora", inner(r=4.0), (f"{NO_METHOD} 'r' 4.0",), OPEN),
    "another rank": Case("lora", inner(r=8), ("is (4, 32), not (8, 32)",), OPEN),
    "no alpha": Case("lora", inner(alpha=GONE), (f"{NO_METHOD} 'alpha' None",), OPEN),
    "VeRA in its place": Case("lora", inner(vera_d=0.1), (f"{NO_METHOD} 'vera_d' 0.1",), OPEN),
    "DoRA in its place": Case("lora", inner(use_dora=True), (f"{NO_METHOD} 'use_dora'",), OPEN),
    "no word on attention": Case(
        "lora", inner(selfattn_lora=None), (f"{NO_METHOD} 'selfattn_lora' None",), OPEN
    ),
    "scaled in place of added": Case(
        "lora", inner(composition_mode="scale"), (f"{NO_METHOD} 'composition_mode'",), OPEN
    ),
    "prefixes of a billion": Case(
        "prefix", inner(prefix_length=MANY), ("its configuration describes",), OPEN
    ),
    "prefixes in another network": Case(
        "prefix", inner(non_linearity="relu"), (f"{NO_METHOD} 'non_linearity' 'relu'",), OPEN
    ),
}


# --- which backbone ------------------------------------------------------------------------------

DIGESTS = {"weights": "0" * 64, "tokenizer": "0" * 64, "config": "0" * 64}
BASES = {
    "another hidden size": near(fields(hidden_size=768), "for a hidden size of 768", "has 32"),
    "a hidden size that is a text": near(fields(hidden_size="32"), "hidden_size is '32'"),
    "another type of model": near(
        fields(model_type="bert"), "it is for models of type 'bert', and the backbone has"
    ),
    "a type of model with an escape": near(
        fields(model_type="\x1b[31m"), r"model_type is '\x1b[31m'"
    ),
    "another backbone": near(
        fields(model_name="google-bert/bert-base-multilingual-cased"),
        "it was made for 'google-bert/bert-base-multilingual-cased'",
        "say base: google-bert/",
    ),
    "a backbone with a name in two lines": near(
        fields(model_name="a\nadapterxlt: all is well"), r"model_name is 'a\nadapterxlt"
    ),
    "a backbone with markup": near(fields(model_name="<b>x</b>"), r"model_name is '\x3cb\x3ex"),
    "a backbone with a name from the right": near(
        fields(model_name="\u202eesab-mlx"), r"model_name is '\u202eesab"
    ),
    "a backbone with a long name": near(fields(model_name="x" * 10_000), "model_name is 'xxx"),
    "a backbone that is a list": near(fields(model_name=["x"]), "model_name is ['x']"),
    "an export of another backbone": near(
        content("adapterxlt.json", json.dumps({"backbone": DIGESTS})),
        "trained on a backbone with other weights",
    ),
    "an export of no backbone": near(
        content("adapterxlt.json", json.dumps({"backbone": {}})), "with other weights"
    ),
    "an export that is not JSON": near(
        content("adapterxlt.json", "{"), "adapterxlt.json: not JSON"
    ),
    "an export whose backbone is a list": near(
        content("adapterxlt.json", json.dumps({"backbone": [1]})), "adapterxlt.json"
    ),
    "peft of another backbone": of_peft(
        fields(base_model_name_or_path="/etc/../FacebookAI/xlm-roberta-base"), "it was made for"
    ),
}
