"""Corruption of rows for pretraining: some columns take their value from another row of the batch.

That is a draw from the column's marginal distribution, as in SCARF (Bahri et al. 2022, arXiv 2106.15147).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from learning.config import Config
from learning.modalities.tabular import TabularState


class Corrupted(NamedTuple):
    """A corrupted batch and which columns (count M) were replaced."""

    inputs_BF: Tensor
    replaced_BM: Tensor


class ColumnLayout(Config):
    """Which column each encoded feature belongs to, and which features are 0 or 1."""

    column_of_feature: tuple[int, ...]
    is_binary: tuple[bool, ...]

    @property
    def columns(self) -> int:
        """M, the number of columns."""
        return self.column_of_feature[-1] + 1


def layout_of(state: TabularState) -> ColumnLayout:
    """Return the layout of rows encoded under `state`."""
    column_of_feature = [number for number, column in enumerate(state.columns) for _ in range(column.width)]
    is_binary = [
        column.kind == "category" or (column.kind == "number" and feature > 0)
        for column in state.columns
        for feature in range(column.width)
    ]
    return ColumnLayout(column_of_feature=tuple(column_of_feature), is_binary=tuple(is_binary))


def corrupt(inputs_BF: Tensor, column_of_feature_F: Tensor, columns: int, share: float) -> Corrupted:
    """Replace each column of each row with probability `share`, whole columns at a time."""
    rows = len(inputs_BF)
    replaced_BM = torch.rand(rows, columns, device=inputs_BF.device) < share
    donor_BM = torch.randint(rows, (rows, columns), device=inputs_BF.device)
    donated_BF = inputs_BF.gather(0, donor_BM[:, column_of_feature_F])
    return Corrupted(torch.where(replaced_BM[:, column_of_feature_F], donated_BF, inputs_BF), replaced_BM)
