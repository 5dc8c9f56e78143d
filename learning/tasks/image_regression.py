"""Predict one or several numbers from an image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, cast

import pyarrow as pa
from torch import Tensor

from learning.augmentation import View
from learning.capabilities import Judged, Picture
from learning.config import Columns
from learning.interfaces import Batch, Network
from learning.modalities.image import ImageState
from learning.tasks import mistakes
from learning.tasks.augmented import AugmentedConfig, seen
from learning.tasks.regression import Regression, RegressionConfig, RegressionState, true_values


class ImageRegressionConfig(RegressionConfig, AugmentedConfig):
    """What is asked of the numbers, and how images are changed while they are learned from."""


class ImageRegressionState(RegressionState):
    """The target columns, and how images are changed in training."""

    view: View | None


class ImageRegression(Regression):
    """One output per target column."""

    name: ClassVar[str] = "image-regression"
    modality: ClassVar[str] = "image"
    Config: ClassVar[type[RegressionConfig]] = ImageRegressionConfig
    State: ClassVar[type[RegressionState]] = ImageRegressionState

    def fit(
        self, table: pa.Table, columns: Columns, config: RegressionConfig, inputs: ImageState
    ) -> ImageRegressionState:
        """Fit mean and deviation of each target; InvalidData for one that is no number or never varies."""
        view = cast("ImageRegressionConfig", config).view_of(inputs)
        return ImageRegressionState(**dict(super().fit(table, columns, config, inputs)), view=view)

    def loss(self, network: Network, batch: Batch, state: RegressionState) -> Tensor:
        """Return half the mean squared error, or Huber's loss; in training of a view of each image."""
        return super().loss(network, seen(batch, network, cast("ImageRegressionState", state).view), state)

    def pictures(self, judged: Judged, inputs: ImageState, state: RegressionState) -> Iterator[Picture]:
        """Yield the images whose numbers are farthest off."""
        true_NK = true_values(judged.targets, state)
        wrong = mistakes.of_numbers(judged.predictions, true_NK, state.targets, state.deviations, judged.part)
        yield from mistakes.of_images(wrong, judged.rows, inputs)
