"""A head that begins as a linear probe, over HTTP: from rows to a prediction, and what is refused."""

from __future__ import annotations

from typing import Any

import httpx
from support import problem, submit, succeeded, upload

ROWS = "\n".join(
    ["text,label,amount", *(f"{word} number {n},{word},{n}" for n in range(20) for word in ("card", "rate"))]
)


def body(rows: str, task: str = "text-classification", target: str = "label", **hyperparameters: Any) -> dict[str, Any]:
    return {
        "kind": "finetune", "task": task, "dataset": rows, "columns": {"target": target},
        "architecture": {"name": "bert", "layers": 1, "width": 32, "heads": 2},
        "hyperparameters": {"epochs": 8, "batch_size": 10, "head_initialization": "linear-probe", **hyperparameters},
        "split": {"validation": 0.0}, "output": {"model": "probed"},
    }  # fmt: skip


def test_a_model_that_began_as_a_probe_answers(running: httpx.Client) -> None:
    job = succeeded(running, submit(running, body(upload(running, ROWS)["id"], linear_probe_c=1.0)))
    assert job["resolved"]["hyperparameters"]["head_initialization"] == "linear-probe"
    answers = running.post("/models/probed/predict", json={"inputs": ["card number 3", "rate"]}).json()["outputs"]
    assert [answer["label"] for answer in answers] == ["card", "rate"]


def test_a_task_without_classes_and_wrong_values_are_named(running: httpx.Client) -> None:
    rows = upload(running, ROWS)["id"]
    refused = problem(running.post("/jobs", json=body(rows, "text-regression", "amount")), 422, "invalid_config")
    assert refused["param"] == "hyperparameters.head_initialization"
    for name, value in {"linear_probe_c": 0, "head_initialization": "probe"}.items():
        errors = problem(running.post("/jobs", json=body(rows, **{name: value})), 422, "invalid_request")["errors"]
        assert errors[0]["pointer"].endswith(f"/hyperparameters/{name}")
