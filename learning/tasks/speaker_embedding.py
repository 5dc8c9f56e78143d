"""Embed recordings so that those of one speaker are near each other, of speakers who were never heard before."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, cast

import pyarrow as pa
from pydantic import Field
from torch import Tensor, nn

from learning.config import Columns
from learning.interfaces import Batch, Network
from learning.modalities.audio import AudioState
from learning.spectrogram_augmentation import SoundView
from learning.tasks.heads import statistics
from learning.tasks.heard import HeardConfig, heard
from learning.tasks.subject_embedding import (
    SubjectEmbedding,
    SubjectEmbeddingConfig,
    SubjectEmbeddingState,
    SubjectHead,
)


class SpeakerEmbeddingConfig(SubjectEmbeddingConfig, HeardConfig):
    """How far apart speakers are to be, and how recordings are changed while they are learned from."""

    augmentation: Literal["none", "masks", "speech"] = Field(
        "masks",
        description="How recordings are changed in training: partly hidden and a little noisy, or also faster and "
        "slower, higher and lower, by which a voice may become another one's.",
    )


class SpeakerEmbeddingState(SubjectEmbeddingState):
    """The speakers, and how recordings are changed in training."""

    view: SoundView | None


class SpeakerHead(SubjectHead):
    """Embeds mean and deviation of the features over a recording's positions (x-vectors, Snyder et al. 2018)."""

    def __init__(self, width: int, embedding_size: int, subjects: int) -> None:
        super().__init__(2 * width, embedding_size, subjects)

    def pooled(self, features: Any) -> Tensor:
        """Return mean and deviation, (B, 2 D)."""
        return statistics(features)


class SpeakerEmbedding(SubjectEmbedding):
    """A vector of a recording, by which a speaker is identified and verified."""

    name: ClassVar[str] = "speaker-embedding"
    modality: ClassVar[str] = "audio"
    Config: ClassVar[type[SubjectEmbeddingConfig]] = SpeakerEmbeddingConfig
    State: ClassVar[type[SubjectEmbeddingState]] = SpeakerEmbeddingState

    def fit(
        self, table: pa.Table, columns: Columns, config: SubjectEmbeddingConfig, inputs: AudioState
    ) -> SpeakerEmbeddingState:
        """Collect the speakers; InvalidData for fewer than two, or for a column that names none."""
        view = cast("SpeakerEmbeddingConfig", config).view
        return SpeakerEmbeddingState(**dict(super().fit(table, columns, config, inputs)), view=view)

    def head(self, width: int, state: SubjectEmbeddingState) -> nn.Module:
        """Return a layer to the embedding, with a centre for each speaker."""
        return SpeakerHead(width, state.embedding_size, len(state.subjects))

    def loss(self, network: Network, batch: Batch, state: SubjectEmbeddingState) -> Tensor:
        """Return the softmax with a margin; in training of a view of each recording."""
        return super().loss(network, heard(batch, network, cast("SpeakerEmbeddingState", state).view), state)
