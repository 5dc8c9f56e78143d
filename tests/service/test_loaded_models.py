"""Models in memory: loaded on demand and beforehand, pinned, unloaded, making room; and who may ask them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from processes import resident
from registered import INPUT, register
from servers import Stack
from support import new_key, problem, stack_database, wait_until

from service.predictors import OVERHEAD_BYTES
from store import models

BUDGET = 100_000_000


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An API without workers and with memory for one large model."""
    stack = Stack(tmp_path_factory.mktemp("alone"), {"ANNEAL_PREDICTOR_MEMORY_BYTES": str(BUDGET)})
    try:
        stack.up(workers=False)
        register(stack, "small", aliases=("production",))
        register(stack, "small")
        register(stack, "other")
        register(stack, "large", (4000, 4000))
        register(stack, "large", (4000, 4000))
        register(stack, "huge", (5000, 5000))
        yield stack
    finally:
        stack.down()


@pytest.fixture
def calls(alone: Stack) -> Iterator[httpx.Client]:
    with alone.client() as client:
        yield client


def predict(client: httpx.Client, ref: str, **options: Any) -> httpx.Response:
    return client.post(f"/models/{ref}/predict", json={"inputs": [INPUT]}, **options)


def ledger(client: httpx.Client) -> dict[str, dict[str, Any]]:
    return {one["ref"]: one for one in client.get("/models:loaded").json()["data"]}


def test_load_pin_unload_and_the_ledger(calls: httpx.Client) -> None:
    calls.post("/models/small:1/unload")
    loaded = calls.post("/models/small:1/load", json={"pin": True}).json()
    assert (loaded["state"], loaded["pinned"], loaded["model"]["version"]) == ("cold", True, 1)
    assert loaded["load_ms"] > 0
    assert calls.post("/models/small:1/load").json()["state"] == "loaded"
    answer = predict(calls, "small:1")
    assert answer.headers["Model-State"] == "loaded"
    assert answer.json()["timing"]["load_ms"] == 0
    before = ledger(calls)["small:1"]
    assert (before["pinned"], before["in_use"]) == (True, 0)
    assert before["bytes"] == loaded["bytes"] > 0
    assert calls.post("/models/small:1/unload").json()["was_loaded"]
    assert not calls.post("/models/small:1/unload").json()["was_loaded"]
    assert "small:1" not in ledger(calls)
    answer = predict(calls, "small:1")
    assert answer.headers["Model-State"] == "cold"
    assert answer.json()["timing"]["load_ms"] > 0
    after = ledger(calls)["small:1"]
    assert after["loads"] == before["loads"] + 1
    assert not after["pinned"]
    assert after["last_used_at"] >= before["last_used_at"]
    body = calls.get("/models:loaded").json()
    assert body["budget_bytes"] == BUDGET
    assert body["used_bytes"] >= sum(one["bytes"] for one in body["data"])


def test_first_calls_together_load_once(alone: Stack, calls: httpx.Client) -> None:
    calls.post("/models/other/unload")
    loads = ledger(calls).get("other:1", {"loads": 0})["loads"]

    def ask(_: int) -> httpx.Response:
        with alone.client() as client:
            return predict(client, "other")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert {answer.status_code for answer in answers} == {200}
    scores = [answer.json()["outputs"][0]["score"] for answer in answers]
    assert scores == pytest.approx([scores[0]] * 8, rel=1e-5)  # in a batch the last digits may be others
    assert ledger(calls)["other:1"]["loads"] == loads + 1


def test_an_alias_that_moves_is_seen_at_once(calls: httpx.Client) -> None:
    for version in (1, 2, 1, 2, 1):
        assert calls.put("/models/small/aliases/production", json={"version": version}).status_code == 200
        for _ in range(2):
            about = predict(calls, "small@production").json()["model"]
            assert about == {"name": "small", "version": version, "alias": "production"}


def test_an_alias_moved_by_another_process_is_seen_at_once(alone: Stack, calls: httpx.Client) -> None:
    database = stack_database(alone)
    for version in (2, 1, 2, 1):
        predict(calls, "small@production")
        with database.write() as session:
            models.set_alias(session, "default", "small", "production", version)
        assert predict(calls, "small@production").json()["model"]["version"] == version
    database.close()


def test_a_revoked_key_is_refused_from_the_next_request_on(alone: Stack, calls: httpx.Client) -> None:
    headers = {"Authorization": f"Bearer {new_key(alone)}"}
    with alone.client(headers=headers) as client:
        assert predict(client, "small").status_code == predict(client, "small").status_code == 200
        key_id = headers["Authorization"].split()[1].partition(".")[0]
        assert calls.delete(f"/keys/{key_id}").status_code == 204
        problem(predict(client, "small"), 401, "wrong_key")


def test_a_key_expires_although_nothing_is_written(alone: Stack) -> None:
    headers = {"Authorization": f"Bearer {new_key(alone, expires_at=time.time() + 4)}"}
    with alone.client(headers=headers) as client:
        assert predict(client, "small").status_code == predict(client, "small").status_code == 200
        wait_until(lambda: predict(client, "small").status_code == 401)


