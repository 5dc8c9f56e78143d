"""What predict reaches over HTTP on one core, beside a plain FastAPI endpoint that calls the same model.

    python benchmarks/serving.py [--seconds 8]

The API process has one core, and the client, 32 connections that are kept open, the other. The peer is a `def` route
that answers each request by itself with the same weights and the same forward: no key, no registry, no batching. The
two take turns, for a perceptron (10-10-1) and for a BERT of 4 layers of width 256 with texts of 64 tokens on average.
Prints the table and writes benchmarks/results/serving.json and .md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import uvloop

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from registered import INPUT, register, register_text
from servers import Stack, free_port, wait_for_port

RESULTS = Path(__file__).parent / "results"
CONNECTIONS, ROUNDS, REQUESTS = 32, 3, 256
SERVER_CORE, CLIENT_CORE = 0, 1
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# Times as many requests as the peer answers, and p99 over p50.
BARS, SPREAD_BAR = {"tabular": 5.0, "text": 2.4}, 3.0
PLAIN = """\
import sys, uvicorn
from pathlib import Path
from typing import Any
from fastapi import FastAPI
from pydantic import BaseModel
from learning.prediction import Predictor
app, predictors = FastAPI(), {name: Predictor(Path(sys.argv[2]) / name) for name in ("tabular", "text")}
class Asked(BaseModel):
    inputs: list[Any]
@app.post("/{name}")
def predict(name: str, asked: Asked) -> dict[str, Any]:
    return {"outputs": predictors[name].predict(asked.inputs).outputs}
uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False)
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What one server did under load."""

    rate: float  # answers a second
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table."""

    model: str
    what: str
    ours: float
    plain: float
    ratio: float | None = None
    wanted: str = ""
    met: bool | None = None


class Asking(asyncio.Protocol):
    """One kept-open connection that sends one request after the other."""

    def __init__(self, requests: Sequence[bytes], until: float, taken: list[float]) -> None:
        self._requests, self._until, self._taken = requests, until, taken
        self._next = random.Random(len(taken)).randrange(len(requests))
        self._received = b""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def _ask(self) -> None:
        self._began = time.perf_counter()
        self._next = (self._next + 1) % len(self._requests)
        self._transport.write(self._requests[self._next])

    def data_received(self, data: bytes) -> None:
        """Count a whole answer and ask again."""
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            return
        assert head.startswith(b"HTTP/1.1 200"), self._received
        now = time.perf_counter()
        self._taken.append(now - self._began)
        self._received = b""
        if now < self._until:
            self._ask()
        else:
            self._transport.close()
            self.ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail when the server closed the connection."""
        if not self.ended.done():
            self.ended.set_exception(exc or ConnectionError("the server closed a connection"))


async def load(port: int, requests: Sequence[bytes], seconds: float) -> Load:
    """Return what all connections together saw."""
    loop, taken = asyncio.get_running_loop(), list[float]()
    began = time.perf_counter()
    opened = [
        await loop.create_connection(lambda: Asking(requests, began + seconds, taken), "127.0.0.1", port)
        for _ in range(CONNECTIONS)
    ]
    await asyncio.gather(*(asking.ended for _, asking in opened))
    elapsed = time.perf_counter() - began
    cuts = statistics.quantiles(taken, n=100)
    return Load(len(taken) / elapsed, cuts[49] * 1000, cuts[98] * 1000)


def request(path: str, key: str, value: Any) -> bytes:
    """Return the bytes of a prediction request."""
    body = json.dumps({"inputs": [value]})
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def inputs() -> dict[str, list[Any]]:
    """Return what is asked of each model; a character of a text is a token, and two more stand around them."""
    draw = random.Random(0)
    rows = [{name: draw.gauss(0, 1) for name in INPUT} for _ in range(REQUESTS)]
    texts = ["".join(draw.choices("etaoin shrdlu", k=draw.randint(30, 94))).strip() or "a" for _ in range(REQUESTS)]
    return {"tabular": rows, "text": texts}


def plain_server(stack: Stack, directory: Path) -> tuple[int, Callable[[], None]]:
    """Start the peer with the files of the registered models; returns its port and how to end it."""
    for name in ("tabular", "text"):
        (directory / name).mkdir()
        with stack.client() as api:
            for file in api.get(f"/models/{name}/versions/1/files").json()["data"]:
                content = api.get(f"/models/{name}/versions/1/files/{file['path']}").content
                (directory / name / file["path"]).write_bytes(content)
    (directory / "plain.py").write_text(PLAIN)
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, directory / "plain.py", str(port), directory], env={**os.environ, **ONE_THREAD}
    )
    wait_for_port(port, 30)
    on_core(process.pid, SERVER_CORE)
    return port, process.terminate


def on_core(pid: int, core: int) -> None:
    """Leave a process one core."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


