"""A user's own data, in the formats that there are: from a recipe to scores and answers, and what
is said of each thing that can be wrong with them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adapterxlt import cli, lab

Row = dict[str, Any]
Call = Callable[..., Any]
LANGUAGES = {"en": "lab-root", "fi": "lab-near-high"}

RECIPE = """\
name: own
source: en
targets: [fi]
tasks: [topic, claims, words, names, reading, causes, twins, finding, udpos]
regimes: [zero-shot, joint]
shots: [4]
datasets:
  topic:
    kind: classification
    files: "topic/{language}.csv"
  claims:
    kind: pair-classification
    labels: [entailment, neutral, contradiction]
    files: "claims/{split}-{language}.tsv"
    columns: {sentence1: said, sentence2: claimed, label: gold}
  words:
    kind: tagging
    label: upos
    files: "words/{language}-ud-{split}.conllu"
    splits: {train: train, validation: dev, test: test}
  names:
    kind: tagging
    metrics: [span_f1]
    files: "names/{language}/{split}.iob2"
  reading:
    kind: qa
    files: "reading/{language}/{split}.parquet"
  causes:
    kind: choice
    questions: {cause: Why?, effect: What then?}
    files: "causes/{language}/{split}.jsonl"
  twins:
    kind: retrieval
    csls: true
    files: {source: "twins/{language}.txt", target: "twins/{language}-en.txt"}
  finding:
    kind: ranking
    files: "finding/{language}/{split}.jsonl"
  udpos:
    files: "udpos/{language}.{split}.jsonl.gz"
language_adapters:
  budget: {steps: 2, batch: 4, lr: 1e-3}
  places: [{files: "text/{language}.txt"}]
budget: {steps: 2, batch: 4, lr: 1e-3}
limits: {test: 12}
"""
TASKS = [
    *("topic", "claims", "words", "names", "reading", "causes", "twins", "finding", "udpos"),
]
#: Regimes that train the task are not for retrieval, on which nothing is trained.
ZERO_SHOT = ["regimes=[zero-shot]"]


@cache
def rows(task: str, language: str, split: str, count: int) -> list[Row]:
    return [dict(row) for row in lab.rows(task, LANGUAGES[language], split)[:count]]


def json_lines(rows: list[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def table(rows: list[Row], names: dict[str, str], delimiter: str) -> str:
    """Rows under a header, columns by their names in the file."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow(names.values())
    writer.writerows([row[name] for name in names] for row in rows)
    return out.getvalue()


def conllu(rows: list[Row]) -> str:
    def word(number: int, form: str, tag: str) -> str:
        return "\t".join([str(number), form, "_", tag, *"______"])

    sentences = (
        "\n".join(
            [
                f"# sent_id = {row['id']}",
                "1-2\tab\t_\t_\t_\t_\t_\t_\t_\t_",  # of several words: not one itself
                *(word(n, *pair) for n, pair in enumerate(zip(*words(row), strict=True), 1)),
            ]
        )
        for row in rows
    )
    return "\n\n".join(sentences) + "\n"


def words(row: Row) -> tuple[list[str], list[str]]:
    return row["tokens"], row["upos"]


def iob2(rows: list[Row]) -> str:
    return "\n".join(
        "".join(
            f"{token} _ {tag}\n" for token, tag in zip(row["tokens"], row["ner_tags"], strict=True)
        )
        for row in rows
    )


