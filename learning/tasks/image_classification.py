"""Predict one of two or more classes of an image."""

from __future__ import annotations

from typing import ClassVar, Literal, cast

import pyarrow as pa
from pydantic import Field
from torch import Tensor

from learning.augmentation import DRAWN, PHOTO, View, augment
from learning.config import Columns
from learning.interfaces import Batch, Network
from learning.modalities.image import ImageState
from learning.tasks.classification import Classification, ClassificationConfig, ClassificationState


class ImageClassificationConfig(ClassificationConfig):
    """What is asked of the classes, and how images are changed while they are learned from."""

    label_smoothing: float = Field(0.1, ge=0, lt=1, description="Share of the target spread over all classes.")
    augmentation: Literal["auto", "none", "drawn", "photo"] = Field(
        "auto",
        description="How images are changed in training: turned and moved a little, as for digits and scans, or also "
        'cropped, mirrored, recoloured and partly hidden, as for photographs; "auto": the latter for colour images.',
    )


class ImageClassificationState(ClassificationState):
    """The classes, and how images are changed in training."""

    view: View | None


class ImageClassification(Classification):
    """One class of an image; two classes are one sigmoid output, more are a softmax."""

    name: ClassVar[str] = "image-classification"
    modality: ClassVar[str] = "image"
    Config: ClassVar[type[ClassificationConfig]] = ImageClassificationConfig
    State: ClassVar[type[ClassificationState]] = ImageClassificationState

    def fit(
        self, table: pa.Table, columns: Columns, config: ClassificationConfig, inputs: ImageState
    ) -> ImageClassificationState:
        """Collect the classes; InvalidData for fewer than two, or for a column that is no label."""
        options = cast("ImageClassificationConfig", config)
        auto = PHOTO if inputs.channels == 3 else DRAWN
        view = {"auto": auto, "none": None, "drawn": DRAWN, "photo": PHOTO}[options.augmentation]
        return ImageClassificationState(**dict(super().fit(table, columns, config, inputs)), view=view)

    def loss(self, network: Network, batch: Batch, state: ClassificationState) -> Tensor:
        """Return binary or categorical cross-entropy; in training of a view of each image."""
        view = cast("ImageClassificationState", state).view
        if network.training and view is not None:
            batch = {**batch, "image_BCHW": augment(batch["image_BCHW"], view)}
        return super().loss(network, batch, state)
