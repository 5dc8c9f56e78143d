"""Lines of a GB18030 file that are in UTF-8: bytes that both encodings have, and that are other characters in each.

Two files put together are like that, and half of it would be read as characters that nobody wrote. Of Chinese texts in
GB18030 hardly one is UTF-8 with two characters beyond ASCII: 45 of 145,000 lines of poems, news and talks - but 1,667
of 101,506 single words, such as "学院", which is "ѧԺ" as well. In one of these words, and in no line, the other
reading has also two characters of three bytes, as Chinese has, or this one a character that GB2312 lacks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from learning.formats.encodings import GB18030, is_usual

# Longer lines are looked at in pieces, and these are not taken for UTF-8.
_MOST_BYTES = 1 << 20
_LEAST = 2
# A line of UTF-8 that is not ASCII, for whole blocks to be looked through at once; reading_of looks closer.
_UTF8_LINE = re.compile(
    rb"^[\x00-\x09\x0b-\x7f]*+(?:(?:[\xc2-\xdf]|(?:[\xe0-\xef]|[\xf0-\xf4][\x80-\xbf])[\x80-\xbf])[\x80-\xbf]"
    rb"[\x00-\x09\x0b-\x7f]*+)++$",
    re.MULTILINE,
)
_THREE_BYTES = "\u0800"


class Line(NamedTuple):
    """A line of a file with its end, or a piece of a long one, where it begins, and what it says if it is in UTF-8."""

    content: bytes
    offset: int
    reading: str | None

    @property
    def first(self) -> int:
        """Where its bytes beyond ASCII begin."""
        return next(place for place, byte in enumerate(self.content) if byte > 127)

    @property
    def said(self) -> str:
        """What it says from there on, in UTF-8, without the end of the line."""
        return (self.reading or "")[self.first :].rstrip("\r\n")


def lines_of(path: Path) -> Iterator[Line]:
    """Yield the lines of a file in GB18030, where no character has the byte that ends a line."""
    offset, is_whole = 0, True
    with path.open("rb") as file:
        while content := file.readline(_MOST_BYTES):
            begins, is_whole = is_whole, content.endswith(b"\n")
            yield Line(content, offset, reading_of(content) if begins else None)
            offset += len(content)


def reading_of(line: bytes) -> str | None:
    """Return what a line says that is in UTF-8, although the file is in GB18030; None for one that is in GB18030."""
    if line.isascii():
        return None
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return None
    beyond = [character for character in text if not character.isascii()]
    if len(beyond) < _LEAST or "\0" in text:
        return None
    if sum(character >= _THREE_BYTES for character in beyond) >= _LEAST:
        return text
    here = line.decode(GB18030, "replace")
    return None if all(character.isascii() or is_usual(character) for character in here) else text


def first_mixed(path: Path) -> tuple[Line, int] | None:
    """Return the first line of a GB18030 file that is in UTF-8, and where in a copy it goes beyond ASCII."""
    found = _first(path)
    if found is None:
        return None
    before = 0
    for line in lines_of(path):
        if line.offset == found.offset:
            break
        before += len(line.content.decode(GB18030, "replace").encode())
    return found, before + found.first


def _first(path: Path) -> Line | None:
    offset, is_whole = 0, True
    with path.open("rb") as file:
        while block := file.read(_MOST_BYTES) + file.readline(_MOST_BYTES):
            for match in _UTF8_LINE.finditer(block):
                if (match.start() or is_whole) and (reading := reading_of(match[0])) is not None:
                    return Line(match[0], offset + match.start(), reading)
            offset, is_whole = offset + len(block), block.endswith(b"\n")
    return None
