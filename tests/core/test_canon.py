"""The canonical form, digests, and everything that is drawn from digests."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterxlt.core.canon import Shared, canonical, derive, digest, sha256_hex, shuffled

_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)  # fmt: skip
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), inner)
    ),
    max_leaves=12,
)


def test_the_canonical_form_does_not_move() -> None:
    value = {"b": [1, 2.0, 1e-5, True, None, "é"], "a": {"z": None, "y": (1,)}, "c": None}
    assert canonical(value) == '{"a":{"y":[1]},"b":[1,2.0,1e-05,true,null,"é"]}'
    golden = "3bbcb1603e1f47937e2050a04de6b136837395dfc62e5cbbfb71ff4eb68f7559"
    assert digest("stage", value) == golden


def test_golden_streams() -> None:
    assert derive(1, "order", 0, "fi") == 6724889525324197910
    assert shuffled(8, 1, "shots", "udpos", "fi") == [2, 4, 5, 7, 3, 1, 0, 6]


def test_none_is_neutral_in_mappings_only() -> None:
    assert digest("t", {"a": 1, "new": None}) == digest("t", {"a": 1})
    assert digest("t", [1, None]) != digest("t", [1])
    assert digest("t", {"a": {"b": None}}) != digest("t", {})


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), [-float("inf")], {"a": float("nan")}]
)
def test_numbers_without_a_form_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="no canonical form"):
        canonical(value)


@pytest.mark.parametrize("value", [{1: 2}, {"a": {None: 1}}, {1, 2}, b"bytes", object()])
def test_things_json_has_no_form_for_are_refused(value: object) -> None:
    with pytest.raises(TypeError):
        canonical(value)


def test_kinds_of_numbers_and_tags_are_told_apart() -> None:
    digests = {digest("t", value) for value in (1, 1.0, True, "1", [1])}
    assert len(digests) == 5
    assert digest("a", 1) != digest("b", 1)
    assert sha256_hex(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def without_none(value: Any) -> Any:
    """A value in which mapping entries that are None are left out."""
    if isinstance(value, dict):
        return {name: without_none(item) for name, item in value.items() if item is not None}
    return [without_none(item) for item in value] if isinstance(value, list) else value


@given(_VALUES)
def test_the_canonical_form_is_what_json_writes(value: object) -> None:
    form = {"sort_keys": True, "separators": (",", ":"), "ensure_ascii": False}
    assert canonical(value) == json.dumps(without_none(value), **form)
    assert canonical(json.loads(canonical(value))) == canonical(value)


def test_subclasses_and_other_mappings_have_the_form_of_what_they_are() -> None:
    class Word(str):
        pass

    class Number(int):
        def __repr__(self) -> str:
            return "a number"

    class Real(float):
        def __repr__(self) -> str:
            return "a real"

    value = MappingProxyType({Word("b"): Word("x"), "a": (Number(3), Real(0.5))})
    assert canonical(value) == '{"a":[3,0.5],"b":"x"}'


@given(st.dictionaries(st.text(max_size=3), _VALUES, max_size=4))
def test_a_shared_mapping_has_the_form_of_a_plain_one(value: dict[str, Any]) -> None:
    shared = Shared(value)
    assert shared == value
    for _ in range(2):
        assert canonical(shared) == canonical(value)
        assert canonical({"x": [shared, 1], "y": None}) == canonical({"x": [value, 1]})
    assert json.loads(json.dumps(shared)) == json.loads(json.dumps(value))


def test_a_shared_mapping_cannot_be_changed_and_travels_as_a_plain_one() -> None:
    shared = Shared({"a": 1, "b": {"c": None}})
    text = canonical(shared)
    changes: list[Any] = [
        lambda: shared.__setitem__("a", 2),
        lambda: shared.__delitem__("a"),
        lambda: shared.__ior__({"a": 2}),
        lambda: shared.update(a=2),
        lambda: shared.setdefault("z", 2),
        lambda: shared.pop("a"),
        shared.popitem,
        shared.clear,
    ]
    for change in changes:
        with pytest.raises(TypeError, match="is not changed"):
            change()
    assert shared == {"a": 1, "b": {"c": None}} and canonical(shared) == text
    sent = pickle.loads(pickle.dumps({"x": shared}))["x"]
    assert type(sent) is dict and sent == shared
    assert type(shared | {"a": 2}) is dict


@given(st.dictionaries(st.text(max_size=3), st.integers(), max_size=6), st.randoms())
def test_the_order_of_fields_does_not_matter(value: dict[str, int], random: object) -> None:
    items = list(value.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    assert digest("t", dict(items)) == digest("t", value)


@given(st.integers(0, 200), st.integers(0, 2**31), st.text(max_size=5))
def test_shuffled_is_a_permutation(n: int, seed: int, purpose: str) -> None:
    order = shuffled(n, seed, purpose)
    assert sorted(order) == list(range(n))
    assert order == shuffled(n, seed, purpose)


def test_shuffled_moves_with_seed_purpose_and_indices() -> None:
    orders = [
        shuffled(50, 1, "a"),
        shuffled(50, 2, "a"),
        shuffled(50, 1, "b"),
        shuffled(50, 1, "a", 0),
    ]
    assert len({tuple(order) for order in orders}) == 4
    assert orders[0] != list(range(50))


def test_the_first_place_is_uniform_over_seeds() -> None:
    first = [shuffled(4, seed, "shots")[0] for seed in range(2000)]
    counts = [first.count(i) for i in range(4)]
    # Standard deviation is 19; five of them.
    assert all(abs(count - 500) < 97 for count in counts)


@given(st.integers(0, 2**31), st.text(max_size=8), st.lists(st.integers() | st.text(), max_size=3))
def test_derived_seeds_fit_in_63_bits(seed: int, purpose: str, indices: list[int | str]) -> None:
    assert 0 <= derive(seed, purpose, *indices) < 2**63


def test_derived_seeds_differ_by_place() -> None:
    seeds = {
        derive(s, p, e, i) for s in (1, 2) for p in ("a", "b") for e in range(5) for i in range(5)
    }
    assert len(seeds) == 100


def test_nothing_depends_on_the_process() -> None:
    program = (
        "from adapterxlt.core.canon import derive, digest, shuffled;"
        "print(derive(7, 'order', 3, 'fi'), shuffled(20, 7, 'shots', 'fi'),"
        " digest('t', {'b': 1, 'a': {'c': 2.5}}))"
    )
    here = f"{derive(7, 'order', 3, 'fi')} {shuffled(20, 7, 'shots', 'fi')} "
    here += digest("t", {"a": {"c": 2.5}, "b": 1})
    root = Path(__file__).resolve().parents[2]
    for seed in ("1", "4242"):
        run = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == here
