"""What every request passes first: its id, its host, the size of its body. Plain ASGI, since it is on every path."""

from __future__ import annotations

import re
from os import urandom

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.error_forms import written

_PORT = re.compile(r":[0-9]*$")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_MOST_SEEN = 64


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
        self.max_body_bytes = max_body_bytes
        self._max_upload_bytes = max_upload_bytes
        self._uploads = uploads
        self._seen: set[bytes] = set()  # Host headers that were ours

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 400."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        host, given = b"", b""
        for name, value in scope["headers"]:
            if name == b"host":
                host = host or value
            elif name == b"x-request-id":
                given = given or value
        request_id = scope["request_id"] = self.request_id(given)
        respond = named(send, request_id)
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            await _refuse(respond, scope, request_id, "invalid_request", "The address contains the character NUL.")
            return
        if not self.is_ours(host):
            detail = f'This service does not answer to the host name "{host.decode("latin-1")[:100]}".'
            await _refuse(respond, scope, request_id, "unknown_host", detail, "Add the name to ANNEAL_ALLOWED_HOSTS.")
            return
        most = self._max_upload_bytes if self._uploads.fullmatch(scope["path"]) else self.max_body_bytes
        await self._app(scope, _counted(receive, most), respond)

    def is_ours(self, host: bytes) -> bool:
        """Return whether this service answers to a Host header."""
        if host in self._seen:
            return True
        name = _PORT.sub("", host.decode("latin-1")).lower()
        is_ours = "*" in self._hosts or name in self._hosts
        if is_ours and len(self._seen) < _MOST_SEEN:
            self._seen.add(host)
        return is_ours

    def request_id(self, given: bytes) -> str:
        """Return the id that the caller has given a request, if it can be one, or a new one."""
        return given.decode() if _REQUEST_ID.fullmatch(given) else f"req_{urandom(13).hex()}"


def named(send: Send, request_id: str) -> Send:
    """Return what sends an answer with the request's id."""

    async def responding(message: Message) -> None:
        if message["type"] == "http.response.start":
            message.setdefault("headers", [])
            # Not added in place: the list may be one that every answer shares.
            message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
        await send(message)

    return responding


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
    content, kind = written(scope["path"], body)
    encoded = content.encode()
    headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(encoded))]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": encoded})
