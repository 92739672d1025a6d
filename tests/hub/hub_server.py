"""A hub on the loopback device: what the real clients ask of one, from repositories in memory.

It speaks as much of the protocol as the clients use: listing a commit, information about it,
files by commit with their entity tags, large files by way of another address (as a CDN), ranges,
access, and the errors with their codes. What goes wrong is ordered with `fail` and `cut`; what was
asked is in `log`. Nothing of ours is in here, so that it can serve tests of anything.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

#: Files from this size on are kept apart and reached by a redirection, as parquet always is.
LARGE = 1 << 20


@dataclass(frozen=True)
class Asked:
    """A request and how it was answered."""

    method: str
    path: str
    start: int
    """First byte asked for; 0 without a range."""
    status: int
    sent: int
    """Bytes of the body that were sent."""
    token: str | None


@dataclass
class Fault:
    """What goes wrong with requests whose method and path match."""

    pattern: re.Pattern[str]
    times: float
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_at: int | None = None
    delay: float = 0.0


@dataclass
class Repository:
    """A repository: files by commit."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    token: str | None = None
    gated: bool = False


class Hub:
    """The hub; a context manager that serves while it is open."""

    def __init__(self) -> None:
        self.log: list[Asked] = []
        self.page = 1000
        self._repositories: dict[tuple[str, str], Repository] = {}
        self._blobs: dict[str, bytes] = {}
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add_repo(
        self,
        kind: str,
        name: str,
        files: Mapping[str, bytes],
        commit: str | None = None,
        *,
        token: str | None = None,
        gated: bool = False,
    ) -> str:
        """Add a commit to a repository (kind: dataset or model), which is made if need be; `token`
        is what reading its files takes, where it is private or `gated`. Returns the commit."""
        if commit is None:
            parts = [name, *(f"{path}:{_sha1(data)}" for path, data in sorted(files.items()))]
            commit = _sha1("\n".join(parts).encode())
        repository = self._repositories.setdefault((kind, name), Repository())
        repository.commits[commit] = dict(files)
        repository.token, repository.gated = token, gated
        for data in files.values():
            self._blobs[hashlib.sha256(data).hexdigest()] = data
        return commit

    def fail(
        self,
        pattern: str,
        status: int | None = None,
        *,
        times: float = 1,
        headers: Mapping[str, str] | None = None,
        delay: float = 0.0,
    ) -> None:
        """Answer the next requests ``METHOD /path`` that match with a status, or after a delay."""
        self._faults.append(Fault(re.compile(pattern), times, status, headers or {}, None, delay))

    def cut(self, pattern: str, at: int, *, times: float = 1) -> None:
        """Break the connection when the byte at offset `at` of a file is due."""
        self._faults.append(Fault(re.compile(pattern), times, cut_at=at))

    def heal(self) -> None:
        """No more faults."""
        self._faults.clear()

    def asked(self, pattern: str = "") -> list[Asked]:
        """Requests that match, in order."""
        return [a for a in self.log if re.search(pattern, f"{a.method} {a.path}")]

    def _fault(self, line: str) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.times > 0 and fault.pattern.search(line):
                    fault.times -= 1
                    return fault
        return None


_API = re.compile(
    r"/api/(?P<kind>dataset|model)s/(?P<name>[^/]+/[^/]+)"
    r"(?:/(?P<verb>revision|tree|paths-info)/(?P<commit>[^/]+)(?:/(?P<path>.*))?)?"
)
_FILE = re.compile(
    r"/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<commit>[^/]+)/(?P<path>.+)"
)


