"""The lock that keeps a data directory to one launcher."""

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

from anneal.errors import AnnealError

POLL_S = 0.2
# Longer than the watchdog of a killed launcher needs to stop what was left running.
LEFTOVERS_S = 20.0


class LauncherLock:
    """An exclusive lock on `<data directory>/launcher.lock`, which names the holder's process id."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._path = data_dir / "launcher.lock"
        self.fd = -1

    def acquire(self, say: Callable[[str], None]) -> None:
        """Take the lock; raise AnnealError naming the launcher that has it.

        When that launcher is dead, its processes are being stopped (see watchdog.py): wait for that.
        """
        self.fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + LEFTOVERS_S
        told = False
        while not self._try():
            pid = self._holder()
            if _is_running(pid) or time.monotonic() > deadline:
                self.release()
                raise AnnealError(
                    f"Another launcher (process {pid or 'unknown'}) already runs on {self._data_dir}. "
                    "Stop it with Ctrl-C, or choose another directory with --data-dir."
                )
            if not told:
                say(f"The launcher before (process {pid}) was killed; waiting for its processes to stop.")
                told = True
            time.sleep(POLL_S)
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the lock back."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _try(self) -> bool:
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _holder(self) -> int | None:
        text = os.pread(self.fd, 32, 0).decode(errors="replace").strip()
        return int(text) if text.isdigit() else None


def _is_running(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
