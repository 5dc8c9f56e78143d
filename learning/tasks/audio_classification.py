"""Predict one of two or more classes of a recording: the word that is spoken, who speaks, what it is that sounds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, cast

import pyarrow as pa
from pydantic import Field
from torch import Tensor, nn

from learning.capabilities import Judged, Picture
from learning.config import Columns
from learning.interfaces import Batch, Network
from learning.modalities.audio import AudioState
from learning.spectrogram_augmentation import SoundView
from learning.tasks import mistakes
from learning.tasks.classification import Classification, ClassificationConfig, ClassificationState
from learning.tasks.heads import StatisticsLinear
from learning.tasks.heard import HeardConfig, heard


class AudioClassificationConfig(ClassificationConfig, HeardConfig):
    """What is asked of the classes, and how recordings are changed while they are learned from."""

    label_smoothing: float = Field(0.1, ge=0, lt=1, description="Share of the target spread over all classes.")


class AudioClassificationState(ClassificationState):
    """The classes, and how recordings are changed in training."""

    view: SoundView | None


class AudioClassification(Classification):
    """One class of a recording; two classes are one sigmoid output, more are a softmax."""

    name: ClassVar[str] = "audio-classification"
    modality: ClassVar[str] = "audio"
    Config: ClassVar[type[ClassificationConfig]] = AudioClassificationConfig
    State: ClassVar[type[ClassificationState]] = AudioClassificationState

    def fit(
        self, table: pa.Table, columns: Columns, config: ClassificationConfig, inputs: AudioState
    ) -> AudioClassificationState:
        """Collect the classes; InvalidData for fewer than two, or for a column that is no label."""
        view = cast("AudioClassificationConfig", config).view
        return AudioClassificationState(**dict(super().fit(table, columns, config, inputs)), view=view)

    def head(self, width: int, state: ClassificationState) -> nn.Module:
        """Return a linear layer on mean and deviation of the features."""
        return StatisticsLinear(width, self.outputs(state))

    def loss(self, network: Network, batch: Batch, state: ClassificationState) -> Tensor:
        """Return binary or categorical cross-entropy; in training of a view of each recording."""
        return super().loss(network, heard(batch, network, cast("AudioClassificationState", state).view), state)

    def pictures(self, judged: Judged, inputs: AudioState, state: ClassificationState) -> Iterator[Picture]:
        """Yield those of every classification, and the worst mistakes."""
        yield from super().pictures(judged, inputs, state)
        target_N = judged.targets["target_B"].long()
        wrong = mistakes.of_classes(judged.predictions, target_N, state.labels, judged.part, mistakes.MOST_SOUNDS)
        yield from mistakes.of_sounds(wrong, judged.rows, inputs)
