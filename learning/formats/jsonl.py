"""JSON lines: one object a line, of scalars and lists of strings."""

from __future__ import annotations

import io
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from learning.column_type import ColumnType
from learning.errors import InvalidDataset
from learning.formats.cells import is_string_list
from learning.formats.column_types import Finish, Records, Survey, as_they_are, check_declared, check_names
from learning.formats.content import check_text, head, signature
from learning.formats.format import ARROW_TYPES, MAX_RECORD_BYTES, ReadOptions
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
    """One object of strings, numbers, booleans, nulls and lists of strings a line; a missing key is a missing value."""

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
        yield from read_jsonl(path, options, errors)

    def row_at(self, path: Path, offset: int) -> int | None:
        """Return the row that holds a byte."""
        row = 0
        with path.open("rb") as file:
            while file.tell() <= offset:
                line = file.readline(MAX_RECORD_BYTES + 1)
                if len(line) > MAX_RECORD_BYTES:
                    return None
                row += bool(line.strip())
        return row


def read_jsonl(
    path: Path, options: ReadOptions, errors: RowErrors, finish: Finish = as_they_are
) -> Iterator[pa.RecordBatch]:
    """Yield the typed clean rows of a file; `finish` may add columns to them, or leave more of them out."""
    check_text(path, options.filename, JsonlFormat().row_at)
    types = _types(path, options)
    # Wide tables come in short batches, so that a batch's cells are bounded.
    chunk_rows = max(1, min(_BATCH_ROWS, _BATCH_CELLS // len(types)))
    for chunk in _Reader(path, options, "reading", errors, chunk_rows=chunk_rows, types=types).chunks():
        columns = [
            pa.array([one.get(name) for one in chunk.objects], ARROW_TYPES[_carried(kind)])
            for name, kind in types.items()
        ]
        batch = pa.record_batch(columns, names=list(types))
        rows = np.array(chunk.rows, dtype=np.int64)
        yield from finish(Records(rows, batch, np.isin(rows, chunk.bad)), types, errors)


def first_keys(path: Path) -> list[str]:
    """Return the keys of a file's first object; none if its first line is no object."""
    first = _decoded(head(path, MAX_RECORD_BYTES).removeprefix(_BOM).lstrip().split(b"\n", 1)[0])
    return list(first) if isinstance(first, dict) else []


def _carried(kind: ColumnType) -> ColumnType:
    return "strings" if kind == "strings" else "string"


def _types(path: Path, options: ReadOptions) -> dict[str, ColumnType]:
    """Return every column's type, decided over all rows."""
    survey = Survey(options.column_types)
    errors = RowErrors(options.filename)
    reader = _Reader(path, options, "inferring types", errors)
    filled = 0
    for chunk in reader.chunks():
        cells: defaultdict[str, list[Any]] = defaultdict(list)
        for name, cell in itertools.chain.from_iterable(one.items() for one in chunk.objects):
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
    types = survey.types(frozenset(survey.names) - reader.bare)
    for name, lists in reader.lists.items():
        # As with numbers: three in four say what the column is.
        if name not in options.column_types and lists >= 3 * survey.present(name):
            types[name] = "strings"
    return types


def _nothing(filename: str, errors: RowErrors) -> InvalidDataset:
    if errors.count:
        return errors.exception("No row could be read. ")
    return invalid_file("no_rows", "The file has no rows.", "Add at least one object.", file=filename)


@dataclass(slots=True)
class _Chunk:
    """Some objects with their rows' numbers, and which of these rows have a mistake."""

    rows: list[int] = field(default_factory=list)
    objects: list[dict[str, Any]] = field(default_factory=list)
    bad: list[int] = field(default_factory=list)


class _Reader:
    """One pass over the objects of a file: scalars as text, and lists of strings where a column has them.

    Without types this pass is to find them: no list is wrong yet, and none is handed on.
    """

    def __init__(
        self,
        path: Path,
        options: ReadOptions,
        phase: str,
        errors: RowErrors,
        *,
        chunk_rows: int = _BATCH_ROWS,
        types: Mapping[str, ColumnType] | None = None,
    ) -> None:
        self._path = path
        self._options = options
        self._marks = options.marks
        self._phase = phase
        self._errors = errors
        self._chunk_rows = chunk_rows
        self._types = types
        self.bare: set[str] = set()  # columns with a value that is no string
        self.lists: Counter[str] = Counter()  # by column, the lists of strings

    def chunks(self) -> Iterator[_Chunk]:
        """Yield the objects; what is no object is recorded as an error."""
        size = max(1, self._path.stat().st_size)
        with self._path.open("rb") as file:
            for lines in _chunks(_lines(file, self._options.filename), self._chunk_rows):
                chunk = _Chunk()
                for row, line in lines:
                    self._errors.rows_seen = row
                    self._take(chunk, row, line)
                if chunk.rows:
                    yield chunk
                self._options.report(self._phase, file.tell() / size)

    def _take(self, chunk: _Chunk, row: int, line: bytes) -> None:
        if self._marks and self._marks.report(text := line.decode(), row, self._errors, whole=text):
            return
        value = _decoded(line)
        if not isinstance(value, dict):
            what = "not valid JSON" if value is _INVALID else "not a JSON object"
            self._errors.add(
                "invalid_json",
                f"Row {row} is {what}.",
                f"Write one complete JSON object a line, {_SKIP}",
                row=row,
                value=line.decode(),
                text=line.decode(),
            )
            return
        before = self._errors.count
        chunk.rows.append(row)
        chunk.objects.append({name: self._cell(name, cell, row, line) for name, cell in value.items()})
        if self._errors.count > before:
            chunk.bad.append(row)

    def _cell(self, name: str, cell: Any, row: int, line: bytes) -> Any:
        if cell is None:
            return None
        if self._types is None and isinstance(cell, (list, dict)):
            self.lists[name] += is_string_list(cell)
            return None
        takes_lists = self._types is not None and self._types[name] == "strings"
        if takes_lists and not is_string_list(cell):
            return self._refuse("wrong_type", _NO_STRINGS, cell, name=name, row=row, line=line)
        if not takes_lists and isinstance(cell, (list, dict)):
            return self._refuse("nested_value", _NESTED, cell, name=name, row=row, line=line)
        if takes_lists or isinstance(cell, str):
            return cell
        self.bare.add(name)
        return str(cell).lower() if isinstance(cell, bool) else repr(cell)

    def _refuse(self, rule: str, reason: tuple[str, str], cell: Any, *, name: str, row: int, line: bytes) -> None:
        what, remedy = reason
        self._errors.add(
            rule,
            f'Row {row}, column "{name}": {what}.',
            f"{remedy}, {_SKIP}",
            row=row,
            column=name,
            value=cell if isinstance(cell, str) else orjson.dumps(cell).decode(),
            text=line.decode(),
        )


# What is wrong and what to do about it.
_NESTED = (
    "lists and objects are not supported in a table",
    "Give a string, a number, true, false or null",
)
_NO_STRINGS = ("this is not a list of strings", "Give a list of strings or null")
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
