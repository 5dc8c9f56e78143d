"""Pretrain on texts without labels: two readings of a text, or a text and the next, are found among all of a batch.

Hidden tokens are restored at the same time (Devlin et al. 2019). Readings differ in what is hidden and in dropout, as
in SimCSE (Gao et al. 2021, arXiv 2104.08821); that neighbours have something to say of each other is skip-thought's
idea (Kiros et al. 2015, arXiv 1506.06726). B texts, D width.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import pyarrow as pa
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from learning.config import Columns
from learning.interfaces import Batch, Network
from learning.modalities.text import TextState
from learning.tasks.contrastive_views import recognition
from learning.tasks.masked_tokens import MaskedTokens, MaskedTokensConfig, MaskedTokensState
from learning.tasks.masking import Maskable


class ContrastiveTextsConfig(MaskedTokensConfig):
    """What is compared, how sharply, and how much that counts."""

    positives: Literal["readings", "next-rows"] = Field(
        "readings",
        description="A text is to be known by another reading of itself, or by the row behind it in the dataset: for "
        "rows in order, such as the turns of dialogues.",
    )
    temperature: float = Field(0.1, gt=0, le=10, description="Divides similarities before the softmax.")
    contrast_weight: float = Field(0.3, gt=0, le=100, description="What comparing counts, where hidden tokens count 1.")


class ContrastiveTextsState(MaskedTokensState):
    """What can be hidden, and the configuration."""

    config: ContrastiveTextsConfig


class ContrastiveTexts(MaskedTokens):
    """Tell texts apart by their vectors, and restore hidden tokens; makes a base model whose vectors compare."""

    name: ClassVar[str] = "contrastive-texts"
    Config: ClassVar[type[ContrastiveTextsConfig]] = ContrastiveTextsConfig
    State: ClassVar[type[ContrastiveTextsState]] = ContrastiveTextsState

    def fit(
        self, table: pa.Table, columns: Columns, config: MaskedTokensConfig, inputs: TextState
    ) -> ContrastiveTextsState:
        """Look up what can be hidden."""
        assert isinstance(config, ContrastiveTextsConfig)
        return ContrastiveTextsState(maskable=Maskable.of(inputs, config.whole_words), config=config)

    def with_next_rows(self, config: ContrastiveTextsConfig) -> bool:
        """Return whether a batch has the rows behind its own as well."""
        return config.positives == "next-rows"

    def loss(self, network: Network, batch: Batch, state: MaskedTokensState) -> Tensor:
        """Return the cross-entropy of hidden tokens, and the weighted one of finding each text's twin."""
        assert isinstance(state, ContrastiveTextsState)
        twin = "next_" if self.with_next_rows(state.config) else ""
        batch = {name: torch.cat([batch[name], batch[f"{twin}{name}"]]) for name in ("token_S", "length_B")}
        restoring, features = self.restore(network, batch, state)
        vectors_BD = functional.normalize(features.pooled().float(), dim=1)
        # Similarities are divided by a small temperature: in bf16 what is left of them would be too coarse to compare.
        with torch.autocast(vectors_BD.device.type, enabled=False):
            first_BD, second_BD = vectors_BD.chunk(2)
            comparing = recognition(first_BD, second_BD, state.config.temperature)
        return restoring + state.config.contrast_weight * comparing
