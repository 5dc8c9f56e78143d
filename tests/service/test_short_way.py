"""The short way to a prediction: what it answers, and what it hands on to the application, on real connections."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from registered import INPUT, register
from servers import Stack, free_port, wait_for_port
from support import problem

from service.app import Application, create_app
from service.errors import ApiError
from service.guard import Guard
from service.settings import ServiceSettings
from service.short_way import ShortWay
from store import keys

PATH = "/api/v1/models/small/predict"
ASKED = json.dumps({"inputs": [INPUT]}).encode()


class Failing:
    """Computes nothing, and notes how often it was asked to."""

    def __init__(self, error: Exception) -> None:
        self.error, self.batches = error, 0

    def __call__(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        self.batches += 1
        raise self.error


class Slow:
    """Computes what another does, later."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.batches = answer, 0

    def __call__(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        self.batches += 1
        time.sleep(0.2)
        answers: list[dict[str, Any]] = self.answer(rows)
        return answers


class Counting:
    """The application's guard, and how many requests came to it: those that do not go the short way."""

    def __init__(self, guard: Guard) -> None:
        self._guard, self.requests = guard, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guard, name)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.requests += scope["type"] == "http"
        await self._guard(scope, receive, send)


class Served:
    """The service in a thread of this process, where a batch can be made to fail."""

    def __init__(self, app: Application, port: int, key: str) -> None:
        self.app, self.port, self.key = app, port, key
        self.client = httpx.Client(
            base_url=f"http://localhost:{port}/api/v1", headers={"Authorization": f"Bearer {key}"}, timeout=30
        )

    @property
    def handed_on(self) -> int:
        """How many requests the application has had."""
        counting: Any = self.app.guard
        return int(counting.requests)

    @property
    def loaded(self) -> Any:
        """The model in memory."""
        state = self.app.opened()
        assert state is not None
        ((loaded, _),) = state.predictors.ledger()
        return loaded

    def request(self, body: bytes = ASKED, headers: str = "", line: str = f"POST {PATH} HTTP/1.1") -> bytes:
        """Return a request as it is sent."""
        head = f"{line}\r\nHost: localhost\r\nAuthorization: Bearer {self.key}\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(body)}\r\n{headers}\r\n".encode() + body


