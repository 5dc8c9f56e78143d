"""Curves between 0 and 1: precision over recall, hits over false alarms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from learning.pictures.svg import COLOURS, GREY, LIGHT, SMALL, Drawing

Floats = NDArray[np.float64]

MOST_CURVES = len(COLOURS)
_SIDE, _LEFT, _TOP, _BELOW, _EDGE = 340.0, 60.0, 60.0, 48.0, 16.0
_LEGEND_ROW = 18.0


@dataclass(frozen=True, slots=True)
class Curve:
    """Points from left to right, what they are of, and the area below as it is measured elsewhere."""

    label: str
    x_P: Floats
    y_P: Floats
    area: float
    steps: bool = False  # at the height of the next point already, and not on a straight line to it


@dataclass(frozen=True, slots=True)
class Axes:
    """What a picture of curves is called, what its axes and its areas are, and whether chance is on its diagonal."""

    title: str
    x: str
    y: str
    area: str
    has_diagonal: bool = False


RECALL = Axes("Precision and recall", "recall", "precision", "average precision")
ROC = Axes("ROC curve", "false positive rate", "true positive rate", "area", has_diagonal=True)


def curves_picture(axes: Axes, curves: Sequence[Curve], said: str) -> str:
    """Return at most 7 curves as SVG; `said` is of which rows they are."""
    height = _TOP + _SIDE + _BELOW + _LEGEND_ROW * len(curves) + _EDGE
    width = _LEFT + _SIDE + 2 * _EDGE
    drawing = Drawing(width, height, f"{axes.title}, {said}")
    drawing.text(_EDGE, 24, axes.title, size=16, bold=True)
    drawing.text(_EDGE, 42, said, colour=GREY, room=width - 2 * _EDGE)
    _draw_axes(drawing, axes)
    for place, (curve, colour) in enumerate(zip(curves, COLOURS, strict=False)):
        drawing.line(_points(curve), colour, 2)
        y = _TOP + _SIDE + _BELOW + _LEGEND_ROW * (place + 0.5)
        drawing.line([(_LEFT, y - 4), (_LEFT + 20, y - 4)], colour, 3)
        area = f"{axes.area} {curve.area:.3f}"
        drawing.text(_LEFT + 28, y, curve.label, room=_SIDE - 170)
        drawing.text(_LEFT + _SIDE, y, area, colour=GREY, anchor="end")
    return drawing.written()


def _draw_axes(drawing: Drawing, axes: Axes) -> None:
    low = _TOP + _SIDE
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        x, y = _LEFT + tick * _SIDE, low - tick * _SIDE
        drawing.line([(x, _TOP), (x, low)], LIGHT)
        drawing.line([(_LEFT, y), (_LEFT + _SIDE, y)], LIGHT)
        drawing.text(x, low + 15, f"{tick:g}", size=SMALL, colour=GREY, anchor="middle")
        drawing.text(_LEFT - 6, y + 4, f"{tick:g}", size=SMALL, colour=GREY, anchor="end")
    if axes.has_diagonal:
        drawing.line([(_LEFT, low), (_LEFT + _SIDE, _TOP)], GREY, 1, "4 4")
    drawing.text(_LEFT + _SIDE / 2, low + 32, axes.x, colour=GREY, anchor="middle")
    drawing.text(_LEFT - 36, _TOP + _SIDE / 2, axes.y, colour=GREY, anchor="middle", turned=-90)


def _points(curve: Curve) -> list[tuple[float, float]]:
    """Return where a curve goes, without points that nobody could tell from those before."""
    x_P, y_P = curve.x_P, curve.y_P
    if curve.steps:
        x_P, y_P = np.repeat(x_P, 2)[:-1], np.repeat(y_P, 2)[1:]
    places = np.stack([_LEFT + x_P * _SIDE, _TOP + _SIDE - y_P * _SIDE], 1).round(1)
    # At a pixel of its own each, or where the curve turns.
    coarse = np.round(places)
    fresh = np.ones(len(places), dtype=bool)
    fresh[1:-1] = (coarse[1:-1] != coarse[:-2]).any(1) | (coarse[1:-1] != coarse[2:]).any(1)
    return [(float(x), float(y)) for x, y in places[fresh]]
