"""Data files that were made to do harm: one line with the file, soon, and within some memory."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterxlt.core.errors import DataError
from adapterxlt.corpora import formats, unpacking
from adapterxlt.corpora.formats import MOST_LINE, read
from adapterxlt.corpora.sources import FolderCorpus

SOON = 20.0
NAMES = ["a.jsonl", "a.csv", "a.tsv", "a.conllu", "a.iob2", "a.txt"]


def fault(path: Path, **how: Any) -> str:
    begun = time.monotonic()
    with pytest.raises(DataError) as caught:
        read(path, **how)
    text = str(caught.value)
    assert time.monotonic() - begun < SOON and text.isprintable() and len(text) < 1200
    assert text.startswith(str(path))
    return text.removeprefix(str(path))


@pytest.mark.parametrize("name", NAMES)
def test_no_format_takes_bytes_that_are_no_text(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"a\tO\nb\0c\tO\n")
    assert fault(path).startswith(":2: a byte of zero; text is read as UTF-8")
    path.write_bytes("a\tO\n".encode("utf-16"))
    assert "UTF-16" in fault(path)
    path.write_bytes("a\tO\n".encode("utf-16-le"))
    assert "UTF-16" in fault(path)


@pytest.mark.parametrize("name", NAMES)
def test_a_line_has_an_end(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"a O\n\n" + b"x" * (MOST_LINE + 1) + b"\nb O\n")
    assert fault(path).startswith(":3: a line of more than 10,000,000 bytes")
    path.write_bytes(b"x" * 100 + b"\n" + (b"y" * 99 + b"\n") * (MOST_LINE // 90))
    formats._check_bytes(path, path.read_bytes())


HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder": (Path.mkdir, ": cannot be read: it is a folder"),
    "a pipe": (os.mkfifo, ": cannot be read: it is no plain file"),
    "a device": (
        lambda path: path.symlink_to("/dev/zero"),
        ": cannot be read: it is no plain file",
    ),
    "a loop": (lambda path: path.symlink_to(path), ": cannot be read"),
}


@pytest.mark.parametrize("name", [*NAMES, "a.jsonl.gz", "a.parquet"])
@pytest.mark.parametrize("harm", HARM)
def test_data_are_plain_files(tmp_path: Path, name: str, harm: str) -> None:
    make, said = HARM[harm]
    make(tmp_path / name)
    assert fault(tmp_path / name).startswith(said)


@pytest.mark.parametrize("harm", HARM)
def test_in_a_data_folder_they_are_not_there(tmp_path: Path, harm: str) -> None:
    make, _ = HARM[harm]
    (tmp_path / "udpos" / "fi").mkdir(parents=True)
    make(tmp_path / "udpos" / "fi" / "train.jsonl")
    with pytest.raises(DataError, match="no train data for 'fi'"):
        FolderCorpus(tmp_path).info("udpos", "fi", "train")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": ' + "[" * 100_000, "not JSON: nested too deep"),
        ('{"a": NaN}', "not JSON: NaN is no number that can be meant; write null"),
        ('{"a": -Infinity}', "not JSON: -Infinity is no number"),
        ('{"a": 1e400}', "not JSON: 1e400 is no number"),
        ('{"a": ' + "9" * 6000 + "}", "not JSON: "),
        ('{"a": 1, "a": 2}', "not JSON: the key 'a' is there twice"),
        ('{"a": {"b": 1, "b": 2}}', "not JSON: the key 'b' is there twice"),
        ('{"a": "\\ud800"}', "not JSON: "),
        ('{"\\udfff": 1}', "not JSON: "),
        ('{"a": "\u0007"}', "not JSON: "),
        ("[1]", "a row is a JSON object"),
        ("{}{}", "not JSON: "),
        ("\ufeff{}", "not JSON: "),
    ],
)
def test_json_says_what_it_means(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n' + line + "\n", encoding="utf-8")
    assert fault(path).startswith(f":2: {said}")


def test_labels_and_keys_of_any_size_are_shown_short(tmp_path: Path) -> None:
    folder = tmp_path / "udpos" / "fi"
    folder.mkdir(parents=True)
    for label in ("x" * 100_000, "\x1b[2J\u202e", "\u2028" * 50):
        row = {"tokens": ["a"], "upos": [label]}
        (folder / "train.jsonl").write_text(json.dumps(row), encoding="utf-8")
        with pytest.raises(DataError) as caught:
            FolderCorpus(tmp_path).rows("udpos", "fi", "train")
        text = str(caught.value)
        assert text.isprintable() and len(text) < 700 and "outside the label set" in text
    deep = json.loads("[" * 900 + "]" * 900)
    nli = tmp_path / "nli" / "fi"
    nli.mkdir(parents=True)
    row = {"premise": "a", "hypothesis": "b", "label": deep}
    (nli / "train.jsonl").write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(DataError, match=r"label \[+\.\.\.\]+ is outside"):
        FolderCorpus(tmp_path).rows("nli", "fi", "train")


# What is packed


def bomb(size: int) -> bytes:
    """So many zeros as a gzip file."""
    pack = zlib.compressobj(9, wbits=31)
    piece = b"a b\n" * (1 << 18)
    parts = [pack.compress(piece) for _ in range(size >> 20)]
    return b"".join([*parts, pack.flush()])


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(bomb(300 << 20))
    assert path.stat().st_size < 2 << 20
    assert fault(path).startswith(": cannot be read: it unpacks to more than ")


def test_of_many_members_only_as_much_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "FREE_BYTES", 1000)
    monkeypatch.setattr(unpacking, "MOST_PACKED", 2)
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"x" * 900 + b"\n") * 2)
    assert "unpacks to more than 1,000 bytes" in fault(path)
    path.write_bytes(gzip.compress(b"a\n") + gzip.compress(b"b\n") + b"\0" * 9)
    assert [row["text"] for row in read(path)] == ["a", "b"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-4],
        lambda data: data[:-9],
        lambda data: data[:11],
        lambda data: data[:-8] + b"\0" * 8,
        lambda data: data + b"more",
        lambda data: b"\x1f\x8b",
        lambda data: b"plain text",
    ],
)
def test_what_is_not_whole_is_not_read(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(spoil(gzip.compress(b"a line of text\n" * 50)))
    assert fault(path).startswith(": cannot be read: ")


def test_a_parquet_bomb_is_not_unpacked(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    one = pyarrow.array(["x" * 500_000])
    column = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 20_000, "int32"), one)
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": column[:2]}), path)
    assert [len(row["text"]) for row in read(path)] == [500_000] * 2
    # As it says of itself that it is, and as plain text that is stored but once.
    for said in (True, False):
        parquet.write_table(pyarrow.table({"text": column}), path, store_schema=said)
        assert path.stat().st_size < 2 << 20
        assert "unpacks to more than" in fault(path)
    parquet.write_table(pyarrow.table({"n": pyarrow.nulls(3_000_000)}), path)
    assert "it is not read" in fault(path)


PROGRAM = """
import resource, sys
from pathlib import Path
from adapterxlt.core.errors import DataError
from adapterxlt.corpora.formats import read
resource.setrlimit(resource.RLIMIT_AS, (700 << 20, 700 << 20))
try:
    read(Path(sys.argv[1]))
