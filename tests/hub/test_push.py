"""Pushing with the real client to a hub on the loopback device, by the command line in a process of
its own: the client reads its environment when it is imported. Large files go by git LFS, although
hf-xet is installed: it is the hub that chooses, and this one offers nothing else."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_server import FIRST, Hub
from safetensors.numpy import save

MINE, THEIRS = "mine", "theirs"
NAME = "lab/my-adapter"

#: Jobs are command lines, and ``download NAME FILE COMMIT``. Pauses are noted and cut short.
RUNNER = """
import contextlib, io, json, sys, time
hosts, slept, sleep = [], [], time.sleep
def watch(event, given):
    if event == "socket.connect" and isinstance(given[1], tuple):
        hosts.append(given[1][0])
    elif event == "socket.getaddrinfo":
        hosts.append(given[0])
sys.addaudithook(watch)
def short(seconds):
    slept.append(seconds)
    sleep(min(seconds, 0.02))
time.sleep = short
from adapterxlt import cli
answers = []
for job in json.loads(sys.argv[1]):
    code, slept[:] = 0, []
    with contextlib.redirect_stdout(io.StringIO()) as out:
        with contextlib.redirect_stderr(io.StringIO()) as err:
            if job[0] == "download":
                import huggingface_hub
                print(huggingface_hub.hf_hub_download(job[1], job[2], revision=job[3]))
            else:
                sys.argv = ["adapterxlt", *job]
                try:
                    cli.main()
                except SystemExit as end:
                    code = int(end.code or 0)
    answers.append([code, out.getvalue(), err.getvalue(), list(slept)])
loaded = sorted({"torch", "transformers", "datasets"} & set(sys.modules))
print("\\n" + json.dumps({"answers": answers, "hosts": sorted(set(hosts)), "loaded": loaded}))
"""


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str
    slept: list[float]

    @property
    def refusal(self) -> str:
        """The one line of an error, after what was said before."""
        assert self.code > 0 and self.out == "" and "Traceback" not in self.err, self.err
        *_, last = self.err.splitlines()
        assert last.startswith("adapterxlt: ") and self.err.count("adapterxlt: ") == 1, self.err
        return last.removeprefix("adapterxlt: ")

    @property
    def commit(self) -> str:
        """The commit that was printed."""
        assert self.code == 0, self.err
        url, _, commit = self.out.strip().rpartition("/commit/")
        assert url.startswith("http://127.0.0.1:") and url.endswith(NAME), self.out
        return commit


class Machine:
    """A user's machine: a cache, a folder, and processes."""

    def __init__(self, hub: Hub, folder: Path) -> None:
        self.hub, self.folder = hub, folder

    def start(self, *jobs: list[str], **more: str) -> subprocess.Popen[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        kept = {k: v for k, v in kept.items() if not k.lower().endswith("_proxy")}
        here = {
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.folder / ".cache" / "home"),
            "HF_TOKEN": MINE,
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        }
        return subprocess.Popen(
            [sys.executable, "-c", RUNNER, json.dumps(jobs)],
            env={k: v for k, v in {**kept, **here, **more}.items() if v},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, process: subprocess.Popen[str]) -> list[Answer]:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        told = json.loads(out.splitlines()[-1])
        assert set(told["hosts"]) <= {"127.0.0.1"}, "only the hub is talked to"
        assert told["loaded"] == []
        return [Answer(*answer) for answer in told["answers"]]

    def all(self, *jobs: list[str], **more: str) -> list[Answer]:
        return self.finish(self.start(*jobs, **more))

    def push(self, *arguments: str, **more: str) -> Answer:
        (answer,) = self.all(["push", "out", NAME, *arguments], **more)
        return answer


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        hub.tokens = {MINE: {"lab"}, THEIRS: {"them"}}
        yield hub


@pytest.fixture
def machine(hub: Hub, tmp_path: Path) -> Machine:
    write(tmp_path / "out", exported())
    return Machine(hub, tmp_path)


def weights(seed: int, size: int = 8) -> bytes:
    return save({"down": np.random.default_rng(seed).normal(size=(size, size)).astype("<f4")})


