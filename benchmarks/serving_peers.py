"""Other servers of the same weights, each in an environment of its own beside what this package has installed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from servers import free_port, wait_for_port

SCRIPTS = Path(__file__).parent / "peers"
ENVIRONMENTS = Path.home() / ".cache" / "anneal-benchmarks"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
BATCH = 64


@dataclass(frozen=True, slots=True)
class Peer:
    """A way to serve: what it needs installed, and its script or, for MLServer, none."""

    name: str
    script: str = ""
    arguments: tuple[str, ...] = ()
    requirement: str | None = None

    def body(self, value: Any) -> bytes:
        """Return a request for one input as this server wants it."""
        if self.script:
            return json.dumps({"inputs": [value]}).encode()
        text = isinstance(value, str)
        data, shape, kind = ([value], [1, 1], "BYTES") if text else (list(value.values()), [1, len(value)], "FP64")
        return json.dumps({"inputs": [{"name": "input", "shape": shape, "datatype": kind, "data": data}]}).encode()

    def path(self, model: str) -> str:
        """Return where it answers."""
        return "/predict" if self.script else f"/v2/models/{model}/infer"

    def score(self, answer: Any) -> float:
        """Return what it says of the one input."""
        value = answer["outputs"][0]
        return float(value["score"] if self.script else value["data"][0])


LITSERVE, MLSERVER = "litserve==0.2.19", "mlserver==1.7.1"
PEERS = (
    Peer("plain FastAPI", "fastapi_server.py"),
    Peer("LitServe", "litserve_server.py", ("1",), LITSERVE),
    Peer(f"LitServe, batches of {BATCH}", "litserve_server.py", (str(BATCH),), LITSERVE),
    Peer("MLServer", requirement=MLSERVER),
)


def environment(peer: Peer) -> str:
    """Install what a peer needs, unless it is there, and return the path to import it from."""
    if peer.requirement is None:
        return str(SCRIPTS)
    target = ENVIRONMENTS / peer.requirement
    if not (target / "installed").exists():
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", target, peer.requirement], check=True)
        (target / "installed").touch()
    return f"{target}:{SCRIPTS}"


@contextmanager
def running(peer: Peer, model: str, models: Path, core: int) -> Iterator[int]:
    """Run a peer with one model on one core; gives its port."""
    port = free_port()
    variables = os.environ | ONE_THREAD | {"PYTHONPATH": environment(peer), "PEER_CORE": str(core)}
    if peer.script:
        command = [str(SCRIPTS / peer.script), str(port), str(core), str(models), model, *peer.arguments]
    else:
        command = ["-c", "from mlserver.cli import main; main()", "start", str(_mlserver_settings(models, model, port))]
    with (models / f"{peer.name}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *command], env=variables, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for_port(port, 60)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # LitServe's worker too
        process.wait()


@contextmanager
def raw(answer_bytes: int, core: int) -> Iterator[int]:
    """Run an application of uvicorn's that reads a body and answers with so many bytes; gives its port."""
    port = free_port()
    process = subprocess.Popen([sys.executable, SCRIPTS / "raw_server.py", str(port), str(core), str(answer_bytes)])
    try:
        wait_for_port(port, 30)
        yield port
    finally:
        process.kill()
        process.wait()


def _mlserver_settings(models: Path, model: str, port: int) -> Path:
    directory = models / f"mlserver-{model}"
    directory.mkdir(exist_ok=True)
    ports = {"http_port": port, "grpc_port": free_port(), "metrics_endpoint": None}
    settings = {"host": "127.0.0.1", "parallel_workers": 0, "debug": False, **ports}
    runtime = {
        "name": model,
        "implementation": "mlserver_runtime.Runtime",
        "parameters": {"uri": str(models)},
        "max_batch_size": BATCH,
        "max_batch_time": 0.002,
    }
    (directory / "settings.json").write_text(json.dumps(settings))
    (directory / "model-settings.json").write_text(json.dumps(runtime))
    return directory
