"""Recurrence over rows of unequal lengths: all begin together, and those that have ended leave a few at a time.

Rows that torch packs leave one by one, and the gradient of that takes up to four times as long. Here the steps are cut
into a few stretches, and a row is in those that it has positions in: what is padded stands behind its end, in either
direction, so it changes nothing of the row. S positions of all rows, D width, T steps of a stretch, G rows in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

# What may be computed beside the rows of a batch, as a share of what is computed for them.
_MOST_PADDING = 0.1


@dataclass(frozen=True, slots=True)
class _Direction:
    """Which positions are read at the steps of each stretch, and where a position is in all stretches together."""

    read_TG: list[Tensor]
    place_S: Tensor

    def run(self, network: nn.GRU, features_SD: Tensor) -> Tensor:
        # A position is read again where its row is padded; nobody asks what was found there, so it has no gradient.
        found: list[Tensor] = []
        state_1GD: Tensor | None = None
        for read_TG in self.read_TG:
            features_TGD = features_SD.index_select(0, read_TG.flatten()).view(*read_TG.shape, -1)
            if state_1GD is not None:  # of the rows that go on, which are the first ones
                state_1GD = state_1GD[:, : read_TG.shape[1]].contiguous()
            found_TGD, state_1GD = network(features_TGD, state_1GD)
            found.append(found_TGD.flatten(0, 1))
        return torch.cat(found).index_select(0, self.place_S)


@dataclass(frozen=True, slots=True)
class Turns:
    """When each position of a batch is read, in both directions."""

    ahead: _Direction
    behind: _Direction

    @classmethod
    def of(cls, length_B: Tensor, device: torch.device) -> Turns:
        """Return the turns of rows of these lengths, the longest first."""
        start_B = length_B.cumsum(0) - length_B
        place_S, place_back_S = (torch.empty(int(length_B.sum()), dtype=torch.int64) for _ in range(2))
        reads: list[Tensor] = []
        reads_back: list[Tensor] = []
        order_B = length_B.argsort(descending=True, stable=True)
        before = begin = 0
        for end in _ends(length_B):
            rows_G = order_B[length_B[order_B] > begin]
            length_G, start_G = length_B[rows_G], start_B[rows_G]
            step_T1 = torch.arange(begin, end).unsqueeze(1)
            inside_TG = step_T1 < length_G
            read_TG = start_G + torch.minimum(step_T1, length_G - 1)
            back_TG = start_G + (length_G - 1 - step_T1).clamp_min(0)
            at_TG = before + torch.arange(read_TG.numel()).view_as(read_TG)
            place_S[read_TG[inside_TG]] = at_TG[inside_TG]
            place_back_S[back_TG[inside_TG]] = at_TG[inside_TG]
            before, begin = before + read_TG.numel(), end
            reads.append(read_TG.to(device))
            reads_back.append(back_TG.to(device))
        return cls(_Direction(reads, place_S.to(device)), _Direction(reads_back, place_back_S.to(device)))

    def forth(self, network: nn.GRU, features_SD: Tensor) -> Tensor:
        """Return what a network finds that reads each row from its beginning, (S, width)."""
        return self.ahead.run(network, features_SD)

    def back(self, network: nn.GRU, features_SD: Tensor) -> Tensor:
        """Return what a network finds that reads each row from its end, (S, width)."""
        return self.behind.run(network, features_SD)


def _ends(length_B: Tensor) -> list[int]:
    """Return the step behind each stretch: few stretches, of which the padding is no more than is allowed.

    Each further end is the one that spares the most, where rows that have ended would wait the longest for the next.
    """
    lengths_B = length_B.sort().values
    ends = [int(lengths_B[-1])]
    while True:
        next_B = torch.tensor(ends)[torch.searchsorted(torch.tensor(ends), lengths_B)]
        if int((next_B - lengths_B).sum()) <= _MOST_PADDING * int(lengths_B.sum()):
            return ends
        # Of the rows that are padded to the same end, those up to each one would be spared the steps behind it.
        first_B = torch.searchsorted(next_B, next_B)
        spared_B = (next_B - lengths_B) * (torch.arange(1, len(lengths_B) + 1) - first_B)
        ends = sorted([*ends, int(lengths_B[spared_B.argmax()])])
