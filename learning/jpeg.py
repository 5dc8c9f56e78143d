"""JPEG files decoded by libjpeg-turbo itself, through simplejpeg. Imports no torch.

Pillow has the same decoder and gives the same pixels, but reads headers in Python, which for a small file takes longer
than its pixels do, and lets no other thread go on meanwhile. What is damaged, or in other colours than grey or red,
green and blue, is left to Pillow. H rows, W columns, C channels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_EXIF = b"Exif\0\0"
# Pillow's names by those of what is stored, and by each of them the name of what is wanted.
MODES = {"Gray": "L", "YCbCr": "RGB", "RGB": "RGB"}
_WANTED = {"L": "GRAY", "RGB": "RGB"}
# How much smaller the decoder can make an image for less work, not more.
_SHRUNK = (8, 4, 2)


class Header(NamedTuple):
    """Pillow's name of the colours, and width and height as they are stored."""

    mode: str
    width: int
    height: int


def header(content: bytes) -> Header | None:
    """Return what the header of a JPEG says; None where it cannot be read, or where EXIF may say more."""
    if _EXIF in content:
        return None
    try:
        height, width, colours, _ = _simplejpeg().decode_jpeg_header(content)
    except ValueError:
        return None
    return Header(MODES[colours], width, height) if colours in MODES else None


def decode(content: bytes, found: Header, least: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Return pixels_HWC, made smaller by 2, 4 or 8 as long as width and height are at least these; None if damaged."""
    shrink = min(found.width // least[0], found.height // least[1])
    by = next((by for by in _SHRUNK if by <= shrink), 1)
    try:
        pixels_HWC: NDArray[np.uint8] = _simplejpeg().decode_jpeg(
            content,
            colorspace=_WANTED[found.mode],
            min_width=-(-found.width // by),
            min_height=-(-found.height // by),
        )
    except ValueError:
        return None
    return pixels_HWC


def _simplejpeg() -> Any:
    # Imported here because it costs every start of a process.
    import simplejpeg

    return simplejpeg
