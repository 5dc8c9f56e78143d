"""Convolutions over a spectrogram, then recurrent layers in both directions (DeepSpeech 2, arXiv 1512.02595).

What a recurrent layer says of a moment follows from all that is heard before and after it, in order. Between the
layers stands layer normalisation, not the paper's over the batch: it is the same however many rows there are.
S frames of all rows, D width, C channels, F bands.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from learning.architectures.image_backbone import initialise
from learning.architectures.packed_convolution import Strip, StripConvolution, silenced
from learning.architectures.packed_recurrence import Turns
from learning.config import Config, Defaults, Situation
from learning.interfaces import Backbone, Batch, PackedFeatures
from learning.modalities.audio import AudioState

# By size: channels, width, recurrent layers.
_SIZES = {"tiny": (8, 32, 1), "small": (16, 128, 2), "medium": (32, 256, 3), "large": (32, 512, 5)}
# Frames and bands that a convolution sees, and its strides over them.
_KERNEL = (5, 7)
_STRIDES = ((2, 2), (1, 2))
_TIME_STRIDE = 2


class DeepSpeechConfig(Config):
    """How wide and how deep."""

    size: Literal["tiny", "small", "medium", "large"] = Field(
        "small",
        description="8, 16, 32 or 32 channels, then 1, 2, 3 or 5 recurrent layers of width 32, 128, 256 or 512.",
    )
    layers: int | None = Field(None, ge=1, le=12, description="Recurrent layers, if not as many as the size has.")


class RecurrentLayer(nn.Module):
    """A GRU in each direction, the sum of both, and its norm; added to what was there where that is as wide."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.forth, self.back = nn.GRU(inputs, width), nn.GRU(inputs, width)
        self.norm = nn.LayerNorm(width)
        self.is_added = inputs == width

    def forward(self, features_SD: Tensor, turns: Turns) -> Tensor:
        """Return the layer's features, (S, width)."""
        found_SD: Tensor = self.norm(turns.forth(self.forth, features_SD) + turns.back(self.back, features_SD))
        return features_SD + found_SD if self.is_added else found_SD


class DeepSpeechBackbone(Backbone):
    """Two convolutions, then recurrent layers; a position is two frames."""

    def __init__(self, config: DeepSpeechConfig, state: AudioState) -> None:
        super().__init__()
        channels, self.width, layers = _SIZES[config.size]
        bands = state.mels
        for _, stride in _STRIDES:
            bands = -(-bands // stride)
        self.convolutions = nn.ModuleList(
            StripConvolution(inputs, channels, stride, _KERNEL)
            for inputs, stride in zip((1, channels), _STRIDES, strict=True)
        )
        widths = [channels * bands] + [self.width] * ((config.layers or layers) - 1)
        self.layers = nn.ModuleList(RecurrentLayer(inputs, self.width) for inputs in widths)
        self.dropout = nn.Dropout(0.0)
        self.apply(initialise)

    def forward(self, batch: Batch) -> PackedFeatures:
        """Return features_SD of frame_SF, a position for every two frames or what is left of them."""
        features_SD, length_B = self._convolved(batch["frame_SF"], batch["length_B"])
        turns = Turns.of(length_B, features_SD.device)
        # A sum over a whole recording is not for bf16, and a GRU has no such arithmetic on every processor.
        with torch.autocast(features_SD.device.type, enabled=False):
            features_SD = features_SD.float()
            for layer in self.layers:
                features_SD = layer(self.dropout(features_SD), turns)
            return PackedFeatures(self.dropout(features_SD), length_B)

    def _convolved(self, frame_SF: Tensor, length_B: Tensor) -> tuple[Tensor, Tensor]:
        strip = Strip.of(length_B, _TIME_STRIDE, _KERNEL[0] // 2)
        values_1CLF = strip.laid_out(frame_SF)
        for convolution, (stride, _) in zip(self.convolutions, _STRIDES, strict=True):
            strip = strip.halved(stride)
            values_1CLF = silenced(convolution(values_1CLF), strip)
        found_LE = values_1CLF[0].transpose(0, 1).flatten(1)
        return strip.picked(found_LE), strip.length_B


class DeepSpeech:
    """Convolutions over a spectrogram, then recurrent layers in both directions."""

    name: ClassVar[str] = "deepspeech"
    modality: ClassVar[str] = "audio"
    stride: ClassVar[int] = _TIME_STRIDE
    Config: ClassVar[type[DeepSpeechConfig]] = DeepSpeechConfig

    def build(self, config: DeepSpeechConfig, state: AudioState) -> DeepSpeechBackbone:
        """Return a network for recordings encoded under `state`."""
        return DeepSpeechBackbone(config, state)

    def defaults(self, situation: Situation) -> Defaults:
        """Return what recordings need; transcripts want more steps than classes."""
        if situation.kind == "pretrain":
            return Defaults(64 if situation.rows >= 200 else 16, 1e-3, 0.0, 600, 20, 400)
        return Defaults(32 if situation.rows >= 200 else 16, 2e-3, 0.1, 1_000, 15, 150)

    def foreign_config(self, config: DeepSpeechConfig, state: AudioState) -> dict[str, Any]:
        """Return nothing: Transformers has no such class."""
        return {}
