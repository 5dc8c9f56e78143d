"""The short way to a prediction: for a known key, a loaded model and a plain request, past ASGI and FastAPI.

The server's own work for a request, the application's routing, dependencies and validation take several times as long
as such a prediction. What it can answer it answers as the endpoint in `predictions` would, by the same functions; what
needs no waiting, without a task. Anything else - an unknown key, a model that is not in memory, a body that is not
quite right - it hands on to the application, whose endpoint is the documented one. Once it has begun to answer it ends
it too: handed on, a batch that has failed would be computed again.

A look at whether the process lives goes the same way: through the application it takes a dozen turns of the loop, each
of which lasts as long as everybody else has something to do.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, Protocol, cast

import orjson
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.computing import begin
from service.errors import ClientGone, response_to
from service.guard import Guard, named
from service.health import ALIVE
from service.predictions import answer, written
from service.state import State

_BEFORE, _AFTER, _LIVEZ = b"/api/v1/models/", b"/predict", b"/livez"
_PLAIN_REF = re.compile(rb"[A-Za-z0-9._@:~-]+")  # spelled as it is meant: nothing to unquote or to cut off
# Headers that want the endpoint itself, or the server.
_OTHERS = frozenset({b"x-request-timeout", b"prefer", b"upgrade", b"expect"})
_BODY = frozenset({b"content-length", b"transfer-encoding"})  # those that announce one
_FIELDS = frozenset({"inputs", "parameters"})
_MOST_BYTES = 1 << 20  # of a body that is held until it is whole; the application reads longer ones as they come


class Entered(Protocol):
    """The application as this knows it."""

    guard: Guard
    opened: Callable[[], State | None]


class _Held:
    """A request whose body is still coming, or that is being answered; the server takes it for a cycle of its own.

    Without a `ref` it asks whether the process lives.
    """

    def __init__(self, scope: Scope, ref: str, authorization: bytes, request_id: str) -> None:
        self.scope = scope
        self.ref = ref
        self.authorization = authorization
        self.request_id = request_id
        self.body = bytearray()
        # What the server asks a cycle for, and tells it.
        self.keep_alive = True
        self.disconnected = False
        self.response_complete = False
        self.message_event = asyncio.Event()

    async def receive(self) -> Message:
        """Wait until the caller is gone."""
        await self.message_event.wait()
        return {"type": "http.disconnect"}


class ShortWay(HttpToolsProtocol):
    """One connection, on which POST /api/v1/models/{ref}/predict and GET /livez may be answered at once."""

    def __init__(self, config: Config, *arguments: Any, **named: Any) -> None:
        super().__init__(config, *arguments, **named)
        entered = cast("Entered", config.app)
        self._guard, self._opened = entered.guard, entered.opened
        self._most_bytes = min(_MOST_BYTES, self._guard.max_body_bytes)
        self._held: _Held | None = None

    def on_headers_complete(self) -> None:
        """Hold a request that may go the short way."""
        if self.url.startswith(_BEFORE) and self.url.endswith(_AFTER):
            self._held = self._prediction()
        else:
            self._held = self._look() if self.url == _LIVEZ else None
        if self._held is None:
            super().on_headers_complete()
        else:
            self.cycle = self._held  # type: ignore[assignment] # all of a cycle that the server uses

    def on_body(self, body: bytes) -> None:
        """Keep what comes of a held request's body."""
        held = self._held
        if held is None:
            super().on_body(body)
            return
        held.body += body
        if len(held.body) > self._most_bytes:
            self._held = None
            self._start_asgi_task(self._cycle(held, more_body=True), self.app)

    def on_message_complete(self) -> None:
        """Answer a held request."""
        held, self._held = self._held, None
        if held is None:
            super().on_message_complete()
        elif not held.ref:
            self._send(held, orjson.dumps(ALIVE))
        else:
            # Not yet, among what the loop has found on the network: what it knows may be older than the request.
            self.loop.call_soon(self._go_on, held)

    def _go_on(self, held: _Held) -> None:
        if not self._begin(held):
            self._spawn(self._answer(held))

    def _spawn(self, answering: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(answering)
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def _look(self) -> _Held | None:
        """Return a plain question whether the process lives, of one who takes the answers."""
        if self.flow.write_paused or (headers := self._plain(b"GET")) is None or not _BODY.isdisjoint(headers):
            return None
        return _Held(cast("Scope", self.scope), "", b"", self._request_id(headers))

    def _prediction(self) -> _Held | None:
        """Return a plain request for a prediction."""
        ref = self.url[len(_BEFORE) : -len(_AFTER)]
        if not _PLAIN_REF.fullmatch(ref) or (headers := self._plain(b"POST")) is None:
            return None
        kind = headers.get(b"content-type", b"").partition(b";")[0]
        authorization = headers.get(b"authorization")
        if kind != b"application/json" or not authorization:
            return None
        return _Held(cast("Scope", self.scope), ref.decode("ascii"), authorization, self._request_id(headers))

    def _plain(self, method: bytes) -> dict[bytes, bytes] | None:
        """Return the headers of a request for nothing special, of a host that is ours, with nobody before it."""
        parser = self.parser
        if self.cycle and not self.cycle.response_complete:
            return None
        if parser.get_method() != method or parser.get_http_version() != "1.1" or not parser.should_keep_alive():
            return None
        headers = dict(self.headers)
        # Of a header that is there twice it is the application's to choose one.
        if len(headers) != len(self.headers) or not _OTHERS.isdisjoint(headers):
            return None
        return headers if self._guard.is_ours(headers.get(b"host", b"")) else None

    def _request_id(self, headers: dict[bytes, bytes]) -> str:
        return self._guard.request_id(headers.get(b"x-request-id", b""))

    def _begin(self, held: _Held) -> bool:
        """Submit what will be answered without waiting, and return whether that is so."""
        state = self._opened()
        if state is None or (meant := state.known.recall_at_once(held.authorization, held.ref)) is None:
            return False
        asked = _asked(held.body, state.settings.max_predict_inputs)
        if asked is None or (loaded := state.predictors.take(meant.version_id)) is None:
            return False
        inputs, parameters = asked
        try:
            options = loaded.predictor.options(parameters) if parameters else None
            begun = begin(loaded, inputs, options)
        except Exception:  # it will be met again where it is answered
            begun = None
        if begun is None:
            state.predictors.give_back(loaded)
            return False
        parsed, waiting = begun

        def end(answered: asyncio.Future[Any]) -> None:
            state.predictors.give_back(loaded)
            try:
                answered.result()
                content = written(meant, parsed, waiting, 0.0, options)
            except Exception as error:
                self._spawn(self._fail(held, error))
                return
            if self.flow.write_paused:
                self._spawn(self._write(held, content))
            else:
                self._send(held, content)

        waiting.answered.add_done_callback(end)
        return True

    async def _answer(self, held: _Held) -> None:
        try:
            content = await self._computed(held)
        except ClientGone:
            return
        except Exception as error:
            await self._fail(held, error)
            return
        if content is None:
            await self._cycle(held, more_body=False).run_asgi(cast("Any", self.app))
        else:
            await self._write(held, content)

    async def _fail(self, held: _Held, error: Exception) -> None:
        await self._cycle(held, more_body=False).run_asgi(cast("Any", self._failing(error, held.request_id)))

    async def _computed(self, held: _Held) -> bytes | None:
        """Return the body of the answer, or None for what is the application's to answer."""
        state = self._opened()
        if state is None or (meant := await state.known.recall(held.authorization, held.ref)) is None:
            return None
        asked = _asked(held.body, state.settings.max_predict_inputs)
        if asked is None or (loaded := state.predictors.take(meant.version_id)) is None:
            return None
        try:
            return await answer(meant, loaded, 0.0, *asked, held.receive)
        finally:
            state.predictors.give_back(loaded)

    def _failing(self, error: Exception, request_id: str) -> ASGIApp:
        """Return an application that answers what an error says."""

        async def fail(scope: Scope, receive: Receive, send: Send) -> None:
            scope["request_id"] = request_id
            response = await response_to(Request(scope), error)
            if response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR:
                self.logger.error("A prediction failed.", exc_info=error)
            await response(scope, receive, named(send, request_id))

        return fail

    async def _write(self, held: _Held, content: bytes) -> None:
        """Send an answer when the caller takes it."""
        if self.flow.write_paused and not held.disconnected:
            await self.flow.drain()
        self._send(held, content)

    def _send(self, held: _Held, content: bytes) -> None:
        """Send an answer, and see to whoever waits behind it on this connection."""
        if held.disconnected or self.transport.is_closing():
            return
        head = b"".join([b"%b: %b\r\n" % header for header in self.server_state.default_headers])
        self.transport.write(
            b"HTTP/1.1 200 OK\r\n%bcontent-type: application/json\r\ncontent-length: %d\r\n%b"
            b"x-request-id: %b\r\n%b\r\n%b"
            % (
                head,
                len(content),
                b"model-state: loaded\r\n" if held.ref else b"",
                held.request_id.encode(),
                b"" if held.keep_alive else b"connection: close\r\n",
                content,
            )
        )
        held.response_complete = True
        if not held.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _cycle(self, held: _Held, *, more_body: bool) -> RequestResponseCycle:
        """Return the cycle that the server would have made of the request, with what has come of its body."""
        path = _BEFORE + held.ref.encode() + _AFTER
        held.scope.update(method="POST", path=path.decode(), raw_path=path, query_string=b"")
        cycle = RequestResponseCycle(
            scope=cast("Any", held.scope),
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=held.keep_alive,
            on_response=self.on_response_complete,
        )
        cycle.body, cycle.more_body, cycle.disconnected = held.body, more_body, held.disconnected
        cycle.message_event.set()
        if cast("Any", self.cycle) is held:  # else the next request has come already, and waits
            self.cycle = cycle
        return cycle


def _asked(body: bytearray, most: int) -> tuple[list[Any], dict[str, Any]] | None:
    """Return inputs and parameters of a body that is right as it is."""
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if type(asked) is not dict or not asked.keys() <= _FIELDS:
        return None
    inputs, parameters = asked.get("inputs"), asked.get("parameters", {})
    if type(inputs) is not list or not 0 < len(inputs) <= most or type(parameters) is not dict:
        return None
    return inputs, parameters
