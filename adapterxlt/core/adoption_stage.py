"""The stage of a plan that takes an adapter over, with its head where it is one of a task."""

from __future__ import annotations

from collections.abc import Mapping

from adapterxlt.core.adoption import Adoption, Head, digests_of
from adapterxlt.core.errors import RefusedError, UsageError
from adapterxlt.core.plan import BackboneInfo, Stage
from adapterxlt.core.tasks import Task


def adopt_stage(
    adoption: Adoption, backbone: BackboneInfo, inputs: Mapping[str, str], task: Task | None
) -> Stage:
    """The stage that takes an adapter over: of a task, with the head that it comes with.

    Raises:
        RefusedError: its head has other labels than the task.
        UsageError: its labels are not known.
    """
    adopted, head = adoption.adopted, adoption.adopted.head
    heads, order = None, None
    if task is not None and head is not None:
        order = check_labels(head, task.labels, adoption.said.labels, adoption.label)
        form = {"layers": head.layers, "activation": head.activation} if head.layers > 1 else {}
        heads = {task.name: {**task.head, **form}}
    pickled = sorted(r for r, file in adopted.files.items() if file.name.endswith(".bin"))
    params = {
        "backbone": dict(backbone.digests) if backbone.digests else None,
        "format": adopted.format,
        "files": digests_of(adopted),
        "pickled": pickled or None,
        "adapter": adoption.spec.resolved(backbone.shape.layers),
        "heads": heads,
        "order": order if order != sorted(order or ()) else None,
    }
    return Stage("adopt", params, dict(inputs))


def misfit(one: Adoption, task: Task) -> str | None:
    """Why the head that comes with an adapter cannot be a task's: none, or one of another kind."""
    head, kind = one.adopted.head, task.kind
    if head is None:
        return f"{one.label} has no head for {task.name}"
    if head.kind != ("classification" if kind == "pair-classification" else kind):
        return f"{one.label} has a head of {head.kind}, and {task.name} is {kind}"
    return None


def check_labels(
    head: Head, labels: tuple[str, ...], given: tuple[str, ...] | None, where: str
) -> list[int]:
    """Where each of the task's labels is among a head's outputs.

    Args:
        labels: of the task, in its order.
        given: of the head in its order, as the recipe says.

    Raises:
        RefusedError: the head has other labels.
        UsageError: the head does not say its labels, and neither does the recipe.
    """
    its = given or head.labels
    if not labels or head.kind == "choice":
        return list(range(head.outputs))
    if its is None:
        hint = f"say labels: [{', '.join(labels)}], in the order of its outputs"
        raise UsageError("the head does not say its labels", where=where, hint=hint)
    if len(its) != head.outputs:
        raise RefusedError(f"{len(its)} labels of {head.outputs} outputs", where=where)
    if sorted(its) != sorted(labels):
        odd = sorted(set(its) ^ set(labels))
        what = f"the head's labels are not the task's: {[label[:40] for label in odd[:5]]!a}"
        raise RefusedError(what, where=where)
    return [its.index(label) for label in labels]
