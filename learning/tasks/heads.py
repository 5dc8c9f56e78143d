"""Heads that several tasks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from learning.interfaces import Features, PackedFeatures


class PooledLinear(nn.Module):
    """One linear layer on the mean of the positions."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, outputs)

    def forward(self, features: Features | PackedFeatures) -> Tensor:
        """Return outputs, (B, outputs)."""
        outputs: Tensor = self.linear(features.pooled())
        return outputs


class StatisticsLinear(nn.Module):
    """One linear layer on the mean and the deviation of each feature over the positions."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * width, outputs)

    def forward(self, features: PackedFeatures) -> Tensor:
        """Return outputs, (B, outputs)."""
        outputs: Tensor = self.linear(statistics(features))
        return outputs


def statistics(features: PackedFeatures) -> Tensor:
    """Return the mean and the deviation of each feature over a row's positions, (B, 2 D) (Snyder et al. 2018)."""
    mean_BD = features.pooled()
    squares_BD = features._replace(features_SD=features.features_SD.float().square()).pooled()
    # The slope of a root is endless at 0, where all positions are alike.
    deviation_BD = (squares_BD - mean_BD.square()).clamp_min(1e-4).sqrt()
    return torch.cat([mean_BD, deviation_BD], 1)
