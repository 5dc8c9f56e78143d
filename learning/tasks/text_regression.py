"""Predict one or several numbers from a text."""

from __future__ import annotations

from typing import ClassVar, cast

import pyarrow as pa
from torch import Tensor, nn

from learning.config import Columns
from learning.interfaces import Batch, Network
from learning.modalities.text import TextState
from learning.tasks.pooled_text import PooledTextConfig, PooledTextState, TextHead, partly_hidden
from learning.tasks.regression import Regression, RegressionConfig, RegressionState


class TextRegressionConfig(RegressionConfig, PooledTextConfig):
    """What is asked of the numbers, and how a text becomes one vector."""


class TextRegressionState(RegressionState, PooledTextState):
    """The target columns, and how texts are read."""


class TextRegression(Regression):
    """One output per target column."""

    name: ClassVar[str] = "text-regression"
    modality: ClassVar[str] = "text"
    Config: ClassVar[type[RegressionConfig]] = TextRegressionConfig
    State: ClassVar[type[RegressionState]] = TextRegressionState

    def fit(
        self, table: pa.Table, columns: Columns, config: RegressionConfig, inputs: TextState
    ) -> TextRegressionState:
        """Fit mean and deviation of each target; InvalidData for one that is no number or never varies."""
        read = cast("TextRegressionConfig", config).read(inputs)
        return TextRegressionState(**dict(super().fit(table, columns, config, inputs)), **read)

    def head(self, width: int, state: RegressionState) -> nn.Module:
        """Return a linear layer to K outputs."""
        return TextHead(width, len(state.targets), cast("TextRegressionState", state))

    def loss(self, network: Network, batch: Batch, state: RegressionState) -> Tensor:
        """Return half the mean squared error, or Huber's loss; in training of texts with some tokens hidden."""
        return super().loss(network, partly_hidden(batch, network, cast("TextRegressionState", state)), state)
