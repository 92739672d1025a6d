"""Formats: what each reads as, and the line at which each fault is named."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterxlt.core.errors import DataError
from adapterxlt.corpora.formats import aligned, format_of, parse, read, read_aligned, stems

HERE = Path("file")


def put(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def fault(path: Path, **more: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(path, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.jsonl", "jsonl"),
        ("a.json", "jsonl"),
        ("xnli.test.tsv.gz", "tsv"),
        ("a.CSV", "csv"),
        ("de-ud-test.conllu", "conllu"),
        ("a.conll", "iob2"),
        ("a.iob2.gz", "iob2"),
        ("a.bio", "iob2"),
        ("a.parquet", "parquet"),
        ("a.txt", "text"),
    ],
)
def test_the_end_of_a_name_tells_the_format(name: str, format: Any) -> None:
    assert format_of(Path(name)) == format
    assert format_of(Path(name), "text") == "text"


@pytest.mark.parametrize("name", ["train", "train.dat", "jsonl", "a.gz", "a.jsonl.bak"])
def test_another_name_has_to_be_told(tmp_path: Path, name: str) -> None:
    path = put(tmp_path, name, gzip.compress(b"") if name.endswith(".gz") else "a b\n")
    text = fault(path)
    assert text.startswith(f"{path}: the file's name does not say its format; say format: one of")
    assert "jsonl, csv, tsv, conllu, iob2, parquet, text" in text


def test_of_two_files_of_a_split_always_the_same_is_read(tmp_path: Path) -> None:
    for name in ("train.csv", "train.jsonl", "train.jsonl.gz", "dev.tsv", "b.parquet", "x.py"):
        put(tmp_path, name, "")
    found = {stem: path.name for stem, path in stems(tmp_path).items()}
    assert found == {"b": "b.parquet", "dev": "dev.tsv", "train": "train.jsonl.gz"}
    assert stems(tmp_path / "none") == {}


def test_columns_are_renamed_after_reading(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", "left,right,more\n1,2,3\n")
    columns = {"left": "right", "right": "left", "label": "more", "id": "none"}
    assert read(path, columns=columns) == [{"left": "2", "right": "1", "label": "3", "#": 2}]
    assert read(path, columns={"label": "left"}) == [
        {"label": "1", "right": "2", "more": "3", "#": 2}
    ]


TEXTS = ["a.jsonl", "a.csv", "a.tsv", "a.conllu", "a.iob2", "a.txt"]


@pytest.mark.parametrize("name", TEXTS)
def test_every_text_format_may_be_packed_and_begin_with_a_mark(tmp_path: Path, name: str) -> None:
    cells = "\t".join(["1", "Kissa", "kissa", "NOUN", "N", *"_____"])
    text = {
        "a.jsonl": '{"text": "ä"}\n',
        "a.csv": "text\nä\n",
        "a.tsv": "text\tid\nä\t1\n",
        "a.conllu": f"{cells}\n\n",
        "a.iob2": "ä\tO\n",
        "a.txt": "ä\n",
    }[name]
    plain = read(put(tmp_path, name, text))
    packed = put(tmp_path, f"{name}.gz", text)
    assert plain and read(packed) == plain
    assert read(put(tmp_path, name, b"\xef\xbb\xbf" + text.encode())) == plain
    whole = packed.read_bytes()
    for bad in (whole[:-9], whole[:4], b"no gzip"):
        packed.write_bytes(bad)
        assert fault(packed).startswith(f"{packed}: cannot be read: ")


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_not_utf_8_is_named_with_its_line(tmp_path: Path, name: str) -> None:
    path = put(tmp_path, name, b"\n\n\xe9\tO\n")
    assert fault(path).startswith(f"{path}:3: not ")
    assert "cannot be read" in fault(tmp_path / f"none{path.suffix}")


def test_json_bytes_that_hide_half_a_character_are_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", b'{"text": "\xed\xa0\x80"}\n')
    assert fault(path).startswith(f"{path}:1: not JSON")
    path = put(tmp_path, "b.jsonl", '[\n{"text": "a"}\n]\n')
    assert fault(path).startswith(f"{path}:1: not JSON")


# Tables


def test_a_quoted_cell_holds_anything_and_lines_are_counted(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", 'text,label\n"one, ""two""\nthree",x\n\nfour\u2028five,y\n')
    assert read(path) == [
        {"text": 'one, "two"\nthree', "label": "x", "#": 2},
        {"text": "four\u2028five", "label": "y", "#": 5},
    ]


@given(
    st.lists(
        st.tuples(
            *[
                st.text(
                    st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12
                )
            ]
            * 2
        ),
        max_size=5,
    ),
    st.sampled_from(["csv", "tsv"]),
)
def test_what_the_csv_module_writes_is_read_back(rows: list[tuple[str, str]], format: Any) -> None:
    out = io.StringIO(newline="")
    table = csv.writer(out, delimiter="," if format == "csv" else "\t", quoting=csv.QUOTE_ALL)
    table.writerows([("a", "b"), *rows])
    found = parse(HERE, out.getvalue().encode(), format)
    assert [(row["a"], row["b"]) for row in found] == rows


def test_a_table_with_bare_quotation_marks_is_read_as_it_stands(tmp_path: Path) -> None:
    text = 'a\tb\n"Yes" he said\tx\n"no\ty\n'
    assert [row["a"] for row in read(put(tmp_path, "a.tsv", text))] == ['"Yes" he said', '"no']
    path = put(tmp_path, "a.csv", text.replace("\t", ","))
    assert f"{path}:2: not a table" in fault(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n3\n", ":3: 1 cells under 2 columns"),
        ('a,b\n"1\n2",2\n3,4,5\n', ":4: 3 cells under 2 columns"),
        ("a,b, a\n", ":1: column 'a' is twice in the header"),
        ('a,b\n1,"2\n3,4\n', ":2: not a table"),
    ],
)
def test_faults_of_tables_are_at_their_line(tmp_path: Path, text: str, words: str) -> None:
    for name, separator in (("a.csv", ","), ("a.tsv", "\t")):
        if separator == "\t" and "not a table" in words:
            continue  # there the mark is read as a letter, and both lines are whole
        path = put(tmp_path, name, text.replace(",", separator))
        assert f"{path}{words}" in fault(path)


def test_long_cells_and_empty_tables(tmp_path: Path) -> None:
    long = "x" * 300_000
    assert read(put(tmp_path, "a.csv", f"a\n{long}\n"))[0]["a"] == long
    assert read(put(tmp_path, "a.csv", "a,b\n")) == read(put(tmp_path, "b.csv", "")) == []


# Tagged words

CONLLU = """\
# newdoc
# sent_id = one
# text = Vámonos ya
1-2	Vámonos	_	_	_	_	_	_	_	_
1	Vamos	ir	VERB	V	_	0	root	_	_
2	nos	yo	PRON	P	_	1	obj	_	_
2.1	eso	eso	PRON	P	_	_	_	1:obj	_
3	New York	NY	PROPN	_	_	1	x	_	_

