"""Recipes, regimes, claims and overrides that were made to do harm: one line each, and soon."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from adapterxlt.core.errors import AdapterXLTError, RecipeError, UsageError
from adapterxlt.core.loading import load_recipe, parse_recipe, read_claim
from adapterxlt.core.yamlio import MAX_BYTES, MAX_NODES

BASE = """\
name: s
source: en
targets: [fi]
tasks: [udpos]
regimes: [zero-shot, sequential]
shots: [2]
"""
#: Seconds within which all of this is refused, on a machine that does other things too.
SOON = 10.0


def refused(text: str, *overrides: str) -> list[str]:
    begun = time.monotonic()
    with pytest.raises(AdapterXLTError) as caught:
        parse_recipe(text, "r.yaml", overrides)
    assert time.monotonic() - begun < SOON
    lines = str(caught.value).splitlines()
    assert all(line.isprintable() and len(line) < 1200 for line in lines), lines
    return lines


def many(what: str, count: int) -> str:
    return "".join(what.replace("#", str(i)) for i in range(count))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("budget: {lr: 1e400}\n", "r.yaml:7: budget.lr: input should be a finite number"),
        (f"seeds: [{'9' * 5000}]\n", "r.yaml:7: a number of 5,000 characters"),
        (f"seeds: [0x{'f' * 50_000}]\n", "r.yaml:7: a number of 50,002 characters"),
        (f"seeds: [{'9' * 30}]\n", "r.yaml:7: seeds.0: input should be less than 2147483648"),
        ("limits: {train: 2147483648}\n", "r.yaml:7: limits.train: input should be less than"),
        ("budget: " + "[" * 60_000 + "\n", "nested deeper than 12 levels"),
        ("budget: " + "{a: " * 9000 + "\n", "nested deeper than 12 levels"),
        ("budget:\n" + "- " * 50_000 + "\n", "nested deeper than 12 levels"),
        ("budget:\n " + "? " * 9000 + "\n", "nested deeper than 12 levels"),
        ("x:\n" + "".join(" " * i + "a:\n" for i in range(1, 500)), "nested deeper than 12"),
        ("question: " + "x " * MAX_BYTES + "\n", f"larger than {MAX_BYTES:,} bytes"),
        (many("k#: [x, x]\n", MAX_NODES // 3), f"more than {MAX_NODES:,} values"),
        ('"' + "x" * 600 + '": 1\n', "r.yaml:7: a key of 600 characters"),
        ('question: "a\\0b"\n', "r.yaml:7: a control character"),
        ('question: "\\e[2J"\n', "r.yaml:7: a control character"),
        ('question: "\\ud800"\n', "r.yaml:7: a control character, or half a character"),
        ('"\\e[31mred": 1\n', "r.yaml:7: a control character in a key"),
        ("question: a\0b\n", "not valid YAML"),
        ("budgets: {x: &a {}, y: *a}\n", "aliases (*name) are not allowed"),
        ("x: !!python/object/apply:os.system [id]\n", "is not allowed"),
        ("draws: [" + many("#, ", 9000) + "]\nseeds: [" + many("#, ", 9000) + "]\n", "cells"),
        ("regimes: [{name: x, phases: [" + many("{name: p#, languages: [source]}, ", 21) + "]}]",
         "r.yaml:7: duplicate key 'regimes'"),
    ],
)  # fmt: skip
def test_what_was_made_to_do_harm_is_refused_at_its_line(more: str, said: str) -> None:
    assert any(said in line for line in refused(BASE + more))


def test_laughs_are_told_but_not_laughed() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 3000)]
    told = refused("\n".join(lines))
    assert len(told) == 101 and told[-1].startswith("and ") and "aliases" in told[0]


def test_thousands_of_faults_are_told_in_few_lines() -> None:
    assert len(refused(BASE + many("k#: 1\n", 5000))) <= 101
    assert len(refused(BASE.replace("[fi]", f"[{many('zz#, ', 5000)}]"))) <= 101
    assert len(refused(BASE.replace("[2]", f"[{'2, ' * 9000}]"))) <= 101


def test_a_mark_at_the_beginning_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + BASE.encode())
    assert load_recipe(path).recipe.name == "s"
    assert parse_recipe("\ufeff" + BASE, "r.yaml").recipe.name == "s"


def utf16(path: Path) -> None:
    path.write_bytes(BASE.encode("utf-16"))


def latin(path: Path) -> None:
    path.write_bytes(BASE.encode() + b"question: caf\xe9\n")


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder": (Path.mkdir, "it is a folder"),
    "a pipe": (os.mkfifo, "it is no plain file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "it is no plain file"),
    "a loop": (lambda path: path.symlink_to(path), "cannot be read"),
    "a terabyte": (huge, "larger than 200,000 bytes"),
    "UTF-16": (utf16, "not UTF-8: it looks like UTF-16"),
    "Latin-1": (latin, "not UTF-8: byte 0xe9 of line 7"),
}


@pytest.mark.parametrize("name", HARM)
def test_recipes_regimes_and_claims_are_plain_files_of_text(tmp_path: Path, name: str) -> None:
    make, said = HARM[name]
    path = tmp_path / "bad.yaml"
    make(path)
    begun = time.monotonic()
    for read in (load_recipe, read_claim):
        with pytest.raises(UsageError, match=r"^[^\n]*$") as caught:
            read(str(path))
        assert said in str(caught.value) and str(path) in str(caught.value)
    for old, new in (("[zero-shot,", "[bad.yaml,"), ("shots: [2]", "claims: [bad.yaml]")):
        recipe = tmp_path / "r.yaml"
        recipe.write_text(BASE.replace(old, new))
        with pytest.raises(RecipeError) as fault:
            load_recipe(recipe)
        assert said in str(fault.value) and f"{recipe}:" in str(fault.value)
    assert time.monotonic() - begun < SOON


@pytest.mark.parametrize(
    "override",
    [
        "seeds=[" * 9000,
        "seeds=" + "[" * 9000,
        "seeds=" + "9" * 9000,
        "name=" + "x" * 9000,
        'question="\\e[2J"',
        "a." * 50_000 + "b=1",
        "x" * 90_000,
        "x" * 90_000 + "=1",
        "\udcff\udcfe=1",
        "question=\udcff",
        "name=\x1b[2J",
        "seeds+={}",
    ],
)
def test_overrides_are_bounded_and_shown_harmlessly(override: str) -> None:
    refused(BASE, override)
