"""Numbers that say how good predictions are, each by its textbook definition and checked against scikit-learn.

Written here because importing torchmetrics takes as long as importing torch, and a job starts in less than that.
"""

from __future__ import annotations

import torch
from torch import Tensor


def confusion_matrix(predicted_N: Tensor, target_N: Tensor, classes: int) -> Tensor:
    """Return counts_CC: row true class, column predicted class."""
    cells_N = target_N * classes + predicted_N
    return torch.bincount(cells_N, minlength=classes * classes).reshape(classes, classes)


def precision_recall_f1(confusion_CC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return precision_C, recall_C and f1_C; 0 where a class was never predicted or never there."""
    counts_CC = confusion_CC.double()
    hits_C = counts_CC.diagonal()
    precision_C = hits_C / counts_CC.sum(0).clamp_min(1)
    recall_C = hits_C / counts_CC.sum(1).clamp_min(1)
    f1_C = 2 * hits_C / (counts_CC.sum(0) + counts_CC.sum(1)).clamp_min(1)
    return precision_C, recall_C, f1_C


def roc_auc(score_N: Tensor, positive_N: Tensor) -> float | None:
    """Return the probability that a positive outranks a negative, ties half; None with only one class.

    By the rank sum (Mann and Whitney 1947).
    """
    positive_N = positive_N.bool()
    positives = int(positive_N.sum())
    negatives = len(positive_N) - positives
    if positives == 0 or negatives == 0:
        return None
    _, inverse_N, counts_U = score_N.double().unique(return_inverse=True, return_counts=True)
    last_U = counts_U.cumsum(0).double()
    rank_N = (last_U - (counts_U - 1) / 2)[inverse_N]
    rank_sum = float(rank_N[positive_N].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def mean_roc_auc(probability_NC: Tensor, target_N: Tensor) -> float | None:
    """Return the mean over classes of each class against the rest, over the classes that occur."""
    values = [roc_auc(probability_NC[:, label], target_N == label) for label in range(probability_NC.shape[1])]
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def ranking(score_N: Tensor, positive_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return threshold_U, each score that occurs, falling, and how many positives_U and negatives_U reach it."""
    threshold_U, inverse_N = score_N.double().unique(return_inverse=True)
    positives_U = torch.bincount(inverse_N[positive_N.bool()], minlength=len(threshold_U))
    all_U = torch.bincount(inverse_N, minlength=len(threshold_U))
    reached = (positives_U, all_U - positives_U)
    return threshold_U.flip(0), *(count_U.flip(0).cumsum(0) for count_U in reached)


def average_precision(score_N: Tensor, positive_N: Tensor) -> float | None:
    """Return the mean of the precision at each score, weighted by the positives that it adds; None without positives.

    Of equal scores none comes first (as scikit-learn counts; Manning et al. 2008, chapter 8).
    """
    _, positives_U, negatives_U = ranking(score_N, positive_N)
    total = int(positive_N.bool().sum())
    if not total:
        return None
    precision_U = positives_U.double() / (positives_U + negatives_U)
    added_U = positives_U.diff(prepend=positives_U.new_zeros(1))
    return float((precision_U * added_U).sum() / total)


def best_threshold(score_N: Tensor, positive_N: Tensor, missed: int = 0) -> tuple[float | None, float]:
    """Return the score from which on to say yes for the greatest F1, and that F1; None and 0 without positives.

    `missed` positives are not among the scores: nobody could have found them.
    """
    threshold_U, positives_U, negatives_U = ranking(score_N, positive_N)
    total = int(positive_N.bool().sum())
    if not total:
        return None, 0.0
    f1_U = 2 * positives_U.double() / (positives_U + negatives_U + total + missed)
    best = int(f1_U.argmax())
    return float(threshold_U[best]), float(f1_U[best])


def r2(predicted_N: Tensor, target_N: Tensor) -> float | None:
    """Return the share of the target's variance that is explained; None when it has none."""
    total = float(((target_N - target_N.mean()) ** 2).sum())
    return 1 - float(((target_N - predicted_N) ** 2).sum()) / total if total > 0 else None


def rmse(predicted_N: Tensor, target_N: Tensor) -> float:
    """Return the root of the mean squared error, in the target's unit."""
    return float(((target_N - predicted_N) ** 2).mean().sqrt())


def mae(predicted_N: Tensor, target_N: Tensor) -> float:
    """Return the mean absolute error, in the target's unit."""
    return float((target_N - predicted_N).abs().mean())
