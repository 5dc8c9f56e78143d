"""What tasks on images share that change them at random in training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from learning.augmentation import DRAWN, DRAWN_RANDOM, PHOTO, PHOTO_RANDOM, View, augment
from learning.config import Config
from learning.interfaces import Batch, Network
from learning.modalities.image import ImageState


class AugmentedConfig(Config):
    """How images are changed while they are learned from."""

    augmentation: Literal["auto", "none", "drawn", "photo", "random"] = Field(
        "auto",
        description="How images are changed in training: turned and moved a little, as for digits and scans, or also "
        'cropped, mirrored, recoloured and partly hidden, as for photographs; "auto": the latter for colour images; '
        '"random": by two of twelve operations, drawn for each image, and moved or cropped as otherwise.',
    )

    def view_of(self, inputs: ImageState) -> View | None:
        """Return what is chosen for such images."""
        auto, random = (PHOTO, PHOTO_RANDOM) if inputs.channels == 3 else (DRAWN, DRAWN_RANDOM)
        return {"auto": auto, "none": None, "drawn": DRAWN, "photo": PHOTO, "random": random}[self.augmentation]


def seen(batch: Batch, network: Network, view: View | None) -> Batch:
    """Return a batch as a network sees it: in training each image is changed."""
    if view is None or not network.training:
        return batch
    return {**batch, "image_BCHW": augment(batch["image_BCHW"], view)}
