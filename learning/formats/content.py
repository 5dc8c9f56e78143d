"""What a file's bytes say about it: well-known signatures, and whether it is UTF-8 text."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from learning.errors import InvalidDataset
from learning.formats.row_errors import invalid_file, shortened
from learning.signatures import signature_of

RowAt = Callable[[Path, int], int | None]

_CHUNK_BYTES = 1 << 20


def head(path: Path, size: int) -> bytes:
    """Return the first `size` bytes of a file, or all of a shorter one."""
    with path.open("rb") as file:
        return file.read(size)


def signature(path: Path) -> str | None:
    """Return what the file's first bytes are known to begin, or None for text and the unknown."""
    return signature_of(head(path, 512))


def check_text(path: Path, filename: str, row_at: RowAt) -> None:
    """Raise InvalidDataset at the first NUL byte or invalid UTF-8; `row_at` finds the row of an offset."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    with path.open("rb") as file:
        while True:
            chunk = file.read(_CHUNK_BYTES)
            if (nul := chunk.find(b"\0")) >= 0:
                raise bad_byte("nul_byte", filename, byte=0, offset=offset + nul, row=row_at(path, offset + nul))
            pending = len(decoder.getstate()[0])
            if pending or not chunk.isascii() or not chunk:
                try:
                    decoder.decode(chunk, final=not chunk)
                except UnicodeDecodeError as error:
                    raise _not_utf8(path, filename, offset - pending + error.start, row_at) from None
            offset += len(chunk)
            if not chunk:
                return


def _not_utf8(path: Path, filename: str, offset: int, row_at: RowAt) -> InvalidDataset:
    if what := signature(path):
        remedy = "Save the table as UTF-8 text."
        return invalid_file("encoding", f"Not text: the file begins like {what}.", remedy, file=filename)
    with path.open("rb") as file:
        file.seek(offset)
        byte = file.read(1)[0]
    return bad_byte("encoding", filename, byte=byte, offset=offset, row=row_at(path, offset), encoding="UTF-8")


def bad_byte(
    rule: Literal["encoding", "nul_byte"],
    filename: str,
    *,
    byte: int,
    offset: int,
    row: int | None,
    encoding: str = "",
    reading: str | None = None,
) -> InvalidDataset:
    """Return the exception for a byte that no text of the encoding has, or a line in another; row 0 is the header."""
    where = {None: "", 0: " (in the header)"}.get(row, f" (row {row})")
    message, remedy = said_of_byte(rule, byte=byte, offset=offset, where=where, encoding=encoding, reading=reading)
    value = f"0x{byte:02X}" if reading is None else reading
    return invalid_file(rule, message, remedy, file=filename, row=row or None, value=value)


def said_of_byte(
    rule: str, *, byte: int, offset: int, where: str, encoding: str, reading: str | None = None
) -> tuple[str, str]:
    """Return what is wrong with a byte that is no text, or with a line that is one in UTF-8, and the remedy."""
    if reading is not None:
        message = f"Not {encoding} as the rest of the file: from byte offset {offset} on{where} it is UTF-8 and says"
        return f'{message} "{shortened(reading)}".', "Save the whole file as UTF-8."
    if rule == "nul_byte":
        remedy = "Remove the NUL bytes, or save the file as UTF-8: a file of rows is plain text."
        return f"NUL byte at byte offset {offset}{where}.", remedy
    return f"Not valid {encoding}: byte 0x{byte:02X} at byte offset {offset}{where}.", "Save the file as UTF-8."
