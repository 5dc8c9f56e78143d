"""Predict which of several labels an image has."""

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
from learning.tasks.mixing import Mix, MixingConfig, mixed_loss
from learning.tasks.multi_label import MultiLabelClassification, MultiLabelConfig, MultiLabelState


class MultiLabelImageClassificationConfig(MultiLabelConfig, AugmentedConfig, MixingConfig):
    """What is asked of the labels, and how images are changed while they are learned from."""


class MultiLabelImageClassificationState(MultiLabelState):
    """The labels, and how images are changed in training."""

    view: View | None
    mix: Mix = "none"


class MultiLabelImageClassification(MultiLabelClassification):
    """The labels of an image, each by a sigmoid of its own."""

    name: ClassVar[str] = "multi-label-image-classification"
    modality: ClassVar[str] = "image"
    Config: ClassVar[type[MultiLabelConfig]] = MultiLabelImageClassificationConfig
    State: ClassVar[type[MultiLabelState]] = MultiLabelImageClassificationState

    def fit(
        self, table: pa.Table, columns: Columns, config: MultiLabelConfig, inputs: ImageState
    ) -> MultiLabelImageClassificationState:
        """Collect the labels; InvalidData for a column that has none, or when all rows have the same."""
        chosen = cast("MultiLabelImageClassificationConfig", config)
        found = dict(super().fit(table, columns, config, inputs))
        return MultiLabelImageClassificationState(**found, view=chosen.view_of(inputs), mix=chosen.mix)

    def loss(self, network: Network, batch: Batch, state: MultiLabelState) -> Tensor:
        """Return the binary cross-entropy; in training of a view of each image, or of two."""
        image_state = cast("MultiLabelImageClassificationState", state)
        return mixed_loss(super().loss, network, seen(batch, network, image_state.view), state, image_state.mix)

    def pictures(self, judged: Judged, inputs: ImageState, state: MultiLabelState) -> Iterator[Picture]:
        """Yield the curves of each label, and the worst mistakes."""
        yield from super().pictures(judged, inputs, state)
        has_NK = judged.targets["target_BK"].bool()
        wrong = mistakes.of_labels(judged.predictions, has_NK, state.labels, state.threshold, judged.part)
        yield from mistakes.of_images(wrong, judged.rows, inputs)
