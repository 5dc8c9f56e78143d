"""What predict reaches over HTTP on one core, beside other servers of the same weights.

    python benchmarks/serving.py [--seconds 5] [--models tabular text image]

One server process has one core, and the clients, 64 connections that are kept open, the other. A perceptron (10-10-1),
a BERT of 4 layers of width 256, with texts of 64 tokens on average that the server tokenises, and a ResNet-18 at 224
pixels, from JPEG files in base64. The peers: a `def` route of FastAPI, LitServe with and without batches, MLServer with
batches; they open the perceptron by this package's forward and the others by transformers, ask for no key and have no
registry. Beside them uvicorn answering nothing in as many bytes, and the forward itself on batches of the size that
suits it best. All take turns. Then ours once more while the database changes twice a second, as it does beside a
running job. The first run installs the peers, each in its own environment. Prints the tables and, of all models
together, writes benchmarks/results/serving.json and .md.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import sqlite3
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import numpy as np
import torch
import uvloop
from photographs import photograph

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from registered import INPUT, register, register_image, register_text
from servers import Stack
from serving_load import Load, load, posted
from serving_peers import ONE_THREAD, PEERS, Peer, raw, running

from learning.prediction import Predictor

RESULTS = Path(__file__).parent / "results"
CONNECTIONS, ROUNDS, REQUESTS = 64, 3, 256
SERVER_CORE, CLIENT_CORE = 0, 1
OURS, RAW = "ours", "uvicorn answering nothing"
BESIDE = "ours, two commits a second"
# And whose inputs they take.
MODELS = {"tabular": "tabular", "text": "text", "text in bf16": "text", "image": "image", "image in bf16": "image"}
SIDE = 224


@dataclass(slots=True)
class Found:
    """What was measured with one model: each contestant's rounds, and the forward itself."""

    loads: dict[str, list[Load]] = field(default_factory=dict)
    alone: dict[str, list[Load]] = field(default_factory=dict)  # by one connection
    forward_rate: float = 0.0
    forward_ms: float = 0.0  # of one input
    health_p99_ms: float = 0.0  # of /livez while all connections ask

    def median(self, name: str, what: str, *, alone: bool = False) -> float:
        """Return the median of a contestant's rounds."""
        rounds = (self.alone if alone else self.loads)[name]
        return float(statistics.median(getattr(one, what) for one in rounds))


def inputs() -> dict[str, list[Any]]:
    """Return what is asked of each model; a character of a text is a token, and two more stand around them."""
    draw = random.Random(0)
    rows = [{name: draw.gauss(0, 1) for name in INPUT} for _ in range(REQUESTS)]
    texts = ["".join(draw.choices("etaoin shrdlu", k=draw.randint(30, 94))).strip() or "a" for _ in range(REQUESTS)]
    generator = np.random.default_rng(0)
    files = [photograph(generator, SIDE, SIDE, "JPEG", quality=90) for _ in range(CONNECTIONS)]
    return {"tabular": rows, "text": texts, "image": [base64.b64encode(file).decode() for file in files]}


def fetch(stack: Stack, model: str, directory: Path) -> None:
    """Write a registered model's files."""
    (directory / model).mkdir()
    with stack.client() as api:
        for file in api.get(f"/models/{model}/versions/1/files").json()["data"]:
            content = api.get(f"/models/{model}/versions/1/files/{file['path']}").content
            (directory / model / file["path"]).write_bytes(content)


def on_core(pid: int, core: int) -> None:
    """Leave a process one core."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


def agree(name: str, port: int, peer: Peer, values: list[Any], expected: list[float]) -> None:
    """Check that a peer answers as we do before either is measured."""
    url, headers = f"http://127.0.0.1:{port}{peer.path(name)}", {"Content-Type": "application/json"}
    for value, ours in zip(values, expected, strict=False):
        answer = httpx.post(url, content=peer.body(value), headers=headers, timeout=60).json()
        assert abs(peer.score(answer) - ours) < 1e-5, (peer.name, answer, ours)


def measure_forward(directory: Path, values: list[Any], found: Found) -> None:
    """Measure the forward itself, on the server's core: of one input, and of batches of the size that suits it best."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {SERVER_CORE})
    torch.set_num_threads(1)
    predictor = Predictor(directory)
    rows = predictor.parse(values).rows
    for size in (1, 16, CONNECTIONS):
        taken = []
        for start in range(0, len(rows), size):
            began = perf_counter()
            predictor.answer(rows[start : start + size])
            taken.append(perf_counter() - began)
        rate = min(size, len(rows)) / statistics.median(taken)
        found.forward_rate = max(found.forward_rate, rate)
        if size == 1:
            found.forward_ms = statistics.median(taken) * 1000
    os.sched_setaffinity(0, before)


