"""What changed from one dataset to another: columns, their statistics, and how many rows only one of them has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from learning.row_hashes import bounded_connection, read_batches

_COMPARED = ("missing", "unique", "min", "max", "mean")
# Rows by their hash, each counted up or down: equal rows cancel, however many of them there are.
_COUNT = (
    "SELECT coalesce(sum(greatest(n, 0)), 0)::BIGINT, coalesce(sum(greatest(-n, 0)), 0)::BIGINT FROM ("
    "SELECT sum(side) AS n FROM ("
    "SELECT hash({0}) AS row_hash, 1 AS side FROM after_rows UNION ALL "
    "SELECT hash({0}), -1 FROM before_rows) GROUP BY row_hash)"
)


@dataclass(frozen=True, slots=True)
class RowsDifference:
    """How many rows only one of two tables has, by the values of `columns`: those with the same name and type in both.

    A row that is there twice in one table and once in the other counts as one. Rows are told apart by hashes of 64
    bits, so that among a hundred million different rows one in some thousand answers is off by one.
    """

    columns: list[str]
    added: int
    removed: int


def columns_difference(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the columns `added`, `removed` and `retyped`, and in `changed` each statistic as [before, after].

    Columns are described as in a dataset: name, type and statistics.
    """
    old, new = ({column["name"]: column for column in columns} for columns in (before, after))
    both = [name for name in old if name in new]
    types = {name: [old[name].get("type"), new[name].get("type")] for name in both}
    retyped = {name: pair for name, pair in types.items() if pair[0] != pair[1]}
    return {
        "added": [name for name in new if name not in old],
        "removed": [name for name in old if name not in new],
        "retyped": retyped,
        "changed": {
            name: changes for name in both if name not in retyped and (changes := _changes(old[name], new[name]))
        },
    }


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    pairs = {field: [before.get(field), after.get(field)] for field in _COMPARED}
    return {field: pair for field, pair in pairs.items() if pair[0] != pair[1]}


def rows_difference(before: Path, after: Path, scratch: Path) -> RowsDifference | None:
    """Compare two Arrow files row by row, in bounded memory, spilling to `scratch`; None when no column is in both."""
    old, new = (_schema(path) for path in (before, after))
    types = {field.name: field.type for field in old}
    columns = [field.name for field in new if types.get(field.name) == field.type]
    if not columns:
        return None
    # Positions instead of names: a caller's text never becomes part of a query.
    plain = pa.schema([(f"c{position}", types[name]) for position, name in enumerate(columns)])
    with bounded_connection(scratch) as connection:
        for name, path in (("before_rows", before), ("after_rows", after)):
            batches = (
                pa.record_batch([batch.column(column) for column in columns], schema=plain)
                for batch in read_batches(path)
            )
            connection.register(name, pa.RecordBatchReader.from_batches(plain, batches))
        ((added, removed),) = connection.execute(_COUNT.format(", ".join(plain.names))).fetchall()
    return RowsDifference(columns, added, removed)


def _schema(path: Path) -> pa.Schema:
    with pa.OSFile(str(path), "rb") as file:
        return pa.ipc.open_file(file).schema