# sent_id = two
1	Ya	ya	ADV	_	_	0	root	_	_

1	Sí	sí	INTJ	_	_	0	root	_	_
"""


def test_syntactic_words_of_universal_dependencies(tmp_path: Path) -> None:
    first, second, third = read(put(tmp_path, "a.conllu", CONLLU))
    assert first == {
        "id": "one",
        "tokens": ["Vamos", "nos", "New York"],
        "lemmas": ["ir", "yo", "NY"],
        "upos": ["VERB", "PRON", "PROPN"],
        "xpos": ["V", "P", "_"],
        "#": 1,
    }
    assert (second["id"], second["tokens"], second["#"]) == ("two", ["Ya"], 10)
    assert (third["tokens"], third["#"], "id" in third) == (["Sí"], 13, False)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("2\tnos\tyo", "2\tnos", ":6: 9 columns, but CoNLL-U has 10"),
        ("2\tnos", "3\tnos", ":6: word '3' where 2 is next"),
        ("2\tnos", "x\tnos", ":6: word 'x' where 2 is next"),
        ("_\n\n1\tSí", "_\n1\tSí", ":12: word '1' where 2 is next; a blank line ends a sentence"),
    ],
)
def test_faults_of_conllu_are_at_their_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in CONLLU
    path = put(tmp_path, "a.conllu", CONLLU.replace(old, new))
    assert f"{path}{words}" in fault(path)


@pytest.mark.parametrize("separator", ["\t", " ", "   "])
def test_words_with_tags(tmp_path: Path, separator: str) -> None:
    lines = [
        "-DOCSTART- -X- O O",
        "",
        "# id = 7 about something",
        "# id O",
        "EU NNP B-ORG",
        "# SYM O",
        "\u00a0 X O",
        "",
        "   ",
        "Bonn NNP I-LOC",
    ]
    lines = [line if line[:2] in ("# ", "-D") else line.replace(" ", separator) for line in lines]
    lines[5] = lines[5].replace(" ", separator)
    path = put(tmp_path, "a.conll", "\r\n".join(lines))
    first, second = read(path)
    assert first["tokens"] == ["EU", "#", "\u00a0"] and first["tags"] == ["B-ORG", "O", "O"]
    assert second == {"tokens": ["Bonn"], "tags": ["I-LOC"], "#": 10}
    assert first["#"] == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a O\nb\n", ":2: a line is a word and, last, its tag"),
        ("a\tO\n\tO\n", ":2: a line is a word and, last, its tag"),
        ("a\tO\nb\t\n", ":2: a line is a word and, last, its tag"),
        ("a O\nNew York B-LOC\n", ":2: 3 columns, but lines before have 2"),
        ("a\tO\n#\n", ":2: a line is a word and, last, its tag"),
    ],
)
def test_faults_of_tagged_words_are_at_their_line(tmp_path: Path, text: str, words: str) -> None:
    path = put(tmp_path, "a.bio", text)
    assert fault(path).startswith(f"{path}{words}")


# Plain text


def test_a_line_of_text_is_a_row(tmp_path: Path) -> None:
    path = put(tmp_path, "a.txt", "ein\u2028s\r\n\n  zwei \nthree")
    assert read(path) == [
        {"text": "ein\u2028s", "#": 1},
        {"text": "  zwei ", "#": 3},
        {"text": "three", "#": 4},
    ]


def test_aligned_files_are_read_side_by_side(tmp_path: Path) -> None:
    paths = {
        "source": put(tmp_path, "t.fin", "yksi\n\nkaksi\n"),
        "target": put(tmp_path, "t.eng.gz", "one\n\ntwo"),
    }
    assert read_aligned(paths, {"text": "target"})[2] == {"source": "kaksi", "text": "two", "#": 3}
    with pytest.raises(DataError) as caught:
        aligned(paths, {"source": b"a\nb\n", "target": b"a\nb\n\n"})
    assert str(caught.value).startswith(f"{paths['target']}: 3 lines, but {paths['source']} has 2")


# Parquet


def features(**of: Any) -> dict[bytes, bytes]:
    return {b"huggingface": json.dumps({"info": {"features": of}}).encode()}


def parquet(path: Path, columns: dict[str, Any], metadata: Any = None) -> Path:
    import pyarrow
    from pyarrow import parquet as files

    files.write_table(pyarrow.table(columns).replace_schema_metadata(metadata), path)
    return path


def test_class_numbers_become_names(tmp_path: Path) -> None:
    label = {"names": ["no", "yes"], "_type": "ClassLabel"}
    columns = {
        "label": [0, 1, -1, None],
        "tags": [[1, 0], [], [1], [0]],
        "old": [[0], [1], [0], [0]],
        "each": [{"a": [0, 1], "b": ["x", "y"]}] * 4,
        "number": [0, 1, 1, 0],
    }
    metadata = features(
        label=label,
        tags={"feature": label, "_type": "Sequence"},
        old=[label],
        each={"feature": {"a": label, "b": {"dtype": "string"}}, "_type": "Sequence"},
        number={"dtype": "int64", "_type": "Value"},
    )
    rows = read(parquet(tmp_path / "a.parquet", columns, metadata))
    assert [row["label"] for row in rows] == ["no", "yes", -1, None]
    assert [row["tags"] for row in rows] == [["yes", "no"], [], ["yes"], ["no"]]
    assert [row["old"] for row in rows] == [["no"], ["yes"], ["no"], ["no"]]
    assert rows[0]["each"] == {"a": ["no", "yes"], "b": ["x", "y"]}
    assert [row["number"] for row in rows] == [0, 1, 1, 0]
    assert [row["#"] for row in rows] == [1, 2, 3, 4]


@pytest.mark.parametrize("metadata", [None, {b"huggingface": b"{"}, {b"huggingface": b"[]"}])
def test_without_class_names_numbers_stay(tmp_path: Path, metadata: Any) -> None:
    path = parquet(tmp_path / "a.parquet", {"label": [0, 1]}, metadata)
    assert [row["label"] for row in read(path)] == [0, 1]
    whole = path.read_bytes()
    for bad in (whole[:-3], b"", b"PAR1"):
        path.write_bytes(bad)
        assert fault(path).startswith(f"{path}: not a Parquet file: ")
