"""Requests that no client means to send: wrong keys, broken bodies, foreign hosts, sizes beyond every cap."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from servers import Stack
from support import TRAIN, classify, new_key, problem, upload

BOUNDARY_CASES = "a,b,label\n1,2,x\n3,4,y\n"


def test_keys(embedded: Stack, running: httpx.Client) -> None:
    good = new_key(embedded, scopes=("datasets", "admin"))
    expired = new_key(embedded, expires_at=time.time() - 1)
    key_id = good.partition(".")[0]

    def ask(authorization: str | None, path: str = "/datasets") -> httpx.Response:
        headers = {"Authorization": authorization} if authorization is not None else {}
        return httpx.get(f"{embedded.url}/api/v1{path}", headers=headers)

    missing = problem(ask(None), 401, "missing_key")
    assert "Authorization: Bearer" in missing["hint"]
    assert ask(None).headers["www-authenticate"] == "Bearer"
    for header in ("", "Bearer", "Basic dXNlcjpwYXNz", good):
        problem(ask(header), 401, "missing_key")
    for key in ("nonsense", key_id, f"{key_id}.", f"{key_id}.wrong", f"{good}x", expired, "a.b.c"):
        assert "file api_key" in problem(ask(f"Bearer {key}"), 401, "wrong_key")["hint"]
    assert ask(f"Bearer {good}").status_code == 200
    body = problem(ask(f"Bearer {good}", "/jobs"), 403, "missing_scope")
    assert '"jobs"' in body["detail"]
    assert "datasets" in body["detail"]
    assert running.delete(f"/keys/{key_id}").status_code == 204
    problem(ask(f"Bearer {good}"), 401, "wrong_key")
    problem(running.delete("/keys/key_0"), 404, "not_found")


@pytest.mark.parametrize(
    "body",
    [
        {"name": ""},
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["root"]},
        {"name": "x", "expires_at": "tomorrow"},
        {"name": "x", "expires_at": "2030-01-01T00:00:00"},
        {"name": "x", "expires_at": "0001-01-01T00:00:00+14:00"},
        {"name": "a\0"},
        {"name": "x", "project": "other"},
    ],
)
def test_wrong_keys_to_make(running: httpx.Client, body: dict[str, Any]) -> None:
    problem(running.post("/keys", json=body), 422, "invalid_request")


JSON_TYPE = {"Content-Type": "application/json"}


@pytest.mark.parametrize("text", ["{", "", "nope", '{"kind": }', '{"a": 1,}', "[" * 100])
def test_malformed_json(running: httpx.Client, text: str) -> None:
    response = running.post("/jobs", content=text, headers=JSON_TYPE)
    body = problem(response, 422, "malformed_json" if text else "invalid_request")
    if text:
        assert "character" in body["detail"]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, b'{"kind": "\xff"}'])
def test_json_that_no_parser_takes(running: httpx.Client, text: str | bytes) -> None:
    response = running.post("/jobs", content=text, headers=JSON_TYPE)
    problem(response, response.status_code, response.json()["code"])
    assert response.status_code in (400, 422)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "x", None])
def test_wrong_content_type(running: httpx.Client, rows: str, kind: str | None) -> None:
    headers = {"Content-Type": kind} if kind else {}
    response = running.post("/jobs", content=json.dumps(classify(rows)).encode(), headers=headers)
    body = problem(response, 415, "unsupported_media_type")
    assert "application/json" in body["hint"]
    response = running.post("/datasets", content=b"a,b\n1,2\n", headers={"Content-Type": "text/csv"})
    hint = problem(response, 415, "unsupported_media_type")["hint"]
    assert "multipart/form-data" in hint
    assert "-F file=@" in hint


def test_a_broken_multipart_body(running: httpx.Client) -> None:
    for content in (b"no parts at all", b"--x\r\nContent-Disposition: form-data", b"--x\r\n\r\n\r\n--x--\r\n"):
        response = running.post(
            "/datasets", content=content, headers={"Content-Type": "multipart/form-data; boundary=x"}
        )
        problem(response, response.status_code, response.json()["code"])
        assert response.status_code in (400, 422)
    response = running.post("/datasets", content=b"x", headers={"Content-Type": "multipart/form-data"})
    assert response.status_code == 400


def test_unknown_paths_and_methods(running: httpx.Client, embedded: Stack) -> None:
    body = problem(running.get("/nowhere"), 404, "not_found")
    assert "/api/v1/nowhere" in body["detail"]
    problem(httpx.get(embedded.url + "/nowhere"), 404, "not_found")
    for method, path in (("PUT", "/jobs"), ("DELETE", "/jobs"), ("TRACE", "/jobs"), ("PATCH", "/datasets")):
        response = running.request(method, path)
        body = problem(response, 405, "method_not_allowed")
        assert method in body["detail"]
        assert "GET" in body["hint"]
        assert "GET" in response.headers["allow"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::2]", "a\\b"])
def test_a_foreign_host(running: httpx.Client, embedded: Stack, host: str) -> None:
    body = problem(running.get("/jobs", headers={"Host": host}), 400, "unknown_host")
    assert "ANNEAL_ALLOWED_HOSTS" in body["hint"]
    assert running.get("/jobs", headers={"Host": f"localhost:{embedded.port}"}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/datasets/..%2f..%2fetc%2fpasswd",
        "/datasets/../../etc/passwd",
        "/jobs/..%2f..%2f",
        "/jobs/%2e%2e/logs",
        "/jobs/..%2f..%2fapi_key/logs",
        "/datasets/%00",
        "/jobs/job_%00/logs",
        "/datasets/a%00b/content",
        "/models/..%2f..%2f/versions/1",
        "/models/shared/versions/1/files/..%2f..%2f..%2fapi_key",
        "/models/shared/versions/1/files/../../../../api_key",
        "/models/shared/versions/1/files//etc/passwd",
        "/models/shared/versions/1/files/%2fetc%2fpasswd",
        "/models/shared/versions/1/files/..%5c..%5capi_key",
        "/datasets?name=%00",
        "/jobs?after=%00",
    ],
)
def test_traversal(embedded: Stack, trained: dict[str, Any], path: str) -> None:
    # Raw, because a client tidies such paths up before it sends them.
    with socket.create_connection(("127.0.0.1", embedded.port), 10) as connection:
        connection.sendall(
            f"GET /api/v1{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            f"Authorization: Bearer {embedded.key}\r\n\r\n".encode()
        )
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode(errors="replace")
    assert answer.split()[1] in ("400", "404"), answer
    assert "application/problem+json" in answer
    assert embedded.key not in answer
    assert "root:" not in answer


@pytest.mark.parametrize(
    "path",
    [
        "/models/shared/versions/99999999999999999999",
        "/models/shared/versions/0",
        "/models/shared/versions/-1",
        "/models/shared/versions/x",
        "/jobs/{job}/events?after=99999999999999999999",
        "/jobs/{job}/metrics?after=-1",
        "/jobs/{job}/metrics?after=99999999999999999999999",
        "/jobs?limit=0",
        "/jobs?limit=101",
        "/jobs?order=up",
        "/jobs?status=done",
        "/datasets?status=done",
        "/jobs/{job}?wait=-1",
        "/jobs/{job}?wait=nan",
        "/jobs/{job}?wait=61",
    ],
)
def test_numbers_beyond_their_bounds(running: httpx.Client, trained: dict[str, Any], path: str) -> None:
    body = problem(running.get(path.format(job=trained["id"])), 422, "invalid_request")
    assert body["errors"][0]["pointer"].strip("/")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An API with small caps and no workers."""
    stack = Stack(
        tmp_path_factory.mktemp("small"), {"ANNEAL_MAX_BODY_BYTES": "20000", "ANNEAL_MAX_UPLOAD_BYTES": "3000000"}
    )
    try:
        yield stack.up(workers=False)
    finally:
        stack.down()