except DataError as error:
    print(error)
"""


def test_refusing_takes_little_memory(tmp_path: Path) -> None:
    """As a process that may not have more: a bomb, and a file that says it is a terabyte."""
    packed, huge = tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl"
    packed.write_bytes(bomb(2 << 30))
    with huge.open("wb") as file:
        file.truncate(1 << 40)
    for path in (packed, huge):
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(path)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert run.returncode == 0 and run.stdout.startswith(str(path)), run.stderr


# What is unusual and no harm


def test_all_ends_of_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\nthree\r\n\r\n")
    assert [row["text"] for row in read(path)] == ["one", "two", "three"]
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\r\n1,2\n3,4\r\n")
    assert [row["#"] for row in read(path)] == [2, 3]
    path = tmp_path / "a.conllu"
    path.write_bytes(b"1\ta\ta\tX\t_\t_\t0\t_\t_\t_\r\n\r\n1\tb\tb\tX\t_\t_\t0\t_\t_\t_\n")
    assert [row["tokens"] for row in read(path)] == [["a"], ["b"]]


@pytest.mark.parametrize("name", [*NAMES, "a.jsonl.gz"])
def test_empty_files_have_no_rows(tmp_path: Path, name: str) -> None:
    for data in (b"", b"\xef\xbb\xbf", b"\n"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        assert read(path) == []