def put(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")


def make(folder: Path) -> None:
    """The recipe with all of its files."""
    put(folder, "own.yaml", RECIPE)
    finding = {"lab-root": "en", "lab-near-high": "fi"}
    for language in LANGUAGES:
        topics = [*rows("lab-topic", language, "train", 60)]
        put(folder, f"topic/{language}.csv", table(topics, {"text": "text", "label": "label"}, ","))
        put(folder, f"topic/{language}.jsonl", json_lines(topics))
        put(folder, f"topic/{language}.xlsx", "")
        put(folder, f"text/{language}.txt", "\n\n".join(lab.text(LANGUAGES[language])[:20]))
        pairs = rows("lab-bitext", language, "test", 20) if language != "en" else []
        for name, column in (("", "source"), ("-en", "target")):
            if pairs:
                text = "\n".join(row[column] for row in pairs)
                put(folder, f"twins/{language}{name}.txt", text)
        for split, count in (("train", 30), ("test", 16)):
            claims = rows("lab-nli", language, split, count)
            names = {"premise": "said", "label": "gold", "id": "id", "hypothesis": "claimed"}
            put(folder, f"claims/{split}-{language}.tsv", table(claims, names, "\t"))
            tagged = rows("lab-pos", language, split, count)
            theirs = {"train": "train", "test": "test"}[split]
            put(folder, f"words/{language}-ud-{theirs}.conllu", conllu(tagged))
            path = folder / f"udpos/{language}.{split}.jsonl.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(json_lines(tagged).encode()))
            named = rows("lab-ner", language, split, count)
            put(folder, f"names/{language}/{split}.iob2", iob2(named))
            asked = rows("lab-qa", language, split, count)
            (folder / f"reading/{language}").mkdir(parents=True, exist_ok=True)
            pq.write_table(
                pa.Table.from_pylist(asked), folder / f"reading/{language}/{split}.parquet"
            )
            causes = rows("lab-choice", language, split, count)
            put(folder, f"causes/{language}/{split}.jsonl", json_lines(causes))
            finds = rows("lab-ranking", language, split, count)
            if split == "test":
                finds = [
                    {**row, "relevant": [f"{finding[n]}-{i}" for n in finding]}
                    for i, row in enumerate(finds)
                ]
            put(folder, f"finding/{language}/{split}.jsonl", json_lines(finds))
        found = [
            {"id": f"{language}-{i}", "text": row["text"]}
            for i, row in enumerate(rows("lab-ranking", language, "candidates", 16))
        ]
        put(folder, f"finding/{language}/candidates.jsonl", json_lines(found))


@dataclass(frozen=True)
class Own:
    """A folder with a finished study, and what its verbs say."""

    folder: Path
    backbone: Path

    def call(self, verb: str, *more: object, recipe: Path | None = None) -> tuple[int, str, str]:
        """Exit code, stdout, stderr of a verb; no --data is given."""
        given = [verb, recipe or self.folder / "own.yaml", "--backbone", self.backbone]
        given += ["--store", self.folder / "store", *more]
        out, err, code = io.StringIO(), io.StringIO(), 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["adapterxlt", *map(str, given)])
            with redirect_stdout(out), redirect_stderr(err):
                try:
                    cli.main()
                except SystemExit as end:
                    code = int(end.code or 0)
        return code, out.getvalue(), err.getvalue()

    def rows(self, *more: object) -> list[Row]:
        code, out, err = self.call("results", "--json", *more)
        assert code == 0, err
        found: list[Row] = json.loads(out)
        return found

    def keys(self, *more: object, recipe: Path | None = None) -> dict[str, str]:
        """State of each stage by its key."""
        code, out, err = self.call("plan", "--json", *more, recipe=recipe)
        assert code == 0, err
        return {row["key"]: row["state"] for row in json.loads(out)["stages"]}


@pytest.fixture(scope="module")
def own(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Own]:
    """The study of the recipe, run."""
    folder = tmp_path_factory.mktemp("own data [of one]")
    make(folder)
    own = Own(folder, tiny_backbone)
    assert own.call("validate", *ZERO_SHOT)[0] == 0
    run = ["run", "--workers", 0, "--out", folder / "results"]
    code, _, err = own.call(*run, *ZERO_SHOT)
    assert code == 0, err
    yield own


def test_every_format_and_kind_is_read_trained_on_and_scored(own: Own) -> None:
    found = own.rows(*ZERO_SHOT)
    scored = {(row["task"], row["target"]) for row in found if row["primary"]}
    expected = {(task, language) for task in TASKS for language in LANGUAGES}
    assert scored == expected - {("twins", "en")}
    assert all(0 <= row["score"] <= 1 and row["n"] >= 3 for row in found)
    metrics = {row["task"]: row["metric"] for row in found if row["primary"]}
    assert metrics["names"] == "span_f1" and metrics["finding"] == "map@20"
    assert metrics["udpos"] == "pos_f1", "what an entry does not say is as it was shipped"
    assert (own.folder / "results" / "report.html").is_file()


