"""Studies whose data are on a hub: planned without it, fetched once, run without a network.

The hub is on the loopback device, and every verb runs in a process of its own, as a user's does.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub
from test_fetch import TEXT, ClassLabel, Sequence, Value, parquet, readme

from adapterxlt import lab
from adapterxlt.core.errors import RecipeError
from adapterxlt.core.tasks import TASKS, Task
from adapterxlt.run.study import Study

Row = dict[str, Any]
Features = dict[str, Any]
LANGUAGES = {"en": "lab-root", "fi": "lab-near-high"}
NLI = ["entailment", "neutral", "contradiction"]
SPANS = Sequence({"answer_start": Value("int32"), "text": TEXT})


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def refusal(self) -> str:
        """The one line of an error that nothing else goes with."""
        (line,) = self.err.splitlines()
        assert self.out == "" and line.startswith("adapterxlt: "), self.err
        return line.removeprefix("adapterxlt: ")


class Machine:
    """A user's machine: a folder with a recipe, a store and a cache."""

    def __init__(self, hub: Hub, folder: Path, backbone: Path) -> None:
        self.hub, self.folder, self.backbone = hub, folder, backbone

    def __call__(self, verb: str, *given: str, **more: str) -> Said:
        """A verb in a process of its own."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        kept = {k: v for k, v in kept.items() if not k.lower().endswith("_proxy")}
        here = {
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.folder / "home"),
            "HF_HUB_DOWNLOAD_TIMEOUT": "10",
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        }
        program = "from adapterxlt.cli import main; main()"
        options = ["--backbone", str(self.backbone), *(["--workers", "0"] if verb == "run" else [])]
        done = subprocess.run(
            [sys.executable, "-c", program, verb, "r.yaml", *options, *given],
            env={**kept, **here, **more}, cwd=self.folder, capture_output=True, text=True,
            timeout=120,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return Said(done.returncode, done.stdout, done.stderr)

    def write(self, recipe: Mapping[str, Any]) -> None:
        """The recipe; what is JSON is YAML."""
        (self.folder / "r.yaml").write_text(json.dumps(recipe, indent=1), encoding="utf-8")

    def plan(self, *given: str, **more: str) -> dict[str, str]:
        """State of each stage by its key."""
        said = self("plan", "--json", "--all", *given, **more)
        assert said.code == 0, said.err
        return {row["key"]: row["state"] for row in json.loads(said.out)["stages"]}

    def scored(self, *given: str) -> dict[tuple[str, str, str], float]:
        said = self("results", "--json", *given)
        assert said.code == 0, said.err
        found = [row for row in json.loads(said.out) if row["primary"]]
        return {(row["task"], row["target"], row["regime"]): row["score"] for row in found}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


@pytest.fixture
def machine(hub: Hub, tmp_path: Path, tiny_backbone: Path) -> Machine:
    return Machine(hub, tmp_path, tiny_backbone)


BASE = {
    "name": "hub", "data": "hub", "source": "en", "regimes": ["zero-shot"],
    "language_adapters": None, "budget": {"steps": 2, "batch": 4, "lr": 1e-3},
}  # fmt: skip


def put(
    hub: Hub,
    name: str,
    configs: Mapping[str | None, Mapping[str, list[Row]]],
    features: Features | Mapping[str, Features],
    commit: str | None = None,
    path: str = "{config}/{split}-00000-of-00001.parquet",
) -> str:
    """A data set in the hub's own layout: parquet, and a card that names configurations."""
    files, listed = {}, []
    for config, splits in configs.items():
        paths = {}
        for split, rows in splits.items():
            own = features.get(split, features)  # by split, or the same in all
            paths[split] = path.format(config=config or "data", split=split)
            files[paths[split]] = parquet(rows, own)  # type: ignore[arg-type]
        listed.append((config or "default", paths))
    return hub.add_repo("dataset", name, {**files, "README.md": readme(*listed)}, commit)


def rows(task: str, language: str, split: str, count: int) -> list[Row]:
    return [dict(row) for row in lab.rows(task, LANGUAGES[language], split)[:count]]


# --- a task of each kind -------------------------------------------------------------------------

