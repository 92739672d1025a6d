"""Which rows lost text to the length limit, as the records of finished stages tell.

It reads plan and records, counts nothing itself and never guesses what a record lacks.
`report.results` gives it to the page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapterxlt.run.study import Study

Cut = dict[str, Any]


def of_study(study: Study) -> list[Cut]:
    """What was read and how many of its ``rows`` were ``cut``, where any was.

    One entry for a test set, for what is searched or searches in it, and for what a training read,
    whatever its draws and seeds. Of several stages the one that cut most.
    """
    found: dict[str, Cut] = {}
    for key, stage in study.plan.stages.items():
        record = study.store.read(key)
        if record is None:
            continue
        params, facts = stage.params, record.facts
        if stage.kind == "train":
            streams = params["streams"]
            rows = sum(_rows(study, stream) for stream in streams)
            _add(found, f"training on {_streams(streams)}", facts.get("rows_cut"), rows)
        elif stage.kind == "evaluate":
            data = params["data"]
            name = f"{data['task']} {data['language']} {data['split']}"
            _add(found, name, facts.get("rows_cut"), facts.get("rows"))
            if params.get("pool"):
                _add(found, _pool(params["pool"]), facts.get("pool_cut"), facts.get("pool_rows"))
    return [found[what] for what in sorted(found)]


def _add(found: dict[str, Cut], what: str, cut: int | None, rows: int | None) -> None:
    if cut and cut > found.get(what, {"cut": 0})["cut"]:
        found[what] = {"what": what, "cut": cut, "rows": rows}


def _rows(study: Study, stream: Mapping[str, Any]) -> int:
    """How many rows a stream read."""
    there = study.plan.data[stream["data"]].rows
    return min(int(stream.get("shots") or stream.get("limit") or there), there)


def _pool(parts: list[dict[str, Any]]) -> str:
    """Candidates of a ranking, in all their languages; of retrieval, the other sides."""
    first, spoken = parts[0], " + ".join(part["language"] for part in parts)
    other = ", other side" if first.get("side") else ""
    return f"{first['task']} {spoken} {first['split']}{other}"


def _streams(streams: list[dict[str, Any]]) -> str:
    """Tasks with their languages, and the shots where there are some."""
    spoken: dict[tuple[str, int | None], list[str]] = {}
    for stream in streams:
        spoken.setdefault((stream["task"], stream.get("shots")), []).append(stream["language"])
    return " and ".join(
        f"{task} {' + '.join(languages)}{f' ({shots} shots)' if shots else ''}"
        for (task, shots), languages in spoken.items()
    )
