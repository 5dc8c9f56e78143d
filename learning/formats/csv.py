"""Comma-separated values, also with semicolons, tabs or bars, with a header."""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv

from learning.column_type import ColumnType
from learning.errors import InvalidDataset
from learning.formats.column_types import Finish, Records, Survey, as_they_are, check_declared
from learning.formats.content import check_text, signature
from learning.formats.csv_layout import DELIMITERS, Layout, layout_of, sniffed
from learning.formats.format import MAX_RECORD_BYTES, Misjudged, ReadOptions
from learning.formats.row_errors import RowErrors, invalid_file

_HOPELESS = 10_000
_ASCII = bytes(byte if 0 < byte < 128 else ord("?") for byte in range(256))


class CsvFormat:
    """Delimited text with one header record."""

    name = "csv"
    suffixes = (".csv", ".tsv")

    def sniff(self, path: Path, filename: str) -> str | None:
        """Return why this is a delimited table: its name, or equal numbers of fields in its first records."""
        if signature(path):
            return None
        layout, alike = sniffed(path)
        fields = len(layout.names)
        suffix = next((suffix for suffix in self.suffixes if filename.lower().endswith(suffix)), None)
        separated = f"have {fields} {DELIMITERS[layout.delimiter]}-separated fields"
        if suffix and fields > 1:
            return f"the name ends in {suffix} and the first lines {separated}"
        if suffix:
            return f"the name ends in {suffix} and the first lines have one field"
        return f"the first lines all {separated}" if alike else None

    def read(self, path: Path, options: ReadOptions, errors: RowErrors) -> Iterator[pa.RecordBatch]:
        """Yield the typed clean rows.

        The first block says what the types probably are, and all cells are counted while they are converted; only when
        the count says otherwise in the end does the file have to be read again.
        """
        yield from read_csv(path, options, errors)

    def row_at(self, path: Path, offset: int) -> int | None:
        """Return the record that holds a byte, 0 for the header, None when that cannot be told."""
        layout, _ = sniffed(path)
        return _row_at(path, offset, layout) if layout.names else None


def read_csv(
    path: Path, options: ReadOptions, errors: RowErrors, finish: Finish = as_they_are
) -> Iterator[pa.RecordBatch]:
    """Yield the typed clean rows of a file; `finish` may add columns to them, or leave more of them out."""
    check_text(path, options.filename, CsvFormat().row_at)
    layout = layout_of(path, options.filename)
    if options.marks and any(options.marks.token in name for name in layout.names):
        raise options.marks.refusal
    check_declared(options.column_types, layout.names)
    reader = _Reader(path, layout, options, "reading", errors)
    if options.known_types is None:
        yield from _guessed(reader, Survey(options.column_types), errors, finish)
    else:
        for records in reader.records():
            yield from finish(records, options.known_types, errors)
    if not errors.rows_seen:
        raise invalid_file(
            "no_rows",
            "The file has a header and no rows.",
            "Add at least one row below the header.",
            file=options.filename,
        )


def _guessed(reader: _Reader, survey: Survey, errors: RowErrors, finish: Finish) -> Iterator[pa.RecordBatch]:
    types: dict[str, ColumnType] = {}
    right = True
    for records in reader.records():
        cells = zip(records.columns.schema.names, records.columns.columns, strict=True)
        columns = [survey.add(name, column, types.get(name)) for name, column in cells]
        found = survey.types()
        right = right and types in ({}, found)
        types = found
        if right:
            names = records.columns.schema.names
            yield from finish(Records(records.rows, pa.record_batch(columns, names=names)), types, errors)
    if not right:
        raise Misjudged(types)


