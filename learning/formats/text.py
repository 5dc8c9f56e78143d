"""Plain text: a row is a line.

A blank line is a row with the empty string, which is a value and not a missing one: what stood between two ends of
lines was nothing. So joining the rows with newlines gives the text back, with its blank lines between poems or
speakers; only that every end of a line is one newline, and whether the last line had an end is not kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from learning.column_type import ColumnType
from learning.formats.column_types import Records, check_declared, typed
from learning.formats.content import check_text, signature
from learning.formats.csv_layout import DELIMITERS, Layout, sniffed
from learning.formats.format import MAX_RECORD_BYTES, ReadOptions
from learning.formats.row_errors import RowErrors, invalid_file
from learning.formats.wrong_bytes import Marks

_BATCH_ROWS = 65_536
_BATCH_CHARACTERS = 4 << 20
_CHUNK_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"


class TextFormat:
    """Plain text: every line is a row of the one column `text`, and a blank line is an empty string."""

    name = "text"
    suffixes = (".txt",)

    def sniff(self, path: Path, filename: str) -> str | None:
        """Return why this is plain text: its name, unless its lines are the records of a table."""
        suffix = next((suffix for suffix in self.suffixes if filename.lower().endswith(suffix)), None)
        if suffix is None or signature(path):
            return None
        layout, alike = sniffed(path)
        if alike and not _is_prose(layout):
            return None
        fields = f"{DELIMITERS[layout.delimiter]}-separated fields"
        return f"the name ends in {suffix} and the first lines have no equal numbers of {fields}"

    def read(self, path: Path, options: ReadOptions, errors: RowErrors) -> Iterator[pa.RecordBatch]:
        """Yield the lines."""
        check_text(path, options.filename, self.row_at)
        types: dict[str, ColumnType] = {"text": "string"}
        check_declared(options.column_types, types)
        types |= options.column_types
        lines: list[str] = []
        size = 0
        for _, line in numbered_lines(path, options, "reading"):
            lines.append(line)
            size += len(line)
            if len(lines) == _BATCH_ROWS or size >= _BATCH_CHARACTERS:
                yield _batch(lines, types, errors, options.marks)
                lines, size = [], 0
        if lines:
            yield _batch(lines, types, errors, options.marks)

    def row_at(self, path: Path, offset: int) -> int | None:
        """Return the line that holds a byte."""
        row, left = 1, offset
        with path.open("rb") as file:
            while left > 0 and (chunk := file.read(min(left, _CHUNK_BYTES))):
                row += chunk.count(b"\n")
                left -= len(chunk)
        return row


def _is_prose(layout: Layout) -> bool:
    # "To be, or not to be": a writer of tables puts no space there.
    return layout.delimiter in {",", ";"} and any(name.startswith(" ") for name in layout.names)


def _batch(lines: list[str], types: dict[str, ColumnType], errors: RowErrors, marks: Marks | None) -> pa.RecordBatch:
    rows = np.arange(errors.rows_seen + 1, errors.rows_seen + len(lines) + 1)
    errors.rows_seen += len(lines)
    cells = pa.record_batch([pa.array(lines, pa.string())], names=["text"])
    if marks:
        rows, cells = marks.without(rows, cells, errors)
    return typed(Records(rows, cells), types, errors)


def numbered_lines(path: Path, options: ReadOptions, phase: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file of UTF-8 with their numbers from 1, without their ends; reports progress."""
    size = max(1, path.stat().st_size)
    number, rest = 0, b""
    with path.open("rb") as file:
        if file.read(len(_BOM)) != _BOM:
            file.seek(0)
        while chunk := file.read(_CHUNK_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            for number, line in enumerate(lines, number + 1):  # noqa: B020 - counts on
                yield number, _decoded(line, number, options)
            _check_length(rest, number + 1, options)
            options.report(phase, file.tell() / size)
    if rest:
        yield number + 1, _decoded(rest, number + 1, options)


def _decoded(line: bytes, number: int, options: ReadOptions) -> str:
    _check_length(line, number, options)
    return line.removesuffix(b"\r").decode()


def _check_length(line: bytes, number: int, options: ReadOptions) -> None:
    if len(line) > MAX_RECORD_BYTES:
        raise invalid_file(
            "record_too_large",
            f"Line {number} is larger than {MAX_RECORD_BYTES >> 20} MiB.",
            "Break it into several lines.",
            file=options.filename,
            row=number,
        )
