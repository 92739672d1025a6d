"""The other ways in: the command line, recipes, hubs, and what changes between two looks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cases import NO_METHOD, W
from crafting import (
    CONFIG,
    HEAD,
    HEAD_CONFIG,
    LABELS,
    Spoiler,
    fields,
    head,
    inner,
    instead,
    member,
    replaced,
    tensors,
    together,
    without,
)
from scenes import PATIENCE, Scene, refused, soon, told

from adapterxlt.core.errors import (
    AdapterXLTError,
    RecipeError,
    RefusedError,
    StoreDamaged,
    UsageError,
)
from adapterxlt.report.results import collect
from adapterxlt.run import adopting, looking
from adapterxlt.run.hub import adapters as of_hubs
from adapterxlt.run.study import Study
from adapterxlt.store import safeload
from adapterxlt.store.store import Store

OTHERS = head(label2id={f"X{i}": i for i in range(11)})


# --- the command line ----------------------------------------------------------------------------

COMMANDS: dict[str, tuple[str, Spoiler, list[str], tuple[str, ...]]] = {
    "a link": (
        "near",
        instead(CONFIG, lambda path: path.symlink_to("/etc/passwd")),
        [],
        (f"{CONFIG} is a link",),
    ),
    "a key twice, with an escape": (
        "near",
        member("x", '{"\\u001b[2J\\n": 1, "\\u001b[2J\\n": 2}'),
        [],
        (r"the key '\x1b[2J\n' is there twice",),
    ),
    "an expression that warns": (
        "peft",
        fields(target_modules="[[query]"),
        [],
        (f"{NO_METHOD} 'target_modules' '[[query]'",),
    ),
    "other labels": ("pos", OTHERS, ["--task", "lab-pos"], ("labels are not the task's",)),
    "another shape": (
        "near",
        replaced("adapter_up.weight", lambda values: values[:, :8]),
        [],
        ("is (32, 8), not (32, 16)",),
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_line_says_one_line(name: str, scene: Scene) -> None:
    of, spoil, options, said = COMMANDS[name]
    scene.spoiled(of, spoil)
    before = scene.seen()
    call = [sys.executable, "-c", "from adapterxlt.cli import main; main()", "adopt"]
    call += [str(scene.adapter), "--backbone", str(scene.backbone), "--store", str(scene.store)]
    done = subprocess.run([*call, *options], capture_output=True, text=True, timeout=120)
    assert done.returncode == 5 and done.stdout == "", done
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"adapterxlt: {scene.adapter}")
    told(line, said)
    assert scene.seen() == before


# --- recipes -------------------------------------------------------------------------------------

RECIPE = """\
name: plugged
data: lab
source: lab-root
targets: [lab-near-high]
tasks: [lab-pos]
language_adapters: {lab-near-high: ./near, lab-root: ./near}
regimes:
  - name: theirs
    phases: [{name: theirs, adopt: ./pos}]
