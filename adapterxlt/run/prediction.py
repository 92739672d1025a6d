"""`predict`: text in, labels out, through the composition of a finished cell."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from adapterxlt.core.errors import UsageError, did_you_mean
from adapterxlt.core.plan import Cell
from adapterxlt.core.tasks import Task
from adapterxlt.run.study import Study


def choose(
    study: Study,
    language: str,
    *,
    task: str | None = None,
    regime: str | None = None,
    shots: int | None = None,
    draw: int | None = None,
    seed: int | None = None,
) -> tuple[Cell, str]:
    """The finished cell to predict with: as asked, else the last regime, most shots, first seeds.

    Raises:
        UsageError: no such cell, or it is not finished.
    """
    cells = study.plan.cells
    languages = dict.fromkeys(cell.target for cell in cells)
    if language not in languages:
        hint = did_you_mean(language, languages)
        raise UsageError(f"the study has no language {language!r}", hint=hint)
    wanted = {"target": language, "task": task or study.recipe.tasks[0]}
    optional = {"regime": regime, "shots": shots, "draw": draw, "seed": seed}
    wanted |= {name: value for name, value in optional.items() if value is not None}  # type: ignore[misc]
    fitting = [c for c in cells if all(getattr(c, name) == v for name, v in wanted.items())]
    if not fitting:
        asked = ", ".join(f"{name} {value}" for name, value in wanted.items())
        known = [r.name for r in study.recipe.regime_list]
        hint = did_you_mean(regime, known) if regime and regime not in known else ""
        raise UsageError(f"the study has no cell with {asked}", where=study.recipe.name, hint=hint)
    finished = [cell for cell in fitting if cells[cell] in study.store]
    if not finished:
        raise UsageError(f"not finished: {fitting[-1].label()}", hint="run the recipe first")
    order = [r.name for r in study.recipe.regime_list]
    best = max(finished, key=lambda c: (order.index(c.regime), c.shots, -(c.draw or 0), -c.seed))
    return best, cells[best]


def predict_lines(
    study: Study, key: str, lines: Sequence[str], *, as_json: bool = False
) -> Iterator[str]:
    """One answer a line: ``word/LABEL ...`` for tagging, else the label, or the answer's text.

    Raises:
        UsageError: the task searches, and has no answer for a line alone; a line lacks a column.
    """
    from adapterxlt.run.worker import predict_rows

    stage = study.plan.stages[key]
    task = study.corpus.task(stage.params["data"]["task"])
    if task.kind in ("retrieval", "ranking"):
        raise UsageError(f"{task.name} searches a pool; there is nothing to predict of a line")
    rows = [_row(task, line, number) for number, line in enumerate(lines, start=1)]
    for row, answers in zip(rows, predict_rows(study.places, stage, rows), strict=True):
        if task.kind == "tagging":
            tokens = row[task.inputs[0]]
            labels: Any = [answers.get(i) for i in range(len(tokens))]
            text = " ".join(f"{t}/{label}" for t, label in zip(tokens, labels, strict=True))
        else:
            labels = text = answers if task.kind == "qa" else answers[0]
        yield json.dumps({**row, task.label: labels}, ensure_ascii=False) if as_json else text


def _row(task: Task, line: str, number: int) -> dict[str, Any]:
    if task.kind == "tagging":
        return {task.inputs[0]: line.split()}
    columns = (*task.inputs, *task.options.get("choices", ()))
    parts = line.split("\t")
    if len(parts) != len(columns):
        raise UsageError(
            f"{task.name} takes {len(columns)} texts, not {len(parts)}",
            where=f"line {number}",
            hint=f"put a tab between {', '.join(columns)}",
        )
    row = dict(zip(columns, parts, strict=True))
    known = task.options.get("questions") or {}
    for name in task.inputs[1:] if known else ():
        if row[name] not in known:
            what = f"{name} is one of {', '.join(known)}, not {row[name]!r}"
            raise UsageError(what, where=f"line {number}")
    return row
