"""The tasks; a new one is a file here and a line in this table."""

from __future__ import annotations

from collections.abc import Iterable

from learning.errors import UnknownName, did_you_mean
from learning.interfaces import Task
from learning.tasks.contrastive_features import ContrastiveFeatures
from learning.tasks.contrastive_images import ContrastiveImages
from learning.tasks.image_classification import ImageClassification
from learning.tasks.image_regression import ImageRegression
from learning.tasks.masked_features import MaskedFeatures
from learning.tasks.masked_tokens import MaskedTokens
from learning.tasks.tabular_classification import TabularClassification
from learning.tasks.tabular_regression import TabularRegression
from learning.tasks.text_classification import TextClassification
from learning.tasks.token_classification import TokenClassification

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        MaskedFeatures(),
        ContrastiveFeatures(),
        TabularClassification(),
        TabularRegression(),
        MaskedTokens(),
        TextClassification(),
        TokenClassification(),
        ContrastiveImages(),
        ImageClassification(),
        ImageRegression(),
    )
}


def default_pretraining(candidates: Iterable[str], modality: str | None) -> str:
    """Return the task of a pretrain job that names none: the first that the data suggest and a base model allows."""
    known = [*(name for name in candidates if name in TASKS), *TASKS]
    fits = (TASKS[name] for name in known if TASKS[name].kind == "pretrain")
    return next(task.name for task in fits if modality in (None, task.modality))


def task_named(name: str) -> Task:
    """Return a task; UnknownName lists those there are."""
    if name not in TASKS:
        raise UnknownName(
            f'There is no task "{name}".{did_you_mean(name, TASKS)}',
            hint=f"Tasks: {', '.join(TASKS)}.",
            param="task",
        )
    return TASKS[name]
