"""What the command line shows: tables on stdout, progress and failures on stderr.

Presentation only; every function is given what it shows. Called by `cli`. Names are others': what
is shown goes through `put`, so that no escape sequence in one reaches a terminal.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click

from adapterxlt.core import cost
from adapterxlt.core.showing import json_text, visible
from adapterxlt.run import preflight
from adapterxlt.run.pools import cores
from adapterxlt.run.scheduler import Outcome
from adapterxlt.run.study import Study

#: More stages than this are counted by kind unless --all is given.
MANY = 400


def put(text: str, *, err: bool = False) -> None:
    """Print lines, with everything that a terminal would obey written out."""
    click.echo(visible(text, keep="\n"), err=err)


def show_json(value: Any) -> None:
    click.echo(json_text(value, indent=1))


def show_rows(rows: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Rows as aligned columns; the last one is not cut."""
    if as_json:
        show_json(rows)
        return
    if not rows:
        return
    put(aligned(rows))


def aligned(rows: Sequence[dict[str, Any]]) -> str:
    """Lines of aligned columns, below their names; there is a row."""
    header = list(rows[0])
    body = [["" if row[name] is None else _plain(row[name]) for name in header] for row in rows]
    return _columns([header, *body])


def show_tables(
    rows: Sequence[Mapping[str, Any]],
    *,
    spread: bool = False,
    interval: bool = False,
    cost: bool = False,
    missing: Sequence[Mapping[str, Any]] = (),
    regimes: Sequence[str] = (),
) -> None:
    """The score table of every task, the means over tasks, and with ``cost`` the costs.

    ``missing`` cells are counted, not left out silently. Rows without a primary metric are shown
    by each metric they have.
    """
    from adapterxlt.report import benchmarks, overviews, pivots, tables

    if not rows:
        click.echo("no results yet", err=True)
        return
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    scored = {row["task"] for row in rows if row["primary"]}
    shown = []
    for task in tasks:
        others = dict.fromkeys(row["metric"] for row in rows if row["task"] == task)
        for metric in [None] if task in scored else others:
            table = tables.score_table(
                rows,
                task,
                metric=metric,
                spread=spread,
                interval=interval,
                missing=missing,
                regimes=regimes,
            )
            shown.append(table)
    if len(tasks) > 1 and len(scored) == len(tasks):
        each = [pivots.pivot(rows, task, missing=missing, regimes=regimes) for task in tasks]
        shown.append(overviews.tasks_table(each))
    whole = benchmarks.benchmark_table(rows, missing=missing, regimes=regimes)
    shown += [whole] if whole else []
    if cost:
        for task in sorted(scored, key=tasks.index):
            shown.append(overviews.cost_table(rows, task, missing=missing, regimes=regimes))
    for table in shown:
        put(tables.text_table(table))


def show_plan(study: Study, *, as_json: bool, every: bool) -> None:
    """Each stage with its state, reason, cells that share it and cost; then the sums."""
    plan, done = study.plan, study.done()
    needed = plan.needed(done, study.store.lost())
    states = _states(study, done, set(needed))
    totals = _totals(study, done, needed)
    flight = preflight.look(study, needed, workers=max(1, min(cores(), len(needed))))
    if as_json:
        totals |= {"needs": asdict(flight)}
        show_json({"stages": _stages(study, states), "totals": totals})
        return
    if len(states) > MANY and not every:
        kinds = Counter((state, plan.labels[key].split(" ")[0]) for key, state, _ in states)
        show_rows(
            [{"state": s, "kind": k, "stages": n} for (s, k), n in kinds.items()], as_json=False
        )
        click.echo(f"{len(states)} stages; --all lists them", err=True)
    else:
        shown = [
            {
                **row,
                "tokens": si(row["tokens"]),
                "parameters": si(row["parameters"]),
                "flops": si(row["flops"]),
            }
            for row in _stages(study, states)
        ]
        show_rows(shown, as_json=False)
    click.echo(
        "\n{cells} cells need {uses} stages, {stages} distinct; {cached} cached, {needed} to run.\n"
        "Estimated: {flops} operations, {time} on one process (from {origin}).".format(
            **{**totals, "flops": si(totals["flops"]), "time": duration(totals["seconds"])}
        )
    )
    if needed:
        click.echo(flight.line())
        for fault in flight.faults():
            put(f"run will refuse: {fault}")


