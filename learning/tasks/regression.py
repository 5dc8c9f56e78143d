"""Predict one or several numbers, from whatever a backbone reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from learning import metrics
from learning.config import Columns, Config
from learning.errors import InvalidConfig, InvalidData
from learning.interfaces import Batch, Kind, Link, Network, PredictionOptions, Target
from learning.splits import require_column, require_values
from learning.tasks.heads import PooledLinear


class RegressionConfig(Config):
    """What is asked of the numbers."""

    loss: Literal["squared", "huber"] = Field(
        "squared", description="Squared error, or Huber's, which forgives outliers."
    )


class RegressionState(Config):
    """Target columns with the mean and deviation they are standardised by."""

    targets: tuple[str, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    loss: Literal["squared", "huber"] = "squared"


class Regression:
    """One output per target column, learned on standardised values and answered in the column's unit."""

    name: ClassVar[str]
    modality: ClassVar[str]
    kind: ClassVar[Kind] = "finetune"
    target: ClassVar[Target] = "numbers"
    stratified: ClassVar[bool] = False
    score: ClassVar[str] = "r2"
    monitor: ClassVar[str] = "loss"
    Config: ClassVar[type[RegressionConfig]] = RegressionConfig
    State: ClassVar[type[RegressionState]] = RegressionState
    Options: ClassVar[type[PredictionOptions]] = PredictionOptions

    def fit(self, table: pa.Table, columns: Columns, config: RegressionConfig, inputs: Any) -> RegressionState:
        """Fit mean and deviation of each target; InvalidData for one that is no number or never varies."""
        names = columns.target_names()
        if not names:
            raise InvalidConfig(
                f"{self.name} needs a column to predict.",
                hint='Set columns={"target": "..."} or {"targets": ["...", "..."]}.',
                param="columns.target",
            )
        values_NK = _numbers(table, names)
        deviations_K = values_NK.std(0)
        if (deviations_K == 0).any():
            name = names[int(np.argmin(deviations_K))]
            raise InvalidData(
                f'Column "{name}" has the same value in every training row; there is nothing to predict.',
                hint="Choose another target.",
                param="columns.target",
            )
        return RegressionState(
            targets=names,
            means=tuple(values_NK.mean(0).tolist()),
            deviations=tuple(deviations_K.tolist()),
            loss=config.loss,
        )

    def targets(self, table: pa.Table, state: RegressionState, encoded: Batch) -> Batch:
        """Return standardised target_BK."""
        values_NK = (_numbers(table, state.targets) - np.asarray(state.means)) / np.asarray(state.deviations)
        return {"target_BK": torch.from_numpy(values_NK.astype(np.float32))}

    def head(self, width: int, state: RegressionState) -> nn.Module:
        """Return a linear layer to K outputs."""
        return PooledLinear(width, len(state.targets))

    def loss(self, network: Network, batch: Batch, state: RegressionState) -> Tensor:
        """Return half the mean squared error, or Huber's loss, of standardised targets."""
        outputs_BK, target_BK = network(batch), batch["target_BK"]
        if state.loss == "huber":
            return functional.huber_loss(outputs_BK, target_BK)
        return functional.mse_loss(outputs_BK, target_BK) / 2

    def link(self, state: RegressionState) -> Link | None:
        """Return identity: half the squared error has the plain difference as its gradient."""
        return "identity" if state.loss == "squared" else None

    def predict(self, network: Network, batch: Batch, state: RegressionState) -> Tensor:
        """Return value_BK in the columns' units."""
        outputs_BK = network(batch).double()
        return outputs_BK * outputs_BK.new_tensor(state.deviations) + outputs_BK.new_tensor(state.means)

    def answers(self, predictions: Tensor, state: RegressionState, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """Return the value of a single target, or the values of several by name."""
        values = predictions.tolist()
        if len(state.targets) == 1:
            return [{"value": row[0]} for row in values]
        return [{"values": dict(zip(state.targets, row, strict=True))} for row in values]

    def metrics(self, predictions: Tensor, targets: Batch, state: RegressionState) -> dict[str, Any]:
        """Return R2, RMSE and MAE in the columns' units; the mean over several targets, and each."""
        target_NK = true_values(targets, state)
        each = {
            name: {
                "r2": metrics.r2(predictions[:, column], target_NK[:, column]),
                "rmse": metrics.rmse(predictions[:, column], target_NK[:, column]),
                "mae": metrics.mae(predictions[:, column], target_NK[:, column]),
            }
            for column, name in enumerate(state.targets)
        }
        if len(each) == 1:
            return next(iter(each.values()))
        means = {metric: _mean([values[metric] for values in each.values()]) for metric in ("r2", "rmse", "mae")}
        return {**means, "targets": each}

    def schema(self, state: RegressionState) -> dict[str, Any]:
        """Return the JSON Schema of an answer."""
        if len(state.targets) == 1:
            return {"type": "object", "properties": {"value": {"type": "number"}}}
        values = {name: {"type": "number"} for name in state.targets}
        return {"type": "object", "properties": {"values": {"type": "object", "properties": values}}}


def true_values(targets: Batch, state: RegressionState) -> Tensor:
    """Return what is right in the columns' units, (N, K)."""
    target_NK = targets["target_BK"].double()
    return target_NK * target_NK.new_tensor(state.deviations) + target_NK.new_tensor(state.means)


def _numbers(table: pa.Table, names: tuple[str, ...]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    for name in names:
        require_column(table, name, "columns.target")
        column = table.column(name)
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            raise InvalidData(
                f'Column "{name}" holds {column.type} values, which are no numbers.',
                hint="Predict it with a task of classification, or choose another target.",
                param="columns.target",
            )
        require_values(table, name, "the value to predict is missing", "columns.target")
    return np.stack([table.column(name).cast(pa.float64()).to_numpy() for name in names], axis=1)


def _mean(values: list[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None
