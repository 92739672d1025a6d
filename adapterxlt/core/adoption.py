"""Adopted adapters: what a recipe says of one, what is known of it, and which backbone it is for.

Values only. `run.adoptions` finds out what is known, from a folder or from a lock file;
`core.lowering` makes a stage of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field, field_validator

from adapterxlt.core.adapters import AdapterSpec
from adapterxlt.core.specs import Closed

_PART = r"[A-Za-z0-9][\w.-]{0,95}"
_REPOSITORY = re.compile(f"{_PART}/{_PART}(?:/{_PART}){{0,3}}", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w./+-]{0,127}")
COMMIT = re.compile(r"[0-9a-f]{40}")


#: In `language_adapters.adopt`, every language that is not named.
ANY = "any"


class Adopt(Closed):
    """An adapter that somebody else trained, in the place of one that would be trained."""

    adapter: str = Field(min_length=1)
    """`hub:organization/name@revision`, `peft:organization/name@revision`, a path, or `auto`."""
    allow_pickle: bool = False
    """Whether weights may be a pickle; it is opened in a process of its own, once."""
    base: str | None = None
    """What the adapter calls the backbone it is for, where that is this one by another name."""
    labels: tuple[str, ...] | None = None
    """Of a task adapter, the labels of its head in order, where it does not say them."""

    @field_validator("labels", mode="before")
    @classmethod
    def _sequence(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("adapter")
    @classmethod
    def _known(cls, value: str) -> str:
        if value != "auto":
            Reference.parse(value)
        return value


def as_entry(value: Any) -> Any:
    """An adapter's reference as the mapping that it is short for."""
    return {"adapter": value} if isinstance(value, str) else value


def short_schema(full: dict[str, Any]) -> dict[str, Any]:
    """For editors: what is adopted, as a mapping or as the reference that is short for it."""
    return {"anyOf": [{"type": "string"}, full]}


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """Where an adapter is: a repository of a hub at a revision, or a folder.

    Attributes:
        place: `hub`, `peft` (a hub too, and its format is said) or `folder`.
        name: ``organization/name``, with the folder in it where the adapter is in one; or the path
            as written.
        revision: as written; none is the repository's newest commit.
    """

    place: Literal["hub", "peft", "folder"]
    name: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Raises ``ValueError`` for what is no reference; says what to write."""
        for place in ("hub", "peft"):
            if not text.startswith(f"{place}:"):
                continue
            name, at, revision = text.removeprefix(f"{place}:").partition("@")
            if not _REPOSITORY.fullmatch(name) or ".." in name:
                raise ValueError(f"write {place}:organization/name@revision")
            if at and (not _REVISION.fullmatch(revision) or ".." in revision):
                raise ValueError("a revision is a commit, a branch or a tag")
            return cls(place, name, revision or None)
        if text.startswith(("./", "../", "/", "~/")):
            return cls("folder", text)
        if _REPOSITORY.fullmatch(text.partition("@")[0]):
            raise ValueError(f"write hub:{text}, or ./{text} for a folder")
        raise ValueError("write hub:organization/name@revision, or a path that begins with ./ or /")

    @property
    def hub(self) -> bool:
        """Whether it is on a hub."""
        return self.place != "folder"

    def __str__(self) -> str:
        prefix = f"{self.place}:" if self.hub else ""
        return f"{prefix}{self.name}{f'@{self.revision}' if self.revision else ''}"


class LockedFile(Closed):
    """A file of an adapter as it was when it was looked at."""

    name: str = Field(pattern=r"^[A-Za-z_]+\.(json|safetensors|bin)$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class Head(Closed):
    """The head that comes with a task adapter."""

    kind: str
    labels: tuple[str, ...] | None = None
    """In the order of its outputs; none where it does not say."""
    outputs: int = Field(gt=0)
    layers: int = Field(ge=1, le=2)
    activation: str | None = None

    @field_validator("labels", mode="before")
    @classmethod
    def _sequence(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


class Adopted(Closed):
    """What is known of an adapter before it is opened for good."""

    format: Literal["adapters", "peft"]
    files: dict[str, LockedFile]
    """By role: `config`, `weights`, and of a head `head_config` and `head`."""
    adapter: dict[str, Any]
    """Resolved specification, see `AdapterSpec.resolved`."""
    head: Head | None = None
    made_for: dict[str, Any]
    """What it says of its backbone: `model_name`, `model_type`, `hidden_size`; of our own exports
    `digests`."""
    commit: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")

    @property
    def pickles(self) -> list[str]:
        """Names of files that are pickles."""
        return [file.name for file in self.files.values() if file.name.endswith(".bin")]


def digests_of(adopted: Adopted) -> dict[str, str]:
    """SHA-256 of each of an adapter's files, by role, as they enter keys."""
    return {role: file.sha256 for role, file in adopted.files.items()}


@dataclass(frozen=True, slots=True)
class Adoption:
    """An adapter that is adopted: where it is from, what is known of it, what the recipe says."""

    reference: Reference
    adopted: Adopted
    said: Adopt

    @property
    def label(self) -> str:
        """As in plans and messages: the reference, with the commit it is locked at."""
        at = f"@{self.adopted.commit[:7]}" if self.adopted.commit else ""
        return f"{self.reference.place}:{self.reference.name}{at}" if at else str(self.reference)

    @property
    def spec(self) -> AdapterSpec:
        """The specification of its modules."""
        return AdapterSpec(**self.adopted.adapter)


@dataclass(frozen=True, slots=True)
class Adoptions:
    """Everything a recipe adopts: language adapters by code, task adapters as the recipe says."""

    languages: Mapping[str, Adoption] = field(default_factory=dict)
    tasks: Mapping[Adopt, Adoption] = field(default_factory=dict)

    def of_phase(self, adopt: Mapping[str, Adopt], task: str) -> Adoption:
        """What a phase adopts in a cell of a task."""
        return self.tasks[adopt.get(task) or adopt["task"]]
