"""Fetching with the real clients from a hub on the loopback device, each time in a process of its
own: the clients read their environment when they are imported."""

from __future__ import annotations

import base64
import gzip
import io
import json
import math
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import Hub

from adapterxlt.corpora.hub import HubSplit, Shelf

datasets = pytest.importorskip("datasets")
Value, ClassLabel, Features = datasets.Value, datasets.ClassLabel, datasets.Features
# Lists of classes and of structs as data sets on hubs have them, by the name of either version.
Sequence = datasets.Sequence

MIB = 1 << 20

RUNNER = """
import json, sys
hosts = []
def watch(event, given):
    if event == "socket.connect" and isinstance(given[1], tuple):
        hosts.append(given[1][0])
    elif event == "socket.getaddrinfo":
        hosts.append(given[0])
sys.addaudithook(watch)
from pathlib import Path
from adapterxlt.core.errors import AdapterXLTError
from adapterxlt.corpora.hub import HubSplit
from adapterxlt.run.hub.datasets import fetch
CLIENTS = ("datasets", "huggingface_hub", "torch", "transformers")
loaded = {"before": [name for name in CLIENTS if name in sys.modules]}
answers = []
for job in json.loads(sys.argv[1]):
    lines = []
    answer = {"lines": lines, "rows": [], "new": [], "error": None}
    try:
        splits = [HubSplit(*split) for split in job["splits"]]
        made = fetch(splits, Path(job["root"]), num_proc=job["num_proc"], listener=lines.append)
        answer |= {"rows": [one.rows for one in made], "new": [one.new for one in made]}
    except AdapterXLTError as error:
        answer["error"] = {
            "kind": type(error).__name__, "code": error.exit_code, "text": str(error)
        }
    answers.append(answer)
loaded["after"] = [name for name in CLIENTS if name in sys.modules]
print("\\n" + json.dumps({"answers": answers, "hosts": sorted(set(hosts)), "loaded": loaded}))
"""


@dataclass(frozen=True)
class Job:
    splits: tuple[HubSplit, ...]
    root: Path
    num_proc: int | None = None


@dataclass(frozen=True)
class Answer:
    rows: list[int]
    new: list[bool]
    lines: list[str]
    error: dict[str, Any] | None


