"""Numbers and several labels of a text, through the front door: from a file to answers, on every route."""

from __future__ import annotations

import csv
import io
import json
import random
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from huggingface_hub import InferenceClient
from servers import Stack
from support import problem, submit, succeeded, upload

TINY = {"name": "bert", "layers": 1, "width": 32, "heads": 2}
FAST = {"epochs": 40, "batch_size": 10, "learning_rate": 5e-3, "dropout": 0.0}
WORDS = {"price": ("cheap", "bargain", "便宜"), "taste": ("tasty", "delicious", "好吃"), "service": ("polite", "quick")}
FILLERS = ("it was", "we came again", "all in all", "as ever", "my friend said", "这个餐馆")


def reviews(rows: int, seed: int) -> list[dict[str, Any]]:
    """Reviews that praise none, one or more things; a star and a half for each, and half of that as a grade."""
    draw = random.Random(seed)
    found = []
    for _ in range(rows):
        about = [name for name in WORDS if draw.random() < 0.5]
        parts = [draw.choice(WORDS[name]) for name in about] + draw.sample(FILLERS, 2)
        draw.shuffle(parts)
        stars = 1 + 1.5 * len(about)
        found.append({"review": " ".join(parts), "about": about, "stars": stars, "grade": stars / 2})
    return found


