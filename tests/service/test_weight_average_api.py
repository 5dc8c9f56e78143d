"""A moving average of the weights over HTTP: what is registered, and what is promoted from a step's checkpoint."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from support import classify, problem, submit, succeeded


def body(rows: str, **hyperparameters: Any) -> dict[str, Any]:
    return classify(
        rows,
        hyperparameters={"epochs": 1, "learning_rate": 1e-3, **hyperparameters},
        split={"validation": 0.0},
        checkpointing={"every_steps": 1, "keep_last": 2},
        output={"model": "averaged"},
    )


def test_the_average_is_registered_and_promoted(running: httpx.Client, rows: str) -> None:
    job = succeeded(running, submit(running, body(rows, ema_decay=0.9)))
    assert job["resolved"]["hyperparameters"]["ema_decay"] == 0.9
    plain = succeeded(running, submit(running, body(rows)))
    assert plain["resolved"]["hyperparameters"]["ema_decay"] == 0
    # The checkpoint of the last step, which has the weights as that step left them, and what is written at the end.
    step, _ = running.get(f"/jobs/{job['id']}/checkpoints").json()["data"]
    assert step["step"] == job["progress"]["total_steps"]
    for weights in ("last", "best"):
        promoted = running.post(f"/jobs/{job['id']}/checkpoints/{step['id']}/promote", json={"weights": weights})
        assert promoted.status_code == 201, promoted.text
    asked = {"inputs": [running.get("/models/averaged:1/schema").json()["example"]]}
    one, other, *same = (
        running.post(f"/models/averaged:{number}/predict", json=asked).json()["outputs"][0]["score"]
        for number in (1, 2, 3, 4)
    )
    assert same == pytest.approx([one, one], abs=1e-6)
    assert other != pytest.approx(one, abs=1e-5)


def test_the_average_needs_memory_of_its_own(running: httpx.Client, rows: str) -> None:
    wide = {"architecture": {"name": "mlp", "hidden_sizes": [2_000, 2_000]}}
    low, high = (
        running.post("/jobs", params={"dry_run": True}, json={**body(rows, ema_decay=decay), **wide}).json()
        for decay in (0, 0.9)
    )
    assert high["memory_bytes"]["low"] - low["memory_bytes"]["low"] > 2_000 * 2_000 * 4 / 2


def test_a_wrong_share_is_named(running: httpx.Client, rows: str) -> None:
    errors = problem(running.post("/jobs", json=body(rows, ema_decay=1)), 422, "invalid_request")["errors"]
    assert errors[0]["pointer"].endswith("/hyperparameters/ema_decay")
