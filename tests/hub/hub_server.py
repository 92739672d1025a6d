"""A hub on the loopback device: what the real clients ask of one, from repositories in memory.

It speaks as much of the protocol as the clients use: listing a commit, information about it,
files by commit with their entity tags, large files by way of another address (as a CDN), ranges,
access, and the errors with their codes; making a repository, and committing to it, with large files
sent ahead (git LFS, basic transfer). What goes wrong is ordered with `fail`, `cut` and
`stall`; what was asked is in `log`. Nothing of ours is in here, so that it can serve tests of
anything.
"""

from __future__ import annotations

import base64
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

#: Files from this size on are kept apart and reached by a redirection, as some always are.
LARGE = 1 << 20
#: What a repository has from the beginning, where it is made through the hub.
FIRST = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}


@dataclass(frozen=True)
class Asked:
    """A request and how it was answered."""

    method: str
    path: str
    start: int
    """First byte asked for; 0 without a range."""
    status: int
    sent: int
    """Bytes of the body that were sent, or with PUT received."""
    token: str | None
    at: float = field(default_factory=time.monotonic)
    """When it was answered, in seconds."""


@dataclass
class Fault:
    """What goes wrong with requests whose method and path match."""

    pattern: re.Pattern[str]
    times: float
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_at: int | None = None
    delay: float = 0.0
    pause: float = 0.0
    """Instead of breaking the connection, nothing is sent for so many seconds."""


@dataclass
class Repository:
    """A repository: files by commit."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    summaries: dict[str, str] = field(default_factory=dict)
    """What commits say of themselves, of those that came through the hub."""
    names: dict[str, str] = field(default_factory=dict)
    """Commits by branch or tag; without an entry `main` is the newest."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Sizes of files that are listed in the place of the true ones."""
    token: str | None = None
    gated: bool = False