class Client:
    """A user's machine: a cache, a shelf, and processes that fetch."""

    def __init__(self, hub: Hub, folder: Path) -> None:
        self.hub, self.folder = hub, folder
        self.root = folder / "store"
        self.shelf = Shelf(self.root)
        self.loaded: dict[str, list[str]] = {}

    def start(self, *jobs: Job, **more: str) -> subprocess.Popen[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        kept = {k: v for k, v in kept.items() if not k.lower().endswith("_proxy")}
        here = {
            "HF_ENDPOINT": self.hub.url,
            # Hidden and with a bracket, as a home may be.
            "HF_HOME": str(self.folder / ".cache" / "home [of one]"),
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
            "HF_HUB_DOWNLOAD_TIMEOUT": "10",
        }
        told = [
            {
                "splits": [[s.hub, s.revision, s.config, s.split] for s in job.splits],
                "root": str(job.root),
                "num_proc": job.num_proc,
            }
            for job in jobs
        ]
        return subprocess.Popen(
            [sys.executable, "-c", RUNNER, json.dumps(told)],
            env={**kept, **here, **more},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, process: subprocess.Popen[str]) -> list[Answer]:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        told = json.loads(out.splitlines()[-1])
        assert set(told["hosts"]) <= {"127.0.0.1"}, "only the hub is talked to"
        assert told["loaded"]["before"] == []
        assert not {"torch", "transformers"} & set(told["loaded"]["after"])
        self.loaded = told["loaded"]
        return [Answer(**answer) for answer in told["answers"]]

    def fetch(self, *splits: HubSplit, num_proc: int | None = None, **more: str) -> Answer:
        (answer,) = self.finish(self.start(Job(splits, self.root, num_proc), **more))
        return answer

    def read(self, split: HubSplit) -> list[dict[str, Any]]:
        table = pq.read_table(self.shelf.path(split))
        assert table.schema.metadata is None
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Client:
    return Client(hub, tmp_path)


def parquet(rows: list[dict[str, Any]], features: dict[str, Any]) -> bytes:
    """A file as the hub's own tools write it, with their notes on the columns in its metadata."""
    out = io.BytesIO()
    datasets.disable_progress_bars()
    columns = {name: [row[name] for row in rows] for name in features}
    datasets.Dataset.from_dict(columns, features=Features(features)).to_parquet(out)
    return out.getvalue()


def readme(*configs: tuple[str, dict[str, str]]) -> bytes:
    """A card whose head says which files a configuration's splits are."""
    lines = ["---", "configs:"]
    for name, splits in configs:
        lines += [f"- config_name: {name}", "  data_files:"]
        for split, path in splits.items():
            lines += [f"  - split: {split}", f"    path: {path}"]
    return "\n".join([*lines, "---", "# About", ""]).encode()


TEXT = Value("string")
TAGS = ["O", "B-PER", "I-PER"]
NLI = ["entailment", "neutral", "contradiction"]

#: For each kind of task: columns as on a hub, and a row of it with class numbers as names.
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tagging": (
        {"tokens": Sequence(TEXT), "ner_tags": Sequence(ClassLabel(names=TAGS))},
        {"tokens": ["Ada", "Byron", "שרה"], "ner_tags": ["B-PER", "I-PER", "O"]},
    ),
    "classification": (
        {"text": TEXT, "label": ClassLabel(names=["neg", "pos"])},
        {"text": "good\nand 'quoted', \u0928\u092e", "label": "pos"},
    ),
    "pair-classification": (
        {"sentence1": TEXT, "sentence2": TEXT, "label": ClassLabel(names=NLI)},
        {"sentence1": "it rains", "sentence2": "it is wet", "label": "neutral"},
    ),
    "choice": (
        {"premise": TEXT, "choice1": TEXT, "choice2": TEXT, "label": Value("int32")},
        {"premise": "it fell", "choice1": "it broke", "choice2": "it flew", "label": 0},
    ),
    "qa": (
        {
            "id": TEXT,
            "context": TEXT,
            "question": TEXT,
            "answers": Sequence({"answer_start": Value("int32"), "text": TEXT}),
        },
        {
            "id": "1",
            "context": "in the north lies ice",
            "question": "what?",
            "answers": {"answer_start": [18, 7], "text": ["ice", "north"]},
        },
    ),
    "retrieval": (
        {"source": TEXT, "target": TEXT},
        {"source": "Guten Tag", "target": "good day"},
    ),
    "ranking": (
        {"query": TEXT, "answer": TEXT},
        {"query": "who?", "answer": "she"},
    ),
}
#: How the splits of a kind are called; others are train, validation and test.
SPLITS = {"ranking": ("train", "test", "candidates")}


def numbered(row: dict[str, Any], features: dict[str, Any]) -> dict[str, Any]:
    """The row with the numbers of its classes, as it lies on a hub."""
    tags = {"ner_tags": [TAGS.index(tag) for tag in row.get("ner_tags", [])]}
    found = {k: v for k, v in {**row, **tags}.items() if k in row}
    if isinstance(features.get("label"), ClassLabel):
        found["label"] = features["label"].names.index(row["label"])
    return found


def small(texts: list[str]) -> bytes:
    return parquet([{"text": text} for text in texts], {"text": TEXT})


def test_every_kind_is_fetched_as_it_lies_on_the_hub_and_then_costs_nothing(
    hub: Hub, client: Client
) -> None:
    """Layout: a card with configurations and patterns, one for every language."""
    wanted: dict[HubSplit, list[dict[str, Any]]] = {}
    for number, (kind, (features, row)) in enumerate(KINDS.items()):
        files, configs, expected = {}, [], {}
        for language in ("ar", "de"):
            config, paths = f"XL.{language}", {}
            for split in SPLITS.get(kind, ("train", "validation", "test")):
                count = 1 + len(language + split) % 4 + number
                rows = [{**row, next(iter(row)): row[next(iter(row))]} for _ in range(count)]
                path = f"{config}/{split}-00000-of-00001.parquet"
                files[path] = parquet([numbered(r, features) for r in rows], features)
                paths[split] = f"{config}/{split}-*"
                expected[config, split] = rows
            configs.append((config, paths))
        files["README.md"] = readme(*configs)
        commit = hub.add_repo("dataset", f"lab/{kind}", files)
        for (config, split), rows in expected.items():
            wanted[HubSplit(f"lab/{kind}", commit, config, split)] = rows
    hub.page = 5  # so that lists of files come in pages
    done = client.fetch(*wanted)
    assert done.error is None and all(done.new)
    assert done.rows == [len(rows) for rows in wanted.values()]
    for split, rows in wanted.items():
        assert client.read(split) == rows, split.label
    # A commit is listed once, its card read once, whatever the number of splits.
    assert len(hub.asked(r"GET .*/tree/.*expand=False$")) == len(KINDS)
    assert hub.asked(r"GET .*/tree/.*cursor=5"), "the lists had more than a page"
    assert len(hub.asked(r"GET .*README.md")) == len(KINDS)

    hub.log.clear()
    again = client.fetch(*wanted, *wanted)
    assert again.rows == done.rows and not any(again.new)
    assert hub.log == [] and client.loaded["after"] == []
    assert client.fetch(*wanted, HF_HUB_OFFLINE="1").rows == done.rows
    assert {path.suffix for path in client.shelf.root.iterdir() if path.is_file()} == {".parquet"}


