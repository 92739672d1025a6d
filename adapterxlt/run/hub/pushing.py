"""Pushing to a hub a folder that `adapterxlt export` wrote: what it holds is checked, compared with
what is there, and sent as one commit. Nothing at the hub is deleted, and nothing is sent twice. The
command line's `push` calls it.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterxlt.core.errors import AdapterXLTError, DataError, RefusedError, UsageError
from adapterxlt.run.exporting import FORMAT
from adapterxlt.run.hub.adapters import Repository
from adapterxlt.run.hub.clients import (
    BUSY,
    Clients,
    HubError,
    OfflineError,
    Tell,
    answer_of,
    as_ours,
    clients,
    patient,
)
from adapterxlt.store.safeload import (
    MANIFEST,
    MOST_WEIGHTS,
    check_name,
    header_of,
    read_json,
    shown,
)

MESSAGE = "Push with adapterxlt"

#: An organization or a name, in the characters that the hub allows.
_PART = re.compile(r"\w(?:[\w.-]{0,94}\w)?", re.ASCII)
#: What files are called that are pickles, and how they begin: those of protocols 2 to 5, and the
#: archives with pickles in them that torch writes.
_PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})
_PICKLED = (b"PK\x03\x04", *(bytes([0x80, number]) for number in range(2, 6)))


@dataclass(frozen=True, slots=True)
class File:
    """A file of a folder that may be pushed, and its name in the repository."""

    name: str
    path: Path
    size: int


@dataclass(frozen=True, slots=True)
class There:
    """What a hub has of a repository.

    Attributes:
        commit: the one that its main branch is at; ``None`` where it has no such repository.
        private: whether only its owners see it.
        same: files of the folder that are there with the same bytes.
        other: files of the folder that are there with other bytes.
        more: how many are there that the folder has not got; they stay.
    """

    commit: str | None = None
    private: bool = False
    same: frozenset[str] = frozenset()
    other: frozenset[str] = frozenset()
    more: int = 0

    def change(self, file: File) -> str:
        """What a push would do with a file, in a word."""
        if file.name in self.same:
            return "none"
        return "replaced" if file.name in self.other else "new"


@dataclass(frozen=True, slots=True)
class Pushed:
    """The commit that has the folder's files, and whether it was made for them."""

    url: str
    new: bool


def check_folder(folder: Path) -> tuple[File, ...]:
    """The files of a folder that `adapterxlt export` wrote, each fit to be published.

    Raises:
        UsageError: no such folder, or not one that `export` wrote.
        RefusedError: a link, a hidden file, a pickle, a name that could mean another place, a file
            that is too large, or weights that are no safetensors.
    """
    if not folder.is_dir():
        raise UsageError("no such folder", where=str(folder))
    if not (folder / MANIFEST).is_file():
        raise _not_exported(folder, f"there is no {MANIFEST}")
    files = tuple(_files(folder, ""))
    found = {file.name: file for file in files}
    manifest = read_json(found[MANIFEST].path.read_bytes(), str(folder / MANIFEST))
    if manifest.get("format") != FORMAT:
        what = f"{MANIFEST} has format {shown(manifest.get('format'))}, not {FORMAT}"
        raise _not_exported(folder, what)
    if "README.md" not in found:
        raise _not_exported(folder, "there is no README.md")
    if not any(name.endswith(".safetensors") for name in found):
        raise _not_exported(folder, "there are no *.safetensors")
    return files


def endpoint() -> str:
    """The address of the hub that is pushed to."""
    return str(clients().hub.constants.ENDPOINT)


def check_target(name: str) -> None:
    """Refuse what cannot be a repository's name.

    Raises:
        UsageError: it is not ``organization/name`` in the characters that the hub allows.
    """
    parts = name.split("/")
    fits = len(parts) == 2 and all(_PART.fullmatch(part) for part in parts)
    if not fits or "--" in name or ".." in name or name.endswith(".git"):
        raise UsageError(
            f"{shown(name)} is no name of a repository",
            hint="ORGANIZATION/NAME of letters, digits, '-', '_' and '.'",
        )


def look(files: Sequence[File], name: str, *, private: bool, tell: Tell) -> There | None:
    """What a push would meet: the repository as it is now, without asking for any change.

    Args:
        files: as `check_folder` gives them.
        private: as `push` would be told.

    Returns:
        ``None`` where the client is to stay offline.

    Raises:
        UsageError: the hub does not know the token; the repository is public, but is to be private.
        DataError, HubError: as `clients.as_ours`.
    """
    check_target(name)
    client = clients()
    if client.offline:
        return None
    with _pushing(name, client):
        found = patient(lambda: _there(_api(client), client, name, files), BUSY, tell)
    _check_private(found, name, private)
    return found