limits: {train: 40, test: 20, text: 40}
"""


def opened(scene: Scene, near: Spoiler, pos: Spoiler, text: str = RECIPE) -> Study:
    """A study whose recipe plugs in a language adapter and a task adapter, both spoiled."""
    for name, spoil in (("near", near), ("pos", pos)):
        scene.spoiled(name, spoil).rename(scene.root / name)
    (scene.root / "r.yaml").write_text(text)
    return Study.open(scene.root / "r.yaml", store=scene.store, backbone=str(scene.backbone))


def as_it_is(folder: Path) -> None:
    pass


STUDIES: dict[str, tuple[Spoiler, Spoiler, type[Exception], str]] = {
    "other labels": (as_it_is, OTHERS, RefusedError, "./pos: the head's labels are not the task's"),
    "a label less": (
        as_it_is,
        head(label2id={label: i for i, label in enumerate(LABELS[1:])}),
        RefusedError,
        "./pos: 10 labels of 11 outputs",
    ),
    "another kind of head": (
        as_it_is,
        head(head_type="classification"),
        RecipeError,
        "./pos has a head of classification, and lab-pos is tagging",
    ),
    "half a head": (as_it_is, without(HEAD), RecipeError, "./pos has no head for lab-pos"),
    "half of another head": (
        as_it_is,
        without(HEAD_CONFIG),
        RecipeError,
        "./pos has no head for lab-pos",
    ),
    "a language adapter of another backbone": (
        fields(hidden_size=768),
        as_it_is,
        RefusedError,
        "./near: it is for a hidden size of 768",
    ),
    "a language adapter with a number that is none": (
        replaced("adapter_up.bias", lambda values: values * np.inf),
        as_it_is,
        RefusedError,
        f"./near {W}: ",
    ),
    "a language adapter of a billion": (
        inner(reduction_factor=1e-6),
        as_it_is,
        RefusedError,
        "./near: its configuration describes",
    ),
}


@pytest.mark.parametrize("name", STUDIES)
def test_a_recipe_is_not_planned(name: str, scene: Scene) -> None:
    near, pos, error, said = STUDIES[name]
    records = scene.kept()
    with pytest.raises(AdapterXLTError) as caught:
        opened(scene, near, pos)
    assert caught.type is error and caught.value.exit_code == (5 if error is RefusedError else 2)
    told(str(caught.value), (said,))
    assert scene.kept() == records and not (scene.root / "results").exists()


def test_what_only_modules_can_tell_ends_a_run(scene: Scene) -> None:
    """The stage that adopts fails, what needs it is not run, and the run ends as a refusal."""
    narrow = replaced("adapter_up.weight", lambda values: values[:, :8])
    study = opened(scene, narrow, as_it_is)
    outcome = study.run(workers=0)
    assert outcome.exit_code == 5 and len(outcome.failed) == 1 and outcome.blocked
    told(*outcome.failed.values(), said=("./near: ", "is (32, 8), not (32, 16)"))
    assert not collect(study) and scene.bare()


# --- hubs ----------------------------------------------------------------------------------------

LISTED = {
    "../adapter_config.json": "a file has the name '../adapter_config.json'",
    "a/../../b": "a file has the name 'a/../../b'",
    "/etc/passwd": "a file has the name '/etc/passwd'",
    "C:\\x": r"a file has the name 'C:\\x'",
    "C:x": "a file has the name 'C:x'",
    "a\\..\\b": r"a file has the name 'a\\..\\b'",
    "nul": "a file has the name 'nul'",
    "x/COM1.json": "a file has the name 'x/COM1.json'",
    "aux.safetensors": "a file has the name 'aux.safetensors'",
    "adapter_config.json.": "a file has the name 'adapter_config.json.'",
    "adapter_config.json ": "a file has the name 'adapter_config.json '",
    "a//b": "a file has the name 'a//b'",
    "": "a file has the name ''",
    "a\x00b": r"a file has the name 'a\x00b'",
    "a\x1b[31m": r"a file has the name 'a\x1b[31m'",
    "<script>": r"a file has the name '\x3cscript\x3e'",
    "x" * 100_000 + "\n": "a file has the name 'xxx",
}


def listing(monkeypatch: pytest.MonkeyPatch, **sizes: int) -> None:
    """A hub that lists these files and has nothing else to give."""
    siblings = [SimpleNamespace(rfilename=name, size=size) for name, size in sizes.items()]
    answer = SimpleNamespace(sha="0" * 40, siblings=siblings)
    api = SimpleNamespace(model_info=lambda *names, **how: answer)
    constants = SimpleNamespace(HF_HUB_ETAG_TIMEOUT=10)
    hub = SimpleNamespace(HfApi=lambda **how: api, constants=constants)
    client = SimpleNamespace(hub=hub, offline=False, errors=None)
    monkeypatch.setattr(of_hubs, "clients", lambda: client)


@pytest.mark.parametrize("name", LISTED)
def test_a_hub_with_a_name_for_another_place(
    name: str, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing(monkeypatch, **{CONFIG: 10, W: 100, name: 10})
    said = ("hub:org/near@main: ", LISTED[name])
    refused(scene, said, error=RefusedError, within=PATIENCE, reference="hub:org/near")


def test_a_hub_that_lists_too_much(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    listing(monkeypatch, **{CONFIG: 10, W: 3 << 30})
    said = (f"{W} has 3,221,225,472 bytes, more than",)
    refused(scene, said, error=RefusedError, within=PATIENCE, reference="hub:org/near")


# --- between two looks ---------------------------------------------------------------------------


def moved(folder: Path) -> None:
    """Other numbers in a file of the same size."""
    tensors(lambda arrays: {name: values + 1 for name, values in arrays.items()})(folder)


LATER: dict[str, tuple[Spoiler, str]] = {
    "other numbers": (moved, f"{W} is not what it was when it was looked at"),
    "another configuration": (fields(x=1), f"{CONFIG} is not what it was"),
    "no weights": (without(W), f"{W} is not what it was"),
    "a link": (
        instead(W, lambda path: path.symlink_to(path.parent / CONFIG)),
        f"{W} is a link",
    ),
    "a pipe": (instead(W, os.mkfifo), f"{W} is no plain file"),
}


@pytest.mark.parametrize("name", LATER)
def test_what_changes_after_the_look(
    name: str, scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, said = LATER[name]
    # Other numbers than those of other tests, which the store may hold.
    scene.spoiled("near", replaced("adapter_up.bias", lambda values: values + len(name)))
    own = adopting.look_at

    def look_at(*how: Any) -> Any:
        found = own(*how)
        change(scene.adapter)
        return found

    monkeypatch.setattr(adopting, "look_at", look_at)
    records = scene.kept()
    with soon(PATIENCE), pytest.raises(RefusedError) as caught:
        scene.adopt()
    told(str(caught.value), (said,))
    assert scene.kept() == records and scene.bare()


BETWEEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pipe": (os.mkfifo, f"{W} is no plain file"),
    "a link": (lambda path: path.symlink_to("/etc/passwd"), f"{W} is a link"),
    "a folder": (Path.mkdir, f"{W} is no plain file"),
    "3 GiB": (lambda path: (path.touch(), os.truncate(path, 3 << 30)), "3,221,225,472 bytes"),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_what_changes_before_it_is_read(
    name: str, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are looked at, then files are opened: what is opened is what counts."""
    make, said = BETWEEN[name]
    scene.spoiled("near")
    own = safeload.read_plain

    def read_plain(path: Path, where: str) -> bytes:
        if path.name == W:
            instead(W, make)(scene.adapter)
        return own(path, where)

    monkeypatch.setattr(safeload, "read_plain", read_plain)
    with soon(PATIENCE), pytest.raises(RefusedError) as caught:
        looking.read_folder(scene.adapter)
    told(str(caught.value), (said,))