class _Refused(Exception):
    def __init__(self, status: int, code: str = "", headers: Mapping[str, str] | None = None):
        self.status = status
        self.headers = {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})}


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._answer()

        do_HEAD = do_POST = do_GET

        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            self.form = parse_qs(self.rfile.read(length).decode()) if length else {}
            self.fault = hub._fault(f"{self.command} {self.path}")
            try:
                if self.fault is not None:
                    time.sleep(self.fault.delay)
                    if self.fault.status is not None:
                        raise _Refused(self.fault.status, headers=self.fault.headers)
                self._route(urlsplit(self.path).path)
            except _Refused as refused:
                self._send(refused.status, b"{}", refused.headers)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def _route(self, path: str) -> None:
            if path.startswith("/cdn/"):
                data = hub._blobs.get(path.removeprefix("/cdn/"))
                if data is None:
                    raise _Refused(404)
                self._send(200, data, {"ETag": f'"{path.removeprefix("/cdn/")}"'})
                return
            if (match := _API.fullmatch(path)) is not None:
                self._api(match)
            elif (match := _FILE.fullmatch(path)) is not None:
                self._file(match)
            else:
                raise _Refused(404)

        def _repository(self, kind: str, name: str, *, files: bool) -> Repository:
            found = hub._repositories.get((kind, name))
            allowed = found is not None and (found.token is None or self._token() == found.token)
            if found is not None and found.gated and not allowed:
                if not files:
                    return found  # that it exists is no secret, and what it consists of
                raise _Refused(403 if self._token() else 401, "GatedRepo")
            if found is None or not allowed:
                raise _Refused(404 if self._token() else 401, "RepoNotFound")
            return found

        def _token(self) -> str | None:
            given = self.headers.get("Authorization")
            return given.removeprefix("Bearer ") if given else None

        def _commit(self, repository: Repository, asked: str) -> str:
            asked = unquote(asked)
            if asked == "main":
                return list(repository.commits)[-1]
            if asked not in repository.commits:
                raise _Refused(404, "RevisionNotFound")
            return asked

        def _api(self, match: re.Match[str]) -> None:
            repository = self._repository(match["kind"], match["name"], files=False)
            commit = self._commit(repository, match["commit"] or "main")
            files = repository.commits[commit]
            if match["verb"] in (None, "revision"):
                body: Any = {
                    "_id": "0",
                    "id": match["name"],
                    "sha": commit,
                    "private": False,
                    "gated": repository.gated and "manual",
                    "disabled": False,
                    "downloads": 0,
                    "likes": 0,
                    "tags": [],
                    "siblings": [{"rfilename": path} for path in sorted(files)],
                }
                self._json(body)
                return
            entries = _entries(files)
            if match["verb"] == "paths-info":
                wanted = set(self.form.get("paths", ()))
                self._json([entry for entry in entries if entry["path"] in wanted])
                return
            query = parse_qs(urlsplit(self.path).query)
            folder = unquote(match["path"] or "")
            inside = [e for e in entries if not folder or e["path"].startswith(folder + "/")]
            if folder and not inside:
                raise _Refused(404, "EntryNotFound")
            if query.get("recursive", ["False"])[0].lower() != "true":
                depth = folder.count("/") + 1 if folder else 0
                inside = [e for e in inside if e["path"].count("/") == depth]
            begin = int(query.get("cursor", ["0"])[0])
            more = {}
            if begin + hub.page < len(inside):
                address = f"{hub.url}{urlsplit(self.path).path}?recursive=True&expand=False"
                more = {"Link": f'<{address}&cursor={begin + hub.page}>; rel="next"'}
            self._json(inside[begin : begin + hub.page], more)

        def _file(self, match: re.Match[str]) -> None:
            kind = "dataset" if match["kind"] else "model"
            repository = self._repository(kind, match["name"], files=True)
            commit = self._commit(repository, match["commit"])
            path = unquote(match["path"])
            headers = {"X-Repo-Commit": commit}
            data = repository.commits[commit].get(path)
            if data is None:
                raise _Refused(404, "EntryNotFound", headers)
            if _large(path, data):
                digest = hashlib.sha256(data).hexdigest()
                linked = {
                    "X-Linked-Etag": f'"{digest}"',
                    "X-Linked-Size": str(len(data)),
                    "Location": f"{hub.url}/cdn/{digest}",
                }
                self._send(302, b"", headers | linked)
            else:
                self._send(200, data, {**headers, "ETag": f'"{_blob_id(data)}"'})

        def _json(self, value: Any, headers: Mapping[str, str] | None = None) -> None:
            kind = {"Content-Type": "application/json"}
            self._send(200, json.dumps(value).encode(), {**kind, **(headers or {})})

        def _send(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
            start = int(asked[1]) if asked is not None and status == 200 else 0
            extra = {"Accept-Ranges": "bytes", "Content-Length": str(len(data) - start)}
            if start >= len(data) > 0:
                status, start, extra["Content-Length"] = 416, len(data), "0"
            elif start:
                status = 206
                extra["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self.send_response(status)
            for name, value in {**headers, **extra}.items():
                self.send_header(name, value)
            self.end_headers()
            body = data[start:] if self.command != "HEAD" else b""
            cut = self.fault.cut_at if self.fault is not None else None
            if cut is not None:
                body = body[: max(0, cut - start)]
                self.close_connection = True
            token = self._token()
            hub.log.append(Asked(self.command, self.path, start, status, len(body), token))
            self.wfile.write(body)

    return Handler


def _entries(files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """A commit as the hub lists it, folders included."""
    folders = {
        "/".join(path.split("/")[:depth])
        for path in files
        for depth in range(1, path.count("/") + 1)
    }
    entries: list[dict[str, Any]] = [
        {"type": "directory", "oid": _sha1(path.encode()), "size": 0, "path": path}
        for path in folders
    ]
    for path, data in files.items():
        entry: dict[str, Any] = {"type": "file", "oid": _blob_id(data), "size": len(data)}
        if _large(path, data):
            digest = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 134}
        entries.append({**entry, "path": path})
    return sorted(entries, key=lambda entry: str(entry["path"]))


def _large(path: str, data: bytes) -> bool:
    return path.endswith(".parquet") or len(data) >= LARGE


def _sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def _blob_id(data: bytes) -> str:
    return _sha1(b"blob %d\0" % len(data) + data)
