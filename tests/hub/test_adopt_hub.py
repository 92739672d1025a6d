"""Adapters adopted from a hub: locked once, fetched by commit, run without a network.

The hub is on the loopback device and the client is the real one. Verbs run in processes of their
own, as a user's do; many short ones share a process, for time's sake.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import adapters
import peft
import pytest
import torch
from adapters import AutoAdapterModel
from hub_server import Hub
from transformers import AutoModel

from adapterxlt.core import bases, known, languages
from adapterxlt.core.errors import RecipeError
from adapterxlt.core.tasks import TASKS
from adapterxlt.run.study import Study

MIB = 1 << 20
Files = dict[str, bytes]
WEIGHTS = "adapter.safetensors"
LABELS = list(TASKS["lab-pos"].labels)
#: A name of the table of what is known, and its language.
KNOWN = "AdapterHub/xlm-roberta-base-tr-wiki_pfeiffer"

#: Verbs one after the other in one process; each with its own environment on top.
PROGRAM = """
import contextlib, io, json, os, sys
{before}
from adapterxlt.cli import main
answers = []
for argv, more in json.loads(sys.argv[1]):
    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.argv = ["adapterxlt", *argv]
    kept = dict(os.environ)
    os.environ.update(more)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    os.environ.clear()
    os.environ.update(kept)
    answers.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(answers))
