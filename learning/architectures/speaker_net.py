"""Dilated convolutions over time, then one vector of a recording by attentive statistics: who speaks, not what is said.

Blocks of convolutions whose channels see more and more of what is around (Res2Net), weighed by what the whole
recording is like (squeeze and excitation), are put together and pooled (ECAPA-TDNN, Desplanques et al. 2020, arXiv
2005.07143): each channel's mean and deviation over the frames that matter for it (Okabe et al. 2018, arXiv 1803.10963).
Behind the pooling stands layer normalisation, not the paper's over the batch, which may be one recording.
S frames of all rows, L frames of the strip, C channels, D width.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from learning.architectures.packed_convolution import Strip
from learning.config import Config, Defaults, Situation
from learning.interfaces import Backbone, Batch, PackedFeatures
from learning.modalities.audio import AudioState

# By size: channels, parts of a block's channels, width of what a recording becomes.
_SIZES = {"tiny": (32, 4, 32), "small": (128, 8, 128), "medium": (256, 8, 192), "large": (512, 8, 192)}
# Frames that the first convolution sees, and those between what a block's see.
_FIRST_KERNEL = 5
_DILATIONS = (2, 3, 4)
_LEAST_VARIANCE = 1e-4


class SpeakerNetConfig(Config):
    """How wide the network is."""

    size: Literal["tiny", "small", "medium", "large"] = Field(
        "small",
        description="32, 128, 256 or 512 channels (the last is the paper's); a recording becomes 32, 128, 192 or 192 "
        "numbers.",
    )


class _Rows(NamedTuple):
    """Where rows lie, which row each of their frames and each frame of the strip is of, and where there is none."""

    strip: Strip
    row_S: Tensor
    row_L: Tensor
    inside_L: Tensor

    @classmethod
    def of(cls, strip: Strip, like: Tensor) -> _Rows:
        length_B = strip.length_B
        row_S = torch.repeat_interleave(length_B, output_size=int(length_B.sum()))
        row_L = torch.zeros(strip.total, dtype=torch.long).index_copy(0, strip.places(), row_S)
        return cls(strip, row_S.to(like.device), row_L.to(like.device), strip.inside_L.to(like.device, like.dtype))

    def features(self, values_1CL: Tensor) -> PackedFeatures:
        """Return the rows' frames."""
        return PackedFeatures(self.strip.picked(values_1CL[0].T), self.strip.length_B)


class TimeConvolution(nn.Module):
    """A convolution over time, a ReLU and batch normalisation, silent between the rows."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(inputs, outputs, kernel, padding=dilation * (kernel // 2), dilation=dilation)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, values_1CL: Tensor, rows: _Rows) -> Tensor:
        """Return the outputs, (1, outputs, L)."""
        outputs_1CL: Tensor = self.norm(self.convolution(values_1CL).relu_())
        return outputs_1CL * rows.inside_L.to(outputs_1CL.dtype)


class SpeakerBlock(nn.Module):
    """Convolutions of parts of the channels, each of which sees what the one before found; added to the input."""

    def __init__(self, channels: int, parts: int, dilation: int) -> None:
        super().__init__()
        self.first, self.last = TimeConvolution(channels, channels), TimeConvolution(channels, channels)
        part = channels // parts
        self.parts = nn.ModuleList(TimeConvolution(part, part, 3, dilation) for _ in range(parts - 1))
        self.squeeze, self.excite = nn.Linear(channels, channels // 4), nn.Linear(channels // 4, channels)

    def forward(self, values_1CL: Tensor, rows: _Rows) -> Tensor:
        """Return the block's outputs, (1, C, L)."""
        first, *others = self.first(values_1CL, rows).chunk(len(self.parts) + 1, 1)
        found = [first]
        for number, (convolution, part_1PL) in enumerate(zip(self.parts, others, strict=True)):
            found.append(convolution(part_1PL if number == 0 else part_1PL + found[-1], rows))
        inner_1CL = self.last(torch.cat(found, 1), rows)
        mean_BC = rows.features(inner_1CL).pooled().to(inner_1CL.dtype)
        gate_BC = self.excite(self.squeeze(mean_BC).relu()).sigmoid()
        gated_1CL: Tensor = values_1CL + inner_1CL * gate_BC[rows.row_L].T
        return gated_1CL