def show_keys(study: Study) -> None:
    """Wave, key and label of each stage that is missing, in the order of the waves."""
    waves = study.plan.waves(study.needed())
    for key in sorted(waves, key=waves.__getitem__):
        put(f"{waves[key]} {key[:12]} {study.plan.labels[key]}")


def _states(study: Study, done: set[str], needed: set[str]) -> list[tuple[str, str, str]]:
    """Key, state and reason of each stage, as a user is told them."""
    verbs = {"evaluate": "to score", "adopt": "to adopt"}
    found = []
    for key, (state, reason) in study.plan.states(done).items():
        if state != "cached" and key not in needed:
            state, reason = "not needed", "what needs it is in the store"
        elif state == "ready":
            state = verbs.get(study.plan.stages[key].kind, "to train")
        elif state == "waiting":
            state = "blocked"
        found.append((key, state, reason))
    return found


def _stages(study: Study, states: Sequence[tuple[str, str, str]]) -> list[dict[str, Any]]:
    plan, speed = study.plan, study.speed
    return [
        {
            "state": state,
            "key": key[:12],
            "stage": plan.labels[key],
            "cells": plan.sharing[key],
            "parameters": work.parameters,
            "tokens": round(work.tokens),
            "flops": work.flops,
            "seconds": round(speed.seconds(work), 1),
            "reason": reason,
        }
        for key, state, reason in states
        for work in [study.work(key)]
    ]


def _totals(study: Study, done: set[str], needed: Sequence[str]) -> dict[str, Any]:
    plan = study.plan
    works = [study.work(key) for key in needed]
    return {
        "cells": len(plan.cells),
        "uses": sum(plan.sharing.values()),
        "stages": len(plan.stages),
        "cached": len(done),
        "needed": len(needed),
        "flops": sum(work.flops for work in works),
        "seconds": round(cost.total(works, study.speed), 1),
        "origin": study.speed.origin,
    }


def show_failures(study: Study, outcome: Outcome) -> None:
    for key, reason in outcome.failed.items():
        put(f"failed: {study.plan.labels[key]} ({key[:12]}): {reason}", err=True)
        for line in outcome.tails.get(key, "").splitlines():
            put(f"    {line}", err=True)
    if outcome.blocked:
        click.echo(f"{len(outcome.blocked)} stages depend on what failed", err=True)


def show_doctor(store: str | None) -> None:
    """Versions beside the tested ones, the machine, the store, and what is offline."""
    import platform
    import shutil
    from importlib import metadata

    from adapterxlt.run.study import store_root

    tested = {"torch": "2.13.0", "adapters": "1.3.0", "transformers": "4.57.6", "peft": "0.21.2"}
    rows = [{"what": "python", "found": platform.python_version(), "note": ""}]
    for name in ("adapterxlt", *tested, "datasets", "pydantic", "safetensors", "scikit-learn"):
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            found = "not installed"
        want = tested.get(name)
        same = want is None or found.split("+")[0] == want
        rows.append({"what": name, "found": found, "note": "" if same else f"tested with {want}"})
    root = store_root(store)
    free = shutil.disk_usage(root if root.exists() else ".").free / 2**30
    offline = os.environ.get("HF_HUB_OFFLINE", "not set")
    rows += [
        {"what": "cores", "found": str(os.cpu_count()), "note": ""},
        {"what": "store", "found": str(root.absolute()), "note": f"{free:.0f} GiB free"},
        {"what": "HF_HUB_OFFLINE", "found": offline, "note": "only `fetch` and `run` ask a hub"},
    ]
    show_rows(rows, as_json=False)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def si(value: float) -> str:
    """A number with three digits and a letter for its thousands."""
    for power, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= power:
            return f"{value / power:.3g}{unit}"
    return f"{value:.0f}"


def _plain(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return "".join(c if c.isprintable() else "�" for c in text)


def _columns(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    out = []
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        out.append("  ".join(cells).rstrip())
    return "\n".join(out)