def test_labels_are_those_of_the_sources_training_data(own: Own) -> None:
    from adapterxlt.run.study import Study

    study = Study.open(
        own.folder / "own.yaml", store=own.folder / "store", backbone=str(own.backbone),
        overrides=ZERO_SHOT,
    )  # fmt: skip
    topics = rows("lab-topic", "en", "train", 60)
    parts = {s: study.corpus.rows("topic", "en", s) for s in ("train", "validation", "test")}
    assert [len(part) for part in parts.values()] == [48, 6, 6]
    texts = [row["text"] for part in parts.values() for row in part]
    assert sorted(texts) == sorted(row["text"] for row in topics)
    assert texts != [row["text"] for row in topics], "divided by draw, not in order"
    labels = study.corpus.task("topic").labels
    assert labels == tuple(sorted({row["label"] for row in parts["train"]})) and len(labels) > 2
    assert study.corpus.task("words").labels == tuple(
        sorted({tag for row in rows("lab-pos", "en", "train", 30) for tag in row["upos"]})
    )
    assert study.corpus.task("names").labels[0] == "O"


def test_equal_rows_in_two_formats_give_equal_scores(own: Own) -> None:
    def scores(*more: str) -> list[tuple[str, str, float]]:
        found = own.rows("tasks=[topic]", "shots=[3]", *more)
        return [(row["regime"], row["metric"], row["score"]) for row in found]

    lines = 'datasets.topic={kind: classification, files: "topic/{language}.jsonl"}'
    for more in ((), (lines,)):
        given = ["tasks=[topic]", "shots=[3]", *more]
        code, _, err = own.call("run", "--workers", 0, "--out", own.folder / "other", *given)
        assert code == 0, err
    assert len(scores()) == 2 * 3 and scores() == scores(lines)


def test_running_again_finds_everything_wherever_the_folder_is(own: Own, tmp_path: Path) -> None:
    """No path is part of a key."""
    keys = own.keys(*ZERO_SHOT)
    assert set(keys.values()) == {"cached"}
    copy = tmp_path / "elsewhere"
    shutil.copytree(own.folder, copy, ignore=shutil.ignore_patterns("store", "results", "other"))
    assert own.keys(*ZERO_SHOT, recipe=copy / "own.yaml") == keys
    absolute = (copy / "own.yaml").read_text().replace('files: "', f'files: "{copy}/')
    put(tmp_path, "far/own.yaml", absolute.replace('"twins/', f'"{copy}/twins/'))
    assert own.keys(*ZERO_SHOT, recipe=tmp_path / "far" / "own.yaml") == keys


def test_predict_on_tasks_of_ones_own(own: Own) -> None:
    def answer(task: str, line: str, *more: str) -> str:
        code, out, err = own.call(
            "predict", "--language", "fi", "--task", task, *more, "--set", *ZERO_SHOT, line
        )
        assert code == 0, err
        return out.rstrip("\n")

    row = rows("lab-qa", "fi", "test", 1)[0]
    line = f"{row['context']}\t{row['question']}"
    text = answer("reading", line)
    assert text and text in row["context"]
    assert json.loads(answer("reading", line, "--json")) == {
        "context": row["context"], "question": row["question"], "answers": text,
    }  # fmt: skip
    row = rows("lab-choice", "fi", "test", 1)[0]
    columns = ("premise", "question", "choice1", "choice2")
    line = "\t".join(row[name] for name in columns)
    assert answer("causes", line) in ("0", "1")
    assert json.loads(answer("causes", line, "--json")).keys() == {*columns, "label"}
    code, _, err = own.call(
        "predict", "--language", "fi", "--task", "causes", "--set", *ZERO_SHOT, "no tabs"
    )
    assert code == 2 and "premise, question, choice1, choice2" in err


OWN = "own.yaml"
HUB = "hub: lab/topics\n    config: '{language}'"
FILES = 'files: "topic/{language}.csv"'

# --- what can be wrong ---------------------------------------------------------------------------


@pytest.fixture
def mine(call: Call, study: list[str], tmp_path: Path) -> list[str]:
    """Arguments that name the recipe and what looks like a backbone; its files are here."""
    make(tmp_path)
    return ["own.yaml", "--backbone", "backbone", "language_adapters=null"]


def change(name: str, old: str, new: str, count: int = 1) -> Callable[[], None]:
    """A file with a piece of it replaced."""

    def changed() -> None:
        path = Path(name)
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, count), encoding="utf-8")

    return changed


