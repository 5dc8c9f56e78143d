"""A dry run says everything that is wrong at once, or what a job would be and take, and writes nothing."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from support import classify, submit, succeeded, upload


def dry(api: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    before = api.get("/jobs", params={"limit": 1}).json()["first_id"]
    answer = api.post("/jobs", params={"dry_run": "true"}, json=body)
    assert answer.status_code == 200, answer.text
    assert api.get("/jobs", params={"limit": 1}).json()["first_id"] == before
    found: dict[str, Any] = answer.json()
    return found


def test_what_a_job_would_be(running: httpx.Client, rows: str) -> None:
    body = classify(rows, hyperparameters={}, output={"model": "foreseen"})
    found = dry(running, body)
    assert (found["valid"], found["errors"]) == (True, [])
    job = succeeded(running, submit(running, body))
    assert found["steps"] == job["progress"]["total_steps"]
    assert found["resolved"]["hyperparameters"] == job["resolved"]["hyperparameters"]
    assert 0 < found["seconds"]["low"] < found["seconds"]["high"]
    assert 100e6 < found["memory_bytes"]["low"] < found["memory_bytes"]["high"]


def test_everything_that_is_wrong(running: httpx.Client, rows: str) -> None:
    """Of form and of meaning, in one answer, each with its place."""
    body = classify(
        rows,
        task="tabular-clasification",
        columns={"target": "diagnosys", "ignore": ["nothing"]},
        hyperparameters={"epochs": 0, "lr": 0.1},
        priority=1000,
        base_model="no-such-model",
        depends_on=["job_none"],
        compare=True,
    )
    found = dry(running, body)
    assert not found["valid"]
    assert {error["pointer"] for error in found["errors"]} == {
        "/hyperparameters/epochs",
        "/hyperparameters/lr",
        "/priority",
        "/task",
        "/columns/target",
        "/columns/ignore",
        "/base_model",
        "/depends_on",
    }
    assert all(error["message"] and error["code"] for error in found["errors"])
    assert "diagnosis" in next(e["message"] for e in found["errors"] if e["pointer"] == "/columns/target")


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"dataset": "ds_none"}, "/dataset"),
        ({"architecture": {"name": "mlp", "layers": 3}}, "/architecture/layers"),
        ({"kind": "pretrain"}, "/task"),
        ({"dataset": None}, "/dataset"),
    ],
)
def test_one_thing_wrong(running: httpx.Client, rows: str, change: dict[str, Any], pointer: str) -> None:
    found = dry(running, {**classify(rows), **change})
    assert pointer in [error["pointer"] for error in found["errors"]], found


def test_what_only_the_rows_tell(running: httpx.Client) -> None:
    """A target whose rows cannot be learned from passes every check of the request; preparing finds it."""
    lines = "a,label\n" + "".join(f"{number},{'x' if number else 'y'}\n" for number in range(150))
    dataset = upload(running, lines)["id"]
    body = classify(dataset, columns={"target": "label"}, split={"validation": 0.2, "column": "a"})
    found = dry(running, body)
    assert not found["valid"]
    assert found["errors"][0]["pointer"].startswith("/split")


def test_a_base_model_that_is_not_trained_yet(running: httpx.Client, rows: str) -> None:
    pretrain = submit(running, {"kind": "pretrain", "dataset": rows, "hyperparameters": {"epochs": 1000}})
    running.post(f"/jobs/{pretrain}/pause")
    found = dry(running, classify(rows, base_model=pretrain))
    assert (found["valid"], found["steps"]) == (True, None)
    assert "not trained yet" in found["warnings"][0]
    running.post(f"/jobs/{pretrain}/cancel")


def test_a_large_table_is_sampled(running: httpx.Client) -> None:
    lines = "a,b,label\n" + "".join(f"{n},{n % 17},{'xy'[n % 2]}\n" for n in range(20_000))
    dataset = upload(running, lines)["id"]
    body = classify(dataset, columns={"target": "label"}, output={"model": "large"})
    found = dry(running, body)
    assert "sample" in found["warnings"][0]
    job_id = submit(running, body)
    job = succeeded(running, job_id)
    assert found["steps"] == job["progress"]["total_steps"]
