"""What an export has in it: named adapters, a head, and which classes of the libraries load them.

Told from the stages alone. `run.exporting` finds them, `compute.exporting` writes their files,
`run.snippets` the script that loads them, `report.card` says what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from adapterxlt.core.composition import Canonical, Part, compose
from adapterxlt.core.errors import UsageError
from adapterxlt.core.methods import METHODS

Role = Literal["composition", "language", "task"]
#: What of a finished cell can be exported.
ROLES: tuple[Role, ...] = ("composition", "language", "task")

#: Which class holds the backbone, and where the head is:
#:
#: - ``flexible``: a model of `adapters` with a head of its own;
#: - ``own``: a model of `transformers`, whose head `peft` keeps with the adapter;
#: - ``linear``: the bare encoder; the head is a matrix beside the adapter;
#: - ``bare``: the encoder's states are what is looked at;
#: - ``mlm``: the backbone's own masked-LM head, under a language adapter.
Form = Literal["flexible", "own", "linear", "bare", "mlm"]

#: Kinds of tasks whose head is one of `transformers`: its class, its module, peft's name for it.
OWN_HEADS = {
    "tagging": ("AutoModelForTokenClassification", "classifier", "TOKEN_CLS"),
    "qa": ("AutoModelForQuestionAnswering", "qa_outputs", "QUESTION_ANS"),
}


@dataclass(frozen=True)
class Piece:
    """An adapter of an export, or a fusion of ``members``; ``name`` is also its folder."""

    name: str
    role: Literal["language", "task"]
    part: Part
    members: tuple[Piece, ...] = ()

    @property
    def library(self) -> str:
        """`adapters` or `peft`."""
        spec = self.part.spec
        return "adapters" if spec is None else METHODS[spec["method"]].library

    def all(self) -> Iterator[Piece]:
        """Its members, then itself."""
        yield from self.members
        yield self


@dataclass(frozen=True)
class Export:
    """The pieces of an export, lowest first, and the head that the cell's task has.

    Attributes:
        language: the language adapter's name, ``xx`` or ``xx+yy``, where one is among the pieces.
        task, kind: what the cell is evaluated on; none of a language adapter alone.
        options: of a task that searches, how its vectors are read.
        drop: the first so many layers wear no adapters (AdapterDrop).
    """

    role: Role
    pieces: tuple[Piece, ...]
    language: str | None = None
    task: str | None = None
    kind: str | None = None
    head: Part | None = None
    options: Mapping[str, Any] | None = None
    drop: int | None = None

    @property
    def top(self) -> Piece:
        """The uppermost piece, which the head belongs to."""
        return self.pieces[-1]

    @property
    def labels(self) -> list[str] | None:
        """Labels of the head, in the order of its outputs."""
        return list((self.head.spec or {})["labels"]) or None if self.head is not None else None

    @property
    def libraries(self) -> tuple[str, ...]:
        """Libraries that load it, the one of the uppermost piece first."""
        return tuple(dict.fromkeys(piece.library for piece in reversed(self.pieces)))

    @property
    def form(self) -> Form:
        """What holds the backbone and the head, see `Form`."""
        if self.role == "language":
            return "mlm"
        if self.head is None:
            return "bare"
        if self.top.library == "adapters":
            return "flexible"
        # peft keeps one head's weights with one adapter, not with several at once.
        alone = sum(piece.library == "peft" for piece in self.pieces) == 1
        return "own" if alone and self.kind in OWN_HEADS else "linear"


def assemble(
    stage: Canonical, stage_of: Callable[[str], Canonical], role: Role, kind: str, trains: bool
) -> Export:
    """What an evaluate stage looks through, or its language or task adapter alone.

    Args:
        kind: of the task that is evaluated.
        trains: whether that task has a head.

    Raises:
        UsageError: the cell has no such part, or one that is no adapter.
    """
    params, inputs = stage["params"], stage["inputs"]
    data = params["data"]
    pieces: list[Piece] = []
    worn, head = data.get("wear"), None
    if role != "task" and worn is not None:
        own = compose(inputs[f"language:{worn}"], stage_of).own
        pieces.append(_piece("language", "language", own))
    if role == "language":
        if not pieces:
            raise UsageError("the cell wears no language adapter", hint="give --part task")
        _check(pieces)
        return Export(role, tuple(pieces), worn)
    if "trained" in inputs:
        made = compose(inputs["trained"], stage_of)
        head = made.heads[data["task"]] if trains else None
        below = made.frozen if role == "composition" else ()
        pieces += [_piece(f"task-{n}", "task", part) for n, part in enumerate(below, start=1)]
        pieces.append(_piece("task", "task", made.own))
    elif role == "task":
        what = "nothing was trained on tasks for this cell"
        raise UsageError(what, hint="give --part language" if worn is not None else "")
    if not pieces:
        raise UsageError("the cell is the bare backbone; there is no adapter to export")
    _check(pieces)
    found = Export(
        role,
        tuple(pieces),
        worn if role == "composition" else None,
        data["task"],
        kind,
        head,
        params.get("options"),
        params.get("drop"),
    )
    if found.form == "linear" and ((head and head.spec) or {}).get("layers") not in (None, 1):
        what = "a head of several layers cannot be exported with an adapter of peft"
        raise UsageError(what, hint="give --part language")
    return found


def _piece(name: str, role: Literal["language", "task"], part: Part) -> Piece:
    members = tuple(_piece(f"{name}-{n}", role, p) for n, p in enumerate(part.members, start=1))
    return Piece(name, role, part, members)


def _check(pieces: list[Piece]) -> None:
    methods = ((one.part.spec or {}).get("method") for piece in pieces for one in piece.all())
    if any(method and METHODS[method].library == "none" for method in methods):
        what = "full fine-tuning trains no adapter: it changes the backbone's own weights"
        raise UsageError(what, hint="export a cell of another regime, or --part language")
