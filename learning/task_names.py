"""The names of this release's tasks, where whoever only suggests a task can look without importing torch.

A line a task, in the order of `learning.tasks.TASKS`; a test compares the two.
"""

from __future__ import annotations

TASK_NAMES: tuple[str, ...] = (
    "masked-features",
    "contrastive-features",
    "tabular-classification",
    "tabular-regression",
    "masked-tokens",
    "contrastive-texts",
    "text-classification",
    "multi-label-text-classification",
    "text-regression",
    "token-classification",
    "next-token-prediction",
    "text-generation",
    "denoising",
    "translation",
    "contrastive-images",
    "masked-images",
    "image-classification",
    "multi-label-image-classification",
    "image-regression",
    "image-embedding",
    "object-detection",
    "contrastive-audio",
    "masked-audio",
    "audio-classification",
    "speaker-embedding",
    "speech-recognition",
)