def test_what_grows_while_it_is_read() -> None:
    """A file of the kernel's has bytes and a size of none."""
    growing = Path("/proc/self/status")
    if not growing.exists():
        pytest.skip("the system has no such file")
    with pytest.raises(RefusedError, match="status changes while it is read"):
        safeload.read_plain(growing, "here")


@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root reads every file")
def test_what_may_not_be_read(scene: Scene) -> None:
    scene.spoiled("near", lambda folder: (folder / W).chmod(0))
    said = ("cannot be read: Permission denied",)
    refused(scene, said, error=UsageError, within=PATIENCE)


def test_a_damaged_object_is_no_adapter(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes in the store are checked again when the stage reads them."""
    scene.spoiled("near", replaced("adapter_up.bias", lambda values: values + 99))
    own, records = adopting.bring, scene.kept()

    def bring(store: Store, *rest: Any) -> int:
        count = own(store, *rest)
        for key in set(store.objects()) - before:
            path = store.object_path(key)
            path.write_bytes(path.read_bytes()[:-1] + b"\xff")
        return count

    before = set(Store(scene.store).objects())
    monkeypatch.setattr(adopting, "bring", bring)
    with pytest.raises(StoreDamaged, match="does not match its digest"):
        scene.adopt()
    assert scene.kept() == records and scene.bare()


# --- heads and tasks, without a recipe -----------------------------------------------------------

PAIRS = ["entailment", "neutral", "contradiction"]


def of_outputs(count: int, labels: dict[str, int] | None) -> Spoiler:
    cut = tensors(lambda arrays: {name: v[:count] for name, v in arrays.items()}, HEAD)
    return together(head(num_labels=count, label2id=labels), cut)


TASKLESS: dict[str, tuple[str, Spoiler, str]] = {
    "no head": ("near", as_it_is, "lab-pos"),
    "half a head": ("pos", without(HEAD), "lab-pos"),
    "half of another head": ("pos", without(HEAD_CONFIG), "lab-pos"),
    "tags for pairs": ("pos", of_outputs(3, {n: i for i, n in enumerate(PAIRS)}), "lab-nli"),
    "tags for spans": ("pos", of_outputs(2, None), "lab-qa"),
}


@pytest.mark.parametrize("name", TASKLESS)
def test_a_head_that_is_not_the_tasks(name: str, scene: Scene) -> None:
    of, spoil, task = TASKLESS[name]
    scene.spoiled(of, spoil)
    refused(scene, (), error=RefusedError, within=PATIENCE, task=task)
