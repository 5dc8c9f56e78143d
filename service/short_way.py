"""The short way to a prediction: for a known key, a loaded model and a plain request, past FastAPI.

Its routing, dependencies and validation take several times as long as such a prediction. What it can answer it answers
as the endpoint in `predictions` would, by the same functions. Anything else - an unknown key, a model that is not in
memory, a body that is not quite right - it hands on to the application, whose endpoint is the documented one. Once it
has begun to answer it ends it too: handed on, a batch that has failed would be computed again.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ClientGone, response_to
from service.known import Meaning
from service.predictions import answer
from service.state import State

_BEFORE, _AFTER = "/api/v1/models/", "/predict"
_OTHERS = frozenset({b"x-request-timeout", b"prefer"})  # headers that want the endpoint itself
_FIELDS = frozenset({"inputs", "parameters"})


class ShortWay:
    """POST /api/v1/models/{ref}/predict, before the application."""

    def __init__(self, app: ASGIApp, opened: Callable[[], State | None]) -> None:
        self._app = app
        self._opened = opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand the request on with its body untouched."""
        if scope["type"] == "http" and scope["method"] == "POST":
            path: str = scope["path"]
            if path.startswith(_BEFORE) and path.endswith(_AFTER):
                await self._predict(path[len(_BEFORE) : -len(_AFTER)], scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _predict(self, ref: str, scope: Scope, receive: Receive, send: Send) -> None:
        state = self._opened()
        authorization = _authorization(scope)
        meant = await state.known.recall(authorization, ref) if state is not None and authorization else None
        if state is None or meant is None:
            await self._app(scope, receive, send)
            return
        try:
            body = await _read(receive)
        except HTTPException:  # too large: whoever reads on hears it again
            await self._app(scope, receive, send)
            return
        try:
            content = await _answer(state, meant, body, receive)
        except ClientGone:
            return
        except Exception as error:
            response = await response_to(Request(scope), error)
            await response(scope, receive, send)
            if response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR:
                raise  # answered already; the server logs the traceback
            return
        if content is None:
            await self._app(scope, _again(body, receive), send)
            return
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(content)),
            (b"model-state", b"loaded"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})


async def _answer(state: State, meant: Meaning, body: bytes, receive: Receive) -> bytes | None:
    """Return the answer, or None for what takes the long way."""
    asked = _asked(body, state.settings.max_predict_inputs)
    loaded = state.predictors.take(meant.version_id) if asked is not None else None
    if asked is None or loaded is None:
        return None
    try:
        return await answer(meant, loaded, 0.0, *asked, receive)
    finally:
        state.predictors.give_back(loaded)


def _authorization(scope: Scope) -> bytes:
    """Return the header, or nothing when the body is no plain JSON or there is more to a request than that."""
    found, is_json = b"", False
    for name, value in scope["headers"]:
        if name == b"authorization":
            found = value
        elif name == b"content-type":
            is_json = value.startswith(b"application/json")
        elif name in _OTHERS:
            return b""
    return found if is_json else b""


def _asked(body: bytes, most: int) -> tuple[list[Any], dict[str, Any]] | None:
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


async def _read(receive: Receive) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        return body
    parts = [body]
    while message.get("more_body", False):
        message = await receive()
        parts.append(message.get("body", b""))
    return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """Return what gives a body that was read already, and then whatever comes next."""
    is_given = False

    async def again() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
