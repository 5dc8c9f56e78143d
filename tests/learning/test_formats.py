"""Recognising files, and properties that hold for every format that writes text."""

import csv
import json
import struct
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from format_files import read, types, written
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from learning.errors import InvalidDataset, UnknownName
from learning.formats import FORMATS, format_named, sniff

PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + bytes(40)
SHARED = Path(__file__).parents[2].parent / "shared" / "data"
EXAMPLES = Path(__file__).parents[2] / "anneal" / "data"


@pytest.mark.parametrize(
    ("filename", "content", "expected", "reason"),
    [
        (
            "a.csv",
            "x,y,z\n1,2,3\n",
            "csv",
            "the name ends in .csv and the first lines have 3 comma-separated fields",
        ),
        ("A.CSV", "x\n1\n", "csv", "the name ends in .csv and the first lines have one field"),
        (
            "a.tsv",
            "x\ty\n1\t2\n",
            "csv",
            "the name ends in .tsv and the first lines have 2 tab-separated fields",
        ),
        ("a.data", "x;y\n1;2\n", "csv", "the first lines all have 2 semicolon-separated fields"),
        ("a.jsonl", '{"x": 1}\n', "jsonl", "the name ends in .jsonl and the first line begins a JSON object"),
        ("a.csv", '{"x": 1, "y": 2}\n{"x": 2}\n', "jsonl", "the first line is a JSON object"),
        ("a.jsonl", "x,y\n1,2\n", "csv", "the first lines all have 2 comma-separated fields"),
    ],
)
def test_content_and_name_decide_the_format(tmp_path, filename, content, expected, reason):
    found, why = sniff(written(tmp_path, content, filename), filename)
    assert (found.name, why) == (expected, reason)


def test_parquet_is_recognised_under_a_wrong_name(tmp_path):
    path = tmp_path / "table.csv"
    pq.write_table(pa.table({"x": [1]}), path)
    found, why = sniff(path, "table.csv")
    assert (found.name, why) == ("parquet", "the file begins and ends with PAR1")


@pytest.mark.parametrize(
    ("filename", "content", "rule", "said"),
    [
        ("photo.csv", PNG, "unknown_format", "a PNG image"),
        ("table.csv", b"", "empty_file", "empty"),
        ("model.csv", b"\x80\x04\x95\x05\x00\x00\x00", "unknown_format", "a Python pickle"),
        ("table.bin", b"\xff\xfe\x00\x00\x00", "unknown_format", "neither its name"),
        (
            "tags.conll",
            b"Anna B-PER\nKim I-PER\n\nreads O\n",
            "unknown_format",
            "its name ends in .conll, but its first lines are not those of conll.",
        ),
        (
            "notes.md",
            b"Only a line, of prose.\nAnd another.\n",
            "unknown_format",
            "Formats: conll, csv, jsonl, parquet, text, zip-coco, zip-files, zip-folders, zip-manifest",
        ),
        (
            "table.jsonl",
            b'[{"x": 1}]\n',
            "unknown_format",
            "Formats: conll, csv, jsonl, parquet, text, zip-coco, zip-files, zip-folders, zip-manifest",
        ),
    ],
)
def test_a_file_in_no_known_format_is_refused_by_name(tmp_path, filename, content, rule, said):
    with pytest.raises(InvalidDataset) as caught:
        sniff(written(tmp_path, content, filename), filename)
    (error,) = caught.value.errors
    assert (error.rule, error.file) == (rule, filename)
    assert said in caught.value.message
    assert caught.value.hint == error.remedy
    assert ("spaces separate no fields" in error.remedy) == filename.endswith(".conll")


def test_an_unknown_format_name_suggests_the_nearest():
    with pytest.raises(UnknownName, match=r'"jsonlines" not found\. Formats: conll, csv, .*, zip-manifest\.'):
        format_named("jsonlines")
    with pytest.raises(UnknownName, match='Did you mean "parquet"'):
        format_named("Parquet")
    assert format_named("csv") is FORMATS["csv"]


