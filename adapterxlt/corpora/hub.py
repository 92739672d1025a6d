"""Splits of hub data sets as they lie in the store once they were fetched; no network here.

`run.hub.datasets` puts them there; readers find them by what they are, so a study finds the same
bytes whether or not a hub can be reached.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapterxlt.core.canon import digest
from adapterxlt.core.tasks import Place


@dataclass(frozen=True, slots=True, order=True)
class HubSplit:
    """One split of one configuration of a data set at one commit."""

    hub: str
    revision: str
    config: str | None
    split: str

    @property
    def digest(self) -> str:
        """64 hex digits; a commit is immutable, so they stand for the content."""
        return digest("hub", [self.hub, self.revision, self.config, self.split])

    @property
    def kind(self) -> str:
        """As in messages."""
        return "data set"

    @property
    def label(self) -> str:
        """As in messages: ``organization/name config split @1234567``."""
        config = f" {self.config}" if self.config else ""
        return f"{self.hub}{config} {self.split} @{self.revision[:7]}"


def hub_split(place: Place, language: str, split: str) -> HubSplit | None:
    """What a place has of a language and a split, by our names; ``None`` where it has nothing."""
    name = place.name_of(language)
    theirs = split if place.splits is None else place.splits.get(split)  # type: ignore[call-overload]
    if place.hub is None or place.revision is None or name is None or theirs is None:
        return None
    fill = {"{language}": name, "{split}": theirs}
    config = place.config
    for mark, value in fill.items():
        config = config.replace(mark, value) if config is not None else None
        theirs = theirs.replace(mark, value)
    return HubSplit(place.hub, place.revision, config, theirs)


class Shelf:
    """Where fetched splits lie: ``<root>/hub/<digest>.parquet``, columns as on the hub, class
    numbers replaced by their names."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root) / "hub"

    def path(self, split: HubSplit) -> Path:
        """Where a split lies, or would."""
        return self.root / f"{split.digest}.parquet"

    def has(self, split: HubSplit) -> bool:
        """Whether it was fetched."""
        return self.path(split).is_file()
