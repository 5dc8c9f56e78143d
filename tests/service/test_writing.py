"""Texts that are written while others are: joining, leaving, and streams, through the front door."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import httpx
import pytest
from registered import INPUT, LONGEST, TEXTS, register, register_text, register_writer
from servers import Stack
from support import problem, wait_until

# Writing it to the end takes so long that a test that waited for it would fail.
ENDLESS = {"max_new_tokens": 8_000}
PROMPTS = ["where is", "今天", "", "I lost the card and", "☕", "which rate do I get today"]
DRAWN = {"temperature": 0.7, "top_k": 5, "max_new_tokens": 24}


@pytest.fixture(scope="module")
def writing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An API with two models that write and two that do not."""
    stack = Stack(tmp_path_factory.mktemp("writing"))
    try:
        stack.up(workers=False)
        register_writer(stack, "writer")
        register_writer(stack, "endless", layers=4, width=256, max_length=8_192)
        register(stack, "numbers")
        register_text(stack, "texts", width=256)
        yield stack
    finally:
        stack.down()


@pytest.fixture
def calls(writing: Stack) -> Iterator[httpx.Client]:
    with writing.client() as client:
        yield client


def predicted(
    stack: Stack, prompt: str, model: str = "writer", start: Barrier | None = None, **parameters: Any
) -> dict[str, Any]:
    with stack.client() as client:
        if start is not None:  # who is ready first waits for the others
            start.wait(30)
        answer = client.post(f"/models/{model}/predict", json={"inputs": [prompt], "parameters": parameters})
        found: dict[str, Any] = answer.json()
        return found


def events(response: httpx.Response) -> Iterator[tuple[str, Any]]:
    name = ""
    for line in response.iter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


def streamed(
    client: httpx.Client, *inputs: Any, model: str = "writer", timeout_s: float | None = None, **parameters: Any
) -> Any:
    headers = {"X-Request-Timeout": str(timeout_s)} if timeout_s else {}
    body = {"inputs": list(inputs), "parameters": parameters, "stream": True}
    return client.stream("POST", f"/models/{model}/predict", json=body, headers=headers)


def in_use(client: httpx.Client, name: str) -> int:
    entries = client.get("/models:loaded").json()["data"]
    return sum(entry["in_use"] for entry in entries if entry["ref"].startswith(name))


@pytest.fixture
def busy(writing: Stack, calls: httpx.Client) -> Iterator[None]:
    """A text that is being written, all through the test."""
    with writing.client() as client, streamed(client, "so", model="endless", **ENDLESS) as response:
        told = events(response)  # to be kept: without it the response is closed
        assert next(told)[0] == "text"
        yield
        assert in_use(calls, "endless") == 1
    wait_until(lambda: in_use(calls, "endless") == 0, 10)


def test_other_models_answer_meanwhile(calls: httpx.Client, busy: None) -> None:
    assert calls.post("/models/numbers/predict", json={"inputs": [INPUT]}).json()["errors"] == []
    # These go to the device's thread, as what takes longer does.
    for path in ("texts/predict", "texts/embed", "writer/embed", "writer/predict"):
        answer = calls.post(f"/models/{path}", json={"inputs": ["x" * (LONGEST - 100)] * 4})
        assert (answer.status_code, answer.json()["errors"]) == (200, [])


def test_late_texts_join_and_end_before(writing: Stack, busy: None) -> None:
    answer = predicted(writing, "where", "endless", max_new_tokens=5)
    assert answer["outputs"][0]["completion_tokens"] == 5
    assert answer["timing"]["batch_size"] == 2


def test_together_is_alone(writing: Stack) -> None:
    # Long enough that the last is asked before the first is written.
    asked = [(prompt, {**DRAWN, "seed": seed, "max_new_tokens": 200}) for seed, prompt in enumerate(PROMPTS)]
    alone = [predicted(writing, prompt, **parameters)["outputs"] for prompt, parameters in asked]
    start = Barrier(len(PROMPTS))
    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        jobs = [pool.submit(predicted, writing, prompt, start=start, **parameters) for prompt, parameters in asked]
        together = [job.result() for job in jobs]
    assert [one["outputs"] for one in together] == alone
    assert max(one["timing"]["batch_size"] for one in together) > 1
    assert len({one[0]["text"] for one in alone}) == len(PROMPTS)


def test_more_texts_than_are_written_at_a_time(writing: Stack, calls: httpx.Client) -> None:
    body = {"inputs": list(TEXTS) * 60, "parameters": {"max_new_tokens": 40}}
    answer = calls.post("/models/writer/predict", json=body).json()
    one = calls.post("/models/writer/predict", json={**body, "inputs": list(TEXTS)}).json()
    assert answer["outputs"] == one["outputs"] * 60
    assert 32 < answer["timing"]["batch_size"] <= 256


