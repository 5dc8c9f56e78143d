"""Attention within rows of unequal lengths: once for all rows of the same length, so that nothing is padded.

S positions of all rows together, G rows of one length, T that length, H heads, K width of a head.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Groups(NamedTuple):
    """Rows by length, shortest first, and the positions of a batch in that order; None where they are in it already."""

    rows_and_length: list[tuple[int, int]]
    order_S: Tensor | None

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

    def positions(self) -> Tensor:
        """Return each position's place within its row, position_S."""
        return torch.cat([torch.arange(length).repeat(rows) for rows, length in self.rows_and_length])


def attend(
    query_SD: Tensor, key_SD: Tensor, value_SD: Tensor, groups: Groups, heads: int, *, causal: bool = False
) -> Tensor:
    """Return softmax(QK')V of each row, (S, D); if `causal`, of each position and those before it."""
    sizes = [rows * length for rows, length in groups.rows_and_length]
    width = query_SD.shape[1]
    # Split, not sliced: the gradient of a slice is a tensor of zeros as large as the whole.
    parts = zip(query_SD.split(sizes), key_SD.split(sizes), value_SD.split(sizes), groups.rows_and_length, strict=True)
    gathered = []
    for query, key, value, (rows, length) in parts:
        shape = (rows, length, heads, width // heads)
        query_GHTK, key_GHTK, value_GHTK = (part.view(shape).transpose(1, 2) for part in (query, key, value))
        found_GHTK = scaled_attention(query_GHTK, key_GHTK, value_GHTK, causal=causal)
        gathered.append(found_GHTK.transpose(1, 2).reshape(rows * length, width))
    return torch.cat(gathered) if len(gathered) > 1 else gathered[0]


def scaled_attention(query_GHTK: Tensor, key_GHTK: Tensor, value_GHTK: Tensor, *, causal: bool) -> Tensor:
    """Return softmax(QK')V by the kernel that suits the arithmetic."""
    if query_GHTK.dtype == torch.bfloat16 and query_GHTK.device.type == "cpu" and torch.is_grad_enabled():
        # The gradient of torch's fused kernel is slow in bf16: a third of a training step at 18 tokens. Without one the
        # kernel takes a third of the time of what follows.
        scores_GHTT = query_GHTK @ key_GHTK.transpose(2, 3) * query_GHTK.shape[-1] ** -0.5
        if causal:
            length = scores_GHTT.shape[-1]
            scores_GHTT = scores_GHTT.masked_fill(_later(length, scores_GHTT.device), -torch.inf)
        found_GHTK: Tensor = scores_GHTT.softmax(-1, dtype=torch.float32).to(value_GHTK.dtype) @ value_GHTK
        return found_GHTK
    return functional.scaled_dot_product_attention(query_GHTK, key_GHTK, value_GHTK, is_causal=causal)


def _later(length: int, device: torch.device) -> Tensor:
    """Return which positions come later than each, (T, T)."""
    return torch.ones(length, length, dtype=torch.bool, device=device).triu(1)
