"""Generated text through the front door: a text file, pretraining and finetuning on it, on prompts too, predictions."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx
import pytest
from support import problem, submit, succeeded, upload

TINY = {"name": "gpt", "layers": 2, "width": 32, "heads": 2}
VERSE = "To be, or not to be,\n  that is the question:\n\n"
CHARACTERS = {"tokenizer": "characters", "max_length": 32}
FAST = {"epochs": 60, "learning_rate": 1e-2, "batch_size": 16}


def test_from_a_text_file_to_generated_text(api: httpx.Client) -> None:
    text = upload(api, VERSE * 40, "verse.txt")
    tasks = [candidate["task"] for candidate in text["task_candidates"]]
    assert tasks == ["text-generation", "masked-tokens", "next-token-prediction"]

    # The architecture says which pretraining it is.
    base = succeeded(api, submit(api, {
        "kind": "pretrain", "dataset": text["id"], "architecture": TINY, "preprocessing": CHARACTERS,
        "hyperparameters": FAST, "output": {"model": "verse"},
    }))  # fmt: skip
    assert base["task"] == "next-token-prediction"
    measured = base["result"]["metrics"]["validation"]
    assert measured["nats_per_character"] < 0.5
    assert 1 < measured["perplexity"] < math.exp(0.5)  # a token is a character

    asked = {"inputs": ["that is the qu", "", "To be"], "parameters": {"max_new_tokens": 8}}
    answer = api.post("/models/verse/predict", json=asked).json()
    assert answer["errors"] == []
    assert answer["outputs"][0] == {
        "text": "estion:\n", "finish_reason": "length", "prompt_tokens": 14, "completion_tokens": 8,
    }  # fmt: skip
    stopped = {"inputs": ["that is"], "parameters": {"stop": ["question"], "temperature": 0.2, "seed": 7, "top_k": 3}}
    drawn = [api.post("/models/verse/predict", json=stopped).json()["outputs"] for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert (drawn[0][0]["text"], drawn[0][0]["finish_reason"]) == (" the ", "stop")
    long = {"inputs": ["To be"], "parameters": {"max_new_tokens": 5_000}}
    assert api.post("/models/verse/predict", json=long).json()["outputs"][0]["completion_tokens"] == 32 - 5

    pairs = [{"prompt": f"{n} comes after ", "completion": f"{n - 1}."} for n in range(1, 9)] * 3
    rows = upload(api, "\n".join(json.dumps(pair) for pair in pairs), "pairs.jsonl")
    tuned = succeeded(api, submit(api, {
        "kind": "finetune", "task": "text-generation", "dataset": rows["id"], "architecture": TINY,
        "columns": {"text": "prompt", "target": "completion"}, "preprocessing": CHARACTERS,
        "hyperparameters": {**FAST, "epochs": 300, "learning_rate": 3e-3}, "output": {"model": "before"},
    }))  # fmt: skip
    assert tuned["result"]["metrics"]["train"]["accuracy"] > 0.9
    answer = api.post(
        "/models/before/predict", json={"inputs": ["4 comes after ", {"prompt": "7 comes after "}]}
    ).json()
    assert [(one["text"], one["finish_reason"]) for one in answer["outputs"]] == [("3.", "stop"), ("6.", "stop")]
    told = succeeded(api, submit(api, {
        "kind": "finetune", "task": "text-generation", "dataset": text["id"], "base_model": "verse",
        "hyperparameters": {"epochs": 1}, "output": {"model": "verse"},
    }))  # fmt: skip
    assert told["result"]["version"] == 2


@pytest.fixture(scope="module")
def verse(running: httpx.Client) -> str:
    """The name of a model that writes."""
    dataset = upload(running, VERSE * 10, "verse.txt")["id"]
    succeeded(running, submit(running, {
        "kind": "pretrain", "task": "next-token-prediction", "dataset": dataset, "preprocessing": CHARACTERS,
        "architecture": {**TINY, "layers": 1}, "hyperparameters": {"epochs": 1}, "output": {"model": "writes"},
    }))  # fmt: skip
    return "writes"


def test_a_prompt_cannot_forge_an_end(running: httpx.Client, verse: str) -> None:
    inputs = ["To [SEP]", "To be, t", "[CLS][MASK]"]
    outputs = running.post(f"/models/{verse}/predict", json={"inputs": inputs}).json()["outputs"]
    assert [one["prompt_tokens"] for one in outputs] == [8, 8, 11]  # a token is a character


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"max_new_tokens": 0}, "parameters.max_new_tokens"),
        ({"temperature": "hot"}, "parameters.temperature"),
        ({"top_p": 1.5}, "parameters.top_p"),
        ({"stop": [""]}, "parameters.stop"),
        ({"beams": 4}, "parameters.beams"),
    ],
)
def test_a_wrong_parameter_is_named(running: httpx.Client, verse: str, parameters: dict[str, Any], param: str) -> None:
    response = running.post(f"/models/{verse}/predict", json={"inputs": ["To"], "parameters": parameters})
    found = problem(response, response.status_code, "invalid_config")
    assert response.status_code in (400, 422)
    assert found["param"].startswith(param)


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"task": "next-token-prediction", "architecture": "bert"}, "architecture", "Architectures for it: gpt"),
        ({"task": "masked-tokens", "architecture": "gpt"}, "architecture", "Architectures for it: bert"),
        ({"task": "next-token-prediction", "task_config": {"rows": "words"}}, "task_config.rows", "'words'"),
        ({"kind": "finetune", "task": "text-generation", "columns": {"target": "txt"}}, "columns.target", "not found"),
    ],
)
def test_what_cannot_be_learned_is_said_before_anything_is_queued(
    running: httpx.Client, fields: dict[str, Any], param: str, said: str
) -> None:
    dataset = upload(running, VERSE * 10, "verse.txt")["id"]
    response = running.post("/jobs", json={"kind": "pretrain", "dataset": dataset, **fields})
    found = problem(response, 422, response.json()["code"])
    assert found["param"] == param
    assert said in f"{found['detail']} {found.get('hint')}"
