"""Parquet: types, refused columns, values out of range, damage."""

from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from format_files import read, refused, types, written


def parquet(tmp_path: Path, table: pa.Table, **options) -> Path:
    path = tmp_path / "t.parquet"
    pq.write_table(table, path, **options)
    return path


def test_parquet_columns_become_the_library_types(tmp_path):
    moment = datetime(2024, 1, 2, 3, 4, 5)
    table = pa.table(
        {
            "i": pa.array([1, None, 3], pa.int8()),
            "f": pa.array([0.5, float("nan"), None], pa.float32()),
            "b": [True, False, None],
            "s": pa.array(["a", None, ""], pa.large_string()),
            "c": pa.array(["x", "y", "x"]).dictionary_encode(),
            "d": pa.array([moment.date(), None, moment.date()]),
            "t": pa.array([moment, None, moment], pa.timestamp("ns", "Asia/Shanghai")),
        }
    )
    found, errors = read(parquet(tmp_path, table), "parquet")
    assert errors.count == 0
    assert list(types(found).values()) == [
        "int64", "double", "bool", "string", "string", "timestamp[us]", "timestamp[us]",
    ]  # fmt: skip
    assert found.to_pylist()[0] == {
        "i": 1, "f": 0.5, "b": True, "s": "a", "c": "x", "d": datetime(2024, 1, 2), "t": moment,
    }  # fmt: skip
    assert found.column("f").to_pylist() == [0.5, None, None]
    assert found.column("s").to_pylist() == ["a", None, ""]


def test_parquet_values_out_of_range_are_rows_and_declared_types_are_parsed(tmp_path):
    table = pa.table(
        {
            "u": pa.array([1, 2**63, 3, 4], pa.uint64()),
            "x": [1.0, 2.0, float("inf"), 4.0],
            "s": ["1", "2", "3", "four"],
        }
    )
    path = parquet(tmp_path, table, row_group_size=2)
    found, errors = read(path, "parquet", s="integer", u="string")
    assert [(e.row, e.column, e.value) for e in errors.first()] == [
        (2, "u", str(2**63)),
        (3, "x", "inf"),
        (4, "s", "four"),
    ]
    assert found.to_pydict() == {"u": ["1"], "x": [1.0], "s": [1]}


def test_parquet_refuses_nested_columns_by_name_and_damage(tmp_path):
    path = parquet(tmp_path, pa.table({"ok": [1], "tags": [[1]], "raw": [b"x"]}))
    error = refused(path, "parquet")
    assert [(one.rule, one.column) for one in error.errors] == [
        ("unsupported_type", "tags"),
        ("unsupported_type", "raw"),
    ]
    assert error.error_count == 2
    whole = parquet(tmp_path, pa.table({"x": list(range(1000))})).read_bytes()
    for at in (4, len(whole) // 2, len(whole) - 40):
        damaged = written(tmp_path, whole[:at] + b"\xff" * 30 + whole[at + 30 :], "damaged.parquet")
        assert refused(damaged, "parquet").errors[0].rule == "damaged_file"
    assert refused(written(tmp_path, b"PAR1PAR1", "short.parquet"), "parquet").errors[0].rule == "damaged_file"


def test_parquet_strings_must_be_utf8(tmp_path):
    broken = pa.array([b"fine", b"\xff\xfe"], pa.binary()).view(pa.string())
    assert refused(parquet(tmp_path, pa.table({"s": broken})), "parquet").errors[0].rule == "damaged_file"
    names = parquet(tmp_path, pa.table({"zzzz": [1, 2]})).read_bytes().replace(b"zzzz", b"\x80\xffzz")
    assert refused(written(tmp_path, names, "names.parquet"), "parquet").errors[0].rule == "damaged_file"
