"""Low-rank additions over HTTP: what a job registers, and what is promoted from its checkpoint, has them merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.torch import load_file
from support import problem, submit, succeeded, upload

TEXTS = "\n".join(["text,label", *(f"{word} number {n},{word}" for n in range(20) for word in ("card", "rate"))])


def body(rows: str, **hyperparameters: Any) -> dict[str, Any]:
    return {
        "kind": "finetune", "task": "text-classification", "dataset": rows, "columns": {"target": "label"},
        "architecture": {"name": "bert", "layers": 2, "width": 32, "heads": 2},
        "hyperparameters": {"epochs": 12, "batch_size": 10, "learning_rate": 1e-2, **hyperparameters},
        "split": {"validation": 0.0}, "output": {"model": "added"},
    }  # fmt: skip


def test_additions_are_merged_in_every_version(running: httpx.Client, tmp_path: Path) -> None:
    rows = upload(running, TEXTS)["id"]
    job = succeeded(running, submit(running, body(rows, lora_rank=4)))
    assert job["resolved"]["hyperparameters"]["lora_rank"] == 4
    assert any("without a base model" in warning for warning in job["warnings"])
    last = running.get(f"/jobs/{job['id']}/checkpoints").json()["data"][-1]
    promoted = running.post(f"/jobs/{job['id']}/checkpoints/{last['id']}/promote", json={"weights": "last"})
    assert (promoted.status_code, promoted.json()["ref"]) == (201, "added:2"), promoted.text
    asked = {"inputs": ["card number 3", "rate", "a rate and a card"]}
    first, second = (running.post(f"/models/added:{n}/predict", json=asked).json()["outputs"] for n in (1, 2))
    assert [one["label"] for one in first[:2]] == ["card", "rate"]
    assert [one["score"] for one in second] == pytest.approx([one["score"] for one in first], abs=1e-6)
    for number in (1, 2):
        path = tmp_path / f"{number}.safetensors"
        path.write_bytes(running.get(f"/models/added/versions/{number}/files/model.safetensors").content)
        assert not [name for name in load_file(path) if "low_rank" in name]
        assert "low_rank" not in running.get(f"/models/added/versions/{number}/files/config.json").json()


def test_wrong_numbers_are_named(running: httpx.Client) -> None:
    rows = upload(running, TEXTS)["id"]
    wrong = {"lora_rank": 0, "lora_scale": 0, "layer_learning_rate_decay": 1.1, "unfreeze_every_epochs": 0}
    for name, value in wrong.items():
        errors = problem(running.post("/jobs", json=body(rows, **{name: value})), 422, "invalid_request")["errors"]
        assert errors[0]["pointer"].endswith(f"/hyperparameters/{name}")
