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
from pathlib import Path
from typing import Any

from workers.protocol import STOP, Assignment

# All a child gets of the environment: no database or broker address, no key.
_ALLOWED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
_ALLOWED_PREFIXES = ("OMP_", "MKL_", "COVERAGE_", "TORCH_", "NVIDIA_")


class Child:
    """One attempt's process group."""

    def __init__(self, assignment: Assignment, log: Path) -> None:
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "workers.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=_environment(),
                cwd=assignment.directory,
                text=True,
                start_new_session=True,  # its own group, so that nothing it starts outlives it
            )
        self.messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._read, name="child output", daemon=True).start()
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
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        return code

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        # A child that died meanwhile is found by its exit code, not here.
        with contextlib.suppress(OSError):
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                with contextlib.suppress(json.JSONDecodeError):
                    message = json.loads(line)
                    if isinstance(message, dict):
                        self.messages.put(message)
        self.messages.put(None)  # the output is closed: the child is exiting


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in _ALLOWED or name.startswith(_ALLOWED_PREFIXES)}
    # The packages come from where this process has them, never from the child's working directory.
    return {**kept, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONSAFEPATH": "1"}
