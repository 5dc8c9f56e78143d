"""The short way to a prediction: what goes wrong on it is answered once, as the application would answer it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from registered import INPUT, register
from servers import Stack
from support import problem

from service.app import create_app
from service.errors import ApiError
from service.settings import ServiceSettings


class Failing:
    """Computes nothing, and notes how often it was asked to."""

    def __init__(self, error: Exception) -> None:
        self.error, self.batches = error, 0

    def __call__(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        self.batches += 1
        raise self.error


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The application in this process, where a batch can be made to fail."""
    stack = Stack(tmp_path_factory.mktemp("short"))
    stack.directory.mkdir(exist_ok=True)
    for arguments in (("migrations", "upgrade"), ("service", "--ensure-key")):
        done = stack.run(*arguments)
        assert done.returncode == 0, done.stderr
    register(stack, "small")
    app = create_app(ServiceSettings(data_dir=Path(stack.data_dir)))
    headers = {"Authorization": f"Bearer {stack.key}"}
    with TestClient(app, "http://localhost/api/v1", raise_server_exceptions=False, headers=headers) as opened:
        assert opened.post("/models/small/predict", json={"inputs": [INPUT]}).status_code == 200
        yield opened


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [(ValueError("unforeseen"), 500, "internal_error"), (ApiError(429, "too_busy", "Later."), 429, "too_busy")],
)
def test_a_batch_that_fails_is_computed_once(client: TestClient, error: Exception, status: int, code: str) -> None:
    ((loaded, _),) = client.app.state.opened.predictors.ledger()  # type: ignore[attr-defined]
    working, loaded.batcher._answer = loaded.batcher._answer, (failing := Failing(error))
    try:
        body = problem(client.post("/models/small/predict", json={"inputs": [INPUT]}), status, code)  # type: ignore[arg-type]
    finally:
        loaded.batcher._answer = working
    assert failing.batches == 1
    assert "unforeseen" not in body["detail"]
    assert client.post("/models/small/predict", json={"inputs": [INPUT]}).status_code == 200


def test_wrong_parameters_are_explained_there(client: TestClient) -> None:
    asked = {"inputs": [INPUT], "parameters": {"tok_k": 1}}
    body = problem(client.post("/models/small/predict", json=asked), 422, "invalid_config")  # type: ignore[arg-type]
    assert "tok_k" in body["detail"]
    assert "top_k" in body["hint"]
