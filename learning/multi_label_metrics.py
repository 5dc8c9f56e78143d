"""How good predictions of several labels a row are; N rows, K labels. scikit-learn gives the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from learning import metrics

_OTHER = "other labels"


def multi_label_metrics(
    probability_NK: Tensor, has_NK: Tensor, other_N: Tensor, labels: Sequence[str], threshold: float
) -> dict[str, Any]:
    """Return named numbers for probabilities beside which labels the rows have.

    "micro" counts over all pairs of a row and a label, "macro" is the mean of the labels; of labels that are none of
    `labels`, rows have `other_N`, and all of these are missed. Labels that no row has have no average precision and
    are left out of its mean.
    """
    found_NK = probability_NK >= threshold
    right_K = (found_NK & has_NK).sum(0).double()
    found_K, wanted_K = found_NK.sum(0).double(), has_NK.sum(0).double()
    others = int(other_N.sum())
    each: dict[str, dict[str, Any]] = {
        label: {
            **_scores(*(float(part[place]) for part in (right_K, found_K, wanted_K))),
            "average_precision": metrics.average_precision(probability_NK[:, place], has_NK[:, place]),
            "auc": metrics.roc_auc(probability_NK[:, place], has_NK[:, place]),
            "best_threshold": metrics.best_threshold(probability_NK[:, place], has_NK[:, place])[0],
            "count": int(wanted_K[place]),
        }
        for place, label in enumerate(labels)
    }
    together = _scores(float(right_K.sum()), float(found_K.sum()), float(wanted_K.sum()) + others)
    best, f1 = metrics.best_threshold(probability_NK.flatten(), has_NK.flatten(), missed=others)
    measured = {
        **{f"{name}_micro": value for name, value in together.items()},
        **{f"{name}_macro": sum(one[name] for one in each.values()) / len(each) for name in together},
        "mean_average_precision": _mean([one["average_precision"] for one in each.values()]),
        "auc": _mean([one["auc"] for one in each.values()]),
        "exact": float(((found_NK == has_NK).all(1) & (other_N == 0)).double().mean()),
        "best_threshold": best,
        "best_f1_micro": f1,
        "labels": each,
    }
    if others:
        measured["labels"] = {**each, _OTHER: {"count": others, "recall": 0.0}}
    return measured


def _scores(right: float, found: float, wanted: float) -> dict[str, float]:
    return {
        "precision": right / max(1.0, found),
        "recall": right / max(1.0, wanted),
        "f1": 2 * right / max(1.0, found + wanted),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None
