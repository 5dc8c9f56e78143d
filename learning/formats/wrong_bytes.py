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
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from learning.errors import InvalidDataset
from learning.formats.content import said_of_byte
from learning.formats.encodings import GB18030, IN_WORDS, UTF8, UTF8_BOM
from learning.formats.mixed_lines import lines_of
from learning.formats.row_errors import RowErrors, invalid_file

# A file with more runs of them is in another encoding, or no text at all.
MOST_MARKS = 10_000
_CHUNK_BYTES = 1 << 16
_RULES = ("encoding", "nul_byte")
_SKIP = 'or set on_bad_rows="skip".'
_REPLACEMENT = "\ufffd"
_BYTE, _NUL, _MIXED = "012"  # kinds of marks


class _Wrong(NamedTuple):
    """A run of wrong bytes, the first of which is `byte`; or a line's bytes, with what they say in UTF-8."""

    byte: int
    offset: int
    length: int = 1
    kind: str = _BYTE
    reading: str | None = None


@dataclass(frozen=True, slots=True)
class Marks:
    """The marks of one copy: what each says of the byte in its place, and `refusal`, the error of the first of them.

    `readings` are what lines in UTF-8 say, by the offsets of their marks.
    """

    encoding: str
    refusal: InvalidDataset
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    readings: dict[int, str] = field(default_factory=dict)

    def mark(self, wrong: _Wrong) -> str:
        """Return the mark of a byte at an offset of the file."""
        if wrong.reading is not None:
            self.readings[wrong.offset] = wrong.reading
        return f"{self.token}{wrong.byte:02X}{wrong.offset:016X}{wrong.kind}"

    @property
    def pattern(self) -> str:
        """The regular expression of a mark."""
        return self._pattern("[012]")

    def _pattern(self, kinds: str) -> str:
        return f"{self.token}([0-9A-F]{{2}})([0-9A-F]{{16}})({kinds})"

    def shown(self, text: str) -> str:
        """Return the text with the replacement character of Unicode for each mark of a byte that is none."""
        return re.sub(self.pattern, "", re.sub(self._pattern("[01]"), _REPLACEMENT, text))

    def _shown_in(self, column: pa.Array) -> pa.Array:
        kept = pc.replace_substring_regex(column, self._pattern("[01]"), _REPLACEMENT)
        return pc.replace_substring_regex(kept, self.pattern, "")

    def report(
        self, text: str, row: int, errors: RowErrors, *, column: str | None = None, whole: str | None = None
    ) -> bool:
        """Record an error if a row's text or cell has a mark; `whole` is all of the row as it is written."""
        found = re.search(self.pattern, text)
        if not found:
            return False
        byte, offset = int(found[1], 16), int(found[2], 16)
        rule, reading = _RULES[found[3] == _NUL], self.readings.get(offset)
        where = f' (row {row}, column "{column}")' if column else f" (row {row})"
        message, remedy = said_of_byte(
            rule, byte=byte, offset=offset, where=where, encoding=self.encoding, reading=reading
        )
        errors.add(
            rule,
            message,
            f"{remedy.removesuffix('.')}, {_SKIP}",
            row=row,
            column=column,
            value=f"0x{byte:02X}" if reading is None else reading,
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
        shown = [self._shown_in(column.filter(pa.array(bad))) for column in cells.columns]
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
                out.write(marks.mark(wrong) + (wrong.reading or ""))
    return marks


def _hopeless(refusal: InvalidDataset) -> InvalidDataset:
    first = refusal.errors[0]
    message = f"{first.message} More than {MOST_MARKS} places in the file are like that."
    return invalid_file(
        first.rule, message, first.remedy, file=first.file or "", row=first.row, column=first.column, value=first.value
    )


def _pieces(source: Path, encoding: str) -> Iterator[tuple[str, _Wrong | None]]:
    """Yield good text, each with what is wrong after it."""
    ended = -1  # where the last run ended: what begins there belongs to it
    for text, at, wrong in _decoded(source, encoding):
        for good, nul_at, length in _nuls(text, at, encoding):
            is_new = nul_at is not None and (nul_at != ended or bool(good))
            yield good, _Wrong(0, nul_at or 0, kind=_NUL) if is_new else None
            ended = ended if nul_at is None else nul_at + length
        if wrong:
            yield "", wrong if wrong.reading is not None or wrong.offset != ended else None
            ended = wrong.offset + wrong.length


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


def _decoded(source: Path, encoding: str) -> Iterator[tuple[str, int, _Wrong | None]]:
    """Yield text, its offset, and what is wrong after it."""
    decoder = codecs.getincrementaldecoder(encoding)()
    offset = 2 if encoding.startswith("utf-16") else 0
    for chunk, mixed in _chunks(source, encoding):
        if mixed is not None:
            yield chunk[: mixed.offset - offset].decode("ascii"), offset, mixed
            yield chunk[mixed.offset - offset + mixed.length :].decode("ascii"), mixed.offset + mixed.length, None
            offset += len(chunk)
            continue
        ended, left = not chunk, chunk
        while True:
            start = offset - len(decoder.getstate()[0])
            try:
                yield decoder.decode(left, final=ended), start, None
                offset += len(left)
                break
            except UnicodeDecodeError as error:
                good, wrong = error.object[: error.start], error.object[error.start : error.end]
                yield str(good, encoding), start, _Wrong(wrong[0], start + error.start, len(wrong))
                decoder.reset()
                offset, left = start + error.end, error.object[error.end :]


def _chunks(source: Path, encoding: str) -> Iterator[tuple[bytes, _Wrong | None]]:
    """Yield a file's bytes, each with what is wrong if it is a line in UTF-8; the last are none."""
    if encoding == GB18030:
        for line in lines_of(source):
            if line.reading is None:
                yield line.content, None
                continue
            at = line.offset + line.first
            length = len(line.said.encode())
            yield line.content, _Wrong(line.content[line.first], at, length, _MIXED, line.said)
    else:
        with source.open("rb") as file:
            file.seek(2 if encoding.startswith("utf-16") else 0)
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk, None
    yield b"", None
