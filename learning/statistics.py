"""Exact statistics of a dataset's columns, within bounded memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from learning.column_type import ColumnType
from learning.formats.format import ARROW_TYPES

if TYPE_CHECKING:
    import duckdb

_SHOWN_LENGTH = 256
_MEMORY = "256MB"
# The columns of a small table share queries; those of a larger one come one by one, to bound the memory.
_COLUMNS = 20
_SMALL_BYTES = 16 << 20

_KINDS: dict[pa.DataType, ColumnType] = {arrow: kind for kind, arrow in ARROW_TYPES.items()}
_AGGREGATES: dict[ColumnType, str] = {
    "string": "count({0}), count(DISTINCT {0}), NULL, NULL, NULL",
    "boolean": "count({0}), count(DISTINCT {0}), NULL, NULL, NULL",
    "timestamp": "count({0}), count(DISTINCT {0}), min({0}), max({0}), NULL",
    # avg of integers is exact; favg adds floats with compensation.
    "integer": "count({0}), count(DISTINCT {0}), min({0}), max({0}), avg({0})",
    "number": "count({0}), count(DISTINCT {0}), min({0}), max({0}), favg({0})",
}
# Columns of several types meet in one result, so their values travel as text.
_TOP = (
    "SELECT {0}, value::VARCHAR, n FROM (SELECT c{0} AS value, count(*) AS n FROM part "
    "WHERE c{0} IS NOT NULL GROUP BY c{0} ORDER BY n DESC, c{0} LIMIT 10)"
)
_READ: dict[ColumnType, Callable[[str], Any]] = {
    "string": str,
    "boolean": "true".__eq__,
    "integer": int,
}


@dataclass(frozen=True, slots=True)
class TopValue:
    """A value and how many rows have it; a string longer than 256 characters is cut, with an ellipsis."""

    value: str | int | bool
    count: int


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a dataset.

    `min` and `max` are given for numbers and, as ISO 8601, for timestamps; `mean` for numbers; `top`, the
    most frequent values, for strings, booleans and integers.
    """

    name: str
    type: ColumnType
    nullable: bool
    missing: int
    unique: int
    min: int | float | str | None
    max: int | float | str | None
    mean: float | None
    top: list[TopValue]


def column_statistics(path: Path, report: Callable[[str, float], None]) -> list[Column]:
    """Return the statistics of every column of an Arrow file; reports the phase "statistics"."""
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
        columns: list[Column] = []
        share = _COLUMNS if table.nbytes <= _SMALL_BYTES else 1
        with bounded_connection(path.parent) as connection:
            for start in range(0, table.num_columns, share):
                columns += _described(connection, table.select(range(start, min(start + share, table.num_columns))))
                report("statistics", len(columns) / table.num_columns)
        return columns


@contextmanager
def bounded_connection(directory: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database of nothing, with one thread and bounded memory, that spills to `directory`."""
    # Imported here because it costs every start of a process.
    import duckdb

    settings: dict[str, str | bool | int | float | list[str]] = {
        "threads": 1,
        "memory_limit": _MEMORY,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    with (
        tempfile.TemporaryDirectory(dir=directory, prefix="statistics-") as spill,
        duckdb.connect(":memory:", config=settings) as connection,
    ):
        connection.execute("SET temp_directory = ?", [spill])
        connection.execute("SET enable_external_access = false")
        yield connection


def _described(connection: duckdb.DuckDBPyConnection, table: pa.Table) -> list[Column]:
    kinds = [_KINDS[field.type] for field in table.schema]
    # Positions instead of names: a caller's text never becomes part of a query.
    connection.register("part", table.rename_columns([f"c{position}" for position in range(len(kinds))]))
    totals = _totals(connection, kinds)
    tops = _tops(connection, kinds)
    connection.unregister("part")
    columns = []
    for name, kind, total, top in zip(table.column_names, kinds, totals, tops, strict=True):
        present, unique, low, high, mean = total
        missing = table.num_rows - present
        columns.append(Column(name, kind, missing > 0, missing, unique, _json(low), _json(high), mean, top))
    return columns


def _totals(connection: duckdb.DuckDBPyConnection, kinds: list[ColumnType]) -> Iterator[tuple[Any, ...]]:
    """Yield each column's count of values, count of distinct values, minimum, maximum and mean."""
    wanted = [_AGGREGATES[kind].format(f"c{position}") for position, kind in enumerate(kinds)]
    # All rows are fetched: an unfinished result keeps the connection busy.
    (row,) = connection.execute(" ".join(["SELECT", ", ".join(wanted), "FROM part"])).fetchall()
    return (row[start : start + 5] for start in range(0, len(row), 5))


def _tops(connection: duckdb.DuckDBPyConnection, kinds: list[ColumnType]) -> list[list[TopValue]]:
    """Return each column's most frequent values, equal counts in the values' order."""
    queries = [_TOP.format(position) for position, kind in enumerate(kinds) if kind in _READ]
    found: list[list[tuple[int, Any]]] = [[] for _ in kinds]
    for position, text, count in connection.execute(" UNION ALL ".join(queries)).fetchall() if queries else []:
        found[position].append((-count, _READ[kinds[position]](text)))
    return [[TopValue(_shown(value), -count) for count, value in sorted(values)] for values in found]


def _json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _shown(value: Any) -> Any:
    return value[:_SHOWN_LENGTH] + "…" if isinstance(value, str) and len(value) > _SHOWN_LENGTH else value
