"""What a study took over from others: which adapters, from where, at which commit, how opened."""

from __future__ import annotations

from typing import Any

from adapterxlt.run.adoptions import provenance
from adapterxlt.run.study import Study


def of_study(study: Study) -> list[dict[str, Any]]:
    """A line for each adopted adapter: what it is for, where it is from, its method, its key."""
    lines = []
    for key, stage in study.plan.stages.items():
        one = study.adopts(key)
        if one is None:
            continue
        purpose = study.plan.labels[key].partition(" from ")[0].removeprefix("adopt ")
        line = {"what": purpose, "key": key, "method": stage.params["adapter"]["method"]}
        lines.append(line | provenance(one))
    return lines
