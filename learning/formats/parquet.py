"""Apache Parquet with plain columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from learning.column_type import ColumnType
from learning.errors import InvalidDataset, RowError
from learning.formats.cells import texts
from learning.formats.column_types import Records, check_declared, check_names, report_bad_cells, typed
from learning.formats.content import head
from learning.formats.format import ARROW_TYPES, ReadOptions
from learning.formats.row_errors import RowErrors, invalid_file

_BATCH_ROWS = 8192
_EXTENSION = b"ARROW:extension:name"

_KINDS: tuple[tuple[Any, ColumnType], ...] = (
    (kinds.is_boolean, "boolean"),
    (kinds.is_integer, "integer"),
    (kinds.is_floating, "number"),
    (kinds.is_decimal, "number"),
    (kinds.is_date, "timestamp"),
    (kinds.is_timestamp, "timestamp"),
    (kinds.is_string, "string"),
    (kinds.is_large_string, "string"),
    (kinds.is_string_view, "string"),
    (kinds.is_null, "string"),
)
_LISTS = (kinds.is_list, kinds.is_large_list, kinds.is_fixed_size_list, kinds.is_list_view, kinds.is_large_list_view)
_STRINGS = (kinds.is_string, kinds.is_large_string, kinds.is_string_view)


class ParquetFormat:
    """A Parquet file whose columns are numbers, booleans, dates, times, strings and lists of strings."""

    name = "parquet"
    suffixes = (".parquet", ".pq")

    def sniff(self, path: Path, filename: str) -> str | None:
        """Return why this is Parquet: its first and last bytes, whatever its name."""
        size = path.stat().st_size
        if size < 12 or head(path, 4) != b"PAR1":
            return None
        with path.open("rb") as file:
            file.seek(size - 4)
            return "the file begins and ends with PAR1" if file.read() == b"PAR1" else None

    def read(self, path: Path, options: ReadOptions, errors: RowErrors) -> Iterator[pa.RecordBatch]:
        """Yield the clean rows in the column types of this library."""
        # Imported here because it costs every start of a process and few files are Parquet.
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path, pre_buffer=False, arrow_extensions_enabled=False) as file:
                yield from _batches(file, options, errors)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(options.filename, str(error)) from None
        except UnicodeDecodeError:
            raise _damaged(options.filename, "what is written of its columns is no UTF-8") from None


def _batches(file: Any, options: ReadOptions, errors: RowErrors) -> Iterator[pa.RecordBatch]:
    total = file.metadata.num_rows
    if not total:
        raise invalid_file("no_rows", "The file has no rows.", "Add at least one row.", file=options.filename)
    types = _types(file.schema_arrow, options)
    wanted = {name: options.column_types.get(name, kind) for name, kind in types.items()}
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
        records = _records(batch, types, errors)
        # A column declared otherwise goes by way of text; the others pass through `typed`.
        cells = [
            texts(column) if wanted[name] != types[name] else column
            for name, column in zip(types, records.columns.columns, strict=True)
        ]
        yield typed(Records(records.rows, pa.record_batch(cells, names=list(types)), records.bad), wanted, errors)
        options.report("reading", errors.rows_seen / total)
    if errors.rows_seen != total:
        raise _damaged(options.filename, f"its footer says {total} rows, but it has {errors.rows_seen}")


def _types(schema: pa.Schema, options: ReadOptions) -> dict[str, ColumnType]:
    """Return the columns' own types; raise InvalidDataset for every column that has none of ours."""
    check_names(schema.names, options.filename)
    check_declared(options.column_types, schema.names)
    found = {field.name: _kind(field) for field in schema}
    refused = [
        RowError(
            "unsupported_type",
            f'Column "{field.name}" has the unsupported type {str(field.type)[:80]}.',
            "Convert it to strings, lists of strings, numbers, booleans, dates or timestamps, or remove it.",
            options.filename,
            None,
            field.name,
            str(field.type)[:80],
        )
        for field in schema
        if found[field.name] is None
    ]
    if refused:
        raise InvalidDataset(
            refused[0].message,
            refused[:100],
            error_count=len(refused),
            errors_by_rule={refused[0].rule: len(refused)},
            hint=refused[0].remedy,
        )
    return {name: kind for name, kind in found.items() if kind is not None}


def _kind(field: pa.Field) -> ColumnType | None:
    if field.metadata and _EXTENSION in field.metadata:
        return None
    # A dictionary is only a way to store its values.
    plain = field.type.value_type if kinds.is_dictionary(field.type) else field.type
    if any(test(plain) for test in _LISTS):
        return "strings" if any(test(plain.value_type) for test in _STRINGS) else None
    return next((kind for test, kind in _KINDS if test(plain)), None)


def _records(batch: pa.RecordBatch, types: dict[str, ColumnType], errors: RowErrors) -> Records:
    """Return a batch with every column in its own type of ours, null and marked as bad where a value has none."""
    rows = np.arange(errors.rows_seen + 1, errors.rows_seen + batch.num_rows + 1)
    errors.rows_seen += batch.num_rows
    keep = np.ones(batch.num_rows, dtype=bool)
    columns = []
    for name, kind in types.items():
        values, bad = _own(batch.column(name), kind)
        columns.append(values)
        mask = bad.to_numpy(zero_copy_only=False)
        if mask.any():
            keep &= ~mask
            report_bad_cells(errors, name, kind, rows[mask], batch.column(name).filter(bad))
    return Records(rows, pa.record_batch(columns, names=list(types)), ~keep)


def _own(cells: pa.Array, kind: ColumnType) -> tuple[pa.Array, pa.Array]:
    """Return one column's values, null where there is none, and which of them are bad."""
    if kinds.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    cells.validate(full=True)  # strings in the file may be any bytes; ours are UTF-8
    if kinds.is_timestamp(cells.type) and cells.type.tz:
        cells = cells.cast(pa.timestamp(cells.type.unit, "UTC"))
    values = _converted(cells, kind)
    bad = pc.and_(cells.is_valid(), values.is_null())
    if kinds.is_floating(cells.type):
        bad = pc.and_not(bad, pc.fill_null(pc.is_nan(cells), False))  # NaN is how floats say missing
    return values, bad


def _converted(cells: pa.Array, kind: ColumnType) -> pa.Array:
    target = ARROW_TYPES[kind]
    if kind == "strings":
        return _whole_lists(cells.cast(target))
    if kind == "number":
        values = cells.cast(target)
        return pc.if_else(pc.is_finite(values), values, pa.scalar(None, target))
    if kinds.is_uint64(cells.type):
        fits = pc.less_equal(cells, pa.scalar((1 << 63) - 1, pa.uint64()))
        cells = pc.if_else(fits, cells, pa.scalar(None, pa.uint64()))
    # Nanoseconds beyond the microsecond are dropped.
    return cells.cast(target, safe=kind != "timestamp")


def _whole_lists(lists: pa.Array) -> pa.Array:
    """Return lists with null in place of each that has a null in it."""
    holes = pc.list_parent_indices(lists).filter(pc.list_flatten(lists).is_null()) if len(lists) else None
    if holes is None or not len(holes):
        return lists
    whole = ~np.isin(np.arange(len(lists)), holes.to_numpy())
    return pc.if_else(pa.array(whole), lists, pa.scalar(None, lists.type))


def _damaged(filename: str, what: str) -> InvalidDataset:
    return invalid_file(
        "damaged_file",
        f"The Parquet file cannot be read: {what.splitlines()[0][:200] if what else 'damaged'}",
        "Write the file again.",
        file=filename,
    )
