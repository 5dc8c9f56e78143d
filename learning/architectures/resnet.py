"""Residual networks (He et al. 2015, arXiv 1512.03385) of 18 to 50 layers, and small ones for small images.

Weights are named and laid out as in Transformers' ResNetModel, which opens what is saved here with the stem "7x7/4";
ResNetForImageClassification opens classifiers of more than two classes.
C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from learning.architectures.image_backbone import ConvolutionalBackbone, initialise, with_channels_last
from learning.capabilities import Level
from learning.config import Config, Defaults, Situation
from learning.interfaces import Batch, Features
from learning.modalities.image import ImageState

Stem = Literal["auto", "3x3/1", "3x3/2", "5x5/4", "7x7/4"]
# By size: layers of each stage, channels of each stage, whether a layer is a bottleneck.
_SIZES: dict[str, tuple[tuple[int, ...], tuple[int, ...], bool]] = {
    "tiny": ((1, 1, 1), (16, 32, 64), False),
    "small": ((1, 2, 2), (32, 64, 128), False),
    "medium": ((1, 2, 2), (48, 96, 192), False),
    "18": ((2, 2, 2, 2), (64, 128, 256, 512), False),
    "34": ((3, 4, 6, 3), (64, 128, 256, 512), False),
    "50": ((3, 4, 6, 3), (256, 512, 1024, 2048), True),
}
_REDUCTION = 4
_STEM_OF_BOTTLENECKS = 64


class ResNetConfig(Config):
    """How many layers of how many channels, and how the first one looks at the image."""

    size: Literal["auto", "tiny", "small", "medium", "18", "34", "50"] = Field(
        "auto",
        description="3, 5 or 5 blocks of up to 64, 128 or 192 channels for small images, or as many layers as He et "
        'al. give them; "auto": small for grey images, medium for colour ones.',
    )
    stem: Stem = Field(
        "auto",
        description="Kernel of the first convolution, and by how much the stem shrinks the image, by its stride and, "
        'in the last two, by pooling; "auto": by the size of the images. Transformers knows the last one.',
    )
    depths: tuple[Annotated[int, Field(ge=1, le=64)], ...] | None = Field(
        None, min_length=1, max_length=8, description="Blocks of each stage, if not as many as the size has."
    )
    widths: tuple[Annotated[int, Field(ge=4, le=8_192, multiple_of=4)], ...] | None = Field(
        None, min_length=1, max_length=8, description="Channels of each stage, if not as many as the size has."
    )

    @model_validator(mode="after")
    def _stages_agree(self) -> ResNetConfig:
        depths, widths, _ = _SIZES["small" if self.size == "auto" else self.size]
        stages = len(self.depths or depths), len(self.widths or widths)
        if stages[0] != stages[1]:
            raise ValueError(f"depths has {stages[0]} stages and widths {stages[1]}; give both for as many stages")
        return self

    def shape(self, state: ImageState) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
        """Return blocks and channels of each stage, and whether blocks are bottlenecks."""
        auto = "small" if state.channels == 1 else "medium"
        depths, widths, bottleneck = _SIZES[auto if self.size == "auto" else self.size]
        return self.depths or depths, self.widths or widths, bottleneck

    def stem_for(self, state: ImageState) -> Stem:
        """Return the stem: the smaller the images, the less it shrinks them."""
        if self.stem != "auto":
            return self.stem
        steps: tuple[tuple[int, Stem], ...] = ((16, "3x3/1"), (40, "3x3/2"), (96, "5x5/4"))
        return next((stem for side, stem in steps if state.size <= side), "7x7/4")


class Convolution(nn.Module):
    """A convolution and its batch normalisation, and a ReLU if asked for."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, activate: bool = True) -> None:
        super().__init__()
        # Positions are skipped before a 1 x 1 product, not by it: with torch 2.13 and oneDNN, training on one with a
        # stride of 2, channels last, of few channels and images, ends with "free(): invalid next size".
        self.skip = stride if kernel == 1 else 1
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride // self.skip, kernel // 2, bias=False)
        self.normalization = nn.BatchNorm2d(outputs)
        self.activate = activate

    def forward(self, inputs_BCHW: Tensor) -> Tensor:
        """Return the outputs, (B, outputs, H / stride, W / stride)."""
        if self.skip > 1:
            inputs_BCHW = inputs_BCHW[:, :, :: self.skip, :: self.skip]
        outputs_BCHW: Tensor = self.normalization(self._convolved(inputs_BCHW))
        return outputs_BCHW.relu_() if self.activate else outputs_BCHW

    def _convolved(self, inputs_BCHW: Tensor) -> Tensor:
        """Return the convolution; in training one whose output is a single cell as a product of two matrices.

        It is the same sum, whose gradients by oneDNN, with torch 2.13, take 3 to 40 times as long.
        """
        convolution, height, width = self.convolution, *inputs_BCHW.shape[2:]
        kernel, stride = convolution.kernel_size[0], convolution.stride[0]
        padding = kernel // 2
        is_single = max(height, width) + 2 * padding - kernel < stride
        if not is_single or not torch.is_grad_enabled() or inputs_BCHW.device.type != "cpu":
            return cast("Tensor", convolution(inputs_BCHW))
        # Of the kernel only what lies on the image, and of the image only what lies under the kernel.
        seen_BCHW = inputs_BCHW[:, :, : kernel - padding, : kernel - padding]
        high, wide = (slice(padding, padding + length) for length in seen_BCHW.shape[2:])
        weight_OCHW = convolution.weight[:, :, high, wide]
        rows_BE, weight_OE = (each.permute(0, 2, 3, 1).flatten(1) for each in (seen_BCHW, weight_OCHW))
        return functional.linear(rows_BE, weight_OE, convolution.bias)[:, :, None, None]