def take_turns(servers: dict[str, tuple[int, list[bytes]]], seconds: float, found: Found) -> None:
    """Measure everybody in turn, by all connections and by one."""
    for turn in range(1 + ROUNDS):
        for name, (port, requests) in servers.items():
            many = uvloop.run(load(port, requests, seconds if turn else 1, CONNECTIONS))
            one = uvloop.run(load(port, requests, seconds / 2 if turn else 1, 1))
            if turn:  # the first one only warms up
                found.loads.setdefault(name, []).append(many)
                found.alone.setdefault(name, []).append(one)


@contextmanager
def committing(database: Path) -> Iterator[None]:
    """Commit to a SQLite database twice a second, as workers do that beat."""
    ended = threading.Event()

    def commit() -> None:
        with closing(sqlite3.connect(database, timeout=30, isolation_level=None)) as connection:
            for number in count(1):
                connection.execute(f"PRAGMA user_version = {number}")  # which nobody reads
                if ended.wait(0.5):
                    return

    thread = threading.Thread(target=commit)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def measure(directory: Path, seconds: float, models: list[str]) -> dict[str, Found]:
    """Return what each of the models' contestants reached."""
    stack = Stack(directory / "stack", dict(ONE_THREAD))
    found = dict[str, Found]()
    with ExitStack() as ends:
        ends.callback(stack.down)
        stack.up(workers=False)
        register(stack, "tabular")
        register_text(stack, "text", 4, 256)
        register_text(stack, "text-bf16", 4, 256, precision="bf16")
        register_image(stack, "image", SIDE)
        register_image(stack, "image-bf16", SIDE, precision="bf16")
        on_core(stack.processes["api"].pid, SERVER_CORE)
        os.sched_setaffinity(0, {CLIENT_CORE})
        for model in models:
            found[model] = measure_model(stack, model, directory, seconds)
    return found


