"""The pool process's side of the fork server: started early, asked for a child, restarted when it is gone."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

import structlog

from workers.protocol import FORK_MESSAGE_BYTES
from workers.supervision import FreshStarter, Process, Starter, environment

log = structlog.get_logger(__name__)


class ForkStarter:
    """Starts children by a fork server of this process's own; one child at a time."""

    def __init__(self, imports: Sequence[str]) -> None:
        self._imports = tuple(imports)
        self._ready = False
        self._server: subprocess.Popen[bytes]
        self._socket: socket.socket
        self._start_server()

    def prepare(self) -> None:
        """Wait until the fork server has done its imports; one that has died is replaced first."""
        if self._server.poll() is not None:
            log.warning("the fork server is gone and is started again", code=self._server.returncode)
            self.close()
            self._start_server()
        if not self._ready:
            with suppress(OSError):
                self._receive()
                self._ready = True

    def start(self, directory: str, files: tuple[int, int, int]) -> Process:
        """Start a child; should the fork server die just now, as a fresh interpreter."""
        if self._ready:
            try:
                return self._ask(directory, files)
            except OSError as error:
                log.warning("the fork server is gone; this child starts afresh", error=str(error))
        return FreshStarter().start(directory, files)

    def close(self) -> None:
        """End the fork server; a child of it lives on."""
        self._socket.close()
        self._server.kill()
        self._server.wait()

    def _start_server(self) -> None:
        self._ready = False
        # Messages with bounds, and an end as soon as the other side is gone.
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._server = subprocess.Popen(  # noqa: S603 (our own module)
                [sys.executable, "-m", "workers.fork_server", str(theirs.fileno()), *self._imports],
                stdin=subprocess.DEVNULL,
                env=environment(),
                pass_fds=[theirs.fileno()],
            )

    def _ask(self, directory: str, files: tuple[int, int, int]) -> Process:
        socket.send_fds(self._socket, [json.dumps({"directory": directory}).encode()], files)
        return _Forked(self._receive()["pid"], self)

    def _receive(self) -> dict[str, int]:
        message = self._socket.recv(FORK_MESSAGE_BYTES)
        if not message:
            raise ConnectionResetError("the fork server has ended")
        received: dict[str, int] = json.loads(message)
        return received

    def wait_for(self, pid: int) -> int:
        """Return a child's exit code; when the fork server died before it, end the child as if killed."""
        try:
            while True:
                message = self._receive()
                if message["pid"] == pid and "code" in message:
                    return message["code"]
        except OSError:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            return -signal.SIGKILL


class _Forked:
    """A child of the fork server."""

    def __init__(self, pid: int, starter: ForkStarter) -> None:
        self.pid = pid
        self._starter = starter
        self._code: int | None = None

    def wait(self) -> int:
        """Return the exit code once it is gone."""
        if self._code is None:
            self._code = self._starter.wait_for(self.pid)
        return self._code


def make_starter(imports: Sequence[str]) -> Starter:
    """Return the fastest way to start children that this system has."""
    return ForkStarter(imports) if hasattr(os, "pidfd_open") else FreshStarter()
