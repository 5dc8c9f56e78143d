"""A child process: started clean, spoken to in lines, never left behind."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, Protocol

from workers.protocol import STOP, Assignment

# All a child gets of the environment: no database or broker address, no key.
_ALLOWED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
_ALLOWED_PREFIXES = ("OMP_", "MKL_", "COVERAGE_", "TORCH_", "NVIDIA_")


class Process(Protocol):
    """A started process, its own group's leader."""

    pid: int

    def wait(self) -> int:
        """Return the exit code once it is gone; minus the signal's number when one ended it."""
        ...


class Starter(Protocol):
    """A way to start a child: fresh, or forked from one that has done the imports."""

    def prepare(self) -> None:
        """Wait until a child can be started at once; before a job is claimed, for nobody beats its heart meanwhile."""
        ...

    def start(self, directory: str, files: tuple[int, int, int]) -> Process:
        """Start a child in a directory with these files as its stdin, stdout and stderr."""
        ...

    def close(self) -> None:
        """Give up what starting children takes."""
        ...


class FreshStarter:
    """Starts each child as a new interpreter."""

    def prepare(self) -> None:
        """Need nothing."""

    def start(self, directory: str, files: tuple[int, int, int]) -> Process:
        """Start a child."""
        stdin, stdout, stderr = files
        return subprocess.Popen(
            [sys.executable, "-m", "workers.child"],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=environment(),
            cwd=directory,
            start_new_session=True,  # its own group, so that nothing it starts outlives it
        )

    def close(self) -> None:
        """Hold nothing."""


class Child:
    """One attempt's process group."""

    def __init__(self, assignment: Assignment, log: Path, starter: Starter) -> None:
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        stdin, commands = os.pipe()
        messages, stdout = os.pipe()
        errors = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            self._process = starter.start(assignment.directory, (stdin, stdout, errors))
        finally:
            _close((stdin, stdout, errors))
        self._commands = os.fdopen(commands, "w")
        self.messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._read, args=(os.fdopen(messages),), name="child output", daemon=True).start()
        self._send(assignment.to_line())

    @property
    def pid(self) -> int:
        """The process id, which is also its group's."""
        return self._process.pid

    def stop(self) -> None:
        """Ask for a checkpoint and an exit."""
        self._send(json.dumps({"command": STOP}) + "\n")

    def kill(self) -> None:
        """End the whole group at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Return the exit code once the process is gone; whatever it left in its group is killed."""
        code = self._process.wait()
        self.kill()
        with contextlib.suppress(OSError):
            self._commands.close()
        return code

    def _send(self, line: str) -> None:
        # A child that died meanwhile is found by its exit code, not here.
        with contextlib.suppress(OSError):
            self._commands.write(line)
            self._commands.flush()

    def _read(self, output: IO[str]) -> None:
        with output:
            for line in output:
                with contextlib.suppress(json.JSONDecodeError):
                    message = json.loads(line)
                    if isinstance(message, dict):
                        self.messages.put(message)
        self.messages.put(None)  # the output is closed: the child is exiting


def _close(files: Iterable[int]) -> None:
    for file in files:
        os.close(file)


def environment() -> dict[str, str]:
    """Return a child's environment."""
    kept = {name: value for name, value in os.environ.items() if name in _ALLOWED or name.startswith(_ALLOWED_PREFIXES)}
    return {
        **kept,
        # The packages come from where this process has them, never from the child's working directory.
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "PYTHONSAFEPATH": "1",
        # These two would start threads at import, before a fork; and NumPy's would change the last bits.
        "OPENBLAS_NUM_THREADS": "1",
        "JE_ARROW_MALLOC_CONF": "background_thread:false",
    }