def agree(stack: Stack, plain_port: int, asked: dict[str, list[Any]]) -> None:
    """Check that the two answer alike before either is measured."""
    for name, values in asked.items():
        with stack.client() as api:
            ours = api.post(f"/models/{name}/predict", json={"inputs": values[:20]}).json()["outputs"]
        url = f"http://127.0.0.1:{plain_port}/{name}"
        theirs = [httpx.post(url, json={"inputs": [value]}, timeout=60).json() for value in values[:20]]
        for one, other in zip(ours, theirs, strict=True):
            assert abs(one["score"] - other["outputs"][0]["score"]) < 1e-5, (one, other)


def measure(directory: Path, seconds: float) -> dict[str, dict[str, list[Load]]]:
    """Return each model's rounds, ours and the peer's in turn."""
    stack = Stack(directory / "stack", dict(ONE_THREAD))
    asked = inputs()
    found: dict[str, dict[str, list[Load]]] = {name: {"ours": [], "plain": []} for name in asked}
    with ExitStack() as ends:
        ends.callback(stack.down)
        stack.up(workers=False)
        register(stack, "tabular")
        register_text(stack, "text", 4, 256)
        plain_port, end = plain_server(stack, directory)
        ends.callback(end)
        agree(stack, plain_port, asked)
        on_core(stack.processes["api"].pid, SERVER_CORE)
        os.sched_setaffinity(0, {CLIENT_CORE})
        servers = {"ours": (stack.port, "/api/v1/models/{}/predict"), "plain": (plain_port, "/{}")}
        for name, values in asked.items():
            for turn in range(1 + ROUNDS):
                for which, (port, path) in servers.items():
                    requests = [request(path.format(name), stack.key, value) for value in values]
                    seen = uvloop.run(load(port, requests, seconds if turn else 1))
                    if turn:  # the first one only warms up
                        found[name][which].append(seen)
    return found


def lines_of(found: dict[str, dict[str, list[Load]]]) -> list[Line]:
    """Return medians of the rounds and ratios of medians."""
    lines = []
    for name, loads in found.items():
        ours, plain = (
            {what: statistics.median(getattr(one, what) for one in loads[which]) for what in Load.__slots__}
            for which in ("ours", "plain")
        )
        ratio = {what: ours[what] / plain[what] for what in ours}
        bar, spread = BARS[name], ours["p99_ms"] / ours["p50_ms"]
        wanted = f"ratio at least {bar:g}"
        lines += [
            Line(name, "requests/s", ours["rate"], plain["rate"], ratio["rate"], wanted, ratio["rate"] >= bar),
            Line(name, "p50, ms", ours["p50_ms"], plain["p50_ms"], ratio["p50_ms"]),
            Line(name, "p99, ms", ours["p99_ms"], plain["p99_ms"], ratio["p99_ms"]),
            Line(
                name, "p99 / p50", spread, plain["p99_ms"] / plain["p50_ms"], None,
                f"ours at most {SPREAD_BAR:g}", spread <= SPREAD_BAR,
            ),
        ]  # fmt: skip
    return lines


def report(lines: list[Line], seconds: float) -> str:
    """Return the table."""
    table = [
        f"One server process on one core, {CONNECTIONS} kept-open connections from the other, one input a request;",
        f"medians of {ROUNDS} rounds of {seconds:g} s in turn. Ours checks a key each time, the plain route does not.",
        "",
        "| model | | ours | plain FastAPI | ratio | wanted | |",
        "|---|---|---:|---:|---:|---|---|",
    ]
    for line in lines:
        met = {True: "met", False: "MISSED", None: ""}[line.met]
        ratio = "" if line.ratio is None else f"{line.ratio:.3g}"
        table.append(
            f"| {line.model} | {line.what} | {line.ours:.4g} | {line.plain:.4g} | {ratio} | {line.wanted} | {met} |"
        )
    return "\n".join(table) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = measure(Path(directory), options.seconds)
    lines = lines_of(found)
    table = report(lines, options.seconds)
    print(table)
    (RESULTS / "serving.json").write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n")
    (RESULTS / "serving.md").write_text(table)


if __name__ == "__main__":
    main()