class Hub:
    """The hub; a context manager that serves while it is open."""

    def __init__(self) -> None:
        self.log: list[Asked] = []
        self.page = 1000
        self.tokens: dict[str, set[str]] = {}
        """The organizations whose repositories a token may write to."""
        self.repositories: dict[tuple[str, str], Repository] = {}
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
        repository = self.repositories.setdefault((kind, name), Repository())
        repository.commits[commit] = dict(files)
        repository.token, repository.gated = token, gated
        for data in files.values():
            self._blobs[_sha256(data)] = data
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
        """Break the connection when the byte at offset `at` of the answer, or of what is PUT, is
        due."""
        self._faults.append(Fault(re.compile(pattern), times, cut_at=at))

    def stall(self, pattern: str, at: int, seconds: float, *, times: float = 1) -> None:
        """Send nothing for a while when the byte at offset `at` of the answer is due."""
        self._faults.append(Fault(re.compile(pattern), times, cut_at=at, pause=seconds))

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
    r"(?:/(?P<verb>revision|tree|paths-info|preupload|commit)/(?P<commit>[^/]+)(?:/(?P<path>.*))?)?"
)
_FILE = re.compile(
    r"/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<commit>[^/]+)/(?P<path>.+)"
)
_LFS = re.compile(r"/(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/(?P<verb>batch|verify)")


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

        do_HEAD = do_POST = do_PUT = do_GET

        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            self.fault = hub._fault(f"{self.command} {self.path}")
            cut = self.fault.cut_at if self.fault is not None else None
            if cut is not None and self.command == "PUT":
                self.rfile.read(cut)
                hub.log.append(Asked("PUT", self.path, 0, 0, cut, self._token()))
                self.close_connection = True
                return
            self.body = self.rfile.read(length)
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
            elif path.startswith("/lfs/"):
                self._put(path.removeprefix("/lfs/"))
            elif path == "/api/repos/create":
                self._create(json.loads(self.body))
            elif path == "/api/validate-yaml":
                self._json({"errors": [], "warnings": []})
            elif (match := _LFS.fullmatch(path)) is not None:
                self._lfs(match)
            elif (match := _API.fullmatch(path)) is not None:
                self._api(match)
            elif (match := _FILE.fullmatch(path)) is not None:
                self._file(match)
            else:
                raise _Refused(404)

        def _repository(self, kind: str, name: str, *, files: bool) -> Repository:
            found = hub.repositories.get((kind, name))
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

        def _may_write(self, name: str) -> None:
            given = self._token()
            if given not in hub.tokens:
                raise _Refused(401, "Invalid credentials in Authorization header" if given else "")
            if name.split("/")[0] not in hub.tokens[given]:
                raise _Refused(403, "You don't have the rights to write here")

        def _commit(self, repository: Repository, asked: str) -> str:
            asked = unquote(asked)
            asked = repository.names.get(asked, asked)
            if asked == "main":
                return list(repository.commits)[-1]
            if asked not in repository.commits:
                raise _Refused(404, "RevisionNotFound")
            return asked

        def _api(self, match: re.Match[str]) -> None:
            repository = self._repository(match["kind"], match["name"], files=False)
            commit = self._commit(repository, match["commit"] or "main")
            files = repository.commits[commit]
            if match["verb"] in ("preupload", "commit"):
                self._may_write(match["name"])
                if match["verb"] == "preupload":
                    self._preupload(files)
                else:
                    self._write(repository, match["name"], commit)
                return
            if match["verb"] in (None, "revision"):
                sized = parse_qs(urlsplit(self.path).query).get("blobs") == ["True"]
                body: Any = {
                    "_id": "0",
                    "id": match["name"],
                    "sha": commit,
                    "private": repository.token is not None and not repository.gated,
                    "gated": repository.gated and "manual",
                    "disabled": False,
                    "downloads": 0,
                    "likes": 0,
                    "tags": [],
                    "siblings": [
                        _sibling(repository, entry, sized)
                        for entry in _entries(files)
                        if entry["type"] == "file"
                    ],
                }
                self._json(body)
                return
            entries = _entries(files)
            if match["verb"] == "paths-info":
                wanted = set(parse_qs(self.body.decode()).get("paths", ()))
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
            if _large(path, len(data)):
                digest = _sha256(data)
                linked = {
                    "X-Linked-Etag": f'"{digest}"',
                    "X-Linked-Size": str(len(data)),
                    "Location": f"{hub.url}/cdn/{digest}",
                }
                self._send(302, b"", headers | linked)
            else:
                self._send(200, data, {**headers, "ETag": f'"{_blob_id(data)}"'})

        def _create(self, asked: Mapping[str, Any]) -> None:
            kind, name = asked.get("type", "model"), f"{asked['organization']}/{asked['name']}"
            self._may_write(name)
            with hub._lock:
                found = (kind, name) in hub.repositories
                if not found:
                    private = self._token() if asked.get("private") else None
                    made = Repository({_sha1(name.encode()): FIRST}, token=private)
                    hub.repositories[kind, name] = made
            self._json({"url": f"{hub.url}/{name}"}, status=409 if found else 200)

        def _preupload(self, files: Mapping[str, bytes]) -> None:
            """How files are to come, and as what they are here already."""
            found = []
            for asked in json.loads(self.body)["files"]:
                mode = "lfs" if _large(asked["path"], asked["size"]) else "regular"
                old = files.get(asked["path"])
                digest = _blob_id if mode == "regular" else _sha256
                found.append(
                    {
                        "path": asked["path"],
                        "uploadMode": mode,
                        "shouldIgnore": False,
                        "oid": None if old is None else digest(old),
                    }
                )
            self._json({"files": found})

        def _lfs(self, match: re.Match[str]) -> None:
            """What is to be sent of large files, and whether it has come."""
            self._repository("model", match["name"], files=True)
            self._may_write(match["name"])
            asked = json.loads(self.body)
            if match["verb"] == "verify":
                if asked["oid"] not in hub._blobs:
                    raise _Refused(404)
                self._json({})
                return
            objects = []
            for one in asked["objects"]:
                verify = f"{hub.url}{urlsplit(self.path).path}".replace("/batch", "/verify")
                actions = {"upload": {"href": f"{hub.url}/lfs/{one['oid']}"}}
                actions |= {"verify": {"href": verify}}
                objects.append(
                    {**one, **({} if one["oid"] in hub._blobs else {"actions": actions})}
                )
            self._json({"transfer": "basic", "objects": objects})

        def _put(self, oid: str) -> None:
            if self.command != "PUT" or _sha256(self.body) != oid:
                raise _Refused(400, "what came is not what was announced")
            hub._blobs[oid] = self.body
            self._send(200, b"", {})

        def _write(self, repository: Repository, name: str, head: str) -> None:
            """A commit: a line of JSON that says what it is, and one for each file."""
            header, *lines = [json.loads(line) for line in self.body.splitlines()]
            files = dict(repository.commits[head])
            for line in lines:
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile" and value["oid"] in hub._blobs:
                    files[value["path"]] = hub._blobs[value["oid"]]
                else:
                    raise _Refused(400, f"a {line['key']} that cannot be")
            with hub._lock:
                if header["value"].get("parentCommit", head) != list(repository.commits)[-1]:
                    raise _Refused(412, "A commit has happened since. Please refresh and try again")
                commit = _sha1(head.encode() + self.body)
                repository.commits[commit] = files
                repository.summaries[commit] = header["value"]["summary"]
            self._json({"commitOid": commit, "commitUrl": f"{hub.url}/{name}/commit/{commit}"})

        def _json(
            self, value: Any, headers: Mapping[str, str] | None = None, status: int = 200
        ) -> None:
            kind = {"Content-Type": "application/json"}
            self._send(status, json.dumps(value).encode(), {**kind, **(headers or {})})

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
            parts, fault = [body], self.fault
            if fault is not None and fault.cut_at is not None:
                cut = max(0, fault.cut_at - start)
                parts = [body[:cut], body[cut:]] if fault.pause else [body[:cut]]
                self.close_connection = not fault.pause
            count = len(self.body) if self.command == "PUT" else sum(map(len, parts))
            token = self._token()
            hub.log.append(Asked(self.command, self.path, start, status, count, token))
            for i, part in enumerate(parts):
                if i > 0 and fault is not None:
                    time.sleep(fault.pause)
                self.wfile.write(part)

    return Handler


def _sibling(repository: Repository, entry: Mapping[str, Any], sized: bool) -> dict[str, Any]:
    """A file as information about a commit has it: sizes are there when they are asked for."""
    path = entry["path"]
    if not sized:
        return {"rfilename": path}
    size = repository.sizes.get(path, entry["size"])
    found = {"rfilename": path, "size": size, "blobId": entry["oid"]}
    if "lfs" in entry:
        found["lfs"] = {"sha256": entry["lfs"]["oid"], "size": size, "pointerSize": 134}
    return found


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
        if _large(path, len(data)):
            digest = _sha256(data)
            entry["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 134}
        entries.append({**entry, "path": path})
    return sorted(entries, key=lambda entry: str(entry["path"]))


def _large(path: str, size: int) -> bool:
    return path.endswith((".parquet", ".safetensors")) or size >= LARGE


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def _blob_id(data: bytes) -> str:
    return _sha1(b"blob %d\0" % len(data) + data)
