"""A service that has more to do than it can at once: who waits too long, who has left, and who is one too many."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from media_files import encoded
from PIL import Image
from processes import resident
from registered import LONGEST, register_image, register_text
from servers import Stack
from support import problem, wait_until

# A batch of it takes a good part of a second: long enough for everything that is to happen meanwhile.
LAYERS, WIDTH = 3, 512
LONG = "x" * LONGEST
MOST_WAITING = 20


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An API with one slow model, and few requests that may wait for it."""
    stack = Stack(tmp_path_factory.mktemp("slow"), {"ANNEAL_MAX_WAITING_INPUTS": str(MOST_WAITING)})
    try:
        stack.up(workers=False)
        register_text(stack, "slow", LAYERS, WIDTH)
        yield stack
    finally:
        stack.down()


@pytest.fixture
def calls(slow: Stack) -> Iterator[httpx.Client]:
    with slow.client() as client:
        assert client.post("/models/slow/load").status_code == 200
        yield client


def ledger(client: httpx.Client) -> dict[str, Any]:
    entries: list[dict[str, Any]] = client.get("/models:loaded").json()["data"]
    return entries[0]


def ask(stack: Stack, texts: int, **headers: str) -> httpx.Response:
    with stack.client(headers={"Authorization": f"Bearer {stack.key}", **headers}) as client:
        return client.post("/models/slow/predict", json={"inputs": [LONG] * texts})


@pytest.fixture
def busy(slow: Stack, calls: httpx.Client) -> Iterator[Future[httpx.Response]]:
    """A request for two batches, the first of which has just begun."""
    wait_until(lambda: ledger(calls)["in_use"] == 0)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, slow, 10)
        wait_until(lambda: ledger(calls)["in_use"] == 1, every_s=0.005)
        yield first


def test_a_deadline_that_passes_saves_the_work(slow: Stack, calls: httpx.Client, busy: Future[httpx.Response]) -> None:
    before = ledger(calls)["rows"]
    problem(ask(slow, 1, **{"X-Request-Timeout": "0.05"}), 504, "deadline_exceeded")
    assert busy.result().status_code == 200
    assert ask(slow, 1).status_code == 200
    assert ledger(calls)["rows"] - before == 10 + 1


def test_whoever_leaves_is_not_computed(slow: Stack, calls: httpx.Client, busy: Future[httpx.Response]) -> None:
    before = ledger(calls)["rows"]
    body = json.dumps({"inputs": [LONG] * 3})
    with socket.create_connection(("127.0.0.1", slow.port)) as leaving:
        leaving.sendall(
            f"POST /api/v1/models/slow/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {slow.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        wait_until(lambda: ledger(calls)["in_use"] == 2, every_s=0.005)
    wait_until(lambda: ledger(calls)["in_use"] == 1, every_s=0.005)
    assert busy.result().status_code == 200
    assert ask(slow, 1).status_code == 200
    assert ledger(calls)["rows"] - before == 10 + 1


def test_one_too_many_is_told_when_to_come_back(slow: Stack, calls: httpx.Client, busy: Future[httpx.Response]) -> None:
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(ask, slow, MOST_WAITING - 4)
        wait_until(lambda: ledger(calls)["in_use"] == 2, every_s=0.005)
        refused = ask(slow, 5)
        body = problem(refused, 429, "too_busy")
        assert refused.headers["Retry-After"] == "1"
        assert (body["retryable"], f"at most {MOST_WAITING} may" in body["detail"]) == (True, True)
        assert waits.result().status_code == busy.result().status_code == 200


def test_what_answers_is_not_unloaded_under_it(slow: Stack, calls: httpx.Client, busy: Future[httpx.Response]) -> None:
    assert calls.post("/models/slow/unload").json()["was_loaded"]
    body = calls.get("/models:loaded").json()
    # It leaves once it has answered, and its memory is counted until then.
    assert body["data"] == []
    assert body["used_bytes"] > 0
    answer = busy.result()
    assert (answer.status_code, len(answer.json()["outputs"]), answer.json()["errors"]) == (200, 10, [])
    wait_until(lambda: calls.get("/models:loaded").json()["used_bytes"] == 0)
    assert ask(slow, 1).headers["Model-State"] == "cold"


def test_memory_comes_back(slow: Stack, calls: httpx.Client) -> None:
    process = slow.processes["api"].pid
    ask(slow, 2)
    calls.post("/models/slow/unload")
    wait_until(lambda: calls.get("/models:loaded").json()["used_bytes"] == 0)
    sizes = []
    for _ in range(2):
        ask(slow, 2)
        sizes.append(resident(process))
        calls.post("/models/slow/unload")
        # Its weights alone are 38 MB.
        wait_until(lambda: resident(process) < sizes[-1] - 30_000_000)
    assert sizes[1] < 1.1 * sizes[0]


def test_reading_large_pictures_holds_nobody_up(slow: Stack, calls: httpx.Client) -> None:
    register_image(slow, "pictures", side=16)
    large = base64.b64encode(encoded(Image.new("RGB", (4000, 3000), (40, 90, 200)))).decode()
    others_are_answered_during(slow, calls, "pictures", [large] * 12)


def test_reading_long_texts_holds_nobody_up(slow: Stack, calls: httpx.Client) -> None:
    register_text(slow, "texts")
    others_are_answered_during(slow, calls, "texts", ["my card is lost. " * 30_000] * 8)


def others_are_answered_during(stack: Stack, calls: httpx.Client, model: str, inputs: list[str]) -> None:
    calls.post(f"/models/{model}/load").raise_for_status()
    took: list[float] = []
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        reading = pool.submit(calls.post, f"/models/{model}/predict", json={"inputs": inputs})
        while not reading.done():
            asked = time.monotonic()
            httpx.get(f"{stack.url}/livez").raise_for_status()
            took.append(time.monotonic() - asked)
        seconds = time.monotonic() - began
    assert reading.result().json()["errors"] == []
    assert len(took) > 5, (took, seconds)
    assert max(took) < seconds / 3, (took, seconds)
