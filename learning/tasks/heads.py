"""Heads that several tasks share."""

from __future__ import annotations

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