def measure_model(stack: Stack, model: str, directory: Path, seconds: float) -> Found:
    """Measure one model: ours beside the peers, or in another precision alone."""
    found, kind = Found(), MODELS[model]
    ref, values = model.replace(" in ", "-"), inputs()[kind]
    fetch(stack, ref, directory)
    path = f"/api/v1/models/{ref}/predict"
    with stack.client() as api:
        answered = api.post(f"/models/{ref}/predict", json={"inputs": values[:20]})
    expected = [one["score"] for one in answered.json()["outputs"]]
    ours = [posted(path, json.dumps({"inputs": [value]}).encode(), stack.key) for value in values]
    servers = {OURS: (stack.port, ours)}
    with ExitStack() as ends:
        for peer in PEERS if ref == kind else ():
            port = ends.enter_context(running(peer, kind, directory, SERVER_CORE))
            agree(kind, port, peer, values, expected)
            servers[peer.name] = port, [posted(peer.path(kind), peer.body(value), "none") for value in values]
        if kind == "tabular":
            servers[RAW] = ends.enter_context(raw(len(answered.content) // 20, SERVER_CORE)), ours
        measure_forward(directory / ref, values, found)
        take_turns(servers, seconds, found)
        if kind == "tabular":
            with committing(stack.data_dir / "anneal.db"):
                take_turns({BESIDE: servers[OURS]}, seconds, found)
        found.health_p99_ms = uvloop.run(load(stack.port, ours, seconds, CONNECTIONS, "/livez")).health_p99_ms
    return found


@dataclass(frozen=True, slots=True)
class Bar:
    """What is wanted."""

    what: str
    reached: float
    wanted: float
    at_most: bool = False

    @property
    def line(self) -> str:
        """The line of a table."""
        met = self.reached <= self.wanted if self.at_most else self.reached >= self.wanted
        bound = "at most" if self.at_most else "at least"
        return f"| {self.what} | {bound} {self.wanted:g} | {self.reached:.3g} | {'met' if met else 'MISSED'} |"


def bars(found: dict[str, Found]) -> list[Bar]:
    """Return the bars of what was measured, with what was reached."""
    return [*(tabular_bars(found["tabular"]) if "tabular" in found else ()), *peer_bars(found), *own_bars(found)]


def tabular_bars(one: Found) -> list[Bar]:
    """Return the bars of the perceptron beside others."""
    rate, lit = one.median(OURS, "rate"), [peer.name for peer in PEERS if peer.name.startswith("LitServe")]
    alone = min(one.median(name, "p50_ms", alone=True) for name in lit)
    return [
        Bar("tabular: rate over LitServe's best", rate / max(one.median(name, "rate") for name in lit), 10),
        Bar("tabular: rate over MLServer's", rate / one.median("MLServer", "rate"), 6),
        Bar("tabular: rate over plain FastAPI's", rate / one.median("plain FastAPI", "rate"), 5),
        Bar("tabular: rate over that of uvicorn answering nothing", rate / one.median(RAW, "rate"), 0.4),
        Bar("tabular: p99, ms", one.median(OURS, "p99_ms"), 8, at_most=True),
        Bar(
            "tabular, one connection: p50 over LitServe's",
            one.median(OURS, "p50_ms", alone=True) / alone,
            0.2,
            at_most=True,
        ),
    ]


def peer_bars(found: dict[str, Found]) -> list[Bar]:
    """Return the bars of what takes longer beside the best of the others, which compute in fp32."""
    wanted = {"text": 2.4, "text in bf16": 3.4, "image": 1.5, "image in bf16": 2.2}
    return [
        Bar(
            f"{model}: rate over the best peer's",
            one.median(OURS, "rate") / max(found[MODELS[model]].median(peer.name, "rate") for peer in PEERS),
            wanted[model],
        )
        for model, one in found.items()
        if model in wanted and MODELS[model] in found
    ]


def own_bars(found: dict[str, Found]) -> list[Bar]:
    """Return the bars of each model beside its own forward."""
    least = {"text": 0.8, "text in bf16": 0.8, "image": 0.93, "image in bf16": 0.93}
    bars = []
    for model, one in found.items():
        if model in least:
            rate = one.median(OURS, "rate") / one.forward_rate
            bars += [
                Bar(f"{model}: rate over the forward's own", rate, least[model]),
                Bar(f"{model}: /livez under load, p99, ms", one.health_p99_ms, 5, at_most=True),
            ]
        more = one.median(OURS, "p50_ms", alone=True) - one.forward_ms
        bars += [
            Bar(f"{model}: p99 over p50", one.median(OURS, "p99_ms") / one.median(OURS, "p50_ms"), 3, at_most=True),
            Bar(f"{model}, one connection: p50 beside the forward's, ms more", more, 0.2, at_most=True),
        ]
    return bars


def report(found: dict[str, Found], seconds: float) -> str:
    """Return the tables."""
    lines = [
        f"One server process on one core, {CONNECTIONS} kept-open connections from the other, one input a request;",
        f"medians of {ROUNDS} rounds of {seconds:g} s in turn. Ours checks a key each time, the others do not.",
    ]
    for model, one in found.items():
        lines += [
            "",
            f"| {model} | answers/s | p50, ms | p99, ms | p50 of one connection, ms |",
            "|---|---:|---:|---:|---:|",
        ]
        for name in one.loads:
            cells = [f"{one.median(name, what):.4g}" for what in ("rate", "p50_ms", "p99_ms")]
            lines.append(f"| {name} | {' | '.join(cells)} | {one.median(name, 'p50_ms', alone=True):.3g} |")
        lines.append(f"| the forward itself | {one.forward_rate:.4g} | | | {one.forward_ms:.3g} |")
    lines += ["", "| bar | wanted | reached | |", "|---|---|---:|---|", *(bar.line for bar in bars(found))]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = measure(Path(directory), options.seconds, options.models)
    table = report(found, options.seconds)
    print(table)
    if set(options.models) != set(MODELS):
        return  # what is written is of one run
    (RESULTS / "serving.json").write_text(
        json.dumps({name: asdict(one) for name, one in found.items()}, indent=1) + "\n"
    )
    (RESULTS / "serving.md").write_text(table)


if __name__ == "__main__":
    main()
