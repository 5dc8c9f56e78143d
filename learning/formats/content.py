"""What a file's bytes say about it: well-known signatures, and whether it is UTF-8 text."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from pathlib import Path

from learning.formats.row_errors import invalid_file

_CHUNK_BYTES = 1 << 20

# Where a signature stands, the signature, and what has it.
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (8, b"WEBP", "a WebP image"),
    (8, b"WAVE", "a WAV recording"),
    (0, b"OggS", "an Ogg recording"),
    (0, b"fLaC", "a FLAC recording"),
    (0, b"%PDF-", "a PDF document"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"PK\x05\x06", "an empty zip archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ\x00", "an xz archive"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x7fELF", "a program"),
    (0, b"SQLite format 3\x00", "an SQLite database"),
    (0, b"\xd0\xcf\x11\xe0", "an old Office document"),
    (0, b"\x80\x02", "a Python pickle"),
    (0, b"\x80\x03", "a Python pickle"),
    (0, b"\x80\x04", "a Python pickle"),
    (0, b"\x80\x05", "a Python pickle"),
    (0, b"ARROW1", "an Arrow file"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"\xff\xfe", "UTF-16 text"),
    (0, b"\xfe\xff", "UTF-16 text"),
)


def head(path: Path, size: int) -> bytes:
    """Return the first `size` bytes of a file, or all of a shorter one."""
    with path.open("rb") as file:
        return file.read(size)


def signature(path: Path) -> str | None:
    """Return what the file's first bytes are known to begin, or None for text and the unknown."""
    first = head(path, 512)
    return next((what for at, magic, what in _SIGNATURES if first.startswith(magic, at)), None)


def check_text(path: Path, filename: str, row_at: Callable[[int], int | None]) -> None:
    """Raise InvalidDataset at the first NUL byte or invalid UTF-8; `row_at` turns an offset into a row."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    with path.open("rb") as file:
        while True:
            chunk = file.read(_CHUNK_BYTES)
            if (nul := chunk.find(b"\0")) >= 0:
                raise _bad_byte("nul_byte", path, filename, offset + nul, row_at)
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                raise _bad_byte("encoding", path, filename, offset - pending + error.start, row_at) from None
            offset += len(chunk)
            if not chunk:
                return


def _bad_byte(rule: str, path: Path, filename: str, offset: int, row_at: Callable[[int], int | None]) -> Exception:
    with path.open("rb") as file:
        file.seek(offset)
        byte = f"0x{file.read(1)[0]:02X}"
    row = row_at(offset)
    where = {None: "", 0: " (in the header)"}.get(row, f" (row {row})")
    if rule == "nul_byte":
        message = f"NUL byte at byte offset {offset}{where}."
        remedy = "Remove the NUL bytes; a table is plain UTF-8 text."
    elif what := signature(path):
        message, remedy = f"Not UTF-8 text: the file begins like {what}.", "Save the table as UTF-8 text."
    else:
        message = f"Not valid UTF-8: byte {byte} at byte offset {offset}{where}."
        remedy = "Save the file as UTF-8."
    return invalid_file(rule, message, remedy, file=filename, row=row or None, value=byte)
