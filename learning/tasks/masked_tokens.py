"""Pretrain on texts without labels: some tokens are hidden, the network says what stood there.

Masked language modelling (Devlin et al. 2019, arXiv 1810.04805), by default of more tokens than BERT hid (Wettig et
al. 2023, arXiv 2202.08005).
"""

from __future__ import annotations

from typing import ClassVar, cast

import pyarrow as pa
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from learning.config import Columns, Config
from learning.interfaces import Batch, Network, PackedFeatures, TokenBackbone
from learning.modalities.text import TextState
from learning.product_rows import with_spare_rows, with_spare_targets
from learning.tasks.masking import Maskable, Masker
from learning.tasks.pretraining import Pretraining

_EPSILON = 1e-12  # BERT's, so that its own head gives the same here


class MaskedTokensConfig(Config):
    """How much is hidden, and in what units."""

    mask_share: float = Field(0.3, gt=0, lt=1, description="Share of tokens hidden in each step, drawn anew each time.")
    whole_words: bool = Field(False, description="Hide all tokens of a word together; a Chinese character is a word.")


class MaskedTokensState(Config):
    """What can be hidden, and the configuration."""

    maskable: Maskable
    config: MaskedTokensConfig


class VocabularyHead(nn.Module):
    """A hidden layer, then scores of all tokens by their embeddings."""

    def __init__(self, width: int, state: MaskedTokensState) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=_EPSILON)
        self.bias = nn.Parameter(torch.zeros(state.maskable.vocabulary))
        self.masker = Masker(state.maskable)
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)

    def forward(self, features_SD: Tensor, embedding_VD: Tensor) -> Tensor:
        """Return logits of the tokens, (S, V)."""
        return functional.linear(self.norm(functional.gelu(self.dense(features_SD))), embedding_VD, self.bias)


class MaskedTokens(Pretraining):
    """Restore hidden tokens of a text; makes a base model."""

    name: ClassVar[str] = "masked-tokens"
    modality: ClassVar[str] = "text"
    causal: ClassVar[bool] = False
    Config: ClassVar[type[MaskedTokensConfig]] = MaskedTokensConfig
    State: ClassVar[type[MaskedTokensState]] = MaskedTokensState

    def fit(
        self, table: pa.Table, columns: Columns, config: MaskedTokensConfig, inputs: TextState
    ) -> MaskedTokensState:
        """Look up what can be hidden."""
        return MaskedTokensState(maskable=Maskable.of(inputs, config.whole_words), config=config)

    def head(self, width: int, state: MaskedTokensState) -> nn.Module:
        """Return the head that scores tokens."""
        return VocabularyHead(width, state)

    def loss(self, network: Network, batch: Batch, state: MaskedTokensState) -> Tensor:
        """Return the mean cross-entropy of the hidden tokens."""
        return self.restore(network, batch, state)[0]

    def restore(self, network: Network, batch: Batch, state: MaskedTokensState) -> tuple[Tensor, PackedFeatures]:
        """Return the mean cross-entropy of hidden tokens, and the features of what was read instead."""
        head, backbone = cast("VocabularyHead", network.head), cast("TokenBackbone", network.backbone)
        token_S = batch["token_S"]
        hidden_S = head.masker.draw(token_S, state.config.mask_share)
        features: PackedFeatures = backbone({**batch, "token_S": head.masker.disguise(token_S, hidden_S)})
        place_H = hidden_S.nonzero().squeeze(1)
        logits_HV = head(with_spare_rows(features.features_SD[place_H]), backbone.embedding_VD)
        target_H = with_spare_targets(token_S[place_H].long(), len(logits_HV))
        total = functional.cross_entropy(logits_HV.float(), target_H, reduction="sum")
        return total / max(1, len(place_H)), features
