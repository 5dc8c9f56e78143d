"""Deciding each column's type over a whole file of text cells, and parsing the cells to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, get_args

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from learning.column_type import ColumnType
from learning.errors import RowError, UnknownName, did_you_mean
from learning.formats.format import ARROW_TYPES, MAX_COLUMNS
from learning.formats.row_errors import KEPT, RowErrors, invalid_file, shortened

# What stands for "no value" in a column that is not text, whatever its case.
MISSING = pa.array(["", "na", "n/a", "nan", "null", "none", "?", "-"])

_INTEGER = r"^[+-]?[0-9]+$"
_NUMBER = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
_TIMESTAMP = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?)?$"
)
_ZONE = r":[0-9]{2}.*(?:Z|[+-][0-9]{2}:?[0-9]{2})$"
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

    def add(self, name: str, cells: pa.Array) -> None:
        """Count some cells of a column; a column not seen before joins at the end."""
        if name not in self._counts:
            self.names.append(name)
            self._counts[name] = Counter()
        if name not in self._declared:
            _count(cells, self._counts[name])

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
        if present and counts["timestamp"] == present:
            return "timestamp"
        if not present or name in quoted:
            return "string"
        if counts["boolean"] == present:
            return "boolean"
        numbers = counts["number"]
        # Three numbers in four say the column is numeric and the fourth cell a mistake.
        if numbers == present or (numbers >= 2 and 4 * numbers >= 3 * present):
            return "integer" if counts["integer"] == numbers else "number"
        return "string"


def check_declared(declared: Mapping[str, str], names: Iterable[str]) -> None:
    """Raise UnknownName for a declared column the file lacks or a type that does not exist."""
    known = list(names)
    for name, kind in declared.items():
        if name not in known:
            shown = ", ".join(known[:50]) + (", …" if len(known) > 50 else "")
            message = f'Column "{name}" in column_types not found. Columns: {shown}.'
            raise UnknownName(message + did_you_mean(name, known), param="column_types")
        if kind not in get_args(ColumnType):
            kinds = get_args(ColumnType)
            message = f'Column "{name}" in column_types: no type "{kind}". Types: {", ".join(kinds)}.'
            raise UnknownName(message + did_you_mean(kind, kinds), param="column_types")


def check_names(names: list[str], filename: str) -> None:
    """Raise InvalidDataset for too many columns, a column without a name or two with the same."""
    if len(names) > MAX_COLUMNS:
        raise invalid_file(
            "too_many_columns",
            f"At least {len(names)} columns; at most {MAX_COLUMNS} are allowed.",
            "Remove columns.",
            file=filename,
        )
    for position, name in enumerate(names, start=1):
        if not name:
            raise invalid_file(
                "empty_column_name",
                f"Column {position} has no name.",
                "Name every column.",
                file=filename,
                column="",
            )
    for name, count in Counter(names).items():
        if count > 1:
            raise invalid_file(
                "duplicate_column",
                f'{count} columns are named "{name}".',
                "Give every column its own name.",
                file=filename,
                column=name,
                value=name,
            )


def typed(records: Records, types: Mapping[str, ColumnType], errors: RowErrors) -> pa.RecordBatch:
    """Parse the text columns to their types and leave out the records with a cell that does not parse.

    A column that already has its type passes through.
    """
    keep = np.ones(len(records.rows), dtype=bool) if records.bad is None else ~records.bad
    columns = []
    for name, kind in types.items():
        cells = records.columns.column(name)
        values, bad = parse(cells, kind)
        columns.append(values)
        if bad is not None:
            keep &= ~bad
            report_bad_cells(errors, name, kind, records.rows[bad], cells.filter(pa.array(bad)))
    batch = pa.record_batch(columns, schema=schema_of(types))
    if not keep.all():
        errors.set_aside(records.rows[~keep], records.columns.filter(pa.array(~keep)))
        batch = batch.filter(pa.array(keep))
    if len(records.rows):
        errors.settle(int(records.rows[-1]))
    return batch


def schema_of(types: Mapping[str, ColumnType]) -> pa.Schema:
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


def parse(cells: pa.Array, kind: ColumnType) -> tuple[pa.Array, np.ndarray[Any, np.dtype[np.bool_]] | None]:
    """Return the cells as values of a type, null where missing or bad, and the mask of bad ones if any."""
    if cells.type == ARROW_TYPES[kind]:
        return cells, None
    if kind in {"integer", "number"} and (fast := _plain_numbers(cells, kind)) is not None:
        return fast, None
    wanted = _present(cells)
    values = _PARSERS[kind](wanted)
    if values.null_count == wanted.null_count:
        return values, None
    bad = pc.and_(wanted.is_valid(), values.is_null())
    return values, bad.to_numpy(zero_copy_only=False)


def texts(cells: pa.Array) -> pa.Array:
    """Return values as the text they would have in a file of text: lists as JSON."""
    if pa.types.is_string(cells.type):
        return cells
    if pa.types.is_nested(cells.type):
        written = [None if cell is None else orjson.dumps(cell, default=str).decode() for cell in cells.to_pylist()]
        return pa.array(written, pa.string())
    return cells.cast(pa.string())


def _count(cells: pa.Array, counts: Counter[str]) -> None:
    if _plain_numbers(cells, "number") is not None:
        filled = len(cells) - cells.null_count
        counts["present"] += filled
        counts["number"] += filled
        counts["integer"] += filled if _plain_numbers(cells, "integer") is not None else _valid(_integers(cells))
        return
    wanted = _present(cells)
    present = _valid(wanted)
    counts["present"] += present
    for kind in _GUESSED:
        counts[kind] += _valid(_PARSERS[kind](wanted))


def _plain_numbers(cells: pa.Array, kind: ColumnType) -> pa.Array | None:
    """Return a batch whose every cell is an ordinary number, or None: far faster than cell by cell."""
    try:
        # The cast to float refuses the hexadecimal that the cast to int takes.
        numbers = cells.cast(pa.float64())
        if not pc.all(pc.is_finite(numbers), min_count=0).as_py():
            return None
        return numbers if kind == "number" else cells.cast(pa.int64())
    except pa.ArrowInvalid:
        return None


def _present(cells: pa.Array) -> pa.Array:
    trimmed = pc.utf8_trim_whitespace(cells)
    missing = pc.is_in(pc.utf8_lower(trimmed), value_set=MISSING)
    return pc.if_else(missing, pa.scalar(None, pa.string()), trimmed)


def _valid(values: pa.Array) -> int:
    return len(values) - int(values.null_count)


def _matching(cells: pa.Array, pattern: str) -> pa.Array:
    return pc.if_else(pc.match_substring_regex(cells, pattern), cells, pa.scalar(None, pa.string()))


def _integers(cells: pa.Array) -> pa.Array:
    digits = pc.replace_substring_regex(_matching(cells, _INTEGER), r"^\+", "")
    return _cast(digits, pa.int64(), _one_integer)


def _numbers(cells: pa.Array) -> pa.Array:
    values = _matching(cells, _NUMBER).cast(pa.float64())
    return pc.if_else(pc.is_finite(values), values, pa.scalar(None, pa.float64()))


def _booleans(cells: pa.Array) -> pa.Array:
    lower = pc.utf8_lower(cells)
    is_true = pc.equal(lower, "true")
    return pc.if_else(pc.or_(is_true, pc.equal(lower, "false")), is_true, pa.scalar(None, pa.bool_()))


def _timestamps(cells: pa.Array) -> pa.Array:
    shaped = pc.replace_substring_regex(_matching(cells, _TIMESTAMP), r"(\.[0-9]{6})[0-9]+", r"\1")
    zoned = pc.fill_null(pc.match_substring_regex(shaped, _ZONE), False)
    none = pa.scalar(None, pa.string())
    local = _cast(pc.if_else(zoned, none, shaped), pa.timestamp("us"), _one_timestamp)
    if not pc.any(zoned).as_py():
        return local
    shifted = _cast(pc.if_else(zoned, shaped, none), pa.timestamp("us", "UTC"), _one_timestamp)
    return pc.coalesce(local, shifted.cast(pa.timestamp("us")))


def _cast(cells: pa.Array, to: pa.DataType, one: Callable[[str], Any]) -> pa.Array:
    try:
        return cells.cast(to)
    except pa.ArrowInvalid:
        # Rare: right in shape but out of range, like 30 February; only these batches go cell by cell.
        return pa.array([None if cell is None else one(cell) for cell in cells.to_pylist()], to)


def _one_integer(cell: str) -> int | None:
    value = int(cell) if len(cell) < 25 else 1 << 64
    return value if -(1 << 63) <= value < 1 << 63 else None


def _one_timestamp(cell: str) -> datetime | None:
    try:
        value = datetime.fromisoformat(cell)
        return value.astimezone(UTC) if value.tzinfo else value
    except (ValueError, OverflowError):
        return None


def _string_lists(cells: pa.Array) -> pa.Array:
    return pa.array([None if cell is None else _one_list(cell) for cell in cells.to_pylist()], pa.list_(pa.string()))


def _one_list(cell: str) -> list[str] | None:
    try:
        value = orjson.loads(cell)
    except orjson.JSONDecodeError:
        return None
    return value if is_string_list(value) else None


def is_string_list(value: object) -> bool:
    """Return whether a JSON value is a list of nothing but strings."""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


# Text is never taken for a list by itself; a column has to be declared as one.
_GUESSED: tuple[ColumnType, ...] = ("number", "integer", "boolean", "timestamp")
_PARSERS: dict[ColumnType, Callable[[pa.Array], pa.Array]] = {
    "number": _numbers,
    "integer": _integers,
    "boolean": _booleans,
    "timestamp": _timestamps,
    "strings": _string_lists,
}
