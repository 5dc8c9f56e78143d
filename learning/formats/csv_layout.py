"""How a delimited file is written: its delimiter and its header."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from learning.formats.column_types import check_names
from learning.formats.content import head
from learning.formats.row_errors import invalid_file

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}

_SAMPLE_BYTES = 1 << 20
_SAMPLE_RECORDS = 100


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file's records are written: the delimiter and the header's names."""

    delimiter: str
    names: list[str]


def _sample(path: Path) -> tuple[str, bool]:
    """Return the file's beginning as text and whether it is the whole file."""
    start = head(path, _SAMPLE_BYTES)
    return start.decode("utf-8-sig", errors="replace"), len(start) == path.stat().st_size


def _rows(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    try:
        # Blank lines are no records, to Arrow as here.
        yield from (row for row in csv.reader(lines, delimiter=delimiter) if row)
    except csv.Error:  # a field above the module's limit
        return


def _ends_in_quotes(text: str, delimiter: str) -> bool:
    try:
        list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        return "unexpected end" in str(error)
    return False


def _records(sample: tuple[str, bool], delimiter: str) -> list[list[str]]:
    """Return the sample's first records, without one that the sample cuts."""
    records = list(itertools.islice(_rows(io.StringIO(sample[0], newline=""), delimiter), _SAMPLE_RECORDS + 1))
    cut = not sample[1] and 1 < len(records) <= _SAMPLE_RECORDS
    return records[:-1] if cut else records[:_SAMPLE_RECORDS]


def _delimiter(sample: tuple[str, bool]) -> tuple[str, float]:
    """Return the delimiter that gives most records as many fields as the header, and how many it does."""
    best = (0.0, 0, ",")
    for delimiter in DELIMITERS:
        records = _records(sample, delimiter)
        width = len(records[0]) if records else 0
        if width > 1:
            share = sum(len(record) == width for record in records) / len(records)
            # The header alone always agrees with itself; a row that agrees too weighs more.
            best = max(best, (share, width, delimiter), key=lambda one: one[:2])
    return best[2], best[0]


def sniffed(path: Path) -> tuple[Layout, bool]:
    """Return how the file seems to be written and whether all its first records agree on several fields."""
    sample = _sample(path)
    delimiter, share = _delimiter(sample)
    records = _records(sample, delimiter)
    names = records[0] if records else []
    return Layout(delimiter, names), len(names) > 1 and share == 1 and len(records) > 1


def layout_of(path: Path, filename: str) -> Layout:
    """Return how the file is written; raise InvalidDataset for a header that cannot be used."""
    sample = _sample(path)
    delimiter, _ = _delimiter(sample)
    text, whole = sample
    if not text.strip():
        raise invalid_file("empty_file", "The file has no header.", "Begin with a line of column names.", file=filename)
    stream = io.StringIO(text, newline="")
    header = next(_rows(stream, delimiter), None)
    if header is None or (not whole and stream.tell() == len(text)):
        raise invalid_file(
            "header_too_large",
            f"The header does not end within {_SAMPLE_BYTES >> 20} MiB.",
            "Check that the file's first line holds the column names and that its quotes are closed.",
            file=filename,
        )
    if whole and stream.tell() == len(text) and _ends_in_quotes(text, delimiter):
        raise invalid_file(
            "open_quote", "A quote opened in the header is never closed.", "Close the quote.", file=filename
        )
    names = [name.strip() for name in header]
    check_names(names, filename)
    return Layout(delimiter, names)
