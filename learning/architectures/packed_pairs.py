"""Attention from one text of each row to another, both packed, and where the positions of the two stand in a batch.

A row of a batch of pairs is its source and then its target. S positions of all sources, U of all targets, B rows, G
rows whose sources have one length T, P positions of all targets filled up to the longest of their group; H heads, K
width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from learning.architectures.filled_attention import Filling, Stretches, attend_filled, suits
from learning.architectures.packed_attention import Groups


@dataclass(frozen=True, eq=False)
class Crossing:
    """Targets by the length of their sources: so nothing but a few queries is padded, and no key is masked.

    Sources and targets are each in an order of their own, shortest first, and begin there as `targets` and `sources`
    say. `fill_P` is the target position that stands at each place of the groups, `back_U` the place of each target
    position; `groups` has rows, T, and the longest target of each group.
    """

    groups: list[tuple[int, int, int]]
    fill_P: Tensor
    back_U: Tensor
    targets: Stretches
    sources: Stretches
    _fillings: dict[int, Filling] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, source_length_B: Tensor, target_length_B: Tensor) -> Crossing:
        """Return how targets of rows, in the rows' order, meet their sources."""
        by_source_B = source_length_B.argsort(stable=True)
        by_target_B = target_length_B.argsort(stable=True)
        sources, targets = _begun(source_length_B, by_source_B), _begun(target_length_B, by_target_B)
        sorted_B = target_length_B[by_target_B]
        lengths, counts = torch.unique_consecutive(source_length_B[by_source_B], return_counts=True)
        parts = target_length_B[by_source_B].split(counts.tolist())
        longest = torch.stack([part.max() for part in parts])
        groups = list(zip(counts.tolist(), lengths.tolist(), longest.tolist(), strict=True))
        filled_B = torch.repeat_interleave(longest, counts)  # in the order of the sources
        begin_B = filled_B.cumsum(0) - filled_B
        place_P = torch.arange(int(filled_B.sum())) - torch.repeat_interleave(begin_B, filled_B)
        last_P = torch.repeat_interleave(target_length_B[by_source_B] - 1, filled_B)
        fill_P = torch.repeat_interleave(targets.start_B[by_source_B], filled_B) + torch.minimum(place_P, last_P)
        begins_B = torch.empty_like(begin_B)
        begins_B[by_source_B] = begin_B  # in the rows' order
        shift_B = begins_B[by_target_B] - (sorted_B.cumsum(0) - sorted_B)
        back_U = torch.repeat_interleave(shift_B, sorted_B) + torch.arange(int(sorted_B.sum()))
        return cls(groups, fill_P, back_U, targets, sources)

    def to(self, device: torch.device) -> Crossing:
        """Return the same on a device."""
        return replace(self, fill_P=self.fill_P.to(device), back_U=self.back_U.to(device))

    def longest(self) -> int:
        """Return the length of the longest text of either side."""
        return max(max(length, most) for _, length, most in self.groups)

    def filling(self, heads: int) -> Filling:
        """Return how both sides are filled up, which all layers have in common."""
        if (found := self._fillings.get(heads)) is None:
            found = self._fillings[heads] = Filling.of(self.targets, self.sources, heads, causal=False)
        return found


class Side(NamedTuple):
    """One of the two texts of each row: where its positions stand in the batch, shortest rows first, and in the row."""

    groups: Groups
    index_S: Tensor
    position_S: Tensor

    @classmethod
    def of(cls, length_B: Tensor, start_B: Tensor, device: torch.device) -> Side:
        """Return the side whose texts begin at these places of the batch."""
        groups = Groups.of(length_B)
        shift_B = start_B - (length_B.cumsum(0) - length_B)
        index_S = torch.repeat_interleave(shift_B, length_B) + torch.arange(int(length_B.sum()))
        if groups.order_S is not None:
            index_S = index_S[groups.order_S]
        return cls(groups, index_S.to(device), groups.positions().to(device))

    def in_order(self, features_SD: Tensor) -> Tensor:
        """Return features in the order of the rows."""
        order_S = self.groups.order_S
        return features_SD if order_S is None else features_SD[order_S.argsort().to(features_SD.device)]


def attend_across(query_UD: Tensor, key_SD: Tensor, value_SD: Tensor, crossing: Crossing, heads: int) -> Tensor:
    """Return softmax(QK')V of each target over its source, (U, D)."""
    if suits(query_UD, crossing.longest()):
        return attend_filled(query_UD, key_SD, value_SD, crossing.filling(heads))
    width = query_UD.shape[1]
    queries = query_UD.index_select(0, crossing.fill_P).split([rows * most for rows, _, most in crossing.groups])
    sizes = [rows * length for rows, length, _ in crossing.groups]
    gathered = []
    parts = zip(queries, key_SD.split(sizes), value_SD.split(sizes), crossing.groups, strict=True)
    for query, key, value, (rows, length, most) in parts:
        query_GHTK = query.view(rows, most, heads, -1).transpose(1, 2)
        key_GHTK, value_GHTK = (part.view(rows, length, heads, -1).transpose(1, 2) for part in (key, value))
        found_GHTK = functional.scaled_dot_product_attention(query_GHTK, key_GHTK, value_GHTK)
        gathered.append(found_GHTK.transpose(1, 2).reshape(rows * most, width))
    return torch.cat(gathered).index_select(0, crossing.back_U)


def _begun(length_B: Tensor, order_B: Tensor) -> Stretches:
    """Return where texts begin that follow each other in an order, by row."""
    sorted_B = length_B[order_B]
    start_B = torch.empty_like(length_B)
    start_B[order_B] = sorted_B.cumsum(0) - sorted_B
    return Stretches(start_B, length_B)