def line(name: str, number: int, new: str | None) -> Callable[[], None]:
    """A file with a line replaced, or without it."""

    def changed() -> None:
        path = Path(name)
        lines = path.read_text(encoding="utf-8").split("\n")
        lines[number - 1 : number] = [] if new is None else [new]
        path.write_text("\n".join(lines), encoding="utf-8")

    return changed


def answers(number: int) -> Callable[[], None]:
    """A Parquet file in which an answer of a row stands elsewhere."""

    def changed() -> None:
        path = "reading/fi/test.parquet"
        table = pq.read_table(path).to_pylist()
        table[number - 1]["answers"]["answer_start"][0] += 2
        pq.write_table(pa.Table.from_pylist(table), path)

    return changed


def empty(name: str) -> Callable[[], object]:
    return lambda: Path(name).write_text("")


def rename(name: str, new: str) -> Callable[[], object]:
    return lambda: Path(name).rename(new)


def other(files: str, more: str) -> Callable[[], None]:
    """The target's files elsewhere than the source's, in the same task."""
    first = f"places:\n    - {files}\n      languages: [en]\n    - {more}"
    return change(OWN, FILES, first)


#: What is changed; the tasks; what the one line has to say, in this order.
WRONG: dict[str, tuple[Callable[[], object], str, list[str]]] = {
    "missing column": (
        change("topic/fi.csv", "text,label", "words,label"),
        "topic",
        ["own.yaml:3: no column 'text' (", "topic/fi.csv:", "there is words, label"],
    ),
    "misspelt column": (
        change("claims/test-fi.tsv", "claimed", "claimd"),
        "claims",
        [
            "own.yaml:3: no column 'claimed' for 'sentence2' (",
            "claims/test-fi.tsv:2)",
            "there is id, claimd, gold, said",
            "did you mean 'claimd'?",
        ],
    ),
    "unknown label": (
        change("claims/test-fi.tsv", "\tneutral\t", "\tneutrl\t"),
        "claims",
        [
            "own.yaml:3: label 'neutrl' is outside the label set of claims (",
            "claims/test-fi.tsv:",
            "did you mean 'neutral'?",
        ],
    ),
    "unknown tag": (
        change("words/fi-ud-test.conllu", "\tNOUN\t", "\tNUON\t"),
        "words",
        ["label 'NUON' is outside", "words/fi-ud-test.conllu:1)", "did you mean 'NOUN'?"],
    ),
    "answer elsewhere": (
        answers(3),
        "reading",
        ["own.yaml:3: answer ", " of the context", "reading/fi/test.parquet:3)", "it is at "],
    ),
    "unequal parallel files": (
        line("twins/fi-en.txt", 7, None),
        "twins",
        ["own.yaml:3: 19 lines, but ", "twins/fi.txt has 20", "twins/fi-en.txt", "line by line"],
    ),
    "language": (
        change(OWN, "targets: [fi]", "targets: [et]"),
        "topic",
        ["own.yaml:3: topic: no test data for 'et'", "topic/et.csv", "languages with topic: en fi"],
    ),
    "empty test split": (
        empty("causes/fi/test.jsonl"),
        "causes",
        ["own.yaml:3: the split is empty (", "causes/fi/test.jsonl)"],
    ),
    "no test split": (
        rename("causes/fi/test.jsonl", "causes/fi/tests.jsonl"),
        "causes",
        ["no test data for 'fi'", "causes/fi/test.jsonl", "has train"],
    ),
    "unknown format": (
        other(FILES, 'files: "topic/{language}.xlsx"'),
        "topic",
        ["own.yaml:3: the file's name does not say its format (", "fi.xlsx)", "one of jsonl, csv"],
    ),
    "misspelt format": (
        change(OWN, FILES, f"{FILES}\n    format: cvs"),
        "topic",
        ["own.yaml:11: datasets.topic.format: ", "'csv'", "not 'cvs'"],
    ),
    "ragged row": (
        line("topic/fi.csv", 5, "a, b, c"),
        "topic",
        ["own.yaml:3: 3 cells under 2 columns (", "topic/fi.csv:5)", "quote a cell"],
    ),
    "ragged tags": (
        line("names/fi/train.iob2", 2, "one_cell"),
        "names",
        ["own.yaml:3: a line is a word and, last, its tag (", "names/fi/train.iob2:2)"],
    ),
    "not JSON": (
        line("causes/en/train.jsonl", 2, '{"premise": "a"'),
        "causes",
        ["own.yaml:2: not JSON", "causes/en/train.jsonl:2)"],
    ),
    "field of another kind": (
        change(OWN, "label: upos", "label: upos\n    csls: true"),
        "words",
        ["own.yaml:16: datasets.words: csls says nothing of tagging"],
    ),
    "layer above the last": (
        change(OWN, "csls: true", "csls: true\n    layer: 3"),
        "twins",
        ["twins reads layer 3 of the backbone's 2; take 2 or fewer"],
    ),
    "hub without revision": (
        change(OWN, FILES, HUB),
        "topic",
        ["own.yaml:8: datasets.topic: a hub's data need a revision, 40 hex digits"],
    ),
    "hub at a branch": (
        change(OWN, FILES, f"{HUB}\n    revision: main"),
        "topic",
        ["own.yaml:12: datasets.topic.revision: a revision is a commit, 40 hex digits", "'main'"],
    ),
    "hub that is not asked for": (
        change(OWN, FILES, f"{HUB}\n    languages: [en, fi]\n    revision: {'a1' * 20}"),
        "topic",
        ["own.yaml: the recipe names no data", "--data", "data: hub"],
    ),
    "misspelt field": (
        change(OWN, FILES, FILES.replace("files", "flies")),
        "topic",
        ["own.yaml:10: unknown field 'datasets.topic.flies'", "did you mean 'files'?"],
    ),
    "misspelt field of a place": (
        change(OWN, FILES, f"places:\n    - {FILES}\n      colums: {{text: a}}"),
        "topic",
        ["own.yaml:12: unknown field 'datasets.topic.places.0.colums'", "did you mean 'columns'?"],
    ),
    "misspelt kind": (
        change(OWN, "kind: classification", "kind: clasification"),
        "topic",
        ["own.yaml:9: datasets.topic.kind: ", "not 'clasification'"],
    ),
    "unknown metric": (
        change(OWN, "[span_f1]", "[span_f2]"),
        "names",
        ["own.yaml:21: datasets.names: no metric 'span_f2' of tagging; did you mean 'span_f1'?"],
    ),
    "targets of an unknown task": (
        change(OWN, "targets: [fi]", "targets: {topic: [fi], topics: [fi]}"),
        "topic",
        ["own.yaml:3: targets of 'topics', which is no task here", "did you mean 'topic'?"],
    ),
    "all targets of a task without languages": (
        change(OWN, "targets: [fi]", "targets: all"),
        "topic",
        ["own.yaml:3: task 'topic' has no targets", "list targets", "names no languages"],
    ),
    "no language in the path": (
        change(OWN, "topic/{language}.csv", "topic/en.csv"),
        "topic",
        ["own.yaml:8: topic: no {language} in the place", "languages: [en]"],
    ),
    "folder": (
        change(OWN, "topic/{language}.csv", "topics/{language}.csv"),
        "topic",
        [
            "own.yaml:8: topic: no train data for 'en' (",
            "topics/en.csv)",
            "see files in the recipe",
        ],
    ),
    "shots": (
        change(OWN, "shots: [4]", "shots: [400]"),
        "causes",
        ["own.yaml:6: 400 shots, but causes has 30 train rows in 'fi'", "take 30 or fewer"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line_that_says_what_to_do(
    call: Call, mine: list[str], case: str
) -> None:
    wrong, task, parts = WRONG[case]
    wrong()
    regimes = "regimes=[zero-shot]" if task == "twins" else "regimes=[zero-shot, joint]"
    answer = call("validate", *mine, regimes, f"tasks=[{task}]")
    assert answer.code == 2, answer.err
    at = 0
    for part in parts:
        assert part in answer.refusal[at:], answer.refusal
        at = answer.refusal.index(part, at) + len(part)
    run = call("run", *mine, regimes, f"tasks=[{task}]")
    assert (run.code, run.refusal) == (2, answer.refusal)


def test_text_of_ones_own_that_is_not_there(call: Call, mine: list[str]) -> None:
    Path("text/fi.txt").unlink()
    answer = call("validate", *mine[:-1], "tasks=[topic]")
    assert answer.code == 2
    assert answer.refusal.startswith("own.yaml:3: no monolingual text for 'fi'")
    assert "text/fi.txt" in answer.refusal and "languages with text: en" in answer.refusal
