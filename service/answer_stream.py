"""Texts as they are written, as server-sent events (WHATWG HTML, section 9.2).

What is wrong with a request is told as an ordinary error, before there is a stream. Whoever goes away, or has set a
deadline that passes, ends the computation.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.batching import Batching
from service.continuous_batching import ContinuousBatcher, Writing
from service.errors import ApiError, response_to

if TYPE_CHECKING:
    from learning.prediction import Parsed

HEARTBEAT_S = 15.0
_HEARTBEAT = b": still here\n\n"  # keeps proxies from closing a quiet connection


def event(name: str, data: bytes) -> bytes:
    """Return an event whose data are one line."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)


@dataclass(frozen=True, slots=True)
class Streamed:
    """What was asked, and what became of it: complete once its stream ends."""

    parsed: Parsed
    waiting: Writing | None  # None: no input fits
    load_ms: float

    @property
    def answers(self) -> list[dict[str, Any]]:
        """The rows' answers."""
        return self.waiting.answers if self.waiting is not None else []


class Events(Protocol):
    """How a protocol writes a stream."""

    def text(self, index: int, text: str) -> bytes:
        """Return what is new of an input's answer."""
        ...

    def end(self, streamed: Streamed) -> bytes:
        """Return what ends the stream."""
        ...

    def error(self, problem: bytes) -> bytes:
        """Return what ends the stream instead; the error is in the path's form already."""
        ...


class Pieces:
    """What is written, on its way from the batcher to a stream."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[int, str] | None] = asyncio.Queue()

    def put(self, index: int, text: str) -> None:
        """Take a piece of a row's text."""
        self._queue.put_nowait((index, text))

    def end(self, _: object) -> None:
        """Say that there will be no more."""
        self._queue.put_nowait(None)

    async def until(self, answered: asyncio.Future[Any]) -> AsyncIterator[tuple[int, str] | None]:
        """Yield the pieces until there is an answer; None after each time that has been quiet."""
        answered.add_done_callback(self.end)
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    piece = await self._queue.get()
            except TimeoutError:
                yield None
                continue
            if piece is None:
                return
            yield piece


class AnswerStream(Response):
    """The response; it has what `stack` holds, such as the model, until it ends."""

    media_type = "text/event-stream"

    def __init__(self, streamed: Streamed, pieces: Pieces, events: Events, stack: AsyncExitStack) -> None:
        super().__init__(
            headers={
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",
                "Model-State": "cold" if streamed.load_ms else "loaded",
            }
        )
        del self.headers["content-length"]
        self._streamed, self._pieces, self._events, self._stack = streamed, pieces, events, stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the last, or until the client has gone."""
        answered = self._streamed.waiting.answered if self._streamed.waiting is not None else None
        leaving = asyncio.ensure_future(_left(receive))
        if answered is not None:
            leaving.add_done_callback(lambda _: answered.cancel())
        try:
            async with self._stack:
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                if answered is not None:
                    async for piece in self._pieces.until(answered):
                        await _send(send, _HEARTBEAT if piece is None else self._text(*piece))
                    if answered.cancelled():
                        return
                await _send(
                    send, await self._last(scope, None if answered is None else answered.exception()), more=False
                )
        finally:
            if answered is not None:
                answered.cancel()  # of no effect on one that is done
            leaving.cancel()

    def _text(self, row: int, text: str) -> bytes:
        return self._events.text(self._streamed.parsed.positions[row], text)

    async def _last(self, scope: Scope, error: BaseException | None) -> bytes:
        if error is None:
            return self._events.end(self._streamed)
        assert isinstance(error, Exception)
        told = await response_to(Request(scope), error)
        return self._events.error(bytes(told.body))


async def _send(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        await asyncio.sleep(0)


def check_streams(batcher: Batching) -> ContinuousBatcher:
    """Return the batcher of a model that writes; 422 for another."""
    if not isinstance(batcher, ContinuousBatcher):
        raise ApiError(
            422,
            "invalid_request",
            "This model's answers cannot be streamed, since it writes neither texts nor transcripts.",
            hint="Leave stream out.",
            param="stream",
        )
    return batcher


def submitted(batcher: ContinuousBatcher, parsed: Parsed, load_ms: float) -> tuple[Streamed, Pieces]:
    """Queue parsed inputs, whose texts will come as pieces."""
    pieces = Pieces()
    waiting = batcher.submit(parsed.rows, pieces.put) if parsed.rows else None
    return Streamed(parsed, waiting, load_ms), pieces


def expire(waiting: Writing, seconds: float, error: ApiError) -> None:
    """Fail a request with an error after so many seconds, unless it has ended before."""

    def fail() -> None:
        if not waiting.answered.done():
            waiting.answered.set_exception(error)

    timer = asyncio.get_running_loop().call_later(max(0.0, seconds), fail)
    waiting.answered.add_done_callback(lambda _: timer.cancel())
