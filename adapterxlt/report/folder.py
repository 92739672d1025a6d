"""The folder a study is handed over in: the page, the rows, the recipe as written and resolved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapterxlt.core.canon import digest, sha256_hex
from adapterxlt.report.results import describe
from adapterxlt.run.scheduler import Outcome
from adapterxlt.run.study import Study
from adapterxlt.store.files import read_json, write_bytes, write_json

FILES = ("report.html", "results.csv", "recipe.yaml", "recipe.resolved.yaml")


def _code() -> str:
    """Digest of what makes the page, so that a changed template makes a new one."""
    files = sorted(path for path in Path(__file__).parent.rglob("*") if path.is_file())
    return sha256_hex(b"".join(path.read_bytes() for path in files if path.suffix != ".pyc"))


def write(
    study: Study, rows: list[dict[str, Any]], folder: Path, outcome: Outcome | None = None
) -> Path:
    """Write the folder unless it is there as it would be written; returns it.

    Everything in it is a function of the rows and the study. Their digest and those of the files
    are kept beside them: a file that was changed or taken away is there again afterwards.
    """
    about = describe(study, outcome)
    made_from = digest("report", {"rows": rows, "study": about, "code": _code()})
    marker = folder / ".digest.json"
    if _is_there(folder, read_json(marker), made_from):
        return folder
    import io

    from adapterxlt.report import export, html

    table = io.StringIO()
    export.write(rows, "csv", table)
    texts = (
        html.build(rows, about),
        table.getvalue(),
        study.loaded.document.text,
        study.loaded.resolved_text(),
    )
    contents = {name: text.encode() for name, text in zip(FILES, texts, strict=True)}
    for name, data in contents.items():
        write_bytes(folder / name, data)
    files = {name: sha256_hex(data) for name, data in contents.items()}
    write_json(marker, {"digest": made_from, "files": files})
    return folder


def _is_there(folder: Path, kept: Any, made_from: str) -> bool:
    """Whether a folder was written from this, and is as it was written."""
    if not isinstance(kept, dict) or kept.get("digest") != made_from:
        return False
    try:
        files = {name: sha256_hex((folder / name).read_bytes()) for name in FILES}
    except OSError:
        return False
    return kept.get("files") == files
