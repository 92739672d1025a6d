"""Stages counted by kind: what sharing equal stages saved, and what they cost.

Pure functions of the stages of a study; `report.html` shows them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

# Kinds of stage in the order of the work, and those among them that count as a training.
KIND_ORDER = ("adopt", "pretrain", "language adapter", "train", "task adapter", "merge", "evaluate")
TRAININGS = ("language adapter", "train", "task adapter")
STATES = {
    "trained": "run this time",
    "cached": "from the store",
    "done": "done",
    "missing": "missing",
    "failed": "failed",
}


def sharing(stages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A line a stage kind: needed (one for every cell that shares it), distinct, saved, costs."""
    kinds = sorted({str(s["kind"]) for s in stages}, key=lambda k: (_kind_rank(k), k))
    out = []
    for kind in kinds:
        those = [stage for stage in stages if stage["kind"] == kind]
        # A stage that no cell asks for directly is still needed once.
        needed = sum(max(int(stage["cells"] or 0), 1) for stage in those)
        states = [str(stage["state"]) for stage in those]
        spent = [stage for stage in those if stage["state"] == "trained"]
        line: dict[str, Any] = {"kind": kind, "needed": needed, "distinct": len(those)}
        line["saved"] = needed - len(those)
        line["states"] = {state: states.count(state) for state in STATES}
        line |= {name: total(those, name) for name in ("seconds", "tokens", "steps", "flops")}
        line["seconds_now"] = total(spent, "seconds")
        out.append(line)
    return out


def _kind_rank(kind: str) -> int:
    return KIND_ORDER.index(kind) if kind in KIND_ORDER else len(KIND_ORDER)


def tells_runs(kinds: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the states tell a stage that was run this time from one found in the store."""
    return any(kind["states"]["trained"] or kind["states"]["cached"] for kind in kinds)


def total(stages: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [stage[name] for stage in stages if stage[name] is not None]
    return sum(values) if values else None
