"""The report: one self-contained page, a pure function of result rows and a description of a study.

It never makes a request, asks the clock or draws a random number, is whole without its one script,
and escapes every foreign string; the same rows in any order give the same bytes.
The verb `report` calls `build` and writes the page to a file.
"""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from adapterxlt.core.claims import Claim
from adapterxlt.report import (
    benchmarks,
    comparisons,
    effect_plots,
    overviews,
    plots,
    summaries,
    svg,
    tables,
)
from adapterxlt.report.claims import judge_all
from adapterxlt.report.claims_view import claims_view
from adapterxlt.report.flow import flow_of
from adapterxlt.report.headlines import headline, overall, spread_words
from adapterxlt.report.pivots import Pivot, pivot
from adapterxlt.report.sharing import STATES, TRAININGS, sharing, tells_runs, total
from adapterxlt.report.summaries import UPPER_BOUND, Row, Summary

Study = Mapping[str, Any]

PAGE_LIMIT = 1_000_000
ROW_LIMIT = 2_000
STAGE_LIMIT = 400
MISSING_LIMIT = 300
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Detail:
    """What of the bulky parts a page shows; the rest is left out, and the page says so."""

    provenance: bool = True
    stages: bool = True
    pictures: bool = True


def build(rows: Iterable[Row], study: Study) -> str:
    """The page as HTML text, under `PAGE_LIMIT` bytes wherever leaving detail out can do it.

    Rows have the columns of `report.export.COLUMNS`; of `study` the fields name, question, recipe,
    regimes, stages, missing, versions, data, backbone and lab are read, and precision,
    overrides, cuts, adopted and max_length where they are there. KeyError on an absent field;
    ValueError where a task has not one primary metric.
    """
    ordered = sorted(rows, key=lambda row: (summaries.run_order(row), repr(sorted(row.items()))))
    detail = Detail(provenance=len(ordered) <= ROW_LIMIT)
    parts = _parts(ordered, study)
    page = _render(ordered, study, parts, detail)
    for part in ("provenance", "stages", "pictures"):
        if len(page.encode()) < PAGE_LIMIT:
            break
        detail = replace(detail, **{part: False})
        page = _render(ordered, study, parts, detail)
    return page


def _parts(rows: Sequence[Row], study: Study) -> dict[str, Any]:
    """Everything that does not hang on the detail: pivots, pictures, sharing; computed once."""
    regimes = [str(regime["name"]) for regime in study["regimes"]]
    lab = bool(study["lab"]) or any(row["lab"] for row in rows)
    tasks: list[dict[str, Any]] = []
    for number, task in enumerate(sorted({str(row["task"]) for row in rows}), start=1):
        scored = _scored(rows, task)
        data = pivot(rows, task, missing=study["missing"], regimes=regimes)
        data = replace(data, lab=lab)
        names = sorted({str(row["metric"]) for row in rows if row["task"] == task} - {data.metric})
        others = [
            replace(pivot(rows, task, name, missing=study["missing"], regimes=regimes), lab=lab)
            for name in names
        ]
        drawn = [
            plots.shots_picture(data, f"f{number}a"),
            plots.heat_picture(data, f"f{number}b"),
            plots.spread_picture(data, f"f{number}c"),
            effect_plots.cost_picture(data, rows, f"f{number}d"),
        ]
        cost = overviews.cost_table(rows, task, missing=study["missing"], regimes=regimes)
        tasks.append(
            {
                "data": data,
                "others": others,
                "pictures": [p for p in drawn if p],
                "intervals": _intervals(data),
                "cost": _plain(cost),
                "beside": _beside(task, scored, regimes, f"f{number}e", lab),
                "spread": _plain_or_none(comparisons.spread_table(task, scored, regimes)),
            }
        )
    benchmark = benchmarks.benchmark_table(rows, missing=study["missing"], regimes=regimes)
    kinds = sharing(study["stages"])
    ready = ("trained",) if tells_runs(kinds) else ("done",)
    bars = [
        (k["kind"], (k["needed"], k["distinct"], sum(k["states"][name] for name in ready)))
        for k in kinds
    ]
    several = len(tasks) > 1
    return {
        "lab": lab,
        "verdicts": judge_all([Claim.model_validate(c) for c in study.get("claims") or ()], rows),
        "tasks": tasks,
        "beside": _beside("mean over tasks", _scored(rows), regimes, "fe", lab)
        if several
        else None,
        "flow_picture": effect_plots.flow_picture(flow_of(study["stages"]), "ff", lab),
        "over_tasks": _plain(overviews.tasks_table([task["data"] for task in tasks]))
        if several
        else None,
        "benchmark": _plain(benchmark) if benchmark else None,
        "bounds": {str(r["regime"]) for r in [*rows, *study["missing"]] if r.get("upper_bound")}
        | {str(r["name"]) for r in study["regimes"] if r.get("upper_bound")},
        "kinds": kinds,
        "sharing_picture": plots.sharing_picture(bars, STATES[ready[0]], "f0", lab)
        if bars
        else None,
    }


