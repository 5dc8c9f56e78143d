"""Attention within rows of unequal lengths: once for all rows of the same length, so that nothing is padded.

S positions of all rows together, G rows of one length, T that length, H heads, K width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from learning.architectures.filled_attention import Filling, Stretches, attend_filled, suits


@dataclass(frozen=True, eq=False)
class Groups:
    """Rows by length, shortest first, and the positions of a batch in that order; None where they are in it already."""

    rows_and_length: list[tuple[int, int]]
    order_S: Tensor | None
    _fillings: dict[tuple[int, bool], Filling] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, length_B: Tensor) -> Groups:
        """Return the groups of rows of these lengths."""
        sorted_B, order_B = torch.sort(length_B, stable=True)
        lengths, counts = torch.unique_consecutive(sorted_B, return_counts=True)
        groups = list(zip(counts.tolist(), lengths.tolist(), strict=True))
        if torch.equal(sorted_B, length_B):
            return cls(groups, None)
        start_B = (length_B.cumsum(0) - length_B)[order_B]
        shift_B = start_B - (sorted_B.cumsum(0) - sorted_B)
        order_S = torch.repeat_interleave(shift_B, sorted_B)
        return cls(groups, order_S + torch.arange(len(order_S)))

    def with_spare(self, spare: int) -> Groups:
        """Return the groups with one row of so many positions behind the others."""
        return Groups([*self.rows_and_length, (1, spare)], self.order_S)

    def longest(self) -> int:
        """Return the length of the longest row."""
        return max(length for _, length in self.rows_and_length)

    def positions(self) -> Tensor:
        """Return each position's place within its row, position_S."""
        return torch.cat([torch.arange(length).repeat(rows) for rows, length in self.rows_and_length])

    def filling(self, heads: int, *, causal: bool) -> Filling:
        """Return how the rows are filled up, which all layers have in common."""
        if (found := self._fillings.get((heads, causal))) is None:
            rows_G, length_G = torch.tensor(self.rows_and_length).unbind(1)
            length_B = length_G.repeat_interleave(rows_G)
            texts = Stretches(length_B.cumsum(0) - length_B, length_B)
            found = self._fillings[heads, causal] = Filling.of(texts, texts, heads, causal=causal)
        return found


def attend(
    query_SD: Tensor, key_SD: Tensor, value_SD: Tensor, groups: Groups, heads: int, *, causal: bool = False
) -> Tensor:
    """Return softmax(QK')V of each row, (S, D); if `causal`, of each position and those before it."""
    if suits(query_SD, groups.longest()):
        return attend_filled(query_SD, key_SD, value_SD, groups.filling(heads, causal=causal))
    sizes = [rows * length for rows, length in groups.rows_and_length]
    width = query_SD.shape[1]
    # Split, not sliced: the gradient of a slice is a tensor of zeros as large as the whole.
    parts = zip(query_SD.split(sizes), key_SD.split(sizes), value_SD.split(sizes), groups.rows_and_length, strict=True)
    gathered = []
    for query, key, value, (rows, length) in parts:
        shape = (rows, length, heads, width // heads)
        query_GHTK, key_GHTK, value_GHTK = (part.view(shape).transpose(1, 2) for part in (query, key, value))
        found_GHTK = functional.scaled_dot_product_attention(query_GHTK, key_GHTK, value_GHTK, is_causal=causal)
        gathered.append(found_GHTK.transpose(1, 2).reshape(rows * length, width))
    return torch.cat(gathered) if len(gathered) > 1 else gathered[0]


def read_by_several(features_SD: Tensor) -> Tensor:
    """Return what several products are to read, cast once where autocast would do it for each of them, and back."""
    device_type = features_SD.device.type
    if not torch.is_autocast_enabled(device_type):
        return features_SD
    return features_SD.to(torch.get_autocast_dtype(device_type))