def exported() -> dict[str, bytes]:
    """What `export` writes, as far as it matters here: pieces in folders of their own."""
    manifest = json.dumps({"format": 1, "role": "composition"}).encode()
    return {
        "adapterxlt.json": manifest,
        "README.md": b"---\nlibrary_name: adapters\n---\n# An adapter\n",
        "load.py": b"import adapters\n",
        "fi/adapter.safetensors": weights(1),
        "fi/adapter_config.json": b"{}",
        "fi/adapterxlt.json": manifest,
        "task/adapter.safetensors": weights(2, 700),
    }


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def at_hub(hub: Hub, commit: str) -> dict[str, bytes]:
    return hub.repositories["model", NAME].commits[commit]


def table(answer: Answer) -> dict[str, list[str]]:
    header, *rows = [line.split() for line in answer.out.splitlines()]
    assert header == ["file", "bytes", "change"]
    return {name: rest for name, *rest in rows}


def test_a_dry_run_shows_everything_and_changes_nothing(hub: Hub, machine: Machine) -> None:
    files = exported()
    absent = machine.push()
    assert absent.code == 0
    assert table(absent) == {name: [str(len(data)), "new"] for name, data in files.items()}
    assert f"to {NAME} at {hub.url}: there is none" in absent.err and "public" in absent.err
    assert absent.err.splitlines()[-1] == "nothing was sent; --yes uploads it"

    there = {**files, "load.py": b"import other\n", "PICTURE.md": b"hello"}
    del there["fi/adapter_config.json"]
    commit = hub.add_repo("model", NAME, there)
    changed = {"load.py": "replaced", "fi/adapter_config.json": "new"}
    # A token is not needed to look at what everybody may see.
    for given in ({}, {"HF_TOKEN": ""}):
        met = machine.push(**given)
        assert {n: row[1] for n, row in table(met).items()} == dict.fromkeys(
            files, "none"
        ) | changed
        assert f"public, at commit {commit[:7]}" in met.err and "1 more there would stay" in met.err

    asked = len(hub.log)
    offline = machine.push(HF_HUB_OFFLINE="1")
    assert offline.code == 0 and "not looked up" in offline.err and hub.url in offline.err
    rows = [line.split() for line in offline.out.splitlines()[1:]]
    assert rows == [[name, str(len(data))] for name, data in sorted(files.items())]
    assert len(hub.log) == asked and asked > 0
    assert {a.method for a in hub.log} <= {"GET", "HEAD"}
    assert list(hub.repositories["model", NAME].commits) == [commit]


def test_what_is_pushed_is_at_the_hub_and_is_not_pushed_again(hub: Hub, machine: Machine) -> None:
    files, push = exported(), ["push", "out", NAME, "--yes"]
    first, second = machine.all([*push, "--message", "First one"], push)
    repository = hub.repositories["model", NAME]
    made, commit = repository.commits
    assert first.commit == second.commit == commit, "the first makes a commit, the second does not"
    assert at_hub(hub, commit) == {**files, **FIRST} and at_hub(hub, made) == FIRST
    assert repository.summaries == {commit: "First one"}
    assert "uploading 7 files" in first.err and "nothing has changed" not in first.err
    assert "nothing has changed" in second.err and "uploading" not in second.err
    # Weights go ahead, each once; the commit has the rest in it.
    assert sorted(a.sent for a in hub.asked("PUT")) == sorted(
        len(data) for name, data in files.items() if name.endswith(".safetensors")
    )
    assert len(hub.asked("POST .*/commit/")) == len(hub.asked("POST .*/create")) == 1

    read = machine.all(*(["download", NAME, name, commit] for name in files), HF_TOKEN="")
    got = {
        name: Path(answer.out.strip()).read_bytes()
        for name, answer in zip(files, read, strict=True)
    }
    assert got == files

    # Of a folder that has changed, what is new goes on top of what others did meanwhile.
    hub.add_repo("model", NAME, {**at_hub(hub, commit), "LICENSE": b"free"})
    hub.log.clear()
    write(machine.folder / "out", {"task/adapter.safetensors": weights(3, 700)})
    (machine.folder / "out" / "load.py").unlink()
    third = machine.push("--yes")
    assert at_hub(hub, third.commit) == {
        **files,
        **FIRST,
        "LICENSE": b"free",
        "task/adapter.safetensors": weights(3, 700),
    }
    assert "uploading 1 file," in third.err and len(hub.asked("PUT")) == 1