def _scored(rows: Sequence[Row], task: str | None = None) -> list[Row]:
    """Rows of targets and of each task's primary metric."""
    return [
        row
        for row in rows
        if row["primary"] and row["role"] != "source" and task in (None, row["task"])
    ]


def _beside(
    name: str, rows: Sequence[Row], regimes: Sequence[str], prefix: str, lab: bool
) -> dict[str, Any] | None:
    """Every regime beside the first one: picture and table; None where there is no other."""
    first, found = comparisons.reference(rows, regimes), comparisons.compare(rows, regimes)
    if not found:
        return None
    title = f"{name}: differences to {first}, with p values"
    return {
        "table": _plain(comparisons.comparison_table(title, found, first)),
        "picture": effect_plots.forest_picture(name, found, first, prefix, lab),
    }


def _shown(beside: dict[str, Any] | None, detail: Detail) -> dict[str, Any] | None:
    return beside if beside is None or detail.pictures else beside | {"picture": None}


def _plain_or_none(table: tables.Table | None) -> dict[str, Any] | None:
    return None if table is None else _plain(table)


def _render(rows: Sequence[Row], study: Study, parts: Mapping[str, Any], detail: Detail) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": _count, "seconds": _seconds, "flops": _flops}
    environment.filters["svg"] = lambda picture: Markup(picture.svg)
    anchors = _anchors("k", (str(row["evaluate_key"]) for row in rows)) if detail.provenance else {}
    stages, hidden = _shown_stages(study["stages"], detail)
    stage_ids = _anchors("s", (str(stage["key"]) for stage in stages))
    tasks = [
        {
            "name": task["data"].task,
            "primary": _views(task["data"], anchors),
            "others": [_views(data, anchors) for data in task["others"]],
            "pictures": task["pictures"] if detail.pictures else [],
            "intervals": task["intervals"],
            "cost": task["cost"],
            "beside": _shown(task["beside"], detail),
            "spread": task["spread"],
        }
        for task in parts["tasks"]
    ]
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    css = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    css = css.replace("/*light*/", svg.palette_css(0)).replace("/*dark*/", svg.palette_css(1))
    return environment.get_template("page.html.j2").render(
        css=Markup(css),
        script=Markup(script),
        # The policy lets this script run and no other.
        script_digest=f"sha256-{b64encode(sha256(script.encode()).digest()).decode()}",
        study=study,
        precision=study.get("precision"),
        shortcuts=study.get("shortcuts") or (),
        overrides=study.get("overrides") or (),
        cuts=study.get("cuts") or (),
        adopted=study.get("adopted") or (),
        max_length=study.get("max_length"),
        detail=detail,
        lab=parts["lab"],
        row_count=len(rows),
        row_limit=ROW_LIMIT,
        claims=claims_view(parts["verdicts"], anchors),
        asked=bool(study.get("asked")),
        headlines=[headline(task["data"]) for task in parts["tasks"]],
        spread_words=spread_words(rows),
        tasks=tasks,
        over_tasks=parts["over_tasks"],
        beside=_shown(parts["beside"], detail),
        flow_picture=parts["flow_picture"] if detail.pictures else None,
        benchmark=parts["benchmark"],
        bounds=parts["bounds"],
        upper_bound=UPPER_BOUND,
        kinds=parts["kinds"],
        sharing_picture=parts["sharing_picture"] if detail.pictures else None,
        trainings={
            name: sum(k[name] for k in parts["kinds"] if k["kind"] in TRAININGS)
            for name in ("needed", "distinct", "saved")
        },
        states={
            state: words
            for state, words in STATES.items()
            if any(k["states"][state] for k in parts["kinds"])
        },
        tells_runs=tells_runs(parts["kinds"]),
        totals={
            name: total(parts["kinds"], name)
            for name in ("seconds", "seconds_now", "tokens", "steps", "flops")
        },
        stages=[{**stage, "id": stage_ids[str(stage["key"])]} for stage in stages],
        stages_hidden=hidden,
        missing=_missing(rows, study),
        missing_limit=MISSING_LIMIT,
        provenance=_provenance(rows, anchors, stage_ids),
    )


def _anchors(letter: str, keys: Iterable[str]) -> dict[str, str]:
    """A page id for every distinct key: its first 12 digits, with a number where those repeat."""
    found: dict[str, str] = {}
    taken: dict[str, int] = {}
    for key in keys:
        if key not in found:
            short = f"{letter}-{key[:12]}"
            taken[short] = taken.get(short, 0) + 1
            found[key] = short if taken[short] == 1 else f"{short}-{taken[short]}"
    return found


def _views(data: Pivot, anchors: Mapping[str, str]) -> dict[str, Any]:
    """The two tables of a pivot: by target language, and by resource class with ranges."""
    single = [i for i, c in enumerate(data.columns) if c.kind in ("target", "source")]
    wide = [i for i, c in enumerate(data.columns) if c.kind in ("class", "overall")]
    by_target = sorted([*single, overall(data)])
    return {
        "metric": data.metric,
        "languages": _view(data, by_target, anchors),
        "classes": _view(data, wide, anchors),
        "notes": tables.notes(data, spread=True),
    }


