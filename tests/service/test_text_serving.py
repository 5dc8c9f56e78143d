"""Texts by every protocol that is spoken: each is answered like by predict, and batched by its tokens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from registered import LONGEST, TEXTS, register_text
from servers import Stack
from tritonclient.utils import InferenceServerException


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An API without workers and with small text models."""
    stack = Stack(tmp_path_factory.mktemp("texts"))
    try:
        stack.up(workers=False)
        register_text(stack, "said")
        register_text(stack, "base", pretrained_only=True)
        yield stack
    finally:
        stack.down()


@pytest.fixture
def calls(alone: Stack) -> Iterator[httpx.Client]:
    with alone.client() as client:
        yield client


@pytest.fixture
def key(alone: Stack) -> dict[str, str]:
    return {"Authorization": f"Bearer {alone.key}"}


@pytest.fixture
def client(alone: Stack) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{alone.port}", network_timeout=60) as opened:
        yield opened


@pytest.fixture
def hub(alone: Stack) -> InferenceClient:
    return InferenceClient(model=f"{alone.url}/hf/models/said", token=alone.key)


def native(calls: httpx.Client, texts: list[str], model: str = "said", **parameters: Any) -> list[dict[str, Any]]:
    body = {"inputs": texts, "parameters": parameters}
    outputs: list[dict[str, Any]] = calls.post(f"/models/{model}/predict", json=body).json()["outputs"]
    return outputs


def said(*texts: str) -> triton.InferInput:
    tensor = triton.InferInput("said", [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() for text in texts], dtype=object))
    return tensor


def test_parameters_of_a_base_model_are_none(calls: httpx.Client) -> None:
    card = calls.get("/models/base/schema").json()
    assert card["parameters"]["properties"] == {}
    refused = calls.post("/models/base/predict", json={"inputs": ["hello"], "parameters": {"top_k": 1}})
    assert (refused.status_code, refused.json()["param"]) == (422, "parameters.top_k")
    assert len(native(calls, ["hello"], "base")[0]["embedding"]) == 32


def test_top_k_and_probabilities(calls: httpx.Client) -> None:
    whole, first, short = (native(calls, ["my card"], **asked)[0] for asked in ({}, {"top_k": 2}, {"probabilities": 0}))
    assert list(first["probabilities"].items()) == list(whole["probabilities"].items())[:2]
    assert short == {"label": whole["label"], "score": whole["score"]}


def test_triton_names_the_column(
    client: triton.InferenceServerClient, calls: httpx.Client, key: dict[str, str]
) -> None:
    about = client.get_model_metadata("said", headers=key)
    assert [(one["name"], one["datatype"], one["shape"]) for one in about["inputs"]] == [("said", "BYTES", [-1])]
    result = client.infer("said", [said(*TEXTS)], headers=key)
    expected = native(calls, list(TEXTS))
    assert [label.decode() for label in result.as_numpy("label")] == [one["label"] for one in expected]
    columns = json.loads(about["outputs"][2]["parameters"]["columns"])
    shares = [[one["probabilities"][label] for label in columns] for one in expected]
    assert result.as_numpy("probabilities") == pytest.approx(np.array(shares), abs=1e-6)
    with pytest.raises(InferenceServerException, match="the text is empty"):
        client.infer("said", [said("hello", "")], headers=key)


@pytest.mark.parametrize("binary", [True, False])
def test_triton_s_parameters_are_applied(
    client: triton.InferenceServerClient, calls: httpx.Client, key: dict[str, str], binary: bool
) -> None:
    outputs = [triton.InferRequestedOutput("probabilities", binary_data=binary)]
    asked: dict[str, Any] = {"headers": key, "outputs": outputs}
    columns = json.loads(client.get_model_metadata("said", headers=key)["outputs"][2]["parameters"]["columns"])
    (shares,) = client.infer("said", [said("my card")], parameters={"top_k": 1}, **asked).as_numpy("probabilities")
    (answer,) = native(calls, ["my card"], top_k=1)
    found = {label: share for label, share in zip(columns, shares.tolist(), strict=True) if not np.isnan(share)}
    assert found == pytest.approx(answer["probabilities"], abs=1e-6)
    without = client.infer("said", [said("my card")], parameters={"probabilities": False}, headers=key)
    assert [one["name"] for one in without.get_response()["outputs"]] == ["label", "score"]
    with pytest.raises(InferenceServerException, match="left out by the parameters"):
        client.infer("said", [said("my card")], parameters={"probabilities": False}, **asked)
    with pytest.raises(InferenceServerException, match="topk"):
        client.infer("said", [said("my card")], parameters={"topk": 1}, headers=key)
    with pytest.raises(InferenceServerException, match="microseconds"):
        client.infer("said", [said("my card")], timeout=-5, headers=key)
    assert client.infer("said", [said("my card")], timeout=60_000_000, headers=key).as_numpy("label").shape == (1,)


