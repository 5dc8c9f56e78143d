"""Pretrain on rows without labels: some columns are replaced, the network says which and what stood there.

Reconstruction and mask prediction together are VIME's objective (Yoon et al. 2020, NeurIPS 33).
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


class MaskedFeaturesConfig(Config):
    """How much is hidden, and how the two losses are weighed."""

    corruption: float = Field(0.4, gt=0, lt=1, description="Share of columns replaced in each row.")
    mask_loss_weight: float = Field(
        0.5, ge=0, le=100, description="Weight of saying which columns were replaced, beside restoring them."
    )


class MaskedFeaturesState(Config):
    """The layout of the encoded rows and the configuration."""

    layout: ColumnLayout
    config: MaskedFeaturesConfig


class ReconstructionHead(nn.Module):
    """Two linear layers on the features: restored inputs (F) and which columns were replaced (M)."""

    column_of_feature_F: Tensor
    is_binary_F: Tensor

    def __init__(self, width: int, layout: ColumnLayout) -> None:
        super().__init__()
        self.restore = nn.Linear(width, len(layout.column_of_feature))
        self.locate = nn.Linear(width, layout.columns)
        self.register_buffer("column_of_feature_F", torch.tensor(layout.column_of_feature), persistent=False)
        self.register_buffer("is_binary_F", torch.tensor(layout.is_binary), persistent=False)

    def forward(self, features: Features) -> Tensor:
        """Return restored inputs and replacement logits side by side, (B, F + M)."""
        pooled_BD = features.pooled()
        return torch.cat([self.restore(pooled_BD), self.locate(pooled_BD)], 1)


class MaskedFeatures(Pretraining):
    """Restore corrupted columns of a table; makes a base model."""

    name: ClassVar[str] = "masked-features"
    modality: ClassVar[str] = "tabular"
    Config: ClassVar[type[MaskedFeaturesConfig]] = MaskedFeaturesConfig
    State: ClassVar[type[MaskedFeaturesState]] = MaskedFeaturesState

    def fit(
        self, table: pa.Table, columns: Columns, config: MaskedFeaturesConfig, inputs: TabularState
    ) -> MaskedFeaturesState:
        """Remember where each column's features lie."""
        return MaskedFeaturesState(layout=layout_of(inputs), config=config)

    def head(self, width: int, state: MaskedFeaturesState) -> nn.Module:
        """Return the two linear layers."""
        return ReconstructionHead(width, state.layout)

    def loss(self, network: Network, batch: Batch, state: MaskedFeaturesState) -> Tensor:
        """Return the restoration loss of the replaced columns plus the weighted loss of locating them."""
        head: ReconstructionHead = network.head  # type: ignore[assignment]
        inputs_BF = batch["inputs_BF"]
        corrupted = corrupt(inputs_BF, head.column_of_feature_F, state.layout.columns, state.config.corruption)
        outputs = network({"inputs_BF": corrupted.inputs_BF})
        restored_BF, located_BM = outputs.split([inputs_BF.shape[1], state.layout.columns], 1)
        error_BF = torch.where(
            head.is_binary_F,
            functional.binary_cross_entropy_with_logits(restored_BF, inputs_BF.clamp(0, 1), reduction="none"),
            (restored_BF - inputs_BF).square(),
        )
        hidden_BF = corrupted.replaced_BM[:, head.column_of_feature_F]
        restoration = (error_BF * hidden_BF).sum() / hidden_BF.sum().clamp_min(1)
        location = functional.binary_cross_entropy_with_logits(located_BM, corrupted.replaced_BM.float())
        return restoration + state.config.mask_loss_weight * location
