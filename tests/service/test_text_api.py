"""Texts through the front door, on both columns: pretrain, finetune, predict; and what is wrong with a request."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import httpx
import pytest
import transformers
from support import problem, submit, succeeded, upload, wait_for_step, wait_until
from tokenizers import Tokenizer

TINY = {"name": "bert", "layers": 1, "width": 32, "heads": 2}
OPENINGS = ("where is", "I lost", "please block", "I want", "tell me about")
WORDS = {"card": ("card", "debit card", "银行卡"), "rate": ("exchange rate", "rate today", "汇率")}
FILES = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
CURL = {"Content-Type": "application/json"}


def sentences(rows: int, seed: int) -> list[dict[str, str]]:
    draw = random.Random(seed)
    labels = [draw.choice(sorted(WORDS)) for _ in range(rows)]
    return [
        {"text": f"{draw.choice(OPENINGS)} my {draw.choice(WORDS[label])}, number {n}", "label": label}
        for n, label in enumerate(labels)
    ]


def as_csv(rows: list[dict[str, str]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def test_pretrain_finetune_predict(api: httpx.Client) -> None:
    unlabelled = upload(api, "\n".join(json.dumps({"said": row["text"]}) for row in sentences(120, 0)), "said.jsonl")
    labelled = upload(api, as_csv(sentences(60, 1)), "labelled.csv")
    test = upload(api, as_csv(sentences(30, 2)), "test.csv")
    assert [c["task"] for c in unlabelled["task_candidates"]] == [
        "text-generation",
        "masked-tokens",
        "next-token-prediction",
    ]
    assert [c["task"] for c in labelled["task_candidates"]] == [
        "text-classification",
        "text-generation",
        "masked-tokens",
    ]

    # Neither task nor architecture is named: the data say what they are.
    base = succeeded(api, submit(api, {
        "kind": "pretrain", "dataset": unlabelled["id"], "architecture": TINY, "hyperparameters": {"epochs": 3},
        "preprocessing": {"vocabulary_size": 200}, "output": {"model": "said-base"},
    }))  # fmt: skip
    assert base["task"] == "masked-tokens"
    tuned = succeeded(api, submit(api, {
        "kind": "finetune", "task": "text-classification", "base_model": "said-base", "compare": True,
        "columns": {"target": "label"}, "dataset": {"train": labelled["id"], "test": test["id"]},
        "hyperparameters": {"epochs": 20, "learning_rate": 3e-3}, "output": {"model": "said"},
    }))  # fmt: skip
    assert tuned["result"]["comparison"]["rows"] == 30
    assert tuned["resolved"]["hyperparameters"]["batch_size"] == 16

    answer = api.post("/models/said/predict", json={"inputs": ["where is my card", {"text": "汇率"}, "", 7]}).json()
    assert answer["outputs"][0]["label"] == "card"
    assert answer["outputs"][1]["label"] in WORDS
    assert answer["outputs"][2:] == [None, None]
    assert [(error["index"], error["code"]) for error in answer["errors"]] == [
        (2, "invalid_input"),
        (3, "invalid_input"),
    ]
    seen = api.get(f"/datasets/{labelled['id']}/preview", params={"model": "said", "rows": 3}).json()["seen"]
    read = ["".join(token.removeprefix("##") for token in one["tokens"][1:-1]) for one in seen]
    said = [row["text"].lower().replace(" ", "") for row in sentences(60, 1)[:3]]
    assert [len(one["tokens"]) > 5 and one["warnings"] == [] for one in seen] == [True] * 3
    assert [text[:5] for text in read] == [text[:5] for text in said]

    (long,) = api.post("/models/said/predict", json={"inputs": ["card " * 300]}).json()["warnings"]
    assert (long["code"], "only the first 256 of 302 tokens" in long["message"]) == ("truncated", True)
    embedded = api.post("/models/said-base/predict", json={"inputs": ["where is my card"]}).json()
    assert len(embedded["outputs"][0]["embedding"]) == 32

    card = api.get("/models/said/schema").json()
    body = card["curl"].split("-d '")[1].removesuffix("'")
    assert api.post("/models/said/predict", content=body, headers=CURL).json()["errors"] == []
    files = api.get("/models/said/versions/1/files").json()["data"]
    assert {file["path"] for file in files if not file["path"].startswith("pictures/")} == FILES
    config = api.get("/models/said/versions/1/files/config.json").json()
    assert (config["model_type"], config["num_hidden_layers"], config["task"]) == ("bert", 1, "text-classification")


def test_a_checkpoint_promoted_while_the_job_runs_is_a_whole_model(api: httpx.Client, tmp_path: Path) -> None:
    labelled = upload(api, as_csv(sentences(60, 1)), "labelled.csv")
    job_id = submit(api, {
        "kind": "finetune", "task": "text-classification", "dataset": labelled["id"], "columns": {"target": "label"},
        "architecture": TINY, "hyperparameters": {"epochs": 20_000, "learning_rate": 3e-3, "batch_size": 16},
        "checkpointing": {"every_steps": 200}, "output": {"model": "early"},
    })  # fmt: skip
    try:
        wait_for_step(api, job_id, 200)
        found = wait_until(lambda: api.get(f"/jobs/{job_id}/checkpoints").json()["data"], 60)
        promoted = api.post(f"/jobs/{job_id}/checkpoints/{found[-1]['id']}/promote", json={"weights": "last"})
        assert (promoted.status_code, promoted.json()["ref"]) == (201, "early:1"), promoted.text
        assert api.get(f"/jobs/{job_id}").json()["status"] == "running"
        answer = api.post("/models/early/predict", json={"inputs": ["where is my card", "please block my 汇率"]}).json()
        assert [output["label"] for output in answer["outputs"]] == ["card", "rate"]
        for file in api.get("/models/early/versions/1/files").json()["data"]:
            (tmp_path / file["path"]).write_bytes(api.get(f"/models/early/versions/1/files/{file['path']}").content)
    finally:
        api.post(f"/jobs/{job_id}/cancel", json={"mode": "discard"})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    design = json.loads((tmp_path / "config.json").read_text())
    ours = Tokenizer.from_str(design["inputs"]["tokenizer"])
    assert theirs("where is my 银行卡").input_ids == ours.encode("where is my 银行卡").ids
    assert transformers.AutoModel.from_pretrained(tmp_path).config.hidden_size == TINY["width"]


@pytest.fixture(scope="module")
def texts(running: httpx.Client) -> str:
    """The id of some labelled texts."""
    return str(upload(running, as_csv(sentences(60, 1)), "labelled.csv")["id"])


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"columns": {"target": "label", "text": "txt"}}, "columns.text", 'Did you mean "text"?'),
        ({"columns": {"target": "lable"}}, "columns.target", 'Did you mean "label"?'),
        ({"architecture": "mlp"}, "architecture", 'Architecture "mlp" is for tabular data'),
        ({"task": "text-clasification"}, "task", 'Did you mean "text-classification"?'),
        ({"task_config": {"poling": "mean"}}, "task_config.poling", "Extra inputs"),
        ({"architecture": {"name": "bert", "size": "huge"}}, "architecture.size", "'huge'"),
        ({"preprocessing": {"tokenizer": "words"}}, "preprocessing.tokenizer", "'words'"),
        ({"base_model": "shared"}, "base_model", "learned from tabular data"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_queued(
    running: httpx.Client, texts: str, trained: dict[str, Any], fields: dict[str, Any], param: str, said: str
) -> None:
    body = {
        "kind": "finetune",
        "task": "text-classification",
        "dataset": texts,
        "columns": {"target": "label"},
        **fields,
    }
    response = running.post("/jobs", json=body)
    found = problem(response, 422, response.json()["code"])
    assert found["param"] == param
    assert said in found["detail"]


def test_a_dry_run_says_what_it_takes(running: httpx.Client, texts: str) -> None:
    body = {
        "kind": "finetune", "task": "text-classification", "dataset": texts, "columns": {"target": "label"},
        "architecture": TINY,
    }  # fmt: skip
    found = running.post("/jobs", params={"dry_run": "true"}, json=body).json()
    assert (found["valid"], found["errors"], found["train_rows"]) == (True, [], 60)
    assert found["steps"] == 4 * found["resolved"]["hyperparameters"]["epochs"]
    assert 0 < found["seconds"]["low"] < found["seconds"]["high"]


def test_a_text_that_is_missing_fails_the_job_with_its_row(running: httpx.Client) -> None:
    rows = sentences(30, 3)
    rows[4]["text"] = ""
    dataset = upload(running, as_csv(rows), "hole.csv")
    body = {"kind": "pretrain", "task": "masked-tokens", "dataset": dataset["id"], "split": {"validation": 0.0}}
    job_id = submit(running, {**body, "columns": {"text": "text"}})
    job = running.get(f"/jobs/{job_id}", params={"wait": 60}).json()
    assert job["status"] == "failed"
    assert job["error"]["message"] == 'Row 5, column "text": the text is empty.'
    assert job["error"]["param"] == "columns.text"