def test_triton_gets_embeddings(client: triton.InferenceServerClient, calls: httpx.Client, key: dict[str, str]) -> None:
    (about,) = client.get_model_metadata("base", headers=key)["outputs"]
    assert (about["name"], about["datatype"], about["shape"]) == ("embedding", "FP32", [-1, -1])
    found = client.infer("base", [said("my card", "hello")], headers=key).as_numpy("embedding")
    expected = [one["embedding"] for one in native(calls, ["my card", "hello"], "base")]
    assert found == pytest.approx(np.array(expected), abs=1e-5)


def test_hugging_face_classifies_a_text(hub: InferenceClient, calls: httpx.Client) -> None:
    (expected,) = native(calls, ["where is my card"])
    found = hub.text_classification("where is my card")
    assert [(one.label, pytest.approx(one.score, abs=1e-6)) for one in found] == list(expected["probabilities"].items())
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    (best,) = hub.text_classification("where is my card", top_k=1)
    assert best.label == expected["label"]


def test_hugging_face_embeds_a_text(alone: Stack, calls: httpx.Client) -> None:
    hub = InferenceClient(model=f"{alone.url}/hf/models/base", token=alone.key)
    expected = [native(calls, ["my card"], "base")[0]["embedding"]]
    assert hub.feature_extraction("my card") == pytest.approx(np.array(expected), abs=1e-5)


def test_hugging_face_hears_what_is_wrong(hub: InferenceClient, alone: Stack, key: dict[str, str]) -> None:
    for call in (
        lambda: hub.text_classification(""),
        lambda: hub.text_classification("a", function_to_apply="sigmoid"),
        lambda: hub.feature_extraction("a", normalize=True),
    ):
        with pytest.raises(HfHubHTTPError) as caught:
            call()
        assert caught.value.response.status_code in (400, 422)
        assert set(caught.value.response.json()) == {"error"}
    url = f"{alone.url}/hf/models/said"
    several = httpx.post(url, json={"inputs": ["my card", {"said": "the rate"}]}, headers=key, timeout=60).json()
    assert [[set(one) for one in ranked] for ranked in several] == [[{"label", "score"}] * 3] * 2


def test_a_batch_of_texts_answers_each_as_alone(alone: Stack, calls: httpx.Client, key: dict[str, str]) -> None:
    texts = [" ".join(TEXTS[n % 5] for _ in range(1 + n % 9)) for n in range(60)] + ["", "my card"]
    alone_answers = [native(calls, [text])[0] for text in texts]

    async def ask() -> list[dict[str, Any]]:
        async with httpx.AsyncClient(base_url=f"{alone.url}/api/v1", headers=key, timeout=60) as client:
            asked = [client.post("/models/said/predict", json={"inputs": [text]}) for text in texts]
            return [answer.json() for answer in await asyncio.gather(*asked)]

    answers = asyncio.run(ask())
    for answer, expected in zip(answers, alone_answers, strict=True):
        (found,) = answer["outputs"]
        if expected is None:
            assert (found, answer["errors"][0]["code"]) == (None, "invalid_input")
        else:
            assert found["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-5)


def test_a_batch_holds_so_many_tokens_and_no_more(calls: httpx.Client) -> None:
    body = {"inputs": ["x" * 10 * LONGEST] * 20}
    answer = calls.post("/models/said/predict", json=body).json()
    # 512 tokens of each are read; 4,096 go at once.
    assert (answer["timing"]["batch_size"], len(answer["outputs"])) == (8, 20)
    assert [one["code"] for one in answer["warnings"]] == ["truncated"] * 20
    assert all(one["score"] == pytest.approx(answer["outputs"][0]["score"], abs=1e-5) for one in answer["outputs"])
