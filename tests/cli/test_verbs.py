"""The reading verbs, and what every verb says when it is given something it cannot use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterxlt import __version__
from adapterxlt.run import study as study_module
from adapterxlt.store.store import Store

Call = Callable[..., Any]
VERBS = ["new", "ls", "show", "validate", "plan", "run", "status", "report", "results"]
VERBS += ["claims", "compare"]
VERBS += ["predict", "fsck", "gc", "bundle", "unbundle", "doctor", "schema"]


def test_help_shows_every_verb_in_the_order_of_use(call: Call) -> None:
    answer = call("--help")
    assert answer.code == 0 and answer.err == ""
    shown = answer.out.partition("Commands:")[2]
    places = [shown.find(f"\n  {verb} ") for verb in VERBS]
    assert -1 not in places and places == sorted(places)
    assert call("-h").out == answer.out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(call: Call, verb: str) -> None:
    answer = call(verb, "--help")
    assert answer.code == 0 and f"adapterxlt {verb} " in answer.out.splitlines()[0]


def test_version(call: Call) -> None:
    assert call("--version").out.split()[-1] == __version__


# Bad input: exit code 2 and one line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["seeds=[1, 1]"], "1 stands twice in seeds"),
        (["source=qqq"], "unknown language 'qqq'"),
        (["targets=[en]"], "target 'en' is the source"),
        (
            ["targets=[sw]", "language_adapters=null", "regimes=[zero-shot]"],
            "languages with udpos: en fi",
        ),
        (["tasks=[udpo]"], "did you mean 'udpos'?"),
        (["regimes=[sequental]"], "did you mean 'sequential'?"),
        (["shost=[1]"], "did you mean 'shots'?"),
        (["shots=[5]"], "5 shots, but udpos has 4 train rows in 'fi'"),
        (["budget.lr=much"], "budget.lr"),
        (["seeds"], "override 'seeds' has no value"),
        (["name=[1"], "not valid YAML"),
        (["--data", "none"], "no such data folder"),
        (["--backbone", "none"], "no such backbone folder"),
        (["--store", "r.yaml"], "r.yaml"),
        (["--store", "data"], "not a store, and not empty"),
    ],
)
@pytest.mark.parametrize("verb", ["plan", "run"])
def test_bad_input_is_one_line_and_exit_code_2(
    call: Call, study: list[str], verb: str, arguments: list[str], words: str
) -> None:
    answer = call(verb, *study, *arguments)
    assert answer.code == 2
    assert words in answer.refusal


@pytest.mark.parametrize("verb", ["validate", "plan", "status", "results", "report"])
def test_a_bad_recipe_is_refused_by_every_verb(call: Call, study: list[str], verb: str) -> None:
    path = Path("r.yaml")
    path.write_text(path.read_text() + "shost: [1]\n")
    answer = call(verb, *study)
    assert answer.code == 2
    assert answer.refusal == "r.yaml:8: unknown field 'shost'; did you mean 'shots'?"


def test_several_faults_are_several_lines(call: Call, study: list[str]) -> None:
    answer = call("validate", *study, "source=qqq", "tasks=[udpo]")
    assert answer.code == 2 and answer.out == ""
    assert [line.startswith("adapterxlt: ") for line in answer.err.splitlines()] == [True, True]


def test_recipes_that_are_not_there(call: Call, study: list[str]) -> None:
    answer = call("plan", "quickstart/labb")
    assert answer.code == 2 and "did you mean 'quickstart/lab'?" in answer.refusal
    Path("binary.yaml").write_bytes(b"\xff\xfe")
    answer = call("plan", "binary.yaml")
    assert answer.code == 2 and "binary.yaml" in answer.refusal
    Path("broken.yaml").write_text("a: [1\n")
    assert call("plan", "broken.yaml").refusal.startswith("broken.yaml:2: not valid YAML")


@pytest.mark.parametrize(
    "arguments",
    [
        ["paln", "x"],
        ["plan"],
        ["plan", "r.yaml", "--nothing"],
        ["ls", "nothing"],
        ["run", "r.yaml", "--workers", "-1"],
    ],
)
def test_wrong_usage_is_exit_code_2_without_a_traceback(call: Call, arguments: list[str]) -> None:
    answer = call(*arguments)
    assert answer.code == 2 and answer.out == ""
    assert "Error: " in answer.err and "Traceback" not in answer.err


# new, show, ls, schema


def test_new_copies_a_recipe_and_never_overwrites(call: Call) -> None:
    assert call("new", "quickstart/lab").out == "lab.yaml\n"
    whole = Path("lab.yaml").read_bytes()
    assert whole == (Path(__file__).parents[2] / "recipes/quickstart/lab.yaml").read_bytes()
    Path("lab.yaml").write_text("mine")
    answer = call("new", "quickstart/lab")
    assert answer.code == 2 and "lab.yaml: already exists" in answer.refusal
    assert Path("lab.yaml").read_text() == "mine"
    Path("folder").mkdir()
    assert call("new", "quickstart/lab", "folder").code == 0
    assert Path("folder/lab.yaml").read_bytes() == whole
    assert call("new", "quickstart/lab", "other.yaml").out == "other.yaml\n"
    assert call("new", "lib").code == 2


def test_new_into_a_folder_that_is_not_there(call: Call) -> None:
    answer = call("new", "quickstart/lab", "no/such/folder/r.yaml")
    assert answer.code == 2 and "no/such/folder" in answer.refusal


def test_a_new_recipe_is_valid(call: Call) -> None:
    call("new", "quickstart/lab")
    answer = call("validate", "lab.yaml", "tasks=[lab-pos]")
    assert answer.code == 0 and answer.err.startswith("valid: ")


def test_show(call: Call) -> None:
    assert "name: multi-stage" in call("show", "multi-stage").out
    assert "name: quickstart" in call("show", "quickstart/lab").out
    answer = call("show", "multistage")
    assert answer.code == 2 and "did you mean 'multi-stage'?" in answer.refusal


def test_show_and_ls_of_stages(call: Call, tmp_path: Path) -> None:
    stage = {"kind": "evaluate", "epoch": 1, "params": {"data": {"task": "t", "language": "fi"}}}
    store = Store(tmp_path / ".adapterxlt")
    for key in ("abcdef0" + "0" * 57, "abcdef1" + "0" * 57):
        store.publish(key, stage, {}, {"seconds": 2.0})
    assert json.loads(call("show", "abcdef1").out)["key"].startswith("abcdef1")
    answer = call("show", "abcdef")
    assert answer.code == 2 and "2 stages begin with 'abcdef'; give more digits" in answer.refusal
    assert call("show", "ffffff").code == 2
    rows = json.loads(call("ls", "stages", "--json").out)
    assert [row["key"] for row in rows] == ["abcdef000000", "abcdef100000"]
    assert rows[0] == {"key": "abcdef000000", "kind": "evaluate", "data": "t:fi", "seconds": 2.0}
    assert call("ls", "stages", "--store", "none").code == 2
    assert not Path("none").exists()


@pytest.mark.parametrize(
    ("what", "column", "member"),
    [
        ("recipes", "recipe", "quickstart/lab"),
        ("tasks", "task", "udpos"),
        ("languages", "code", "fi"),
        ("languages", "code", "lab-root"),
        ("methods", "method", "seq_bn_inv"),
        ("regimes", "regime", "multi-stage"),
    ],
)
def test_ls(call: Call, what: str, column: str, member: str) -> None:
    rows = json.loads(call("ls", what, "--json").out)
    (row,) = [row for row in rows if row[column] == member]
    lines = call("ls", what).out.splitlines()
    assert len(lines) == len(rows) + 1 and lines[0].split()[0] == column
    shown = next(line for line in lines if line.split()[0] == member)
    assert all(
        str(value).split()[0] in shown for value in row.values() if isinstance(value, str) and value
    )


def test_schema_is_json(call: Call) -> None:
    schema = json.loads(call("schema").out)
    assert schema["title"] == "adapterxlt recipe"
    assert {"source", "targets", "regimes", "shots"} <= schema["properties"].keys()


# A study that has not run


def test_validate_prints_the_resolved_recipe(call: Call, study: list[str]) -> None:
    answer = call("validate", *study, "--resolved", "seeds=[4]")
    assert answer.code == 0 and answer.err == "valid: 3 cells, 7 stages\n"
    Path("resolved.yaml").write_text(answer.out)
    again = call("validate", "resolved.yaml", *study[1:], "--resolved")
    assert again.out == answer.out and "seeds: [4]" in answer.out


def test_plan_as_json_lists_the_stages_and_the_sums(call: Call, study: list[str]) -> None:
    answer = call("plan", *study, "--json")
    plan = json.loads(answer.out)
    assert answer.code == 0 and answer.err == ""
    # Two language adapters, the source stage, the shots after it, and three evaluations.
    assert [row["state"] for row in plan["stages"]].count("to train") == 2
    assert len(plan["stages"]) == 7 and len({row["key"] for row in plan["stages"]}) == 7
    assert plan["totals"].items() >= {"cells": 3, "stages": 7, "needed": 7, "cached": 0}.items()
    assert plan["totals"]["uses"] == sum(row["cells"] for row in plan["stages"])
    assert plan["totals"]["flops"] == pytest.approx(sum(row["flops"] for row in plan["stages"]))


def test_plan_as_a_table(call: Call, study: list[str]) -> None:
    answer = call("plan", *study)
    lines = answer.out.splitlines()
    assert lines[0].split()[:3] == ["state", "key", "stage"]
    assert sum(line.startswith("to train") for line in lines) == 2
    assert "3 cells need" in answer.out and "Estimated: " in answer.out
    assert any("language adapter fi" in line for line in lines)


def test_plan_says_what_the_store_has(call: Call, study: list[str], opened: Any) -> None:
    language = next(k for k, v in opened.plan.labels.items() if v == "language adapter en")
    opened.store.publish(language, opened.plan.stages[language].canonical(), {}, {"seconds": 1})
    plan = json.loads(call("plan", *study, "--json").out)
    states = {row["stage"]: row["state"] for row in plan["stages"]}
    assert states["language adapter en"] == "cached"
    assert states["source udpos source, seed 1"] == "to train"
    assert plan["totals"]["cached"] == 1 and plan["totals"]["needed"] == 6
    assert json.loads(call("status", *study, "--json").out)["stages"]["train"] == [1, 4]


@pytest.mark.parametrize(("sample", "count"), [(1, 1), (100, 3)])
def test_estimates_read_a_sample_of_each_kind_of_work(
    opened: Any, monkeypatch: pytest.MonkeyPatch, sample: int, count: int
) -> None:
    for key, stage in opened.plan.stages.items():
        opened.store.publish(key, stage.canonical(), {}, {"seconds": 2.0})
    read, reading = [], opened.store.read
    monkeypatch.setattr(opened.store, "read", lambda key: read.append(key) or reading(key))
    monkeypatch.setattr(study_module, "SAMPLE", sample)
    assert opened.speed.origin == "past runs and a calibration"
    kinds = Counter(opened.work(key).work_kind for key in read)
    assert kinds.keys() == {"mlm", "task", "evaluate"} and kinds["evaluate"] == count
    evaluations = [key for key in read if opened.plan.stages[key].kind == "evaluate"]
    rate = sum(opened.work(key).flops for key in evaluations) / (2.0 * len(evaluations))
    assert opened.speed.per_kind["evaluate"] == pytest.approx(rate)


def test_status_before_a_run(call: Call, study: list[str]) -> None:
    answer = call("status", *study, "--json")
    assert answer.code == 0
    assert json.loads(answer.out) == {
        "cells": [0, 3],
        "stages": {"train": [0, 4], "evaluate": [0, 3]},
        "running": [],
        "finished": [],
        "failed": [],
        "runs": [],
        "left": None,
    }
    assert "cells     0 of 3" in call("status", *study).out


def test_results_before_a_run(call: Call, study: list[str]) -> None:
    answer = call("results", *study)
    assert answer.code == 0 and answer.out == "" and answer.err == "no results yet\n"
    assert json.loads(call("results", *study, "--json").out) == []
    answer = call("results", *study, "--format", "parquet")
    assert answer.code == 2 and "give --output FILE" in answer.refusal


def test_results_to_a_place_that_cannot_be_written(call: Call, study: list[str]) -> None:
    answer = call("results", *study, "--format", "csv", "-o", "no/such/folder/x.csv")
    assert answer.code == 2 and "no/such/folder" in answer.refusal


def test_a_report_is_written_where_it_is_not_whole(call: Call, study: list[str]) -> None:
    folder = Path("results/small")

    def written() -> dict[str, tuple[bytes, int]]:
        return {
            path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()
        }

    assert call("report", *study).code == 0
    first = written()
    assert len(first) == 5
    call("report", *study)
    assert written() == first
    for name, damage in {
        "report.html": lambda path: path.write_bytes(path.read_bytes()[:-9]),
        "results.csv": Path.unlink,
        "recipe.yaml": lambda path: path.write_text("mine"),
        ".digest.json": lambda path: path.write_text("[]"),
    }.items():
        damage(folder / name)
        assert call("report", *study).code == 0
        assert {n: data for n, (data, _) in written().items()} == {
            n: data for n, (data, _) in first.items()
        }, name
    call("report", *study, "question=Why?")
    assert b"Why?" in written()["report.html"][0]


def test_predict_before_a_run(call: Call, study: list[str]) -> None:
    answer = call("predict", *study, "--language", "fi", "a b")
    assert answer.code == 2 and "not finished: udpos sequential fi" in answer.refusal
    answer = call("predict", *study, "--language", "fii", "a b")
    assert answer.code == 2 and "did you mean 'fi'?" in answer.refusal
    answer = call("predict", *study, "--language", "en", "--regime", "sequential", "a b")
    assert answer.code == 2 and "no cell with target en" in answer.refusal
    answer = call("predict", *study, "--language", "fi", "--regime", "sequental", "a b")
    assert answer.code == 2 and "no cell with" in answer.refusal


# fsck, doctor, signals


def test_fsck_finds_and_mends(call: Call, tmp_path: Path) -> None:
    store = Store(tmp_path / ".adapterxlt")
    record = store.publish("ab" * 32, {"kind": "train", "params": {}}, {"f": b"data"}, {})
    answer = call("fsck")
    assert (answer.code, answer.out) == (0, "")
    assert answer.err == "1 records and 1 objects read; damaged: 0\n"
    store.object_path(record.files["f"]).write_bytes(b"dat")
    answer = call("fsck")
    assert answer.code == 3 and "does not match its digest" in answer.out
    answer = call("fsck", "--mend")
    assert answer.code == 0 and "damaged: 2, put aside" in answer.err
    assert call("fsck").code == 0 and list(Store(store.root)) == []


def test_fsck_of_a_store_that_is_not_there_makes_none(call: Call) -> None:
    answer = call("fsck", "--store", "none")
    assert answer.code == 2 and "none" in answer.refusal
    assert not Path("none").exists()


def test_reading_a_damaged_record_is_exit_code_3(call: Call, study: list[str], opened: Any) -> None:
    key = next(iter(opened.plan.stages))
    opened.store.record_path(key).parent.mkdir(parents=True)
    opened.store.record_path(key).write_text("{")
    answer = call("plan", *study)
    assert answer.code == 3 and "fsck --mend" in answer.refusal
    assert call("fsck", "--mend").code == 0
    assert call("plan", *study).code == 0


def test_doctor(call: Call) -> None:
    answer = call("doctor", "--store", "here")
    assert answer.code == 0
    found = {line.split()[0]: line.split()[1] for line in answer.out.splitlines()}
    assert found["adapterxlt"] == __version__ and found["cores"] == str(os.cpu_count())
    assert found["python"] == sys.version.split()[0]
    assert not Path("here").exists()


def test_the_environment_names_the_store(
    call: Call, study: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ADAPTERXLT_STORE", str(tmp_path / "elsewhere"))
    call("plan", *study)
    assert (tmp_path / "elsewhere" / "format.json").is_file()
    assert not Path(".adapterxlt").exists()


def test_the_console_script_maps_errors_to_exit_codes(tmp_path: Path) -> None:
    program = "from adapterxlt.cli import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", program, "plan", "none.yaml"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2 and run.stdout == ""
    assert run.stderr.startswith("adapterxlt: no recipe file") and run.stderr.count("\n") == 1


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    program = "from adapterxlt.cli import main; main()"
    command = f"'{sys.executable}' -c '{program}' ls languages | head -1; echo ${{PIPESTATUS[0]}}"
    run = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert run.stderr == "" and run.stdout.splitlines()[-1] == "0"
