"""Pretrain on rows without labels: a row and its corrupted copy must be closer than any two rows.

SCARF (Bahri et al. 2022, arXiv 2106.15147) with the InfoNCE loss (van den Oord et al. 2018, arXiv 1807.03748).
"""

from __future__ import annotations

from typing import ClassVar

import pyarrow as pa
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from learning.config import Columns, Config
from learning.interfaces import Batch, Features, Network
from learning.modalities.tabular import TabularState
from learning.tasks.corruption import ColumnLayout, corrupt, layout_of
from learning.tasks.pretraining import Pretraining


class ContrastiveFeaturesConfig(Config):
    """How different the two views are, and how sharply they are told apart."""

    corruption: float = Field(0.4, gt=0, lt=1, description="Share of columns replaced in the second view.")
    temperature: float = Field(0.3, gt=0, le=10, description="Divides the similarities before the softmax.")
    projection_size: int = Field(128, ge=2, le=4096, description="Width of the space in which views are compared.")


class ContrastiveFeaturesState(Config):
    """The layout of the encoded rows and the configuration."""

    layout: ColumnLayout
    config: ContrastiveFeaturesConfig


class ProjectionHead(nn.Module):
    """Two layers to a unit vector."""

    column_of_feature_F: Tensor

    def __init__(self, width: int, state: ContrastiveFeaturesState) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.output = nn.Linear(width, state.config.projection_size)
        self.register_buffer("column_of_feature_F", torch.tensor(state.layout.column_of_feature), persistent=False)

    def forward(self, features: Features) -> Tensor:
        """Return unit vectors, (B, projection_size)."""
        return functional.normalize(self.output(self.hidden(features.pooled()).relu()), dim=1)


class ContrastiveFeatures(Pretraining):
    """Recognise a row in its corrupted copy; makes a base model."""

    name: ClassVar[str] = "contrastive-features"
    modality: ClassVar[str] = "tabular"
    Config: ClassVar[type[ContrastiveFeaturesConfig]] = ContrastiveFeaturesConfig
    State: ClassVar[type[ContrastiveFeaturesState]] = ContrastiveFeaturesState

    def fit(
        self, table: pa.Table, columns: Columns, config: ContrastiveFeaturesConfig, inputs: TabularState
    ) -> ContrastiveFeaturesState:
        """Remember where each column's features lie."""
        return ContrastiveFeaturesState(layout=layout_of(inputs), config=config)

    def head(self, width: int, state: ContrastiveFeaturesState) -> nn.Module:
        """Return the projection."""
        return ProjectionHead(width, state)

    def loss(self, network: Network, batch: Batch, state: ContrastiveFeaturesState) -> Tensor:
        """Return InfoNCE over the batch, both ways."""
        head: ProjectionHead = network.head  # type: ignore[assignment]
        inputs_BF = batch["inputs_BF"]
        corrupted = corrupt(inputs_BF, head.column_of_feature_F, state.layout.columns, state.config.corruption)
        # One pass over both views, so that batch normalisation sees them alike.
        views = network({"inputs_BF": torch.cat([inputs_BF, corrupted.inputs_BF])})
        clean_BP, corrupted_BP = views.chunk(2)
        logits_BB = clean_BP @ corrupted_BP.T / state.config.temperature
        same_B = torch.arange(len(inputs_BF), device=inputs_BF.device)
        return (functional.cross_entropy(logits_BB, same_B) + functional.cross_entropy(logits_BB.T, same_B)) / 2