def chunks(total: int) -> Iterator[bytes]:
    for _ in range(total // 1000):
        yield b" " * 1000


def test_caps_on_json(small: Stack) -> None:
    with small.client() as api:
        body = problem(api.post("/jobs", content=b" " * 20_001, headers=JSON_TYPE), 413, "too_large")
        assert "ANNEAL_MAX_BODY_BYTES" in body["hint"]
        problem(api.post("/jobs", content=chunks(100_000), headers=JSON_TYPE), 413, "too_large")
        problem(api.post("/models/x/predict", content=chunks(100_000), headers=JSON_TYPE), 413, "too_large")
        assert "predict-dataset" not in body["hint"]
        assert api.post("/jobs", content=b" " * 19_000 + b"{", headers=JSON_TYPE).status_code == 422


def test_what_is_too_large_for_a_prediction_is_told_of_the_job_that_takes_it(small: Stack) -> None:
    with small.client() as api:
        hint = problem(api.post("/models/x/predict", content=b" " * 20_001, headers=JSON_TYPE), 413, "too_large")[
            "hint"
        ]
        elsewhere = api.post(f"{small.url}/hf/models/x", content=b" " * 20_001, headers=JSON_TYPE)
    assert "ANNEAL_MAX_BODY_BYTES" in hint
    assert "ANNEAL_MAX_UPLOAD_BYTES" not in hint
    assert "POST /api/v1/models/{ref}/predict-dataset" in hint
    assert elsewhere.status_code == 413
    assert hint in elsewhere.json()["error"]


def test_caps_on_uploads(small: Stack) -> None:
    with small.client() as api:
        under = api.post("/datasets", files={"file": ("t.csv", b"a\n" + b"1\n" * 1_400_000)})
        assert under.status_code == 201, under.text  # far more than JSON may have
        body = problem(api.post("/datasets", files={"file": ("t.csv", b"1\n" * 1_600_000)}), 413, "too_large")
        assert "ANNEAL_MAX_UPLOAD_BYTES" in body["hint"]

        def stream() -> Iterator[bytes]:
            yield (
                b'--x\r\nContent-Disposition: form-data; name="file"; filename="t.csv"\r\n'
                b"Content-Type: text/csv\r\n\r\n"
            )
            yield from chunks(9_000_000)
            yield b"\r\n--x--\r\n"

        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        problem(api.post("/datasets", content=stream(), headers=kind), 413, "too_large")
    assert not list((small.data_dir / "artifacts" / "incoming").iterdir())


@pytest.mark.parametrize("place", ["path", "field", "number", "metadata"])
def test_what_one_database_takes_and_the_other_does_not(api: httpx.Client, tmp_path: Path, place: str) -> None:
    """NUL and numbers beyond a column's width are refused alike on both columns."""
    if place == "path":
        problem(api.get("/jobs/a%00b"), 400, "invalid_request")
    elif place == "field":
        problem(api.post("/keys", json={"name": "a\0b"}), 422, "invalid_request")
        problem(
            api.post("/datasets", files={"file": ("t.csv", BOUNDARY_CASES)}, data={"name": "a\0b"}),
            422,
            "invalid_request",
        )
    elif place == "number":
        problem(api.get("/models/x/versions/2147483648"), 422, "invalid_request")
        problem(api.put("/models/x/aliases/y", json={"version": 2**40}), 422, "invalid_request")
        problem(api.get("/models/x/versions/2147483647"), 404, "not_found")
        problem(api.post("/models/x:999999999/predict", json={"inputs": [1]}), 404, "not_found")
    else:
        dataset = upload(api, "a,b\n" + "".join(f"{n},x\\u0000{n}\x01\n" for n in range(30)))
        assert dataset["status"] in ("ready", "invalid")
        dataset = upload(api, b"a,b\n1,x\n2,y\x00z\n3,w\n")
        assert dataset["status"] in ("ready", "invalid")
        assert dataset["error"] is None or dataset["error"]["code"] == "invalid_dataset"


def test_nothing_of_a_request_breaks_the_server(embedded: Stack) -> None:
    assert TRAIN.is_file()
    assert "Traceback" not in embedded.log("api"), embedded.log("api")[-3000:]
    assert embedded.processes["api"].poll() is None
