"""Marked objects drawn on their image. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from learning.images import MAX_PIXELS, Target, decode_sized, encode_png

# Told apart also by those who see red and green alike (Okabe and Ito 2008).
_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
_LARGEST = 2_000


@dataclass(frozen=True, slots=True)
class Drawn:
    """A box in pixels of the image, what to write at it, and a number that its colour follows from."""

    box: tuple[float, float, float, float]
    text: str
    number: int


def draw(content: bytes, size: tuple[int, int], objects: Sequence[Drawn]) -> bytes:
    """Return an image, which is so wide and high, as a PNG with boxes; very large ones are made smaller."""
    import numpy as np
    from PIL import Image, ImageDraw

    assert size[0] * size[1] <= MAX_PIXELS
    scale = min(1.0, _LARGEST / max(size))
    width, height = (max(1, round(side * scale)) for side in size)
    pixels, _ = decode_sized(content, Target(height, width, 3, "stretch"))
    image = Image.fromarray(pixels)
    pen = ImageDraw.Draw(image)
    line = max(1, round(max(width, height) / 300))
    for one in objects:
        colour = _COLOURS[one.number % len(_COLOURS)]
        left, top, right, low = (edge * scale for edge in one.box)
        pen.rectangle((left, top, max(left, right - 1), max(top, low - 1)), outline=colour, width=line)
        ground = pen.textbbox((left, max(0.0, top - 12)), one.text)
        pen.rectangle(ground, fill=colour)
        pen.text((left, max(0.0, top - 12)), one.text, fill="white")
    return encode_png(np.asarray(image))
