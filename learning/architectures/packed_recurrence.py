"""Recurrence over rows of unequal lengths: rows of similar lengths take turns together, padded at their ends.

Rows that torch packs have fewer and fewer others beside them in their last steps, and the gradient of that takes up to
four times as long. Here what is padded stands behind a row's end, in either direction, so it changes nothing of the
row. S positions of all rows, D width, T steps of a group's longest row, G rows of a group.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

# What may be computed beside the rows of a group, as a share of what is computed for them.
_MOST_PADDING = 0.1


@dataclass(frozen=True, slots=True)
class _Direction:
    """Which positions are read at the steps of each group, and where a position is in all groups' steps together."""

    read_TG: list[Tensor]
    place_S: Tensor

    def run(self, network: nn.GRU, features_SD: Tensor) -> Tensor:
        # A position is read again where its row is padded; nobody asks what was found there, so it has no gradient.
        found = [
            network(features_SD.index_select(0, read_TG.flatten()).view(*read_TG.shape, -1))[0].flatten(0, 1)
            for read_TG in self.read_TG
        ]
        return torch.cat(found).index_select(0, self.place_S)


@dataclass(frozen=True, slots=True)
class Turns:
    """When each position of a batch is read, in both directions."""

    ahead: _Direction
    behind: _Direction

    @classmethod
    def of(cls, length_B: Tensor, device: torch.device) -> Turns:
        """Return the turns of rows of these lengths, in groups of similar ones."""
        start_B = length_B.cumsum(0) - length_B
        place_S, place_back_S = (torch.empty(int(length_B.sum()), dtype=torch.int64) for _ in range(2))
        reads: list[Tensor] = []
        reads_back: list[Tensor] = []
        before = 0
        for rows_G in _groups(length_B):
            length_G, start_G = length_B[rows_G], start_B[rows_G]
            step_T1 = torch.arange(int(length_G.max())).unsqueeze(1)
            inside_TG = step_T1 < length_G
            read_TG = start_G + torch.minimum(step_T1, length_G - 1)
            back_TG = start_G + (length_G - 1 - step_T1).clamp_min(0)
            at_TG = before + torch.arange(read_TG.numel()).view_as(read_TG)
            place_S[read_TG[inside_TG]] = at_TG[inside_TG]
            place_back_S[back_TG[inside_TG]] = at_TG[inside_TG]
            before += read_TG.numel()
            reads.append(read_TG.to(device))
            reads_back.append(back_TG.to(device))
        return cls(_Direction(reads, place_S.to(device)), _Direction(reads_back, place_back_S.to(device)))

    def forth(self, network: nn.GRU, features_SD: Tensor) -> Tensor:
        """Return what a network finds that reads each row from its beginning, (S, width)."""
        return self.ahead.run(network, features_SD)

    def back(self, network: nn.GRU, features_SD: Tensor) -> Tensor:
        """Return what a network finds that reads each row from its end, (S, width)."""
        return self.behind.run(network, features_SD)


def _groups(length_B: Tensor) -> list[Tensor]:
    """Return the rows of each group: as many of similar lengths as the padding allows, the longest first."""
    order_B = length_B.argsort(descending=True, stable=True)
    groups: list[list[int]] = []
    longest = inside = 0
    for row, length in zip(order_B.tolist(), length_B[order_B].tolist(), strict=True):
        if not groups or longest * (len(groups[-1]) + 1) > (1 + _MOST_PADDING) * (inside + length):
            groups.append([])
            longest, inside = length, 0
        groups[-1].append(row)
        inside += length
    return [torch.tensor(rows) for rows in groups]
