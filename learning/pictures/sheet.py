"""Small images side by side, each with a few lines below: mistakes, detections, spectrograms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from learning.pictures.svg import BLACK, GREY, LIGHT, WHITE, Drawing, fitting, width_of

MISTAKEN, MEANT, ASIDE = "#b34700", BLACK, GREY  # what a model says wrongly, what is so, and what else there is
# Of all images of a sheet together; what is beyond is left out.
MOST_BYTES = 1 << 20
_EDGE, _GAP, _TOP, _LINE, _TAG = 16.0, 14.0, 60.0, 14.0, 9.0


@dataclass(frozen=True, slots=True)
class Outline:
    """A box in shares of its image's width and height: left, top, right, low; with a word at its corner."""

    box: tuple[float, float, float, float]
    colour: str
    word: str = ""
    dashes: str | None = None
    below: bool = False  # where the word is


@dataclass(frozen=True, slots=True)
class Tile:
    """An image as PNG or JPEG, width and height of what it shows, boxes on it, and lines below: text and colour."""

    content: bytes
    size: tuple[float, float]
    lines: Sequence[tuple[str, str]]
    outlines: Sequence[Outline] = field(default=())
    sharp: bool = False


def sheet_picture(
    title: str,
    said: str,
    tiles: Sequence[Tile],
    *,
    frame: tuple[float, float],
    columns: int,
    legend: Sequence[Outline] = (),
) -> str:
    """Return tiles as SVG in rows of so many, each image as large as fits into the frame's width and height."""
    tiles = _bounded(tiles)
    columns = min(columns, max(1, len(tiles)))
    width = max(_EDGE * 2 + columns * frame[0] + (columns - 1) * _GAP, 420.0)
    below = _LINE * max((len(tile.lines) for tile in tiles), default=0) + 8
    rows = -(-len(tiles) // columns)
    top = _TOP + (20 if legend else 0)
    drawing = Drawing(width, top + rows * (frame[1] + below + _GAP) + _EDGE, f"{title}: {said}")
    drawing.text(_EDGE, 24, title, size=16, bold=True)
    drawing.text(_EDGE, 42, said, colour=GREY, room=width - 2 * _EDGE)
    x = _EDGE
    for one in legend:
        drawing.rectangle(x, 54, 18, 11, line=one.colour, thick=2, dashes=one.dashes)
        drawing.text(x + 24, 64, one.word)
        x += 24 + width_of(one.word, 12) + 20
    for place, tile in enumerate(tiles):
        row, column = divmod(place, columns)
        at = (_EDGE + column * (frame[0] + _GAP), top + row * (frame[1] + below + _GAP))
        _draw_tile(drawing, tile, at, frame)
    return drawing.written()


def _bounded(tiles: Sequence[Tile]) -> list[Tile]:
    kept: list[Tile] = []
    room = MOST_BYTES
    for tile in tiles:
        room -= len(tile.content)
        if room < 0:
            break
        kept.append(tile)
    return kept


def _draw_tile(drawing: Drawing, tile: Tile, at: tuple[float, float], frame: tuple[float, float]) -> None:
    left, top = at
    scale = min(frame[0] / tile.size[0], frame[1] / tile.size[1])
    width, height = tile.size[0] * scale, tile.size[1] * scale
    x, y = left + (frame[0] - width) / 2, top + (frame[1] - height) / 2
    drawing.rectangle(left, top, frame[0], frame[1], fill="#f4f4f4")
    drawing.image(x, y, width, height, tile.content, sharp=tile.sharp)
    drawing.rectangle(x, y, width, height, line=LIGHT)
    for one in tile.outlines:
        _draw_outline(drawing, one, (x, y), (width, height))
    for number, (words, colour) in enumerate(tile.lines):
        drawing.text(left, top + frame[1] + _LINE * (number + 1), words, size=11, colour=colour, room=frame[0])


def _draw_outline(drawing: Drawing, one: Outline, at: tuple[float, float], size: tuple[float, float]) -> None:
    (x, y), (width, height) = at, size
    left, top, right, low = (min(1.0, max(0.0, edge)) for edge in one.box)
    box = (x + left * width, y + top * height, (right - left) * width, (low - top) * height)
    drawing.rectangle(*box, line=one.colour, thick=1.6, dashes=one.dashes, about=one.word or None)
    if one.word:
        words = fitting(one.word, _TAG, max(60.0, box[2]))
        edge = box[1] + box[3] - 12 if one.below else max(y, box[1] - 12)
        start = min(box[0], x + width - width_of(words, _TAG) - 4)
        drawing.rectangle(start, edge, width_of(words, _TAG) + 4, 12, fill=one.colour)
        drawing.text(start + 2, edge + 9.5, words, size=_TAG, colour=WHITE)


def percent(share: float) -> str:
    """Return a share of one as text that says certain of nothing that is not."""
    return f"{100 * min(share, 0.999 if share < 1 else 1):.1f}%"
