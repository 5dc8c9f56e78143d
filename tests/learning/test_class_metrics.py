"""What single-label classification says of its classes, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, precision_recall_fscore_support

from learning.tasks import task_named
from learning.tasks.classification import Classification, ClassificationState

TASKS = [f"{modality}-classification" for modality in ("tabular", "text", "image", "audio")]


def drawn(classes: int, rows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and what is right; the last of more than two classes is neither there nor ever predicted."""
    generator = np.random.default_rng(classes)
    wanted = generator.integers(0, classes - (classes > 2), rows)
    scores = generator.dirichlet(np.ones(classes), rows) + 0.5 * np.eye(classes)[wanted]
    scores[:, -1] *= classes == 2
    return scores / scores.sum(1, keepdims=True), wanted


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("labels", [("ill", "well"), ("a", "b", "c", "none")])
def test_each_class_has_its_own_numbers_and_their_mean(name: str, labels: tuple[str, ...]) -> None:
    task = task_named(name)
    assert isinstance(task, Classification)
    scores, wanted = drawn(len(labels))
    state = ClassificationState(target="label", labels=labels)
    found = task.metrics(torch.tensor(scores), {"target_B": torch.tensor(wanted)}, state)
    said, numbers = scores.argmax(1), range(len(labels))
    theirs = precision_recall_fscore_support(wanted, said, labels=numbers, zero_division=0)
    assert list(found["classes"]) == list(labels)
    for number, (label, one) in enumerate(found["classes"].items()):
        expected = dict(zip(("precision", "recall", "f1", "count"), (each[number] for each in theirs), strict=True))
        assert one == pytest.approx(expected), label
        assert isinstance(one["count"], int)
    assert found["macro_f1"] == pytest.approx(f1_score(wanted, said, labels=numbers, average="macro", zero_division=0))
    # What there was before means what it meant.
    assert found["f1"] == (found["classes"]["well"]["f1"] if len(labels) == 2 else pytest.approx(found["macro_f1"]))
