"""Results files read back as they were written, and what is said of files that are not ones."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterxlt.core.errors import UsageError
from adapterxlt.report.export import COLUMNS, COSTS, FLAGS, INTEGERS, REALS, write
from adapterxlt.report.reading import EMPTY, read

Row = dict[str, Any]


def same(found: list[Row], expected: list[Row]) -> bool:
    """Equal in value and type of every field, and NaN as NaN."""
    return repr(found) == repr([{name: row[name] for name in COLUMNS} for row in expected])


@pytest.fixture
def awkward(rows: list[Row]) -> list[Row]:
    return [
        {**rows[0], "score": math.nan, "draw": None, "regime": 'a "quoted", one\n| line\r\n'},
        {**rows[1], "baseline": None, "target": "язык", "train_key": ""},
        {**rows[2], "score": None, **dict.fromkeys(COSTS), "rows_cut": None},
        {**rows[3], "score": 0.1 + 0.2, "baseline": 1e-17, "flops": 4.65e300},
        {**rows[4], "study": "  spaces ", "task": "none", "source": "1.0"},
        *rows[5:20],
    ]


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet"])
def test_what_was_written_comes_back(awkward: list[Row], suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{suffix}"
    write(awkward, suffix, path)
    first = {**awkward[0], "score": None if suffix == "json" else math.nan}
    assert same(read(path), [first, *awkward[1:]])
    again = tmp_path / f"again.{suffix}"
    write(read(path), suffix, again)
    assert again.read_bytes() == path.read_bytes()


@given(data=st.data())
def test_any_row_comes_back_from_csv(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
    values: dict[str, st.SearchStrategy[Any]] = dict.fromkeys(COLUMNS, text)
    values |= {name: st.integers(-(2**63), 2**63 - 1) for name in INTEGERS}
    values |= {name: st.floats() for name in REALS}
    values |= {name: st.booleans() for name in FLAGS}
    values |= {name: values[name] | st.none() for name in EMPTY}
    row = data.draw(st.fixed_dictionaries(values))
    path = tmp_path_factory.mktemp("any") / "rows.csv"
    write([row], "csv", path)
    assert same(read(path), [row])


def test_a_folder_is_its_csv(rows: list[Row], tmp_path: Path) -> None:
    write(rows, "csv", tmp_path / "results.csv")
    assert same(read(str(tmp_path)), rows)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no results\.csv in this folder"):
        read(tmp_path / "empty")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_what_pandas_wrote_is_read(rows: list[Row], suffix: str, tmp_path: Path) -> None:
    # A column of whole numbers with a hole is 1.0 and NaN there, and flags are True and False.
    frame = pd.DataFrame(rows).drop(columns=[*COSTS, "rows_cut"]).assign(mine="x")
    path = tmp_path / f"rows.{suffix}"
    if suffix == "csv":
        frame.to_csv(path, index=False)
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    else:
        frame.to_parquet(path)
    bare = dict.fromkeys([*COSTS, "rows_cut"])
    assert same(read(path), [{**row, **bare} for row in rows])


def test_files_that_are_not_results(rows: list[Row], tmp_path: Path) -> None:
    def said(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)
        return str(caught.value).replace(f"{tmp_path}/", "")

    with pytest.raises(UsageError, match="no such file"):
        read(tmp_path / "none.csv")
    assert "known: .csv, .json, .parquet" in said("rows.txt", b"")
    assert said("a.csv", b"").startswith("a.csv: not a results file: no column study, task, metric")
    assert "no list of rows" in said("a.json", b"{}")
    assert said("a.json", b'[\n{"a" 1}]').startswith("a.json:2: bad JSON")
    assert "a.parquet: not a Parquet file" in said("a.parquet", b"PAR1 no")
    assert "b.csv: not UTF-8" in said("b.csv", "ö".encode("latin-1"))
    write(rows, "json", tmp_path / "rows.json")
    found = json.loads((tmp_path / "rows.json").read_text())
    del found[3]["score"]
    assert "c.json: not a results file: no column score" in said(
        "c.json", json.dumps(found).encode()
    )
    found[3]["score"] = "high"
    assert said("c.json", json.dumps(found).encode()) == "c.json: row 4: score is no number: 'high'"
    found[3] |= {"score": 0.5, "lab": 1}
    assert "row 4: lab is neither true nor false" in said("c.json", json.dumps(found).encode())
    found[3] |= {"lab": True, "target": None}
    assert "row 4: no value in target" in said("c.json", json.dumps(found).encode())
    found[3] |= {"target": "x", "seed": 1.5}
    assert "row 4: seed is no whole number: 1.5" in said("c.json", json.dumps(found).encode())


def test_a_wrong_line_is_named(rows: list[Row], tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    # The second row takes lines 3 and 4.
    write([rows[0], {**rows[1], "regime": "two\nlines"}, *rows[2:6]], "csv", path)
    lines = path.read_text().split("\n")
    for change, words in {
        lambda line: line + ",x": f"rows.csv:6: {len(COLUMNS) + 1} fields, but {len(COLUMNS)}",
        lambda line: line.replace("true", "yes", 1): "rows.csv:6: primary is neither true nor",
        lambda line: line.replace(",500,", ",many,"): "rows.csv:6: n is no number: 'many'",
        lambda line: line.replace(",500,", ",5_0,"): "rows.csv:6: n is no number: '5_0'",
        lambda line: line.replace(",500,", ",,"): "rows.csv:6: no value in n",
        lambda line: '"' + line: "rows.csv:6: bad CSV",
    }.items():
        path.write_text("\n".join([*lines[:5], change(lines[5]), *lines[6:]]))
        with pytest.raises(UsageError) as caught:
            read(path)
        assert words in str(caught.value)
    write([], "csv", path)
    with pytest.raises(UsageError, match="no rows in this file"):
        read(path)


def test_columns_in_another_order(rows: list[Row], tmp_path: Path) -> None:
    names = random.Random(1).sample(COLUMNS, len(COLUMNS))
    pd.read_csv(_written(rows, tmp_path), dtype=str, keep_default_na=False)[names].to_csv(
        tmp_path / "other.csv", index=False
    )
    assert same(read(tmp_path / "other.csv"), rows)


def test_a_column_given_twice(rows: list[Row], tmp_path: Path) -> None:
    path = _written(rows, tmp_path)
    text = path.read_text()
    path.write_text("".join(f"{line},x\n" for line in text.splitlines()).replace(",x", ",score", 1))
    with pytest.raises(UsageError, match="column score twice"):
        read(path)


def _written(rows: list[Row], folder: Path) -> Path:
    write(rows, "csv", folder / "rows.csv")
    return folder / "rows.csv"


def test_rows_read_back_give_the_same_tables(
    rows: list[Row], tmp_path: Path, rows_of: Callable[..., list[Row]]
) -> None:
    from adapterxlt.report.tables import score_table

    found = read(_written(rows, tmp_path))
    assert score_table(found, "tagging", spread=True) == score_table(rows, "tagging", spread=True)
