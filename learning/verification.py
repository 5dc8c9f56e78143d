"""How well embeddings tell subjects apart: verification of pairs, and identification by the nearest.

A pair is accepted, as of one subject, when its score reaches a threshold. N embeddings of width E; G scores of genuine
pairs, of one subject; I scores of impostor pairs, of two.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from learning.metrics import roc_auc

# Of more embeddings than this, so many are compared: pairs grow with the square.
MOST_COMPARED = 2_000
# So many of a subject are taken together, before the next subject's: a few of everybody would be hardly a genuine pair.
TOGETHER = 10
RATES = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)


class Pairs(NamedTuple):
    """Cosines of all pairs of some embeddings, by whether both are of one subject."""

    genuine_G: Tensor
    impostor_I: Tensor


def pairs(embedding_NE: Tensor, subject_N: Tensor) -> Pairs:
    """Return the cosine of each pair once."""
    unit_NE, subject_N = _compared(embedding_NE, subject_N)
    upper_2P = torch.triu_indices(len(unit_NE), len(unit_NE), 1)
    score_P = (unit_NE @ unit_NE.T)[upper_2P[0], upper_2P[1]]
    same_P = subject_N[upper_2P[0]] == subject_N[upper_2P[1]]
    return Pairs(score_P[same_P], score_P[~same_P])


def rank_1(embedding_NE: Tensor, subject_N: Tensor) -> float | None:
    """Return the share of embeddings whose nearest other one is of the same subject.

    Of those whose subject has another one; None when there is none.
    """
    unit_NE, subject_N = _compared(embedding_NE, subject_N)
    count = len(unit_NE)
    score_NN = (unit_NE @ unit_NE.T).masked_fill(torch.eye(count, dtype=torch.bool), -math.inf)
    same_NN = (subject_N.unsqueeze(0) == subject_N.unsqueeze(1)).fill_diagonal_(False)
    findable_N = same_NN.any(1)
    if not bool(findable_N.any()):
        return None
    found_N = subject_N[score_NN.argmax(1)] == subject_N
    return float(found_N[findable_N].double().mean())


def _compared(embedding_NE: Tensor, subject_N: Tensor) -> tuple[Tensor, Tensor]:
    if len(subject_N) > MOST_COMPARED:
        kept_K = _drawn(subject_N)
        embedding_NE, subject_N = embedding_NE[kept_K], subject_N[kept_K]
    return functional.normalize(embedding_NE.double(), dim=1), subject_N


def _drawn(subject_N: Tensor) -> Tensor:
    """Return which embeddings are compared, in order: the same for the same subjects, by chance and not by place.

    The first ten of each subject, one subject after another, then the next ten.
    """
    order_N = torch.randperm(len(subject_N), generator=torch.Generator().manual_seed(0))
    _, number_N, size_S = subject_N[order_N].unique(return_inverse=True, return_counts=True)
    chance_S = torch.randperm(len(size_S), generator=torch.Generator().manual_seed(1))
    by_subject_N = number_N.argsort(stable=True)
    rank_N = torch.empty_like(number_N)
    rank_N[by_subject_N] = torch.arange(len(number_N)) - (size_S.cumsum(0) - size_S)[number_N[by_subject_N]]
    turn_N = rank_N // TOGETHER * len(size_S) + chance_S[number_N]
    return order_N[turn_N.argsort(stable=True)[:MOST_COMPARED]].sort().values


def auc(found: Pairs) -> float | None:
    """Return the probability that a genuine pair scores above an impostor pair; None without either."""
    score_P = torch.cat(found)
    genuine_P = torch.arange(len(score_P)) < len(found.genuine_G)
    return roc_auc(score_P, genuine_P)


def threshold_at(impostor_I: Tensor, rate: float) -> float | None:
    """Return the lowest threshold that accepts at most this share of impostor pairs; None without such pairs."""
    if not len(impostor_I):
        return None
    allowed = math.floor(rate * len(impostor_I) + 1e-9)
    if allowed >= len(impostor_I):
        return -1.0
    highest_refused = impostor_I.double().sort(descending=True).values[allowed]
    return float(torch.nextafter(highest_refused, highest_refused.new_tensor(math.inf)))


def accepted(score_P: Tensor, threshold: float) -> float | None:
    """Return the share of pairs whose score reaches a threshold; None without pairs."""
    return float((score_P.double() >= threshold).double().mean()) if len(score_P) else None


def equal_error_rate(found: Pairs) -> float | None:
    """Return the rate at which as many genuine pairs are refused as impostor pairs accepted; None without either.

    Where no threshold makes both alike, the mean of both at the threshold that comes nearest.
    """
    if not len(found.genuine_G) or not len(found.impostor_I):
        return None
    refused_P, false_P = _wrong(found)
    nearest = int((refused_P - false_P).abs().argmin())
    return float(refused_P[nearest] + false_P[nearest]) / 2


def least_detection_cost(found: Pairs, prior: float = 0.01) -> float | None:
    """Return the least mean cost of a decision over all thresholds (minDCF); None without either kind of pair.

    A share `prior` of what is decided is genuine, and either mistake costs 1. Divided by what accepting nobody costs,
    or everybody if that is cheaper, so that 1 is no help (NIST speaker recognition evaluation, 2016).
    """
    if not len(found.genuine_G) or not len(found.impostor_I):
        return None
    refused_P, false_P = _wrong(found)
    cost_P = (prior * refused_P + (1 - prior) * false_P) / min(prior, 1 - prior)
    return min(float(cost_P.min()), prior / min(prior, 1 - prior))


def _wrong(found: Pairs) -> tuple[Tensor, Tensor]:
    """Return the shares of genuine pairs refused and of impostor pairs accepted, with each score as a threshold."""
    genuine_G, impostor_I = (score_P.double().sort().values for score_P in found)
    threshold_P = torch.cat([genuine_G, impostor_I])
    refused_P = torch.searchsorted(genuine_G, threshold_P).double() / len(genuine_G)
    return refused_P, 1 - torch.searchsorted(impostor_I, threshold_P).double() / len(impostor_I)


class Operating(NamedTuple):
    """A threshold: the most impostor pairs it was to accept, and the genuine pairs it accepts, as shares."""

    false_accept_rate: float
    threshold: float
    true_accept_rate: float | None


def operating_points(found: Pairs, rates: tuple[float, ...] = RATES) -> list[Operating]:
    """Return the thresholds at several rates, but for those that so few impostor pairs say nothing about."""
    points = []
    for rate in rates:
        threshold = threshold_at(found.impostor_I, rate)
        if threshold is not None and rate * len(found.impostor_I) >= 1:
            points.append(Operating(rate, threshold, accepted(found.genuine_G, threshold)))
    return points