TOPICS = sorted({row["label"] for row in lab.rows("lab-topic", "lab-root", "train")})
SPOKEN: dict[str, tuple[str, Features]] = {
    "tagging": (
        "lab-ner",
        {
            "tokens": Sequence(TEXT),
            "ner_tags": Sequence(ClassLabel(names=list(TASKS["lab-ner"].labels))),
        },
    ),
    "pair-classification": (
        "lab-nli",
        {"premise": TEXT, "hypothesis": TEXT, "label": ClassLabel(names=NLI)},
    ),
    "classification": ("lab-topic", {"text": TEXT, "label": ClassLabel(names=TOPICS[::-1])}),
    "choice": (
        "lab-choice",
        {
            **dict.fromkeys(("premise", "question", "choice1", "choice2"), TEXT),
            "label": Value("int32"),
        },
    ),
    "qa": ("lab-qa", {"id": TEXT, "context": TEXT, "question": TEXT, "answers": SPANS}),
    "retrieval": ("lab-bitext", {"source": TEXT, "target": TEXT}),
}
COUNTS = {"train": 12, "test": 8, "candidates": 8}


def of_each_kind(hub: Hub) -> dict[str, Any]:
    """Data sets on the hub, and the recipe's entries of them."""
    entries: dict[str, Any] = {}
    for kind, (task, features) in SPOKEN.items():
        splits = ("test",) if kind == "retrieval" else ("train", "test")
        spoken = ("fi",) if kind == "retrieval" else ("en", "fi")
        configs: dict[str | None, dict[str, list[Row]]] = {
            f"XL.{language}": {s: rows(task, language, s, COUNTS[s]) for s in splits}
            for language in spoken
        }
        revision = put(hub, f"lab/{kind}", configs, features)
        place = {"hub": f"lab/{kind}", "revision": revision, "config": "XL.{language}"}
        entries[f"own-{kind}"] = {"kind": kind, **place, "rows": {"train": 12, "test": 8}}
    entries["own-tagging"] |= {"label": "ner_tags", "labels": list(TASKS["lab-ner"].labels)}
    entries["own-pair-classification"] |= {"inputs": ["premise", "hypothesis"], "labels": NLI}
    entries["own-classification"] |= {"labels": TOPICS}
    entries["own-choice"] |= {"questions": {"cause": "Why?", "effect": "What then?"}}
    entries["own-retrieval"] |= {"languages": ["fi"], "splits": {"test": "test"}}
    # Splits of different columns are configurations of their own.
    configs, numbers = {}, range(COUNTS["test"])
    for language in LANGUAGES:
        asked = rows("lab-ranking", language, "test", COUNTS["test"])
        relevant = [[f"{code}-{i}" for code in LANGUAGES] for i in numbers]
        asked = [{**row, "relevant": ids} for row, ids in zip(asked, relevant, strict=True)]
        found = rows("lab-ranking", language, "candidates", COUNTS["candidates"])
        found = [{**row, "id": f"{language}-{i}"} for i, row in enumerate(found)]
        train = rows("lab-ranking", language, "train", COUNTS["train"])
        for split, of in (("train", train), ("test", asked), ("candidates", found)):
            configs[f"{language}.{split}"] = {split: of}
    features = {
        "train": {"query": TEXT, "answer": TEXT},
        "test": {"id": TEXT, "query": TEXT, "relevant": Sequence(TEXT)},
        "candidates": {"id": TEXT, "text": TEXT},
    }
    entries["own-ranking"] = {
        "kind": "ranking",
        "hub": "lab/ranking",
        "revision": put(hub, "lab/ranking", configs, features),
        "config": "{language}.{split}",
        "splits": {split: split for split in features},
    }
    return entries