def test_pieces_are_the_answer(writing: Stack, calls: httpx.Client) -> None:
    options = {"seed": 5, **DRAWN, "temperature": 1.5, "top_k": None, "max_new_tokens": 200}
    inputs = ["今天", 7, "where is"]
    with streamed(calls, *inputs, **options) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        found = list(events(response))
    assert {name for name, _ in found[:-1]} == {"text"}
    assert found[-1][0] == "answer"
    answer = found[-1][1]
    told = {index: [one["text"] for _, one in found[:-1] if one["index"] == index] for index in (0, 2)}
    assert all(len(texts) > 3 for texts in told.values())
    pieces = {index: "".join(texts) for index, texts in told.items()}
    assert answer["outputs"][1] is None
    assert [error["index"] for error in answer["errors"]] == [1]
    assert pieces == {index: answer["outputs"][index]["text"] for index in (0, 2)}
    assert {answer["outputs"][index]["completion_tokens"] for index in (0, 2)} == {200}
    whole = calls.post("/models/writer/predict", json={"inputs": inputs, "parameters": options}).json()
    assert whole["outputs"] == answer["outputs"]


def test_nothing_of_a_stop_string_is_told(calls: httpx.Client) -> None:
    options = {"seed": 1, "temperature": 1.0, "max_new_tokens": 400}
    whole = calls.post("/models/writer/predict", json={"inputs": ["a"], "parameters": options}).json()
    text = whole["outputs"][0]["text"]
    stop = text[len(text) // 2 : len(text) // 2 + 6]
    with streamed(calls, "a", stop=[stop, "never to be seen"], **options) as response:
        *pieces, (_, answer) = events(response)
    assert answer["outputs"][0]["finish_reason"] == "stop"
    assert "".join(piece["text"] for _, piece in pieces) == text[: text.index(stop)] == answer["outputs"][0]["text"]


def test_who_goes_away_stops_it(writing: Stack, calls: httpx.Client) -> None:
    with writing.client() as client, streamed(client, "so", "far", model="endless", **ENDLESS) as response:
        told = events(response)
        assert next(told)[0] == "text"
        assert in_use(calls, "endless") == 1
    wait_until(lambda: in_use(calls, "endless") == 0, 10)
    with writing.client(timeout=0.5) as client, pytest.raises(httpx.ReadTimeout):
        client.post("/models/endless/predict", json={"inputs": ["so"], "parameters": ENDLESS})
    wait_until(lambda: in_use(calls, "endless") == 0, 10)
    # Nothing of it is left on the device either: who comes now is alone.
    assert predicted(writing, "so", "endless", max_new_tokens=2)["timing"]["batch_size"] == 1


def test_a_deadline_ends_it(writing: Stack, calls: httpx.Client) -> None:
    predicted(writing, "so", "endless", max_new_tokens=2)  # so that none of the time goes to loading it
    body = {"inputs": ["so"], "parameters": ENDLESS}
    late = calls.post("/models/endless/predict", json=body, headers={"X-Request-Timeout": "0.3"})
    problem(late, 504, "deadline_exceeded")
    # Long enough for a second piece on a machine that has much else to do: bytes that may begin a character are
    # withheld until the next ones, and this network, which has learned nothing, writes dozens of them in a row.
    with streamed(calls, "so", model="endless", timeout_s=8, **ENDLESS) as response:
        *pieces, (name, last) = events(response)
    assert len(pieces) > 1
    assert (name, last["code"], last["status"]) == ("error", "deadline_exceeded", 504)
    assert predicted(writing, "so", "endless", max_new_tokens=2)["timing"]["batch_size"] == 1


@pytest.mark.parametrize(
    ("model", "fields", "status", "code", "param"),
    [
        ("numbers", {"inputs": [INPUT]}, 422, "invalid_request", "stream"),
        ("writer", {"inputs": ["a"], "parameters": {"top_p": 2}}, 422, "invalid_config", "parameters.top_p"),
        ("nobody", {"inputs": ["a"]}, 404, "not_found", None),
        ("writer", {"inputs": []}, 422, "invalid_request", "inputs"),
        ("writer", {"inputs": ["a"], "stream": "often"}, 422, "invalid_request", "stream"),
    ],
)
def test_what_is_wrong_is_told_before(
    calls: httpx.Client, model: str, fields: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    found = problem(calls.post(f"/models/{model}/predict", json={"stream": True, **fields}), status, code)
    assert param is None or (found["param"] or found["errors"][0]["param"]).endswith(param)


def test_nothing_that_fits_is_a_stream_of_one_event(calls: httpx.Client) -> None:
    with streamed(calls, 7) as response:
        ((name, answer),) = events(response)
    assert (name, answer["outputs"], len(answer["errors"])) == ("answer", [None], 1)
