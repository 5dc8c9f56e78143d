"""How soon a server that has just been started answers, and what memory it then has, beside LitServe.

    python benchmarks/cold.py [--rounds 5]

From the start of the process to its first prediction, by a client that asks again as long as nobody listens: a
perceptron (10-10-1) and a BERT of 4 layers of width 256. Files are in the system's cache, as after a restart. Memory is
that of a server's whole tree of processes after some requests, each page shared among those that have it. LitServe
opens the perceptron by this package's forward and the BERT by transformers. All take turns, each on one core. Prints
the table and writes benchmarks/results/cold.json and .md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from processes import descendants
from registered import INPUT, register, register_text
from servers import Stack
from serving import SERVER_CORE, fetch
from serving_peers import ONE_THREAD, PEERS, Peer, running

RESULTS = Path(__file__).parent / "results"
OURS, LITSERVE = "ours", "LitServe"
INPUTS: dict[str, Any] = {"tabular": INPUT, "text": "where is my card"}
BARS_S = {"tabular": 2.0, "text": 3.0}
ASKED = 50
AGAIN_S, LONGEST_S = 0.005, 60.0


@dataclass(frozen=True, slots=True)
class Start:
    """One start: seconds to the first prediction, of the clock and of the processor, and bytes of memory after some."""

    seconds: float
    processor_s: float
    bytes: int


@contextmanager
def ours(stack: Stack) -> Iterator[int]:
    """Run our server on one core; gives its process."""
    process = stack.start("api", "service")
    os.sched_setaffinity(process.pid, {SERVER_CORE})
    try:
        yield process.pid
    finally:
        stack.stop("api")


def memory(root: int) -> int:
    """Return the memory of a process and all it has started; a page that several have counts once in all."""
    total = 0
    for pid in descendants(root):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total


def processor_s(root: int) -> float:
    """Return the processor seconds of a process and all it has started."""
    total = 0
    for pid in descendants(root):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += sum(int(field) for field in fields[11:15])  # its own, and of those of its children that have ended
    return total / os.sysconf("SC_CLK_TCK")


def start_ours(stack: Stack, model: str) -> Start:
    """Start our server once."""
    body = json.dumps({"inputs": [INPUTS[model]]}).encode()
    began = time.perf_counter()
    with ours(stack) as pid:
        url = f"{stack.url}/api/v1/models/{model}/predict"
        return Start(*timed_first(url, body, stack.key, began, pid), memory(pid))


def timed_first(url: str, body: bytes, key: str, began: float, pid: int) -> tuple[float, float]:
    """Return the seconds from `began` to the first answer, and the server's of the processor; have some more made."""
    taken: list[float] = []

    def hear(answer: httpx.Response) -> None:
        if answer.status_code == httpx.codes.OK and not taken:
            taken.append(time.perf_counter() - began)

    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    with httpx.Client(headers=headers, timeout=LONGEST_S, event_hooks={"response": [hear]}) as client:
        while not taken:
            try:
                client.post(url, content=body)
            except httpx.TransportError:
                time.sleep(AGAIN_S)
            assert time.perf_counter() - began < LONGEST_S, url
        used = processor_s(pid)
        for _ in range(ASKED):
            client.post(url, content=body).raise_for_status()
    return taken[0], used


def start_peer(peer: Peer, model: str, directory: Path) -> Start:
    """Start LitServe once."""
    before = set(descendants(os.getpid()))
    began = time.perf_counter()
    with running(peer, model, directory, SERVER_CORE) as port:
        pid = next(pid for pid in descendants(os.getpid()) if pid not in before)
        url = f"http://127.0.0.1:{port}{peer.path(model)}"
        return Start(*timed_first(url, peer.body(INPUTS[model]), "none", began, pid), memory(pid))


def report(found: dict[str, dict[str, list[Start]]], rounds: int) -> str:
    """Return the table."""
    lines = [
        "From the start of the process to the first prediction, and the memory of all its processes after some more;",
        f"one core, medians of {rounds} starts in turn, in brackets the best. The machine had a load of",
        f"{os.getloadavg()[1]:.1f} on {os.cpu_count()} cores. Processor seconds count it less.",
        "",
        "| model | server | seconds | processor seconds | MiB | wanted | |",
        "|---|---|---:|---:|---:|---|---|",
    ]
    for model, servers in found.items():
        used = {name: statistics.median(one.bytes for one in starts) / 2**20 for name, starts in servers.items()}
        for name, starts in servers.items():
            seconds = statistics.median(one.seconds for one in starts)
            met = seconds <= BARS_S[model] and used[name] <= used[LITSERVE]
            wanted = f"at most {BARS_S[model]:g} s, and LitServe's memory" if name == OURS else ""
            said = ("met" if met else "MISSED") if name == OURS else ""
            best = min(one.seconds for one in starts)
            busy = statistics.median(one.processor_s for one in starts)
            cells = [f"{seconds:.2f} ({best:.2f})", f"{busy:.2f}", f"{used[name]:.0f}", wanted, said]
            lines.append(f"| {model} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    found: dict[str, dict[str, list[Start]]] = {model: {OURS: [], LITSERVE: []} for model in INPUTS}
    (peer,) = (one for one in PEERS if one.name == LITSERVE)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        stack = Stack(directory / "stack", dict(ONE_THREAD))
        stack.up(workers=False)
        register(stack, "tabular")
        register_text(stack, "text", 4, 256)
        for model in INPUTS:
            fetch(stack, model, directory)
        stack.stop("api")
        for turn in range(1 + options.rounds):
            for model, servers in found.items():
                one, other = start_ours(stack, model), start_peer(peer, model, directory)
                if turn:  # the first one only fills the system's cache
                    servers[OURS].append(one)
                    servers[LITSERVE].append(other)
    table = report(found, options.rounds)
    print(table)
    plain = {m: {n: [asdict(one) for one in starts] for n, starts in servers.items()} for m, servers in found.items()}
    (RESULTS / "cold.json").write_text(json.dumps(plain, indent=1) + "\n")
    (RESULTS / "cold.md").write_text(table)


if __name__ == "__main__":
    main()