class Line:
    """A connection on which requests are written and answers read byte by byte."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("localhost", port), timeout=30)
        self._received = b""

    def answer(self) -> tuple[int, dict[str, str], dict[str, Any]]:
        """Return the next answer's status, headers and body."""
        head, body = self._until(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        assert all(": " in line for line in lines), head
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        status = int(first.split()[1])
        length = int(headers.get("content-length", 0))
        while len(body) < length:
            body += self._more()
        self._received = body[length:]
        return status, headers, json.loads(body[:length] or b"{}")

    def is_closed(self) -> bool:
        """Whether the server has hung up."""
        return self.socket.recv(1) == b""

    def _until(self, end: bytes) -> tuple[bytes, bytes]:
        while end not in self._received:
            self._received += self._more()
        before, _, after = self._received.partition(end)
        return before, after

    def _more(self) -> bytes:
        more = self.socket.recv(65536)
        assert more, "the server hung up"
        return more


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Run the service with one model, which is loaded and known."""
    stack = Stack(tmp_path_factory.mktemp("short"))
    stack.directory.mkdir(exist_ok=True)
    for arguments in (("migrations", "upgrade"), ("service", "--ensure-key")):
        done = stack.run(*arguments)
        assert done.returncode == 0, done.stderr
    register(stack, "small")
    app, port = create_app(ServiceSettings(data_dir=Path(stack.data_dir))), free_port()
    app.guard = Counting(app.guard)  # type: ignore[assignment] # a guard, seen through
    config = uvicorn.Config(app, host="127.0.0.1", port=port, http=ShortWay, log_level="critical", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for_port(port, 30)
    served = Served(app, port, stack.key)
    try:
        assert served.client.post("/models/small/predict", json={"inputs": [INPUT]}).status_code == 200
        yield served
    finally:
        served.client.close()
        server.should_exit = True
        thread.join(30)


@pytest.fixture
def line(served: Served) -> Iterator[Line]:
    """Open a connection."""
    opened = Line(served.port)
    yield opened
    opened.socket.close()


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [(ValueError("unforeseen"), 500, "internal_error"), (ApiError(429, "too_busy", "Later."), 429, "too_busy")],
)
def test_a_batch_that_fails_is_computed_once(served: Served, error: Exception, status: int, code: str) -> None:
    batcher = served.loaded.batcher
    working, batcher._answer = batcher._answer, (failing := Failing(error))
    before = served.handed_on
    try:
        answer = served.client.post("/models/small/predict", json={"inputs": [INPUT]}, headers={"X-Request-Id": "mine"})
    finally:
        batcher._answer = working
    body = problem(answer, status, code)
    assert failing.batches == 1
    assert served.handed_on == before
    assert body["request_id"] == answer.headers["x-request-id"] == "mine"
    assert "unforeseen" not in body["detail"]
    assert served.client.post("/models/small/predict", json={"inputs": [INPUT]}).status_code == 200


def test_wrong_parameters_are_explained_there(served: Served) -> None:
    asked = {"inputs": [INPUT], "parameters": {"tok_k": 1}}
    body = problem(served.client.post("/models/small/predict", json=asked), 422, "invalid_config")
    assert "tok_k" in body["detail"]
    assert "top_k" in body["hint"]


def test_both_ways_give_the_same(served: Served, line: Line) -> None:
    before = served.handed_on
    line.socket.sendall(served.request(headers="X-Request-Id: one\r\n"))
    status, short, answered = line.answer()
    assert served.handed_on == before
    line.socket.sendall(served.request(headers="Prefer: wait\r\n"))
    _, long, expected = line.answer()
    assert served.handed_on == before + 1
    assert status == 200
    assert short["x-request-id"] == "one"
    assert long["x-request-id"].startswith("req_")
    assert short.keys() == long.keys()
    for body in (answered, expected):
        del body["id"], body["timing"]
    assert answered == expected


def test_requests_in_a_row_are_answered_in_their_order(served: Served, line: Line) -> None:
    names = [f"r{number}" for number in range(6)]
    headers = [
        f"X-Request-Id: {name}\r\n" + "Prefer: wait\r\n" * (number % 3 == 1) for number, name in enumerate(names)
    ]
    line.socket.sendall(b"".join(served.request(headers=one) for one in headers))
    answers = [line.answer() for _ in names]
    assert [headers["x-request-id"] for _, headers, _ in answers] == names
    assert {status for status, _, _ in answers} == {200}


def test_a_request_that_comes_byte_by_byte(served: Served, line: Line) -> None:
    before = served.handed_on
    for byte in served.request():
        line.socket.sendall(bytes([byte]))
    assert line.answer()[0] == 200
    assert served.handed_on == before


def test_a_body_in_chunks(served: Served, line: Line) -> None:
    head, _, body = (
        served.request()
        .replace(b"Content-Length: %d" % len(ASKED), b"Transfer-Encoding: chunked")
        .partition(b"\r\n\r\n")
    )
    line.socket.sendall(head + b"\r\n\r\n" + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
    assert line.answer()[0] == 200


def test_a_body_too_long_to_be_held_is_read_by_the_application(served: Served, line: Line) -> None:
    long = ASKED + b" " * (1 << 20)
    line.socket.sendall(served.request(long) + served.request())
    assert [line.answer()[0], line.answer()[0]] == [200, 200]


def test_what_is_no_plain_request_is_the_applications(served: Served, line: Line) -> None:
    for request, status in (
        (served.request(line=f"POST {PATH}?x=1 HTTP/1.1"), 200),
        (served.request(line=f"POST {PATH.replace('small', 'sm%61ll')} HTTP/1.1"), 200),
        (served.request(line=f"POST {PATH.replace('small', 'smal')} HTTP/1.1"), 404),
        (served.request(b"{"), 422),
        (served.request(b'{"inputs": []}'), 422),
        (served.request().replace(served.key.encode(), served.key.encode()[::-1]), 401),
        (served.request().replace(b"Host: localhost", b"Host: elsewhere"), 400),
        (served.request().replace(b"application/json", b"application/jsonl"), 200),
        (served.request(headers="Content-Type: application/json\r\n"), 200),
        (served.request(headers="Authorization: Bearer nobody\r\n"), 200),
        (served.request().replace(b"Authorization", b"Authorization: Bearer nobody\r\nAuthorization"), 401),
        (served.request(line="POST /api/v1/models/predict HTTP/1.1"), 405),
        (served.request(b"", line=f"GET {PATH} HTTP/1.1"), 405),
    ):
        before = served.handed_on
        line.socket.sendall(request)
        answered, _, body = line.answer()
        assert answered == status, (request, body)
        assert served.handed_on == before + 1, request
        if status == 200:
            assert bool(body["errors"]) is (b"jsonl" in request), body  # a line is an input


def test_after_a_commit_what_a_ref_means_is_read_once_for_all(served: Served) -> None:
    state = served.app.opened()
    assert state is not None
    known: Any = state.known
    look_up, readings = known._look_up, list[str]()

    def slow(authorization: str, ref: str, scope: str) -> Any:
        readings.append(ref)
        time.sleep(0.3)  # so that all of them come meanwhile
        return look_up(authorization, ref, scope)

    lines = [Line(served.port) for _ in range(20)]
    known._look_up, before = slow, served.handed_on
    try:
        with state.database.write() as session:
            keys.create(session, name="another")
        for line in lines:
            line.socket.sendall(served.request())
        assert {line.answer()[0] for line in lines} == {200}
    finally:
        known._look_up = look_up
        for line in lines:
            line.socket.close()
    assert readings == ["small"]
    assert served.handed_on == before


def test_a_key_revoked_after_the_loop_has_looked(served: Served, line: Line) -> None:
    """What the loop still takes for true when it finds a request is older than the request."""
    state = served.app.opened()
    assert state is not None
    with state.database.write() as session:
        record, key = keys.create(session, name="for a moment")
    asked = served.request().replace(served.key.encode(), key.encode())
    for _ in range(2):  # by the application, then the short way
        line.socket.sendall(asked)
        assert line.answer()[0] == 200
    batcher, other = served.loaded.batcher, Line(served.port)
    compute, known = batcher._answer, state.known

    def interrupted(rows: Sequence[Any]) -> list[dict[str, Any]]:
        known._look()
        with state.database.write() as session:
            keys.revoke(session, record.project, record.id)
        line.socket.sendall(asked)
        time.sleep(0.1)  # on the loop: the next thing it finds is that request
        batcher._answer = compute
        answers: list[dict[str, Any]] = compute(rows)
        return answers

    batcher._answer = interrupted
    other.socket.sendall(served.request())
    assert other.answer()[0] == 200
    assert line.answer()[0] == 401
    other.socket.close()


def test_a_look_at_whether_the_process_lives(served: Served, line: Line) -> None:
    """By itself, behind a prediction on the same connection, and as the application answers it."""
    alive, before = (
        served.request(b"", line="GET /livez HTTP/1.1").replace(b"Content-Length: 0\r\n", b""),
        served.handed_on,
    )
    line.socket.sendall(alive)
    status, short, body = line.answer()
    assert (status, body, served.handed_on) == (200, {"status": "ok"}, before)
    line.socket.sendall(served.request() + alive + served.request())
    answers = [line.answer() for _ in range(3)]
    assert [body.get("status") for _, _, body in answers] == [None, "ok", None]
    before = served.handed_on
    line.socket.sendall(alive.replace(b"Host:", b"Prefer: wait\r\nHost:"))
    status, long, body = line.answer()
    assert (status, body, served.handed_on) == (200, {"status": "ok"}, before + 1)
    assert short.keys() == long.keys()
    line.socket.sendall(alive.replace(b"Host: localhost", b"Host: elsewhere"))
    assert line.answer()[0] == 400


def test_who_asks_and_takes_no_answers_is_not_read_for_ever(served: Served, line: Line) -> None:
    asked = memoryview(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" * 600_000)  # more than all buffers hold
    line.socket.settimeout(2)
    with suppress(TimeoutError):
        while asked:
            asked = asked[line.socket.send(asked) :]
    assert asked
    line.socket.settimeout(30)
    assert line.answer()[2] == {"status": "ok"}


def test_expect_is_answered_first(served: Served, line: Line) -> None:
    head, _, body = served.request(headers="Expect: 100-continue\r\n").partition(b"\r\n\r\n")
    line.socket.sendall(head + b"\r\n\r\n")
    assert line.answer()[0] == 100
    line.socket.sendall(body)
    assert line.answer()[0] == 200


@pytest.mark.parametrize(
    ("headers", "line_"), [("Connection: close\r\n", f"POST {PATH} HTTP/1.1"), ("", f"POST {PATH} HTTP/1.0")]
)
def test_a_caller_who_wants_no_more_is_left(served: Served, line: Line, headers: str, line_: str) -> None:
    line.socket.sendall(served.request(headers=headers, line=line_))
    assert line.answer()[0] == 200
    assert line.is_closed()


def test_one_who_hangs_up_is_not_answered_and_holds_nobody_up(served: Served) -> None:
    batcher = served.loaded.batcher
    batcher._answer, working = (slow := Slow(batcher._answer)), batcher._answer
    costs, batcher._costs, quick = batcher._costs, {}, batcher._quick_size
    batcher._quick_size = 0  # so that it is computed in the device's thread
    first, gone, second = (Line(served.port) for _ in range(3))
    try:
        first.socket.sendall(served.request())
        deadline = time.monotonic() + 10
        while not slow.batches and time.monotonic() < deadline:
            time.sleep(0.01)
        gone.socket.sendall(served.request())
        time.sleep(0.05)
        gone.socket.close()
        second.socket.sendall(served.request())
        assert first.answer()[0] == second.answer()[0] == 200
        assert slow.batches == 2  # who has gone is in none of them
        assert served.loaded.users == 0
    finally:
        for one in (first, gone, second):
            one.socket.close()
        batcher._answer, batcher._costs, batcher._quick_size = working, costs, quick
