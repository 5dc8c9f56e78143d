"""The scores of a binary classifier, in plain Python, so that they can be checked against the service's."""

from collections.abc import Sequence
from statistics import mean, stdev


def binary_scores(
    truth: Sequence[str], labels: Sequence[str], scores: Sequence[float], positive: str
) -> dict[str, float]:
    """Return accuracy, precision, recall, f1 and auc of the positive class; 0 where one is undefined."""
    pairs = list(zip(truth, labels, strict=True))
    hits = sum(true == label == positive for true, label in pairs)
    predicted = sum(label == positive for label in labels)
    actual = sum(true == positive for true in truth)
    return {
        "accuracy": sum(true == label for true, label in pairs) / len(pairs),
        "precision": hits / predicted if predicted else 0.0,
        "recall": hits / actual if actual else 0.0,
        "f1": 2 * hits / (predicted + actual) if predicted + actual else 0.0,
        "auc": area_under_curve([true == positive for true in truth], scores),
    }


def area_under_curve(is_positive: Sequence[bool], scores: Sequence[float]) -> float:
    """Return the chance that a positive scores above a negative, ties counting half (Mann-Whitney)."""
    pairs = list(zip(is_positive, scores, strict=True))
    positives = [score for truth, score in pairs if truth]
    negatives = [score for truth, score in pairs if not truth]
    if not positives or not negatives:
        return 0.0
    won = sum((p > n) + 0.5 * (p == n) for p in positives for n in negatives)
    return won / (len(positives) * len(negatives))


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation (0 for a single value)."""
    return mean(values), stdev(values) if len(values) > 1 else 0.0
