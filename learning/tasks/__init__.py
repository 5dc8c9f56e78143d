"""The tasks; a new one is a file here and a line in this table."""

from __future__ import annotations

from learning.errors import UnknownName, did_you_mean
from learning.interfaces import Task
from learning.tasks.contrastive_features import ContrastiveFeatures
from learning.tasks.masked_features import MaskedFeatures
from learning.tasks.tabular_classification import TabularClassification
from learning.tasks.tabular_regression import TabularRegression

TASKS: dict[str, Task] = {
    task.name: task for task in (MaskedFeatures(), ContrastiveFeatures(), TabularClassification(), TabularRegression())
}


def task_named(name: str) -> Task:
    """Return a task; UnknownName lists those there are."""
    if name not in TASKS:
        raise UnknownName(
            f'There is no task "{name}".{did_you_mean(name, TASKS)}',
            hint=f"Tasks: {', '.join(TASKS)}.",
            param="task",
        )
    return TASKS[name]
