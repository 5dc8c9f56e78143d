"""The exponential moving average of a network's weights over its steps (Polyak and Juditsky 1992), which wavers less
than the last weights do: it is judged, served and measured in their place.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from learning.model import BackboneWithHead


class WeightAverage:
    """A second network, whose every number, statistics of normalisation among them, is the average of the first's."""

    def __init__(self, network: BackboneWithHead, decay: float) -> None:
        """Begin at the network's weights; of the average each step keeps `decay`, and less in the first ones."""
        self._averaged = AveragedModel(network, multi_avg_fn=partial(_average, decay), use_buffers=True)

    @property
    def network(self) -> BackboneWithHead:
        """The network that has the average for weights."""
        return cast("BackboneWithHead", self._averaged.module)

    def update(self, network: BackboneWithHead) -> None:
        """Take in the weights that a step has left."""
        self._averaged.update_parameters(network)

    def restore(self, weights: dict[str, Tensor], steps: int) -> None:
        """Continue from the average over some steps."""
        self.network.load_state_dict(weights)
        self._averaged.n_averaged.fill_(steps)


@torch.no_grad()
def _average(decay: float, average: list[Tensor], current: list[Tensor], steps: Tensor | int) -> None:
    """Move an average over some steps towards what the next step has left; what is whole numbers is taken as it is.

    Early steps, whose weights are still nearly random, would otherwise count for as long as training is short: the
    share that is kept rises from nearly nothing, as in TensorFlow's ExponentialMovingAverage.
    """
    if average[0].is_floating_point():
        kept = min(decay, (1 + float(steps)) / (10 + float(steps)))
        torch._foreach_lerp_(average, current, 1 - kept)
    else:
        torch._foreach_copy_(average, current)
