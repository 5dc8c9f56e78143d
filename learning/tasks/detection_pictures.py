"""Pictures of detections: precision over recall, and images with what is there and what was found drawn on them.

K detections and M objects of one of N images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from learning.average_precision import PrecisionTally, found_objects
from learning.capabilities import Judged, Picture
from learning.interfaces import Batch
from learning.pictures.curves import MOST_CURVES, RECALL, Curve, curves_picture
from learning.pictures.sheet import MEANT, MISTAKEN, Outline, Tile, sheet_picture
from learning.tasks.mistakes import image_tile
from learning.tasks.score_pictures import rows_of

MOST_SHOWN = 12
_WIDTH, _COLUMNS, _MOST_BOXES = 340.0, 3, 100
_THERE, _RIGHT, _WRONG, _MISSED = "#009E73", "#0072B2", "#D55E00", "#b0008e"
_LEGEND = (
    Outline((0, 0, 1, 1), _THERE, "object, found"),
    Outline((0, 0, 1, 1), _MISSED, "object, missed"),
    Outline((0, 0, 1, 1), _RIGHT, "detection, right", dashes="5 3"),
    Outline((0, 0, 1, 1), _WRONG, "detection, wrong", dashes="5 3"),
)


def precision_curves(tally: PrecisionTally, part: str, count: int) -> Iterator[Picture]:
    """Yield precision over recall at an overlap of a half, of the classes that are found worst."""
    found = sorted(tally.curves().items(), key=lambda pair: pair[1][2])
    curves = [
        Curve(label, np.append(0.0, recall_N), np.append(precision_N[0], precision_N), average, steps=True)
        for label, (recall_N, precision_N, average) in found[:MOST_CURVES]
    ]
    few = f"; the {MOST_CURVES} lowest of {len(found)}" if len(found) > MOST_CURVES else ""
    if curves:
        said = f"at an overlap of 0.5, on {rows_of(part, count)}{few}"
        yield Picture("precision-recall", curves_picture(RECALL, curves, said))


@dataclass(frozen=True, slots=True)
class _Looked:
    """An image's detections and objects, and which of both belong together."""

    found_K6: Tensor
    right_K: np.ndarray[tuple[int], np.dtype[np.bool_]]
    boxes_M4: Tensor
    class_M: Tensor
    found_M: np.ndarray[tuple[int], np.dtype[np.bool_]]

    @classmethod
    def at(cls, found_K6: Tensor, targets: Batch, place: int, threshold: float) -> _Looked:
        """Look at the detections of one image that are likely enough."""
        is_there_M = targets["target_class_BM"][place] >= 0
        boxes_M4 = targets["target_boxes_BM4"][place][is_there_M]
        class_M = targets["target_class_BM"][place][is_there_M]
        found_K6 = found_K6[(found_K6[:, 4] >= threshold) & (found_K6[:, 4] > 0)]
        right_K, found_M = found_objects(found_K6, boxes_M4, class_M)
        return cls(found_K6, right_K, boxes_M4, class_M, found_M)

    @property
    def f1(self) -> float:
        """How right the image is as a whole; 1 for one without objects in which nothing is found."""
        together = len(self.found_K6) + len(self.boxes_M4)
        return 2 * int(self.right_K.sum()) / together if together else 1.0


def drawn(found_NK6: Tensor, judged: Judged, labels: Sequence[str], column: str, threshold: float) -> Iterator[Picture]:
    """Yield a sheet of images from the one that was found worst to the best, evenly spaced between."""
    count = len(found_NK6)
    looked = [_Looked.at(found_NK6[place], judged.targets, place, threshold) for place in range(count)]
    order = sorted(range(count), key=lambda place: looked[place].f1)
    places = [order[place] for place in np.linspace(0, count - 1, min(MOST_SHOWN, count)).round().astype(int).tolist()]
    numbered = judged.rows.taken(places)
    shapes = [row[column]["height"] / row[column]["width"] for _, row in numbered]
    frame = (_WIDTH, _WIDTH * float(np.clip(np.median(shapes), 0.4, 1.4)))
    tiles = [_tile(row, looked[place], labels, column, frame) for row, place in zip(numbered, places, strict=True)]
    said = f"{len(tiles)} of {rows_of(judged.part, count)}, from worst to best, with scores of at least {threshold:g}"
    picture = sheet_picture("Detections", said, tiles, frame=frame, columns=_COLUMNS, legend=_LEGEND)
    yield Picture("detections", picture)


def _tile(
    numbered: tuple[int, dict[str, object]],
    looked: _Looked,
    labels: Sequence[str],
    column: str,
    frame: tuple[float, float],
) -> Tile:
    cell = numbered[1][column]
    assert isinstance(cell, dict)
    size = (cell["width"], cell["height"])
    outlines = [
        Outline(
            _shares(box_4, size), _THERE if found else _MISSED, "" if found else _name(labels, int(number)), below=True
        )
        for box_4, number, found in zip(looked.boxes_M4[:_MOST_BOXES], looked.class_M, looked.found_M, strict=False)
    ]
    outlines += [
        Outline(
            _shares(one_6[:4], size),
            _RIGHT if right else _WRONG,
            f"{_name(labels, int(one_6[5]))} {float(one_6[4]):.2f}",
            dashes="5 3",
        )
        for one_6, right in zip(looked.found_K6[:_MOST_BOXES], looked.right_K, strict=False)
    ]
    right, wrong = int(looked.right_K.sum()), int((~looked.right_K).sum())
    missed = int((~looked.found_M).sum())
    lines = [(f"{right} found, {missed} missed, {wrong} wrong", MISTAKEN if missed or wrong else MEANT)]
    return image_tile(numbered, column, lines, frame, outlines=outlines)


def _name(labels: Sequence[str], number: int) -> str:
    return labels[number] if number < len(labels) else "unknown"


def _shares(box_4: Tensor, size: tuple[int, int]) -> tuple[float, float, float, float]:
    left, top, right, low = box_4.tolist()
    return left / size[0], top / size[1], right / size[0], low / size[1]
