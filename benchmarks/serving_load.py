"""Load on one HTTP server: kept-open connections that each send one request after the other."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast


@dataclass(frozen=True, slots=True)
class Load:
    """What one server did under load."""

    rate: float  # answers a second
    p50_ms: float
    p99_ms: float
    health_p99_ms: float = 0.0  # of what was asked for beside it


class Asking(asyncio.Protocol):
    """One kept-open connection that sends one request after the other."""

    def __init__(self, requests: Sequence[bytes], until: float, taken: list[float]) -> None:
        self._requests, self._until, self._taken = requests, until, taken
        self._next = random.Random(len(taken)).randrange(len(requests))
        self._received = b""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def _ask(self) -> None:
        self._began = time.perf_counter()
        self._next = (self._next + 1) % len(self._requests)
        self._transport.write(self._requests[self._next])

    def data_received(self, data: bytes) -> None:
        """Count a whole answer and ask again."""
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            return
        assert head.startswith(b"HTTP/1.1 200"), self._received
        now = time.perf_counter()
        self._taken.append(now - self._began)
        self._received = b""
        if now < self._until:
            self._ask()
        else:
            self._transport.close()
            self.ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail when the server closed the connection."""
        if not self.ended.done():
            self.ended.set_exception(exc or ConnectionError("the server closed a connection"))


async def load(port: int, requests: Sequence[bytes], seconds: float, connections: int, health: str = "") -> Load:
    """Return what all connections together saw; a path of `health` is asked for fifty times a second meanwhile."""
    loop, taken, looks = asyncio.get_running_loop(), list[float](), list[float]()
    began = time.perf_counter()
    opened = [
        await loop.create_connection(lambda: Asking(requests, began + seconds, taken), "127.0.0.1", port)
        for _ in range(connections)
    ]
    looking = asyncio.create_task(_look(port, health, looks)) if health else None
    await asyncio.gather(*(asking.ended for _, asking in opened))
    elapsed = time.perf_counter() - began
    if looking is not None:
        looking.cancel()
    return Load(len(taken) / elapsed, *_percentiles(taken, 50, 99), *_percentiles(looks, 99))


def _percentiles(seconds: Sequence[float], *which: int) -> list[float]:
    """Return percentiles in milliseconds, or nothing of nothing."""
    cuts = statistics.quantiles(seconds, n=100) if len(seconds) > 1 else []
    return [cuts[one - 1] * 1000 for one in which if cuts]


async def _look(port: int, path: str, taken: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while True:
        began = time.perf_counter()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        taken.append(time.perf_counter() - began)
        await asyncio.sleep(0.02)


def posted(path: str, body: bytes, key: str) -> bytes:
    """Return the bytes of a request."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
