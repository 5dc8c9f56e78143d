"""docker-compose.yml run without containers: its services' commands, environments and checks as local processes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from servers import REPOSITORY, free_port, require_binary

_VARIABLE = re.compile(r"\$\$|\$\{(?P<name>\w+)(?:(?P<kind>:[?-])(?P<rest>[^}]*))?\}")
_UNITS = {"s": 1, "m": 60, "h": 3600}
OURS = ("migrate", "api", "worker", "ingest-worker")


class Unset(Exception):
    """A variable that must have a value has none."""


def load(variables: Mapping[str, str]) -> dict[str, Any]:
    """Return docker-compose.yml with its variables put in, the way Compose does it."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        given = variables.get(match["name"], "")
        if not given and match["kind"] == ":?":
            raise Unset(match["rest"])
        return given or (match["rest"] if match["kind"] == ":-" else "")

    def resolve(node: Any) -> Any:
        if isinstance(node, dict):
            return {name: resolve(one) for name, one in node.items()}
        if isinstance(node, list):
            return [resolve(one) for one in node]
        return _VARIABLE.sub(value, node) if isinstance(node, str) else node

    document: dict[str, Any] = resolve(yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text()))
    return document


def seconds(duration: str) -> int:
    """Return a Compose duration such as 60s in seconds."""
    return int(duration[:-1]) * _UNITS[duration[-1]]


@dataclass
class Composition:
    """The services as processes: containers' paths become directories, host names become loopback ports."""

    directory: Path
    postgres_port: int
    variables: Mapping[str, str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    redis_port: int = field(default_factory=free_port)
    api_port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.services: dict[str, Any] = load(self.variables)["services"]
        self.data_dir.mkdir(mode=0o700, parents=True)

    @property
    def data_dir(self) -> Path:
        """What the volume `data` holds."""
        return self.directory / "data"

    def local(self, name: str, text: str) -> str:
        """Return a container's text with its places in terms of this machine."""
        home = self.directory / name
        for inside, here in {
            "postgres:5432": f"127.0.0.1:{self.postgres_port}",
            "redis:6379": f"127.0.0.1:{self.redis_port}",
            "/tmp/": f"{home}/",
            "/data": str(self.directory / "redis" if name == "redis" else self.data_dir),
        }.items():
            text = text.replace(inside, here)
        return text

    def environment(self, name: str) -> dict[str, str]:
        """Return a service's environment: what Compose would set, and of this process only where programs are."""
        given = {key: self.local(name, str(value)) for key, value in self.services[name].get("environment", {}).items()}
        if "ANNEAL_PORT" in given:
            given["ANNEAL_PORT"] = str(self.api_port)
        programs = [Path(sys.executable).parent, Path(require_binary("pg_isready", "postgresql")).parent]
        kept = {key: value for key, value in os.environ.items() if key.startswith("COVERAGE_")}
        path = os.pathsep.join([*map(str, programs), os.environ["PATH"]])
        return {**kept, "PATH": path, "HOME": str(self.directory / name), "PGPORT": str(self.postgres_port), **given}

    def command(self, name: str, words: list[str]) -> list[str]:
        """Return a command with its places local."""
        words = [self.local(name, word) for word in words]
        # The image's Redis keeps its files in /data and listens on 6379; both come from its working directory here.
        port = {
            "redis-server": ["--port", str(self.redis_port), "--bind", "127.0.0.1"],
            "redis-cli": ["-p", str(self.redis_port)],
        }.get(words[0], [])
        return [words[0], *port, *words[1:]]

    def up(self) -> None:
        """Start every service outside a profile, each when what it depends on is as it asks."""
        for name, service in self.services.items():
            if "profiles" not in service:
                self.start(name)

    def start(self, name: str) -> None:
        """Start a service after those it depends on."""
        if name in self.order:
            return
        for other, asked in self.services[name].get("depends_on", {}).items():
            self.start(other)
            self.wait(other, asked["condition"])
        self.order.append(name)
        home = self.directory / name
        home.mkdir(exist_ok=True)
        if name != "postgres":  # it runs already, as its own image would have it
            with (self.directory / f"{name}.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    self.command(name, self.services[name]["command"]),
                    env=self.environment(name),
                    cwd=home,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )

    def wait(self, name: str, condition: str) -> None:
        """Wait until a service's condition holds."""
        if condition == "service_completed_successfully":
            if name in self.processes:
                self.ended[name] = self.processes.pop(name).wait(120)
            assert self.ended[name] == 0, self.log(name)
            return
        assert condition == "service_healthy"
        until = time.monotonic() + 60
        while not self.is_healthy(name):
            assert time.monotonic() < until, self.log(name)
            process = self.processes.get(name)
            assert process is None or process.poll() is None, self.log(name)
            time.sleep(0.2)

    def is_healthy(self, name: str) -> bool:
        """Run a service's health check."""
        check = self.services[name]["healthcheck"]
        kind, *words = check["test"]
        words = ["sh", "-c", *words] if kind == "CMD-SHELL" else words
        done = subprocess.run(
            self.command(name, words),
            env=self.environment(name),
            cwd=self.directory / name,
            capture_output=True,
            timeout=seconds(check["timeout"]) * 4,
            check=False,
        )
        return done.returncode == 0

    def log(self, name: str) -> str:
        """Return what a service wrote."""
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def stop(self, name: str) -> int:
        """Ask a service to end as Compose does and return its exit code; it must end within its grace."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            self.ended[name] = process.wait(seconds(self.services[name].get("stop_grace_period", "10s")))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return self.ended[name]

    def down(self) -> None:
        """Stop what still runs, in the order opposite to the start."""
        for name in reversed(list(self.processes)):
            self.stop(name)
