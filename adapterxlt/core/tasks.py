"""The task registry: one row says a task's kind, columns, label set and metrics.

Values only; readers are in `corpora`, heads and metrics in `compute`. A task is added by a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["tagging", "classification", "pair-classification"]

UPOS = (
    *("ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART"),
    *("PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X"),
)
NLI_LABELS = ("entailment", "neutral", "contradiction")
#: IOB2 (a span begins with B-) over persons, places and organizations.
NER_LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG")
SPANS = ("span_f1", "accuracy")


@dataclass(frozen=True, slots=True)
class Task:
    """One task. ``inputs`` and ``label`` name the columns of a row.

    A language's rows are in the first of ``folders`` that has it; ``relabel`` maps labels of theirs
    that the task does not tell apart.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    inputs: tuple[str, ...]
    label: str
    summary: str
    metrics: tuple[str, ...] = ("accuracy", "macro_f1")
    lab: bool = False
    folders: tuple[str, ...] = ()
    relabel: Mapping[str, str] = field(default_factory=dict)

    @property
    def primary(self) -> str:
        """The metric that tables show."""
        return self.metrics[0]


def _lab_labels(task: str) -> tuple[str, ...]:
    from adapterxlt import lab

    return tuple(lab.TASKS[task].labels)


def _rows() -> tuple[Task, ...]:
    topics = (
        "entertainment", "geography", "health", "politics",
        "science/technology", "sports", "travel",
    )  # fmt: skip
    pair = ("premise", "hypothesis")
    return (
        Task("udpos", "tagging", UPOS, ("tokens",), "upos",
             "part-of-speech tags of Universal Dependencies, 17 UPOS"),
        Task("ner", "tagging", NER_LABELS, ("tokens",), "ner_tags",
             "named entities, IOB2 over PER, LOC and ORG", SPANS,
             folders=("ner", "masakhaner"), relabel={"B-DATE": "O", "I-DATE": "O"}),
        Task("wikiann", "tagging", NER_LABELS, ("tokens",), "ner_tags",
             "named entities of WikiANN, IOB2 over PER, LOC and ORG", SPANS),
        Task("nli", "pair-classification", NLI_LABELS, pair, "label",
             "natural language inference, three labels"),
        Task("pawsx", "pair-classification", ("0", "1"), ("sentence1", "sentence2"), "label",
             "whether a sentence paraphrases another (1) or not (0), as integers"),
        Task("sib200", "classification", topics, ("text",), "category",
             "topic of a sentence, seven labels"),
        Task("sentiment", "classification", ("positive", "neutral", "negative"), ("text",),
             "label", "sentiment of a text, three labels"),
        Task("lab-pos", "tagging", _lab_labels("lab-pos"), ("tokens",), "upos",
             "part-of-speech tags of the laboratory's languages", lab=True),
        Task("lab-nli", "pair-classification", _lab_labels("lab-nli"), pair, "label",
             "inference in the laboratory's languages", lab=True),
        Task("lab-ner", "tagging", _lab_labels("lab-ner"), ("tokens",), "ner_tags",
             "named persons, places and things of the laboratory", SPANS, lab=True),
    )  # fmt: skip


TASKS: dict[str, Task] = {task.name: task for task in _rows()}
