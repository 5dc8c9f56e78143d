"""A way to Redis that breaks when certain bytes have come through it, as if the server had been killed just then."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

# SO_LINGER of no seconds: the other side hears of a reset.
_RESET = struct.pack("ii", 1, 0)


class SeveringProxy:
    """Passes bytes to and fro between `port` and Redis, until it is armed with bytes that come."""

    def __init__(self, redis_port: int) -> None:
        self._redis = ("127.0.0.1", redis_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._last: bytes | None = None
        self._clients: list[socket.socket] = []
        self.severed = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, last: bytes) -> None:
        """Break all connections once these bytes have come, from either side, and let nobody in before `mend`."""
        self._last = last

    def mend(self) -> None:
        """Let clients in again."""
        self.severed.clear()

    def close(self) -> None:
        """Let nobody in any more, and everybody out."""
        self._listener.close()
        self._break()

    def _break(self) -> None:
        while self._clients:
            client = self._clients.pop()
            with contextlib.suppress(OSError):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                client.shutdown(socket.SHUT_RD)  # wakes the thread that reads
            client.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                self._clients.append(client)
                if self.severed.is_set():
                    self._break()
                    continue
                server = socket.create_connection(self._redis)
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError), source:
            while content := source.recv(65_536):
                target.sendall(content)
                if self._last is not None and self._last in content:
                    self._last = None
                    self.severed.set()
                    self._break()
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