def test_a_study_of_every_kind_is_planned_fetched_and_run_without_a_network(
    hub: Hub, machine: Machine
) -> None:
    entries = of_each_kind(hub)
    machine.write({**BASE, "targets": ["fi"], "tasks": list(entries), "datasets": entries})
    planned = machine.plan()
    assert hub.log == [] and planned and "cached" not in planned.values()
    assert not (machine.folder / "home").exists(), "planning does not even look for a cache"

    nothing = machine("run", HF_HUB_OFFLINE="1")
    assert nothing.code == 4 and hub.log == []
    assert "has not been fetched" in nothing.refusal and "HF_HUB_OFFLINE" in nothing.refusal

    # The connection breaks in the middle of a file of the last data set that is asked for.
    file = parquet(rows("lab-ner", "en", "train", COUNTS["train"]), SPOKEN["tagging"][1])
    hub.cut(f"GET /cdn/{hashlib.sha256(file).hexdigest()}", at=100, times=math.inf)
    broken = machine("fetch")
    assert broken.code == 1, broken.err
    assert "run it again, it goes on where it stopped" in broken.err.splitlines()[-1]
    hub.heal()
    before = {a.path for a in hub.asked("GET /cdn/") if a.sent > 100}
    assert len(before) == 21 - 2
    hub.log.clear()
    fetched = machine("fetch")
    assert fetched.code == 0, fetched.err
    assert fetched.err.splitlines()[-1] == "2 splits fetched"
    again = {a.path for a in hub.asked("GET /cdn/")}
    assert again and not again & before, "what came is not asked for again"
    hub.log.clear()
    assert machine("fetch").err == "nothing to fetch\n"
    assert machine.plan() == planned, "keys do not depend on what was fetched"

    ran = machine("run", HF_HUB_OFFLINE="1")
    assert ran.code == 0, ran.err
    expected = {(name, language, "zero-shot") for name in entries for language in LANGUAGES}
    scored = machine.scored()
    assert scored.keys() == expected - {("own-retrieval", "en", "zero-shot")}
    assert all(0 <= score <= 1 for score in scored.values())
    assert machine("run").code == 0 and hub.log == []
    assert machine.plan() == dict.fromkeys(planned, "cached")


def test_labels_that_are_on_a_hub_are_fetched_first(hub: Hub, machine: Machine) -> None:
    """Without them a study cannot be planned; what they are is then part of keys as if declared."""
    features = SPOKEN["classification"][1]
    few = [row for row in rows("lab-topic", "en", "train", 40) if row["label"] != TOPICS[0]]
    configs: dict[str | None, Any] = {
        language: {"train": few, "test": few} for language in LANGUAGES
    }
    revision = put(hub, "lab/topics", configs, features)
    entry = {"kind": "classification", "hub": "lab/topics", "revision": revision}
    entry["config"] = "{language}"
    recipe = {**BASE, "targets": ["fi"], "tasks": ["topics"]}
    machine.write({**recipe, "datasets": {"topics": entry}})
    for verb in ("plan", "validate"):
        said = machine(verb)
        assert said.code == 2 and hub.log == []
        assert said.refusal.startswith("r.yaml:")
        what = "topics names no labels, and lab/topics en train @"
        assert what in said.refusal
        assert "declare labels: [...], or run adapterxlt fetch RECIPE" in said.refusal
    assert machine("fetch", HF_HUB_OFFLINE="1").code == 4
    fetched = machine("fetch")
    assert fetched.code == 0, fetched.err
    assert fetched.err.splitlines()[-1] == "3 splits fetched"
    hub.log.clear()
    keys = machine.plan()
    labels = sorted({row["label"] for row in few})
    assert labels == TOPICS[1:], "those that there are, not all that the hub has names for"
    machine.write({**recipe, "datasets": {"topics": {**entry, "labels": labels}}})
    assert machine.plan() == keys
    assert hub.log == []


EPOCHS = {"epochs": 1, "batch": 4, "lr": 1e-3}


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"budget": EPOCHS}, "regime 'zero-shot' counts epochs, and 'topics' does not say its"),
        ({"regimes": ["target-only"], "shots": [5], "budget": EPOCHS}, ""),
        (
            {
                "regimes": ["intermediate"],
                "intermediate": {"more": ["en"]},
                "budgets": {"intermediate": EPOCHS},
            },
            "regime 'intermediate' counts epochs, and 'more' does not say its size; add rows",
        ),
    ],
    ids=["source", "shots", "intermediate"],
)
def test_epochs_need_the_size_of_what_is_not_there_yet(
    machine: Machine, more: dict[str, Any], fault: str
) -> None:
    place = {"hub": "lab/topics", "revision": "a1" * 20, "config": "{language}"}
    entry = {"kind": "classification", "labels": ["a", "b"], **place}
    datasets = {"topics": entry, "more": entry}
    machine.write({**BASE, "targets": ["fi"], "tasks": ["topics"], "datasets": datasets, **more})
    places = {"store": machine.folder / "store", "backbone": str(machine.backbone)}
    if not fault:
        assert Study.open(machine.folder / "r.yaml", **places).plan.cells
        return
    with pytest.raises(RecipeError) as refused:
        Study.open(machine.folder / "r.yaml", **places)
    (line,) = str(refused.value).splitlines()
    assert fault in line


