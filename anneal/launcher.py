"""The launcher: one command starts the API and its workers, keeps them alive, and stops them all."""

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

import httpx

from anneal.child import Child, Watchdog, child_environment, exit_reason
from anneal.errors import AnnealError
from anneal.lock import LauncherLock
from anneal.tail import LogTail

SERVER_PACKAGES = ("alembic", "celery", "fastapi", "pyarrow", "sqlalchemy", "torch", "uvicorn")
READY_TIMEOUT_S = 60.0
# A worker may take 30 s to put its job back into the queue.
STOP_TIMEOUT_S = 35.0
POLL_S = 0.1
# On one machine the polls that somebody waits for come before trainings; predictions yield as much (service/device.py).
BACKGROUND = ("nice", "-n", "5")
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class LauncherSettings:
    """What to start and where; `environment` is what the processes inherit."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    echo_logs: bool = False
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    @property
    def url(self) -> str:
        """The address a client on this machine uses."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 (compared, not bound)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


class Launcher:
    """API and workers on one data directory, as a context: started and ready inside it, stopped after it."""

    def __init__(self, settings: LauncherSettings, say: Callable[[str], None] = print) -> None:
        self.settings = settings
        self._say = say
        self._lock = LauncherLock(settings.data_dir)
        self._children: list[Child] = []
        self._watchdog: Watchdog | None = None
        self._tail: LogTail | None = None
        self._stop_signals = 0

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def key_path(self) -> Path:
        """Where the service wrote its first key."""
        return self.settings.data_dir / "api_key"

    def start(self) -> None:
        """Bring the database up to date, start every process and wait until the service is ready."""
        require_server()
        settings = self.settings
        logs = settings.data_dir / "logs"
        try:
            settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            logs.mkdir(mode=0o700, exist_ok=True)
            self._lock.acquire(self._say)
        except OSError as error:
            raise AnnealError(
                f"The data directory {settings.data_dir} cannot be used: {error.filename}: {error.strerror}. "
                "Make it a folder that you may write to, or name another with --data-dir or ANNEAL_DATA_DIR."
            ) from error
        require_free_port(settings.host, settings.port)
        environment = child_environment(
            settings.environment,
            {
                "ANNEAL_DATA_DIR": str(settings.data_dir.resolve()),
                "ANNEAL_HOST": settings.host,
                "ANNEAL_PORT": str(settings.port),
            },
        )
        migrate(environment)
        self._watchdog = Watchdog(self._lock.fd)
        for name, arguments in _programs(settings.workers).items():
            nice = BACKGROUND if name != "api" and shutil.which(BACKGROUND[0]) else ()
            command = [*nice, sys.executable, "-m", *arguments]
            self._children.append(Child(name, command, environment, logs / f"{name}.log", self._watchdog))
        if settings.echo_logs:
            self._tail = LogTail([child.log for child in self._children])
        for child in self._children:
            child.start()
        self._wait_until_ready()

    def run(self) -> None:
        """Keep the processes alive until SIGINT, SIGTERM or SIGHUP."""
        self._count_signals()
        while not self._stop_signals:
            self.tend()
            time.sleep(POLL_S)
        self._say("Stopping: a running job goes back to the queue at its last checkpoint. Ctrl-C again to kill.")

    def tend(self) -> None:
        """Start again what has died, after a pause that grows with every death."""
        self._echo()
        for child in self._children:
            status = child.ended()
            if status is not None:
                reason = exit_reason(status)
                pause_s = child.schedule_restart()
                self._say(f"{child.name} {reason}; starting it again in {pause_s:g} s. Log: {child.log}")
            elif child.process is None and time.monotonic() >= child.restart_at:
                child.start()
                self._say(f"{child.name} started again (process {child.process.pid if child.process else '?'}).")

    @contextmanager
    def tended(self) -> Iterator[None]:
        """Keep the processes alive in the background while the context lasts."""
        done = threading.Event()

        def tend() -> None:
            while not done.wait(POLL_S):
                self.tend()

        thread = threading.Thread(target=tend, name="tend", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def stop(self) -> None:
        """Ask every process to end, wait up to 35 s, kill what is left; the lock is free afterwards."""
        self._count_signals()
        for child in self._children:
            child.terminate()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while any(child.is_alive() for child in self._children):
            self._echo()
            if time.monotonic() > deadline or self._stop_signals > 1:
                break  # somebody is in a hurry
            time.sleep(POLL_S)
        for child in self._children:
            if child.is_alive():
                self._say(f"{child.name} did not end in time; killing it.")
            child.kill()
        self._echo()
        self._children.clear()
        if self._watchdog is not None:
            self._watchdog.close()
            self._watchdog = None
        self._lock.release()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        answer = "no answer"
        with httpx.Client(trust_env=False, timeout=5.0) as http:
            while time.monotonic() < deadline:
                self._echo()
                self._fail_on_early_death()
                try:
                    response = http.get(f"{self.settings.url}/readyz")
                except httpx.TransportError as error:
                    answer = str(error)
                else:
                    if response.is_success and self._is_own(response):
                        return
                    answer = f"{response.status_code}: {response.text[:500]}"
                time.sleep(POLL_S)
        raise AnnealError(
            f"The service was not ready within {READY_TIMEOUT_S:g} s. "
            f"{self.settings.url}/readyz answers: {answer}\n"
            f"Look into {self.settings.data_dir / 'logs'}."
        )

    def _is_own(self, response: httpx.Response) -> bool:
        """Say whether our service answered, not another one that took the port since it was looked at."""
        try:
            process = response.json()["process"]
        except (ValueError, TypeError, KeyError):
            return False
        return any(child.process is not None and child.process.pid == process for child in self._children)

    def _fail_on_early_death(self) -> None:
        for child in self._children:
            status = child.ended()
            if status is not None and status >= 0:
                raise AnnealError(
                    f"{child.name} {exit_reason(status)} before the service was ready. "
                    f"The end of {child.log}:\n{child.last_lines()}"
                )
            if status is not None:
                # Killed from outside, for want of memory perhaps: that says nothing against another try.
                self._say(f"{child.name} {exit_reason(status)}; starting it again in {child.schedule_restart():g} s.")
            elif child.process is None and time.monotonic() >= child.restart_at:
                child.start()

    def _echo(self) -> None:
        if self._tail is not None:
            for line in self._tail.new_lines():
                self._say(line)

    def _count_signals(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop_signals += 1


def _programs(workers: int) -> dict[str, list[str]]:
    """Return what to run: uploads have a worker of their own, so that none waits for a training to end."""
    training = {f"worker-{number}": ["workers", "--queue", "train"] for number in range(1, workers + 1)}
    return {"api": ["service"], "ingest-worker": ["workers", "--queue", "ingest"], **training}


def interrupt_on_stop_signals() -> None:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt as Ctrl-C does, so that contexts are left in order."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.default_int_handler)


def require_server(packages: tuple[str, ...] = SERVER_PACKAGES) -> None:
    """Raise AnnealError when the packages of the service are not installed."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise AnnealError(
            f"The service's packages are not installed (missing: {', '.join(missing)}). "
            "Install them: pip install 'anneal[server]'"
        )


def require_free_port(host: str, port: int) -> None:
    """Raise AnnealError when the port cannot be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                raise AnnealError(
                    f'"{host}" is no address of this machine: {error.strerror}. '
                    "Choose one with --host or ANNEAL_HOST, for example --host 127.0.0.1."
                ) from error
            raise AnnealError(
                f"Port {port} on {host} cannot be used: {error.strerror}. "
                f"Choose another with --port or ANNEAL_PORT, for example --port {port + 1 if port < 65535 else 8000}."
            ) from error


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def migrate(environment: Mapping[str, str]) -> None:
    """Create the database or bring it up to date; raise AnnealError with what the migration said."""
    done = subprocess.run(
        [sys.executable, "-m", "migrations", "upgrade"],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = "\n".join(done.stdout.strip().splitlines()[-15:])
        raise AnnealError(
            "The database could not be created or brought up to date: "
            f"`python -m migrations upgrade` {exit_reason(done.returncode)}.\n{said}"
        )