def test_a_private_repository_is_made_private_and_a_public_one_is_refused(
    hub: Hub, machine: Machine
) -> None:
    first = machine.push("--yes", "--private")
    assert hub.repositories["model", NAME].token == MINE
    dry, again = machine.all(["push", "out", NAME, "--private"], ["push", "out", NAME, "--yes"])
    assert "private, at commit" in dry.err and again.commit == first.commit

    hub.add_repo("model", "lab/public", {"README.md": b"x"})
    jobs = [["push", "out", "lab/public", "--private", *more] for more in ([], ["--yes"])]
    for answer in machine.all(*jobs):
        assert answer.code == 2 and "lab/public is there and public" in answer.refusal
    assert len(hub.repositories["model", "lab/public"].commits) == 1


def test_a_hub_that_is_busy_is_waited_for(hub: Hub, machine: Machine) -> None:
    hub.fail("GET /api/models/", 503)
    hub.fail("POST /api/repos/create", 429, headers={"Retry-After": "3"})
    hub.fail("POST .*/preupload/", 500)
    hub.fail("PUT /lfs/", 429, headers={"Retry-After": "5"})
    hub.fail("POST .*/commit/", 429, headers={"Retry-After": "7"})
    done = machine.push("--yes")
    assert at_hub(hub, done.commit) == {**exported(), **FIRST}
    assert len(hub.repositories["model", NAME].commits) == 2
    assert {3.0, 5.0, 7.0} <= set(done.slept) and "trying again in 7 s" in done.err
    assert len(hub.asked("PUT")) == 3, "what has come is not sent again"

    hub.log.clear()
    hub.fail("GET /api/models/", 429, headers={"Retry-After": "600"})
    busy = machine.push("--yes")
    assert busy.code == 1 and "too busy" in busy.refusal and "(429)" in busy.refusal
    assert busy.slept == [] and len(hub.log) == 1


def test_what_broke_off_goes_on_where_it_stopped(hub: Hub, machine: Machine) -> None:
    small, large = weights(1), weights(2, 700)
    digest = hashlib.sha256(large).hexdigest()
    hub.cut(f"PUT /lfs/{digest}", at=100_000, times=math.inf)
    broken = machine.push("--yes")
    assert broken.code == 1 and "connection" in broken.refusal
    assert "run it again, it goes on where it stopped" in broken.refusal
    assert list(hub.repositories["model", NAME].commits.values()) == [FIRST]
    assert [a.sent for a in hub.asked("PUT") if a.status == 200] == [len(small)]

    hub.heal()
    hub.log.clear()
    done = machine.push("--yes")
    assert at_hub(hub, done.commit) == {**exported(), **FIRST}
    assert [a.sent for a in hub.asked("PUT")] == [len(large)]


def test_a_commit_whose_answer_is_lost_is_found(hub: Hub, machine: Machine) -> None:
    hub.cut("POST .*/commit/", at=0)
    hub.cut("PUT /lfs/", at=10)
    done = machine.push("--yes")
    _, commit = hub.repositories["model", NAME].commits
    assert done.commit == commit and "nothing has changed" not in done.err
    assert at_hub(hub, commit) == {**exported(), **FIRST}
    assert len(hub.asked("POST .*/commit/")) == 1


def test_what_somebody_else_commits_meanwhile_is_not_replaced(hub: Hub, machine: Machine) -> None:
    hub.add_repo("model", NAME, {"README.md": b"theirs"})
    hub.fail("POST /api/validate-yaml", delay=1.5)
    process = machine.start(["push", "out", NAME, "--yes"])
    deadline = time.monotonic() + 30
    while len(hub.asked("GET .*/tree/")) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    newer = hub.add_repo("model", NAME, {"README.md": b"theirs, newer"})
    (answer,) = machine.finish(process)
    assert answer.code == 1 and f"somebody else changed {NAME}" in answer.refusal
    assert list(hub.repositories["model", NAME].commits)[-1] == newer


