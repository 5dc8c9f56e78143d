"""Vectors of texts by what they have in common: with another reading of them, or with the row behind."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
from runs import run, saved, spec_of, write

from learning.prediction import Predictor

# Each kind of rows, of which three stand behind each other, has words that no text has in common with another.
KINDS = (("red", "blue", "green"), ("one", "two", "three"), ("cat", "dog", "cow"), ("tea", "milk", "wine"))
TABLE = pa.table({"text": [word for _ in range(30) for kind in KINDS for word in kind]})


def likeness(directory: Path, positives: str) -> tuple[float, float]:
    """Return how much words of one kind are alike after pretraining, and words of two."""
    spec = spec_of(
        "contrastive-texts", "pretrain", columns={}, split={"validation": 0.0},
        task_config={"positives": positives, "mask_share": 0.05, "contrast_weight": 3.0},
        hyperparameters={"epochs": 40, "batch_size": 36, "learning_rate": 1e-3},
    )  # fmt: skip
    result = run(spec, {"train": write(TABLE, directory / "t")}, directory)
    assert result.metrics["train"]["rows"] == TABLE.num_rows
    predictor = Predictor(saved(result, directory / "model"))
    words = [word for kind in KINDS for word in kind]
    answers = predictor.predict(words, predictor.options({})).outputs
    vectors = np.array([answer["embedding"] for answer in answers])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = vectors @ vectors.T
    same = [(a, b) for a, b in product(range(len(words)), repeat=2) if a != b and a // 3 == b // 3]
    other = [(a, b) for a, b in product(range(len(words)), repeat=2) if a // 3 != b // 3]
    return tuple(float(np.mean([alike[pair] for pair in pairs])) for pairs in (same, other))


def test_rows_behind_each_other_become_alike(tmp_path: Path) -> None:
    same, other = likeness(tmp_path, "next-rows")
    assert same > other + 0.2


def test_readings_know_nothing_of_what_is_behind(tmp_path: Path) -> None:
    same, other = likeness(tmp_path, "readings")
    assert abs(same - other) < 0.1
