"""Dropout that draws a byte for each unit instead of a float: on a CPU the draws cost more than all else of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LEVELS = 256
_BYTES = 8


class QuickDropout(nn.Dropout):
    """Silences a share of units, to the nearest 256th, and scales up what is left; on a GPU torch's own."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the input, in training with some units at 0."""
        silenced = min(round(self.p * _LEVELS), _LEVELS - 1)
        if not self.training or silenced == 0:
            return input
        if input.device.type != "cpu":
            return super().forward(input)
        words = torch.empty(-(-input.numel() // _BYTES), dtype=torch.int64)
        words.random_(-(2**63), None)  # all 64 bits
        kept = (words.view(torch.uint8)[: input.numel()] >= silenced).view(input.shape)
        return input * kept.to(input.dtype).mul_(_LEVELS / (_LEVELS - silenced))