def test_a_converted_commit_is_read_by_its_folders(hub: Hub, client: Client) -> None:
    """Layout: no card; by themselves the clients would read all configurations as one."""
    files = {
        ".gitattributes": b"*.parquet filter=lfs\n",
        "ar/train/0000.parquet": small(["a", "b"]),
        "ar/train/0001.parquet": small(["c"]),
        "ar/test/0000.parquet": small(["d"]),
        "de/train/0000.parquet": small(["e"]),
        "default/train/0000.parquet": small(["g"]),
    }
    commit = hub.add_repo("dataset", "lab/converted", files)
    one = hub.add_repo("dataset", "lab/one", {"default/test/0000.parquet": small(["f"])})
    splits = [
        HubSplit("lab/converted", commit, "ar", "train"),
        HubSplit("lab/converted", commit, "de", "train"),
        HubSplit("lab/converted", commit, "default", "train"),
        HubSplit("lab/one", one, None, "test"),
    ]
    assert client.fetch(*splits, num_proc=2).error is None
    texts = [[row["text"] for row in client.read(split)] for split in splits]
    assert texts == [["a", "b", "c"], ["e"], ["g"], ["f"]]
    assert not hub.asked("ar/test/0000.parquet"), "only splits that were asked for are loaded"


def test_plain_files_are_read_as_their_card_and_names_say(hub: Hub, client: Client) -> None:
    rows = [{"text": f"line {i}", "label": i} for i in range(3)]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    plain = {"train.jsonl": lines, "test.jsonl": lines[: len(lines) // 3], "LICENSE": b"free"}
    card = b"""---
dataset_info:
- config_name: semi
  features:
  - name: words
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': low
          '1': high
configs:
- config_name: semi
  sep: ";"
  names: [words, label]
  data_files:
  - {split: train, path: semi/a.csv}
- config_name: zipped
  data_files:
  - {split: train, path: "zipped/*.jsonl.gz"}
---
"""
    mixed = {
        "README.md": card,
        "semi/a.csv": b"one, two;1\nthree;0\n",
        "zipped/x.jsonl.gz": gzip.compress(lines),
    }
    first = hub.add_repo("dataset", "lab/plain", plain)
    second = hub.add_repo("dataset", "lab/mixed", mixed)
    third = hub.add_repo("dataset", "lab/tabs", {"test.tsv": b"text\tlabel\na, b\tx\n"})
    train, test = (HubSplit("lab/plain", first, None, split) for split in ("train", "test"))
    semi = HubSplit("lab/mixed", second, "semi", "train")
    tabs = HubSplit("lab/tabs", third, None, "test")
    done = client.fetch(train, test, semi, tabs)
    assert done.error is None
    assert client.read(train) == rows and client.read(test) == rows[:1]
    labelled = [{"words": "one, two", "label": "high"}, {"words": "three", "label": "low"}]
    assert client.read(semi) == labelled
    assert client.read(tabs) == [{"text": "a, b", "label": "x"}]
    # From the cache alone it is read the same way.
    shutil.rmtree(client.root)
    assert client.fetch(semi, HF_HUB_OFFLINE="1").error is None
    assert client.read(semi) == labelled


def test_names_of_classes_at_any_depth_and_in_slices(hub: Hub, client: Client) -> None:
    label = ClassLabel(names=["no", "yes"])
    features = {
        "flat": label,
        "list": Sequence(label),
        "struct": {"deep": [label], "word": TEXT},
        "lists": Sequence(Sequence(label)),
        "fixed": Sequence(label, length=2),
        "plain": Value("int64"),
    }
    dice = random.Random(1)
    numbers, named = [], []
    names = [None, "no", "yes"]
    for i in range(21_000):  # more than are written at once
        many = [dice.randrange(2) for _ in range(dice.randrange(4))]
        flat = dice.choice([-1, 0, 1, None])
        numbers.append(
            {
                "flat": flat,
                "list": None if i % 7 == 0 else many,
                "struct": {"deep": many, "word": str(i)},
                "lists": [many, [], many],
                "fixed": [i % 2, 1],
                "plain": i,
            }
        )
        words = [names[n + 1] for n in many]
        named.append(
            {
                "flat": None if flat is None else names[flat + 1],
                "list": None if i % 7 == 0 else words,
                "struct": {"deep": words, "word": str(i)},
                "lists": [words, [], words],
                "fixed": [names[i % 2 + 1], "yes"],
                "plain": i,
            }
        )
    commit = hub.add_repo("dataset", "lab/deep", {"data/test.parquet": parquet(numbers, features)})
    split = HubSplit("lab/deep", commit, None, "test")
    assert client.fetch(split).error is None
    assert client.read(split) == named
    assert pq.read_schema(client.shelf.path(split)).field("flat").type == pa.string()


def large(seed: int = 0) -> bytes:
    """A file of 24 MiB that does not compress: the clients keep what comes by 10 MiB."""
    noise = random.Random(seed).randbytes(18 * MIB)
    text = base64.b64encode(noise).decode()
    step = len(text) // 64
    return small([text[i : i + step] for i in range(0, len(text), step)])


def test_what_broke_off_goes_on_where_it_stopped(hub: Hub, client: Client) -> None:
    data = large()
    commit = hub.add_repo("dataset", "lab/large", {"train.parquet": data})
    split = HubSplit("lab/large", commit, None, "train")
    hub.cut("GET /cdn/", at=15 * MIB, times=math.inf)
    broken = client.fetch(split)
    assert broken.error is not None and broken.error["kind"] == "HubError"
    assert "run it again, it goes on where it stopped" in broken.error["text"]
    assert not client.shelf.has(split)

    hub.heal()
    hub.log.clear()
    done = client.fetch(split)
    assert done.error is None and done.rows == [64]
    assert client.read(split) == pq.read_table(io.BytesIO(data)).to_pylist()
    (got,) = hub.asked("GET /cdn/")
    assert got.status == 206 and got.start >= 10 * MIB
    assert got.start + got.sent == len(data)
    assert not hub.asked("/api/"), "what the split is was noted the first time"


def test_a_connection_that_is_cut_once_is_not_the_users_business(hub: Hub, client: Client) -> None:
    data = large(1)
    commit = hub.add_repo("dataset", "lab/large", {"train.parquet": data})
    split = HubSplit("lab/large", commit, None, "train")
    hub.cut("GET /cdn/", at=15 * MIB)
    assert client.fetch(split).error is None
    assert client.read(split) == pq.read_table(io.BytesIO(data)).to_pylist()
    first, second = hub.asked("GET /cdn/")
    assert (first.start, second.start) == (0, 10 * MIB)


def test_offline_only_the_commit_that_was_asked_for(hub: Hub, client: Client) -> None:
    old = hub.add_repo("dataset", "lab/moves", {"test.jsonl": b'{"text": "old"}\n'})
    new = hub.add_repo("dataset", "lab/moves", {"test.jsonl": b'{"text": "new"}\n'})
    splits = {c: HubSplit("lab/moves", c, None, "test") for c in (old, new)}
    nothing = client.fetch(splits[old], HF_HUB_OFFLINE="1")
    assert nothing.error is not None and hub.log == []
    assert (nothing.error["kind"], nothing.error["code"]) == ("OfflineError", 4)
    assert splits[old].label in nothing.error["text"]
    assert "HF_HUB_OFFLINE" in nothing.error["text"]

    assert client.fetch(splits[new]).error is None
    shutil.rmtree(client.root)
    hub.log.clear()
    jobs = [Job((split,), client.root) for split in splits.values()]
    for_old, for_new = client.finish(client.start(*jobs, HF_HUB_OFFLINE="1"))
    assert for_old.error is not None and for_old.error["code"] == 4
    assert for_new.error is None and client.read(splits[new]) == [{"text": "new"}]
    assert hub.log == []


def test_offline_half_of_the_files_is_nothing(hub: Hub, client: Client) -> None:
    files = {f"ar/test/000{i}.parquet": small([str(i)]) for i in range(2)}
    split = HubSplit("lab/halves", hub.add_repo("dataset", "lab/halves", files), "ar", "test")
    hub.fail("HEAD .*0001.parquet", 404, times=math.inf)
    first = client.fetch(split)
    assert first.error is not None and "0001.parquet" in first.error["text"]
    half = client.fetch(split, HF_HUB_OFFLINE="1")
    assert half.error is not None and half.error["kind"] == "OfflineError"
    hub.heal()
    hub.log.clear()
    assert client.fetch(split).rows == [2]
    assert not hub.asked("0000.parquet"), "what is there is not asked for again"


REFUSALS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "config": ("DataError", 2, ("no configuration 'XQuAD.as'", "did you mean 'XQuAD.ar'?")),
    "no config": ("DataError", 2, ("none is named", "known: XQuAD.ar, XQuAD.de")),
    "split": ("DataError", 2, ("no split 'tests'", "did you mean 'test'?")),
    "unreadable": ("DataError", 2, ("lab/cards XQuAD.de test", "cannot be read")),
    "commit": ("DataError", 2, ("lab/cards has no commit 1111111",)),
    "folder": ("DataError", 2, ("no configuration 'dee'", "did you mean 'de'?")),
    "folder split": ("DataError", 2, ("no split 'train'", "known: test")),
    "data set": ("DataError", 2, ("no data set lab/absent", "private", "HF_TOKEN")),
    "gated": ("DataError", 2, ("lab/gated is gated", "HF_TOKEN")),
    "private": ("DataError", 2, ("no data set lab/private", "HF_TOKEN")),
    "script": ("DataError", 2, ("not run", "refs/convert/parquet")),
    "prose": ("DataError", 2, ("no data", "lab/prose")),
    "outside": ("DataError", 2, ("outside",)),
    "broken": ("DataError", 2, ("lab/broken test", "cannot be read")),
    "busy": ("HubError", 1, ("too busy", "429", "it goes on", "HF_TOKEN")),
    "down": ("HubError", 1, ("too busy", "503", "it goes on")),
}


def test_each_refusal_says_what_to_do(hub: Hub, client: Client) -> None:
    """All in one process, for time's sake."""
    configs = [(f"XQuAD.{language}", {"test": f"{language}.jsonl"}) for language in ("ar", "de")]
    files = {"README.md": readme(*configs), "ar.jsonl": b'{"a": 1}\n', "de.jsonl": b"{\n"}
    commit = hub.add_repo("dataset", "lab/cards", files)
    folders = {"ar/test/0000.parquet": small(["a"]), "de/test/0000.parquet": small(["b"])}
    converted = hub.add_repo("dataset", "lab/folders", folders)
    gated = hub.add_repo("dataset", "lab/gated", folders, token="secret", gated=True)
    private = hub.add_repo("dataset", "lab/private", folders, token="secret")
    script = hub.add_repo("dataset", "lab/script", {"script.py": b"raise SystemExit"})
    prose = hub.add_repo("dataset", "lab/prose", {"README.md": b"# Nothing\n"})
    outside = hub.add_repo("dataset", "lab/outside", {"../evil.jsonl": b"{}"})
    broken = hub.add_repo("dataset", "lab/broken", {"test.parquet": b"PAR1 no"})
    busy = hub.add_repo("dataset", "lab/busy", folders)
    down = hub.add_repo("dataset", "lab/down", folders)
    hub.fail("lab/busy/tree", 429, headers={"Retry-After": "600"})
    hub.fail("lab/down/tree", 503, headers={"Retry-After": "0"}, times=math.inf)
    asked = {
        "config": HubSplit("lab/cards", commit, "XQuAD.as", "test"),
        "no config": HubSplit("lab/cards", commit, None, "test"),
        "split": HubSplit("lab/cards", commit, "XQuAD.ar", "tests"),
        "unreadable": HubSplit("lab/cards", commit, "XQuAD.de", "test"),
        "commit": HubSplit("lab/cards", "1" * 40, "XQuAD.ar", "test"),
        "folder": HubSplit("lab/folders", converted, "dee", "test"),
        "folder split": HubSplit("lab/folders", converted, "de", "train"),
        "data set": HubSplit("lab/absent", commit, None, "test"),
        "gated": HubSplit("lab/gated", gated, "ar", "test"),
        "private": HubSplit("lab/private", private, "ar", "test"),
        "script": HubSplit("lab/script", script, None, "test"),
        "prose": HubSplit("lab/prose", prose, None, "test"),
        "outside": HubSplit("lab/outside", outside, None, "test"),
        "broken": HubSplit("lab/broken", broken, None, "test"),
        "busy": HubSplit("lab/busy", busy, "ar", "test"),
        "down": HubSplit("lab/down", down, "ar", "test"),
    }
    jobs = [Job((split,), client.root) for split in asked.values()]
    answers = client.finish(client.start(*jobs))
    left = {path.name for path in client.shelf.root.iterdir()}
    assert left == {".locks"}, "what fails leaves nothing on the shelf"
    assert asked.keys() == REFUSALS.keys()
    for (kind, code, parts), answer in zip(
        (REFUSALS[name] for name in asked), answers, strict=True
    ):
        error = answer.error
        assert error is not None
        assert (error["kind"], error["code"]) == (kind, code), error["text"]
        assert all(part in error["text"] for part in parts), error["text"]
        assert "\n" not in error["text"] and "/tmp" not in error["text"]


def test_a_hub_that_is_not_there(hub: Hub, client: Client) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    answer = client.fetch(HubSplit("lab/x", "1" * 40, None, "test"), HF_ENDPOINT=nobody)
    assert answer.error is not None
    assert (answer.error["kind"], answer.error["code"]) == ("HubError", 1)
    assert "connection" in answer.error["text"] and "run it again" in answer.error["text"]


def test_a_token_opens_what_is_gated(hub: Hub, client: Client) -> None:
    files = {"README.md": readme(("ar", {"test": "a.jsonl"})), "a.jsonl": b'{"a": "b"}\n'}
    commit = hub.add_repo("dataset", "lab/gated", files, token="secret", gated=True)
    split = HubSplit("lab/gated", commit, "ar", "test")
    refused = client.fetch(split, HF_TOKEN="wrong")
    assert refused.error is not None and "gated" in refused.error["text"]
    assert client.fetch(split, HF_TOKEN="secret").error is None
    assert client.read(split) == [{"a": "b"}]
    assert {asked.token for asked in hub.asked("resolve")} == {"wrong", "secret"}


def test_a_hub_that_is_busy_for_a_moment(hub: Hub, client: Client) -> None:
    commit = hub.add_repo("dataset", "lab/busy", {"test.parquet": small(["a"])})
    split = HubSplit("lab/busy", commit, None, "test")
    hub.fail("GET .*/tree/", 503, headers={"Retry-After": "0"})
    hub.fail("GET .*/tree/", 429, headers={"Retry-After": "1"})
    hub.fail("HEAD .*test.parquet", 503)
    hub.fail("HEAD .*test.parquet", 429, headers={"Retry-After": "0"})
    hub.fail("GET /cdn/", 500)
    done = client.fetch(split)
    assert done.error is None and client.read(split) == [{"text": "a"}]
    assert [a.status for a in hub.asked("GET .*/tree/")] == [503, 429, 200]
    assert [a.status for a in hub.asked("HEAD .*parquet")] == [503, 429, 302]
    assert any("trying again in 1 s" in line for line in done.lines)


def test_two_processes_fetch_the_same_once(hub: Hub, client: Client) -> None:
    commit = hub.add_repo("dataset", "lab/both", {"test.parquet": small(["a", "b"])})
    split = HubSplit("lab/both", commit, None, "test")
    # Left by a process that was killed; it goes.
    scratch = client.shelf.root / f".tmp-{split.digest}"
    scratch.mkdir(parents=True)
    (scratch / "half.arrow").write_bytes(b"x")
    hub.fail("GET /cdn/", times=1, delay=2.0)
    processes = [client.start(Job((split,), client.root)) for _ in range(2)]
    answers = [client.finish(process)[0] for process in processes]
    assert [answer.error for answer in answers] == [None, None]
    assert [answer.rows for answer in answers] == [[2], [2]]
    assert len(hub.asked("GET /cdn/")) == 1
    assert {path.name for path in client.shelf.root.iterdir()} == {
        ".locks",
        client.shelf.path(split).name,
    }
