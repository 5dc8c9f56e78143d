"""How good detections are: mean average precision as COCO counts it (Lin et al. 2014, arXiv 1405.0312).

A detection is right at an overlap t when it is the likeliest one left for an object of its class that it overlaps by at
least t; average precision is the mean, at 101 levels of recall, of the best precision at that recall or above. K
detections and M objects of an image, T overlaps, N detections of a class in all images.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from learning.boxes import overlap

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

OVERLAPS_T: Floats = np.linspace(0.5, 0.95, 10)
_RECALLS: Floats = np.linspace(0, 1, 101)
_HALF, _THREE_QUARTERS = 0, 5  # of the overlaps


@dataclass(slots=True)
class _Class:
    """What was found of one class: scores, whether right at each overlap, and how many objects there are."""

    scores: list[Floats] = field(default_factory=list)
    right: list[Booleans] = field(default_factory=list)
    objects: int = 0

    def sorted(self) -> tuple[Floats, Booleans]:
        """Return score_N, falling, and right_NT."""
        if not self.scores:
            return np.empty(0), np.empty((0, len(OVERLAPS_T)), dtype=bool)
        score_N, right_NT = np.concatenate(self.scores), np.concatenate(self.right)
        order_N = np.argsort(-score_N, kind="stable")
        return score_N[order_N], right_NT[order_N]


class PrecisionTally:
    """Detections and objects image by image, and what they come to."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self._labels = labels
        self._classes = [_Class() for _ in labels]

    def add(self, found_K6: Tensor, boxes_M4: Tensor, class_M: Tensor) -> None:
        """Count one image: boxes with score and class, those of score 0 left out, beside the objects' boxes."""
        found_K6 = found_K6[found_K6[:, 4] > 0].double()
        for number, one in enumerate(self._classes):
            own_K6, own_M4 = found_K6[found_K6[:, 5] == number], boxes_M4[class_M == number].double()
            one.objects += len(own_M4)
            if len(own_K6):
                own_K6 = own_K6[own_K6[:, 4].argsort(descending=True, stable=True)]
                one.scores.append(own_K6[:, 4].numpy())
                one.right.append(_matched(overlap(own_K6[:, None, :4], own_M4[None]).numpy()))

    def metrics(self) -> dict[str, Any]:
        """Return the means over the classes that have objects, and each class's own; best_threshold is the least score
        to ask for where precision and recall together, as F1 at an overlap of a half, are to be greatest.

        Without any object the means are 0.
        """
        each = {
            label: _average_precisions(one)
            for label, one in zip(self._labels, self._classes, strict=True)
            if one.objects
        }
        mean_T = np.mean(list(each.values()), 0) if each else np.zeros(len(OVERLAPS_T))
        threshold, f1 = self._best_threshold()
        return {
            "map": float(mean_T.mean()),
            "map50": float(mean_T[_HALF]),
            "map75": float(mean_T[_THREE_QUARTERS]),
            "f1": f1,
            "best_threshold": threshold,
            "objects": sum(one.objects for one in self._classes),
            "classes": {
                label: {
                    "ap": float(average_T.mean()),
                    "ap50": float(average_T[_HALF]),
                    "objects": self._classes[self._labels.index(label)].objects,
                }
                for label, average_T in each.items()
            },
        }

    def curves(self) -> dict[str, tuple[Floats, Floats, float]]:
        """Return recall and precision at an overlap of a half, from the best score down, and the average precision, of
        each class that has objects and was found at all.
        """
        found = {}
        for label, one in zip(self._labels, self._classes, strict=True):
            _, right_NT = one.sorted()
            if one.objects and len(right_NT):
                hits_N = right_NT[:, _HALF].cumsum()
                precision_N = hits_N / np.arange(1, len(hits_N) + 1)
                found[label] = (hits_N / one.objects, precision_N, float(_average_precisions(one)[_HALF]))
        return found

    def _best_threshold(self) -> tuple[float, float]:
        together = _Class(objects=sum(one.objects for one in self._classes))
        for one in self._classes:
            together.scores += one.scores
            together.right += one.right
        score_N, right_NT = together.sorted()
        if not len(score_N):
            return 0.5, 0.0
        f1_N = 2 * right_NT[:, _HALF].cumsum() / (np.arange(1, len(score_N) + 1) + together.objects)
        best = int(f1_N.argmax())
        return float(score_N[best]), float(f1_N[best])


def found_objects(found_K6: Tensor, boxes_M4: Tensor, class_M: Tensor) -> tuple[Booleans, Booleans]:
    """Return which detections of an image, the likeliest first, are right at an overlap of a half, and which objects
    are found.
    """
    right_K, found_M = np.zeros(len(found_K6), dtype=bool), np.zeros(len(boxes_M4), dtype=bool)
    overlap_KM = overlap(found_K6[:, None, :4], boxes_M4[None]).numpy()
    overlap_KM = np.where(found_K6[:, None, 5].numpy() == class_M[None].numpy(), overlap_KM, 0.0)
    for place in range(len(found_K6)) if len(boxes_M4) else ():
        left_M = np.where(found_M, 0.0, overlap_KM[place])
        best = int(left_M.argmax())
        if left_M[best] >= OVERLAPS_T[_HALF]:
            right_K[place] = found_M[best] = True
    return right_K, found_M


def _matched(overlap_KM: Floats) -> Booleans:
    """Return which detections, the likeliest first, get an object, (K, T)."""
    matched_KT = np.zeros((len(overlap_KM), len(OVERLAPS_T)), dtype=bool)
    if not overlap_KM.shape[1]:
        return matched_KT
    free_TM = np.ones((len(OVERLAPS_T), overlap_KM.shape[1]), dtype=bool)
    place_T = np.arange(len(OVERLAPS_T))
    for row in np.flatnonzero(overlap_KM.max(1) >= OVERLAPS_T[0]):
        left_TM = np.where(free_TM, overlap_KM[row], -1.0)
        best_T = left_TM.argmax(1)
        hit_T = left_TM[place_T, best_T] >= OVERLAPS_T
        free_TM[place_T[hit_T], best_T[hit_T]] = False
        matched_KT[row] = hit_T
    return matched_KT


def _average_precisions(one: _Class) -> Floats:
    """Return average precision at each overlap, (T,)."""
    _, right_NT = one.sorted()
    hits_NT = right_NT.cumsum(0)
    precision_NT = hits_NT / np.arange(1, len(hits_NT) + 1)[:, None]
    # The best precision at this recall or above.
    precision_NT = np.maximum.accumulate(precision_NT[::-1], 0)[::-1]
    average_T = np.zeros(len(OVERLAPS_T))
    for number in range(len(OVERLAPS_T)):
        first_R = np.searchsorted(hits_NT[:, number] / one.objects, _RECALLS, side="left")
        reached_R = first_R < len(precision_NT)
        average_T[number] = precision_NT[first_R[reached_R], number].sum() / len(_RECALLS)
    return average_T
