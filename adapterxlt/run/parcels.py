"""What stages read from a store, packed for a node that does not see it, and what they left there.

Records and files go by their digests, so that what a node has is not sent again. Called by
`run.ray_pool`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adapterxlt.corpora.hub import HubSplit, Shelf
from adapterxlt.corpora.sources import Corpus, LabCorpus
from adapterxlt.run.desk import Places
from adapterxlt.run.requests import Request
from adapterxlt.store.files import write_bytes
from adapterxlt.store.store import Record, Store


@dataclass(frozen=True)
class Parcel:
    """What is read, without the bytes."""

    records: tuple[Record, ...]
    objects: tuple[str, ...]
    """Digests of the files of records, and of adapters that are adopted."""
    splits: tuple[HubSplit, ...]
    notes: Mapping[str, Any]
    """Where adopted adapters are from, by the key of the stage."""


def parcel(store: Store, corpus: Corpus | LabCorpus, requests: Sequence[Request]) -> Parcel:
    """What stages read: all that they are built on, since a composition is looked up through the
    records of its phases."""
    records = _records(store, requests)
    objects = {name for record in records for name in record.files.values()}
    splits: set[HubSplit] = set()
    notes = {}
    for request in requests:
        stage = request.stage
        if stage.kind == "adopt":
            objects |= set(stage.params["files"].values())
            notes[request.key] = store.noted("adopted", request.key)
        if isinstance(corpus, Corpus):
            for data in stage.reads():
                splits |= set(corpus.wanted(data["task"], data["language"], data["split"]))
                if data["task"] != "text":
                    splits |= set(corpus.labels_from(data["task"]))
    return Parcel(tuple(records), tuple(sorted(objects)), tuple(sorted(splits)), notes)


def _records(store: Store, requests: Iterable[Request]) -> list[Record]:
    """The records under stages; what an input that is done was made from may be gone."""
    found: dict[str, Record | None] = {}
    todo = [key for request in requests for key in request.stage.inputs.values()]
    while todo:
        key = todo.pop()
        if key not in found:
            record = found[key] = store.read(key)
            todo += record.stage["inputs"].values() if record is not None else ()
    return [record for record in found.values() if record is not None]


def lacking(store: Store, sent: Parcel) -> set[str]:
    """The digests of those objects and splits that a store does not have."""
    shelf = Shelf(store.root)
    objects = {name for name in sent.objects if not store.has(name)}
    return objects | {split.digest for split in sent.splits if not shelf.has(split)}


def pack(store: Store, sent: Parcel, wanted: set[str]) -> dict[str, bytes]:
    """The bytes of what is wanted, by digest."""
    shelf = Shelf(store.root)
    found = {name: store.get(name) for name in sent.objects if name in wanted}
    splits = (split for split in sent.splits if split.digest in wanted)
    return found | {split.digest: shelf.path(split).read_bytes() for split in splits}


def unpack(store: Store, sent: Parcel, content: Mapping[str, bytes]) -> None:
    """Take over what was packed for this store; files first, so that no record is without them."""
    shelf = Shelf(store.root)
    splits = {split.digest: split for split in sent.splits}
    for name, data in content.items():
        if name in splits:
            write_bytes(shelf.path(splits[name]), data)
        else:
            store.put(data)
    for record in sent.records:
        if record.key not in store:
            store.keep(record)
    for key, note in sent.notes.items():
        store.note("adopted", key, note)


def left(store: Store, key: str) -> tuple[dict[str, bytes], Mapping[str, Any]] | None:
    """The files and facts of a finished stage, as `Store.publish` takes them."""
    record = store.read(key)
    if record is None:
        return None
    return {name: store.get(digest) for name, digest in record.files.items()}, record.facts


def folders(places: Places) -> list[str]:
    """The folders that every node has to have under these names."""
    reading = places.reading
    found = [reading.data] if reading.data not in (None, "lab", "hub") else []
    own = [place for task in json.loads(reading.tasks).values() for place in task.get("places", ())]
    if any(place.get("files") for place in (*own, *json.loads(reading.texts))):
        found.append(reading.base)
    if places.backbone != "lab":
        found.append(places.backbone)
    return [str(folder) for folder in found]
