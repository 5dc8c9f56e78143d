"""Deciding each column's type over a whole file of text cells, and parsing the cells to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pyarrow as pa

from learning.column_type import AnyType, ColumnType, is_media
from learning.errors import InvalidDataset, RowError, UnknownName, did_you_mean
from learning.formats.cells import count_kinds, parse, texts
from learning.formats.format import ARROW_TYPES, MAX_COLUMNS
from learning.formats.row_errors import KEPT, RowErrors, invalid_file, shortened

_SHOWN_NAMES = 10
_NOUNS: dict[ColumnType, str] = {
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "timestamp": "an ISO 8601 date or time",
    "strings": "a list of strings",
}


@dataclass(frozen=True, slots=True)
class Records:
    """Some records of a file as text columns; null is a cell without a value.

    `rows` holds each record's number in the file, from 1 without the header; `bad` marks those in which the reader
    has found a mistake already, so that their other cells are checked but they are left out.
    """

    rows: np.ndarray[Any, np.dtype[np.int64]]
    columns: pa.RecordBatch
    bad: np.ndarray[Any, np.dtype[np.bool_]] | None = None


class Survey:
    """Counts, column by column, how many cells would parse as each type."""

    def __init__(self, declared: Mapping[str, ColumnType]) -> None:
        self.names: list[str] = []
        self._declared = declared
        self._counts: dict[str, Counter[str]] = {}

    def add(self, name: str, cells: pa.Array, guess: ColumnType | None = None) -> pa.Array:
        """Count some cells of a column; a column not seen before joins at the end.

        Returns them as values of the type guessed for the column if they are that without exception, else as they are.
        """
        if name not in self._counts:
            self.names.append(name)
            self._counts[name] = Counter()
        if name in self._declared:
            return cells
        values = count_kinds(cells, self._counts[name], guess)
        return cells if values is None else values

    def present(self, name: str) -> int:
        """Return how many of a column's cells hold a value."""
        return self._counts[name]["present"]

    def types(self, quoted: frozenset[str] = frozenset()) -> dict[str, ColumnType]:
        """Return each column's type: the declared one, else what its cells say.

        `quoted` columns hold strings by their file's own syntax, so they are never numbers or booleans.
        """
        return {name: self._declared.get(name) or self._decide(name, quoted) for name in self.names}

    def _decide(self, name: str, quoted: frozenset[str]) -> ColumnType:
        counts = self._counts[name]
        present = counts["present"]
        if _most(counts["timestamp"], present):
            return "timestamp"
        if not present or name in quoted:
            return "string"
        if _nearly_all(counts["boolean"], present):
            return "boolean"
        numbers = counts["number"]
        if _most(numbers, present):
            return "integer" if counts["integer"] == numbers else "number"
        return "string"


def _most(count: int, present: int) -> bool:
    """Return whether so many cells say what a column is: three in four do, and the fourth cell is a mistake."""
    return 0 < count == present or (count >= 2 and 4 * count >= 3 * present)


def _nearly_all(count: int, present: int) -> bool:
    """Return the same for true and false, beside which a third value, "mixture" or "unknown", is often a class."""
    return 0 < count == present or 20 * count >= 19 * present


def check_declared(declared: Mapping[str, str], names: Iterable[str]) -> None:
    """Raise UnknownName for the declared columns that the file lacks and the types that do not exist, all of them."""
    known, kinds = list(names), get_args(ColumnType)
    shown = ", ".join(known[:50]) + (", …" if len(known) > 50 else "")
    found = []
    for name, kind in declared.items():
        if name not in known:
            found.append(f'Column "{name}" in column_types not found. Columns: {shown}.{did_you_mean(name, known)}')
        elif kind not in kinds:
            no_type = f'Column "{name}" in column_types: no type "{kind}". Types: {", ".join(kinds)}.'
            found.append(no_type + did_you_mean(kind, kinds))
    if found:
        more = f" And {len(found) - _SHOWN_NAMES} more like these." if len(found) > _SHOWN_NAMES else ""
        raise UnknownName(" ".join(found[:_SHOWN_NAMES]) + more, param="column_types")


def check_names(names: list[str], filename: str) -> None:
    """Raise InvalidDataset for too many columns, or for all that have no name or share one."""
    if len(names) > MAX_COLUMNS:
        raise invalid_file(
            "too_many_columns",
            f"At least {len(names)} columns; at most {MAX_COLUMNS} are allowed.",
            "Remove columns.",
            file=filename,
        )
    errors = [
        RowError("empty_column_name", f"Column {position} has no name.", "Name every column.", filename, None, "", None)
        for position, name in enumerate(names, start=1)
        if not name
    ]
    for name, count in Counter(filter(None, names)).items():
        if count > 1:
            message, remedy = f'{count} columns are named "{name}".', "Give every column its own name."
            errors.append(RowError("duplicate_column", message, remedy, filename, None, name, shortened(name)))
    if errors:
        raise InvalidDataset(
            errors[0].message,
            errors[:KEPT],
            error_count=len(errors),
            errors_by_rule=Counter(error.rule for error in errors),
            hint=errors[0].remedy,
        )


def typed(records: Records, types: Mapping[str, AnyType], errors: RowErrors) -> pa.RecordBatch:
    """Parse the text columns to their types and leave out the records with a cell that does not parse.

    A column that already has its type passes through.
    """
    keep = np.ones(len(records.rows), dtype=bool) if records.bad is None else ~records.bad
    columns = []
    for name, kind in types.items():
        cells = records.columns.column(name)
        if is_media(kind):
            columns.append(cells)
            continue
        values, bad = parse(cells, kind)
        columns.append(values)
        if bad is not None:
            keep &= ~bad
            report_bad_cells(errors, name, kind, records.rows[bad], cells.filter(pa.array(bad)))
    batch = pa.record_batch(columns, schema=schema_of(types))
    if not keep.all():
        written = records.columns.select([name for name in types if not is_media(types[name])])
        errors.set_aside(records.rows[~keep], written.filter(pa.array(~keep)))
        batch = batch.filter(pa.array(keep))
    if len(records.rows):
        errors.settle(int(records.rows[-1]))
    return batch


# What makes batches of some records, given all columns' types, and records what is wrong with them.
Finish = Callable[[Records, Mapping[str, ColumnType], RowErrors], Iterator[pa.RecordBatch]]


def as_they_are(records: Records, types: Mapping[str, ColumnType], errors: RowErrors) -> Iterator[pa.RecordBatch]:
    """Yield the typed rows and nothing else."""
    yield typed(records, types, errors)


def schema_of(types: Mapping[str, AnyType]) -> pa.Schema:
    """Return the Arrow schema of columns of these types."""
    return pa.schema([(name, ARROW_TYPES[kind]) for name, kind in types.items()])


def report_bad_cells(
    errors: RowErrors, name: str, kind: ColumnType, rows: np.ndarray[Any, np.dtype[np.int64]], cells: pa.Array
) -> None:
    """Record the cells of one column that are not of its type."""
    remedy = (
        f'Fix the row, declare the column as string with column_types={{"{name}": "string"}}, '
        'or set on_bad_rows="skip".'
    )
    examples = []
    kept = len(rows) if errors.keeps_all else KEPT
    for row, value in zip(rows[:kept].tolist(), texts(cells[:kept]).to_pylist(), strict=True):
        message = f'Row {row}, column "{name}": "{shortened(value)}" is not {_NOUNS[kind]}.'
        examples.append(RowError("wrong_type", message, remedy, errors.file, row, name, shortened(value)))
    errors.add_all("wrong_type", name, len(rows), examples)
