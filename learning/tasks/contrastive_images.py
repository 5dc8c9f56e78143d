"""Pretrain on images without labels: two views of an image must be closer than those of any two images."""

from __future__ import annotations

from typing import ClassVar, Literal

import pyarrow as pa
import torch
from pydantic import Field

from learning.augmentation import DRAWN_APART, PHOTO_APART, View, augment
from learning.config import Columns, Config
from learning.interfaces import Batch
from learning.modalities.image import ImageState
from learning.tasks.contrastive_views import ContrastiveViews, ContrastiveViewsConfig


class ContrastiveImagesConfig(ContrastiveViewsConfig):
    """How different two views are, and how they are compared."""

    augmentation: Literal["auto", "drawn", "photo"] = Field(
        "auto",
        description="How a view differs from its image: turned, moved and bent, as for digits and scans, or cropped, "
        'mirrored and recoloured, as for photographs; "auto": the latter for colour images.',
    )


class ContrastiveImagesState(Config):
    """How views are made, and the configuration."""

    view: View
    config: ContrastiveImagesConfig


class ContrastiveImages(ContrastiveViews):
    """Recognise an image in another view of it; makes a base model."""

    name: ClassVar[str] = "contrastive-images"
    modality: ClassVar[str] = "image"
    Config: ClassVar[type[ContrastiveImagesConfig]] = ContrastiveImagesConfig
    State: ClassVar[type[ContrastiveImagesState]] = ContrastiveImagesState

    def fit(
        self, table: pa.Table, columns: Columns, config: ContrastiveImagesConfig, inputs: ImageState
    ) -> ContrastiveImagesState:
        """Choose how views are made."""
        photo = config.augmentation == "photo" or (config.augmentation == "auto" and inputs.channels == 3)
        return ContrastiveImagesState(view=PHOTO_APART if photo else DRAWN_APART, config=config)

    def views(self, batch: Batch, state: ContrastiveImagesState) -> Batch:
        """Return two views of each image."""
        image_BCHW = batch["image_BCHW"]
        return {"image_BCHW": torch.cat([augment(image_BCHW, state.view), augment(image_BCHW, state.view)])}
