"""Fetching data sets from a hub: each split is put where `corpora.hub` looks for it, whole or not
at all. The command line's `fetch` and `run` call it; nothing that trains or plans comes here.

`datasets` falls back on whatever revision it has in its cache when a hub does not answer. So that a
commit is the commit that was asked for, it is not asked for a data set by name: it reads the
commit's metadata from a folder of empty files named as the commit's, tells which of them a split
is, and those are downloaded by commit and read.
"""

from __future__ import annotations

import dataclasses
import glob
import importlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from adapterxlt.core.errors import DataError, UsageError, did_you_mean
from adapterxlt.corpora.hub import HubSplit, Shelf
from adapterxlt.run.hub.clients import (
    BUSY,
    Clients,
    HubError,
    Tell,
    as_ours,
    clients,
    first_line,
    missing_package,
    offline,
    patient,
)
from adapterxlt.run.hub.rows import write_rows
from adapterxlt.store.files import read_json, write_bytes, write_json

#: Number of what is noted about a split; notes with another one are not read.
FORMAT = 1

#: A commit of a hub's own conversion to parquet: a folder for each configuration and split.
_CONVERTED = re.compile(r"(?P<config>[^/]+)/(?P<split>[^/]+)/\d{4,}\.parquet")
#: What `datasets` reads of a commit besides its data.
_METADATA = ("README.md", ".huggingface.yaml", "dataset_infos.json")
#: Fields of a builder's configuration that say which data, not how they are read.
_WHICH = frozenset({"name", "version", "data_dir", "data_files", "description", "features"})


@dataclass(frozen=True, slots=True)
class Fetched:
    """A split on the shelf."""

    split: HubSplit
    path: Path
    rows: int
    size: int
    """Bytes on the shelf."""
    new: bool
    """Whether this call put it there."""


@dataclass(frozen=True, slots=True)
class _Recipe:
    """Which files of a commit a split is, and how they are read."""

    files: tuple[str, ...]
    module: str
    options: dict[str, Any]
    features: dict[str, Any] | None = None


def fetch(
    splits: Iterable[HubSplit],
    root: Path,
    *,
    num_proc: int | None = None,
    listener: Tell | None = None,
) -> list[Fetched]:
    """Put splits on the shelf in ``root``; those that lie there cost nothing, not even an import.

    Splits before one that fails stay. Of a download that broke off, what came is kept in the
    clients' cache, and the next call goes on from there. Two processes may fetch the same.

    Args:
        num_proc: files of a split that are downloaded and read at once; one when left out.
        listener: called with a line for each thing that takes a while.

    Returns:
        What lies on the shelf now, in the order asked for, each split once.

    Raises:
        OfflineError: the clients are to stay offline and their cache has not got the files.
        DataError: no such data set, commit, configuration or split; no access; unreadable files.
        HubError: the hub cannot be reached, broke off or is overloaded.
        UsageError: the clients are not installed.
    """
    shelf, wanted = Shelf(root), tuple(dict.fromkeys(splits))
    tell = listener or (lambda line: None)
    missing = {split for split in wanted if not shelf.has(split)}
    if missing:
        with ExitStack() as stack:
            clients = stack.enter_context(_quiet_clients())
            commits: dict[tuple[str, str], _Commit] = {}
            for split in (split for split in wanted if split in missing):
                commit = commits.setdefault(
                    (split.hub, split.revision),
                    _Commit(split.hub, split.revision, clients, stack, tell),
                )
                with _alone(shelf, split, tell):
                    if not shelf.has(split):
                        _fetch_one(split, shelf, commit, num_proc or 1)
    return [_fetched(shelf, split, split in missing) for split in wanted]


def _fetched(shelf: Shelf, split: HubSplit, new: bool) -> Fetched:
    path = shelf.path(split)
    try:
        rows = pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"what was fetched of {split.label} cannot be read: {first_line(error)}",
            where=str(path),
            hint="delete the file and fetch again",
        ) from error
    return Fetched(split, path, rows, path.stat().st_size, new)


