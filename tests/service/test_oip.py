"""The Open Inference Protocol, asked by Triton's own client, on both columns."""

from __future__ import annotations

import gzip
import json
import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from servers import Stack
from support import new_key

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tritonclient.http as triton
    from tritonclient.utils import InferenceServerException

SIZES, COLOURS = [3.0, 14.0, float("nan")], [b"red", b"blue", b"red"]


@pytest.fixture
def key(stack: Stack) -> dict[str, str]:
    return {"Authorization": f"Bearer {stack.key}"}


@pytest.fixture
def client(stack: Stack, served: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{stack.port}", network_timeout=60) as opened:
        yield opened


def tensors(binary: bool, column: bool = True) -> list[triton.InferInput]:
    """The rows as one tensor for each column, of shape [n, 1] or [n]."""
    shape = [3, 1] if column else [3]
    size, colour = triton.InferInput("size", shape, "FP64"), triton.InferInput("colour", shape, "BYTES")
    size.set_data_from_numpy(np.array(SIZES).reshape(shape), binary_data=binary)
    colour.set_data_from_numpy(np.array(COLOURS, dtype=object).reshape(shape), binary_data=binary)
    return [size, colour]


def native(api: httpx.Client, model: str) -> list[dict[str, Any]]:
    rows = [{"size": 3, "colour": "red"}, {"size": 14, "colour": "blue"}, {"size": None, "colour": "red"}]
    outputs: list[dict[str, Any]] = api.post(f"/models/{model}/predict", json={"inputs": rows}).json()["outputs"]
    return outputs


def test_health_needs_no_key(client: triton.InferenceServerClient, key: dict[str, str]) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("fruit", headers=key)
    assert client.is_model_ready("fruit", "1", headers=key)
    assert not client.is_model_ready("nobody", headers=key)
    assert not client.is_model_ready("fruit")


def test_metadata(client: triton.InferenceServerClient, key: dict[str, str]) -> None:
    assert client.get_server_metadata(headers=key)["extensions"] == [
        "binary_tensor_data", "model_repository", "statistics",
    ]  # fmt: skip
    about = client.get_model_metadata("fruit", headers=key)
    assert (about["name"], about["versions"], about["platform"]) == ("fruit", ["1"], "anneal_mlp")
    assert [(one["name"], one["datatype"], one["shape"]) for one in about["inputs"]] == [
        ("size", "FP64", [-1]), ("colour", "BYTES", [-1]),
    ]  # fmt: skip
    assert [(one["name"], one["datatype"], one["shape"]) for one in about["outputs"]] == [
        ("label", "BYTES", [-1]), ("score", "FP32", [-1]), ("probabilities", "FP32", [-1, 2]),
    ]  # fmt: skip
    assert json.loads(about["outputs"][2]["parameters"]["columns"]) == ["no", "yes"]
    (value,) = client.get_model_metadata("price", "1", headers=key)["outputs"]
    assert (value["name"], value["datatype"]) == ("value", "FP64")


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_infer_answers_like_predict(
    client: triton.InferenceServerClient, api: httpx.Client, key: dict[str, str], binary: bool, compression: str | None
) -> None:
    # Binary data and the compression of a JSON answer; the names, so that JSON is asked for at all.
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("label", "score", "probabilities")]
    result = client.infer(
        "fruit",
        tensors(binary, column=binary),
        outputs=outputs,
        headers=key,
        request_id="42",
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    expected = native(api, "fruit")
    assert result.get_response()["id"] == "42"
    assert (result.get_response()["model_name"], result.get_response()["model_version"]) == ("fruit", "1")
    labels = [one.decode() if isinstance(one, bytes) else one for one in result.as_numpy("label").tolist()]
    assert labels == [answer["label"] for answer in expected]
    assert result.as_numpy("score") == pytest.approx([answer["score"] for answer in expected], abs=1e-6)
    shares = [[answer["probabilities"][label] for label in ("no", "yes")] for answer in expected]
    assert result.as_numpy("probabilities") == pytest.approx(np.array(shares), abs=1e-6)


def test_infer_by_version_and_all_outputs(
    client: triton.InferenceServerClient, api: httpx.Client, key: dict[str, str]
) -> None:
    result = client.infer("price", tensors(True), model_version="1", headers=key)
    assert result.as_numpy("value").tolist() == pytest.approx([one["value"] for one in native(api, "price")])
    assert client.infer("fruit@best", tensors(True), headers=key).as_numpy("label").shape == (3,)


def test_statistics_and_repository(client: triton.InferenceServerClient, key: dict[str, str]) -> None:
    client.load_model("fruit", headers=key)
    before = client.get_inference_statistics("fruit", headers=key)["model_stats"][0]
    client.infer("fruit", tensors(True), headers=key)
    after = client.get_inference_statistics("fruit", "1", headers=key)["model_stats"][0]
    # Three rows in one batch.
    assert after["inference_count"] - before["inference_count"] == 3
    assert after["execution_count"] - before["execution_count"] == 1
    assert after["inference_stats"]["success"]["count"] == before["inference_stats"]["success"]["count"] + 1
    everything = client.get_inference_statistics(headers=key)["model_stats"]
    assert ("fruit", "1") in [(one["name"], one["version"]) for one in everything]
    index = {(one["name"], one["version"]): one["state"] for one in client.get_model_repository_index(headers=key)}
    assert index["fruit", "1"] == "READY"
    client.unload_model("fruit", headers=key)
    index = {(one["name"], one["version"]): one["state"] for one in client.get_model_repository_index(headers=key)}
    assert index["fruit", "1"] == "UNAVAILABLE"
    assert client.infer("fruit", tensors(True), headers=key).as_numpy("label").shape == (3,)


def test_wrong_requests(client: triton.InferenceServerClient, key: dict[str, str]) -> None:
    def said(inputs: list[triton.InferInput], **options: Any) -> str:
        with pytest.raises(InferenceServerException) as caught:
            client.infer(options.pop("model", "fruit"), inputs, headers=key, **options)
        return str(caught.value)

    size, colour = tensors(True)
    assert "404" in said([size, colour], model="nobody")
    assert "no version 9" in said([size, colour], model_version="9")
    assert 'column "colour" is missing' in said([size])
    assert "different numbers of rows" in said([size, one("colour", ["red"])])
    assert 'Input "weight" is none' in said([size, colour, one("weight", ["1"])])
    assert "is not a number" in said([one("size", ["big"]), one("colour", ["red"])])
    assert 'Output "nothing"' in said([size, colour], outputs=[triton.InferRequestedOutput("nothing")])


def one(name: str, texts: list[str]) -> triton.InferInput:
    tensor = triton.InferInput(name, [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() for text in texts], dtype=object))
    return tensor