def test_a_repository_that_another_process_makes_first_is_used(hub: Hub, machine: Machine) -> None:
    hub.add_repo("model", NAME, {"README.md": b"x"})
    hub.fail(f"GET /api/models/{NAME}", 404, headers={"X-Error-Code": "RepoNotFound"})
    done = machine.push("--yes")
    assert [a.status for a in hub.asked("POST .*/create")] == [409]
    assert at_hub(hub, done.commit) == exported()


def test_without_the_right_token_nothing_is_sent(hub: Hub, machine: Machine) -> None:
    none = machine.push("--yes", HF_TOKEN="")
    assert none.code == 2 and hub.log == []
    assert none.refusal == (
        "a push needs a token, and there is none; set HF_TOKEN to a token that may write to lab"
    )
    wrong = machine.push("--yes", HF_TOKEN="wrong")
    assert wrong.code == 2 and "does not know the token (401)" in wrong.refusal
    foreign = machine.push("--yes", HF_TOKEN=THEIRS)
    assert foreign.code == 2 and f"may not write to {NAME} (403)" in foreign.refusal
    assert "rights" in foreign.refusal, "what the hub says is passed on"
    assert hub.repositories == {}

    commit = hub.add_repo("model", NAME, {"README.md": b"x"})
    public = machine.push("--yes", HF_TOKEN=THEIRS)
    assert public.code == 2 and f"may not write to {NAME} (403)" in public.refusal
    hub.add_repo("model", NAME, {"README.md": b"x"}, token=MINE)
    hub.tokens[THEIRS].add("lab")
    hidden = machine.push("--yes", HF_TOKEN=THEIRS)
    assert hidden.code == 2 and f"{NAME} is there, but the token may not" in hidden.refusal
    for answer in (wrong, foreign, public, hidden):
        assert answer.refusal.endswith("set HF_TOKEN to a token that may write to lab")
    assert list(hub.repositories["model", NAME].commits) == [commit]
    assert hub.asked("PUT|commit/") == []


def test_offline_and_where_no_hub_is(hub: Hub, machine: Machine) -> None:
    offline = machine.push("--yes", HF_HUB_OFFLINE="1")
    assert offline.code == 4 and hub.log == []
    assert offline.refusal.startswith(f"{NAME} cannot be pushed to")
    assert "push without HF_HUB_OFFLINE" in offline.refusal
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    alone = machine.push("--yes", HF_ENDPOINT=nobody)
    assert alone.code == 1 and "the connection to the hub failed" in alone.refusal


def test_what_the_hub_does_not_take_is_said(hub: Hub, machine: Machine) -> None:
    push = ["push", "out", NAME, "--yes"]
    hub.fail("POST /api/validate-yaml", 400)
    hub.fail("POST .*/commit/", 409)
    hub.fail("POST .*/commit/", 404)
    card, conflict, gone = machine.all(push, push, push)
    assert card.code == 2 and "does not take it: Invalid metadata in README.md" in card.refusal
    assert conflict.code == 1 and "somebody else changed" in conflict.refusal
    assert gone.code == 2 and f"{NAME} is not there" in gone.refusal
    assert list(hub.repositories["model", NAME].commits.values()) == [FIRST]


