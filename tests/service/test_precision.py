"""Models that predict in bf16: what it costs is measured and kept, and what is served is what was measured."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from support import classify, submit, succeeded, upload


def texts(count: int) -> str:
    words = {"card": ["where is my card", "the card is lost"], "rate": ["what rate is it", "the rate today"]}
    rows = [
        (label, f"{said[n // 2 % 2]} number {n}") for n in range(count) for label, said in [list(words.items())[n % 2]]
    ]
    return "label,said\n" + "".join(f"{label},{said}\n" for label, said in rows)


BERT = {"name": "bert", "layers": 1, "width": 32}


@pytest.mark.parametrize("what", ["rows", "texts"])
def test_bf16_is_measured_and_served(running: httpx.Client, rows: str, what: str) -> None:
    output, split = {"model": f"low-{what}", "precision": "bf16"}, {"test": 0.3, "validation": 0.2}
    if what == "rows":
        body = classify(rows, output=output, split=split, seed=1, hyperparameters={"epochs": 20})
    else:
        dataset = str(upload(running, texts(200))["id"])
        body = classify(dataset, task="text-classification", columns={"target": "label"}, architecture=BERT)
        body |= {"output": output, "split": split, "preprocessing": {"tokenizer": "characters"}}
    job = succeeded(running, submit(running, body))
    version = running.get(f"/models/low-{what}/versions/1").json()
    low = version["metrics"]["bf16"]
    exact = version["metrics"]["test"]
    assert (low["split"], low["rows"]) == ("test", exact["rows"])
    assert low["metrics"]["loss"] != exact["loss"]
    assert low["difference"]["loss"] == pytest.approx(low["metrics"]["loss"] - exact["loss"])
    assert abs(low["difference"]["accuracy"]) <= 0.05
    assert job["result"]["metrics"]["bf16"] == low
    loaded = running.post(f"/models/low-{what}/load").json()
    ledger = {one["ref"]: one for one in running.get("/models:loaded").json()["data"]}
    assert ledger[f"low-{what}:1"]["precision"] == "bf16"
    # Both or neither: a job and a load on the same machine see the same processor.
    assert bool(loaded["warnings"]) == any("bf16" in warning for warning in job["warnings"])


def test_answers_in_bf16_are_close_to_those_in_fp32(running: httpx.Client, rows: str) -> None:
    answers: dict[str, list[dict[str, Any]]] = {}
    for precision in ("fp32", "bf16"):
        body = classify(rows, output={"model": f"in-{precision}", "precision": precision}, seed=2)
        version = succeeded(running, submit(running, body))["result"]
        inputs = [running.get("/models/in-fp32/schema").json()["example"]]
        answers[precision] = running.post(f"/models/{version['ref']}/predict", json={"inputs": inputs}).json()[
            "outputs"
        ]
    (exact,), (low,) = answers.values()
    assert low["score"] != exact["score"]
    assert low["score"] == pytest.approx(exact["score"], abs=0.02)


def test_an_unknown_precision(running: httpx.Client, rows: str) -> None:
    refused = running.post("/jobs", json=classify(rows, output={"precision": "int8"}))
    assert refused.status_code == 422
    assert "output.precision" in refused.json()["detail"]
