"""Predict which of several labels a text has."""

from __future__ import annotations

from typing import ClassVar, cast

import pyarrow as pa
from torch import Tensor, nn

from learning.config import Columns
from learning.interfaces import Batch, Network
from learning.modalities.text import TextState
from learning.tasks.multi_label import MultiLabelClassification, MultiLabelConfig, MultiLabelState
from learning.tasks.pooled_text import PooledTextConfig, PooledTextState, TextHead, partly_hidden


class MultiLabelTextClassificationConfig(MultiLabelConfig, PooledTextConfig):
    """What is asked of the labels, and how a text becomes one vector."""


class MultiLabelTextClassificationState(MultiLabelState, PooledTextState):
    """The labels, and how texts are read."""


class MultiLabelTextClassification(MultiLabelClassification):
    """The labels of a text, each by a sigmoid of its own."""

    name: ClassVar[str] = "multi-label-text-classification"
    modality: ClassVar[str] = "text"
    Config: ClassVar[type[MultiLabelConfig]] = MultiLabelTextClassificationConfig
    State: ClassVar[type[MultiLabelState]] = MultiLabelTextClassificationState

    def fit(
        self, table: pa.Table, columns: Columns, config: MultiLabelConfig, inputs: TextState
    ) -> MultiLabelTextClassificationState:
        """Collect the labels; InvalidData for a column that has none, or when all rows have the same."""
        read = cast("MultiLabelTextClassificationConfig", config).read(inputs)
        return MultiLabelTextClassificationState(**dict(super().fit(table, columns, config, inputs)), **read)

    def head(self, width: int, state: MultiLabelState) -> nn.Module:
        """Return a linear layer to K logits."""
        head = TextHead(width, len(state.labels), cast("MultiLabelTextClassificationState", state))
        self.begin(head.linear, state)
        return head

    def loss(self, network: Network, batch: Batch, state: MultiLabelState) -> Tensor:
        """Return the binary cross-entropy; in training of texts with some tokens hidden."""
        read = cast("MultiLabelTextClassificationState", state)
        return super().loss(network, partly_hidden(batch, network, read), state)