def test_keys_without_the_scope_and_of_other_projects(alone: Stack, calls: httpx.Client) -> None:
    predict(calls, "small")
    with alone.client(headers={"Authorization": f"Bearer {new_key(alone, scopes=['models'])}"}) as client:
        problem(predict(client, "small"), 403, "missing_scope")
        assert "small:2" in ledger(client)
    with alone.client(headers={"Authorization": f"Bearer {new_key(alone, project='other')}"}) as client:
        problem(predict(client, "small"), 404, "not_found")
        assert ledger(client) == {}
        assert client.get("/models:loaded").json()["used_bytes"] > 0


def test_a_deadline_ends_the_wait(calls: httpx.Client) -> None:
    calls.post("/models/large:1/unload")
    # Reading a large model takes longer than that; the loading itself goes on.
    problem(predict(calls, "large:1", headers={"X-Request-Timeout": "0.001"}), 504, "deadline_exceeded")
    assert predict(calls, "large:1", headers={"X-Request-Timeout": "60"}).status_code == 200
    problem(predict(calls, "large:1", headers={"X-Request-Timeout": "0"}), 422, "invalid_request")


def test_room_is_made_by_who_was_used_least_recently(calls: httpx.Client) -> None:
    predict(calls, "large:1")
    predict(calls, "small:1")
    assert predict(calls, "large:2").status_code == 200
    assert "large:1" not in ledger(calls)
    assert {"small:1", "large:2"} <= set(ledger(calls))


def test_two_that_do_not_fit_together_are_both_answered(alone: Stack) -> None:
    def ask(n: int) -> httpx.Response:
        with alone.client() as client:
            return predict(client, f"large:{1 + n % 2}")

    # Each waits until the other has answered, and nobody's is taken away before it has had its turn.
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, range(24)))
    assert [(answer.status_code, answer.json()["model"]["version"]) for answer in answers] == [(200, 1), (200, 2)] * 12


def test_a_pinned_model_stays_and_there_is_no_room(calls: httpx.Client) -> None:
    assert calls.post("/models/large:2/load", json={"pin": True}).json()["pinned"]
    refused = predict(calls, "large:1")
    body = problem(refused, 503, "no_memory_for_model")
    assert "large:1" in body["detail"]
    assert refused.headers["Retry-After"] == "2"
    assert "large:2" in ledger(calls)
    calls.post("/models/large:2/load", json={"pin": False})
    assert predict(calls, "large:1").status_code == 200
    problem(predict(calls, "huge"), 503, "no_memory_for_model")


def test_memory_comes_back(alone: Stack, calls: httpx.Client) -> None:
    for ref in ledger(calls):
        calls.post(f"/models/{ref}/unload")
    predict(calls, "small")
    process = alone.processes["api"].pid
    before = resident(process)
    predict(calls, "large:1")
    assert resident(process) > before + 50_000_000
    calls.post("/models/large:1/unload")
    assert wait_until(lambda: resident(process) < 1.1 * before)


def test_many_at_once_get_what_each_gets_alone(alone: Stack, calls: httpx.Client) -> None:
    inputs = [{name: value * n / 16 for name, value in INPUT.items()} for n in range(64)]
    expected = [
        calls.post("/models/large:1/predict", json={"inputs": [one]}).json()["outputs"][0] for one in inputs[:8]
    ]

    async def ask() -> list[dict[str, Any]]:
        headers = {"Authorization": f"Bearer {alone.key}"}
        async with httpx.AsyncClient(base_url=f"{alone.url}/api/v1", headers=headers, timeout=60) as client:
            asked = [client.post("/models/large:1/predict", json={"inputs": [one]}) for one in inputs]
            return [answer.json() for answer in await asyncio.gather(*asked)]

    answers = asyncio.run(ask())
    for answer, alone_answer in zip(answers, expected, strict=False):
        assert answer["outputs"][0]["label"] == alone_answer["label"]
        assert answer["outputs"][0]["score"] == pytest.approx(alone_answer["score"], rel=1e-4)
    assert max(answer["timing"]["batch_size"] for answer in answers) > 1
    assert all(answer["errors"] == [] for answer in answers)


def test_many_models_share_little_memory(tmp_path_factory: pytest.TempPathFactory) -> None:
    versions, fitting, draw = 30, 6, random.Random(0)
    stack = Stack(tmp_path_factory.mktemp("many"))
    try:
        assert stack.run("migrations", "upgrade").returncode == 0
        size = max(register(stack, "many", (200, 200)) for _ in range(versions))
        budget = fitting * (size + OVERHEAD_BYTES)
        stack.environment["ANNEAL_PREDICTOR_MEMORY_BYTES"] = str(budget)
        stack.up(workers=False)
        asked = draw.choices(range(1, versions + 1), [1 / n for n in range(1, versions + 1)], k=300)  # Zipf's law
        used: list[int] = []

        def ask(version: int) -> tuple[int, int]:
            with stack.client() as client:
                answer = predict(client, f"many:{version}")
                used.append(client.get("/models:loaded").json()["used_bytes"])
                return answer.status_code, answer.json()["model"]["version"]

        with ThreadPoolExecutor(12) as pool:
            assert list(pool.map(ask, asked)) == [(200, version) for version in asked]
        assert max(used) <= budget
        with stack.client() as client:
            assert len(ledger(client)) >= fitting
    finally:
        stack.down()