def push(
    files: Sequence[File],
    name: str,
    *,
    private: bool = False,
    message: str = "",
    tell: Tell,
) -> Pushed:
    """Send files to a repository in one commit; the repository is made if there is none.

    What was sent before a failure is not sent again by the next call, and files that the hub has
    are not sent at all: where nothing differs, there is no commit.

    Args:
        files: as `check_folder` gives them.
        private: a repository that is made is private; one that is there has to be.
        message: what the commit says of itself.

    Raises:
        OfflineError: the client is to stay offline.
        UsageError: there is no token, or it may not write there; the repository is public, but is
            to be private.
        DataError: the hub does not take what is in the files.
        HubError: the hub cannot be reached, broke off or is overloaded; somebody else committed
            at the same time.
    """
    check_target(name)
    client = clients()
    if client.offline:
        raise OfflineError(
            f"{name} cannot be pushed to, for the hub's client is to stay offline",
            hint="push without HF_HUB_OFFLINE, where the hub can be reached",
        )
    if client.hub.get_token() is None:
        raise UsageError("a push needs a token, and there is none", hint=_token(name))
    api = _api(client)
    with _pushing(name, client), _quiet(client, tell):
        before = patient(lambda: _there(api, client, name, files), BUSY, tell)
        if before.commit is None:
            tell(f"{name}: making the repository")
            # Between the question and this another process may have made it.
            patient(lambda: api.create_repo(name, private=private, exist_ok=True), BUSY, tell)
        # As a whole, since a commit may have been made although its answer never came.
        commit = patient(
            lambda: _commit(api, client, name, files, message or MESSAGE, private, tell), BUSY, tell
        )
    return Pushed(f"{api.endpoint}/{name}/commit/{commit}", commit != before.commit)


# --- the folder ----------------------------------------------------------------------------------