# --- the shipped tasks ---------------------------------------------------------------------------

TARGETS = {
    "xnli": ["sw"],
    "xcopa": ["et", "sw"],
    "udpos": ["wo"],
    "wikiann": ["fi"],
    "xquad": ["ar"],
    "mlqa": ["de"],
    "tydiqa": ["fi", "sw"],
    "tatoeba": ["fi", "sw"],
    "lareqa": ["ar", "de"],
    "pawsx": ["fr"],
    "sentiment": ["ace"],
    "sib200": ["fi"],
    "americasnli": ["quy"],
}
#: Tasks to train on; they have no test set in another language.
OTHERS = {"siqa": ["en"], "squad": ["en"]}
UPOS = list(TASKS["udpos"].labels)
NER = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]
ID_QA: Features = {"id": TEXT, "context": TEXT, "question": TEXT, "answers": SPANS}
TITLED: Features = {"id": TEXT, "title": TEXT, **ID_QA}

CONTEXTS = {
    "ar": ("القط ينام في البيت. والكلب يجري في الحديقة.", "البيت"),
    "de": ("Die Katze schläft im Haus. Der Hund läuft im Garten.", "Haus"),
    "sw": ("Paka analala ndani ya nyumba. Mbwa anakimbia bustanini.", "nyumba"),
    "fi": ("Kissa nukkuu talossa. Koira juoksee puutarhassa.", "talossa"),
}
ENGLISH = ("The cat sleeps in the house. The dog runs in the garden.", "house")


def place_of(task: str, hub: str) -> tuple[str, Any]:
    """The commit of a shipped task's place, and the place."""
    (place, *_) = [place for place in TASKS[task].places if place.hub == hub]
    assert place.revision is not None
    return place.revision, place


def spans(language: str, name: str = "{}", count: int = 4, off: int = 0) -> list[Row]:
    """Questions with an answer, which is `off` from where it is said to be in every second row."""
    context, answer = CONTEXTS.get(language, ENGLISH)
    at = context.index(answer)
    return [
        {
            "id": name.format(i),
            "title": "t",
            "context": context,
            "question": f"{i}?",
            "answers": {"text": [answer], "answer_start": [at + off * (i % 2)]},
        }
        for i in range(count)
    ]


def labelled(columns: list[str], labels: list[Any], count: int = 6) -> list[Row]:
    texts = [dict.fromkeys(columns, f"ba {i}") for i in range(count)]
    return [{**row, "label": labels[i % len(labels)]} for i, row in enumerate(texts)]


def tagged(column: str, tags: list[str], more: Row | None = None) -> list[Row]:
    row = {"tokens": [f"w{i}" for i in range(len(tags))], column: tags, **(more or {})}
    return [dict(row) for _ in range(4)]