def as_csv(rows: list[dict[str, Any]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows({**row, "about": "|".join(row["about"]) or "[]"} for row in rows)
    return file.getvalue()


@pytest.fixture(scope="module")
def data(running: httpx.Client) -> dict[str, str]:
    """The ids of reviews to learn from, as JSON lines, and to be tested on, as CSV."""
    train = upload(running, "\n".join(map(json.dumps, reviews(120, 0))), "train.jsonl")
    found = {(one["task"], one["target"]) for one in train["task_candidates"]}
    assert ("multi-label-text-classification", "about") in found
    test = upload(running, as_csv(reviews(40, 1)), "test.csv", column_types=json.dumps({"about": "strings"}))
    assert test["validation"]["error_count"] == 0
    return {"train": train["id"], "test": test["id"]}


@pytest.fixture(scope="module")
def stars(running: httpx.Client, data: dict[str, str]) -> dict[str, Any]:
    """The job whose model is "stars", from a base model that has read the reviews only."""
    succeeded(running, submit(running, {
        "kind": "pretrain", "task": "masked-tokens", "dataset": data["train"], "architecture": TINY,
        "columns": {"text": "review"}, "hyperparameters": {"epochs": 2}, "output": {"model": "reviews"},
    }))  # fmt: skip
    return succeeded(running, submit(running, {
        "kind": "finetune", "task": "text-regression", "base_model": "reviews", "dataset": data,
        "columns": {"target": "stars", "text": "review"}, "hyperparameters": FAST,
        "task_config": {"token_masking": 0.0}, "output": {"model": "stars"},
    }))  # fmt: skip


def test_a_number_is_learned_from_a_text_and_answered_on_every_route(
    embedded: Stack, running: httpx.Client, stars: dict[str, Any], data: dict[str, str]
) -> None:
    measured = stars["result"]["metrics"]["test"]
    assert measured["r2"] > 0.8
    assert measured["mae"] < 0.6
    asked = reviews(12, 7)
    texts = [row["review"] for row in asked]
    outputs = running.post("/models/stars/predict", json={"inputs": texts}).json()["outputs"]
    errors = [abs(output["value"] - row["stars"]) for output, row in zip(outputs, asked, strict=True)]
    assert sum(errors) / len(errors) < 0.6
    card = running.get("/models/stars/schema").json()
    assert card["output"] == {"type": "object", "properties": {"value": {"type": "number"}}}

    (served,) = running.post(f"{embedded.url}/hf/models/stars", json={"inputs": texts[:1]}).json()
    assert served == pytest.approx(outputs[0])
    table = {"table": {"review": texts[:2]}}
    values = running.post(f"{embedded.url}/hf/models/stars", json=table).json()
    assert values == pytest.approx([one["value"] for one in outputs[:2]])
    tensor = {"name": "review", "datatype": "BYTES", "shape": [2], "data": texts[:2]}
    (value,) = running.post(f"{embedded.url}/v2/models/stars/infer", json={"inputs": [tensor]}).json()["outputs"]
    assert (value["name"], value["shape"]) == ("value", [2])
    assert value["data"] == pytest.approx([one["value"] for one in outputs[:2]], abs=1e-5)

    body = {"dataset": data["test"], "format": "parquet"}
    done = succeeded(running, running.post("/models/stars/predict-dataset", json=body).json()["id"])
    table = pq.read_table(io.BytesIO(running.get(f"/jobs/{done['id']}/output").content))
    assert table.num_rows == 40
    assert table.schema.field("value").type in ("double", "float")


def test_several_numbers_are_answered_by_their_columns(running: httpx.Client, data: dict[str, str]) -> None:
    job = succeeded(running, submit(running, {
        "kind": "finetune", "task": "text-regression", "dataset": data, "architecture": TINY,
        "columns": {"targets": ["stars", "grade"], "text": "review"}, "hyperparameters": FAST,
        "task_config": {"token_masking": 0.0, "loss": "huber"}, "output": {"model": "grades"},
    }))  # fmt: skip
    assert job["result"]["metrics"]["test"]["targets"]["grade"]["r2"] > 0.8
    (output,) = running.post("/models/grades/predict", json={"inputs": ["it was tasty and cheap"]}).json()["outputs"]
    assert output["values"]["stars"] == pytest.approx(2 * output["values"]["grade"], abs=0.5)


@pytest.fixture(scope="module")
def labels(running: httpx.Client, data: dict[str, str]) -> dict[str, Any]:
    """The job whose model is "about"."""
    return succeeded(running, submit(running, {
        "kind": "finetune", "task": "multi-label-text-classification", "dataset": data, "architecture": TINY,
        "columns": {"target": "about", "text": "review"}, "hyperparameters": FAST,
        "task_config": {"token_masking": 0.0}, "output": {"model": "about"},
    }))  # fmt: skip


def test_several_labels_are_learned_from_a_text_and_answered_on_every_route(
    embedded: Stack, running: httpx.Client, labels: dict[str, Any], data: dict[str, str]
) -> None:
    measured = labels["result"]["metrics"]["test"]
    assert measured["mean_average_precision"] > 0.9
    assert set(measured["labels"]) == set(WORDS)
    asked = reviews(12, 7)
    texts = [row["review"] for row in asked]

    def answered(**parameters: Any) -> list[dict[str, Any]]:
        body = {"inputs": texts, "parameters": parameters}
        found: list[dict[str, Any]] = running.post("/models/about/predict", json=body).json()["outputs"]
        return found

    right = [set(one["labels"]) == set(row["about"]) for one, row in zip(answered(), asked, strict=True)]
    assert sum(right) >= 9
    assert all(len(one["labels"]) == 3 for one in answered(threshold=0))
    assert all("taste" not in one["labels"] for one in answered(threshold={"taste": 1}))
    assert all(len(one["probabilities"]) == 1 for one in answered(top_k=1))
    body = {"inputs": texts, "parameters": {"threshold": {"tasty": 0.1}}}
    assert "which is no label" in running.post("/models/about/predict", json=body).text

    native = answered()[0]
    hub = InferenceClient(model=f"{embedded.url}/hf/models/about", token=embedded.key)
    found = hub.text_classification(texts[0])
    assert [one.label for one in found] == list(native["probabilities"])
    tensor = {"name": "review", "datatype": "BYTES", "shape": [1], "data": texts[:1]}
    answer = running.post(f"{embedded.url}/v2/models/about/infer", json={"inputs": [tensor]}).json()
    outputs = {one["name"]: one for one in answer["outputs"]}
    assert json.loads(outputs["labels"]["data"][0]) == native["labels"]
    assert outputs["probabilities"]["shape"] == [1, 3]
    body = {"dataset": data["test"], "format": "jsonl"}
    done = succeeded(running, running.post("/models/about/predict-dataset", json=body).json()["id"])
    lines = running.get(f"/jobs/{done['id']}/output").text.splitlines()
    assert len(lines) == 40


@pytest.mark.parametrize(
    ("task", "columns", "said"),
    [
        ("text-regression", {"target": "review", "text": "about"}, 'Column "review" holds string values'),
        ("text-regression", {"text": "review"}, "text-regression predicts a column; the job names none"),
        ("multi-label-text-classification", {"target": "stars"}, 'Column "stars" holds number values'),
    ],
)
def test_what_is_no_target_is_refused(
    running: httpx.Client, data: dict[str, str], task: str, columns: dict[str, Any], said: str
) -> None:
    body = {"kind": "finetune", "task": task, "columns": columns, "dataset": data["train"]}
    response = running.post("/jobs", json=body)
    assert said in problem(response, 422, response.json()["code"])["detail"]
