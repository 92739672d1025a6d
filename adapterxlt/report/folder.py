"""The folder a study is handed over in: the page, the rows, the recipe as written and resolved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapterxlt.core.canon import digest, sha256_hex
from adapterxlt.report.results import describe
from adapterxlt.run.scheduler import Outcome
from adapterxlt.run.study import Study
from adapterxlt.store.files import read_json, write_bytes, write_json


def _code() -> str:
    """Digest of what makes the page, so that a changed template makes a new one."""
    files = sorted(path for path in Path(__file__).parent.rglob("*") if path.is_file())
    return sha256_hex(b"".join(path.read_bytes() for path in files if path.suffix != ".pyc"))


def write(
    study: Study, rows: list[dict[str, Any]], folder: Path, outcome: Outcome | None = None
) -> Path:
    """Write what has changed since the folder was last written; returns the folder.

    Everything in it is a function of the rows and the study, whose digest is kept beside it, so
    writing again what is there already costs nothing.
    """
    about = describe(study, outcome)
    stamp = {"digest": digest("report", {"rows": rows, "study": about, "code": _code()})}
    files = ("report.html", "results.csv", "recipe.yaml", "recipe.resolved.yaml")
    marker = folder / ".digest.json"
    if read_json(marker) == stamp and all((folder / name).exists() for name in files):
        return folder
    import io

    from adapterxlt.report import export, html

    table = io.StringIO()
    export.write(rows, "csv", table)
    contents = {
        "report.html": html.build(rows, about),
        "results.csv": table.getvalue(),
        "recipe.yaml": study.loaded.document.text,
        "recipe.resolved.yaml": study.loaded.resolved_text(),
    }
    for name, text in contents.items():
        write_bytes(folder / name, text.encode())
    write_json(marker, stamp)
    return folder
