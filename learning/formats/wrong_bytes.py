"""Bytes that are no text, in some rows of a file: those rows are wrong, and the others can be read.

The rows of a text in which a few bytes are wrong are found by its reader alone, who knows quotes and lines. So the text
is copied with a mark for each run of such bytes, a string that nobody could have written, and the reader looks for it.
"""

from __future__ import annotations

import codecs
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from learning.errors import InvalidDataset
from learning.formats.content import said_of_byte
from learning.formats.encodings import IN_WORDS, UTF8, UTF8_BOM
from learning.formats.row_errors import RowErrors, invalid_file

# A file with more runs of them is in another encoding, or no text at all.
MOST_MARKS = 10_000
_CHUNK_BYTES = 1 << 16
_RULES = ("encoding", "nul_byte")
_SKIP = 'or set on_bad_rows="skip".'
_REPLACEMENT = "\ufffd"


@dataclass(frozen=True, slots=True)
class Marks:
    """The marks of one copy: what each says of the byte in its place, and `refusal`, the error of the first of them."""

    encoding: str
    refusal: InvalidDataset
    token: str = field(default_factory=lambda: secrets.token_hex(16))

    def mark(self, byte: int, offset: int, *, is_nul: bool) -> str:
        """Return the mark of a byte at an offset of the file."""
        return f"{self.token}{byte:02X}{offset:016X}{int(is_nul)}"

    @property
    def pattern(self) -> str:
        """The regular expression of a mark."""
        return self.token + "([0-9A-F]{2})([0-9A-F]{16})([01])"

    def shown(self, text: str) -> str:
        """Return the text with the replacement character of Unicode for each mark."""
        return re.sub(self.pattern, _REPLACEMENT, text)

    def report(
        self, text: str, row: int, errors: RowErrors, *, column: str | None = None, whole: str | None = None
    ) -> bool:
        """Record an error if a row's text or cell has a mark; `whole` is all of the row as it is written."""
        found = re.search(self.pattern, text)
        if not found:
            return False
        byte, offset, is_nul = int(found[1], 16), int(found[2], 16), found[3] == "1"
        rule = _RULES[is_nul]
        where = f' (row {row}, column "{column}")' if column else f" (row {row})"
        message, remedy = said_of_byte(rule, byte=byte, offset=offset, where=where, encoding=self.encoding)
        errors.add(
            rule,
            message,
            f"{remedy.removesuffix('.')}, {_SKIP}",
            row=row,
            column=column,
            value=f"0x{byte:02X}",
            text=None if whole is None else self.shown(whole),
        )
        return True

    def without(
        self, rows: np.ndarray[Any, np.dtype[np.int64]], cells: pa.RecordBatch, errors: RowErrors
    ) -> tuple[np.ndarray[Any, np.dtype[np.int64]], pa.RecordBatch]:
        """Return the records without a mark, after recording the others' errors."""
        bad = np.zeros(len(rows), dtype=bool)
        for name, column in zip(cells.schema.names, cells.columns, strict=True):
            marked = pc.fill_null(pc.match_substring(column, self.token), fill_value=False)
            hits = marked.to_numpy(zero_copy_only=False)
            for place in np.flatnonzero(hits).tolist():
                self.report(column[place].as_py(), int(rows[place]), errors, column=name)
            bad |= hits
        if not bad.any():
            return rows, cells
        shown = [
            pc.replace_substring_regex(column.filter(pa.array(bad)), self.pattern, _REPLACEMENT)
            for column in cells.columns
        ]
        errors.set_aside(rows[bad], pa.record_batch(shown, names=cells.schema.names))
        return rows[~bad], cells.filter(pa.array(~bad))


def marks_for(refusal: InvalidDataset, source: Path, encoding: str, copy: Path) -> Marks | None:
    """Write a text to `copy` in UTF-8 with its wrong bytes marked; None when it was refused for something else.

    Raises InvalidDataset when most of the file is wrong, for then it is the encoding and not its rows.
    """
    if not set(refusal.errors_by_rule) <= set(_RULES):
        return None
    # A byte order mark of UTF-8 stays where it is, and so do the offsets.
    codec = UTF8 if encoding == UTF8_BOM else encoding
    marks = Marks(IN_WORDS[codec], refusal)
    left = MOST_MARKS
    with copy.open("w", encoding="utf-8", newline="") as out:
        for piece, wrong in _pieces(source, codec):
            out.write(piece)
            if wrong:
                left -= 1
                if left < 0:
                    raise _hopeless(refusal)
                out.write(marks.mark(wrong[0], wrong[1], is_nul=wrong[2]))
    return marks


def _hopeless(refusal: InvalidDataset) -> InvalidDataset:
    first = refusal.errors[0]
    message = f"{first.message} More than {MOST_MARKS} places in the file are like that."
    return invalid_file(
        first.rule, message, first.remedy, file=first.file or "", row=first.row, column=first.column, value=first.value
    )


def _pieces(source: Path, encoding: str) -> Iterator[tuple[str, tuple[int, int, bool] | None]]:
    """Yield good text, each with what follows it: the first of a run of wrong bytes, its offset, and if it is a NUL."""
    ended = -1  # where the last run ended: what begins there belongs to it
    for text, at, wrong in _decoded(source, encoding):
        for good, nul_at, length in _nuls(text, at, encoding):
            is_new = nul_at is not None and (nul_at != ended or bool(good))
            yield good, (0, nul_at or 0, True) if is_new else None
            ended = ended if nul_at is None else nul_at + length
        if wrong:
            byte, offset, length = wrong
            yield "", (byte, offset, False) if offset != ended else None
            ended = offset + length


def _nuls(text: str, at: int, encoding: str) -> Iterator[tuple[str, int | None, int]]:
    """Yield the text in pieces, each with the offset and bytes of the run of NULs after it; the last has none."""
    while text:
        good, nul, rest = text.partition("\0")
        if not nul:
            yield text, None, 0
            return
        left = rest.lstrip("\0")
        at += len(good.encode(encoding))
        length = (1 + len(rest) - len(left)) * len("\0".encode(encoding))
        yield good, at, length
        text, at = left, at + length


def _decoded(source: Path, encoding: str) -> Iterator[tuple[str, int, tuple[int, int, int] | None]]:
    """Yield text, its offset, and the wrong byte after it with its offset and how many bytes are passed over."""
    decoder = codecs.getincrementaldecoder(encoding)()
    with source.open("rb") as file:
        offset = len(file.read(2)) if encoding.startswith("utf-16") else 0
        while True:
            chunk = file.read(_CHUNK_BYTES)
            ended = not chunk
            while True:
                start = offset - len(decoder.getstate()[0])
                try:
                    yield decoder.decode(chunk, final=ended), start, None
                    offset += len(chunk)
                    break
                except UnicodeDecodeError as error:
                    good, wrong = error.object[: error.start], error.object[error.start : error.end]
                    yield str(good, encoding), start, (wrong[0], start + error.start, len(wrong))
                    decoder.reset()
                    offset, chunk = start + error.end, error.object[error.end :]
            if ended:
                return
