"""Embed images so that those of one subject are near each other: faces, say, of people who were never seen before."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, cast

import pyarrow as pa
from torch import Tensor

from learning.augmentation import View
from learning.config import Columns, Defaults, Situation
from learning.interfaces import Batch, Network
from learning.modalities.image import ImageState
from learning.tasks.augmented import AugmentedConfig, seen
from learning.tasks.subject_embedding import SubjectEmbedding, SubjectEmbeddingConfig, SubjectEmbeddingState

# So few images are learned from in smaller batches: more steps, and statistics that vary more from one to the next.
_FEW, _BATCH_OF_FEW = 100, 16


class ImageEmbeddingConfig(SubjectEmbeddingConfig, AugmentedConfig):
    """How far apart subjects are to be, and how images are changed while they are learned from."""


class ImageEmbeddingState(SubjectEmbeddingState):
    """The subjects, and how images are changed in training."""

    view: View | None


class ImageEmbedding(SubjectEmbedding):
    """A vector of an image, by which it is identified and verified."""

    name: ClassVar[str] = "image-embedding"
    modality: ClassVar[str] = "image"
    Config: ClassVar[type[SubjectEmbeddingConfig]] = ImageEmbeddingConfig
    State: ClassVar[type[SubjectEmbeddingState]] = ImageEmbeddingState

    def fit(
        self, table: pa.Table, columns: Columns, config: SubjectEmbeddingConfig, inputs: ImageState
    ) -> ImageEmbeddingState:
        """Collect the subjects; InvalidData for fewer than two, or for a column that names none."""
        view = cast("ImageEmbeddingConfig", config).view_of(inputs)
        return ImageEmbeddingState(**dict(super().fit(table, columns, config, inputs)), view=view)

    def defaults(self, usual: Defaults, situation: Situation) -> Defaults:
        """Return smaller batches where there are few images."""
        if situation.rows >= _FEW:
            return usual
        return replace(usual, batch_size=min(usual.batch_size, _BATCH_OF_FEW))

    def loss(self, network: Network, batch: Batch, state: SubjectEmbeddingState) -> Tensor:
        """Return the softmax with a margin; in training of a view of each image."""
        return super().loss(network, seen(batch, network, cast("ImageEmbeddingState", state).view), state)
