"""Predict one of two or more classes from a text."""

from __future__ import annotations

from typing import ClassVar, cast

import pyarrow as pa
from pydantic import Field
from torch import Tensor, nn

from learning.config import Columns
from learning.interfaces import Batch, Network
from learning.modalities.text import TextState
from learning.tasks.classification import Classification, ClassificationConfig, ClassificationState
from learning.tasks.pooled_text import PooledTextConfig, PooledTextState, TextHead, partly_hidden


class TextClassificationConfig(ClassificationConfig, PooledTextConfig):
    """What is asked of the classes, and how a text becomes one vector."""

    label_smoothing: float = Field(0.1, ge=0, lt=1, description="Share of the target spread over all classes.")


class TextClassificationState(ClassificationState, PooledTextState):
    """The classes, and how texts are read."""


class TextClassification(Classification):
    """One class of a text; two classes are one sigmoid output, more are a softmax."""

    name: ClassVar[str] = "text-classification"
    modality: ClassVar[str] = "text"
    otherwise: ClassVar[str] = 'Predict a number with task "text-regression", or choose another target.'
    Config: ClassVar[type[ClassificationConfig]] = TextClassificationConfig
    State: ClassVar[type[ClassificationState]] = TextClassificationState

    def fit(
        self, table: pa.Table, columns: Columns, config: ClassificationConfig, inputs: TextState
    ) -> TextClassificationState:
        """Collect the classes; InvalidData for fewer than two, or for a column that is no label."""
        read = cast("TextClassificationConfig", config).read(inputs)
        return TextClassificationState(**dict(super().fit(table, columns, config, inputs)), **read)

    def head(self, width: int, state: ClassificationState) -> nn.Module:
        """Return a linear layer to one logit for two classes, to C logits for more."""
        return TextHead(width, self.outputs(state), cast("TextClassificationState", state))

    def loss(self, network: Network, batch: Batch, state: ClassificationState) -> Tensor:
        """Return binary or categorical cross-entropy; in training of texts with some tokens hidden."""
        return super().loss(network, partly_hidden(batch, network, cast("TextClassificationState", state)), state)
