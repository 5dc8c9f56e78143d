"""Drawing as SVG text: shapes, words and small images, each with what it needs and nothing that runs.

Labels and file names are foreign: every text is escaped by the writer of the standard library, and what XML cannot
hold, or what would turn the reading direction around, is replaced. Lengths are in units of the picture, a pixel each.
"""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Sequence
from typing import Literal
from xml.etree import ElementTree

BLACK, GREY, LIGHT, WHITE = "#222222", "#6b6b6b", "#dddddd", "#ffffff"
# Told apart also by those who see red and green alike (Okabe and Ito 2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8c8c00")
TEXT, SMALL = 12.0, 10.0

_TITLE_LENGTH = 300
_FAMILY = "system-ui, 'Segoe UI', Helvetica, Arial, 'Noto Sans', 'Noto Sans CJK SC', sans-serif"
_NARROW, _WIDE = 0.58, 1.0  # of the size, what a letter and a Chinese character are wide on average
_TURNING = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_NOTHING = frozenset("\ufffe\uffff")
_UNSAYABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})

Anchor = Literal["start", "middle", "end"]


class Drawing:
    """A picture that grows element by element."""

    def __init__(self, width: float, height: float, about: str) -> None:
        self.width, self.height = width, height
        size = {
            "width": _number(width),
            "height": _number(height),
            "viewBox": f"0 0 {_number(width)} {_number(height)}",
        }
        self._root = ElementTree.Element(
            "svg", {"xmlns": "http://www.w3.org/2000/svg", **size, "role": "img", "font-family": _FAMILY}
        )
        ElementTree.SubElement(self._root, "title").text = sayable(about)
        self.rectangle(0, 0, width, height, fill=WHITE)

    def rectangle(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        fill: str = "none",
        line: str | None = None,
        thick: float = 1.0,
        dashes: str | None = None,
        about: str | None = None,
    ) -> None:
        """Draw a rectangle; `about` is shown when somebody points at it."""
        place = {"x": x, "y": y, "width": width, "height": height}
        self._add("rect", place, {"fill": fill, **_stroke(line, thick, dashes)}, about)

    def line(
        self, points: Sequence[tuple[float, float]], colour: str, thick: float = 1.0, dashes: str | None = None
    ) -> None:
        """Draw a line through some points."""
        through = " ".join(f"{_number(x)},{_number(y)}" for x, y in points)
        attributes = {"points": through, "fill": "none", "stroke-linejoin": "round", **_stroke(colour, thick, dashes)}
        self._add("polyline", {}, attributes)

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = TEXT,
        colour: str = BLACK,
        anchor: Anchor = "start",
        bold: bool = False,
        room: float | None = None,
        turned: float | None = None,
        about: str | None = None,
    ) -> None:
        """Write a line of text on a baseline; what does not fit into the `room` is cut, and shown whole on pointing."""
        shown = sayable(words) if room is None else fitting(words, size, room)
        attributes = {"font-size": _number(size), "fill": colour}
        if anchor != "start":
            attributes["text-anchor"] = anchor
        if bold:
            attributes["font-weight"] = "600"
        if turned is not None:
            attributes["transform"] = f"rotate({_number(turned)} {_number(x)} {_number(y)})"
        whole = sayable(words)
        element = self._add("text", {"x": x, "y": y}, attributes, about or (whole if shown != whole else None))
        if len(element):
            element[0].tail = shown
        else:
            element.text = shown

    def image(self, x: float, y: float, width: float, height: float, content: bytes, *, sharp: bool = False) -> None:
        """Show a PNG or JPEG file; a `sharp` one keeps its pixels when it is enlarged."""
        kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
        attributes = {
            "href": f"data:image/{kind};base64,{base64.b64encode(content).decode()}",
            "preserveAspectRatio": "none",
        }
        if sharp:
            attributes["image-rendering"] = "pixelated"
        self._add("image", {"x": x, "y": y, "width": width, "height": height}, attributes)

    def written(self) -> str:
        """Return the picture as the text of a file."""
        return ElementTree.tostring(self._root, encoding="unicode") + "\n"

    def _add(
        self, name: str, numbers: dict[str, float], attributes: dict[str, str], about: str | None = None
    ) -> ElementTree.Element:
        written = {key: _number(value) for key, value in numbers.items()}
        element = ElementTree.SubElement(self._root, name, {**written, **attributes})
        if about is not None:
            ElementTree.SubElement(element, "title").text = sayable(about)
        return element


def sayable(text: str) -> str:
    """Return a text of bounded length on one line, with a mark for each character that no picture should hold."""
    text = text if len(text) <= _TITLE_LENGTH else text[: _TITLE_LENGTH - 1] + "…"
    text = " ".join(text.split())
    return "".join("\ufffd" if _is_unsayable(one) else one for one in text)


def _is_unsayable(one: str) -> bool:
    return one in _TURNING or one in _NOTHING or unicodedata.category(one) in _UNSAYABLE


def width_of(text: str, size: float) -> float:
    """Return about how wide a text is."""
    wide = sum(unicodedata.east_asian_width(one) in "WF" for one in text)
    return size * (_WIDE * wide + _NARROW * (len(text) - wide))


def fitting(text: str, size: float, room: float) -> str:
    """Return a text, or as much of its beginning as there is room for."""
    text = sayable(text)
    if width_of(text, size) <= room:
        return text
    while text and width_of(text, size) + size > room:
        text = text[:-1]
    return text.rstrip() + "…"


def _stroke(colour: str | None, thick: float, dashes: str | None) -> dict[str, str]:
    if colour is None:
        return {}
    return {"stroke": colour, "stroke-width": _number(thick), **({"stroke-dasharray": dashes} if dashes else {})}


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