def as_on_the_hub(hub: Hub) -> None:
    """The data sets of the shipped tasks, as their pinned commits are laid out: configurations,
    splits, names of files, columns and types."""
    pair = {"premise": TEXT, "hypothesis": TEXT, "label": ClassLabel(names=NLI)}
    nli = labelled(["premise", "hypothesis"], NLI)
    commit, _ = place_of("xnli", "nyu-mll/multi_nli")
    genre = {**pair, "promptID": Value("int32"), "genre": TEXT}
    mnli = [{**row, "promptID": 1, "genre": "fiction"} for row in nli]
    whole = {None: {"train": mnli, "validation_matched": mnli, "validation_mismatched": mnli}}
    put(hub, "nyu-mll/multi_nli", whole, genre, commit)
    commit, _ = place_of("xnli", "facebook/xnli")
    xnli = {code: {"train": nli, "validation": nli, "test": nli} for code in ("ar", "en", "sw")}
    put(hub, "facebook/xnli", xnli, pair, commit)
    commit, place = place_of("americasnli", "nala-cub/americas_nli")
    aymara = {place.languages[code]: {"validation": nli, "test": nli} for code in ("ay", "quy")}
    mixed = {"all_languages": {"validation": nli, "test": nli}}
    put(hub, "nala-cub/americas_nli", {**mixed, **aymara}, pair, commit)

    texts = dict.fromkeys(("premise", "choice1", "choice2", "question"), TEXT)
    causes = labelled(["premise", "choice1", "choice2"], [0, 1])
    causes = [{**row, "question": ("cause", "effect")[i % 2]} for i, row in enumerate(causes)]
    copa = [{**row, "label": f"choice{row['label'] + 1}", "idx": 1} for row in causes]
    commit, _ = place_of("xcopa", "aps/super_glue")
    names = ClassLabel(names=["choice1", "choice2"])
    unlabelled = [{**row, "label": -1} for row in copa]
    glue = {"copa": {"train": copa, "validation": copa, "test": unlabelled}}
    put(hub, "aps/super_glue", glue, {**texts, "idx": Value("int32"), "label": names}, commit)
    commit, _ = place_of("xcopa", "cambridgeltl/xcopa")
    xcopa = [{**row, "idx": 1, "changed": False} for row in causes]
    number = {"label": Value("int32"), "idx": Value("int32"), "changed": Value("bool")}
    configs = {code: {"validation": xcopa, "test": xcopa} for code in ("et", "sw")}
    configs["translation-et"] = configs["et"]
    put(hub, "cambridgeltl/xcopa", configs, {**texts, **number}, commit)
    commit, _ = place_of("siqa", "lighteval/siqa")
    columns = ["context", "question", "answerA", "answerB", "answerC"]
    siqa = labelled(columns, ["1", "2", "3"])
    splits = {None: {"train": siqa, "validation": siqa}}
    put(
        hub, "lighteval/siqa", splits, dict.fromkeys((*columns, "label"), TEXT), commit,
        "{config}/{split}-00000-of-00001-da17dfc1120ed1ee.parquet",
    )  # fmt: skip

    commit, _ = place_of("udpos", "izhx/xtreme-r-udpos")
    tags = {"tokens": Sequence(TEXT), "pos_tags": Sequence(ClassLabel(names=UPOS))}
    pos = tagged("pos_tags", ["NOUN", "VERB", "X"])
    treebanks: dict[str | None, Any] = {code: {"test": pos} for code in ("fi", "wo")}
    treebanks["en"] = {"train": pos, "validation": pos, "test": pos}
    put(hub, "izhx/xtreme-r-udpos", treebanks, tags, commit, "{config}/{split}.parquet")
    commit, _ = place_of("wikiann", "unimelb-nlp/wikiann")
    lists = {"langs": Sequence(TEXT), "spans": Sequence(TEXT)}
    tags = {"tokens": Sequence(TEXT), "ner_tags": Sequence(ClassLabel(names=NER)), **lists}
    ner = tagged("ner_tags", ["B-LOC", "O", "B-PER", "I-PER"], {"langs": ["x"], "spans": ["y"]})
    splits_of = {"train": ner, "validation": ner, "test": ner}
    put(hub, "unimelb-nlp/wikiann", dict.fromkeys(("en", "fi", "sw"), splits_of), tags, commit)

    commit, _ = place_of("squad", "rajpurkar/squad")
    squad = {"plain_text": {"train": spans("en", count=6), "validation": spans("en")}}
    put(hub, "rajpurkar/squad", squad, TITLED, commit)
    commit, _ = place_of("xquad", "google/xquad")
    every = {f"xquad.{code}": {"validation": spans(code)} for code in ("ar", "en", "ro")}
    put(hub, "google/xquad", every, ID_QA, commit)
    commit, _ = place_of("lareqa", "google-research-datasets/xquad_r")
    every = {code: {"validation": spans(code)} for code in ("ar", "de", "en")}
    put(hub, "google-research-datasets/xquad_r", every, ID_QA, commit)
    commit, _ = place_of("mlqa", "google/xtreme")
    every = {
        f"MLQA.{code}.{code}": {"validation": spans(code), "test": spans(code)}
        for code in ("ar", "de", "en")
    }
    put(hub, "google/xtreme", {**every, "MLQA.ar.de": every["MLQA.ar.ar"]}, TITLED, commit)
    commit, place = place_of("tydiqa", "google-research-datasets/tydiqa")
    mixed = [
        row
        for code in ("en", "fi", "sw")
        for row in spans(code, f"{place.languages[code]}-{{}}", off=1)
    ]
    gold = {"secondary_task": {"train": mixed, "validation": mixed}}
    put(hub, "google-research-datasets/tydiqa", gold, TITLED, commit)

    commit, place = place_of("tatoeba", "mteb/tatoeba-bitext-mining")
    pairs = [{"sentence1": f"bu {i}", "sentence2": f"ba {i}\n"} for i in range(5)]
    configs = {f"{place.languages[code]}-eng": {"test": pairs} for code in ("fi", "sw")}
    put(hub, "mteb/tatoeba-bitext-mining", configs, {"sentence1": TEXT, "sentence2": TEXT}, commit)
    commit, _ = place_of("pawsx", "google-research-datasets/paws-x")
    names = ClassLabel(names=["0", "1"])
    features = {"id": Value("int32"), "sentence1": TEXT, "sentence2": TEXT, "label": names}
    paws = [{**row, "id": 1} for row in labelled(["sentence1", "sentence2"], ["0", "1"])]
    splits_of = {"train": paws, "validation": paws, "test": paws}
    every = dict.fromkeys(("de", "en", "fr"), splits_of)
    put(hub, "google-research-datasets/paws-x", every, features, commit)
    commit, place = place_of("sentiment", "mteb/NusaX-senti")
    feelings = labelled(["text"], ["negative", "neutral", "positive"])
    splits_of = {"train": feelings, "validation": feelings, "test": feelings}
    every = {place.languages[code]: splits_of for code in ("en", "id", "ace")}
    put(hub, "mteb/NusaX-senti", every, {"text": TEXT, "label": TEXT}, commit)

    commit, place = place_of("sib200", "Davlan/sib200")
    lines = (f"{i}\t{label}\tba {i}\n" for i, label in enumerate(TASKS["sib200"].labels))
    table = ("index_id\tcategory\ttext\n" + "".join(lines)).encode()
    names = {"train": "train", "validation": "dev", "test": "test"}
    listed = [
        (code, {split: f"data/{code}/{name}.tsv" for split, name in names.items()})
        for code in (place.languages["en"], place.languages["fi"])
    ]
    topics = {path: table for _, paths in listed for path in paths.values()}
    hub.add_repo("dataset", "Davlan/sib200", {**topics, "README.md": readme(*listed)}, commit)


def on_hubs() -> set[str]:
    """Shipped tasks that have a place on a hub."""
    tasks: dict[str, Task] = {name: TASKS[name] for name in TASKS}
    return {name for name, task in tasks.items() if any(place.hub for place in task.places)}


def test_the_shipped_tasks_are_read_from_their_pinned_commits(hub: Hub, machine: Machine) -> None:
    assert {*TARGETS, *OTHERS} == on_hubs(), "a task is missing here"
    as_on_the_hub(hub)
    recipe = {**BASE, "targets": TARGETS, "tasks": list(TARGETS), "intermediate": OTHERS}
    machine.write({**recipe, "regimes": ["intermediate"]})
    planned = machine.plan()
    assert hub.log == []
    ran = machine("run")
    assert ran.code == 0, ran.err
    assert hub.asked("GET /cdn/"), "what is not there is fetched"
    expected = {
        (task, language, "intermediate")
        for task, targets in TARGETS.items()
        for language in (*targets, *(["en"] if "en" in (TASKS[task].languages or ["en"]) else []))
    }
    assert machine.scored().keys() == expected
    hub.log.clear()
    assert machine.plan(HF_HUB_OFFLINE="1") == dict.fromkeys(planned, "cached")
    assert hub.log == []
