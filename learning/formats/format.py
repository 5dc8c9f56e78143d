"""What a file format is: it recognises its files and reads them as typed record batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import pyarrow as pa

from learning.column_type import AnyType, ColumnType
from learning.formats.row_errors import RowErrors
from learning.formats.wrong_bytes import Marks
from learning.media_types import MEDIA_TYPES

ARROW_TYPES: dict[AnyType, pa.DataType] = {
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us"),
    "string": pa.string(),
    "strings": pa.list_(pa.string()),
    **MEDIA_TYPES,
}

# Bounds against hostile files; a legitimate table stays far below them.
MAX_RECORD_BYTES = 4 << 20
MAX_COLUMNS = 10_000


def ignore_progress(phase: str, fraction: float) -> None:
    """Report progress to nobody."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read a file: the caller's name for it, the declared column types and who hears of progress.

    `report` gets a phase's name and the fraction of that phase done, from 0 to 1. `known_types` are all columns' types
    when the file is read a second time, because the first time they were misjudged. With `marks` the file is a copy in
    which they stand for bytes that are no text: a row with one is wrong.
    """

    filename: str
    column_types: Mapping[str, ColumnType] = field(default_factory=dict)
    report: Callable[[str, float], None] = ignore_progress
    known_types: Mapping[str, ColumnType] | None = None
    marks: Marks | None = None


class Misjudged(Exception):
    """The types taken from a file's beginning are not those of all its rows: what was yielded is to be forgotten.

    The file is to be read again with these types as `known_types`.
    """

    def __init__(self, types: Mapping[str, ColumnType]) -> None:
        super().__init__()
        self.types = types


class Format(Protocol):
    """One file format."""

    @property
    def name(self) -> str:
        """The name a request uses, as in `format="csv"`."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The file name endings that suggest this format, lower case, with the dot."""

    def sniff(self, path: Path, filename: str) -> str | None:
        """Return why this file is in this format, in half a sentence, or None when it is not."""

    def read(self, path: Path, options: ReadOptions, errors: RowErrors) -> Iterator[pa.RecordBatch]:
        """Yield the clean rows in bounded batches of ARROW_TYPES columns, all with one schema.

        A row with a wrong value is left out and recorded in `errors`; a file that cannot be read as a
        whole raises InvalidDataset. A format may guess the types at first, and raise Misjudged at the end.
        """


@runtime_checkable
class WrittenFormat(Format, Protocol):
    """A format written as text; it may come in other encodings than UTF-8, and its bytes belong to rows."""

    def row_at(self, path: Path, offset: int) -> int | None:
        """Return the row that holds a byte of a UTF-8 file, 0 for a header, None when that cannot be told."""
