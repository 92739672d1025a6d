"""What a cell cost: figures of the trainings behind an evaluation, beside its score.

Read from the records of the stages, estimated only where it says so; `report.results` puts them
into rows. Language adapters and the backbone's pretraining are in no figure but `stored_bytes`,
which counts the language adapters that the cell wears.
"""

from __future__ import annotations

from typing import Any

from adapterxlt.core.composition import compose
from adapterxlt.core.plan import Plan
from adapterxlt.run.study import Study

Costs = dict[str, Any]


def of_cell(study: Study, key: str, task: str) -> Costs:
    """The costs of the cell whose evaluate stage has this key.

    - `parameters`: trainable ones of the last training stage.
    - `stored_bytes`: size of the files needed to use the cell besides the backbone: adapter and
      head, frozen adapters below, language adapters worn; equal files once.
    - `steps`, `examples` (rows seen), `tokens` (sub-words seen), `seconds` (training): sums over
      the distinct trainings of tasks that the evaluation depends on, each in full, however many
      cells share it.
    - `flops`: the same sum of the closed form of `core.cost`, scaled to the tokens really seen.
    - `peak_memory`: bytes, the largest over these trainings.

    A figure is None where one of the records lacks it: part of a sum is not the sum. It is 0 where
    nothing is trained.
    """
    trainings = task_trainings(study.plan, key)
    found = [_training(study, one) for one in trainings]
    last = [_training(study, one)["parameters"] for one in last_trainings(study.plan, key)]
    costs: Costs = {
        "parameters": _largest(last or [0]),
        "stored_bytes": stored_bytes(study, key, task),
    }
    for name in ("steps", "examples", "tokens", "flops", "seconds"):
        costs[name] = _sum([one[name] for one in found]) if found else 0
    return costs | {"peak_memory": _largest([one["peak_memory"] for one in found] or [0])}


def is_task_training(plan: Plan, key: str) -> bool:
    """Whether a stage trains on a task: neither a language adapter nor the backbone."""
    stage = plan.stages[key]
    return stage.kind == "train" and stage.params["objective"] != "mlm"


def task_trainings(plan: Plan, key: str) -> list[str]:
    """Keys of the trainings of tasks that a stage depends on, each once."""
    return [one for one in plan.ancestors(key) if is_task_training(plan, one)]


def last_trainings(plan: Plan, key: str) -> list[str]:
    """Keys of the trainings that gave what is evaluated: one, or those that a merge takes up."""
    found, todo = [], [k for role, k in plan.stages[key].inputs.items() if role == "trained"]
    while todo:
        current = todo.pop()
        if is_task_training(plan, current):
            found.append(current)
        elif plan.stages[current].kind == "merge":
            todo += [one for one in plan.stages[current].inputs.values() if one not in found]
    return list(dict.fromkeys(found))


def stored_bytes(study: Study, key: str, task: str) -> int | None:
    """Size of the files that using a cell takes besides the backbone's; None where one is gone."""
    stage, files = study.plan.stages[key], set[tuple[str, str]]()
    at = stage.params.get("snapshot")
    if "trained" in stage.inputs:
        made = compose(stage.inputs["trained"], lambda one: study.plan.stages[one].canonical())
        files |= {(part.key, "adapter.safetensors") for part in (*made.frozen, *made.own.members)}
        files.add((made.own.key, _at("adapter", at)))
        if task in made.heads:
            head = made.heads[task].key
            files.add((head, _at(f"head-{task}", at if head == made.own.key else None)))
    for role, one in stage.inputs.items():
        if role.startswith("language:"):
            files.add((one, "adapter.safetensors"))
    digests = set()
    for one, name in files:
        record = study.store.read(one)
        if record is None or name not in record.files:
            return None
        digests.add(record.files[name])
    try:
        return sum(study.store.object_path(digest).stat().st_size for digest in digests)
    except OSError:
        return None


def _at(part: str, snapshot: int | None) -> str:
    return f"{part}.safetensors" if snapshot is None else f"{part}.{snapshot}.safetensors"


def _training(study: Study, key: str) -> Costs:
    """What one training stage's record says of itself, and its estimated operations."""
    record = study.store.read(key)
    facts = record.facts if record is not None else {}
    names = ("parameters", "steps", "examples", "tokens", "peak_memory")
    costs: Costs = {name: facts.get(name) for name in names}
    costs["seconds"] = facts.get("training_seconds")
    work = study.work(key)
    known = costs["tokens"] is not None and work.tokens > 0
    # The closed form is proportional to the sub-words, whose number it estimates.
    costs["flops"] = work.flops * costs["tokens"] / work.tokens if known else None
    return costs


def _sum(values: list[Any]) -> Any:
    if not values or any(value is None for value in values):
        return None
    return round(sum(values), 3) if any(isinstance(v, float) for v in values) else sum(values)


def _largest(values: list[Any]) -> Any:
    return max(values) if values and all(value is not None for value in values) else None