def put(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: write(folder, {name: data})


def link(name: str, to: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(to)

    return change


def remove(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def large(folder: Path) -> None:
    with (folder / "large.txt").open("wb") as file:
        file.truncate((2 << 30) + 1)


def holes(size: int) -> bytes:
    """Weights whose header says that they are longer than they are."""
    entry: dict[str, Any] = {"dtype": "F32", "shape": [size], "data_offsets": [0, 4 * size]}
    header = json.dumps({"a": entry}).encode()
    return len(header).to_bytes(8, "little") + header + b"\0" * 8


#: What is done to a folder, the exit code, and parts of the message.
FAULTS: dict[str, tuple[Callable[[Path], None], int, tuple[str, ...]]] = {
    "missing": (shutil.rmtree, 2, ("no such folder",)),
    "manifest": (remove("adapterxlt.json"), 2, ("no adapterxlt.json", "`adapterxlt export`")),
    "other": (put("adapterxlt.json", b'{"format": 2}'), 2, ("has format 2, not 1",)),
    "list": (put("adapterxlt.json", b"[1]"), 5, ("adapterxlt.json", "not a JSON object")),
    "card": (remove("README.md"), 2, ("no README.md",)),
    "weightless": (
        remove("fi/adapter.safetensors", "task/adapter.safetensors"),
        2,
        ("no *.safetensors",),
    ),
    "pickle": (put("fi/pytorch_adapter.bin", b"x"), 5, ("fi/pytorch_adapter.bin", "a pickle")),
    "capitals": (put("a.PT", b"x"), 5, ("a.PT", "a pickle")),
    "disguised": (put("notes.txt", b"\x80\x04K\x01."), 5, ("notes.txt", "a pickle")),
    "archive": (put("weights", b"PK\x03\x04"), 5, ("weights", "a pickle")),
    "link": (link("load.py", "/etc/hostname"), 5, ("load.py", "a link")),
    "linked folder": (link("more", "/etc"), 5, ("more", "a link")),
    "pipe": (lambda folder: os.mkfifo(folder / "pipe"), 5, ("pipe", "no plain file")),
    "hidden": (put("fi/.env", b"TOKEN=1"), 5, ("fi/.env", "hidden")),
    "hidden folder": (put(".git/config", b""), 5, (".git", "hidden")),
    "elsewhere": (put("..\\evil.txt", b""), 5, ("evil.txt",)),
    "device": (put("fi/con.txt", b""), 5, ("con.txt",)),
    "backwards": (put("a\u202etxt.md", b""), 5, ("u202e",)),
    "large": (large, 5, ("large.txt", "2,147,483,649 bytes")),
    "short": (put("task/adapter.safetensors", holes(4)), 5, ("task/adapter.safetensors", "bytes")),
    "empty": (put("task/adapter.safetensors", b""), 5, ("task/adapter.safetensors", "empty")),
    "noise": (put("task/adapter.safetensors", b"\x80\x02" * 9), 5, ("header",)),
}


def test_a_folder_that_is_not_fit_to_be_published_is_refused(hub: Hub, machine: Machine) -> None:
    """Dry and in earnest; all in one process, for time's sake."""
    jobs = []
    for name, (change, _, _) in FAULTS.items():
        write(machine.folder / name, exported())
        change(machine.folder / name)
        jobs += [["push", name, NAME], ["push", name, NAME, "--yes"]]
    answers = machine.all(*jobs)
    for number, (name, (_, code, parts)) in enumerate(FAULTS.items()):
        for answer in answers[2 * number : 2 * number + 2]:
            assert answer.code == code, (name, answer)
            assert all(part in answer.refusal for part in (name, *parts)), answer.refusal
            assert answer.err.count("\n") == 1, "nothing else is said"
    assert hub.log == []


def test_weights_may_begin_as_a_pickle_does(hub: Hub, machine: Machine) -> None:
    """Safetensors begin with the size of their header: 640 is what a pickle begins with too."""
    data = save({"a": np.zeros(2, "<f4")}, {"note": "x" * 556})
    assert data[:2] == b"\x80\x02"
    write(machine.folder / "out", {"fi/adapter.safetensors": data})
    assert machine.push().code == 0


def test_a_target_is_an_organization_and_a_name(hub: Hub, machine: Machine) -> None:
    names = ["alone", "a/b/c", "../b", "a/..", "a/.b", "a/b-", "a/b--c", "a/b.git", "a/b c", "/b"]
    names += ["a/" + "b" * 97, "a/b@main", "å/b", "a/b\n"]
    jobs = [["push", "out", name, *more] for name in names for more in ([], ["--yes"])]
    for answer in machine.all(*jobs):
        assert answer.code == 2 and "is no name of a repository" in answer.refusal
    assert hub.log == []
