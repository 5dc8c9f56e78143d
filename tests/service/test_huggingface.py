"""Hugging Face's own client against the running service, on both columns."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from servers import Stack

# As the client's own examples have it: numbers as texts.
TABLE = {"size": ["3", "14", ""], "colour": ["red", "blue", "red"]}
ROWS = [{"size": 3, "colour": "red"}, {"size": 14, "colour": "blue"}, {"size": None, "colour": "red"}]


def client(stack: Stack, model: str, key: str | None = None) -> InferenceClient:
    return InferenceClient(model=f"{stack.url}/hf/models/{model}", token=key or stack.key)


def outputs(api: httpx.Client, model: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.post(f"/models/{model}/predict", json={"inputs": ROWS}).json()["outputs"]
    return found


def test_tabular_classification(stack: Stack, served: str, api: httpx.Client) -> None:
    labels = client(stack, "fruit").tabular_classification(TABLE)
    assert labels == [one["label"] for one in outputs(api, "fruit")]


def test_tabular_regression(stack: Stack, served: str, api: httpx.Client) -> None:
    # The client's own method knows no provider for this task, and never asks; this is what it would send.
    table = {**TABLE, "size": [3, 14.0, None]}
    headers = {"Authorization": f"Bearer {stack.key}"}
    answered = httpx.post(f"{stack.url}/hf/models/price:1", json={"table": table}, headers=headers, timeout=60)
    values = answered.json()
    assert values == pytest.approx([one["value"] for one in outputs(api, "price")])


def test_inputs_and_parameters(stack: Stack, served: str, api: httpx.Client) -> None:
    asked = {"inputs": ROWS, "parameters": {"top_k": 1}}
    headers = {"Authorization": f"Bearer {stack.key}"}
    answers = httpx.post(f"{stack.url}/hf/models/fruit", json=asked, headers=headers, timeout=60).json()
    expected = outputs(api, "fruit")
    assert [[one["label"] for one in ranked] for ranked in answers] == [[one["label"]] for one in expected]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 400, "table and inputs"),
        ({"table": {"size": [1], "colour": []}}, 400, "different lengths"),
        ({"table": {"size": ["big"], "colour": ["red"]}}, 400, '"big" is not a number'),
        ({"table": {"size": [1]}}, 400, '"colour" is missing'),
        ({"table": 5}, 422, "table"),
        ({"inputs": ROWS, "parameters": {"top": 1}}, 422, "top"),
    ],
)
def test_errors(stack: Stack, served: str, body: dict[str, Any], status: int, said: str) -> None:
    headers = {"Authorization": f"Bearer {stack.key}"}
    response = httpx.post(f"{stack.url}/hf/models/fruit", json=body, headers=headers, timeout=60)
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    assert said in response.json()["error"]


def test_the_client_sees_errors(stack: Stack, served: str) -> None:
    with pytest.raises(HfHubHTTPError) as caught:
        client(stack, "nobody").tabular_classification(TABLE)
    assert caught.value.response.status_code == 404
    with pytest.raises(HfHubHTTPError) as caught:
        client(stack, "fruit", "key_1.wrong").tabular_classification(TABLE)
    assert caught.value.response.status_code == 401
