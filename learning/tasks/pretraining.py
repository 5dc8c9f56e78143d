"""What pretraining tasks share: no labels, the features as the answer, the loss as the only metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pyarrow as pa
from torch import Tensor

from learning.interfaces import Batch, Features, Kind, Link, Network, PackedFeatures, PredictionOptions, Target


class Pretraining:
    """The base of tasks that make a base model from rows without labels."""

    kind: ClassVar[Kind] = "pretrain"
    target: ClassVar[Target] = "nothing"
    stratified: ClassVar[bool] = False
    score: ClassVar[str] = "loss"
    monitor: ClassVar[str] = "loss"
    Options: ClassVar[type[PredictionOptions]] = PredictionOptions

    def targets(self, table: pa.Table, state: Any, encoded: Batch) -> Batch:
        """Return nothing: the inputs are their own targets."""
        return {}

    def link(self, state: Any) -> Link | None:
        """Return None: the loss is not that of a plain output."""
        return None

    def predict(self, network: Network, batch: Batch, state: Any) -> Tensor:
        """Return the pooled features, (B, D): what a base model knows of a row."""
        features: Features | PackedFeatures = network.backbone(batch)
        return features.pooled().float()

    def answers(self, predictions: Tensor, state: Any, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """Return one vector per input."""
        return [{"embedding": row} for row in predictions.tolist()]

    def metrics(self, predictions: Tensor, targets: Batch, state: Any) -> dict[str, Any]:
        """Return nothing beside the loss."""
        return {}

    def schema(self, state: Any) -> dict[str, Any]:
        """Return the JSON Schema of an answer."""
        return {"type": "object", "properties": {"embedding": {"type": "array", "items": {"type": "number"}}}}
