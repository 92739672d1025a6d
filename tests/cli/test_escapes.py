"""No escape sequence from a recipe, a file or a hub reaches a terminal, whatever is shown."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner

from adapterxlt import console, options, watch

BAD = "x\x1b[2J\x9b31m\u202ey"
SHOWN = "x\\x1b[2J\\x9b31m\\u202ey"


def printed(call: Any) -> str:
    """What a function prints, both streams, as it would go to a terminal."""

    @click.command()
    def shell() -> None:
        call()

    result = CliRunner().invoke(shell, catch_exceptions=False)
    return result.output


def clean(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


def test_everything_that_is_shown_goes_through_one_gate() -> None:
    study: Any = SimpleNamespace(plan=SimpleNamespace(labels={"k" * 64: BAD}))
    outcome: Any = SimpleNamespace(failed={"k" * 64: BAD}, tails={"k" * 64: BAD}, blocked=[])
    for call in (
        lambda: console.put(BAD),
        lambda: console.show_rows([{"a": BAD}], as_json=False),
        lambda: console.show_rows([{"a": BAD}], as_json=True),
        lambda: console.show_failures(study, outcome),
        lambda: options.say(BAD),
    ):
        text = printed(call)
        assert clean(text) and "x" in text and "y" in text, text


@pytest.mark.parametrize("live", [False, True])
def test_progress_shows_labels_and_errors_harmlessly(
    monkeypatch: pytest.MonkeyPatch, live: bool
) -> None:
    study: Any = SimpleNamespace(plan=SimpleNamespace(labels={"k": BAD}))
    display = watch._Display(study, ["k"])
    monkeypatch.setattr(watch.watching, "result_of", lambda study, key: {})
    monkeypatch.setattr(display, "left", lambda: None)
    if live:
        from rich.console import Console

        to = Console(record=True, width=200)
        display.live = SimpleNamespace(console=to)
        display.finished("k", ValueError(f"{BAD}\nsecond line"))
        text = to.export_text()
    else:
        text = printed(lambda: display.finished("k", ValueError(f"{BAD}\nsecond line")))
    assert clean(text) and SHOWN in text and "\\nsecond line" in text


def test_names_of_files_and_what_is_in_them(call: Any, study: list[str], tmp_path: Path) -> None:
    bad = tmp_path / f"{BAD}.yaml"
    bad.write_text(f"{BAD}: 1\n", encoding="utf-8")
    line = call("validate", bad.name).refusal
    assert clean(line) and line.startswith(SHOWN)
    assert clean(call("plan", *study, f"tasks=[{BAD}]").err)
    assert clean(call("plan", *study, f"{BAD}=1").err)
    assert clean(call("show", BAD).err) and clean(call("show", BAD).out)
    assert clean(call("run", *study, "--track", BAD).err)
    assert clean(call("run", *study, "--only", BAD).err)
    row = json.dumps({"tokens": ["a"], "upos": [BAD]}, ensure_ascii=False)
    (tmp_path / "data" / "udpos" / "en" / "train.jsonl.gz").unlink()
    (tmp_path / "data" / "udpos" / "en" / "train.jsonl").write_text(row, encoding="utf-8")
    answer = call("plan", *study)
    assert answer.code == 2 and clean(answer.err) and SHOWN in answer.err


def test_a_resolved_recipe_is_shown_so_that_it_reads_back(call: Any, study: list[str]) -> None:
    from adapterxlt.core.yamlio import parse

    answer = call("validate", *study, "--resolved", 'question="turned \\u202e text"')
    assert answer.code == 0 and clean(answer.out), answer.err
    assert parse(answer.out, "again").value["question"] == "turned \u202e text"