@contextmanager
def _alone(shelf: Shelf, split: HubSplit, tell: Tell) -> Iterator[None]:
    """As the only process that fetches this split."""
    lock = FileLock(_folder(shelf.root / ".locks") / f"{split.digest}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        tell(f"{split.label}: waiting for another process that fetches it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch_one(split: HubSplit, shelf: Shelf, commit: _Commit, workers: int) -> None:
    recipe = commit.recipe(split)
    paths = commit.download(split, recipe.files, workers)
    # Named by the split, so that what a killed process left is found and goes; nobody else's is,
    # because of the lock.
    scratch = shelf.root / f".tmp-{split.digest}"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        commit.tell(f"{split.label}: reading")
        with as_ours(split, commit.clients, "cannot be read"):
            table = _read(commit.clients, recipe, paths, scratch, workers)
        rows = write_rows(table, scratch / "rows.parquet")
        write_bytes(shelf.path(split), (scratch / "rows.parquet").read_bytes())
        commit.tell(f"{split.label}: {rows} rows")
    except (pa.ArrowInvalid, pa.ArrowIndexError, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{split.label} cannot be read: {first_line(error)}") from error
    except OSError as error:
        raise UsageError(
            f"{split.label} cannot be written to {shelf.root}: {error.strerror or error}"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"nothing can be fetched to {path}: {error.strerror or error}") from error
    return path


@dataclass(frozen=True, slots=True)
class _Clients(Clients):
    datasets: Any


@contextmanager
def _quiet_clients() -> Iterator[_Clients]:
    """The hub's clients, with the bars of what is not a download put away."""
    hub = clients()
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise missing_package(error) from error
    away = hub.offline or bool(datasets.config.HF_HUB_OFFLINE)
    bars, level = datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()
    counts = datasets.config.HF_UPDATE_DOWNLOAD_COUNTS
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    # Whatever is loaded, local files too, is told to a server that is not the hub, and waited for.
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    try:
        yield _Clients(hub.hub, hub.errors, away, datasets)
    finally:
        datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = counts
        datasets.logging.set_verbosity(level)
        if not bars:
            datasets.enable_progress_bars()


class _Commit:
    """A commit of a data set: its files, what its splits are, and downloads of it by commit."""

    def __init__(
        self, name: str, revision: str, clients: _Clients, stack: ExitStack, tell: Tell
    ) -> None:
        self.name, self.revision = name, revision
        self.clients, self.tell = clients, tell
        self._stack = stack
        self._builders: dict[str, Any] = {}
        self._api = clients.hub.HfApi(library_name="adapterxlt")

    def recipe(self, split: HubSplit) -> _Recipe:
        """What a split is; noted in the clients' cache, so that it is asked for once."""
        with as_ours(split, self.clients, "needs the clients' cache"):
            folder = self.clients.hub.cached_assets_path("adapterxlt", namespace="hub")
        note = Path(folder) / f"{split.digest}.json"
        known = read_json(note)
        if isinstance(known, dict) and known.get("format") == FORMAT:
            return _Recipe(
                tuple(known["files"]), known["module"], known["options"], known["features"]
            )
        if self.clients.offline:
            raise offline(split)
        with as_ours(split, self.clients, "cannot be told from its files"):
            recipe = self._find(split)
            write_json(note, {"format": FORMAT, **dataclasses.asdict(recipe)}, durable=False)
        return recipe

    def download(self, split: HubSplit, files: tuple[str, ...], workers: int) -> list[Path]:
        """The files in the clients' cache; those that are there are not asked for."""
        have = {file: self._cached(file) for file in files}
        lacking = [file for file, path in have.items() if path is None]
        if lacking and self.clients.offline:
            raise offline(split)
        if lacking:
            number = "1 file" if len(lacking) == 1 else f"{len(lacking)} files"
            self.tell(f"{split.label}: downloading {number}")
        threads = ThreadPoolExecutor(max(1, min(workers, len(lacking))))
        with as_ours(split, self.clients, "cannot be downloaded"), threads as pool:
            list(pool.map(self._download, lacking))
        return [self._cached(file) or self._download(file) for file in files]

    def _cached(self, file: str) -> Path | None:
        found = self.clients.hub.try_to_load_from_cache(
            self.name, file, repo_type="dataset", revision=self.revision
        )
        # A hub that answers with another commit has that one's file found under the one asked for.
        ours = isinstance(found, str) and self.revision in Path(found).parts
        return Path(found) if ours else None

    def _download(self, file: str) -> Path:
        def once() -> str:
            found: str = self._api.hf_hub_download(
                self.name, file, repo_type="dataset", revision=self.revision
            )
            return found

        path = Path(patient(once, frozenset({429}), self.tell))
        # The clients file what they get under the commit that the hub says it is of.
        if self._cached(file) is None:
            raise HubError(
                f"the hub gave {file} of another commit of {self.name} than {self.revision[:7]}"
            )
        return path

    @cached_property
    def _files(self) -> tuple[str, ...]:
        self.tell(f"{self.name} @{self.revision[:7]}: asking for its files")

        def once() -> list[str]:
            found: list[str] = self._api.list_repo_files(
                self.name, repo_type="dataset", revision=self.revision
            )
            return found

        files = patient(once, BUSY, self.tell)
        for file in files:
            if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts:
                raise DataError(f"{self.name} has a file outside of itself: {file!r}")
        return tuple(sorted(files))

    @cached_property
    def _folder(self) -> str:
        """A folder with the commit's metadata, and its other files empty."""
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="adapterxlt-")))
        folder = folder.resolve()
        for file in self._files:
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            if file in _METADATA:
                shutil.copyfile(self._download(file), path)
            else:
                path.touch()
        return str(folder)

    @cached_property
    def _converted(self) -> dict[str, dict[str, list[str]]]:
        """Files by configuration and split, where folders are named by them."""
        found: dict[str, dict[str, list[str]]] = {}
        for match in filter(None, map(_CONVERTED.fullmatch, self._files)):
            splits = found.setdefault(match["config"], {})
            splits.setdefault(match["split"], []).append(match[0])
        return found

    def _find(self, split: HubSplit) -> _Recipe:
        if f"{self.name.split('/')[-1]}.py" in self._files:
            raise DataError(
                f"{split.label} is made by a program in the data set, which is not run",
                hint="take the commit of its branch refs/convert/parquet as revision",
            )
        data = [file for file in self._files if not file.startswith(".")]
        if data and all(_CONVERTED.fullmatch(file) for file in data):
            # Without its metadata `datasets` would read all configurations as one.
            return self._find_converted(split)
        return self._find_built(split)

    def _find_converted(self, split: HubSplit) -> _Recipe:
        configs = self._converted
        config = split.config or (next(iter(configs)) if len(configs) == 1 else None)
        if config not in configs:
            raise _no_config(split, configs)
        if split.split not in configs[config]:
            raise _no_split(split, configs[config])
        return _Recipe(tuple(configs[config][split.split]), "parquet", {})

    @cached_property
    def _names(self) -> tuple[tuple[str, ...], str | None]:
        """Configurations by the card, or the only one there is without; and the default one."""
        datasets, folder = self.clients.datasets, self._folder
        try:
            names = tuple(datasets.get_dataset_config_names(folder))
            if len(names) == 1:
                return names, names[0]
            return names, datasets.get_dataset_default_config_name(folder)
        except (FileNotFoundError, datasets.exceptions.DatasetNotFoundError) as error:
            text = first_line(error).replace(folder, self.name)
            raise DataError(
                f"there are no data that could be read in {self.name} @{self.revision[:7]}: {text}",
                hint="the commit of its branch refs/convert/parquet may have them",
            ) from error

    def _builder(self, config: str) -> Any:
        """What reads a configuration; made once, for a long card takes a second to parse."""
        if config not in self._builders:
            # A cache folder of its own, for it would otherwise note things in the user's.
            cache = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="adapterxlt-"))
            self._builders[config] = self.clients.datasets.load_dataset_builder(
                self._folder, config, cache_dir=cache
            )
        return self._builders[config]

    def _find_built(self, split: HubSplit) -> _Recipe:
        names, default = self._names
        config = split.config or default
        if config is None or config not in names:
            if config in self._converted:
                return self._find_converted(split)
            raise _no_config(split, names)
        folder, builder = self._folder, self._builder(config)
        found = {str(name): paths for name, paths in (builder.config.data_files or {}).items()}
        if split.split not in found:
            raise _no_split(split, found)
        files = [os.path.relpath(path, folder) for path in found[split.split]]
        files = [PurePosixPath(Path(file)).as_posix() for file in files]
        strange = [file for file in files if file not in self._files]
        if strange:
            raise DataError(f"{split.label} names a file that is not of its commit: {strange[0]}")
        features = builder.info.features
        return _Recipe(
            tuple(files), builder.name, _options(builder.config), features and features.to_dict()
        )


