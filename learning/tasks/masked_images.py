"""Pretrain on images without labels: patches of an image are hidden, the network says what was to be seen there.

Masked image modelling (SimMIM, Xie et al. 2022, arXiv 2111.09886): by L1 on the pixels of hidden patches, each as large
as a cell of the backbone's coarsest grid, whose features alone say what stood there.
P pixels of a cell's side, H and W cells of a grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, cast

import pyarrow as pa
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from learning.augmentation import View, augment
from learning.capabilities import Level
from learning.config import Columns, Config
from learning.interfaces import Batch, Features, Network
from learning.modalities.image import ImageState
from learning.tasks.pretraining import Pretraining

# What is to be restored is another part of the image in each step, but nothing is bent or recoloured.
_MOVED = View(scale=(0.7, 1.0), aspect=1.2, shift=1.0, inside=True)
_MIRRORED = _MOVED.model_copy(update={"mirror": True})


class MaskedImagesConfig(Config):
    """How much is hidden, and of what."""

    mask_share: float = Field(0.5, gt=0, lt=0.95, description="Share of the patches hidden in each step, drawn anew.")
    augmentation: Literal["none", "crop", "crop-and-mirror"] = Field(
        "crop",
        description="Whether it is another part of the image in each step, and also its mirror image, as for "
        "photographs.",
    )


class MaskedImagesState(Config):
    """What was fitted to images, and the configuration."""

    inputs: ImageState
    config: MaskedImagesConfig


class PixelHead(nn.Module):
    """One linear layer from the features of a cell to its pixels."""

    def __init__(self, level: Level, channels: int) -> None:
        super().__init__()
        self.side = level.stride
        self.pixels = nn.Linear(level.width, channels * level.stride**2)

    def forward(self, features: Features) -> Tensor:
        """Return what is seen in each cell, (B, C P P, H W)."""
        told_BTE: Tensor = self.pixels(features.features_BTD)
        return told_BTE.transpose(1, 2)


class MaskedImages(Pretraining):
    """Restore hidden patches of an image; makes a base model."""

    name: ClassVar[str] = "masked-images"
    modality: ClassVar[str] = "image"
    Config: ClassVar[type[MaskedImagesConfig]] = MaskedImagesConfig
    State: ClassVar[type[MaskedImagesState]] = MaskedImagesState

    def fit(
        self, table: pa.Table, columns: Columns, config: MaskedImagesConfig, inputs: ImageState
    ) -> MaskedImagesState:
        """Remember how pixels become numbers."""
        return MaskedImagesState(inputs=inputs, config=config)

    def head(self, width: int, state: MaskedImagesState) -> nn.Module:
        """Return the head for a grid of single pixels."""
        return self.head_on((Level(width, 1),), state)

    def head_on(self, levels: Sequence[Level], state: MaskedImagesState) -> nn.Module:
        """Return the head on the coarsest grid."""
        return PixelHead(levels[-1], state.inputs.channels)

    def loss(self, network: Network, batch: Batch, state: MaskedImagesState) -> Tensor:
        """Return the mean absolute error in the normalised pixels of hidden patches."""
        image_BCHW, inputs = batch["image_BCHW"].float(), state.inputs
        if network.training and state.config.augmentation != "none":
            image_BCHW = augment(image_BCHW, _MIRRORED if state.config.augmentation == "crop-and-mirror" else _MOVED)
        side = cast("PixelHead", network.head).side
        hidden_B1HW = _hidden(image_BCHW, side, state.config.mask_share)
        mean_C11, deviation_C11 = (
            255 * torch.tensor(values, device=image_BCHW.device).view(-1, 1, 1)
            for values in (inputs.mean, inputs.deviation)
        )
        shown_BCHW = torch.where(hidden_B1HW, mean_C11, image_BCHW)
        features = cast("Features", network.backbone({"image_BCHW": shown_BCHW}))
        seen_BCHW = _joined(network.head(features), cast("tuple[int, int]", features.grid), side)
        # Where an image is no multiple of the cells, the last ones reach over its edge, or leave some of it out.
        high, wide = (min(inputs.size, length) for length in seen_BCHW.shape[2:])
        hidden_B1HW = hidden_B1HW[:, :, :high, :wide]
        numbers_BCHW = ((image_BCHW - mean_C11) / deviation_C11)[:, :, :high, :wide]
        error_BCHW = (seen_BCHW[:, :, :high, :wide] - numbers_BCHW).abs() * hidden_B1HW
        return error_BCHW.sum() / (hidden_B1HW.sum() * inputs.channels).clamp_min(1)


def _hidden(image_BCHW: Tensor, side: int, share: float) -> Tensor:
    """Return hidden_B1HW: patches of this side, of each image as many as the share is, one at least and never all."""
    rows, _, height, width = image_BCHW.shape
    high, wide = math.ceil(height / side), math.ceil(width / side)
    count = max(1, min(round(share * high * wide), high * wide - 1))
    hidden_BT = torch.rand(rows, high * wide, device=image_BCHW.device).argsort(1) < count
    hidden_B1HW = hidden_BT.view(rows, 1, high, wide).repeat_interleave(side, 2).repeat_interleave(side, 3)
    return hidden_B1HW[:, :, :height, :width]


def _joined(told_BET: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Return the pixels of all cells, (B, C, H P, W P)."""
    return functional.fold(told_BET.float(), (grid[0] * side, grid[1] * side), side, stride=side)
