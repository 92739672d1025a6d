"""Heads and their labels."""

from __future__ import annotations

import json
import math

import numpy as np
from cases import MANY, NO_METHOD, NO_PLACE, NOT_FINITE, SAME, TAGS, Case, odd, pos
from crafting import (
    HEAD,
    HEAD_CONFIG,
    LABELS,
    fields,
    head,
    instead,
    member,
    tensors,
    together,
)

from adapterxlt.core.errors import UsageError


def numbered(labels: list[str]) -> dict[str, int]:
    return {label: i for i, label in enumerate(labels)}


NUMBERED = "the label map does not number its labels"
HEADS = {
    "other labels": pos(
        head(label2id=numbered([f"X{i}" for i in range(11)])), "labels are not the task's", "ADJ"
    ),
    "a label that looks the same": pos(
        head(label2id=numbered(["ΑDJ", *LABELS[1:]])), "labels are not the task's", r"\u0391DJ"
    ),
    "a label less": pos(head(label2id=numbered(LABELS[:-1])), "10 labels of 11 outputs"),
    "labels with one number": pos(head(label2id=dict.fromkeys(LABELS, 0)), NUMBERED),
    "labels from one": pos(
        head(label2id={label: i + 1 for i, label in enumerate(LABELS)}), NUMBERED
    ),
    "labels with texts for numbers": pos(
        head(label2id={label: str(i) for i, label in enumerate(LABELS)}), NUMBERED
    ),
    "labels with truth values": pos(head(label2id={"a": False, "b": True}), NUMBERED),
    "labels in a list": pos(head(label2id=LABELS), NUMBERED),
    "no labels": pos(head(label2id={}), NUMBERED),
    "50,000 labels": pos(head(label2id={f"{i:x}": i for i in range(50_000)}), NUMBERED),
    "an empty label": pos(head(label2id=numbered(["", *LABELS[1:]])), "the label '' is not plain"),
    "a label with markup": pos(
        head(label2id=numbered(["<img src=x>", *LABELS[1:]])),
        r"the label '\x3cimg",
        "not plain text",
    ),
    "a label with an escape": pos(
        head(label2id=numbered(["\x1b[31m", *LABELS[1:]])), r"the label '\x1b[31m' is not plain"
    ),
    "a label from the right": pos(
        head(label2id=numbered(["\u202eJDA", *LABELS[1:]])), r"the label '\u202eJDA' is not plain"
    ),
    "half a character for a label": pos(
        head(label2id=numbered(["\ud800", *LABELS[1:]])), r"the label '\ud800' is not plain"
    ),
    "a long label": pos(head(label2id=numbered(["x" * 5000, *LABELS[1:]])), "is not plain text"),
    "a label of two lines twice": pos(
        member("x", '{"a\\n": 1, "a\\n": 2}', HEAD_CONFIG), r"the key 'a\n' is there twice"
    ),
    "labels that are not said": Case(
        "pos",
        head(label2id=None),
        ("the head does not say its labels", "say labels:"),
        TAGS,
        UsageError,
    ),
    "labels given twice": pos(
        head(label2id=None), "labels are not the task's", labels=(*LABELS[:-1], LABELS[0])
    ),
    "more outputs": pos(
        together(
            head(num_labels=12),
            tensors(lambda a: {n: np.concatenate([v, v[:1]]) for n, v in a.items()}, HEAD),
        ),
        "11 labels of 12 outputs",
    ),
    "more outputs than are said": pos(
        tensors(lambda a: {n: np.concatenate([v, v[:1]]) for n, v in a.items()}, HEAD),
        "is (12",
        ", not (11",
    ),
    "a billion outputs": pos(
        head(num_labels=MANY, label2id=None), "a head with 1000000000 outputs"
    ),
    "no outputs": pos(head(num_labels=0, label2id=None), "a head with 0 outputs"),
    "outputs that are a list": pos(head(num_labels=[11]), f"{NO_METHOD} 'num_labels' [11]"),
    "another kind of head": pos(head(head_type="dependency_parsing"), f"{NO_METHOD} 'head_type'"),
    "a kind that is a list": pos(
        head(head_type=["tagging"]), f"{NO_METHOD} 'head_type' ['tagging']"
    ),
    "no layers": pos(head(layers=0), f"{NO_METHOD} 'layers, activation_function' (0, "),
    "nine layers": pos(head(layers=9), f"{NO_METHOD} 'layers, activation_function' (9, "),
    "two layers of one": pos(head(layers=2, activation_function="tanh"), "is (11,), not (32,)"),
    "code for a head's activation": pos(
        head(layers=2, activation_function="__import__('os')"), f"{NO_METHOD} 'layers, activation"
    ),
    "a head without bias": pos(head(bias=False), f"{NO_METHOD} 'bias' False"),
    "a head on a pooler": pos(head(use_pooler=True), f"{NO_METHOD} 'use_pooler' True"),
    "a head with an unknown field": pos(head(gate="x"), f"{NO_METHOD} 'gate' 'x'"),
    "a head of a class that is unknown": pos(
        fields(HEAD_CONFIG, config=None, model_class="<os.system>"),
        "a head of '",
        "cannot be taken",
    ),
    "a head with weights missing": pos(
        tensors(lambda a: dict(list(a.items())[:1]), HEAD), "1 of 2 tensors are missing"
    ),
    "a head with a tensor more": pos(
        tensors(lambda a: {**a, "heads.pos.9.weight": np.ones(3)}, HEAD), NO_PLACE
    ),
    "two heads in one file": pos(
        tensors(lambda a: {**a, **{n.replace(".pos.", ".x."): v + 1 for n, v in a.items()}}, HEAD),
        SAME,
    ),
    "a head with no number": pos(
        tensors(lambda a: {n: odd(math.nan)(v) for n, v in a.items()}, HEAD), NOT_FINITE
    ),
    "a transposed head": pos(
        tensors(lambda a: {n: v.T if v.ndim > 1 else v for n, v in a.items()}, HEAD), "is (32, 11)"
    ),
    "a head of another hidden size": pos(
        tensors(lambda a: {n: v[:, :16] if v.ndim > 1 else v for n, v in a.items()}, HEAD),
        "is (11, 16)",
    ),
    "a head that is a link": pos(
        instead(HEAD, lambda path: path.symlink_to("/dev/zero")), f"{HEAD} is a link"
    ),
    "a head's configuration of two MiB": pos(
        member("x", json.dumps("x" * (2 << 20)), HEAD_CONFIG), f"{HEAD_CONFIG} has "
    ),
    "peft's head with other outputs": Case(
        "tagger",
        tensors(lambda a: {n: v[:5] if "classifier" in n else v for n, v in a.items()}),
        ("11 labels of 5 outputs",),
        {**TAGS, "labels": tuple(LABELS)},
    ),
    "peft's head twice": Case(
        "tagger",
        tensors(lambda a: {**a, **{f"x.{n}": v for n, v in a.items() if "classifier" in n}}),
        (SAME,),
        {**TAGS, "labels": tuple(LABELS)},
    ),
    "peft's head with half its weights": Case(
        "tagger",
        tensors(lambda a: {n: v for n, v in a.items() if "classifier.bias" not in n}),
        ("a head of ['classifier.weight']",),
        {**TAGS, "labels": tuple(LABELS)},
    ),
}
