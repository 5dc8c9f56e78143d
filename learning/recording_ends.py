"""Whether the end of a recording is there, as its file itself says. Imports no decoder."""

from __future__ import annotations

import re

# A page of an Ogg file: how it begins, with its version and flags, its header up to the table of its body's lengths,
# where its flags and the table's size stand, and the most bytes that one has.
_PAGE = re.compile(rb"OggS\0[\0-\7]")
_PAGE_BYTES, _FLAGS_AT, _SEGMENTS_AT, _MOST_PAGE_BYTES = 27, 5, 26, 27 + 255 + 255 * 255
_LAST_PAGE = 4
# In the first frame of an MP3 file its encoder may say how long the file is: a name near the frame's beginning, flags
# of what is said, and where they are set four bytes of how many frames and four of how many bytes.
_XING = re.compile(rb"(?s)(?:Xing|Info)...[\3\7\x0b\x0f](....)(....)")
_XING_FRAMES = re.compile(rb"(?s)(?:Xing|Info)...[\1\3\5\7\t\x0b\r\x0f]")
_XING_WITHIN = 64
_MOST_TAGS = 8


def wav_bytes(content: bytes) -> int:
    """Return how many bytes a WAV file says to have; 0 for one that was written before that was known."""
    promised = int.from_bytes(content[4:8], "little")
    return 0 if promised == 0xFFFFFFFF else promised + 8


def mp3_bytes(content: bytes) -> int:
    """Return how many bytes an MP3 file says to have, to the end of its last frame; 0 for one that does not say."""
    start = behind_tags(content)
    said = _XING.search(content, start, start + _XING_WITHIN)
    frames, size = (int.from_bytes(number, "big") for number in said.groups()) if said else (0, 0)
    return start + size if frames and size else 0


def says_frames(content: bytes, start: int) -> bool:
    """Return whether an MP3 file whose frames begin at `start` says how many there are."""
    return _XING_FRAMES.search(content, start, start + _XING_WITHIN) is not None


def is_ogg_whole(content: bytes) -> bool:
    """Return whether an Ogg file's last page is there to its end, and is the last one of a stream.

    A page's table has the lengths of the pieces of its body. A little that follows a last page and is none, such as
    titles, counts for nothing.
    """
    end = content[-2 * _MOST_PAGE_BYTES :]
    pages = [match.start() for match in _PAGE.finditer(end)]
    page = end[pages[-1] :] if pages else b""
    if len(page) < _PAGE_BYTES:
        return False
    behind_table = _PAGE_BYTES + page[_SEGMENTS_AT]
    is_there = len(page) >= behind_table and len(page) >= behind_table + sum(page[_PAGE_BYTES:behind_table])
    return is_there and bool(page[_FLAGS_AT] & _LAST_PAGE)


def behind_tags(content: bytes) -> int:
    """Return where the frames of an MP3 file begin, behind what is written in front of them, such as titles."""
    start = 0
    for _ in range(_MOST_TAGS):
        tag = content[start : start + 10]
        if len(tag) < 10 or not tag.startswith(b"ID3"):
            break
        # Seven bits of each byte count; a flag says that the tag's ten bytes are repeated behind it.
        size = tag[6] << 21 | tag[7] << 14 | tag[8] << 7 | tag[9]
        start += 10 + size + (10 if tag[5] & 0x10 else 0)
    return start
