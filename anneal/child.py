"""One process that the launcher keeps alive, and the watchdog that outlives the launcher."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from anneal.watchdog import is_alive, signal_group

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
# Who has lived this long is taken for healthy: its next death starts again with the shortest pause.
HEALTHY_S = 60.0
LARGEST_LOG_BYTES = 10 * 1024 * 1024
# The child waits for a line on stdin before it becomes its program: by then the watchdog knows it, so there
# is no moment at which a killed launcher leaves it behind. Without a launcher no line comes and it ends.
START_ON_LINE = ["/bin/sh", "-c", 'read -r go && exec "$@" </dev/null', "sh"]


class Watchdog:
    """The process that stops the children when the launcher is killed; see watchdog.py."""

    def __init__(self, lock_fd: int) -> None:
        script = Path(__file__).with_name("watchdog.py")
        self._process = subprocess.Popen(  # noqa: S603 (our own script)
            [sys.executable, "-I", "-S", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[lock_fd],
            start_new_session=True,
            text=True,
        )

    def add(self, group: int) -> None:
        """Put a process group on the list."""
        self._write(f"+{group}\n")

    def remove(self, group: int) -> None:
        """Take an ended process group off the list."""
        self._write(f"-{group}\n")

    def close(self) -> None:
        """Let the watchdog go."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()


@dataclass
class Child:
    """A program in a process group of its own, its output in a log file; restarted with growing pauses."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    watchdog: Watchdog
    process: subprocess.Popen[str] | None = None
    started_at: float = 0.0
    restart_at: float = field(default=0.0, init=False)
    pause_s: float = field(default=FIRST_PAUSE_S, init=False)

    def start(self) -> None:
        """Start the program."""
        _rotate(self.log)
        # Straight into the file: the child can go on writing while the launcher is busy, or dead.
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603 (our own modules)
                [*START_ON_LINE, *self.command],
                env=dict(self.environment),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
                text=True,
            )
        self.started_at = time.monotonic()
        self.watchdog.add(self.process.pid)
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write("go\n")
            self.process.stdin.close()

    def ended(self) -> int | None:
        """Return the exit status of a program that has ended, its group cleared; None while it runs."""
        if self.process is None or (status := self.process.poll()) is None:
            return None
        # What it started itself must not live beside its successor.
        signal_group(self.process.pid, signal.SIGKILL)
        self.watchdog.remove(self.process.pid)
        self.process = None
        return status

    def schedule_restart(self) -> float:
        """Choose when to start again and return the pause in seconds."""
        if time.monotonic() - self.started_at > HEALTHY_S:
            self.pause_s = FIRST_PAUSE_S
        pause_s, self.pause_s = self.pause_s, min(LONGEST_PAUSE_S, self.pause_s * 2)
        self.restart_at = time.monotonic() + pause_s
        return pause_s

    def terminate(self) -> None:
        """Ask the program to end in order; it passes that on to what it started."""
        if self.process is not None:
            self.process.terminate()

    def kill(self) -> None:
        """End the program and everything in its group now."""
        if self.process is not None:
            signal_group(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.ended()

    def is_alive(self) -> bool:
        """Say whether anything of the program's group is left."""
        return self.process is not None and self.process.poll() is None and is_alive(self.process.pid)

    def last_lines(self, count: int = 15) -> str:
        """Return the end of the log, to explain a death."""
        with suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])
        return ""


def _rotate(log: Path) -> None:
    with suppress(FileNotFoundError):
        if log.stat().st_size > LARGEST_LOG_BYTES:
            log.replace(log.with_name(log.name + ".1"))


def exit_reason(status: int) -> str:
    """Say how a process ended."""
    if status >= 0:
        return f"ended with status {status}"
    with suppress(ValueError):
        return f"was killed by {signal.Signals(-status).name}"
    return f"was killed by signal {-status}"


def child_environment(base: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for the service's own modules.

    They are found beside this package, installed or in a checkout, and never in the folder the user happens
    to be in, which may well have a `service` or `workers` of its own.
    """
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [root, base.get("PYTHONPATH", "")]))
    return {**base, **settings, "PYTHONPATH": path, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}
