"""What the API alone reaches: ready after its start, polls a second on one core, and how long a submission takes.

    python benchmarks/polling.py [--seconds 5]

The API process has one core, and the client, plain sockets that are kept open, the other. Beside it, in the same run, a
plain FastAPI application answers the same bytes from memory by a `def` route: no key, no database. Prints the table and
writes benchmarks/results/polling.json and .md.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from start import products

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from servers import Stack, free_port, wait_for_port
from support import TRAIN, classify, submit, succeeded, upload

RESULTS = Path(__file__).parent / "results"
CONNECTIONS, ROUNDS, STARTS, SUBMISSIONS = 8, 3, 5, 200
READY_BAR_S, POLLS_BAR, SUBMIT_BAR_MS = 2.0, 800.0, 50.0
SERVER_CORE, CLIENT_CORE = 0, 1
PLAIN = """\
import sys, uvicorn
from fastapi import FastAPI, Response
app, body = FastAPI(), open(sys.argv[2], "rb").read()
@app.get("/api/v1/jobs/{job_id}")
def job(job_id: str) -> Response:
    return Response(body, media_type="application/json")
uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False)
"""


class Row(NamedTuple):
    """One line of the table."""

    column: str
    what: str
    value: float
    bar: str
    met: bool | None


class Connection:
    """One kept-open connection that asks for one thing over and over."""

    def __init__(self, port: int, path: str, key: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n\r\n"
        self._request = head.encode()
        self.answered = 0

    def ask_until(self, until: float) -> None:
        """Ask until then, and count the answers."""
        while time.monotonic() < until:
            self._socket.sendall(self._request)
            head, _, body = self._socket.recv(1 << 16).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            while len(body) < length:
                body += self._socket.recv(1 << 16)
            self.answered += 1


def rate(port: int, path: str, key: str, seconds: float) -> float:
    """Return the answers a second over all connections."""
    connections = [Connection(port, path, key) for _ in range(CONNECTIONS)]
    began = time.monotonic()
    threads = [threading.Thread(target=one.ask_until, args=(began + seconds,)) for one in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(one.answered for one in connections) / (time.monotonic() - began)


def ready_s(stack: Stack) -> float:
    """Stop the API, start it, and return the seconds to its first 200 on /readyz."""
    stack.stop("api")
    began = time.monotonic()
    stack.start("api", "service")
    stack.wait_ready()
    return time.monotonic() - began


def on_one_core(stack: Stack) -> None:
    """Leave the API one core, and this process the other."""
    pid = stack.processes["api"].pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {SERVER_CORE})
    os.sched_setaffinity(0, {CLIENT_CORE})


def plain_server(answer: bytes, directory: Path) -> tuple[int, Callable[[], None]]:
    """Start the plain application on the server's core; returns its port and how to end it."""
    (directory / "plain.py").write_text(PLAIN)
    (directory / "answer.json").write_bytes(answer)
    port = free_port()
    process = subprocess.Popen([sys.executable, directory / "plain.py", str(port), directory / "answer.json"])
    os.sched_setaffinity(process.pid, {SERVER_CORE})
    wait_for_port(port)
    return port, process.terminate


def measure(name: str, stack: Stack, seconds: float) -> list[Row]:
    """Return the rows of one column."""
    started = [ready_s(stack) for _ in range(STARTS)]
    every_core = os.sched_getaffinity(0)
    with stack.client() as api:
        rows = str(upload(api, TRAIN)["id"])
        job_id = submit(api, classify(rows))
        succeeded(api, job_id)
        answer = api.get(f"/jobs/{job_id}").content
        first = submit(api, classify(rows, hyperparameters={"epochs": 100_000}))
        body = classify(rows, depends_on=[first])  # none of them runs meanwhile
        taken = []
        for _ in range(SUBMISSIONS):
            began = time.perf_counter()
            submit(api, body)
            taken.append((time.perf_counter() - began) * 1000)
        api.post(f"/jobs/{first}/cancel")
    for worker in ("train", "ingest"):
        stack.stop(worker)
    plain_port, end = plain_server(answer, stack.directory)
    on_one_core(stack)
    path = f"/api/v1/jobs/{job_id}"
    ours, plain = [], []
    for _ in range(ROUNDS):
        ours.append(rate(stack.port, path, stack.key, seconds))
        plain.append(rate(plain_port, path, stack.key, seconds))
    end()
    os.sched_setaffinity(0, every_core)
    polls = statistics.median(ours)
    ready, submission = statistics.median(started), statistics.median(taken)
    return [
        Row(name, "start to the first 200 on /readyz, s", ready, f"at most {READY_BAR_S:g}", ready <= READY_BAR_S),
        Row(name, "GET /jobs/{id}, requests/s on one core", polls, f"at least {POLLS_BAR:g}", polls >= POLLS_BAR),
        Row(name, "the same over plain FastAPI's", polls / statistics.median(plain), "", None),
        Row(name, "POST /jobs, ms", submission, f"under {SUBMIT_BAR_MS:g}", submission < SUBMIT_BAR_MS),
        Row(name, "POST /jobs, p99, ms", statistics.quantiles(taken, n=100)[98], "", None),
    ]


def report(rows: list[Row]) -> str:
    """Return the table."""
    lines = [
        f"One API process on one core, {CONNECTIONS} connections from the other; medians of {ROUNDS} rounds,",
        f"{STARTS} starts and {SUBMISSIONS} submissions.",
        "",
        "| column | | median | wanted | |",
        "|---|---|---:|---:|---|",
    ]
    for entry in rows:
        met = {True: "met", False: "MISSED", None: ""}[entry.met]
        lines.append(f"| {entry.column} | {entry.what} | {entry.value:.4g} | {entry.bar} | {met} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as directory, products(Path(directory)) as stacks:
        for name, stack in stacks.items():
            rows += measure(name, stack, options.seconds)
    table = report(rows)
    print(table)
    (RESULTS / "polling.json").write_text(json.dumps([row._asdict() for row in rows], indent=1) + "\n")
    (RESULTS / "polling.md").write_text(table)


if __name__ == "__main__":
    main()
