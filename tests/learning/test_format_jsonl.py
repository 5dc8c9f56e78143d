"""JSON lines: types, missing keys, and the exact place of every mistake."""

import json

import pytest
from format_files import read, refused, types, written


def test_jsonl_types_missing_keys_and_order(tmp_path):
    path = written(
        tmp_path,
        '{"n": 1, "x": 1, "b": true, "s": "12", "d": "2024-01-02", "e": ""}\n'
        "\n"
        '{"n": null, "x": 2.5, "s": "NA", "late": "z", "d": "2024-01-03T04:05:06"}\r\n'
        '{"n": 3, "b": false, "s": "\\u00e9\\n", "x": -1e-7}',
        "t.jsonl",
    )
    table, errors = read(path, "jsonl")
    assert errors.count == 0
    assert types(table) == {
        "n": "int64", "x": "double", "b": "bool", "s": "string", "d": "timestamp[us]",
        "e": "string", "late": "string",
    }  # fmt: skip
    assert table.to_pylist()[2] == {
        "n": 3, "x": -1e-7, "b": False, "s": "é\n", "d": None, "e": None, "late": None,
    }  # fmt: skip
    assert table.column("e").to_pylist() == ["", None, None]
    assert table.column("s").to_pylist()[:2] == ["12", "NA"]


def test_jsonl_mistakes_are_rows_with_their_places(tmp_path):
    path = written(
        tmp_path,
        '{"n": 1, "t": "a"}\n{"n": "x", "t": "b"}\n\n{"n": 3, "t": ["c"]}\n{"n": 4, "t"\n[5]\n'
        '{"n": 6, "t": "f"}\n{"n": 7, "t": {}}\n{"n": 8}\n',
        "t.jsonl",
    )
    table, errors = read(path, "jsonl")
    assert [(e.rule, e.row, e.column, e.value) for e in errors.first()] == [
        ("wrong_type", 2, "n", "x"),
        ("nested_value", 3, "t", '["c"]'),
        ("invalid_json", 4, None, '{"n": 4, "t"'),
        ("invalid_json", 5, None, "[5]"),
        ("nested_value", 7, "t", "{}"),
    ]
    assert table.to_pydict() == {"n": [1, 6, 8], "t": ["a", "f", None]}
    message = 'Row 3, column "t": lists and objects are not supported in a table. 2 of 8 rows.'
    assert errors.first()[1].message == message


@pytest.mark.parametrize(
    ("content", "rule", "row"),
    [
        (b"\n\n", "no_rows", None),
        (b'{"a": 1}\n{"a": "\xff"}\n', "encoding", 2),
        (b'{"a": 1}\n\n{"a": \0}\n', "nul_byte", 2),
        (b'{"a": 1}\n{"a": "' + b"x" * (5 << 20) + b'"}\n', "record_too_large", 2),
        (b'{"": 1}\n', "empty_column_name", None),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else None,
)
def test_a_jsonl_that_cannot_be_read_says_why_and_where(tmp_path, content, rule, row):
    error = refused(written(tmp_path, content, "t.jsonl"), "jsonl")
    assert (error.errors[0].rule, error.errors[0].row) == (rule, row)


@pytest.mark.parametrize(
    ("objects", "rule"),
    [
        ([{f"k{n}": 1} for n in range(20_000)], "too_many_columns"),
        ([{f"k{n % 5000}": 1} for n in range(5_000)], "sparse_table"),
        ([[1], 2, "x"], "invalid_json"),
        ([{}, {}], "no_rows"),
    ],
    ids=["wide", "sparse", "no objects", "no keys"],
)
def test_a_jsonl_that_is_no_table(tmp_path, objects, rule):
    path = written(tmp_path, "\n".join(json.dumps(one) for one in objects), "t.jsonl")
    assert refused(path, "jsonl").errors[0].rule == rule


def test_hostile_json_is_a_row_error(tmp_path):
    lines = ['{"a": ' + "[" * 100_000, '{"a": 1e999}', '{"a": NaN}', '{"a": "\\ud800"}', '{"a": 5}']
    table, errors = read(written(tmp_path, "\n".join(lines), "t.jsonl"), "jsonl")
    assert errors.by_rule == {"invalid_json": 4}
    assert table.to_pydict() == {"a": [5]}
    assert all(len(error.value) <= 81 for error in errors.first())
