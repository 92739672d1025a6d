"""The model card of an export: a pure function of what is known of it and of result rows.

Nothing in a name, a label or a recipe can end a value of the front matter or make markup. Called
by `report.handing`, which reads the study.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adapterxlt.report.summaries import UPPER_BOUND, Row, interval_of, runs_of
from adapterxlt.report.tables import bound_note, percent, trivial_answer

#: Licences by the names that hubs know them by.
LICENCES = {
    "Apache 2.0": "apache-2.0",
    "CC BY 4.0": "cc-by-4.0",
    "CC BY-NC 4.0": "cc-by-nc-4.0",
    "CC BY-SA 3.0": "cc-by-sa-3.0",
    "CC BY-SA 4.0": "cc-by-sa-4.0",
}
#: The laboratory's data are made by this package.
LAB_LICENCE = "Apache 2.0"
NOT_KNOWN = "not recorded"
#: More labels than this are only in the manifest.
MANY = 60

_ROLES = {
    "composition": "All that a cell of a study wears on a frozen backbone",
    "language": "A language adapter",
    "task": "A task adapter",
}


def card(about: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """The text of the folder's `README.md`.

    Args:
        about: see `report.handing.describe`.
        rows: of the cells that differ from the exported one in draw and seed only, itself among
            them, as `report.results.collect` gives them.
    """
    parts = [
        _front(about),
        f"# {_title(about)}",
        *_summary(about),
        "## How to load it",
        *_loading(about),
        "## Scores",
        *_scores(about, rows),
        "## Data",
        *_data(about),
        "## How it was made",
        *_making(about),
    ]
    return "\n\n".join(parts) + "\n"


# --- the front matter ----------------------------------------------------------------------------


def _front(about: Mapping[str, Any]) -> str:
    """JSON values, which are YAML ones that nothing can break out of."""
    values: dict[str, Any] = {}
    if about["backbone"]["name"]:
        values["base_model"] = about["backbone"]["name"]
    if about["languages"]:
        values["language"] = list(about["languages"])
    values["library_name"] = about["libraries"][0]
    values["license"] = licence_of(about["data"])
    tags = ["adapterxlt", "cross-lingual-transfer", *about["libraries"]]
    if about["task"]:
        tags.append(about["task"]["kind"])
    values["tags"] = [*tags, *(["laboratory"] if about["lab"] else [])]
    lines = [f"{name}: {json.dumps(value)}" for name, value in values.items()]
    return "\n".join(["---", *lines, "---"])


def licence_of(data: Iterable[Mapping[str, Any]]) -> str:
    """The licence of all the data by a hub's name: `other` where they differ or it has none,
    `unknown` where none is recorded."""
    found = {one["licence"] for one in data}
    if found <= {NOT_KNOWN}:
        return "unknown"
    return LICENCES.get(found.pop(), "other") if len(found) == 1 else "other"


# --- what it is ----------------------------------------------------------------------------------


def _title(about: Mapping[str, Any]) -> str:
    cell, lab = about["cell"], " (laboratory)" if about["lab"] else ""
    if about["role"] == "language":
        return f"Language adapter: {_plain(about['language'])}{lab}"
    return f"{_plain(cell['task'])} in {_plain(cell['target'])}: {_plain(cell['regime'])}{lab}"


def _summary(about: Mapping[str, Any]) -> list[str]:
    cell, backbone = about["cell"], about["backbone"]
    name = _name(backbone["name"]) if backbone["name"] else "the laboratory's own, in `backbone/`"
    digest = f", weights with SHA-256 `{backbone['digest']}`" if backbone["digest"] else ""
    out = [f"{_ROLES[about['role']]}. Backbone: {name}{digest}. No weight of it was trained."]
    if about["lab"]:
        out.append(
            "**This is from a laboratory.** Its languages, text and labels are made by rule; it "
            "knows no real language, and its scores say nothing of one."
        )
    out.append(
        "\n".join(
            [
                "| folder | what | method | library |",
                "|---|---|---|---|",
                *(
                    f"| {_name(p['folder'])} | {_plain(p['what'])} | {_plain(p['method'])} "
                    f"| `{p['library']}` |"
                    for p in about["pieces"]
                ),
            ]
        )
    )
    if about["role"] == "task" and about["below"]:
        worn = "; ".join(map(_plain, about["below"]))
        out.append(
            f"It was trained and scored on top of what is not in this folder: {worn}. Without that "
            "it computes something else."
        )
    if about["role"] == "language":
        task, target = _plain(cell["task"]), _plain(cell["target"])
        out.append(f"The scores below are of {task} in {target}, which was scored wearing it.")
    return out


def _loading(about: Mapping[str, Any]) -> list[str]:
    versions = about["versions"]
    needed = [f"{n} {versions[n]}" for n in ("transformers", *about["libraries"]) if n in versions]
    whole = about["role"] == "composition" or (about["role"] == "task" and not about["below"])
    gives = ", and gives the outputs that were scored" if whole else ""
    return [
        "Without the package that it was made with: `load.py` is in this folder, needs "
        f"{', '.join(needed)} or what goes with them{gives}.",
        _fenced(about["script"], "python"),
        "\n".join(f"- {line}" for line in _inputs(about)),
    ]


def _inputs(about: Mapping[str, Any]) -> list[str]:
    """How rows become batches and outputs predictions."""
    lines = [
        "Only `input_ids` and `attention_mask` were given, also for two texts; at most "
        f"{about['max_length']} sub-words."
    ]
    if about["precision"] != "fp32":
        lines.append(
            f"It was scored in {_plain(about['precision'])}; in fp32 outputs differ by rounding."
        )
    lines += [f"Trained with a shortcut: {_plain(said)}" for said in about["shortcuts"]]
    if "adapters" in about["libraries"]:
        lines.append(
            "While adapters are being activated, `adapters` warns that none are; then they are."
        )
    task = about["task"]
    if task is None:
        return lines
    kind, columns = task["kind"], ", ".join(map(_name, task["columns"]))
    said = {
        "tagging": f"A row is the list of words in {columns}; a word's label is that of its first "
        "sub-word. Longer rows were read in several windows, cut at words.",
        "classification": f"A row is the text in {columns}.",
        "pair-classification": f"A row is the two texts in {columns}, in this order.",
        "choice": f"Each alternative is a text pair: {columns} with a space between, and then the "
        "alternative. The one with the highest output is the answer.",
        "qa": "A row is the question, then a window of the context. Outputs are of start and end; "
        "position 0 stands for no answer in this window, other positions outside the context are "
        f"not allowed, and an answer has at most {task['options'].get('longest_answer')} "
        "sub-words.",
        "ranking": "Outputs are vectors: a query's and a candidate's are compared by cosine.",
        "retrieval": "What comes out are vectors of sentences, which are compared by cosine.",
    }
    lines.append(said[kind])
    for value, asked in (task["options"].get("questions") or {}).items():
        lines.append(f"In the place of {_name(value)} stands: {_plain(asked)}")
    labels = task["labels"] or []
    if labels and len(labels) <= MANY:
        of = ", ".join(map(_name, labels))
        lines.append(f"Labels, in the order of the outputs (also in `adapterxlt.json`): {of}.")
    elif labels:
        lines.append(f"The {len(labels)} labels are in `adapterxlt.json`, in the order of outputs.")
    return lines


# --- scores, data, making ------------------------------------------------------------------------


def _scores(about: Mapping[str, Any], rows: Sequence[Row]) -> list[str]:
    cell, body, most = about["cell"], [], 0
    mark = f" {UPPER_BOUND}" if about["upper_bound"] else ""
    for metric in dict.fromkeys(row["metric"] for row in rows):
        of = [row for row in rows if row["metric"] == metric]
        own = next(row for row in of if _run(row) == (cell["draw"], cell["seed"]))
        values = runs_of(of, [cell["target"]]).values
        found, most = interval_of(values), max(most, len(values))
        mean = percent(sum(values) / len(values)) if values else ""
        if found is not None:
            mean = f"{percent(found.mean)} [{percent(found.low)}, {percent(found.high)}]"
        body.append(
            f"| {_plain(metric)}{mark} | {percent(own['score'])} | {mean} | {len(values)} "
            f"| {percent(own['baseline'])} | {own['n']} |"
        )
    sample = f", {cell['shots']} shots, draw {cell['draw']}" if cell["draw"] is not None else ""
    what = f"{_plain(cell['task'])} in {_plain(cell['target'])}"
    header = "| metric | this one | mean of runs [95 % interval] | runs | trivial answer | items |"
    out = [
        f"Test set of {what}{' (laboratory)' if about['lab'] else ''}; regime "
        f"{_plain(cell['regime'])}{sample}, seed {cell['seed']}. Scores x 100.",
        "\n".join([header, "|---|---|---|---|---|---|", *body]),
    ]
    if most > 1:
        out.append(
            "Runs are draws and seeds of the same regime with as many shots; the interval is "
            "Student's t of their mean and says how far draws and seeds move it, not how it would "
            "be for other languages."
        )
    else:
        out.append("There is one run, so no interval can be given.")
    if rows:
        first = next((row for row in rows if row["primary"]), rows[0])
        said = trivial_answer(first["task"], first["metric"])
        out.append(f"The trivial answer to {_plain(first['metric'])}: {said}.")
    if about["upper_bound"]:
        out.append(bound_note())
    return out


def _run(row: Row) -> tuple[Any, Any]:
    return row["draw"], row["seed"]


def _data(about: Mapping[str, Any]) -> list[str]:
    lines = ["| data | languages | splits | licence |", "|---|---|---|---|"]
    for one in about["data"]:
        languages = ", ".join(map(_plain, one["languages"]))
        splits = ", ".join(map(_plain, one["splits"]))
        lines.append(
            f"| {_plain(one['name'])} | {languages} | {splits} | {_plain(one['licence'])} |"
        )
    said = "What it was trained and scored on. The licences are those of the data."
    return [said, "\n".join(lines)]


def _making(about: Mapping[str, Any]) -> list[str]:
    out = []
    if about["role"] != "language":
        regime = f"Regime {_plain(about['cell']['regime'])}, source {_plain(about['source'])}:"
        phases = [f"{n}. {_plain(phase)}" for n, phase in enumerate(about["phases"], start=1)]
        out.append("\n".join([regime, "", *phases]))
    keys = [f"| {_plain(name)} | `{key}` |" for name, key in sorted(about["keys"].items())]
    out.append("\n".join(["| stage | key |", "|---|---|", *keys]))
    versions = ", ".join(f"{_plain(n)} {_plain(v)}" for n, v in sorted(about["versions"].items()))
    out.append(f"Versions: {versions}.")
    study, overrides = _plain(about["study"]), ", ".join(map(_name, about["overrides"]))
    changed = f", changed by {overrides}" if overrides else ""
    said = f"<summary>The recipe of the study {study}{changed}, defaults filled in</summary>"
    out.append(f"<details>\n{said}\n\n{_fenced(about['recipe'], 'yaml')}\n\n</details>")
    return out


# --- text that is text ---------------------------------------------------------------------------


def _plain(text: object) -> str:
    """Text that means nothing to Markdown, HTML or a table, on one line."""
    one = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", html.escape(one, quote=False))


def _name(text: object) -> str:
    """A name as code where it is a plain one."""
    return f"`{text}`" if re.fullmatch(r"[\w./+=-]+", str(text), re.ASCII) else _plain(text)


def _fenced(text: str, language: str) -> str:
    """A block of code that ends where it should, whatever is in it."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
