"""Predict one of two or more classes of an image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, cast

import pyarrow as pa
from pydantic import Field
from torch import Tensor

from learning.augmentation import View
from learning.capabilities import Judged, Picture
from learning.config import Columns
from learning.interfaces import Batch, Network
from learning.modalities.image import ImageState
from learning.tasks import mistakes
from learning.tasks.augmented import AugmentedConfig, seen
from learning.tasks.classification import Classification, ClassificationConfig, ClassificationState
from learning.tasks.mixing import Mix, MixingConfig, mixed_loss


class ImageClassificationConfig(ClassificationConfig, AugmentedConfig, MixingConfig):
    """What is asked of the classes, and how images are changed while they are learned from."""

    label_smoothing: float = Field(0.1, ge=0, lt=1, description="Share of the target spread over all classes.")


class ImageClassificationState(ClassificationState):
    """The classes, and how images are changed in training."""

    view: View | None
    mix: Mix = "none"


class ImageClassification(Classification):
    """One class of an image; two classes are one sigmoid output, more are a softmax."""

    name: ClassVar[str] = "image-classification"
    modality: ClassVar[str] = "image"
    otherwise: ClassVar[str] = 'Predict a number with task "image-regression", or choose another target.'
    Config: ClassVar[type[ClassificationConfig]] = ImageClassificationConfig
    State: ClassVar[type[ClassificationState]] = ImageClassificationState

    def fit(
        self, table: pa.Table, columns: Columns, config: ClassificationConfig, inputs: ImageState
    ) -> ImageClassificationState:
        """Collect the classes; InvalidData for fewer than two, or for a column that is no label."""
        chosen = cast("ImageClassificationConfig", config)
        found = dict(super().fit(table, columns, config, inputs))
        return ImageClassificationState(**found, view=chosen.view_of(inputs), mix=chosen.mix)

    def loss(self, network: Network, batch: Batch, state: ClassificationState) -> Tensor:
        """Return binary or categorical cross-entropy; in training of a view of each image, or of two."""
        image_state = cast("ImageClassificationState", state)
        return mixed_loss(super().loss, network, seen(batch, network, image_state.view), state, image_state.mix)

    def pictures(self, judged: Judged, inputs: ImageState, state: ClassificationState) -> Iterator[Picture]:
        """Yield those of every classification, and the worst mistakes."""
        yield from super().pictures(judged, inputs, state)
        target_N = judged.targets["target_B"].long()
        wrong = mistakes.of_classes(judged.predictions, target_N, state.labels, judged.part, mistakes.MOST_IMAGES)
        yield from mistakes.of_images(wrong, judged.rows, inputs)
