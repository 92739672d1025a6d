"""Encoded splits through their arrays and their file, against the windows they were made of."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from adapterxlt import lab
from adapterxlt.compute.data import Encoded, Window
from adapterxlt.compute.encoding import encode, encode_text
from adapterxlt.compute.packing import Packed, from_file, pack, to_bytes, unpack
from adapterxlt.core.tasks import TASKS

FILES = itertools.count()
NUMBERS = st.lists(st.integers(0, 2**31 - 1), max_size=6)
SPANS = st.lists(st.tuples(st.integers(0, 9999), st.integers(0, 9999)), max_size=4)
WINDOWS = st.builds(Window, NUMBERS, NUMBERS, NUMBERS, NUMBERS, SPANS)


@st.composite
def splits(draw: st.DrawFn) -> Encoded:
    rows = draw(st.lists(st.lists(WINDOWS, max_size=3).map(tuple), max_size=6))
    cut = draw(st.frozensets(st.integers(0, len(rows) - 1))) if rows else frozenset()
    return Encoded(rows, cut)


def plain(data: Encoded) -> tuple[list[Any], frozenset[int]]:
    """All there is, in lists and tuples alone."""
    rows = [
        [(w.ids, w.positions, w.labels, w.items, [tuple(s) for s in w.spans]) for w in row]
        for row in data.rows
    ]
    return rows, data.cut


def kept(data: Encoded, folder: Path) -> Encoded:
    # A file of its own: what is mapped into memory must not change.
    path = folder / str(next(FILES))
    path.write_bytes(to_bytes(data))
    return from_file(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packed")


def every_kind(tokenizer: Any) -> dict[str, Encoded]:
    found = {}
    for name, of in lab.TASKS.items():
        split = "train" if "train" in of.splits else "test"
        side = "source" if name == "lab-bitext" else None
        rows = [dict(row) for row in lab.rows(name, "lab-mid-low", split)[:30]]
        for row in rows:
            if name == "lab-choice":
                row["label"] = str(row["label"])
        found[name] = encode(tokenizer, TASKS[name], rows, 16, side=side)
    found["text"] = encode_text(tokenizer, ["dud sofu " * 30, "", "dud"], 16)
    return found


def test_every_kind_comes_back_from_its_file(tiny_backbone: Path, folder: Path) -> None:
    found = every_kind(AutoTokenizer.from_pretrained(tiny_backbone))
    assert {TASKS[name].kind for name in lab.TASKS} == {
        "tagging", "classification", "pair-classification", "choice", "qa", "retrieval", "ranking"
    }  # fmt: skip
    assert found["lab-nli"].cut and found["lab-qa"].rows[0][0].spans
    assert any(len(row) > 1 for row in found["lab-pos"].rows)
    for data in found.values():
        for again in (unpack(pack(data)), kept(data, folder)):
            assert plain(again) == plain(data)
            assert all(type(n) is int for n in again.rows[0][0].ids)


@given(splits())
@example(Encoded([]))
@example(Encoded([()]))
@example(Encoded([(), (Window([], [], [], []),), ()], frozenset({1})))
def test_any_windows_come_back(folder: Path, data: Encoded) -> None:
    for again in (unpack(pack(data)), kept(data, folder)):
        assert plain(again) == plain(data)
        assert len(again.rows) == len(data.rows)
        assert to_bytes(again) == to_bytes(data)


@given(splits(), st.data())
@settings(max_examples=50)
def test_rows_are_chosen_in_their_order(folder: Path, data: Encoded, draw: st.DataObject) -> None:
    if not data.rows:
        assert plain(kept(data, folder).choose([])) == ([], frozenset())
        return
    one = draw.draw(st.lists(st.integers(0, len(data.rows) - 1), max_size=8))
    again = kept(data, folder)
    some = again.choose(one)
    rows = [plain(data)[0][i] for i in one]
    cut = {place for place, i in enumerate(one) if i in data.cut}
    for found in (some, data.choose(one)):
        assert plain(found) == (rows, cut)
    if one:
        # Of a choice one may choose again.
        two = draw.draw(st.lists(st.integers(0, len(one) - 1), max_size=8))
        wanted = [rows[i] for i in two], {place for place, i in enumerate(two) if i in cut}
        assert plain(some.choose(two)) == wanted == plain(data.choose(one).choose(two))
        assert plain(kept(some, folder)) == (rows, cut)
        assert plain(Encoded(some.rows[1:]))[0] == rows[1:]
        assert plain(Encoded([some.rows[-1]]))[0] == rows[-1:]
    with pytest.raises(IndexError):
        some.rows[len(one)]


def some_data() -> Encoded:
    windows = [Window(list(range(n)), [0], [n], [0], [(0, n)]) for n in range(1, 30)]
    return Encoded([tuple(windows[:n]) for n in range(29)], frozenset({4, 7}))


def test_what_is_kept_is_mapped_and_not_read(folder: Path) -> None:
    data = kept(some_data(), folder)
    assert isinstance(data.rows, Packed)
    assert data.rows.arrays.keys() == pack(some_data()).keys()
    assert all(isinstance(array, np.memmap) for array in data.rows.arrays.values())
    assert not any(array.flags.writeable for array in data.rows.arrays.values())


def test_choosing_makes_no_windows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = kept(some_data(), folder)

    def never(*_: Any) -> Window:
        raise AssertionError("a window was made")

    monkeypatch.setattr(Packed, "_window", never)
    chosen = data.choose([3, 28, 0, 7])
    assert chosen.cut == {3} and len(chosen.rows) == 4
    with pytest.raises(AssertionError, match="window was made"):
        chosen.rows[0]


@pytest.mark.parametrize("limit", [None, 1, 2, 3, 5, 40])
def test_of_text_no_more_is_tokenized_than_is_wanted(
    limit: int | None, tiny_backbone: Path
) -> None:
    """A line without a sub-word is no row, and another one is looked for in its place."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_backbone)
    lines = ["dud sofu " * 30, "", "dud", " ", "", "sofu dud", "", "dud dud", "sofu"] * 3
    whole, seen = encode_text(tokenizer, lines, 16), list[str]()

    class Watched:
        cls_token_id, sep_token_id = tokenizer.cls_token_id, tokenizer.sep_token_id

        def __call__(self, some: list[str], **how: Any) -> Any:
            seen.extend(some)
            return tokenizer(some, **how)

    found = encode_text(Watched(), lines, 16, limit)
    assert list(found.rows) == list(whole.rows)[:limit]
    assert len(seen) <= (len(lines) if limit is None else 3 * limit + 2)
    assert encode_text(tokenizer, [], 16, limit).rows == []
