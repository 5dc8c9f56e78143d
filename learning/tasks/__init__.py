"""The tasks; a new one is a file here and a line in this table."""

from __future__ import annotations

from collections.abc import Iterable

from learning.capabilities import fits
from learning.errors import UnknownName, did_you_mean
from learning.interfaces import Architecture, Task
from learning.tasks.audio_classification import AudioClassification
from learning.tasks.contrastive_audio import ContrastiveAudio
from learning.tasks.contrastive_features import ContrastiveFeatures
from learning.tasks.contrastive_images import ContrastiveImages
from learning.tasks.contrastive_texts import ContrastiveTexts
from learning.tasks.denoising import Denoising
from learning.tasks.image_classification import ImageClassification
from learning.tasks.image_embedding import ImageEmbedding
from learning.tasks.image_regression import ImageRegression
from learning.tasks.masked_audio import MaskedAudio
from learning.tasks.masked_features import MaskedFeatures
from learning.tasks.masked_images import MaskedImages
from learning.tasks.masked_tokens import MaskedTokens
from learning.tasks.multi_label_image_classification import MultiLabelImageClassification
from learning.tasks.multi_label_text_classification import MultiLabelTextClassification
from learning.tasks.next_token_prediction import NextTokenPrediction
from learning.tasks.object_detection import ObjectDetection
from learning.tasks.speaker_embedding import SpeakerEmbedding
from learning.tasks.speech_recognition import SpeechRecognition
from learning.tasks.tabular_classification import TabularClassification
from learning.tasks.tabular_regression import TabularRegression
from learning.tasks.text_classification import TextClassification
from learning.tasks.text_generation import TextGeneration
from learning.tasks.text_regression import TextRegression
from learning.tasks.token_classification import TokenClassification
from learning.tasks.translation import Translation

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        MaskedFeatures(),
        ContrastiveFeatures(),
        TabularClassification(),
        TabularRegression(),
        MaskedTokens(),
        ContrastiveTexts(),
        TextClassification(),
        MultiLabelTextClassification(),
        TextRegression(),
        TokenClassification(),
        NextTokenPrediction(),
        TextGeneration(),
        Denoising(),
        Translation(),
        ContrastiveImages(),
        MaskedImages(),
        ImageClassification(),
        MultiLabelImageClassification(),
        ImageRegression(),
        ImageEmbedding(),
        ObjectDetection(),
        ContrastiveAudio(),
        MaskedAudio(),
        AudioClassification(),
        SpeakerEmbedding(),
        SpeechRecognition(),
    )
}


def default_pretraining(candidates: Iterable[str], architecture: Architecture | None) -> str:
    """Return the task of a pretrain job that names none: the first that the data suggest and an architecture allows."""
    known = [*(name for name in candidates if name in TASKS), *TASKS]
    pretraining = (TASKS[name] for name in known if TASKS[name].kind == "pretrain")
    return next(task.name for task in pretraining if architecture is None or fits(task, architecture))


def task_named(name: str) -> Task:
    """Return a task; UnknownName lists those there are."""
    if name not in TASKS:
        raise UnknownName(
            f'There is no task "{name}".{did_you_mean(name, TASKS)}',
            hint=f"Tasks: {', '.join(TASKS)}.",
            param="task",
        )
    return TASKS[name]
