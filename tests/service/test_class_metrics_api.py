"""Metrics of each class, through the front door: those of a job are those of the answers that its model gives."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest
from sklearn.metrics import classification_report
from support import submit, succeeded, upload

WORDS = {"good": ["works", "pleases me"], "bad": ["fails", "annoys me"], "odd": ["hums", "glows"]}
TINY = {"name": "bert", "layers": 1, "width": 32, "heads": 2}


def numbers(labels: int, rows: int, seed: int) -> list[dict[str, Any]]:
    """Rows of which many are on the wrong side, so that some answers are wrong; the first label is the rarest."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(rows):
        place = int(generator.choice(labels, p=np.arange(1, labels + 1) / np.arange(1, labels + 1).sum()))
        found.append({"x": float(generator.normal(place, 0.8)), "y": float(generator.normal()), "label": f"c{place}"})
    return found


def texts(labels: int, rows: int, seed: int) -> list[dict[str, Any]]:
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(rows):
        label = list(WORDS)[generator.integers(labels)]
        shown = label if generator.random() < 0.8 else "good"
        found.append({"text": f"the card {generator.choice(WORDS[shown])}", "label": label})
    return found


def table(rows: list[dict[str, Any]]) -> str:
    return "\n".join([",".join(rows[0]), *(",".join(str(value) for value in row.values()) for row in rows)])


@pytest.mark.parametrize(("task", "labels"), [("tabular", 2), ("tabular", 3), ("text", 2)])
def test_classes_are_measured_as_the_model_answers(running: httpx.Client, task: str, labels: int) -> None:
    make = {"tabular": numbers, "text": texts}[task]
    held_out = make(labels, 60, 1)
    parts = {"train": make(labels, 120, 0), "test": held_out}
    given = {name: upload(running, table(rows), f"{name}.csv") for name, rows in parts.items()}
    model = f"{task}-{labels}"
    job = succeeded(running, submit(running, {
        "kind": "finetune", "task": f"{task}-classification", "columns": {"target": "label"},
        "dataset": {name: one["id"] for name, one in given.items()}, "hyperparameters": {"epochs": 5},
        "output": {"model": model}, **({"architecture": TINY} if task == "text" else {}),
    }))  # fmt: skip
    inputs = [{name: value for name, value in row.items() if name != "label"} for row in held_out]
    answers = running.post(f"/models/{model}/predict", json={"inputs": inputs}).json()
    said = [answer["label"] for answer in answers["outputs"]]
    theirs = classification_report([row["label"] for row in held_out], said, output_dict=True, zero_division=0)

    measured = job["result"]["metrics"]["test"]
    assert measured["macro_f1"] == pytest.approx(theirs["macro avg"]["f1-score"])
    assert set(measured["classes"]) == {row["label"] for row in held_out}
    for label, one in measured["classes"].items():
        expected = theirs[label]
        assert one["count"] == expected["support"]
        for name, other in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert one[name] == pytest.approx(expected[other]), (label, name)
    # A series to be plotted has the mean; the table is in the version and in each measurement.
    latest = next(iter(running.get(f"/jobs/{job['id']}").json()["metrics"]["latest"].values()))["test"]
    assert latest["macro_f1"] == measured["macro_f1"]
    assert "classes" not in latest
    assert running.get(f"/models/{model}/versions/1").json()["metrics"]["test"]["classes"] == measured["classes"]
