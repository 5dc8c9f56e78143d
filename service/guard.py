"""What every request passes first: its id, its host, the size of its body. Plain ASGI, since it is on every path."""

from __future__ import annotations

import json
import re
from secrets import token_hex

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PORT = re.compile(r":[0-9]*$")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Guard:
    """Names the request; refuses hosts that are not ours, since a page elsewhere must not reach a loopback service.

    Bodies are counted as they come: a length that is announced may lie, and chunks announce none.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: frozenset[str],
        max_body_bytes: int,
        max_upload_bytes: int,
        uploads: re.Pattern[str],
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._max_body_bytes = max_body_bytes
        self._max_upload_bytes = max_upload_bytes
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 400."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else f"req_{token_hex(13)}"
        scope["request_id"] = request_id

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            await _refuse(named, scope, request_id, "invalid_request", "The address contains the character NUL.")
            return
        host = _PORT.sub("", headers.get("host", "")).lower()
        if "*" not in self._hosts and host not in self._hosts:
            detail = f'This service does not answer to the host name "{host[:100]}".'
            await _refuse(named, scope, request_id, "unknown_host", detail, "Add the name to ANNEAL_ALLOWED_HOSTS.")
            return
        most = self._max_upload_bytes if self._uploads.fullmatch(scope["path"]) else self._max_body_bytes
        await self._app(scope, _counted(receive, most), named)


def _counted(receive: Receive, most: int) -> Receive:
    total = 0

    async def counted() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > most:
            raise HTTPException(413)
        return message

    return counted


async def _refuse(
    send: Send, scope: Scope, request_id: str, code: str, detail: str, hint: str = "Leave it out."
) -> None:
    body = {
        "type": f"urn:anneal:problem:{code}",
        "title": "Bad Request",
        "status": 400,
        "detail": detail,
        "instance": scope["path"],
        "code": code,
        "param": None,
        "hint": hint,
        "retryable": False,
        "request_id": request_id,
        "errors": [],
    }
    headers = [(b"content-type", b"application/problem+json")]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})
