"""The frames of an MP3 file, counted where the file does not say how many there are. Imports no decoder.

A decoder that is not told guesses by the rate of the first frame, and reads no further than its guess. The layout of a
frame's header is that of ISO/IEC 11172-3 and 13818-3; the header of how many frames there are is Xing's.
"""

from __future__ import annotations

from typing import NamedTuple

from learning import recording_ends

# Thousands of bits a second by a header's number, of MPEG-1 and of MPEG-2 and 2.5; 0 and 15 are none.
_RATES_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0)
_RATES_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0)
# Samples a second by a header's two bits, of MPEG-1; MPEG-2 has half of it and MPEG-2.5 a quarter.
_SAMPLES = (44_100, 48_000, 32_000, 0)
_HEADER_BYTES = 4
# The number of a rate at which a frame of any kind has room for the count.
_ROOMY = 9


class Frame(NamedTuple):
    """What a frame's header says: thousands of bits a second, and the bytes that it has with its header."""

    rate: int
    size: int


def with_count(content: bytes) -> bytes:
    """Return an MP3 file with a frame in front that says how many follow.

    One that says so already, and one of a constant rate, of which a guess is right, are returned as they are.
    """
    start = recording_ends.behind_tags(content)
    if recording_ends.says_frames(content, start):
        return content
    frames, is_constant, at = 0, True, start
    first = frame_at(content, start)
    while (frame := frame_at(content, at)) is not None and first is not None:
        is_constant = is_constant and frame.rate == first.rate
        frames, at = frames + 1, at + frame.size
    return content if is_constant else content[:start] + _counting(content[start : start + 4], frames) + content[start:]


def frame_at(content: bytes, at: int) -> Frame | None:
    """Return the frame whose header is there; None where there is none, as behind the last one."""
    header = content[at : at + _HEADER_BYTES]
    if len(header) < _HEADER_BYTES or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version = header[1] >> 3 & 3  # 3: MPEG-1, 2: MPEG-2, 0: MPEG-2.5
    kilobits = (_RATES_1 if version == 3 else _RATES_2)[header[2] >> 4]
    samples = _SAMPLES[header[2] >> 2 & 3] >> {3: 0, 2: 1, 0: 2}.get(version, 31)
    if not kilobits or not samples:
        return None
    padding = header[2] >> 1 & 1
    return Frame(kilobits, (144_000 if version == 3 else 72_000) * kilobits // samples + padding)


def _counting(header: bytes, frames: int) -> bytes:
    """Return a silent frame like those with this header, which says how many follow."""
    is_first_version, is_mono = header[1] >> 3 & 3 == 3, header[3] >> 6 == 3
    # Without a checksum, and without padding.
    beginning = bytes([header[0], header[1] | 1, _ROOMY << 4 | header[2] & 0x0C, header[3]])
    frame = frame_at(beginning, 0)
    assert frame is not None  # the header is that of a frame, and its rate is one
    side_information = (17 if is_mono else 32) if is_first_version else (9 if is_mono else 17)
    said = beginning + bytes(side_information) + b"Xing" + (1).to_bytes(4, "big") + frames.to_bytes(4, "big")
    return said.ljust(frame.size, b"\0")
