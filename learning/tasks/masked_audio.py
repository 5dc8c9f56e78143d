"""Pretrain on recordings without labels: stretches of time are hidden, the network says what was to be heard there.

Masked acoustic modelling (Mockingjay, Liu et al. 2019, arXiv 1910.12638): by L1 on the frames of a spectrogram, at
every position, so that what is learned is about moments, as transcripts need it, and not about recordings as wholes.
S frames of all rows, H of them hidden, F mel bands, D width.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, cast

import pyarrow as pa
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from learning.config import Columns, Config
from learning.interfaces import Batch, Network, PackedFeatures
from learning.joined_recordings import neighbours, summed
from learning.modalities.audio import AudioState
from learning.spectrogram_augmentation import SoundView, augment
from learning.tasks.pretraining import Pretraining

# A hidden stretch is this share of the mean shorter or longer, either way.
_SPREAD = 0.4
# Frames that a position tells apart; where it has more, some are foretold alike.
_PHASES = 4
# What is to be foretold is not hidden itself, but at another speed and pitch.
_MOVED = SoundView(speed=0.15, pitch=0.04, tilt=0.3)


class MaskedAudioConfig(Config):
    """How much is hidden, and of what."""

    mask_share: float = Field(0.4, gt=0, lt=0.95, description="Share of the time hidden in each step, drawn anew.")
    span_ms: float = Field(100.0, ge=20, le=2_000, description="Mean length of a hidden stretch.")
    joined: int = Field(
        4,
        ge=1,
        le=32,
        description="Recordings that are put one after another, up to so many at random, so that short ones have "
        "something around them.",
    )
    joined_seconds: float = Field(5.0, ge=0, le=60, description="Recordings are only joined up to this length.")
    augmentation: Literal["none", "speech"] = Field(
        "speech", description="Whether recordings are also faster and slower, higher and lower."
    )


class MaskedAudioState(Config):
    """The bands, what a frame of a recording is in seconds, and the configuration."""

    mels: int
    frame_seconds: float
    config: MaskedAudioConfig


class FrameHead(nn.Module):
    """A hidden layer, then the frames of each position."""

    def __init__(self, width: int, bands: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.frames = nn.Linear(width, _PHASES * bands)

    def forward(self, features_SD: Tensor) -> Tensor:
        """Return the frames that positions stand for, (S, phases, F)."""
        told_SE: Tensor = self.frames(functional.gelu(self.hidden(features_SD)))
        return told_SE.view(len(told_SE), _PHASES, told_SE.shape[1] // _PHASES)


class MaskedAudio(Pretraining):
    """Restore hidden stretches of a recording; makes a base model."""

    name: ClassVar[str] = "masked-audio"
    modality: ClassVar[str] = "audio"
    by_time: ClassVar[bool] = True
    Config: ClassVar[type[MaskedAudioConfig]] = MaskedAudioConfig
    State: ClassVar[type[MaskedAudioState]] = MaskedAudioState

    def fit(self, table: pa.Table, columns: Columns, config: MaskedAudioConfig, inputs: AudioState) -> MaskedAudioState:
        """Remember what frames are."""
        return MaskedAudioState(mels=inputs.mels, frame_seconds=inputs.frame_seconds, config=config)

    def head(self, width: int, state: MaskedAudioState) -> nn.Module:
        """Return the head that says what the frames of a position were."""
        return FrameHead(width, state.mels)

    def loss(self, network: Network, batch: Batch, state: MaskedAudioState) -> Tensor:
        """Return the mean absolute error in the values of hidden frames."""
        config = state.config
        count_J = neighbours(batch["length_B"], config.joined, config.joined_seconds / state.frame_seconds)
        whole = {"frame_SF": batch["frame_SF"], "length_B": summed(batch["length_B"], count_J)}
        if config.augmentation == "speech":
            whole = augment(whole, _MOVED)
        frame_SF, length_B = whole["frame_SF"], whole["length_B"]
        span = config.span_ms / 1000 / state.frame_seconds
        place_H = hidden(length_B, config.mask_share, span).nonzero().squeeze(1)
        shown_SF = frame_SF.index_fill(0, place_H.to(frame_SF.device), 0.0)
        features = cast("PackedFeatures", network.backbone({"frame_SF": shown_SF, "length_B": length_B}))
        position_H, phase_H = (one.to(frame_SF.device) for one in positions(place_H, length_B, features.length_B))
        told_HF = network.head(features.features_SD[position_H])[torch.arange(len(place_H)), phase_H]
        error_HF: Tensor = (told_HF.float() - frame_SF[place_H.to(frame_SF.device)]).abs()
        return error_HF.sum() / max(1, error_HF.numel())


def hidden(length_B: Tensor, share: float, span: float) -> Tensor:
    """Return hidden_S: stretches within rows, each about `span` frames long, which cover this share of the time."""
    total = int(length_B.sum())
    end_S = torch.repeat_interleave(length_B.cumsum(0), length_B, output_size=total)
    # As many begin as leave the others uncovered, though some overlap.
    first_H = (torch.rand(total) < -math.log1p(-share) / span).nonzero().squeeze(1)
    long_H = torch.empty(len(first_H)).uniform_((1 - _SPREAD) * span, (1 + _SPREAD) * span).round().long().clamp_min(1)
    behind_H = torch.minimum(first_H + long_H, end_S[first_H])
    one_H = torch.ones(len(first_H), dtype=torch.int64)
    change_S = torch.zeros(total + 1, dtype=torch.int64)
    change_S = change_S.index_add(0, first_H, one_H).index_add(0, behind_H, -one_H)
    return change_S.cumsum(0)[:total] > 0


def positions(place_H: Tensor, length_B: Tensor, position_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positions that frames belong to, and which of a position's frames they are."""
    # The stride that a network has: by the shortest rows alone it might seem a smaller one.
    stride = int(torch.div(length_B + position_B - 1, position_B, rounding_mode="floor").max())
    row_H = torch.searchsorted(length_B.cumsum(0), place_H, right=True)
    offset_H = place_H - (length_B.cumsum(0) - length_B)[row_H]
    begin_B = position_B.cumsum(0) - position_B
    return begin_B[row_H] + offset_H // stride, offset_H % stride * _PHASES // stride