LENGTH = "Inference-Header-Content-Length"
BOMB = gzip.compress(b" " * (64 << 20), 1)


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/v2/nothing", {}, 404),
        ("GET", "/v2/models/nobody", {}, 404),
        ("DELETE", "/v2/models/fruit", {}, 405),
        ("POST", "/v2/models/fruit/infer", {"content": b"{"}, 400),
        ("POST", "/v2/models/fruit/infer", {"json": {"inputs": []}}, 400),
        ("POST", "/v2/models/fruit/infer", {"json": {"inputs": [{"name": "size", "datatype": "FP64"}]}}, 400),
        (
            "POST",
            "/v2/models/fruit/infer",
            {"content": b"{}", "headers": {"Inference-Header-Content-Length": "9"}},
            400,
        ),
        (
            "POST",
            "/v2/models/fruit/infer",
            {"content": b"{}", "headers": {"Inference-Header-Content-Length": "x"}},
            400,
        ),
        ("POST", "/v2/models/fruit/infer", {"content": b"{}", "headers": {"Content-Encoding": "br"}}, 415),
        ("POST", "/v2/models/fruit/infer", {"content": b"{}", "headers": {"Content-Encoding": "gzip"}}, 400),
        ("POST", "/v2/models/fruit/infer", {"content": BOMB, "headers": {"Content-Encoding": "gzip"}}, 413),
        ("POST", "/v2/models/fruit/infer", {"content": b"{}", "headers": {"X-Request-Timeout": "-1"}}, 422),
        ("POST", "/v2/repository/index", {"content": b"["}, 400),
        ("GET", "/v2/models/fruit/stats", {"headers": {"Authorization": "Bearer x.y"}}, 401),
        ("GET", "/v2", {"headers": {"Host": "elsewhere.example"}}, 400),
    ],
)
def test_every_error_is_the_protocol_s(
    stack: Stack, served: str, key: dict[str, str], method: str, path: str, options: dict[str, Any], status: int
) -> None:
    options = {**options, "headers": {**key, **options.get("headers", {})}}
    response = httpx.request(method, stack.url + path, timeout=60, **options)
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    assert response.json()["error"]


def raw(size: bytes, **changes: Any) -> tuple[bytes, dict[str, str]]:
    head = {"name": "size", "datatype": "FP64", "shape": [1], "parameters": {"binary_data_size": len(size)}} | changes
    body = json.dumps({"inputs": [head]}).encode()
    return body + size, {LENGTH: str(len(body))}


@pytest.mark.parametrize(
    ("size", "changes", "said"),
    [
        (b"1234567", {}, "no whole number"),
        (b"12345678", {"parameters": {"binary_data_size": 99}}, "99 bytes"),
        (b"12345678", {"parameters": {"binary_data_size": -1}}, "-1 bytes"),
        (b"12345678", {"shape": [2]}, "2] but 1 values"),
        (b"12345678", {"shape": [1, 2]}, "[n] or [n, 1]"),
        (b"12345678", {"shape": [-1]}, "[n] or [n, 1]"),
        (b"12345678", {"datatype": "FP7"}, "FP7"),
        (b"12345678", {"name": "colour", "datatype": "BYTES"}, "ends beyond"),
        (b"\x02\0\0\0\xff\xfe", {"name": "colour", "datatype": "BYTES"}, "not UTF-8"),
        (b"12345678", {"parameters": {}, "data": [1.0]}, "8 bytes follow"),
    ],
)
def test_binary_data_that_lie(
    stack: Stack, served: str, key: dict[str, str], size: bytes, changes: dict[str, Any], said: str
) -> None:
    body, headers = raw(size, **changes)
    response = httpx.post(f"{stack.url}/v2/models/fruit/infer", content=body, headers={**key, **headers}, timeout=60)
    assert response.status_code == 400, response.text
    assert said in response.json()["error"]


def test_scopes(stack: Stack, served: str) -> None:
    headers = {"Authorization": f"Bearer {new_key(stack, scopes=['predict'])}"}
    with httpx.Client(base_url=stack.url, headers=headers, timeout=60) as api:
        assert api.get("/v2").status_code == 200
        assert api.post("/v2/repository/models/fruit/load").status_code == 403
        assert set(api.post("/v2/repository/models/fruit/unload").json()) == {"error"}
