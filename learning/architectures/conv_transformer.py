"""Convolutions over a spectrogram, then attention over what they found: the convolutional transformer of speech.

Convolutions say what is heard around each moment and make frames fewer, so that attention compares moments that are
worth comparing (Mohamed et al. 2019, arXiv 1904.11660). S frames of all rows, D width, C channels, F bands.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from learning.architectures.image_backbone import initialise
from learning.architectures.packed_attention import Groups, attend
from learning.architectures.packed_convolution import Strip, StripBlock, StripConvolution, silenced
from learning.config import Config, Defaults, Situation
from learning.interfaces import Backbone, Batch, PackedFeatures
from learning.modalities.audio import AudioState

# By size: channels of each stage, width, attention layers, heads.
_SIZES = {
    "tiny": ((8, 16, 16), 32, 1, 2),
    "small": ((24, 48, 96), 128, 1, 4),
    "medium": ((32, 64, 128), 192, 3, 6),
}
# Strides in time and over the bands of the stem and of each stage.
_STRIDES = ((2, 2), (1, 1), (2, 2), (1, 2))
_TIME_STRIDE = 4


class ConvTransformerConfig(Config):
    """How many channels, and how many layers of attention."""

    size: Literal["tiny", "small", "medium"] = Field(
        "small",
        description="Up to 16, 96 or 128 channels, then 1, 1 or 3 layers of attention of width 32, 128 or 192.",
    )
    layers: int | None = Field(
        None, ge=0, le=48, description="Layers of attention, if not as many as the size has; 0: convolutions alone."
    )


class AttentionLayer(nn.Module):
    """Attention over a row's positions and two linear layers, each after its norm and added to what was there."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project_in, self.project_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed_in, self.feed_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(0.0)
        self.heads = heads

    def forward(self, features_SD: Tensor, groups: Groups) -> Tensor:
        """Return the layer's features, (S, D)."""
        query_SD, key_SD, value_SD = self.project_in(self.attention_norm(features_SD)).chunk(3, 1)
        found_SD = attend(query_SD, key_SD, value_SD, groups, self.heads)
        features_SD = features_SD + self.dropout(self.project_out(found_SD))
        inner_SH = functional.gelu(self.feed_in(self.feed_norm(features_SD)))
        fed_SD: Tensor = self.dropout(self.feed_out(inner_SH))
        return features_SD + fed_SD


class ConvTransformerBackbone(Backbone):
    """A stem and three stages of convolutions, then attention; a position is four frames."""

    def __init__(self, config: ConvTransformerConfig, state: AudioState) -> None:
        super().__init__()
        channels, self.width, layers, heads = _SIZES[config.size]
        bands = state.mels
        for _, stride in _STRIDES:
            bands = -(-bands // stride)
        self.stem = StripConvolution(1, channels[0], _STRIDES[0])
        self.stages = nn.ModuleList(
            StripBlock(before, after, stride)
            for before, after, stride in zip((channels[0], *channels[:-1]), channels, _STRIDES[1:], strict=True)
        )
        self.project = nn.Linear(channels[-1] * bands, self.width)
        self.project_norm = nn.LayerNorm(self.width)
        layers = layers if config.layers is None else config.layers
        self.layers = nn.ModuleList(AttentionLayer(self.width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(self.width)
        self.dropout = nn.Dropout(0.0)
        self.apply(initialise)

    def forward(self, batch: Batch) -> PackedFeatures:
        """Return features_SD of frame_SF, a position for every four frames or what is left of them."""
        features_SD, length_B = self._convolved(batch["frame_SF"], batch["length_B"])
        groups = Groups.of(length_B)
        order_S = None if groups.order_S is None else groups.order_S.to(features_SD.device)
        if order_S is not None:
            features_SD = features_SD[order_S]
        place_S = groups.positions().to(features_SD.device)
        features_SD = features_SD + waves(place_S, self.width) if self.layers else features_SD
        for layer in self.layers:
            features_SD = layer(features_SD, groups)
        features_SD = self.norm(features_SD)
        return PackedFeatures(features_SD if order_S is None else features_SD[order_S.argsort()], length_B)

    def _convolved(self, frame_SF: Tensor, length_B: Tensor) -> tuple[Tensor, Tensor]:
        strip = Strip.of(length_B, _TIME_STRIDE)
        values_1CLF, strip = self.stem(strip.laid_out(frame_SF)), strip.halved(_STRIDES[0][0])
        values_1CLF = silenced(values_1CLF, strip)
        for stage in self.stages:
            values_1CLF, strip = stage(values_1CLF, strip)
        found_LD = self.project(values_1CLF[0].transpose(0, 1).flatten(1))
        found_SD = self.project_norm(strip.picked(found_LD))
        return self.dropout(found_SD), strip.length_B


def waves(place_S: Tensor, width: int) -> Tensor:
    """Return sines and cosines of a position's number, (S, D) (Vaswani et al. 2017, arXiv 1706.03762)."""
    rate_H = torch.exp(torch.arange(0, width, 2, device=place_S.device) * (-9.21034 / width))
    angle_SH = place_S.unsqueeze(1) * rate_H
    return torch.cat([angle_SH.sin(), angle_SH.cos()], 1)


class ConvTransformer:
    """Convolutions over a spectrogram, then attention over what they found."""

    name: ClassVar[str] = "conv-transformer"
    modality: ClassVar[str] = "audio"
    stride: ClassVar[int] = _TIME_STRIDE
    Config: ClassVar[type[ConvTransformerConfig]] = ConvTransformerConfig

    def build(self, config: ConvTransformerConfig, state: AudioState) -> ConvTransformerBackbone:
        """Return a network for recordings encoded under `state`."""
        return ConvTransformerBackbone(config, state)

    def defaults(self, situation: Situation) -> Defaults:
        """Return what recordings need."""
        if situation.kind == "pretrain":
            return Defaults(64 if situation.rows >= 200 else 16, 1e-3, 0.0, 600, 20, 400)
        return Defaults(32 if situation.rows >= 200 else 16, 1e-3, 0.1, 500, 15, 150)

    def foreign_config(self, config: ConvTransformerConfig, state: AudioState) -> dict[str, Any]:
        """Return nothing: Transformers has no such class."""
        return {}