SLOW = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=8) | st.sampled_from(
    ['"', '""', "\n", "\r\n", "a,b", " x ", "NA", "1", "true", ";|\t", "\ufeff", "\u2028", "汉字"]
)
ROWS = st.lists(
    st.tuples(
        TEXT,
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none() | st.floats(allow_nan=False, allow_infinity=False),
        st.none() | st.booleans(),
        st.none() | st.datetimes(min_value=datetime(1, 1, 1)),
    ),
    min_size=1,
    max_size=20,
)
DECLARED = {"s": "string", "i": "integer", "x": "number", "b": "boolean", "t": "timestamp"}


@SLOW
@example(rows=[("", None, None, None, None), ("0\r", None, None, None, None)], delimiter=",", ending="\n")
@given(rows=ROWS, delimiter=st.sampled_from(",;\t|"), ending=st.sampled_from(["\n", "\r\n"]))
def test_what_python_writes_as_csv_is_read_back(tmp_path, rows, delimiter, ending):
    path = tmp_path / "random.csv"
    # Before Python 3.13 a carriage return is left bare unless the lines end in it, and a bare one ends a record.
    quoting = csv.QUOTE_ALL if any("\r" in row[0] for row in rows) else csv.QUOTE_MINIMAL
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator=ending, quoting=quoting)
        writer.writerow(DECLARED)
        writer.writerows([*row[:4], row[4] and row[4].isoformat()] for row in rows)
    table, errors = read(path, **DECLARED)
    assert errors.count == 0
    expected = [{"s": row[0] or None, **dict(zip("ixbt", row[1:], strict=True))} for row in rows]
    assert table.to_pylist() == expected


@SLOW
@given(rows=ROWS)
def test_what_python_writes_as_jsonl_is_read_back(tmp_path, rows):
    path = tmp_path / "random.jsonl"
    objects = [
        {"s": s, "i": i, "x": x, "b": b, "t": t and t.isoformat()} for s, i, x, b, t in rows
    ]  # fmt: skip
    path.write_text("\n".join(json.dumps(one) for one in objects), encoding="utf-8")
    table, errors = read(path, "jsonl", **DECLARED)
    assert errors.count == 0
    expected = [dict(zip("sixbt", row, strict=True)) for row in rows]
    assert table.to_pylist() == expected


@SLOW
@given(
    words=st.lists(TEXT.map(lambda text: "w" + text), min_size=2, max_size=12),
    numbers=st.lists(st.integers(-(10**6), 10**6), min_size=12, max_size=12),
    bad=st.none() | st.integers(0, 11),
)
def test_types_are_inferred_and_the_one_bad_cell_is_found(tmp_path, words, numbers, bad):
    cells = [str(number) for number in numbers]
    if bad is not None:
        cells[bad] = "oops"
    rows = [[words[position % len(words)], cell] for position, cell in enumerate(cells)]
    path = tmp_path / "inferred.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["word", "number"], *rows])
    table, errors = read(path)
    assert types(table) == {"word": "string", "number": "int64"}
    assert [(e.row, e.column, e.value) for e in errors.first()] == (
        [] if bad is None else [(bad + 1, "number", "oops")]
    )
    assert table.to_pylist() == [{"word": w, "number": int(n)} for w, n in rows if n != "oops"]


def test_every_real_csv_is_read_as_python_reads_it():
    paths = sorted((SHARED if SHARED.is_dir() else EXAMPLES).glob("*.csv"))
    assert paths, "no data to test with"
    for path in paths:
        with path.open(encoding="utf-8-sig", newline="") as file:
            expected = list(csv.DictReader(file))
        found, reason = sniff(path, path.name)
        assert found.name == "csv", reason
        table, errors = read(path)
        assert errors.count == 0, path.name
        assert table.column_names == list(expected[0])
        assert table.num_rows == len(expected)
        for name in table.column_names:
            kind = table.schema.field(name).type
            convert = {pa.int64(): int, pa.float64(): float, pa.string(): str}.get(kind, datetime.fromisoformat)
            cells = [convert(row[name]) if row[name] else None for row in expected]
            assert table.column(name).to_pylist() == cells, (path.name, name)
