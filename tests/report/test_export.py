"""Rows written and read back by independent readers, and rows chosen by column."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from adapterxlt.report.export import COLUMNS, markdown, select, write

Row = dict[str, Any]


@pytest.fixture
def awkward(rows: list[Row]) -> list[Row]:
    return [
        {**rows[0], "score": math.nan, "draw": None, "regime": 'a "quoted", one\n| line'},
        {**rows[1], "baseline": None, "target": "язык"},
        *rows[2:20],
    ]


def text_of(rows: list[Row], fmt: str) -> str:
    out = io.StringIO()
    write(rows, fmt, out)
    return out.getvalue()


def test_csv_reads_back(awkward: list[Row]) -> None:
    text = text_of(awkward, "csv")
    assert next(csv.reader(io.StringIO(text))) == list(COLUMNS)
    frame = pd.read_csv(io.StringIO(text), dtype={"draw": "Int64"})
    pd.testing.assert_series_equal(frame.score, pd.DataFrame(awkward).score)
    assert frame.primary.dtype == bool and list(frame.regime) == [r["regime"] for r in awkward]
    assert frame.draw.isna().tolist() == [row["draw"] is None for row in awkward]
    assert frame.score.isna().sum() == 1 and frame.baseline.isna().sum() == 1


def test_json_reads_back_with_null_for_nan(awkward: list[Row]) -> None:
    found = json.loads(text_of(awkward, "json"), parse_constant=lambda name: pytest.fail(name))
    assert found[0]["score"] is None and list(found[0]) == list(COLUMNS)
    assert found[1:] == awkward[1:]
    assert json.loads(text_of([], "json")) == []


def test_parquet_keeps_nan_and_null_apart(awkward: list[Row], tmp_path: Path) -> None:
    write(awkward, "parquet", tmp_path / "rows.parquet")
    table = pq.read_table(tmp_path / "rows.parquet")
    assert table.column_names == list(COLUMNS)
    found = table.to_pylist()
    assert math.isnan(found[0].pop("score"))
    assert found[0] == {k: v for k, v in awkward[0].items() if k != "score"}
    assert found[1:] == awkward[1:]


def test_markdown_keeps_its_shape(awkward: list[Row]) -> None:
    lines = text_of(awkward, "markdown").splitlines()
    assert len(lines) == len(awkward) + 2
    assert "\\| line" in lines[2]
    assert {line.replace("\\|", "").count("|") for line in lines} == {len(COLUMNS) + 1}
    assert markdown(["a"], [["1"]]) == "| a |\n| --- |\n| 1 |\n"


@pytest.mark.parametrize("fmt", ["csv", "json", "markdown"])
def test_bytes_are_stable_wherever_they_go(rows: list[Row], fmt: str, tmp_path: Path) -> None:
    binary = io.BytesIO()
    write(rows, fmt, binary)
    write(iter(rows), fmt, tmp_path / "rows")
    reordered = [dict(reversed(row.items())) for row in rows]
    assert binary.getvalue() == (tmp_path / "rows").read_bytes()
    assert binary.getvalue() == text_of(reordered, fmt).encode()
    assert b"\r" not in binary.getvalue()


def test_parquet_goes_through_the_buffer_of_a_text_stream(rows: list[Row]) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw)
    write(rows, "parquet", stream)
    assert raw.getvalue()[:4] == b"PAR1"
    with pytest.raises(ValueError, match="binary"):
        write(rows, "parquet", io.StringIO())


def test_a_bad_call_writes_nothing(rows: list[Row], tmp_path: Path) -> None:
    path = tmp_path / "rows"
    with pytest.raises(ValueError, match="did you mean 'parquet'"):
        write(rows, "parqet", path)
    with pytest.raises(ValueError, match="row 1 lacks score"):
        write([rows[0], {k: v for k, v in rows[1].items() if k != "score"}], "csv", path)
    with pytest.raises(ValueError, match="row 0 has also colour"):
        write([{**rows[0], "colour": 1}], "csv", path)
    assert not path.exists()


def test_select(rows: list[Row]) -> None:
    chosen = select(rows, {"regime": "joint", "shots": 100})
    assert chosen == [r for r in rows if r["regime"] == "joint" and r["shots"] == 100]
    assert len(chosen) == 28
    assert select(rows, {"shots": "100", "regime": ["joint"]}) == chosen
    assert select(rows, {"draw": "none"}) == select(rows, {"draw": None})
    assert select(rows, {"upper_bound": "true"}) == select(rows, {"regime": "oracle-stop"})
    assert select(rows, {}) == rows
    with pytest.raises(ValueError, match="did you mean 'regime'"):
        select(rows, {"regmie": "joint"})
