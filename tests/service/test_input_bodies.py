"""Inputs that are no JSON, and embeddings: files and bodies as they are, for texts and for tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from huggingface_hub import InferenceClient
from registered import INPUT, LONGEST, TEXTS, register, register_text
from servers import Stack
from support import problem

from anneal.client import Client
from service import oip_tensors
from service.errors import ApiError
from service.input_bodies import Content

TEXT = {"Content-Type": "text/plain"}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An API without workers, with models of texts and of rows that nobody trained."""
    stack = Stack(tmp_path_factory.mktemp("bodies"))
    try:
        stack.up(workers=False)
        register(stack, "rows")
        register_text(stack, "said")
        register_text(stack, "base", pretrained_only=True)
        yield stack
    finally:
        stack.down()


@pytest.fixture
def client(alone: Stack) -> Iterator[Client]:
    with Client(alone.url, api_key=alone.key) as opened:
        yield opened


@pytest.fixture
def calls(alone: Stack) -> Iterator[httpx.Client]:
    with alone.client() as client:
        yield client


def outputs(calls: httpx.Client, ref: str, inputs: list[Any], **body: Any) -> list[Any]:
    answer = calls.post(f"/models/{ref}/predict", json={"inputs": inputs, **body})
    assert answer.status_code == 200, answer.text
    found: list[Any] = answer.json()["outputs"]
    return found


def same(found: list[Any], expected: list[Any]) -> bool:
    """Compare answers but for the last digits, which a batch may change."""
    assert [one["label"] for one in found] == [one["label"] for one in expected]
    return [one["score"] for one in found] == pytest.approx([one["score"] for one in expected], abs=1e-5)


def test_a_text_as_the_body(calls: httpx.Client) -> None:
    expected = outputs(calls, "said", ["what is the räte"], parameters={"top_k": 1})
    for charset in ("utf-8", "latin-1"):
        answer = calls.post(
            "/models/said/predict",
            content="what is the räte".encode(charset),
            headers={"Content-Type": f"text/plain; charset={charset}", "X-Request-Timeout": "30"},
            params={"top_k": 1},
        )
        assert answer.status_code == 200, answer.text
        assert answer.headers["Model-State"] == "loaded"
        assert same(answer.json()["outputs"], expected)
        assert len(answer.json()["outputs"][0]["probabilities"]) == 1
    long = calls.post("/models/said/predict", content=b"x" * 2 * LONGEST, headers=TEXT)
    assert [one["code"] for one in long.json()["warnings"]] == ["truncated"]


def test_a_body_for_hugging_face_s_clients(alone: Stack, calls: httpx.Client) -> None:
    headers = {"Authorization": f"Bearer {alone.key}", "Content-Type": "application/octet-stream"}
    answer = httpx.post(f"{alone.url}/hf/models/said?top_k=2", content=TEXTS[0].encode(), headers=headers, timeout=30)
    (expected,) = outputs(calls, "said", [TEXTS[0]])
    assert [one["label"] for one in answer.json()] == list(expected["probabilities"])[:2]
    wrong = httpx.post(f"{alone.url}/hf/models/said", content=b"", headers=headers, timeout=30)
    assert (wrong.status_code, set(wrong.json())) == (400, {"error"})


FILES = {"anyOf": [{"type": "string", "contentEncoding": "base64", "contentMediaType": "image/*"}]}


def test_what_a_model_of_files_would_be_given() -> None:
    # No modality here reads files; this is what one gets whose schema says that it does.
    content = b"\x89PNG\xff"
    for kind, name in (("image/png", None), ("application/octet-stream", "a.png"), ("", "a.jpeg")):
        assert Content.of(content, kind, name).inputs(FILES) == [content]
    with pytest.raises(ApiError, match="image/"):
        Content.of(b"text", "text/plain").inputs(FILES)
    raw = b"".join(len(one).to_bytes(4, "little") + one for one in (content, b"second"))
    tensor = {"name": "input", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(raw)}}
    asked, rest = oip_tensors.parse(json.dumps({"inputs": [tensor]}).encode(), None)
    assert rest == b""
    assert oip_tensors.to_inputs(asked, memoryview(raw), oip_tensors.input_specs(FILES)) == [content, b"second"]


def test_files_of_a_form(calls: httpx.Client) -> None:
    files = [("file", (f"{n}.txt", text)) for n, text in enumerate(TEXTS)]
    answer = calls.post("/models/said/predict", files=files, data={"parameters": '{"probabilities": false}'})
    assert answer.status_code == 200, answer.text
    assert same(answer.json()["outputs"], outputs(calls, "said", list(TEXTS)))
    assert "probabilities" not in answer.json()["outputs"][0]
    empty = calls.post("/models/said/predict", files=[*files, ("more", ("empty.txt", "  "))]).json()
    assert [one["index"] for one in empty["errors"]] == [len(TEXTS)]


