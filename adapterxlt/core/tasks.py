"""Tasks: what kind each is, its columns, labels and metrics, and where its rows are.

A task is data, in one closed schema: a file in ``adapterxlt/tasks/``, or an entry of a recipe's
`datasets`. Values only; readers are in `corpora`, heads and metrics in `compute`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, field_validator, model_validator

from adapterxlt.core.catalogs import Catalog
from adapterxlt.core.errors import did_you_mean
from adapterxlt.core.specs import Closed, Positive

KindName = Literal[
    "tagging", "classification", "pair-classification", "choice", "qa", "retrieval", "ranking"
]
SPLITS = ("train", "validation", "test")
Split = Literal["train", "validation", "test", "candidates"]
Format = Literal["jsonl", "csv", "tsv", "conllu", "iob2", "parquet", "text", "mewslix"]


@dataclass(frozen=True, slots=True)
class Kind:
    """What holds for all tasks of a kind: columns and metrics by default, options with theirs."""

    inputs: tuple[str, ...]
    label: str
    metrics: tuple[str, ...]
    labelled: bool = True
    """Whether it has a set of labels."""
    trains: bool = True
    """Whether anything is trained on it; what is not is scored with whatever was trained."""
    items: bool = False
    """Whether its loss is one of single items, so that items can be mixed (mixup)."""
    options: Mapping[str, Any] | None = None
    more: tuple[str, ...] = ()
    """Metrics there are besides."""


KINDS: dict[str, Kind] = {
    "tagging": Kind(
        ("tokens",),
        "tags",
        ("accuracy", "macro_f1"),
        items=True,
        more=("span_f1", "span_f1_strict", "pos_f1"),
    ),
    "classification": Kind(("text",), "label", ("accuracy", "macro_f1"), items=True),
    "pair-classification": Kind(
        ("sentence1", "sentence2"), "label", ("accuracy", "macro_f1"), items=True
    ),
    "choice": Kind(
        ("premise", "question"),
        "label",
        ("accuracy",),
        more=("macro_f1",),
        options={"choices": ("choice1", "choice2"), "questions": None},
    ),
    "qa": Kind(
        ("context", "question"),
        "answers",
        ("em_f1", "exact_match", "f1"),
        labelled=False,
        options={"normalization": "squad", "stride": None, "longest_answer": 30},
    ),
    "retrieval": Kind(
        ("source",),
        "target",
        ("accuracy",),
        labelled=False,
        trains=False,
        options={"layer": None, "pooling": None, "csls": False},
    ),
    "ranking": Kind(
        ("query",), "answer", ("map@20",), labelled=False, options={"temperature": 0.05}
    ),
}


#: Options that training depends on; the others are of evaluation.
TRAINING_OPTIONS = frozenset({"choices", "questions", "stride", "temperature"})


def _place_schema(schema: dict[str, Any]) -> None:
    """For editors: languages may be a list too."""
    codes = {"type": "array", "items": {"type": "string"}}
    schema["properties"]["languages"]["anyOf"].insert(0, codes)


class Place(Closed):
    """Where some languages and splits of a task are, and how they are read."""

    model_config = ConfigDict(json_schema_extra=_place_schema)

    folder: str | None = None
    """Of the data folder: `<folder>/<language>/<split>.jsonl`, or `.jsonl.gz`."""
    files: str | dict[str, str] | None = None
    """Path with `{language}` and `{split}`, from the recipe's folder on; or, of line-aligned text
    files, a path for each column."""
    hub: str | None = Field(default=None, pattern=r"^[\w.-]+/[\w.-]+$")
    """Data set on a hub, as `organization/name`."""
    revision: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")
    """The commit that is read, 40 hex digits: branches move."""
    config: str | None = None
    """Configuration on the hub, with `{language}`; or `{split}` in it, e.g. for candidates."""
    format: Format | None = None
    """Told by the file's name when left out; `mewslix` are the JSON Lines of that data set."""
    languages: dict[str, str] | None = None
    """What `{language}` stands for, by language; only these are here. From a list: itself."""
    splits: dict[Split, str] | None = None
    """The place's name of a split, e.g. {test: validation}; only these are here."""
    columns: dict[str, str] = Field(default_factory=dict)
    """The place's name of a column, where it is another."""
    relabel: dict[str, str] = Field(default_factory=dict)
    """Labels that are read as others, e.g. {B-DATE: O}."""
    where: dict[str, str] = Field(default_factory=dict)
    """Only rows whose column begins so, e.g. {id: "{language}-"}."""
    realign: bool = False
    """QA: an answer that is not where it should be is looked for before that place, then after."""
    from_qa: bool = False
    """Ranking: rows are of question answering, and what is ranked are the sentences of contexts."""
    rows: dict[Split, Positive] = Field(default_factory=dict)
    """Sizes of splits on a hub, so that a study can be planned before anything is fetched."""
    divide: dict[Split, Annotated[float, Field(gt=0, lt=1)]] | None = None
    """Shares into which a language's only split is divided, e.g. {train: 0.8, test: 0.2}."""
    divide_seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    licence: str = ""

    @field_validator("languages", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {str(code): str(code) for code in value} if isinstance(value, list) else value

    @field_validator("revision", mode="before")
    @classmethod
    def _commit(cls, value: Any) -> Any:
        if value is not None and not re.fullmatch("[0-9a-f]{40}", str(value)):
            raise ValueError("a revision is a commit, 40 hex digits: branches move")
        return str(value) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _one_place(self) -> Place:
        if sum(place is not None for place in (self.folder, self.files, self.hub)) != 1:
            raise ValueError("a place is one of folder, files and hub")
        if self.revision is not None and self.hub is None:
            raise ValueError("only a hub has revisions")
        if self.hub is not None and self.revision is None:
            raise ValueError("a hub's data need a revision, 40 hex digits")
        if self.divide is not None and abs(sum(self.divide.values()) - 1) > 1e-6:
            raise ValueError("the shares of divide add up to 1")
        return self

    def name_of(self, language: str) -> str | None:
        """What the place calls a language; ``None`` where it has not got it."""
        return language if self.languages is None else self.languages.get(language)

    def reading(self) -> dict[str, Any]:
        """What changes how bytes are read, for digests; empty where they are read as they are."""
        names = ("columns", "relabel", "format", "where", "realign", "from_qa")
        return {name: value for name in names if (value := getattr(self, name))}


#: Fields of a place that may stand in a task itself, when it has only one.
PLACE_FIELDS = frozenset(Place.model_fields) - {"languages", "licence"}


def _task_schema(schema: dict[str, Any]) -> None:
    """For editors, what may stand in the task itself; a shipped task's name says its kind."""
    place = Place.model_json_schema()["properties"]
    own = schema["properties"]
    own |= {name: place[name] for name in sorted(PLACE_FIELDS)}
    own["languages"]["anyOf"] = place["languages"]["anyOf"]
    schema.pop("required", None)


class Task(Closed):
    """One task. ``inputs`` and ``label`` name the columns of a row."""

    model_config = ConfigDict(json_schema_extra=_task_schema)

    name: str = Field(default="", pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$|^$")
    summary: str = ""
    kind: KindName
    inputs: tuple[str, ...] = ()
    """Columns of what is read; by default those of the kind."""
    label: str = ""
    """Column of what is learnt; by default that of the kind."""
    labels: tuple[str, ...] = ()
    """The label set, in order; left out, those of the source's training data."""
    metrics: tuple[str, ...] = ()
    """The first one is the task's own; by default those of the kind."""
    languages: tuple[str, ...] | None = None
    """The languages of the benchmark: whose mean is the task's score, and what `targets: all`
    means. A source that is not among them is not scored."""
    shots: Literal["train", "validation"] | None = None
    """Which split shots are drawn from; by default train, or validation where there is none."""
    pool: tuple[str, ...] | None = None
    """Ranking: whose candidates are searched. By default those of all of the recipe's languages."""
    places: tuple[Place, ...] = ()
    """The first that has a language's split is read."""
    licence: str = ""
    lab: bool = False
    choices: tuple[str, ...] | None = None
    """Choice: columns of the alternatives."""
    questions: dict[str, str] | None = None
    """Choice: text in the place of a value of the question column, e.g. {cause: "Why?"}."""
    normalization: Literal["squad", "mlqa"] | None = None
    """QA: how answers are made comparable; `mlqa` by language."""
    stride: Positive | None = None
    """QA: sub-words that two windows of a long context share; by default a third of max_length."""
    longest_answer: Positive | None = None
    """QA: longest answer in sub-words."""
    layer: Positive | None = None
    """Retrieval: whose states are read; by default the second above the middle (8 of 12)."""
    pooling: Literal["mean", "cls"] | None = None
    """Retrieval: a sentence is the mean of its sub-words (the default), or its first one."""
    csls: bool | None = None
    """Retrieval: cross-domain similarity local scaling in the place of the cosine."""
    temperature: Annotated[float, Field(gt=0)] | None = None
    """Ranking: what cosines are divided by in the softmax of training."""

    @model_validator(mode="before")
    @classmethod
    def _one_place(cls, value: Any) -> Any:
        """A task with one place may have its fields beside its own; languages by name are its."""
        if not isinstance(value, dict) or not PLACE_FIELDS & value.keys():
            return value
        of_place = PLACE_FIELDS
        if isinstance(value.get("languages"), dict):
            of_place |= {"languages"}
        place = {k: v for k, v in value.items() if k in of_place}
        own = {k: v for k, v in value.items() if k not in of_place}
        places = value.get("places", [])
        return {**own, "places": [place, *places] if isinstance(places, list) else places}

    @field_validator(
        "inputs", "labels", "metrics", "languages", "pool", "places", "choices", mode="before"
    )
    @classmethod
    def _sequence(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _options_of_kind(self) -> Task:
        known = KINDS[self.kind].options or {}
        for name in _OPTIONS:
            if getattr(self, name) is not None and name not in known:
                raise ValueError(f"{name} says nothing of {self.kind}")
        metrics = (*KINDS[self.kind].metrics, *KINDS[self.kind].more)
        for name in self.metrics:
            if name not in metrics:
                near = did_you_mean(name, metrics)
                raise ValueError(f"no metric {name!r} of {self.kind}; {near}")
        return self

    def filled(self, **more: Any) -> Task:
        """With the kind's columns and metrics where the task names none."""
        kind = KINDS[self.kind]
        filled = {
            "inputs": self.inputs or kind.inputs,
            "label": self.label or kind.label,
            "metrics": self.metrics or kind.metrics,
        }
        return self.model_copy(update={**filled, **more})

    @property
    def primary(self) -> str:
        """The metric that tables show."""
        return self.metrics[0]

    @property
    def trains(self) -> bool:
        """Whether anything is trained on it."""
        return KINDS[self.kind].trains

    @property
    def options(self) -> dict[str, Any]:
        """The kind's options with their values; nothing for a kind without any."""
        given = ((name, getattr(self, name)) for name in KINDS[self.kind].options or {})
        default = dict(KINDS[self.kind].options or {})
        found = {name: default[name] if value is None else value for name, value in given}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in found.items()}

    @property
    def head(self) -> dict[str, Any]:
        """What says of a head how it is made and trained; enters keys."""
        options = {k: v for k, v in self.options.items() if k in TRAINING_OPTIONS}
        return {"kind": self.kind, "labels": list(self.labels), **options}

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that a row needs."""
        return (*self.inputs, *self.options.get("choices", ()), self.label)


_OPTIONS = tuple(dict.fromkeys(name for kind in KINDS.values() for name in kind.options or {}))


#: Listed first, in this order; others follow by name.
ORDER = (
    *("udpos", "wikiann", "xnli", "xcopa", "xquad", "mlqa", "tydiqa", "tatoeba"),
    *("mewslix", "lareqa", "pawsx", "americasnli"),
)


def _of_file(name: str, value: Any) -> Task:
    return Task.model_validate({**value, "name": name}).filled()


def _lab_task(name: str) -> Task:
    from adapterxlt import lab

    of = lab.TASKS[name]
    rest: dict[str, Any] = _OF_LAB.get(name, {})
    if not of.source:
        rest = {**rest, "languages": tuple(code for code in lab.LANGUAGES if code != lab.SOURCE)}
    given = {"name": name, "kind": of.kind, "labels": tuple(of.labels), "lab": True}
    return Task.model_validate({**given, **rest}).filled()


_OF_LAB: dict[str, dict[str, Any]] = {
    "lab-pos": {"label": "upos", "summary": "part-of-speech tags of the laboratory's languages"},
    "lab-nli": {
        "inputs": ("premise", "hypothesis"),
        "summary": "inference in the laboratory's languages",
    },
    "lab-ner": {
        "label": "ner_tags",
        "metrics": ("span_f1", "accuracy"),
        "summary": "named persons, places and things of the laboratory",
    },
    "lab-paraphrase": {"summary": "whether two sentences of the laboratory say the same"},
    "lab-choice": {"summary": "which of two events is the cause or the effect of a third"},
    "lab-qa": {"summary": "extractive question answering over sentences of the laboratory"},
    "lab-bitext": {"summary": "finding the translation of a sentence of the laboratory"},
    "lab-ranking": {"summary": "finding the sentence, in any language, that answers a question"},
    "lab-topic": {"summary": "topic of a text of the laboratory"},
}


class _Tasks(Catalog[Task]):
    """Those of the laboratory are not files: what they are like is said there."""

    @cached_property
    def _names(self) -> tuple[str, ...]:
        from adapterxlt import lab

        return (*super()._names, *lab.TASKS)

    def __getitem__(self, name: str) -> Task:
        from adapterxlt import lab

        if name in lab.TASKS and name not in self._read:
            self._read[name] = _lab_task(name)
        return self._read.get(name) or super().__getitem__(name)


#: The shipped tasks by name.
TASKS: Mapping[str, Task] = _Tasks("tasks", _of_file, ORDER)

#: The tasks of XTREME-R (Ruder et al. 2021), each with the languages its row names.
XTREME_R = (
    *("xnli", "xcopa", "udpos", "wikiann", "xquad", "mlqa", "tydiqa", "tatoeba"),
    *("mewslix", "lareqa"),
)


def kinds() -> tuple[str, ...]:
    """Names of the kinds there are."""
    return get_args(KindName)