class Block(nn.Module):
    """Two convolutions, or three with fewer channels inside, added to the block's input."""

    def __init__(self, inputs: int, outputs: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else Convolution(inputs, outputs, 1, stride, activate=False)
        inner = outputs // _REDUCTION
        self.layer = (
            nn.Sequential(
                Convolution(inputs, inner, 1),
                Convolution(inner, inner, 3, stride),
                Convolution(inner, outputs, 1, activate=False),
            )
            if bottleneck
            else nn.Sequential(
                Convolution(inputs, outputs, 3, stride), Convolution(outputs, outputs, 3, activate=False)
            )
        )

    def forward(self, inputs_BCHW: Tensor) -> Tensor:
        """Return the block's outputs."""
        outputs_BCHW: Tensor = self.layer(inputs_BCHW)
        outputs_BCHW = outputs_BCHW + self.shortcut(inputs_BCHW)
        return outputs_BCHW.relu_()


class Stage(nn.Module):
    """Blocks of one width; the first one may shrink the grid."""

    def __init__(self, inputs: int, outputs: int, depth: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        blocks = [Block(inputs, outputs, stride, bottleneck)]
        blocks += [Block(outputs, outputs, 1, bottleneck) for _ in range(depth - 1)]
        self.layers = nn.Sequential(*blocks)

    def forward(self, inputs_BCHW: Tensor) -> Tensor:
        """Return the stage's outputs."""
        outputs_BCHW: Tensor = self.layers(inputs_BCHW)
        return outputs_BCHW


class Embedder(nn.Module):
    """The stem: one convolution, and pooling where it shrinks the image by four."""

    def __init__(self, channels: int, outputs: int, stem: Stem) -> None:
        super().__init__()
        kernel, shrink = int(stem[0]), int(stem[-1])
        self.embedder = Convolution(channels, outputs, kernel, min(shrink, 2))
        self.pooler = nn.MaxPool2d(3, 2, 1) if shrink == 4 else nn.Identity()

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return the first features."""
        first_BCHW: Tensor = self.pooler(self.embedder(image_BCHW))
        return first_BCHW


class Encoder(nn.Module):
    """The stages, each but the first at half the resolution of the one before."""

    def __init__(self, inputs: int, shape: tuple[tuple[int, ...], tuple[int, ...], bool]) -> None:
        super().__init__()
        depths, widths, bottleneck = shape
        self.stages = nn.ModuleList(
            Stage(before, width, depth, 2 if number else 1, bottleneck)
            for number, (before, width, depth) in enumerate(zip((inputs, *widths[:-1]), widths, depths, strict=True))
        )

    def forward(self, first_BCHW: Tensor) -> list[Tensor]:
        """Return each stage's outputs."""
        grids = []
        for stage in self.stages:
            first_BCHW = stage(first_BCHW)
            grids.append(first_BCHW)
        return grids


class ResNetBackbone(ConvolutionalBackbone):
    """Stem and stages; features of every cell of the last grid."""

    prefix: ClassVar[str] = "resnet"

    def __init__(self, config: ResNetConfig, state: ImageState) -> None:
        super().__init__(state)
        shape = config.shape(state)
        stem_width = _STEM_OF_BOTTLENECKS if shape[2] else shape[1][0]
        self.embedder = Embedder(state.channels, stem_width, config.stem_for(state))
        self.encoder = Encoder(stem_width, shape)
        self.width = shape[1][-1]
        self.apply(initialise)
        with_channels_last(self)

    def grids(self, batch: Batch) -> list[Tensor]:
        """Return each stage's outputs, (B, C, H, W), from fine to coarse."""
        grids: list[Tensor] = self.encoder(self.embedder(self.normalized(batch)))
        return grids

    def forward(self, batch: Batch) -> Features:
        """Return features_BTD of image_BCHW, a position for each cell of the coarsest grid."""
        return self.positions(self.grids(batch))


class ResNet:
    """Residual convolutional network, in the layout of Hugging Face's ResNetModel."""

    name: ClassVar[str] = "resnet"
    modality: ClassVar[str] = "image"
    Config: ClassVar[type[ResNetConfig]] = ResNetConfig
    foreign_classifier: ClassVar[str] = "ResNetForImageClassification"
    foreign_head: ClassVar[Mapping[str, str]] = {
        f"head.linear.{name}": f"classifier.1.{name}" for name in ("weight", "bias")
    }

    def build(self, config: ResNetConfig, state: ImageState) -> ResNetBackbone:
        """Return a network for images encoded under `state`."""
        return ResNetBackbone(config, state)

    def levels(self, config: ResNetConfig, state: ImageState) -> tuple[Level, ...]:
        """Return the grid of each stage; each halves the one before."""
        shrink = int(config.stem_for(state)[-1])
        return tuple(Level(width, shrink << number) for number, width in enumerate(config.shape(state)[1]))

    def defaults(self, situation: Situation) -> Defaults:
        """Return what images need."""
        return image_defaults(situation)

    def foreign_config(self, config: ResNetConfig, state: ImageState) -> dict[str, Any]:
        """Return the config.json of a ResNetModel; with another stem than its own there is no such class."""
        if config.stem_for(state) != "7x7/4":
            return {}
        depths, widths, bottleneck = config.shape(state)
        return {
            "model_type": "resnet",
            "architectures": ["ResNetModel"],
            "num_channels": state.channels,
            "embedding_size": _STEM_OF_BOTTLENECKS if bottleneck else widths[0],
            "hidden_sizes": list(widths),
            "depths": list(depths),
            "layer_type": "bottleneck" if bottleneck else "basic",
            "hidden_act": "relu",
            "downsample_in_first_stage": False,
            "downsample_in_bottleneck": False,
        }


def image_defaults(situation: Situation) -> Defaults:
    """Return what "auto" means for convolutional networks on so many images."""
    if situation.kind == "pretrain":
        batch_size = next((size for size, least in ((256, 1_000), (64, 200)) if situation.rows >= least), 16)
        return Defaults(batch_size, 2e-3, 0.0, 400, 20, 400)
    hasty = situation.optimizer == "sgd"
    batch_size = 64 if situation.rows >= 2_000 else 32
    return Defaults(batch_size, 0.05 if hasty else 2e-3, 0.0, 400, 15, 150)
