"""Real servers for the tests: PostgreSQL and Redis on free ports, and the product's own processes."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import httpx

REPOSITORY = Path(__file__).parents[1]
# Short leases, so that what is lost is found soon; quick retries, so that many crashes fit into a test. Coverage is not
# measured: it dies with what is killed, and would make each start again half as long.
QUICK = {
    "ANNEAL_LEASE_S": "3", "ANNEAL_HEARTBEAT_S": "0.25", "ANNEAL_NUDGE_REPEAT_S": "1", "ANNEAL_STOP_GRACE_S": "4",
    "COVERAGE_PROCESS_CONFIG": "",
}  # fmt: skip
# Where nothing is to be lost: a disk that takes nothing for half a minute would take all jobs from their workers.
PATIENT = {"ANNEAL_LEASE_S": "120"}
_SHOWN_LINES = 20


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require_binary(name: str, package: str) -> str:
    """Return a program's path; a missing one fails the run, since skipping would look like passing."""
    found = shutil.which(name) or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)), None
    )
    assert found, f"{name} is not installed. Run `make test-servers`, or install the package {package}."
    return found


def _unprivileged() -> list[str]:
    """Return how to run as somebody other than root: PostgreSQL refuses to be root."""
    if os.geteuid() != 0:
        return []
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            pwd.getpwnam(name)
            return ["setpriv", f"--reuid={name}", f"--regid={pwd.getpwnam(name).pw_gid}", "--clear-groups"]
    raise AssertionError("no unprivileged user to run PostgreSQL as")


@contextlib.contextmanager
def postgres(directory: Path, *, durable: bool = True) -> Iterator[str]:
    """Run a PostgreSQL server; yields the URL of its maintenance database.

    One that is not durable waits for no disk: what it has written survives its own end, not the machine's.
    """
    initdb, pg_ctl = require_binary("initdb", "postgresql"), require_binary("pg_ctl", "postgresql")
    directory.mkdir(parents=True, exist_ok=True)
    # A directory that the unprivileged user can reach and own, wherever pytest keeps its own.
    home = Path(f"/var/tmp/anneal-postgres-{os.getpid()}-{time.time_ns()}")
    home.mkdir(mode=0o755)
    prefix = _unprivileged()
    if prefix:
        user = pwd.getpwnam(prefix[1].removeprefix("--reuid="))
        os.chown(home, user.pw_uid, user.pw_gid)
    port = free_port()
    data = home / "data"
    subprocess.run(
        [*prefix, initdb, "-D", data, "-U", "anneal", "-A", "trust", "-E", "UTF8", "--locale=C"],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=home,
    )
    options = f"-p {port} -c listen_addresses=127.0.0.1 -k {home} -c max_connections=200"
    if not durable:
        options += " -c fsync=off -c synchronous_commit=off -c full_page_writes=off"
    subprocess.run(
        [*prefix, pg_ctl, "-D", data, "-o", options, "-l", home / "log", "-w", "start"],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=home,
    )
    try:
        yield f"postgresql+psycopg://anneal@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run(
            [*prefix, pg_ctl, "-D", data, "-m", "immediate", "stop"], check=False, stdout=subprocess.DEVNULL, cwd=home
        )
        shutil.rmtree(home, ignore_errors=True)


def start_redis(directory: Path, port: int) -> subprocess.Popen[bytes]:
    """Start a Redis server that keeps nothing, and wait until it listens."""
    command = [require_binary("redis-server", "redis-server"), "--port", str(port), "--bind", "127.0.0.1"]
    command += ["--dir", str(directory), "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_for_port(port)
    return process


@contextlib.contextmanager
def redis(directory: Path) -> Iterator[str]:
    """Run a Redis server; yields its URL."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    process = start_redis(directory, port)
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(10)


def wait_for_port(port: int, timeout_s: float = 15) -> None:
    """Wait until something listens."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on port {port}")


@dataclass
class Stack:
    """The product's processes over one database and broker, started by their real commands."""

    directory: Path
    environment: dict[str, str] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    all_up: ClassVar[list[Stack]] = []

    @property
    def url(self) -> str:
        """The API's address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def data_dir(self) -> Path:
        """The data directory."""
        return self.directory / "data"

    @property
    def key(self) -> str:
        """The first key."""
        return (self.data_dir / "api_key").read_text().strip()

    def variables(self) -> dict[str, str]:
        """Return the processes' environment."""
        return {
            **os.environ,
            "ANNEAL_DATA_DIR": str(self.data_dir),
            "ANNEAL_PORT": str(self.port),
            **self.environment,
        }

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a module to its end."""
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            env=self.variables(),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a module as a process of its own group; its output goes to `<name>.log`."""
        with (self.directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                env=self.variables(),
                cwd=self.directory,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes[name] = process
        return process

    def up(self, *, workers: bool = True) -> Stack:
        """Migrate, start the API and the two workers, wait until it is ready."""
        self.all_up.append(self)
        self.directory.mkdir(parents=True, exist_ok=True)
        migrated = self.run("migrations", "upgrade")
        assert migrated.returncode == 0, migrated.stderr
        self.start("api", "service")
        if workers:
            self.start("ingest", "workers", "--queue", "ingest")
            self.start("train", "workers", "--queue", "train")
        self.wait_ready()
        return self

    def wait_ready(self, timeout_s: float = 30) -> None:
        """Wait for the first 200 on /readyz."""
        until = time.monotonic() + timeout_s
        # One client: httpx reads all certificates for each new one, which takes longer than the service's start.
        with httpx.Client(timeout=5) as client:
            while time.monotonic() < until:
                with contextlib.suppress(httpx.HTTPError):
                    if client.get(f"{self.url}/readyz").status_code == 200:
                        return
                assert self.processes["api"].poll() is None, self.log("api")
                time.sleep(0.02)
        raise AssertionError(f"not ready: {self.log('api')}")

    def log(self, name: str) -> str:
        """Return what a process wrote."""
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def stop(self, name: str, number: int = signal.SIGTERM, timeout_s: float = 40) -> int:
        """Signal a process and return its exit code; its whole group is gone afterwards."""
        process = self.processes.pop(name)
        process.send_signal(number)
        try:
            return process.wait(timeout_s)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def down(self) -> None:
        """Stop everything."""
        if self in self.all_up:
            self.all_up.remove(self)
        for name in reversed(list(self.processes)):
            self.processes[name].terminate()
        for name in list(self.processes):
            self.stop(name)

    def client(self, **options: object) -> httpx.Client:
        """Return an HTTP client with the first key."""
        usual = {"timeout": 90, "headers": {"Authorization": f"Bearer {self.key}"}}
        return httpx.Client(base_url=self.url + "/api/v1", **{**usual, **options})  # type: ignore[arg-type]

    def let_go(self) -> str:
        """Cancel what has not ended, as far as the API answers, and return what it was and what the trainer wrote."""
        queue = "no answer"
        with contextlib.suppress(httpx.HTTPError, OSError, ValueError), self.client(timeout=10) as api:
            queue = api.get("/queue").text
            for status in ("running", "pausing", "paused", "queued"):
                for job in api.get("/jobs", params={"status": status}).json().get("data", []):
                    api.post(f"/jobs/{job['id']}/cancel", json={"mode": "discard"})
        log = self.log("train").splitlines() if (self.directory / "train.log").exists() else []
        return "\n".join([queue, *log[-_SHOWN_LINES:]])
