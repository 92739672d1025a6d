"""The plan of a study as groups of alike stages and what feeds what: what its picture draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Group:
    """Stages that differ in languages, shots, draws and seeds alone.

    Attributes:
        level: 0 for those that need nothing; else one more than the highest that it needs.
        uses: cells that need them, each stage counting for every cell.
    """

    name: str
    kind: str
    level: int
    stages: int
    done: int
    uses: int


@dataclass(frozen=True)
class Flow:
    """Groups in the order of the plan, and edges: from, to, and how many stages are fed so."""

    groups: tuple[Group, ...]
    edges: tuple[tuple[str, str, int], ...]


def flow_of(stages: Sequence[Mapping[str, Any]]) -> Flow:
    """The flow of stages as `report.results.describe` gives them, inputs first.

    A stage says its ``group`` and the keys of its ``inputs``; ones that say neither are left out.
    """
    told = [stage for stage in stages if stage.get("group")]
    names = {str(stage["key"]): str(stage["group"]) for stage in told}
    members: dict[str, list[Mapping[str, Any]]] = {}
    edges: dict[tuple[str, str], int] = {}
    for stage in told:
        name = names[str(stage["key"])]
        members.setdefault(name, []).append(stage)
        for other in dict.fromkeys(names[k] for k in stage["inputs"] if k in names):
            if other != name:
                edges[other, name] = edges.get((other, name), 0) + 1
    levels = dict.fromkeys(members, 0)
    # As many rounds as there are groups settle every level; a ring, which no plan has, ends too.
    for _ in members:
        for one, other in edges:
            levels[other] = min(max(levels[other], levels[one] + 1), len(members))
    groups = tuple(
        Group(
            name=name,
            kind=str(those[0]["kind"]),
            level=levels[name],
            stages=len(those),
            done=sum(stage["state"] in ("done", "cached", "trained") for stage in those),
            uses=sum(int(stage["cells"] or 0) for stage in those),
        )
        for name, those in members.items()
    )
    return Flow(groups, tuple((one, other, n) for (one, other), n in _direct(edges).items()))


def _direct(edges: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """Edges that no longer way stands for: everything needs the backbone, which is drawn once."""
    after: dict[str, set[str]] = {}
    for one, other in edges:
        after.setdefault(one, set()).add(other)

    def reaches(one: str, other: str, seen: set[str]) -> bool:
        for step in after.get(one, ()):
            if step == other:
                return True
            if step not in seen:
                seen.add(step)
                if reaches(step, other, seen):
                    return True
        return False

    return {
        (one, other): count
        for (one, other), count in edges.items()
        if not any(reaches(step, other, {one}) for step in after[one] - {other})
    }
