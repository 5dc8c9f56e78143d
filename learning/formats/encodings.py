"""How a file of text is encoded, and its copy in UTF-8.

A byte order mark says UTF-8 or UTF-16. Without one, the first bytes that are not ASCII decide between UTF-8 and
GB18030: text in one of them hardly ever makes sense in the other, and text in neither is called UTF-8, whose reader
then names the byte that is wrong.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from pathlib import Path

from learning.formats.content import head, signature

UTF8, UTF8_BOM, UTF16_LE, UTF16_BE, GB18030 = "utf-8", "utf-8-bom", "utf-16-le", "utf-16-be", "gb18030"
IN_WORDS = {
    UTF8: "UTF-8",
    UTF8_BOM: "UTF-8 with a byte order mark",
    UTF16_LE: "UTF-16 (little endian)",
    UTF16_BE: "UTF-16 (big endian)",
    GB18030: "GB18030",
}

_MARKS = ((codecs.BOM_UTF8, UTF8_BOM), (codecs.BOM_UTF16_LE, UTF16_LE), (codecs.BOM_UTF16_BE, UTF16_BE))
_CHUNK_BYTES = 1 << 20
_SAMPLE_BYTES = 1 << 16
# Of the characters beyond ASCII in Chinese text in GB18030, nearly all are in the part that is GB2312.
_USUAL = 0.6


@dataclass(frozen=True, slots=True)
class WrongByte:
    """A byte of a file that its encoding does not allow, or a NUL, and where it would be in the UTF-8 copy.

    `reading` is what its line says where that is in UTF-8 and the rest of the file is not.
    """

    offset: int
    byte: int
    is_nul: bool
    copy_offset: int
    reading: str | None = None


def encoding_of(path: Path) -> str | None:
    """Return a text file's encoding, or None for a file that is known not to be text."""
    start = head(path, 4)
    if marked := next((name for mark, name in _MARKS if start.startswith(mark)), None):
        return marked
    if signature(path):
        return None
    sample = _beyond_ascii(path)
    return GB18030 if _is_gb18030(sample) else UTF8


def _beyond_ascii(path: Path) -> bytes:
    """Return some bytes of the file from the first on that is not ASCII."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            if not chunk.isascii():
                first = next(at for at, byte in enumerate(chunk) if byte > 127)
                return chunk[first : first + _SAMPLE_BYTES] + file.read(max(0, _SAMPLE_BYTES + first - len(chunk)))
    return b""


def _is_gb18030(sample: bytes) -> bool:
    as_utf8 = [character for character in sample.decode("utf-8", "replace") if ord(character) > 127]
    wrong = as_utf8.count("\ufffd")
    if 2 * wrong <= len(as_utf8):
        return False
    characters = [character for character in sample.decode("gb18030", "replace") if ord(character) > 127]
    usual = sum(is_usual(character) for character in characters)
    return usual >= _USUAL * len(characters)


def is_usual(character: str) -> bool:
    """Return whether a character beyond ASCII is one that text in GB18030 usually has."""
    if len(character.encode("gb18030")) == 4 and character != "\ufffd":
        return True  # four bytes of which two are digits: nothing else looks like that
    try:
        return bool(character.encode("gb2312"))
    except UnicodeEncodeError:
        return False


def write_utf8(source: Path, encoding: str, copy: Path) -> WrongByte | None:
    """Write a file's text as UTF-8, in bounded memory; stops at a wrong byte, with a question mark in its place."""
    decoder = codecs.getincrementaldecoder(encoding)()
    offset = 0
    with source.open("rb") as file, copy.open("wb") as out:
        if encoding in {UTF16_LE, UTF16_BE}:
            offset = len(file.read(2))
        while True:
            chunk = file.read(_CHUNK_BYTES)
            start = offset - len(decoder.getstate()[0])
            found: tuple[int, int] | None = None
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                text = str(error.object[: error.start], encoding)
                found = start + error.start, error.object[error.start]
            good = text.partition("\0")[0]
            if is_nul := len(good) < len(text):
                found = start + len(good.encode(encoding)), 0
            out.write(good.encode())
            if found:
                at = out.tell()
                out.write(b"?")
                return WrongByte(*found, is_nul, at)
            offset += len(chunk)
            if not chunk:
                return None
