"""Tensors that are missing, left over, of another shape or type, or under names that mean harm."""

from __future__ import annotations

import math

import numpy as np
from cases import CANNOT, MISSING, NO_PLACE, NOT_FINITE, SAME, Case, near, odd, of_peft
from crafting import Arrays, Typed, besides, one_of, renamed, replaced, tensors


def halved(arrays: Arrays) -> Arrays:
    return dict(list(arrays.items())[: len(arrays) // 2])


def without_layer(arrays: Arrays) -> Arrays:
    return {name: values for name, values in arrays.items() if ".layer.1." not in name}


def duplicated(arrays: Arrays) -> Arrays:
    """The whole adapter again, under the name of another one."""
    other = {name.replace(".near.", ".far."): values for name, values in arrays.items()}
    return {**arrays, **other}


OWN = "roberta.encoder.layer.0.output.dense.weight"
NAN = Typed("BF16", [0x7FC0] * 16)
WEIGHTS = {
    "half the weights": near(tensors(halved), "8 of 16 tensors are missing"),
    "a layer's weights missing": near(tensors(without_layer), "4 of 16", MISSING),
    "only a bias missing": near(
        tensors(lambda a: {n: v for n, v in a.items() if n != one_of(a, "adapter_up.bias")}),
        "1 of 16",
        "adapter_up.bias' among them",
    ),
    "no invertible block": near(
        tensors(lambda a: {n: v for n, v in a.items() if "invertible" not in n}), "8 of 16"
    ),
    "one tensor more": near(besides("more", (4,)), "the tensor 'more' has no place here"),
    "a layer that the backbone has not": near(
        besides(lambda own: own.replace("layer.0", "layer.7")), "layer.7.", NO_PLACE
    ),
    "the backbone's own weights": near(
        besides(OWN, (32, 64)), OWN.removeprefix("roberta."), NO_PLACE
    ),
    "the backbone's own embeddings": near(
        besides("roberta.embeddings.word_embeddings.weight", (500, 32)), "word_embeddings", NO_PLACE
    ),
    "the masked-LM head": near(besides("lm_head.dense.weight", (32, 32)), "lm_head", NO_PLACE),
    "a head among the adapter's weights": near(
        besides("heads.near.1.weight", (11, 32)), "heads.@.1.weight", NO_PLACE
    ),
    "a classifier among the adapter's weights": near(
        besides("classifier.weight", (11, 32)), "heads.@.1.weight", NO_PLACE
    ),
    "two adapters' weights, one layer of each": near(
        tensors(
            lambda a: {
                n.replace("layer.1.output.adapters.near", "layer.1.output.adapters.far"): v
                for n, v in a.items()
            }
        ),
        "the tensors are of 2 adapters",
    ),
    "a name of ours for the adapter": near(
        tensors(lambda a: {n.replace(".near.", ".@."): v for n, v in a.items()}), NO_PLACE
    ),
    "a name of ours elsewhere": near(
        renamed("adapter_up", lambda own: own.replace(".layer.", ".@.layer.")), NO_PLACE
    ),
    "another adapter's weights besides": near(tensors(duplicated), SAME),
    "a name that means the same": near(besides(lambda own: f"model.{own}"), SAME),
    "a name of the predecessor besides": near(
        besides(lambda own: own.replace("output.adapters", "output.layer_text_lang_adapters")), SAME
    ),
    "a name that looks the same": near(
        renamed("adapter_down", lambda own: own.replace("adapter_down", "adаpter_down")),
        r"ad\u0430pter_down",
        NO_PLACE,
    ),
    "a name in other letters": near(renamed("adapter_up", str.upper), NO_PLACE),
    "a name that climbs": near(
        renamed("adapter_up", lambda own: f"../../{own}"), "'../../rob", NO_PLACE
    ),
    "a name that is a path": near(besides("/etc/cron.d/x", (4,)), "'/etc/cron", NO_PLACE),
    "a name of Windows": near(besides("C:\\nul\\..\\x", (4,)), NO_PLACE),
    "a name with control characters": near(
        besides("\x1b]0;x\x07\n\u202e", (4,)), r"\x1b]0;x\x07\n\u202e"
    ),
    "a name with markup": near(besides("<img src=x onerror=alert(1)>", (4,)), r"\x3cimg", NO_PLACE),
    "a name with dots for the adapter": near(
        tensors(lambda a: {n.replace(".near.", ".ne.ar."): v for n, v in a.items()}), NO_PLACE
    ),
    "no name for the adapter": near(
        tensors(lambda a: {n.replace(".near.", "."): v for n, v in a.items()}), SAME
    ),
    "a name of dots alone": near(besides("....", (4,)), NO_PLACE),
    "not a number": near(
        replaced("adapter_up.weight", odd(math.nan)), "1 of the numbers of", NOT_FINITE
    ),
    "infinity": near(replaced("adapter_up.bias", odd(math.inf)), NOT_FINITE),
    "infinity in half precision": near(
        replaced("adapter_up.bias", lambda v: Typed("F16", odd(-math.inf)(v))), NOT_FINITE
    ),
    "no number in bfloat16": near(
        replaced("adapter_down.0.bias", lambda v: NAN), "16 of the numbers", NOT_FINITE
    ),
    "a transposed matrix": near(
        replaced("adapter_down.0.weight", lambda v: v.T), "is (32, 16), not (16, 32)"
    ),
    "a flat matrix": near(replaced("adapter_down.0.weight", np.ravel), "is (512,), not (16, 32)"),
    "a matrix in one more dimension": near(
        replaced("adapter_down.0.weight", lambda v: v[None]), "is (1, 16, 32), not (16, 32)"
    ),
    "a number for a vector": near(replaced("adapter_up.bias", np.sum), "is (), not (32,)"),
    "another width": near(
        replaced("adapter_up.weight", lambda v: v[:, :8]), "is (32, 8), not (32, 16)"
    ),
    "another hidden size": near(
        tensors(lambda a: {n: np.zeros([2 * s for s in v.shape]) for n, v in a.items()}), ", not ("
    ),
    "double precision": near(
        replaced("adapter_up.bias", lambda v: Typed("F64", v)), "is of type 'F64', not F32"
    ),
    "whole numbers": near(replaced("adapter_up.bias", lambda v: Typed("I8", v)), "is of type 'I8'"),
    "truth values": near(
        replaced("adapter_up.bias", lambda v: Typed("BOOL", v)), "is of type 'BOOL'"
    ),
    "a tensor without numbers": near(replaced("adapter_up.bias", lambda v: v[:0]), CANNOT),
    "(IA)³ with a missing vector": Case(
        "ia3", tensors(lambda a: dict(list(a.items())[1:])), ("1 of 6 tensors are missing",)
    ),
    "(IA)³ with a vector on its side": Case(
        "ia3", replaced("key.ia3_l", lambda v: v.T), ("is (1, 32), not (32, 1)",)
    ),
    "peft with half the weights": of_peft(tensors(halved), "4 of 8 tensors are missing"),
    "peft with exchanged matrices": of_peft(
        tensors(
            lambda a: {
                n.replace("lora_A", "x").replace("lora_B", "lora_A").replace("x", "lora_B"): v
                for n, v in a.items()
            }
        ),
        ", not (",
    ),
    "peft with a tensor more": of_peft(
        besides("base_model.model.encoder.layer.0.output.dense.lora_A.weight", (4, 64)), NO_PLACE
    ),
    "peft with the backbone's own weights": of_peft(
        besides("base_model.model.encoder.layer.0.attention.self.query.weight", (32, 32)), NO_PLACE
    ),
    "peft with its own idea of a base layer": of_peft(
        besides(
            "base_model.model.encoder.layer.0.attention.self.query.base_layer.weight", (32, 32)
        ),
        NO_PLACE,
    ),
    "peft with a head of adapters": of_peft(besides("heads.x.1.weight", (11, 32)), NO_PLACE),
    "peft with an unknown head": of_peft(
        besides("base_model.model.score.weight", (3, 32)), "a head of ['score"
    ),
    "peft with embeddings": of_peft(
        besides("base_model.model.embeddings.word_embeddings.weight", (500, 32)), NO_PLACE
    ),
    "peft with a matrix kept whole": of_peft(
        besides("base_model.model.pooler.modules_to_save.dense.weight", (32, 32)), NO_PLACE
    ),
}