def test_a_table_as_the_body(calls: httpx.Client) -> None:
    rows = [INPUT, {**INPUT, "x3": None}, {**INPUT, "x0": -1e3}]
    expected = outputs(calls, "rows", rows)
    lines = [",".join(INPUT), *(",".join("" if v is None else str(v) for v in row.values()) for row in rows)]
    table = calls.post("/models/rows/predict", content="\r\n".join(lines), headers={"Content-Type": "text/csv"})
    assert same(table.json()["outputs"], expected)
    jsonl = "\n".join(map(json.dumps, rows))
    for content in (
        calls.post("/models/rows/predict", content=jsonl, headers={"Content-Type": "application/x-ndjson"}),
        calls.post("/models/rows/predict", files={"file": ("rows.jsonl", jsonl)}),
    ):
        assert same(content.json()["outputs"], expected)
    said = calls.post("/models/said/predict", content=f'said\n"{TEXTS[0]}"\n', headers={"Content-Type": "text/csv"})
    assert same(said.json()["outputs"], outputs(calls, "said", [TEXTS[0]]))


@pytest.mark.parametrize(
    ("ref", "kind", "content", "status", "said"),
    [
        ("said", "image/png", b"\x89PNG", 415, 'not "image/png"'),
        ("rows", "text/plain", b"x", 415, "text/csv"),
        ("said", "text/plain; charset=klingon", b"x", 422, "klingon"),
        ("said", "text/plain", b"\xff", 422, "not text in utf-8"),
        ("rows", "text/csv", b"x0,x1\n1\n", 422, "1 cells in line 2, but 2 columns"),
        ("rows", "text/csv", b'x0\n"1\n', 422, "no CSV"),
        ("rows", "text/csv", b"x0,x1\n", 422, "no input"),
        ("rows", "application/jsonl", b"{}\n{", 422, "line 2"),
        ("said", "multipart/form-data; boundary=x", b"--x--\r\n", 422, "no file"),
        ("said", "multipart/form-data", b"x", 400, "body"),
        ("nobody", "text/plain", b"x", 404, "nobody"),
    ],
)
def test_wrong_bodies(calls: httpx.Client, ref: str, kind: str, content: bytes, status: int, said: str) -> None:
    answer = calls.post(f"/models/{ref}/predict", content=content, headers={"Content-Type": kind})
    body = problem(answer, status, answer.json()["code"])
    assert said in body["detail"], body
    assert body["hint"] or status == 400, body


def test_wrong_forms(calls: httpx.Client) -> None:
    file = {"file": ("a.txt", "a text")}
    for fields, said in (({"parameters": "[1]"}, "no JSON object"), ({"text": "x"}, '"text" is no file')):
        body = problem(calls.post("/models/said/predict", files=file, data=fields), 422, "invalid_request")
        assert said in body["detail"]
    body = problem(calls.post("/models/said/predict", files=file, params={"top": 1}), 422, "invalid_config")
    assert "top" in body["detail"]
    kind = {"Content-Type": "text/plain", "Authorization": "Bearer x"}
    problem(calls.post("/models/said/predict", content=b"x", headers=kind), 401, "wrong_key")


def test_a_threshold(calls: httpx.Client) -> None:
    (whole,) = outputs(calls, "said", ["a card"])
    least = sorted(whole["probabilities"].values())[1]
    (some,) = outputs(calls, "said", ["a card"], parameters={"threshold": least})
    assert some == {**whole, "probabilities": {k: v for k, v in whole["probabilities"].items() if v >= least}}
    (none,) = outputs(calls, "said", ["a card"], parameters={"threshold": 1})
    assert none == {"label": None, "score": whole["score"], "probabilities": {}}


@pytest.mark.parametrize(("ref", "one", "other"), [("said", *TEXTS[:2]), ("rows", INPUT, {**INPUT, "x0": 9.0})])
def test_embeddings_and_their_similarity(client: Client, calls: httpx.Client, ref: str, one: Any, other: Any) -> None:
    answer = calls.post(f"/models/{ref}/embed", json={"inputs": [one, 5, other]}).json()
    first, second = np.array(answer["embeddings"][0]), np.array(answer["embeddings"][2])
    assert answer["width"] == len(first) == len(second)
    assert (answer["embeddings"][1], [error["index"] for error in answer["errors"]]) == (None, [1])
    assert answer["timing"]["batch_size"] == 2
    unit = client.models.embed(ref, [one, other], normalize=True).embeddings
    assert np.allclose(unit[0], first / np.linalg.norm(first), atol=1e-5)
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    each = client.models.similarity(ref, [one, other])
    assert np.allclose(each, [[1, cosine], [cosine, 1]], atol=1e-5)
    assert np.allclose(client.models.similarity(ref, one, [other, one]), [[cosine, 1]], atol=1e-5)
    bad = problem(calls.post(f"/models/{ref}/similarity", json={"inputs": [one, 5]}), 400, "invalid_input")
    assert "Input 1" in bad["detail"]


def test_an_embedding_is_a_base_model_s_answer(alone: Stack, client: Client, calls: httpx.Client) -> None:
    (expected,) = (one["embedding"] for one in outputs(calls, "base", [TEXTS[0]]))
    answer = calls.post("/models/base/embed", content=TEXTS[0].encode(), headers=TEXT).json()
    assert np.allclose(answer["embeddings"], [expected], atol=1e-6)
    hugging_face = InferenceClient(model=f"{alone.url}/hf/models/base", token=alone.key)
    assert np.allclose(hugging_face.feature_extraction(TEXTS[0]), [expected], atol=1e-6)
    found = hugging_face.sentence_similarity(TEXTS[0], list(TEXTS))
    assert np.allclose(found, client.models.similarity("base", TEXTS[0], list(TEXTS))[0], atol=1e-5)
