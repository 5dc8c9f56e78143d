"""Predict one of two or more classes from a text."""

from __future__ import annotations

from typing import ClassVar, Literal, cast

import pyarrow as pa
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from learning.config import Columns
from learning.interfaces import Batch, Network, PackedFeatures
from learning.modalities.text import TextState
from learning.tasks.classification import Classification, ClassificationConfig, ClassificationState
from learning.tasks.masking import Maskable, Masker


class TextClassificationConfig(ClassificationConfig):
    """What is asked of the classes, and how a text becomes one vector."""

    label_smoothing: float = Field(0.1, ge=0, lt=1, description="Share of the target spread over all classes.")
    pooling: Literal["mean", "first", "last"] = Field(
        "mean", description="What stands for a text: the mean of its tokens, or the first or last token."
    )
    vector_length: float | None = Field(
        None,
        gt=0,
        le=1_000,
        description="Length that every text's vector is given before the last layer, so that its direction alone "
        "decides; default: as it is. 10 suits models made for comparing sentences.",
    )
    token_masking: float = Field(
        0.15, ge=0, lt=1, description="Share of tokens hidden in training, so that no single word decides."
    )


class TextClassificationState(ClassificationState):
    """The classes, and how texts are read."""

    pooling: Literal["mean", "first", "last"]
    vector_length: float | None = None
    token_masking: float
    maskable: Maskable


class TextHead(nn.Module):
    """One linear layer on what stands for a text."""

    def __init__(self, width: int, outputs: int, state: TextClassificationState) -> None:
        super().__init__()
        self.linear = nn.Linear(width, outputs)
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)
        self.masker = Masker(state.maskable)
        self._pooling, self._length = state.pooling, state.vector_length

    def forward(self, features: PackedFeatures) -> Tensor:
        """Return outputs, (B, outputs)."""
        pool = {"mean": features.pooled, "first": features.first, "last": features.last}[self._pooling]
        vector_BD = pool()
        if self._length is not None:
            vector_BD = self._length * functional.normalize(vector_BD.float(), dim=1)
        outputs: Tensor = self.linear(vector_BD)
        return outputs


class TextClassification(Classification):
    """One class of a text; two classes are one sigmoid output, more are a softmax."""

    name: ClassVar[str] = "text-classification"
    modality: ClassVar[str] = "text"
    Config: ClassVar[type[ClassificationConfig]] = TextClassificationConfig
    State: ClassVar[type[ClassificationState]] = TextClassificationState

    def fit(
        self, table: pa.Table, columns: Columns, config: ClassificationConfig, inputs: TextState
    ) -> TextClassificationState:
        """Collect the classes; InvalidData for fewer than two, or for a column that is no label."""
        options = cast("TextClassificationConfig", config)
        return TextClassificationState(
            **dict(super().fit(table, columns, config, inputs)),
            pooling=options.pooling,
            vector_length=options.vector_length,
            token_masking=options.token_masking,
            maskable=Maskable.of(inputs),
        )

    def head(self, width: int, state: ClassificationState) -> nn.Module:
        """Return a linear layer to one logit for two classes, to C logits for more."""
        return TextHead(width, self.outputs(state), cast("TextClassificationState", state))

    def loss(self, network: Network, batch: Batch, state: ClassificationState) -> Tensor:
        """Return binary or categorical cross-entropy; in training of texts with some tokens hidden."""
        share = cast("TextClassificationState", state).token_masking
        if network.training and share:
            masker, token_S = cast("TextHead", network.head).masker, batch["token_S"]
            batch = {**batch, "token_S": masker.mask(token_S, masker.draw(token_S, share))}
        return super().loss(network, batch, state)
