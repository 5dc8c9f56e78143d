"""The routes of the OpenAPI document, and those beside them: what to send each, and how it refuses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import httpx
from support import problem

from service.app import openapi

OPEN = {"/livez", "/readyz", "/v2/health/live", "/v2/health/ready"}
OPENAI = "/v1"
FOREIGN = ("/v2", "/hf", OPENAI)  # other protocols, with errors of their own form
OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 404: "invalid_request_error"}
DOCUMENT = openapi()
HOOK: dict[str, Any] = {"url": "https://example.com/hook", "events": ["job.succeeded"]}
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("post", "/api/v1/jobs"): {"json": {"kind": "pretrain", "dataset": "ds_0"}},
    ("post", "/api/v1/datasets"): {"files": {"file": ("t.csv", b"a\n1\n")}},
    ("post", "/api/v1/uploads"): {"json": {"filename": "t.csv", "bytes": 1}},
    ("put", "/api/v1/uploads/{upload_id}/parts/{number}"): {"content": b"x"},
    ("patch", "/api/v1/datasets/{dataset_id}"): {"json": {"tags": []}},
    ("get", "/api/v1/datasets/{dataset_id}/diff"): {"params": {"against": "ds_0"}},
    ("patch", "/api/v1/jobs/{job_id}"): {"json": {"priority": 1}},
    ("post", "/api/v1/models"): {"json": {"model": "x", "path": "x"}},
    ("post", "/api/v1/models/{ref}/predict"): {"json": {"inputs": [{}]}},
    ("post", "/api/v1/models/{ref}/embed"): {"json": {"inputs": [{}]}},
    ("post", "/api/v1/models/{ref}/similarity"): {"json": {"inputs": [{}]}},
    ("post", "/api/v1/models/{ref}/predict-dataset"): {"json": {"dataset": "ds_0"}},
    ("post", "/hf/models/{ref}"): {"json": {"inputs": [{}]}},
    ("post", "/v1/embeddings"): {"json": {"model": "shared", "input": "x"}},
    ("post", "/v1/completions"): {"json": {"model": "shared", "prompt": "x"}},
    ("post", "/v1/files"): {"files": {"file": ("t.jsonl", b"{}")}, "data": {"purpose": "batch"}},
    ("post", "/v1/uploads"): {
        "json": {"filename": "t.jsonl", "bytes": 1, "purpose": "batch", "mime_type": "application/jsonl"}
    },
    ("post", "/v1/uploads/{upload_id}/parts"): {"files": {"data": ("part", b"x")}},
    ("post", "/v1/uploads/{upload_id}/complete"): {"json": {"part_ids": ["part_0"]}},
    ("post", "/v1/fine_tuning/jobs"): {"json": {"model": "shared", "training_file": "ds_0"}},
    ("post", "/v1/batches"): {
        "json": {"input_file_id": "file_0", "endpoint": "/v1/embeddings", "completion_window": "24h"}
    },
    ("put", "/api/v1/models/{name}/aliases/{alias}"): {"json": {"version": 1}},
    ("post", "/api/v1/keys"): {"json": {"name": "x"}},
    ("post", "/api/v1/webhooks"): {"json": HOOK},
    ("patch", "/api/v1/webhooks/{webhook_id}"): {"json": {"enabled": True}},
    ("post", "/api/v1/galleries"): {"json": {"name": "known", "model": "shared"}},
    ("patch", "/api/v1/galleries/{gallery}"): {"json": {"threshold": 0.5}},
    ("post", "/api/v1/galleries/{gallery}/subjects"): {"json": {"name": "x", "inputs": ["eA=="]}},
    ("post", "/api/v1/galleries/{gallery}/subjects/{subject_id}/samples"): {"json": {"inputs": ["eA=="]}},
    ("post", "/api/v1/galleries/{gallery}/move"): {"json": {"model": "shared"}},
    ("post", "/api/v1/galleries/{gallery}/identify"): {"json": {"inputs": ["eA=="]}},
    ("post", "/api/v1/galleries/{gallery}/verify"): {"json": {"inputs": ["eA==", "eA=="]}},
}
TEXT: dict[str, Any] = {"content": b"x", "headers": {"Content-Type": "text/plain"}}
FACE: dict[str, Any] = {"content": b"x", "headers": {"Content-Type": "image/png"}, "params": {"name": "x"}}
# Routes that stand beside those of the document, for requests whose headers ask for them.
BESIDE: dict[tuple[str, str, str], dict[str, Any]] = {
    ("post", "/api/v1/models/{ref}/predict", "later"): {
        "json": {"inputs": [{}]},
        "headers": {"Prefer": "respond-async"},
    },
    ("post", "/api/v1/models/{ref}/predict", "of a text"): TEXT,
    ("post", "/api/v1/models/{ref}/embed", "of a text"): TEXT,
    ("post", "/hf/models/{ref}", "of a text"): TEXT,
    ("post", "/api/v1/galleries/{gallery}/subjects", "of a file"): FACE,
    ("post", "/api/v1/galleries/{gallery}/subjects/{subject_id}/samples", "of a file"): {**FACE, "params": {}},
    ("post", "/api/v1/galleries/{gallery}/identify", "of a file"): {**FACE, "params": {}},
    ("post", "/api/v1/galleries/{gallery}/verify", "of a file"): {**FACE, "params": {"subject": "x"}},
}


_OPENAI_SCOPES = {
    "files": "datasets",
    "uploads": "datasets",
    "fine_tuning": "jobs",
    "batches": "jobs",
    "models": "models",
    "embeddings": "predict",
    "completions": "predict",
}


@dataclass(frozen=True)
class Route:
    method: str
    path: str
    beside: str = ""

    @property
    def scope(self) -> str:
        if self.path == "/metrics" or "/keys" in self.path:
            return "admin"
        if self.path.startswith(OPENAI):
            return _OPENAI_SCOPES[self.path.split("/")[2]]
        if "/datasets" in self.path or "/uploads" in self.path:
            return "datasets"
        if self.path.startswith(FOREIGN):
            return "models" if self.path.endswith("load") else "predict"
        if self.path.endswith("/predict-dataset"):
            return "jobs"
        if "/predictions/" in self.path:
            return "predict"
        if "/galleries" in self.path:
            return "predict" if self.path.endswith(("/identify", "/verify")) else "models"
        if self.path.endswith(("/predict", "/embed", "/similarity", "/schema")) and "/models/" in self.path:
            return "predict"
        return "models" if "/models" in self.path else "jobs"

    def ask(self, client: httpx.Client, ids: dict[str, str] | None = None, key: str | None = None) -> httpx.Response:
        path = re.sub(r"\{(\w+)\}", lambda match: "1" if ids is None else ids[self.kind_of(match[1])], self.path)
        asked = BESIDE[self.method, self.path, self.beside] if self.beside else BODIES.get((self.method, self.path), {})
        headers = {**asked.get("headers", {}), **({"Authorization": f"Bearer {key}"} if key else {})}
        return client.request(self.method, path, **{**asked, "headers": headers})

    def kind_of(self, parameter: str) -> str:
        """Return by which name the ids have what the path calls so: some names mean several kinds of things."""
        if self.path.startswith(OPENAI) and parameter == "upload_id":
            return "v1_upload_id"
        return "prediction_id" if self.path.endswith("/output") else parameter


ROUTES = [Route(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods]
ROUTES += [Route(*beside) for beside in BESIDE]
CLOSED = [route for route in ROUTES if route.path not in OPEN]
# A task's or an architecture's name is no project's.
WITH_ID = [route for route in CLOSED if "{" in route.path and "/architectures/" not in route.path]


def refused(response: httpx.Response, route: Route, status: int, code: str) -> dict[str, Any]:
    """Return the error after checking its form; another protocol's as if it had a detail alone."""
    if not route.path.startswith(FOREIGN):
        return problem(response, status, code)
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    if route.path.startswith(OPENAI):
        assert set(error) == {"message", "type", "param", "code"}
        assert (error["type"], error["code"]) == (OPENAI_TYPES[status], code)
        error = error["message"]
    return {"detail": error, "hint": None}


def without(ids: dict[str, str]) -> dict[str, str]:
    """Return ids of nothing."""
    return {**dict.fromkeys(ids, "absent"), "number": "1", "version": "1", "path": "config.json"}


def nameless(said: str, ids: dict[str, str]) -> str:
    """Return what was said of some of the ids as it would be said of ids of nothing."""
    for value in ids.values():
        said = said.replace(f'"{value}"', '"absent"').replace(f"/{value}", "/absent")
    return said


def name(route: Route) -> str:
    return f"{route.method} {route.path} {route.beside}".rstrip()
