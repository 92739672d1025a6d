"""What a train, adopt or merge stage gives: adapters frozen below, the one it trained, and heads.

Told from the stages alone, as a plan or as records hold them. `run.desk` puts the parts on a
backbone, the report counts their bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

#: A stage as `Stage.canonical` gives it: kind, params, inputs.
Canonical = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """An adapter, a fusion of ``members`` or a head: the stage with its weights, and its form."""

    key: str
    spec: Mapping[str, Any] | None
    members: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Composition:
    """``frozen`` adapters, lowest first, the ``own`` one on top of them, ``heads`` by task."""

    frozen: tuple[Part, ...]
    own: Part
    heads: Mapping[str, Part]


def compose(key: str, stage_of: Callable[[str], Canonical]) -> Composition:
    """The composition of a train, adopt or merge stage, read back through its inputs."""
    stage = stage_of(key)
    params, inputs = stage["params"], stage["inputs"]
    if stage["kind"] == "merge":
        base = compose(inputs["member:0"], stage_of)
        # Heads from stages further back are as they were.
        merged = {t: replace(p, key=key) for t, p in base.heads.items() if p.key == base.own.key}
        return replace(base, own=replace(base.own, key=key), heads={**base.heads, **merged})
    made = beginning(key, stage, stage_of)
    trained = {}
    for task, head in (params.get("heads") or {}).items():
        # A head that is kept has the form that it came with.
        kept = made.heads.get(task) if params.get("head") != "new" else None
        trained[task] = Part(key, kept.spec if kept is not None else head)
    return replace(made, heads={**made.heads, **trained})


def beginning(key: str, stage: Canonical, stage_of: Callable[[str], Canonical]) -> Composition:
    """What a train stage begins with: its own part untrained, and the heads there are so far."""
    inputs, own = stage["inputs"], Part(key, stage["params"].get("adapter"))
    if "previous" in inputs:
        base = compose(inputs["previous"], stage_of)
        return replace(base, own=replace(base.own, key=key))
    if "below" in inputs:
        base = compose(inputs["below"], stage_of)
        return Composition((*base.frozen, base.own), own, base.heads)
    if "fuse:0" in inputs:
        count = sum(role.startswith("fuse:") for role in inputs)
        members = [compose(inputs[f"fuse:{n}"], stage_of) for n in range(count)]
        heads = {task: part for member in members for task, part in member.heads.items()}
        return Composition((), replace(own, members=tuple(m.own for m in members)), heads)
    return Composition(
        (), own, compose(inputs["heads"], stage_of).heads if "heads" in inputs else {}
    )