def _files(folder: Path, inside: str) -> Iterator[File]:
    """What is in a folder, checked before anything of it is opened; links are not followed."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        name, where = inside + entry.name, str(folder / entry.name)
        mode = entry.stat(follow_symlinks=False)
        if entry.name.startswith("."):
            raise RefusedError("hidden files are not pushed", where=where, hint="remove it")
        check_name(name, str(folder))
        if not name.isprintable():
            raise RefusedError(f"a file has the name {shown(name)}", where=str(folder))
        if stat.S_ISDIR(mode.st_mode):
            yield from _files(Path(entry.path), f"{name}/")
            continue
        if not stat.S_ISREG(mode.st_mode):
            what = "a link" if entry.is_symlink() else "no plain file"
            raise RefusedError(f"{what}, which is not pushed", where=where)
        if mode.st_size > MOST_WEIGHTS:
            raise RefusedError(f"{mode.st_size:,} bytes, more than {MOST_WEIGHTS:,}", where=where)
        _check_bytes(Path(entry.path), mode.st_size)
        yield File(name, Path(entry.path), mode.st_size)


def _check_bytes(path: Path, size: int) -> None:
    """Refuse pickles, whatever they are called, and safetensors that are none."""
    kind = path.suffix.lower()
    with path.open("rb") as file:
        if kind == ".safetensors" and size:
            # These may begin as a pickle does: with the size of their header, if that is 640.
            with (
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
                memoryview(mapped) as data,
            ):
                header_of(data, str(path))
        elif kind == ".safetensors":
            raise RefusedError("the file is empty", where=str(path))
        elif kind in _PICKLES or file.read(4).startswith(_PICKLED):
            what = "a pickle, or an archive that may have some: whoever opens it runs what it says"
            raise RefusedError(what, where=str(path), hint="export writes weights as safetensors")


def _not_exported(folder: Path, why: str) -> UsageError:
    return UsageError(
        f"not a folder that can be pushed: {why}",
        where=str(folder),
        hint="`adapterxlt export` writes one",
    )


# --- the hub -------------------------------------------------------------------------------------


def _api(client: Clients) -> Any:
    return client.hub.HfApi(library_name="adapterxlt", token=client.hub.get_token())


def _there(api: Any, client: Clients, name: str, files: Sequence[File]) -> There:
    """The repository as it is now."""
    try:
        info = api.model_info(name)
    except client.errors.RepositoryNotFoundError:
        return There()
    tree = list(api.list_repo_tree(name, recursive=True, revision=info.sha))
    # Folders are listed too, and have no size.
    theirs = {entry.path: entry for entry in tree if hasattr(entry, "size")}
    ours = {file.name for file in files}
    here = [file for file in files if file.name in theirs]
    same = frozenset(file.name for file in here if _is(theirs[file.name], file))
    return There(
        commit=str(info.sha),
        private=bool(info.private),
        same=same,
        other=frozenset(file.name for file in here) - same,
        # What the hub itself puts there is hidden.
        more=sum(path not in ours and not path.startswith(".") for path in theirs),
    )


def _is(entry: Any, file: File) -> bool:
    """Whether the hub's file has the bytes of ours: large ones go by SHA-256, others as in git."""
    if entry.size != file.size:
        return False
    digest = hashlib.sha256() if entry.lfs else hashlib.sha1(b"blob %d\0" % file.size)
    with file.path.open("rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return bool(digest.hexdigest() == (entry.lfs.sha256 if entry.lfs else entry.blob_id))


def _commit(
    api: Any,
    client: Clients,
    name: str,
    files: Sequence[File],
    message: str,
    private: bool,
    tell: Tell,
) -> str:
    """Commit what the hub has not got; returns the commit that has everything."""
    found = _there(api, client, name, files)
    _check_private(found, name, private)
    if found.commit is None:
        raise UsageError(f"{name} is there, but the token may not see it", hint=_token(name))
    left = [file for file in files if file.name not in found.same]
    if not left:
        return found.commit
    count = "1 file" if len(left) == 1 else f"{len(left)} files"
    tell(f"{name}: uploading {count}, {sum(file.size for file in left):,} bytes")
    operations = [client.hub.CommitOperationAdd(file.name, file.path) for file in left]
    # Only on top of what was compared: what somebody else commits meanwhile is not replaced.
    made = api.create_commit(name, operations, commit_message=message, parent_commit=found.commit)
    return str(made.oid)


def _check_private(found: There, name: str, private: bool) -> None:
    if private and found.commit is not None and not found.private:
        raise UsageError(
            f"{name} is there and public: --private is for a repository that is to be made",
            hint="make it private on its page, or push without --private",
        )


@contextmanager
def _quiet(client: Clients, tell: Tell) -> Iterator[None]:
    """What the client warns of becomes our talk. Its log is left out, which shows addresses that
    let anybody upload, and its bars, which stay half drawn where a connection breaks off."""
    utils = client.hub.utils
    level, hidden = utils.logging.get_verbosity(), utils.are_progress_bars_disabled()
    utils.logging.set_verbosity_error()
    utils.disable_progress_bars()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            yield
    finally:
        utils.logging.set_verbosity(level)
        if not hidden:
            utils.enable_progress_bars()
        for text in dict.fromkeys(str(one.message) for one in caught):
            tell(_one_line(text))


# --- failures ------------------------------------------------------------------------------------


@contextmanager
def _pushing(name: str, client: Clients) -> Iterator[None]:
    """Whatever the client raises, as the one error that says what to do about it."""
    with as_ours(Repository(name, "main"), client, "cannot be pushed"):
        try:
            yield
        except AdapterXLTError:
            raise
        except Exception as error:
            said = _refusal(error, name)
            if said is None:
                raise
            raise said from error


def _refusal(error: Exception, name: str) -> AdapterXLTError | None:
    """Answers that mean something else where something is written; ``None`` for the others."""
    answer = answer_of(error)
    status = getattr(answer, "status_code", None)
    if status == 401:
        return UsageError(f"the hub does not know the token ({status})", hint=_token(name))
    if status == 403:
        why = answer.headers.get("X-Error-Message")
        says = f": {_one_line(why)}" if why else ""
        return UsageError(f"the token may not write to {name} ({status}){says}", hint=_token(name))
    if status == 404:
        return UsageError(f"{name} is not there, or the token may not see it", hint=_token(name))
    if status in (409, 412):
        return HubError(
            f"somebody else changed {name} at the same time ({status})",
            hint="look at it, and push again",
        )
    if status == 400 or type(error) is ValueError:
        return DataError(f"the hub does not take it: {_one_line(str(error))}")
    return None


def _token(name: str) -> str:
    return f"set HF_TOKEN to a token that may write to {name.split('/')[0]}"


def _one_line(text: str) -> str:
    """Foreign text for a line of talk."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]