"""


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def refusal(self) -> str:
        """The one line of an error; lines before it say what was being done."""
        assert self.out == "" and self.err, self
        lines = self.err.splitlines()
        assert [line.startswith("adapterxlt: ") for line in lines].count(True) == 1, self.err
        assert lines[-1].startswith("adapterxlt: "), self.err
        return lines[-1].removeprefix("adapterxlt: ")


Call = tuple[tuple[str, ...], dict[str, str]]


def call(*given: str, **more: str) -> Call:
    """A verb with what is given to it, and more of an environment."""
    return given, more


class Machine:
    """A user's machine: a folder with a recipe, a store and the client's home."""

    def __init__(self, hub: Hub, folder: Path, backbone: Path) -> None:
        self.hub, self.folder, self.backbone = hub, folder, backbone
        self.before = ""
        """What a process does first."""

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        kept = {k: v for k, v in kept.items() if not k.lower().endswith("_proxy")}
        return kept | {
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.folder / "home"),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DOWNLOAD_TIMEOUT": "10",
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        }

    def argv(self, verb: str, *given: str) -> list[str]:
        """A verb with the backbone, and about the recipe where it is of recipes."""
        if verb in ("ls", "push"):
            return [verb, *given]
        about = [] if verb == "adopt" else ["r.yaml"]
        workers = ["--workers", "0"] if verb == "run" else []
        return [verb, *about, "--backbone", str(self.backbone), *workers, *given]

    def __call__(self, verb: str, *given: str, **more: str) -> Said:
        """A verb in a process of its own."""
        process = self.start(verb, *given, **more)
        out, err = process.communicate(timeout=120)
        assert "Traceback" not in err, err
        return Said(process.returncode, out, err)

    def start(self, verb: str, *given: str, **more: str) -> subprocess.Popen[str]:
        program = f"{self.before}\nfrom adapterxlt.cli import main; main()"
        return subprocess.Popen(
            [sys.executable, "-c", program, *self.argv(verb, *given)],
            env={**self.environment, **more}, cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def many(self, *calls: Call) -> list[Said]:
        """Verbs one after the other, in one process."""
        told = [(self.argv(*given), more) for given, more in calls]
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(before=self.before), json.dumps(told)],
            env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return [Said(*answer) for answer in json.loads(done.stdout.splitlines()[-1])]

    def write(self, adopted: str, **changed: str) -> None:
        """The recipe, with these lines of `language_adapters`."""
        text = RECIPE.format(adopted="\n".join(f"  {line}" for line in adopted.splitlines()))
        for old, new in changed.items():
            text = text.replace(f"{old}:", f"{old}: {new} #", 1)
        (self.folder / "r.yaml").write_text(text, encoding="utf-8")

    @property
    def lock(self) -> Path:
        return self.folder / "r.lock.json"

    def locked(self) -> dict[str, Any]:
        """Entries of the lock file."""
        body: dict[str, Any] = json.loads(self.lock.read_text())
        return body["adapters"]

    def plan(self, *given: str, **more: str) -> dict[str, str]:
        """Keys of stages by what they are."""
        said = self("plan", "--json", *given, **more)
        assert said.code == 0, said.err
        return {row["stage"]: row["key"] for row in json.loads(said.out)["stages"]}

    def objects(self, store: str = ".adapterxlt") -> set[str]:
        """Digests of the objects in a store, each of them of what it is called by."""
        found = set()
        for path in (self.folder / store / "objects").glob("??/*"):
            name = path.parent.name + path.name
            assert sha256(path.read_bytes()) == name, "half a file"
            found.add(name)
        return found


RECIPE = """\
name: adopted
data: lab
source: lab-root
targets: [lab-near-high, lab-far-low]
tasks: [lab-pos]
regimes: [zero-shot]
budget: {{steps: 2, batch: 4, lr: 1e-3}}
limits: {{train: 16, test: 8, text: 16}}
language_adapters:
{adopted}
"""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def saved(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Files]:
    """Files of repositories by name, as the libraries save adapters."""
    root = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    model = AutoAdapterModel.from_pretrained(tiny_backbone)
    inverted = adapters.SeqBnInvConfig(reduction_factor=2)
    # Of more bytes than the client keeps at once, which is 10 MiB.
    large = adapters.SeqBnConfig(reduction_factor=0.001)
    for name, config, safe in (
        ("near", inverted, True),
        ("moved", inverted, True),
        ("far", inverted, False),
        ("large", large, True),
    ):
        model.add_adapter(name, config=config)
        model.save_adapter(str(root / name), name, use_safetensors=safe)
    model.add_adapter("pos", config=adapters.SeqBnConfig())
    model.add_tagging_head("pos", num_labels=len(LABELS), id2label=dict(enumerate(LABELS)))
    model.save_adapter(str(root / "pos"), "pos", use_safetensors=True)
    low_rank = peft.LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False)
    base = AutoModel.from_pretrained(tiny_backbone)
    peft.get_peft_model(base, low_rank).save_pretrained(str(root / "low-rank"))
    found = {
        folder.name: {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in root.iterdir()
    }
    assert WEIGHTS in found["near"] and found["near"][WEIGHTS] != found["moved"][WEIGHTS]
    assert "pytorch_adapter.bin" in found["far"] and WEIGHTS not in found["far"]
    assert len(found["large"][WEIGHTS]) > 14 * MIB
    return found


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


@pytest.fixture
def machine(hub: Hub, tmp_path: Path, tiny_backbone: Path) -> Machine:
    return Machine(hub, tmp_path, tiny_backbone)


# --- a study -------------------------------------------------------------------------------------


def three(hub: Hub, saved: Mapping[str, Files]) -> tuple[dict[str, str], str]:
    """Three repositories: their commits by name, and the lines of a recipe that adopts them."""
    # What else lies in a repository is nobody's business.
    others = {"README.md": b"# Near\n", "pytorch_adapter.bin": b"not asked for", "run.py": b"1/0"}
    commits = {
        "near": hub.add_repo("model", "org/near", {**saved["near"], **others}),
        "far": hub.add_repo("model", "org/far", saved["far"]),
        "low-rank": hub.add_repo("model", "org/low-rank", saved["low-rank"]),
    }
    lines = (
        "lab-near-high: hub:org/near@main\n"
        "lab-far-low: {adapter: hub:org/far, allow_pickle: true}\n"
        f"lab-root: peft:org/low-rank@{commits['low-rank']}"
    )
    return commits, lines


def test_a_study_is_locked_once_and_never_asks_again(
    hub: Hub, machine: Machine, saved: dict[str, Files], monkeypatch: pytest.MonkeyPatch
) -> None:
    commits, lines = three(hub, saved)
    machine.write(lines)
    reading = ("plan", "validate", "status", "results", "fetch", "run")
    for said in machine.many(*map(call, reading)):
        assert said.code == 2 and said.out == ""
        refused = sorted(said.err.splitlines())
        for at, reference in enumerate(("hub:org/near@main", "hub:org/far", "peft:org/low-rank@")):
            assert refused[at].startswith(f"adapterxlt: r.yaml:{10 + at}: {reference}")
            assert refused[at].endswith("is not locked; run adapterxlt lock RECIPE")
        assert len(refused) == 3
    assert hub.log == [] and not (machine.folder / "home").exists()

    said = machine("lock")
    assert said.code == 0, said.err
    assert said.err.splitlines()[-1] == "3 adapters locked in r.lock.json"
    first, entries = machine.lock.read_bytes(), machine.locked()
    assert {name: one["commit"] for name, one in entries.items()} == {
        "hub:org/near@main": commits["near"],
        "hub:org/far": commits["far"],
        f"peft:org/low-rank@{commits['low-rank']}": commits["low-rank"],
    }
    safe = "adapter_model.safetensors"
    weights = {"far": "pytorch_adapter.bin", "near": WEIGHTS, "low-rank": safe}
    for (name, file), entry in zip(weights.items(), entries.values(), strict=True):
        data = saved[name][file]
        expected = {"name": file, "sha256": sha256(data), "size": len(data)}
        assert entry["files"]["weights"] == expected
        assert commits[name][:7] in said.out
    asked = {a.path.rpartition("/")[2] for a in hub.asked("/resolve/")}
    assert asked == {"adapter_config.json", *weights.values()}
    near = f"/org/near/resolve/{commits['near']}/{WEIGHTS}"
    assert [a.status for a in hub.asked(near)] == [302], "large files are on another address"
    assert hub.asked(f"GET /cdn/{sha256(saved['near'][WEIGHTS])}")
    assert not hub.asked("org/near/.*bin"), "a pickle of the same is not even fetched"

    # Somewhere else, with nothing there yet, it is the same to the byte.
    machine.lock.unlink()
    elsewhere = machine("lock", "--store", "other", HF_HOME=str(machine.folder / "other home"))
    assert elsewhere.code == 0 and machine.lock.read_bytes() == first

    hub.log.clear()
    home, empty = str(machine.folder / "home"), str(machine.folder / "empty")
    both_empty = machine("run", "--store", "none", HF_HUB_OFFLINE="1", HF_HOME=empty)
    assert both_empty.code == 4
    lacking, _, hint = both_empty.refusal.partition(" has not been fetched, and the hub's clients ")
    assert lacking in {f"hub:org/{name}@{commit[:7]}" for name, commit in commits.items()}
    assert "fetch it without HF_HUB_OFFLINE" in hint

    keys = machine.plan()
    labels = {
        f"adopt language lab-near-high from hub:org/near@{commits['near'][:7]}",
        f"adopt language lab-far-low from hub:org/far@{commits['far'][:7]}",
        f"adopt language lab-root from peft:org/low-rank@{commits['low-rank'][:7]}",
    }
    assert labels == {label for label in keys if "language" in label}

    # The bytes are in the client's cache; the store is new.
    ran = machine("run", HF_HUB_OFFLINE="1", HF_HOME=home)
    assert ran.code == 0, ran.err
    assert {sha256(saved[name][file]) for name, file in weights.items()} <= machine.objects()
    results, plan, status, again = machine.many(
        call("results", "--json"), call("plan", "--json"), call("status", "--json"),
        call("run", HF_HOME=empty),
    )  # fmt: skip
    rows = [row for row in json.loads(results.out) if row["primary"]]
    assert {row["target"] for row in rows} == {"lab-root", "lab-near-high", "lab-far-low"}
    assert all(0 <= row["score"] <= 1 for row in rows)
    assert {row["state"] for row in json.loads(plan.out)["stages"]} == {"cached"}
    assert json.loads(status.out)["stages"]["adopt"] == [3, 3]
    assert again.code == 0
    assert hub.log == [], "what was locked is never asked about again"

    # With the bytes in a store, neither a cache nor a network is needed.
    fetched = machine("fetch", "--store", "full")
    assert fetched.code == 0 and hub.log == []
    monkeypatch.delattr("adapterxlt.run.hub.adapters.download")
    monkeypatch.chdir(machine.folder)
    study = Study.open(
        machine.folder / "r.yaml", store=machine.folder / "full", backbone=str(machine.backbone)
    )
    study.fetch()
    assert not study.run(workers=0).failed


def test_a_branch_that_moves_moves_nothing_that_is_locked(
    hub: Hub, machine: Machine, saved: dict[str, Files]
) -> None:
    old = hub.add_repo("model", "org/near", saved["near"])
    hub.repositories["model", "org/near"].names |= {"v1.0": old, "feature/x": old}
    machine.write(
        "lab-near-high: hub:org/near@main\n"
        "lab-far-low: hub:org/near@v1.0\n"
        "lab-root: hub:org/near@feature/x"
    )
    machine.many(call("lock"))
    before, first = machine.plan(), machine.lock.read_bytes()
    assert {one["commit"] for one in machine.locked().values()} == {old}
    adopt = {label: key for label, key in before.items() if label.startswith("adopt")}
    assert len(adopt) == 1, "one adapter, whatever it is called"

    new = hub.add_repo("model", "org/near", saved["moved"])
    hub.log.clear()
    assert machine.plan() == before
    fetched = machine("fetch", "--store", "later", HF_HOME=str(machine.folder / "later home"))
    assert fetched.code == 0, fetched.err
    assert hub.asked(f"GET /org/near/resolve/{old}/") and not hub.asked(f"/api/|{new}|main")
    assert machine.lock.read_bytes() == first
    assert sha256(saved["near"][WEIGHTS]) in machine.objects("later")

    assert machine("lock").code == 0
    commits = {name: one["commit"] for name, one in machine.locked().items()}
    assert commits.pop("hub:org/near@main") == new and set(commits.values()) == {old}
    after = machine.plan()
    moved = [label for label in after if label.startswith("adopt language lab-near-high from")]
    assert moved == [f"adopt language lab-near-high from hub:org/near@{new[:7]}"]
    assert after[moved[0]] not in before.values()
    assert len([label for label in after if label.startswith("adopt")]) == 2
    for label in before.keys() & after.keys():
        same = before[label] == after[label]
        assert same is not ("near-high" in label and label.startswith("evaluate")), label


def test_what_is_not_what_was_locked_is_refused(
    hub: Hub, machine: Machine, saved: dict[str, Files]
) -> None:
    commit = hub.add_repo("model", "org/near", saved["near"])
    machine.write(f"adopt: {{any: 'hub:org/near@{commit}'}}")
    assert machine("lock").code == 0
    first = machine.lock.read_bytes()
    # The commit is said to be the same, and has other weights.
    hub.add_repo("model", "org/near", {**saved["near"], WEIGHTS: saved["moved"][WEIGHTS]}, commit)
    new_home = {"HF_HOME": str(machine.folder / "new home")}
    said = machine("run", **new_home)
    assert said.code == 5
    what = f"hub:org/near@{commit[:7]}: {WEIGHTS} is not what it was when it was looked at"
    assert said.refusal.startswith(what)
    weights = {sha256(saved[name][WEIGHTS]) for name in ("near", "moved")}
    assert not weights & machine.objects()

    # What the hub calls a commit is another one: told before anything is fetched, and afterwards.
    other = hub.add_repo("model", "org/near", saved["moved"])
    hub.repositories["model", "org/near"].names[commit] = other
    hub.log.clear()
    newer = str(machine.folder / "newer home")
    locked, ran = machine("lock", HF_HOME=newer), machine("run", HF_HOME=newer)
    assert locked.code == ran.code == 1
    answers = f"the hub answers for hub:org/near@{commit[:7]} with the commit {other[:7]}"
    assert locked.refusal == answers
    assert ran.refusal.startswith(f"the hub gave {WEIGHTS} of another commit than")
    assert machine.lock.read_bytes() == first and not weights & machine.objects()


def test_a_task_adapter_with_its_head(hub: Hub, machine: Machine, saved: dict[str, Files]) -> None:
    commit = hub.add_repo("model", "org/pos", saved["pos"])
    regimes = "[{name: theirs, phases: [{name: adopted, adopt: 'hub:org/pos@main'}]}, zero-shot]"
    machine.write("adapter: {method: seq_bn_inv}", regimes=regimes)
    plan, lock, planned = machine.many(call("plan"), call("lock"), call("plan", "--json"))
    assert plan.code == 2
    assert plan.refusal == "r.yaml:6: hub:org/pos@main is not locked; run adapterxlt lock RECIPE"
    assert lock.code == 0, lock.err
    (entry,) = machine.locked().values()
    assert (entry["commit"], entry["head"]["labels"]) == (commit, LABELS)
    stages = [row["stage"] for row in json.loads(planned.out)["stages"]]
    adopted = [stage for stage in stages if stage.startswith("adopt")]
    assert adopted == [f"adopt lab-pos from hub:org/pos@{commit[:7]}"]


# --- what goes wrong on the way ------------------------------------------------------------------


def test_a_download_that_breaks_off_goes_on_where_it_stopped(
    hub: Hub, machine: Machine, saved: dict[str, Files]
) -> None:
    data = saved["large"][WEIGHTS]
    hub.add_repo("model", "org/large", saved["large"])
    machine.write("adopt: {any: 'hub:org/large@main'}")
    of_weights = f"GET /cdn/{sha256(data)}"
    hub.cut(of_weights, at=12 * MIB, times=math.inf)
    broken = machine("lock")
    assert broken.code == 1
    assert broken.refusal.startswith("the connection to the hub failed for hub:org/large@")
    assert broken.refusal.endswith("run it again, it goes on where it stopped")
    assert not machine.lock.exists() and not machine.objects()
    assert [a.start for a in hub.asked(of_weights)] == [0, *[10 * MIB] * 3]

    # The whole file was never there, so that it does not count as fetched.
    hub.heal()
    hub.log.clear()
    assert machine("lock").code == 0
    (got,) = hub.asked(of_weights)
    assert (got.status, got.start, got.sent) == (206, 10 * MIB, len(data) - 10 * MIB)
    (entry,) = machine.locked().values()
    assert entry["files"]["weights"]["sha256"] == sha256(data)

    # Cut once, or slow: not the user's business.
    for home in ("cut", "slow"):
        hub.log.clear()
        if home == "cut":
            hub.cut(of_weights, at=11 * MIB)
        else:
            hub.stall(of_weights, at=11 * MIB, seconds=5)
        machine.lock.unlink()
        more = {"HF_HOME": str(machine.folder / home), "HF_HUB_DOWNLOAD_TIMEOUT": "2"}
        said = machine("lock", "--store", f"{home} store", **more)
        assert said.code == 0, said.err
        assert [a.start for a in hub.asked(of_weights)] == [0, 10 * MIB]
        assert machine.locked()["hub:org/large@main"] == entry


def test_killed_while_it_downloads(hub: Hub, machine: Machine, saved: dict[str, Files]) -> None:
    data = saved["large"][WEIGHTS]
    hub.add_repo("model", "org/near", saved["near"])
    hub.add_repo("model", "org/large", saved["large"])
    machine.write("lab-near-high: hub:org/near@main")
    assert machine("lock").code == 0
    machine.write("lab-near-high: hub:org/near@main\nlab-far-low: hub:org/large@main")
    first = machine.lock.read_bytes()
    hub.stall(f"GET /cdn/{sha256(data)}", at=12 * MIB, seconds=30)
    process = machine.start("lock")
    blobs, until = machine.folder / "home/hub/models--org--large/blobs", time.monotonic() + 60
    while not any(path.stat().st_size >= 10 * MIB for path in blobs.glob("*.incomplete")):
        assert time.monotonic() < until and process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    process.communicate()
    assert machine.lock.read_bytes() == first, "the lock file is the old one or the new one"
    assert not machine.objects()
    hub.log.clear()
    assert machine("lock").code == 0
    assert machine.locked().keys() == {"hub:org/near@main", "hub:org/large@main"}
    (got,) = hub.asked("GET /cdn/")
    assert got.start == 10 * MIB and got.start + got.sent == len(data)


def test_a_hub_that_is_busy_is_waited_for(
    hub: Hub, machine: Machine, saved: dict[str, Files]
) -> None:
    hub.add_repo("model", "org/near", saved["near"])
    machine.write("lab-near-high: hub:org/near@main")
    info, config = "GET /api/models/org/near", "HEAD .*adapter_config.json"
    hub.fail(info, 503, headers={"Retry-After": "0"})
    hub.fail(info, 429, headers={"Retry-After": "1"})
    hub.fail(info, 429, headers={"RateLimit": '"api";r=0;t=2'})
    hub.fail(config, 429, headers={"Retry-After": "0"})
    hub.fail(config, 503)
    hub.fail("GET /cdn/", 500)
    said = machine("lock")
    assert said.code == 0, said.err
    asked = hub.asked(info)
    assert [a.status for a in asked] == [503, 429, 429, 200]
    waited = [later.at - before.at for before, later in itertools.pairwise(asked)]
    assert waited[1] >= 1 and waited[2] >= 2
    told = [line.rpartition(": trying again")[2] for line in said.err.splitlines()]
    assert [line for line in told if not line.startswith("hub:")][:3] == ["", " in 1 s", " in 2 s"]
    assert [a.status for a in hub.asked(config)] == [429, 503, 200]


AT = "language_adapters.lab-near-high"
LONG = {"Retry-After": "600"}
#: What each refusal is: exit code, and what the line says.
REFUSALS: dict[str, tuple[int, tuple[str, ...]]] = {
    "absent": (2, ("there is no adapter org/absent, or it is private", "HF_TOKEN")),
    "private": (2, ("there is no adapter org/private, or it is private", "HF_TOKEN")),
    "gated": (2, ("org/gated is gated", "ask for access on its page", "HF_TOKEN")),
    "near@nowhere": (2, ("org/near has no branch or tag nowhere", "adapter's page")),
    f"near@{'1' * 40}": (2, (f"org/near has no commit {'1' * 40}", "adapter's page")),
    "prose": (2, ("hub:org/prose@main has no files of an adapter",)),
    "limited": (1, ("too busy for hub:org/limited@main (429)", "later", "HF_TOKEN")),
    "down": (1, ("too busy for hub:org/down@main (500)", "run it again later")),
    "forbidden": (2, ("the hub refuses org/forbidden (403)", "HF_TOKEN")),
    "garbled": (2, ("hub:org/garbled@main cannot be looked up",)),
    "nameless": (1, ("the hub names no commit of hub:org/nameless@main",)),
    "gone": (2, ("has a file that the hub has not got",)),
    "up": (5, ("a file has the name '../adapter_config.json'",)),
    "inside": (5, ("a file has the name 'x/../../evil'",)),
    "root": (5, ("a file has the name '/etc/evil'",)),
    "drive": (5, ("a file has the name 'C:evil'",)),
    "windows": (5, ("a file has the name 'x\\\\evil'",)),
    "device": (5, ("a file has the name 'aux.txt'",)),
    "heavy": (5, ("adapter.safetensors has 3,221,225,472 bytes, more than",)),
    "wordy": (5, ("adapter_config.json has 1,048,577 bytes, more than",)),
    "pickled": (5, ("pytorch_adapter.bin is a pickle; say allow_pickle: true",)),
    "foreign": (5, ("hub:org/foreign: it was made for 'org/other'", "say base: org/other")),
}  # fmt: skip
EVIL = {
    "up": "../adapter_config.json", "inside": "x/../../evil", "root": "/etc/evil",
    "drive": "C:evil", "windows": "x\\evil", "device": "aux.txt",
}  # fmt: skip


def test_each_refusal_says_what_to_do(hub: Hub, machine: Machine, saved: dict[str, Files]) -> None:
    near = saved["near"]
    for name in ("near", "limited", "down", "forbidden", "garbled", "gone", "heavy"):
        hub.add_repo("model", f"org/{name}", near)
    for name, path in EVIL.items():
        hub.add_repo("model", f"org/{name}", {**near, path: b"{}"})
    hub.add_repo("model", "org/private", near, token="secret")
    hub.add_repo("model", "org/gated", near, token="secret", gated=True)
    hub.add_repo("model", "org/prose", {"README.md": b"# Nothing\n"})
    hub.add_repo("model", "org/wordy", {**near, "adapter_config.json": b" " * (MIB + 1)})
    hub.add_repo("model", "org/nameless", near, "../../evil")
    hub.repositories["model", "org/heavy"].sizes[WEIGHTS] = 3 << 30
    hub.fail("org/limited", 429, headers=LONG, times=math.inf)
    hub.fail("org/down", 500, headers={"Retry-After": "0"}, times=math.inf)
    hub.fail("org/forbidden", 403, times=math.inf)
    hub.fail("org/garbled", 200, times=math.inf)
    hub.fail("HEAD /org/gone.*config", 404, times=math.inf)
    hub.add_repo("model", "org/pickled", saved["far"])
    config = {**json.loads(near["adapter_config.json"]), "model_name": "org/other"}
    foreign = {**near, "adapter_config.json": json.dumps(config).encode()}
    hub.add_repo("model", "org/foreign", foreign)
    machine.write("adopt: auto\nmissing: train")
    refused, vouched, *answers = machine.many(
        call("adopt", "hub:org/foreign"),
        call("lock", f"{AT}={{adapter: 'hub:org/foreign', base: org/other}}", "--lock", "x.json"),
        *(call("lock", f"{AT}=hub:org/{name}") for name in REFUSALS),
    )
    assert not machine.lock.exists()
    assert refused.code == 5 and "it was made for 'org/other'" in refused.refusal
    assert vouched.code == 0, vouched.err
    for (name, (code, parts)), said in zip(REFUSALS.items(), answers, strict=True):
        line = said.refusal
        assert said.code == code, (name, said)
        assert all(part in line for part in parts), line
        assert "data set" not in line and "/tmp" not in line
    assert len(hub.asked("org/limited")) == 1 and len(hub.asked("org/down")) == 4
    downloaded = {a.path.split("/")[2] for a in hub.asked("/resolve/")}
    assert downloaded == {"gated", "gone", "pickled", "foreign"}, (
        "what is refused is refused before it is fetched"
    )


def test_a_hub_that_does_not_answer_is_given_up(
    hub: Hub, machine: Machine, saved: dict[str, Files]
) -> None:
    hub.add_repo("model", "org/near", saved["near"])
    hub.fail("GET /api/", delay=20)
    machine.write("lab-near-high: hub:org/near@main")
    begun = time.monotonic()
    said = machine("lock", HF_HUB_ETAG_TIMEOUT="1")
    assert said.code == 1 and time.monotonic() - begun < 15
    assert "the connection to the hub failed for hub:org/near@main" in said.refusal
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = machine("lock", HF_ENDPOINT=f"http://127.0.0.1:{free.getsockname()[1]}")
    assert nobody.code == 1 and "the connection to the hub failed" in nobody.refusal
    offline = machine("lock", HF_HUB_OFFLINE="1")
    assert offline.code == 4 and "hub:org/near@main has not been fetched" in offline.refusal


def test_a_token_opens_what_is_not_for_everybody(
    hub: Hub, machine: Machine, saved: dict[str, Files]
) -> None:
    for name, gated in (("gated", True), ("private", False)):
        hub.add_repo("model", f"org/{name}", saved["near"], token="secret", gated=gated)
    machine.write("lab-near-high: hub:org/gated@main\nlab-far-low: hub:org/private@main")
    wrong, right = machine.many(call("lock", HF_TOKEN="wrong"), call("lock", HF_TOKEN="secret"))
    assert wrong.code == 2 and "org/gated is gated" in wrong.refusal
    assert right.code == 0, right.err
    assert machine.locked().keys() == {"hub:org/gated@main", "hub:org/private@main"}
    assert {a.token for a in hub.asked("resolve")} == {"wrong", "secret"}
    assert "secret" not in machine.lock.read_text()


# --- the lock file -------------------------------------------------------------------------------


def test_a_lock_file_that_is_none_is_written_anew(
    hub: Hub, machine: Machine, saved: dict[str, Files]
) -> None:
    hub.add_repo("model", "org/near", saved["near"])
    machine.write("lab-near-high: hub:org/near@main")
    assert machine("lock").code == 0
    good = machine.lock.read_text()

    def spoiled(*path: str, value: Any) -> str:
        body = json.loads(good)
        inner = body["adapters"]["hub:org/near@main"]
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = value
        return json.dumps(body)

    faults = [
        good[:100],
        "[]",
        '{"adapterxlt lock": 99, "adapters": {}}',
        spoiled("commit", value=None),
        spoiled("commit", value="main"),
        spoiled("adapter", "method", value="magic"),
        spoiled("adapter", "reduction_factor", value=-1),
        spoiled("files", value={}),
        spoiled("files", "weights", "name", value="../../evil.json"),
        spoiled("files", "weights", "sha256", value="0"),
        spoiled("made_for", "model_name", value=5),
        spoiled("made_for", "digests", value="x"),
    ]
    texts = [good, *faults]
    for i, text in enumerate(texts):
        (machine.folder / f"{i}.json").write_text(text)
    hub.log.clear()
    numbers = range(len(texts))
    first, *refused = machine.many(*(call("plan", "--lock", f"{i}.json") for i in numbers))
    assert first.code == 0 and hub.log == []
    for i, said in enumerate(refused, 1):
        assert said.code == 2, (texts[i], said)
        assert said.refusal.startswith(f"{i}.json: not a lock file: ")
        assert said.refusal.endswith("write it anew with adapterxlt lock")
    machine.lock.write_text(faults[0])
    assert machine("lock").code == 0
    assert machine.lock.read_text() == good


# --- auto ----------------------------------------------------------------------------------------

#: What makes the tiny backbone one that adapters are known for, in a process.
TABLE = {"lab-near-high": "org/near", "lab-root": "org/low-rank"}
SIZES = ("xlm-roberta", 2, 32, 1600)
PATCH = f"""
from adapterxlt.core import bases, known
bases.BASES["tiny"] = {SIZES!r}
known._table = lambda: {{"tiny": {TABLE!r}}}
"""


@pytest.fixture
def tiny_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bases.BASES, "tiny", SIZES)
    monkeypatch.setattr(known, "_table", lambda: {"tiny": TABLE})


def test_auto_adopts_what_is_known_and_trains_the_rest(
    hub: Hub, machine: Machine, saved: dict[str, Files], tiny_is_known: None
) -> None:
    three(hub, saved)
    machine.before = PATCH
    machine.write("adopt: auto")
    plan, lock, planned, fetched = machine.many(
        call("plan"), call("lock"), call("plan", "--json"), call("fetch", "--store", "store")
    )
    assert plan.code == 2
    for reference in ("hub:org/near", "hub:org/low-rank"):
        assert f"r.yaml:10: {reference} is not locked; run adapterxlt lock RECIPE" in plan.err
    assert lock.code == 0, lock.err
    assert machine.locked().keys() == {"hub:org/near", "hub:org/low-rank"}
    stages = [row["stage"] for row in json.loads(planned.out)["stages"]]
    of_language = {stage.partition(" from ")[0] for stage in stages if "language" in stage}
    assert of_language == {
        "adopt language lab-near-high", "adopt language lab-root", "language adapter lab-far-low",
    }  # fmt: skip
    assert fetched.code == 0, fetched.err
    assert not opened(machine).run(workers=0).failed


def opened(machine: Machine) -> Study:
    return Study.open(
        machine.folder / "r.yaml", store=machine.folder / "store", backbone=str(machine.backbone)
    )


def faults_of(machine: Machine) -> list[str]:
    with pytest.raises(RecipeError) as refused:
        opened(machine)
    return [line.partition("r.yaml:")[2] for line in str(refused.value).splitlines()]


def test_auto_without_something_for_a_language(machine: Machine, tiny_is_known: None) -> None:
    machine.write("adopt: auto\nmissing: error")
    have = "there are lab-near-high, lab-root"
    what = f"10: no adapter of 'lab-far-low' is known for tiny; {have}"
    assert what in faults_of(machine)
    machine.write("lab-near-high: auto\nlab-root: auto\nlab-far-low: auto")
    assert sorted(faults_of(machine)) == [
        "10: hub:org/near is not locked; run adapterxlt lock RECIPE",
        "11: hub:org/low-rank is not locked; run adapterxlt lock RECIPE",
        f"12: no adapter of 'lab-far-low' is known for tiny; {have}",
    ]


def test_auto_on_a_backbone_that_nothing_is_known_of(machine: Machine) -> None:
    machine.write("adopt: auto")
    stages = list(opened(machine).plan.labels.values())
    assert len([stage for stage in stages if stage.startswith("language adapter")]) == 3
    assert not [stage for stage in stages if stage.startswith("adopt")]
    name = machine.backbone.name
    machine.write("adopt: auto\nmissing: error")
    assert set(faults_of(machine)) == {f"10: no adapters are known for this backbone ({name})"}
    machine.write("lab-far-low: auto")
    assert faults_of(machine) == [f"10: no adapters are known for this backbone ({name})"]


# --- what is known -------------------------------------------------------------------------------


def test_the_table_of_what_is_known() -> None:
    table = {base: known.known_adapters(base) for base in bases.BASES}
    assert {base: len(rows) for base, rows in table.items()} == {
        "xlm-roberta-base": 29, "xlm-roberta-large": 16, "bert-base-multilingual-cased": 47,
    }  # fmt: skip
    text = Path(known.__file__).with_name("madx.tsv").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")][1:]
    assert len(lines) == 29 + 16 + 47, "no language is there twice"
    names = [name for rows in table.values() for name in rows.values()]
    assert len(set(names)) == len(names)
    for base, rows in table.items():
        for name in rows.values():
            assert name.startswith(f"AdapterHub/{base}") and "_pfeiffer" in name
    assert table["xlm-roberta-base"]["tr"] == KNOWN
    assert "tr" not in table["xlm-roberta-large"], "there is none, and none is made up"
    tr = table["bert-base-multilingual-cased"]["tr"]
    assert tr == "AdapterHub/bert-base-multilingual-cased_tr_wiki_pfeiffer"
    assert known.known_adapters("FacebookAI/xlm-roberta-base") == table["xlm-roberta-base"]
    ours = {language.code for language in languages.all_languages()}
    codes = {code for rows in table.values() for code in rows}
    for code in codes:
        try:
            assert languages.get(code).code == code, "recipes know it by this code"
        except languages.UnknownLanguage:
            assert code not in ours
    assert len(codes & ours) >= 40


def test_what_is_known_fetched_and_in_the_store(
    hub: Hub, machine: Machine, saved: dict[str, Files]
) -> None:
    """The repository has a known name; its weights are for the tiny backbone, as the table's
    own would be for theirs."""
    old = hub.add_repo("model", KNOWN, saved["near"], token="secret")
    hub.add_repo("model", KNOWN, saved["moved"], token="secret")
    hub.repositories["model", KNOWN].names["v1"] = old
    listed = call("ls", "adapters", "--backbone", "xlm-roberta-base", "--json")
    machine.write(f"lab-near-high: hub:{KNOWN}@v1")
    reference = f"hub:{KNOWN}@v1"
    hub.cut("GET /cdn/", at=10, times=math.inf)
    lock_it = call("lock", HF_TOKEN="secret")
    none, no_token, cut, half, unknown, table = machine.many(
        listed, call("adopt", reference), lock_it, listed,
        call("ls", "adapters", "--backbone", "xlm-roberta-bass"),
        call("ls", "adapters", "--backbone", "xlm-roberta-large"),
    )  # fmt: skip
    assert no_token.code == 2 and "there is no adapter" in no_token.refusal
    assert cut.code == 1
    assert none.out == half.out, "of what broke off there is nothing"
    rows = json.loads(none.out)
    assert [row["language"] for row in rows] == sorted(known.known_adapters("xlm-roberta-base"))
    assert {(row["fetched"], row["in the store"]) for row in rows} == {("", "")}
    assert unknown.code == 2
    assert unknown.refusal.endswith("did you mean 'xlm-roberta-base'?")
    assert len(table.out.splitlines()) == 1 + 16 and "in the store" in table.out

    def changed(said: Said) -> list[dict[str, str]]:
        return [row for row in json.loads(said.out) if row not in rows]

    hub.heal()
    own = {"backbone": "xlm-roberta-base", "language": "tr", "adapter": f"hub:{KNOWN}"}
    lock, fetched, refused = machine.many(lock_it, listed, call("adopt", reference))
    assert lock.code == 0, lock.err
    assert changed(fetched) == [{**own, "fetched": "yes", "in the store": ""}]
    assert refused.code == 2, "what a branch is has to be asked for each time"

    # Taken over from the branch, and a copy of it from a folder.
    for name, data in saved["near"].items():
        (machine.folder / "copy").mkdir(exist_ok=True)
        (machine.folder / "copy" / name).write_bytes(data)
    adopted, copied, at_last = machine.many(
        call("adopt", reference, HF_TOKEN="secret"),
        call("adopt", "./copy", "--store", "s2"),
        listed,
    )
    assert adopted.code == 0, adopted.err
    found = json.loads(adopted.out)
    assert (found["commit"], found["revision"]) == (old, "v1")
    assert found["reference"] == f"hub:{KNOWN}" and found["adapter"]["method"] == "seq_bn_inv"
    assert found["made_for"] == machine.backbone.name and found["pickle"] is False
    assert changed(at_last) == [{**own, "fetched": "yes", "in the store": found["key"][:12]}]
    assert json.loads(copied.out)["key"] == found["key"], "the same bytes, wherever they are from"
    assert sha256(saved["near"][WEIGHTS]) in machine.objects()


def test_references_that_are_none(machine: Machine, hub: Hub) -> None:
    bad = ["org/near", "hub:near", "hub:org/../near", "hub:org/near@../x", "peft:org/near@"]
    answers = machine.many(*(call("adopt", reference) for reference in bad))
    for reference, said in zip(bad, answers, strict=True):
        assert said.code == 2, said
        assert f"no adapter is called {reference!r}" in said.refusal
    assert hub.log == []


# --- all the way round ---------------------------------------------------------------------------


def test_what_is_exported_and_pushed_is_adopted_with_the_same_scores(
    hub: Hub, machine: Machine
) -> None:
    """A part of a composition that was trained here, in a store that has never seen it."""
    hub.tokens = {"mine": {"lab"}}
    machine.write("budget: {steps: 3, batch: 4, lr: 1e-2}")
    wanted = ("results", "--json", "--where", "target=lab-near-high")
    out = ("out", "--language", "lab-near-high")
    push = call("push", "out", "lab/tagger", "--yes", HF_TOKEN="mine")
    ran, exported, pushed, first = machine.many(
        call("run"), call("export", *out), push, call(*wanted)
    )
    assert [ran.code, exported.code, pushed.code] == [0, 0, 0], (ran, exported, pushed)
    machine.write("lab-near-high: hub:lab/tagger/language\nbudget: {steps: 3, batch: 4, lr: 1e-2}")
    other = ("--store", "other")
    locked, again, second = machine.many(
        call("lock", *other), call("run", *other), call(*wanted, *other)
    )
    assert [locked.code, again.code] == [0, 0], (locked, again)
    assert machine.locked()["hub:lab/tagger/language"]["commit"] in pushed.out
    assert "adopt language lab-near-high from hub:lab/tagger/language@" in again.err
    kept = ("task", "regime", "target", "metric", "score", "n")
    rows = [[[row[k] for k in kept] for row in json.loads(s.out)] for s in (first, second)]
    assert rows[0] == rows[1] and rows[0]
