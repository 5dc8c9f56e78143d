"""JSON lines: one flat object a line."""

from __future__ import annotations

import io
import itertools
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from learning.errors import InvalidDataset
from learning.formats.column_types import Records, Survey, check_declared, check_names, typed
from learning.formats.content import check_text, head, signature
from learning.formats.format import MAX_RECORD_BYTES, ReadOptions
from learning.formats.row_errors import RowErrors, invalid_file

_BATCH_ROWS = 8192
_BATCH_BYTES = 4 << 20
_BATCH_CELLS = 1 << 20
# A table of more cells than this must have values in one of twenty, or a small file could fill the disk.
_SPARSE_CELLS = 10_000_000
_SPARSEST = 20
_BOM = b"\xef\xbb\xbf"
_SKIP = 'or set on_bad_rows="skip".'


class JsonlFormat:
    """One object of strings, numbers, booleans and nulls a line; a missing key is a missing value."""

    name = "jsonl"
    suffixes = (".jsonl", ".ndjson")

    def sniff(self, path: Path, filename: str) -> str | None:
        """Return why this is JSON lines: its first line is, or with the right name begins like, an object."""
        if signature(path):
            return None
        first = head(path, 1 << 20).removeprefix(_BOM).lstrip().split(b"\n", 1)[0]
        suffix = next((suffix for suffix in self.suffixes if filename.lower().endswith(suffix)), None)
        if suffix and first.startswith(b"{"):
            return f"the name ends in {suffix} and the first line begins a JSON object"
        return "the first line is a JSON object" if isinstance(_decoded(first), dict) else None

    def read(self, path: Path, options: ReadOptions, errors: RowErrors) -> Iterator[pa.RecordBatch]:
        """Yield the typed clean rows: one pass finds columns and types, a second converts."""
        check_text(path, options.filename, lambda offset: _row_at(path, offset))
        survey, quoted = _survey(path, options)
        types = survey.types(quoted)
        # Wide tables come in short batches, so that a batch's cells are bounded.
        reader = _Reader(path, options, "reading", errors, max(1, min(_BATCH_ROWS, _BATCH_CELLS // len(types))))
        for rows, objects in reader.chunks():
            columns = [pa.array([one.get(name) for one in objects], pa.string()) for name in types]
            batch = pa.record_batch(columns, names=list(types))
            yield typed(Records(np.array(rows, dtype=np.int64), batch), types, errors)


def _survey(path: Path, options: ReadOptions) -> tuple[Survey, frozenset[str]]:
    """Return what the columns hold and which of them hold nothing but JSON strings."""
    survey = Survey(options.column_types)
    errors = RowErrors(options.filename)
    reader = _Reader(path, options, "inferring types", errors, _BATCH_ROWS)
    filled = 0
    for _, objects in reader.chunks():
        cells: defaultdict[str, list[str | None]] = defaultdict(list)
        for name, cell in itertools.chain.from_iterable(one.items() for one in objects):
            cells[name].append(cell)
        check_names(list(dict.fromkeys([*survey.names, *cells])), options.filename)
        for name, values in cells.items():
            survey.add(name, pa.array(values, pa.string()))
            filled += len(values)
    if not survey.names:
        raise _nothing(options.filename, errors)
    check_declared(options.column_types, survey.names)
    total = errors.rows_seen * len(survey.names)
    if total > _SPARSE_CELLS and filled * _SPARSEST < total:
        raise invalid_file(
            "sparse_table",
            f"{len(survey.names)} different keys, of which a row has {filled / errors.rows_seen:.1f} on average.",
            "Use the same keys in every row; put varying ones into two columns, key and value.",
            file=options.filename,
        )
    return survey, frozenset(survey.names) - reader.bare


def _nothing(filename: str, errors: RowErrors) -> InvalidDataset:
    if errors.count:
        return errors.exception("No row could be read. ")
    return invalid_file("no_rows", "The file has no rows.", "Add at least one object.", file=filename)


class _Reader:
    """One pass over the objects of a file, every scalar as text."""

    def __init__(self, path: Path, options: ReadOptions, phase: str, errors: RowErrors, chunk_rows: int) -> None:
        self._path = path
        self._options = options
        self._phase = phase
        self._errors = errors
        self._chunk_rows = chunk_rows
        self.bare: set[str] = set()  # columns with a value that is no string

    def chunks(self) -> Iterator[tuple[list[int], list[dict[str, str | None]]]]:
        """Yield row numbers with objects that are flat; the others are recorded as errors."""
        size = max(1, self._path.stat().st_size)
        with self._path.open("rb") as file:
            for lines in _chunks(_lines(file, self._options.filename), self._chunk_rows):
                rows, objects = [], []
                for row, line in lines:
                    self._errors.rows_seen = row
                    if (flat := self._flat(row, line)) is not None:
                        rows.append(row)
                        objects.append(flat)
                if rows:
                    yield rows, objects
                self._options.report(self._phase, file.tell() / size)

    def _flat(self, row: int, line: bytes) -> dict[str, str | None] | None:
        value = _decoded(line)
        if not isinstance(value, dict):
            what = "not valid JSON" if value is _INVALID else "not a JSON object"
            self._errors.add(
                "invalid_json",
                f"Row {row} is {what}.",
                f"Write one complete JSON object a line, {_SKIP}",
                row=row,
                value=line.decode(),
            )
            return None
        nested = [name for name, cell in value.items() if isinstance(cell, (list, dict))]
        for name in nested:
            self._errors.add(
                "nested_value",
                f'Row {row}, column "{name}": lists and objects are not supported in a table.',
                f"Give a string, a number, true, false or null, {_SKIP}",
                row=row,
                column=name,
                value=orjson.dumps(value[name]).decode(),
            )
        if nested:
            return None
        return {name: self._text(name, cell) for name, cell in value.items()}

    def _text(self, name: str, cell: str | float | bool | None) -> str | None:
        if cell is None or isinstance(cell, str):
            return cell
        self.bare.add(name)
        return str(cell).lower() if isinstance(cell, bool) else repr(cell)


_INVALID = object()


def _decoded(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return _INVALID


def _lines(file: io.BufferedReader, filename: str) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, numbered from 1."""
    row = 0
    start = file.read(len(_BOM))
    if start != _BOM:
        file.seek(0)
    while line := file.readline(MAX_RECORD_BYTES + 1):
        if len(line) > MAX_RECORD_BYTES:
            raise invalid_file(
                "record_too_large",
                f"Row {row + 1} is larger than {MAX_RECORD_BYTES >> 20} MiB.",
                "Shorten the values, and write one object a line.",
                file=filename,
                row=row + 1,
            )
        if stripped := line.strip():
            row += 1
            yield row, stripped


def _chunks(lines: Iterator[tuple[int, bytes]], rows: int) -> Iterator[list[tuple[int, bytes]]]:
    chunk: list[tuple[int, bytes]] = []
    size = 0
    for row, line in lines:
        chunk.append((row, line))
        size += len(line)
        if len(chunk) == rows or size >= _BATCH_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _row_at(path: Path, offset: int) -> int | None:
    """Return the row that holds a byte."""
    row = 0
    with path.open("rb") as file:
        while file.tell() <= offset:
            line = file.readline(MAX_RECORD_BYTES + 1)
            if len(line) > MAX_RECORD_BYTES:
                return None
            row += bool(line.strip())
    return row