def _intervals(data: Pivot) -> dict[str, Any] | None:
    """Class means with their intervals; None where no line has two runs."""
    wide = [i for i, c in enumerate(data.columns) if c.kind in ("class", "overall")]
    if not any(len(line.runs[i].values) > 1 for line in data.lines for i in wide):
        return None
    shown = _plain(tables.table_of(data, wide, interval=True))
    return shown | {"notes": tables.interval_notes(data, wide)}


def _plain(table: tables.Table) -> dict[str, Any]:
    """A table of strings as the page shows it; the page itself says of captions that it is lab."""
    return {
        "title": table.title.removesuffix(" (lab)"),
        "header": table.header,
        "body": table.body,
        "notes": table.notes,
    }


def _view(data: Pivot, shown: Sequence[int], anchors: Mapping[str, str]) -> dict[str, Any]:
    columns = [data.columns[i] for i in shown]
    body = [
        {
            "name": line.label,
            "shots": line.shots,
            "cells": [_cell(line.cells[i], anchors) for i in shown],
        }
        for line in data.lines
    ]
    floor = [data.baseline[i] for i in shown]
    known = any(value is not None for value in floor)
    return {
        "groups": tables.column_groups(columns),
        "header": [tables.column_name(column) for column in columns],
        "kinds": [column.kind for column in columns],
        "body": body,
        "baseline": [tables.percent(value) for value in floor] if known else None,
        "baseline_name": tables.BASELINE,
    }


def _cell(cell: Summary, anchors: Mapping[str, str]) -> dict[str, Any]:
    return {
        "text": tables.score_text(cell),
        "sd": None if cell.sd is None else tables.percent(cell.sd),
        "range": f"{tables.percent(cell.low)}–{tables.percent(cell.high)}" if cell.scores else "",
        "runs": cell.count,
        "lacking": cell.missing,
        "link": anchors.get(cell.keys[0]) if cell.keys else None,
    }


def _shown_stages(stages: Sequence[Mapping[str, Any]], detail: Detail) -> tuple[list[Any], str]:
    """The stages to list, each key once, and in words what is not listed."""
    distinct = list({str(stage["key"]): stage for stage in stages}.values())
    if not detail.stages:
        return [], f"The {len(distinct)} stages are not listed, to keep the page under 1 MB."
    if len(distinct) <= STAGE_LIMIT:
        return distinct, ""
    kept = [stage for stage in distinct if stage["kind"] != "evaluate"]
    return kept, f"The {len(distinct) - len(kept)} evaluate stages are not listed here."


def _missing(rows: Sequence[Row], study: Study) -> dict[str, Any]:
    fields = ("task", "regime", "target", "shots", "draw", "seed")
    listed = [
        {name: m[name] for name in fields} | {"reason": m["reason"]} for m in study["missing"]
    ]
    listed += [
        {name: row[name] for name in fields} | {"reason": f"evaluated, but {row['metric']} is NaN"}
        for row in rows
        if tables.percent(row["score"]) == tables.NO_SCORE
    ]
    listed.sort(key=lambda m: [str(m["reason"]), *(str(m[name]) for name in fields)])
    reasons: dict[str, int] = {}
    for entry in listed:
        reasons[str(entry["reason"])] = reasons.get(str(entry["reason"]), 0) + 1
    return {"reasons": reasons, "listed": listed[:MISSING_LIMIT], "count": len(listed)}


def _provenance(
    rows: Sequence[Row], anchors: Mapping[str, str], stage_ids: Mapping[str, str]
) -> list[dict[str, Any]]:
    """A line an evaluate key, which cells may share: then their regimes stand side by side."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if str(row["evaluate_key"]) in anchors:
            found.setdefault(str(row["evaluate_key"]), []).append(row)
    out = []
    for key, those in found.items():
        train = str(those[0]["train_key"])
        scores = {str(row["metric"]): tables.percent(row["score"]) for row in those}
        line: dict[str, Any] = {
            name: ", ".join(dict.fromkeys("–" if r[name] is None else str(r[name]) for r in those))
            for name in ("task", "regime", "shots", "target", "draw", "seed", "n")
        }
        line |= {"id": anchors[key], "key": key, "train": train, "stage": stage_ids.get(train)}
        line["scores"] = "; ".join(f"{name} {value}" for name, value in scores.items())
        line["bound"] = any(row["upper_bound"] for row in those)
        out.append(line)
    return out


def _count(value: float | None) -> str:
    return tables.NO_SCORE if value is None else f"{value:,.0f}"


def _seconds(value: float | None) -> str:
    if value is None:
        return tables.NO_SCORE
    if value < 60:
        return f"{value:.1f} s"
    minutes = round(value / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _flops(value: float | None) -> str:
    return tables.NO_SCORE if value is None else f"{value:.2e}"
