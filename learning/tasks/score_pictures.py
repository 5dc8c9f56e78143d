"""Pictures of scores beside what is right: what was taken for what, and curves over all thresholds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from learning import metrics
from learning.capabilities import Picture
from learning.pictures.confusion import confusion_picture
from learning.pictures.curves import MOST_CURVES, RECALL, ROC, Curve, curves_picture

Floats = NDArray[np.float64]


class Scored(NamedTuple):
    """A label, score_N, and positive_N, which rows have it."""

    label: str
    score_N: Tensor
    positive_N: Tensor


def confusion(labels: Sequence[str], predicted_N: Tensor, target_N: Tensor, part: str) -> Picture:
    """Return the confusion matrix."""
    counts_CC = metrics.confusion_matrix(predicted_N, target_N, len(labels))
    return Picture("confusion-matrix", confusion_picture(labels, counts_CC.numpy(), part))


def curves(scored: Sequence[Scored], said: str) -> Iterator[Picture]:
    """Yield precision over recall, and the ROC curves, of labels that some rows have and some have not.

    Of many labels those are shown that are told apart worst by average precision. `said` is of which rows they are.
    """
    found = [(metrics.average_precision(one.score_N, one.positive_N), one) for one in scored]
    present = [(area, one) for area, one in found if area is not None and not bool(one.positive_N.all())]
    if not present:
        return
    if len(present) > MOST_CURVES:
        said += f"; the {MOST_CURVES} lowest of {len(present)}"
        present = sorted(present, key=lambda pair: pair[0])[:MOST_CURVES]
    over_recall, roc = [], []
    for precision, one in present:
        recall_P, precision_P, false_P = _points(one)
        over_recall.append(Curve(one.label, recall_P, precision_P, precision, steps=True))
        roc.append(Curve(one.label, false_P, recall_P, metrics.roc_auc(one.score_N, one.positive_N) or 0.0))
    yield Picture("precision-recall", curves_picture(RECALL, over_recall, said))
    yield Picture("roc", curves_picture(ROC, roc, said))


def rows_of(part: str, count: int) -> str:
    """Return how many rows of which part there are, as words."""
    return f"{count} {part} row{'' if count == 1 else 's'}"


def worst(loss_N: Tensor, is_wrong_N: Tensor, most: int) -> list[int]:
    """Return the places of the mistakes that are worst, the very worst first."""
    wrong_M = is_wrong_N.nonzero().squeeze(1)
    places: list[int] = wrong_M[loss_N[wrong_M].argsort(descending=True, stable=True)[:most]].tolist()
    return places


def _points(one: Scored) -> tuple[Floats, Floats, Floats]:
    """Return recall, precision and false positive rate at each score that occurs, from none found to all."""
    _, positives_U, negatives_U = (part.double().numpy() for part in metrics.ranking(one.score_N, one.positive_N))
    precision_U = positives_U / (positives_U + negatives_U)
    recall_U, false_U = positives_U / positives_U[-1], negatives_U / negatives_U[-1]
    return np.append(0.0, recall_U), np.append(precision_U[0], precision_U), np.append(0.0, false_U)
