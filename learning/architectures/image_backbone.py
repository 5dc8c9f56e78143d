"""What networks on images share: bytes become numbers around zero, and a grid of features becomes positions.

C channels, H rows and W columns of a grid, whose cells are the T positions, row after row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from learning.interfaces import Backbone, Batch, Features
from learning.modalities.image import ImageState


class ImageBackbone(Backbone):
    """A backbone that reads image_BCHW, of bytes or of numbers from 0 to 255."""

    # Not saved: they follow from the modality's state.
    scale_C11: Tensor
    shift_C11: Tensor

    def __init__(self, state: ImageState) -> None:
        super().__init__()
        mean_C11 = torch.tensor(state.mean).view(-1, 1, 1)
        deviation_C11 = torch.tensor(state.deviation).view(-1, 1, 1)
        self.register_buffer("scale_C11", 1 / (255 * deviation_C11), persistent=False)
        self.register_buffer("shift_C11", -mean_C11 / deviation_C11, persistent=False)

    def normalized(self, batch: Batch) -> Tensor:
        """Return the normalised images, (B, C, H, W), laid out with the channels last, as convolutions want them."""
        image_BCHW = batch["image_BCHW"].float()
        numbers_BCHW = torch.addcmul(self.shift_C11, image_BCHW, self.scale_C11)
        return numbers_BCHW.contiguous(memory_format=torch.channels_last)


class ConvolutionalBackbone(ImageBackbone):
    """A backbone whose features are a grid, on which dropout silences channels."""

    def __init__(self, state: ImageState) -> None:
        super().__init__(state)
        self.dropout = nn.Dropout2d(0.0)

    def set_dropout(self, share: float) -> None:
        """Silence this share of the last layer's channels in training."""
        self.dropout.p = share

    def positions(self, grids_BDHW: Sequence[Tensor]) -> Features:
        """Return the cells of the last of some grids as the positions of features, which keep all of the grids."""
        grid_BDHW = self.dropout(grids_BDHW[-1])
        height, width = grid_BDHW.shape[2:]
        features_BTD = grid_BDHW.flatten(2).transpose(1, 2)
        return Features(features_BTD, grid=(height, width), grids_BDHW=(*grids_BDHW[:-1], grid_BDHW))


def with_channels_last(backbone: ImageBackbone) -> None:
    """Lay all weights out as convolutions want them."""
    backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stubs lack this form


def initialise(module: nn.Module) -> None:
    """Draw convolutions by He et al. 2015 (arXiv 1502.01852), as is usual for networks with ReLU."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
