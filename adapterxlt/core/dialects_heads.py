"""What the heads that come with adapters are, as the ones that can be put on a backbone here.

As in `core.dialects`: understood whole, or refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from adapterxlt.core.adoption import Head
from adapterxlt.core.dialects import Config, quoted
from adapterxlt.core.errors import RefusedError

_HEADS = {
    "tagging": "tagging",
    "classification": "classification",
    "question_answering": "qa",
    "multiple_choice": "choice",
}
#: Classes of transformers whose head is one matrix on the last layer.
_STATIC = {"ForTokenClassification": "tagging", "ForQuestionAnswering": "qa"}


def head_of_adapters(config: Mapping[str, Any], where: str) -> Head | None:
    """The head that a ``head_config.json`` describes; nothing for one of masked language modelling,
    which language adapters may come with.

    Raises:
        RefusedError: a head that cannot be put on a backbone here.
    """
    values, owner = config.get("config"), str(config.get("model_class"))
    if isinstance(values, dict):
        given = Config(values, where)
        kind = given.take("head_type")
        if kind in ("masked_lm", "causal_lm"):
            return None
        if not isinstance(kind, str) or kind not in _HEADS:
            raise given.refuse("head_type", kind)
        layers = given.number("layers", 1, whole=True)
        activation = given.take("activation_function")
        choices = given.take("num_choices")
        outputs = (
            1 if kind == "multiple_choice" else given.number("num_labels", choices, whole=True)
        )
        labels = _labels(given.take("label2id"), where)
        given.take("dropout_prob")
        given.take("num_labels")
        given.same({"bias": True, "use_pooler": False})
        given.done()
        known = ("tanh", "relu", "gelu", "gelu_new", "swish")
        if layers not in (1, 2) or (layers == 2 and activation not in known):
            raise given.refuse("layers, activation_function", (layers, activation))
        head = {"kind": _HEADS[kind], "labels": labels, "outputs": outputs, "layers": layers}
        return _head({**head, "activation": activation if layers == 2 else None}, where)
    if owner.endswith(("ForMaskedLM", "LMHeadModel")):
        return None
    kind = next((kind for end, kind in _STATIC.items() if owner.endswith(end)), None)
    if kind is None:
        raise RefusedError(f"a head of {quoted(owner)} cannot be taken over", where=where)
    labels = _labels(config.get("label2id"), where)
    outputs = 2 if kind == "qa" else config.get("num_labels") or len(labels or ())
    return _head({"kind": kind, "labels": labels, "outputs": outputs, "layers": 1}, where)


def head_of_peft(shapes: Mapping[str, tuple[int, ...]], where: str) -> Head | None:
    """The head among the tensors of an adapter of `peft`, which does not say its labels.

    Args:
        shapes: of all tensors by name.

    Raises:
        RefusedError: a head that cannot be put on a backbone here.
    """
    found = {}
    for name, shape in shapes.items():
        place = re.search(r"(?:^|\.)(classifier|qa_outputs|score)\.(.+)$", name)
        if place is not None:
            found[f"{place[1]}.{place[2]}"] = shape
    if not found:
        return None
    kinds: dict[frozenset[str], tuple[str, int, str]] = {
        frozenset({"classifier.weight", "classifier.bias"}): ("tagging", 1, "classifier.bias"),
        frozenset({"qa_outputs.weight", "qa_outputs.bias"}): ("qa", 1, "qa_outputs.bias"),
        frozenset(
            f"classifier.{part}.{of}" for part in ("dense", "out_proj") for of in ("weight", "bias")
        ): ("classification", 2, "classifier.out_proj.bias"),
    }
    kind = kinds.get(frozenset(found))
    if kind is None or len(found[kind[2]]) != 1:
        what = f"a head of {quoted(sorted(found), 200)} cannot be taken over"
        raise RefusedError(what, where=where)
    of, layers, last = kind
    activation = "tanh" if layers == 2 else None
    values = {"kind": of, "labels": None, "outputs": found[last][0], "layers": layers}
    return _head({**values, "activation": activation}, where)


def _head(values: dict[str, Any], where: str) -> Head:
    if type(values["outputs"]) is not int or not 0 < values["outputs"] <= 10_000:
        raise RefusedError(f"a head with {quoted(values['outputs'])} outputs", where=where)
    if values["kind"] == "qa":
        values = {**values, "labels": None}
    return Head(**values)


def _labels(numbers: Any, where: str) -> tuple[str, ...] | None:
    """Labels in order of their numbers; nothing where none are said, or only numbers are."""
    if numbers is None:
        return None
    fits = isinstance(numbers, dict) and 0 < len(numbers) <= 10_000
    if not fits or sorted(map(ascii, numbers.values())) != sorted(map(ascii, range(len(numbers)))):
        raise RefusedError("the label map does not number its labels", where=where)
    labels = sorted(numbers, key=lambda label: int(numbers[label]))
    for label in labels:
        if not label or len(label) > 100 or not label.isprintable() or re.search("[<>]", label):
            raise RefusedError(f"the label {quoted(label)} is not plain text", where=where)
    if all(label == f"LABEL_{i}" for i, label in enumerate(labels)):
        return None
    return tuple(labels)
