"""Strict reading: what YAML 1.2 says of scalars, where things stand, and what is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adapterxlt.core.errors import RecipeError
from adapterxlt.core.yamlio import MAX_BYTES, MAX_DEPTH, Document, parse


def faults(text: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        parse(text, "f.yaml")
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-12", -12),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("1e-5", 1e-5),
        ("1.5", 1.5),
        ("-2E3", -2000.0),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("'12'", "12"),
        ('"true"', "true"),
        ("!!str 12", "12"),
        ("2024-01-02", "2024-01-02"),
        ("1:30", "1:30"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(written: str, value: object) -> None:
    read = parse(f"key: {written}\n", "f.yaml").value["key"]
    assert read == value and type(read) is type(value)


def test_nan_is_read_so_that_the_schema_can_refuse_it() -> None:
    assert math.isnan(parse("a: .nan", "f.yaml").value["a"])


def test_lines_of_keys_and_items() -> None:
    document = parse("a: 1\nb:\n  c:\n    - x\n    - {d: 2,\n       e: 3}\n", "f.yaml")
    assert document.where(("a",)) == "f.yaml:1"
    assert document.where(("b", "c", 0)) == "f.yaml:4"
    assert document.where(("b", "c", 1, "e")) == "f.yaml:6"
    assert document.where(("b", "c", 1, "nothing", "here")) == "f.yaml:5"
    assert document.where(("nowhere",)) == "f.yaml:1"


def test_all_duplicate_keys_are_reported_at_once_with_both_lines() -> None:
    assert faults("a: 1\nb: {c: 1, c: 2}\na: 2\nb: 3\n") == [
        "f.yaml:2: duplicate key 'c'; first given in line 2",
        "f.yaml:3: duplicate key 'a'; first given in line 1",
        "f.yaml:4: duplicate key 'b'; first given in line 2",
    ]


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("\na: &x 1\nb: *x\n", 2, "aliases (*name) are not allowed"),
        ("a: !python/name:os.system x\n", 1, "tag"),
        ("\na: !!binary aGk=\n", 2, "tag !!binary is not allowed"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, "tag"),
        ("a: !!set {x: null}\n", 1, "tag"),
        ("a: !custom {x: 1}\n", 1, "tag"),
        ("!custom a: 1\n", 1, "tag"),
        ("a: !!int seven\n", 1, "'seven' is not a number"),
        ("a: !!bool yes\n", 1, "'yes'"),
        ("%YAML 1.1\n---\na: yes\n", 3, "'yes'"),
        ("a: 0b11\n", 1, "'0b11' is not a number"),
        ("? [1, 2]\n: 3\n", 1, "keys are plain words"),
        ("a: [1, 2\n", 2, "not valid YAML"),
        ("a: 1\n---\nb: 2\n", 2, "not valid YAML"),
        ("a: b: c\n", 1, "not valid YAML"),
        ("a: 1\n\tb: 2\n", 2, "not valid YAML"),
    ],
)
def test_what_is_refused_is_refused_in_one_line(text: str, line: int, what: str) -> None:
    (fault,) = faults(text)
    assert fault.startswith(f"f.yaml:{line}: ") and what in fault


def test_a_document_that_contains_itself_is_refused() -> None:
    assert "aliases" in faults("&a [*a]\n")[0]


def test_nesting_is_limited() -> None:
    fine = "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)
    assert parse(fine, "f.yaml").value != []
    assert "nested deeper" in faults("[" + fine + "]")[0]


def test_very_deep_and_very_large_texts_are_faults() -> None:
    assert len(faults("[" * 1_500)) == 1
    assert "larger than" in faults("a: " + "x" * MAX_BYTES)[0]


def test_billion_laughs_are_refused_quickly() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
    assert len(faults("\n".join(lines))) >= 39


_PIECES = st.sampled_from(
    [
        *(
            "a",
            "b: ",
            "- ",
            "\n",
            "  ",
            "[",
            "]",
            "{",
            "}",
            ", ",
            ": ",
            "&x ",
            "*x",
            "!!int ",
            "!t ",
        ),
        *("'", '"', "|", ">", "#", "%", "---", "...", "? ", "<<: ", "1", "0x", "0o9", ".nan", "1e"),
        *("\\", "\\ud800", "\t", "\x00", "\x85", "\ufeff", "é", "%YAML 1.1\n", "_", "~", "@", "`"),
    ]
)


@given(st.one_of(st.text(max_size=60), st.lists(_PIECES, max_size=25).map("".join)))
@example("%YAML 1.1\n---\na: yes\n")
@example("%YAML 9.9\n---\na: 1\n")
@example("%TAG ! x\n---\n!a b\n")
@example("a: !!int ''\n")
@example("a: !!float ''\n")
@example("a: !!null x\n")
@example("a: 0x\n")
@example("? \n")
@example("\ud800")
def test_any_text_is_a_document_or_a_recipe_error(text: str) -> None:
    try:
        document = parse(text, "f.yaml")
    except RecipeError as error:
        assert error.faults and all(fault.where.startswith("f.yaml") for fault in error.faults)
        assert all(str(fault).strip() and "\n" not in str(fault) for fault in error.faults)
    else:
        assert isinstance(document, Document)
        _plain(document.value)


def _plain(value: object) -> None:
    assert isinstance(value, (dict, list, str, int, float, bool, type(None)))
    for item in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        _plain(item)
