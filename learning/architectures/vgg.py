"""Plain convolutional networks (Simonyan and Zisserman 2014, arXiv 1409.1556), with batch normalisation.

Weights are named as those of torchvision's vgg11_bn and vgg16_bn. In place of three dense layers, which were nine
tenths of the weights, stands the mean over the image, so that any size of images will do.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from learning.architectures.image_backbone import ConvolutionalBackbone, initialise, with_channels_last
from learning.architectures.resnet import image_defaults
from learning.capabilities import Level
from learning.config import Config, Defaults, Situation
from learning.interfaces import Batch, Features
from learning.modalities.image import ImageState

# Channels of the convolutions between two poolings.
_SIZES: dict[str, tuple[tuple[int, ...], ...]] = {
    "tiny": ((16,), (32,), (64,)),
    "small": ((32, 32), (64, 64), (128, 128), (192,)),
    "11": ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    "16": ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
}


class VggConfig(Config):
    """How many layers."""

    size: Literal["tiny", "small", "11", "16"] = Field(
        "small", description="3 or 7 convolutions for small images, or the 8 or 13 of VGG-11 or VGG-16."
    )


def _levels(config: VggConfig, state: ImageState) -> tuple[Level, ...]:
    """Return the grid after each stage, half the one before while that has more than one cell."""
    levels, stride = [], 1
    for stage in _SIZES[config.size]:
        stride *= 2 if state.size // stride > 1 else 1
        levels.append(Level(stage[-1], stride))
    return tuple(levels)


class VggBackbone(ConvolutionalBackbone):
    """Convolutions of 3 by 3, the grid halved after some of them while it is larger than one cell."""

    def __init__(self, config: VggConfig, state: ImageState) -> None:
        super().__init__(state)
        layers: list[nn.Module] = []
        width: int = state.channels
        before = 1
        self.ends: list[int] = []  # where in the layers a grid is done
        for stage, level in zip(_SIZES[config.size], _levels(config, state), strict=True):
            for channels in stage:
                layers += [nn.Conv2d(width, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
                width = channels
            if level.stride > before:
                layers.append(nn.MaxPool2d(2))
            before = level.stride
            self.ends.append(len(layers))
        self.width = width
        self.features = nn.Sequential(*layers)
        self.apply(initialise)
        with_channels_last(self)

    def forward(self, batch: Batch) -> Features:
        """Return features_BTD of image_BCHW, a position for each cell of the last grid."""
        grid_BCHW, grids = self.normalized(batch), []
        for start, end in zip([0, *self.ends], self.ends, strict=False):
            grid_BCHW = self.features[start:end](grid_BCHW)
            grids.append(grid_BCHW)
        return self.positions(grids)


class Vgg:
    """Convolutions one after the other, as in VGG-11 and VGG-16, and smaller ones."""

    name: ClassVar[str] = "vgg"
    modality: ClassVar[str] = "image"
    Config: ClassVar[type[VggConfig]] = VggConfig

    def build(self, config: VggConfig, state: ImageState) -> VggBackbone:
        """Return a network for images encoded under `state`."""
        return VggBackbone(config, state)

    def levels(self, config: VggConfig, state: ImageState) -> tuple[Level, ...]:
        """Return the grid after each stage."""
        return _levels(config, state)

    def defaults(self, situation: Situation) -> Defaults:
        """Return what images need."""
        return image_defaults(situation)

    def foreign_config(self, config: VggConfig, state: ImageState) -> dict[str, Any]:
        """Return nothing: Transformers has no such class."""
        return {}