class AttentiveStatistics(nn.Module):
    """Mean and deviation of each channel over a row's frames, by weights that follow from frame and recording."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(3 * channels, channels // 4), nn.Linear(channels // 4, channels)

    def forward(self, features: PackedFeatures, row_S: Tensor) -> Tensor:
        """Return the statistics, (B, 2 C)."""
        frame_SC, rows = features.features_SD.float(), len(features.length_B)
        usual_BE = weighed(frame_SC, torch.ones_like(frame_SC), row_S, rows)
        around_SG = torch.cat([frame_SC, usual_BE[row_S]], 1)
        score_SC = self.outer(torch.tanh(self.inner(around_SG))).float()
        # Less the greatest, so that no exponential is endless.
        most_BC = score_SC.new_full((rows, score_SC.shape[1]), -torch.inf)
        most_BC = most_BC.scatter_reduce(0, row_S.unsqueeze(1).expand_as(score_SC), score_SC.detach(), "amax")
        return weighed(frame_SC, (score_SC - most_BC[row_S]).exp(), row_S, rows)


def weighed(frame_SC: Tensor, weight_SC: Tensor, row_S: Tensor, rows: int) -> Tensor:
    """Return mean and deviation of each channel over a row's frames, which have such weights, (B, 2 C)."""
    sums_BE = torch.zeros(rows, 3 * frame_SC.shape[1], device=frame_SC.device).index_add(
        0, row_S, torch.cat([weight_SC, weight_SC * frame_SC, weight_SC * frame_SC.square()], 1)
    )
    total_BC, sum_BC, square_BC = sums_BE.chunk(3, 1)
    mean_BC = sum_BC / total_BC
    # The slope of a root is endless at 0, where all frames are alike.
    variance_BC = (square_BC / total_BC - mean_BC.square()).clamp_min(_LEAST_VARIANCE)
    return torch.cat([mean_BC, variance_BC.sqrt()], 1)


class SpeakerNetBackbone(Backbone):
    """A convolution, three blocks and attentive statistics; a recording is one position."""

    def __init__(self, config: SpeakerNetConfig, state: AudioState) -> None:
        super().__init__()
        channels, parts, self.width = _SIZES[config.size]
        self.first = TimeConvolution(state.mels, channels, _FIRST_KERNEL)
        self.blocks = nn.ModuleList(SpeakerBlock(channels, parts, dilation) for dilation in _DILATIONS)
        together = len(_DILATIONS) * channels
        self.together = nn.Linear(together, together)
        self.pool = AttentiveStatistics(together)
        self.pool_norm = nn.LayerNorm(2 * together)
        self.dropout = nn.Dropout(0.0)
        self.project = nn.Linear(2 * together, self.width)
        self.norm = nn.LayerNorm(self.width)

    def forward(self, batch: Batch) -> PackedFeatures:
        """Return features_BD of frame_SF, one position for each recording."""
        strip = Strip.of(batch["length_B"], 1, max(_DILATIONS))
        frame_1FL = strip.laid_out(batch["frame_SF"])[0].transpose(1, 2).contiguous()
        rows = _Rows.of(strip, frame_1FL)
        values_1CL = self.first(frame_1FL, rows)
        found = [values_1CL := block(values_1CL, rows) for block in self.blocks]
        features = rows.features(torch.cat(found, 1))
        features = features._replace(features_SD=functional.relu(self.together(features.features_SD)))
        pooled_BE = self.pool_norm(self.pool(features, rows.row_S))
        return PackedFeatures(self.norm(self.project(self.dropout(pooled_BE))), torch.ones_like(strip.length_B))


class SpeakerNet:
    """Dilated convolutions over time, then one vector of a recording by attentive statistics."""

    name: ClassVar[str] = "speaker-net"
    modality: ClassVar[str] = "audio"
    Config: ClassVar[type[SpeakerNetConfig]] = SpeakerNetConfig

    def build(self, config: SpeakerNetConfig, state: AudioState) -> SpeakerNetBackbone:
        """Return a network for recordings encoded under `state`."""
        return SpeakerNetBackbone(config, state)

    def defaults(self, situation: Situation) -> Defaults:
        """Return what recordings need."""
        if situation.kind == "pretrain":
            return Defaults(64 if situation.rows >= 200 else 16, 1e-3, 0.0, 600, 20, 400)
        return Defaults(32 if situation.rows >= 200 else 16, 1e-3, 0.1, 500, 15, 150)

    def foreign_config(self, config: SpeakerNetConfig, state: AudioState) -> dict[str, Any]:
        """Return nothing: Transformers has no such class."""
        return {}