class _Reader:
    """One pass over the records of a file as text, with exact record numbers."""

    def __init__(self, path: Path, layout: Layout, options: ReadOptions, phase: str, errors: RowErrors) -> None:
        self._path = path
        self._layout = layout
        self._options = options
        self._marks = options.marks
        self._phase = phase
        self._errors = errors
        self._ragged: list[int] = []  # rows of the wrong width, not yet passed by `records`
        self._last = 0  # the last row seen
        self._ragged_count = 0
        self._hopeless = False  # most rows are of the wrong width
        self._end = secrets.token_hex(16)

    def records(self) -> Iterator[Records]:
        """Yield the records that have the header's number of fields."""
        width = len(self._layout.names)
        ending = f"\n{self._end}{self._layout.delimiter * (width - 1)}\n".encode()
        closed = False
        size = max(1, self._path.stat().st_size)
        with _TextWithEnding(self._path, ending) as file:
            for number, batch in enumerate(self._batches(file), start=1):
                # The ending is read back as a record of its own unless an open quote swallowed it.
                closed = batch.num_rows > 0 and batch.column(0)[-1].as_py() == self._end
                kept = batch.slice(0, batch.num_rows - 1) if closed else batch
                rows = self._number(kept.num_rows) if kept.num_rows else None
                if rows is not None and self._marks:
                    rows, kept = self._marks.without(rows, kept, self._errors)
                if rows is not None and kept.num_rows:
                    yield Records(rows, kept)
                # Arrow reads many blocks ahead and makes a batch of each: what counts are the blocks that are done.
                self._options.report(self._phase, min(1.0, number * MAX_RECORD_BYTES / size))
        self._number(0)
        if not closed:
            raise self._open_quote()
        self._errors.rows_seen = self._last
        self._options.report(self._phase, 1.0)

    def _batches(self, file: _TextWithEnding) -> Iterator[pa.RecordBatch]:
        options = _arrow_options(self._layout, pa.string())
        options["parse_options"].invalid_row_handler = self._on_ragged
        try:
            with arrow_csv.open_csv(file, **options) as reader:
                yield from reader
        except pa.ArrowInvalid as error:
            if self._hopeless:
                self._number(0)
                self._errors.rows_seen = self._last
                raise self._errors.exception(
                    f"Reading stopped at row {self._last}: most rows have not as many fields as the header. "
                ) from None
            if "straddl" not in str(error):
                raise
            raise self._too_large() from None

    def _on_ragged(self, record: arrow_csv.InvalidRow) -> str:
        row = record.number - 1  # Arrow counts the header
        self._ragged.append(row)
        self._ragged_count += 1
        text = record.text
        if self._marks:
            self._marks.report(text, row, self._errors, whole=text)
            text = self._marks.shown(text)
        fields = f"{record.actual_columns} field{'s' if record.actual_columns != 1 else ''}"
        self._errors.add(
            "ragged_row",
            f"Row {row} has {fields}; the header has {record.expected_columns}.",
            f"Quote values that contain the {DELIMITERS[self._layout.delimiter]}, add the missing fields, "
            'or set on_bad_rows="skip".',
            row=row,
            value=text,
            text=text,
        )
        # Each call costs as much as reading a hundred good rows; nobody means a table like this.
        self._hopeless = self._ragged_count >= _HOPELESS and 2 * self._ragged_count > row
        return "error" if self._hopeless else "skip"

    def _number(self, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the numbers of the next `count` well-formed rows, stepping over the ragged ones."""
        first = self._last + 1
        rows = np.arange(first, first + count + len(self._ragged))
        if self._ragged:
            rows = np.setdiff1d(rows, self._ragged, assume_unique=True)
        rows = rows[:count]
        self._last = int(rows[-1]) if count else max([self._last, *self._ragged])
        self._ragged = [row for row in self._ragged if row > self._last]
        return rows

    def _open_quote(self) -> InvalidDataset:
        where = f"in row {self._last}" if self._last else "in the header"
        return invalid_file(
            "open_quote",
            f"A quote opened {where} is never closed.",
            "Close the quote, or double it inside a value.",
            file=self._options.filename,
            row=self._last or None,
        )

    def _too_large(self) -> InvalidDataset:
        self._number(0)
        return invalid_file(
            "record_too_large",
            f"A record after row {self._last} is larger than {MAX_RECORD_BYTES >> 20} MiB.",
            "Look for a quote that is never closed there, or shorten the values.",
            file=self._options.filename,
            row=self._last + 1,
        )


class _TextWithEnding(io.RawIOBase):
    """A file's bytes and then an ending, as one stream."""

    def __init__(self, path: Path, ending: bytes, limit: int | None = None) -> None:
        super().__init__()
        self._file = path.open("rb", buffering=0)
        self._left = path.stat().st_size if limit is None else limit
        self._ending = ending

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(min(size, self._left) if size >= 0 else self._left) if self._left else b""
        self._left = self._left - len(chunk) if chunk else 0
        if not self._left and (size < 0 or len(chunk) + len(self._ending) <= size):
            chunk, self._ending = chunk + self._ending, b""
        return chunk

    def close(self) -> None:
        self._file.close()
        super().close()


class _PlainTextWithEnding(_TextWithEnding):
    """The same with every byte that is not ASCII replaced, so that anything can be parsed."""

    def read(self, size: int = -1) -> bytes:
        return super().read(size).translate(_ASCII)


def _arrow_options(layout: Layout, cells: pa.DataType) -> dict[str, Any]:
    return {
        # One thread: only a serial reader knows the number of a ragged row.
        "read_options": arrow_csv.ReadOptions(
            use_threads=False, block_size=MAX_RECORD_BYTES, column_names=layout.names, skip_rows_after_names=1
        ),
        "parse_options": arrow_csv.ParseOptions(delimiter=layout.delimiter, newlines_in_values=True),
        "convert_options": arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(layout.names, cells),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
        ),
    }


def _row_at(path: Path, offset: int, layout: Layout) -> int | None:
    """Return the record that holds a byte, 0 for the header, None when that cannot be told."""
    ragged = 0

    def count(_: arrow_csv.InvalidRow) -> str:
        nonlocal ragged
        ragged += 1
        return "skip"

    options = _arrow_options(layout, pa.string())
    options["parse_options"].invalid_row_handler = count
    with _PlainTextWithEnding(path, b"\n", limit=offset + 1) as file:
        try:
            with arrow_csv.open_csv(file, **options) as reader:
                return sum(int(batch.num_rows) for batch in reader) + ragged
        except pa.ArrowInvalid:
            return None
