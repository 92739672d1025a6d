"""Fetching adapters from a hub: a revision becomes a commit, and of that only files of known names
are downloaded, with a cap on their size. Nothing here looks into them: `run.adoptions` does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from adapterxlt.core.adoption import COMMIT
from adapterxlt.core.errors import DataError
from adapterxlt.run.hub.clients import (
    BUSY,
    Clients,
    HubError,
    Tell,
    as_ours,
    clients,
    offline,
    patient,
)
from adapterxlt.store.safeload import KNOWN, ROLES, check_name, check_size


@dataclass(frozen=True, slots=True)
class Repository:
    """An adapter's repository at a revision, with the folder in it where the adapter is in one."""

    hub: str
    revision: str

    @property
    def name(self) -> str:
        """``organization/name``, without the folder."""
        return "/".join(self.hub.split("/")[:2])

    @property
    def prefix(self) -> str:
        """What names of its files begin with."""
        folder = "/".join(self.hub.split("/")[2:])
        return f"{folder}/" if folder else ""

    @property
    def kind(self) -> str:
        """As in messages."""
        return "adapter"

    @property
    def label(self) -> str:
        """As in messages."""
        commit = COMMIT.fullmatch(self.revision)
        return f"hub:{self.hub}@{self.revision[:7] if commit else self.revision}"


def resolve(name: str, revision: str | None, tell: Tell) -> tuple[str, dict[str, int]]:
    """The commit that a revision stands for now, and its files of known names with their sizes.

    Raises:
        OfflineError: the client is to stay offline.
        DataError, HubError: as `clients.as_ours`.
        RefusedError: a file has a name that could mean another place, or is too large.
    """
    wanted, client = Repository(name, revision or "main"), clients()
    if client.offline:
        raise offline(wanted)
    api = client.hub.HfApi(library_name="adapterxlt")
    tell(f"{wanted.label}: asking for its commit")
    # Without a limit of time the client waits for an answer for ever.
    asked = {"files_metadata": True, "timeout": client.hub.constants.HF_HUB_ETAG_TIMEOUT}
    with as_ours(wanted, client, "cannot be looked up"):
        found = patient(lambda: api.model_info(wanted.name, revision=revision, **asked), BUSY, tell)
    commit = str(found.sha)
    if not COMMIT.fullmatch(commit):
        raise HubError(f"the hub names no commit of {wanted.label}")
    if COMMIT.fullmatch(wanted.revision) and commit != wanted.revision:
        raise HubError(f"the hub answers for {wanted.label} with the commit {commit[:7]}")
    sizes = {}
    for file in found.siblings or ():
        check_name(file.rfilename, wanted.label)
        own = file.rfilename.removeprefix(wanted.prefix)
        if own in KNOWN and file.rfilename == wanted.prefix + own:
            check_size(own, file.size or 0, wanted.label)
            sizes[own] = file.size or 0
    for names in (names for roles in ROLES.values() for names in roles.values()):
        for other in [name for name in names if name in sizes][1:]:
            del sizes[other]  # the same once more, as a pickle
    if not sizes:
        raise DataError(f"{wanted.label} has no files of an adapter")
    return commit, sizes


def download(name: str, commit: str, files: Iterable[str], tell: Tell) -> dict[str, bytes]:
    """Files of a commit, from the client's cache where they are there.

    Raises:
        OfflineError: something is not in the cache, and the client is to stay offline.
        DataError, HubError: as `clients.as_ours`.
        RefusedError: a file is too large, whatever it was listed as.
    """
    wanted, client = Repository(name, commit), clients()
    return {file: _one(wanted, file, client, tell).read_bytes() for file in files}


def _one(wanted: Repository, file: str, client: Clients, tell: Tell) -> Path:
    path = _cached(wanted, file, client) or _fetched(wanted, file, client, tell)
    check_size(file, path.stat().st_size, wanted.label)
    return path


def _fetched(wanted: Repository, file: str, client: Clients, tell: Tell) -> Path:
    if client.offline:
        raise offline(wanted)
    tell(f"{wanted.label}: downloading {file}")
    api = client.hub.HfApi(library_name="adapterxlt")

    def once() -> str:
        name = wanted.prefix + file
        found: str = api.hf_hub_download(wanted.name, name, revision=wanted.revision)
        return found

    with as_ours(wanted, client, "cannot be downloaded"):
        path = Path(patient(once, frozenset({429}), tell))
    # The client files what it gets under the commit that the hub says it is of.
    if _cached(wanted, file, client) is None:
        raise HubError(f"the hub gave {file} of another commit than {wanted.revision[:7]}")
    return path


def _cached(wanted: Repository, file: str, client: Clients) -> Path | None:
    name = wanted.prefix + file
    found = client.hub.try_to_load_from_cache(wanted.name, name, revision=wanted.revision)
    # Of a hub that answers with another commit, the client notes that this one is called by it.
    ours = isinstance(found, str) and wanted.revision in Path(found).parts
    return Path(found) if ours else None


def cached(name: str) -> bool:
    """Whether the client's cache has the weights of an adapter, at any commit."""
    wanted, client = Repository(name, ""), clients()
    folder = f"models--{wanted.name.replace('/', '--')}"
    snapshots = Path(client.hub.constants.HF_HUB_CACHE) / folder / "snapshots"
    weights = {name for roles in ROLES.values() for name in roles["weights"]}
    return any(path.name in weights for path in snapshots.glob(f"*/{wanted.prefix}*"))