def _options(config: Any) -> dict[str, Any]:
    """How the files are read, where that is not the module's own way, e.g. a separator."""
    default = type(config)()
    found = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    changed = {
        name: value
        for name, value in found.items()
        if name not in _WHICH and value != getattr(default, name)
    }
    return dict(json.loads(json.dumps(changed)))


def _read(
    clients: _Clients, recipe: _Recipe, paths: list[Path], scratch: Path, workers: int
) -> Any:
    datasets = clients.datasets
    features = recipe.features and datasets.Features.from_dict(recipe.features)
    return datasets.load_dataset(
        recipe.module,
        data_files={"rows": [glob.escape(str(path)) for path in paths]},
        split="rows",
        features=features or None,
        cache_dir=str(scratch),
        num_proc=min(workers, len(paths)) if min(workers, len(paths)) > 1 else None,
        **recipe.options,
    )


def _no_config(split: HubSplit, known: Iterable[str]) -> DataError:
    names = sorted(known)
    if split.config is None:
        what = f"{split.hub} @{split.revision[:7]} has several configurations, and none is named"
        return DataError(what, hint=did_you_mean("", names))
    return DataError(
        f"{split.hub} @{split.revision[:7]} has no configuration {split.config!r}",
        hint=did_you_mean(split.config, names),
    )


def _no_split(split: HubSplit, known: Iterable[str]) -> DataError:
    config = f" {split.config}" if split.config else ""
    return DataError(
        f"{split.hub}{config} @{split.revision[:7]} has no split {split.split!r}",
        hint=did_you_mean(split.split, known),
    )
