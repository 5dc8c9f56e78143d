"""Pretrain on recordings without labels: two views of a recording must be closer than those of any two recordings."""

from __future__ import annotations

from typing import ClassVar, Literal

import pyarrow as pa
import torch
from pydantic import Field
from torch import nn

from learning.config import Columns, Config
from learning.interfaces import Batch
from learning.modalities.audio import AudioState
from learning.spectrogram_augmentation import MASKS_APART, SPEECH_APART, SoundView, augment
from learning.tasks.contrastive_views import ContrastiveViews, ContrastiveViewsConfig, ProjectionHead
from learning.tasks.heads import statistics


class ContrastiveAudioConfig(ContrastiveViewsConfig):
    """How different two views are, and how they are compared."""

    augmentation: Literal["masks", "speech"] = Field(
        "speech",
        description="How a view differs from its recording: partly hidden and noisy, or also faster and slower, higher "
        "and lower, by which voices become alike.",
    )


class ContrastiveAudioState(Config):
    """How views are made, and the configuration."""

    view: SoundView
    config: ContrastiveAudioConfig


class ContrastiveAudio(ContrastiveViews):
    """Recognise a recording in another view of it; makes a base model."""

    name: ClassVar[str] = "contrastive-audio"
    modality: ClassVar[str] = "audio"
    Config: ClassVar[type[ContrastiveAudioConfig]] = ContrastiveAudioConfig
    State: ClassVar[type[ContrastiveAudioState]] = ContrastiveAudioState

    def fit(
        self, table: pa.Table, columns: Columns, config: ContrastiveAudioConfig, inputs: AudioState
    ) -> ContrastiveAudioState:
        """Choose how views are made."""
        view = {"masks": MASKS_APART, "speech": SPEECH_APART}[config.augmentation]
        return ContrastiveAudioState(view=view, config=config)

    def head(self, width: int, state: ContrastiveAudioState) -> nn.Module:
        """Return the projection of what classification looks at: mean and deviation over the positions."""
        return ProjectionHead(2 * width, state.config, statistics)

    def views(self, batch: Batch, state: ContrastiveAudioState) -> Batch:
        """Return two views of each recording."""
        recordings = {name: batch[name] for name in ("frame_SF", "length_B")}
        first, second = augment(recordings, state.view), augment(recordings, state.view)
        return {name: torch.cat([first[name], second[name]]) for name in recordings}
