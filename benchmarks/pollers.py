"""What waiting costs: 200 long polls and 50 event streams on one API process, beside running jobs.

    python benchmarks/pollers.py [--seconds 30]

Starts the product embedded and on PostgreSQL with Redis. Jobs are paused and resumed before any worker could take them
(none trains here), each change at a known time; every waiter says when it saw it. The event loop's lag is seen from
outside: how long /livez takes, which needs nothing but the loop, asked ten times a second. Prints the table and writes
benchmarks/results/pollers.json and .md.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import httpx
from start import products

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from servers import Stack
from support import TRAIN, classify, submit, upload

RESULTS = Path(__file__).parent / "results"
POLLERS, READERS, JOBS = 200, 50, 25
SUBMITTED = 2  # a job is submitted and then paused: two events
PING_S, CHANGE_S = 0.1, 0.25
LAG_BAR_MS, SEEN_BAR_S = 50.0, 1.0
COLUMNS = ("median", "p99", "max", "bar")


class Watch:
    """When each change was made, and what was seen of it."""

    def __init__(self) -> None:
        self.made: dict[tuple[str, int], float] = {}  # (job, sequence of its event) to the time of the request
        self.seen: dict[str, list[float]] = {"long poll": [], "stream": []}
        self.lag_ms: list[float] = []

    def saw(self, kind: str, job_id: str, sequence: int) -> None:
        """Count the delay of what came just now."""
        made = self.made.get((job_id, sequence))
        if made is not None:
            self.seen[kind].append(max(0.0, time.monotonic() - made))


async def poll(api: httpx.AsyncClient, job_id: str, watch: Watch) -> None:
    """Long-poll a job for ever, as a service does: with the ETag of what it has seen."""
    tag, status, sequence = "", "", SUBMITTED
    while True:
        wait, seen = ({"wait": 30}, {"If-None-Match": tag}) if tag else ({}, {})
        answer = await api.get(f"/jobs/{job_id}", params=wait, headers=seen)
        tag = answer.headers["etag"]
        if answer.status_code == 200 and answer.json()["status"] != status:
            status = answer.json()["status"]
            watch.saw("long poll", job_id, sequence)
            sequence += 1


async def read(api: httpx.AsyncClient, job_id: str, watch: Watch) -> None:
    """Read a job's events for ever."""
    async with api.stream("GET", f"/jobs/{job_id}/events", headers={"Accept": "text/event-stream"}) as response:
        async for line in response.aiter_lines():
            if line.startswith("id: "):
                watch.saw("stream", job_id, int(line[4:]))


async def change(api: httpx.AsyncClient, job_ids: list[str], watch: Watch, until: float) -> None:
    """Resume and pause one job after the other; each is one event."""
    for sequence in itertools.count(SUBMITTED + 1):
        for job_id in job_ids:
            watch.made[job_id, sequence] = time.monotonic()
            await api.post(f"/jobs/{job_id}/{'pause' if sequence % 2 == 0 else 'resume'}")
            await asyncio.sleep(CHANGE_S)
        if time.monotonic() > until:
            return


def ping(url: str, until: float) -> list[float]:
    """Ask for what costs nothing but the event loop's attention; return the milliseconds. Runs in a process apart."""
    lags = []
    with httpx.Client(base_url=url, timeout=30) as root:
        root.get("/livez")
        while time.monotonic() < until:
            began = time.perf_counter()
            root.get("/livez")
            lags.append((time.perf_counter() - began) * 1000)
            time.sleep(PING_S)
    return lags


async def measure(stack: Stack, job_ids: list[str], seconds: float) -> Watch:
    """Run everything for a while."""
    watch = Watch()
    headers = {"Authorization": f"Bearer {stack.key}"}
    limits = httpx.Limits(max_connections=None)
    apart = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    async with httpx.AsyncClient(base_url=f"{stack.url}/api/v1", headers=headers, timeout=90, limits=limits) as api:
        waiters = [poll(api, job_ids[index % len(job_ids)], watch) for index in range(POLLERS)]
        readers = [read(api, job_ids[index % len(job_ids)], watch) for index in range(READERS)]
        tasks = [asyncio.create_task(task) for task in (*waiters, *readers)]
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(apart, ping, stack.url, 0.0)  # its start takes a core for a second
        await asyncio.sleep(5)
        watch.seen = {kind: [] for kind in watch.seen}
        until = time.monotonic() + seconds
        lags = loop.run_in_executor(apart, ping, stack.url, until)
        await change(api, job_ids, watch, until)
        watch.lag_ms = await lags
        await asyncio.sleep(1)
        for task in tasks:
            assert not task.done() or task.exception() is None, task.exception()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    apart.shutdown()
    return watch


def row(column: str, what: str, values: list[float], bar: float, unit: str) -> dict[str, object]:
    """Return one line of the table."""
    cuts = statistics.quantiles(values, n=100)
    return {
        "column": column,
        "what": what,
        "n": len(values),
        "median": statistics.median(values),
        "p99": cuts[98],
        "max": max(values),
        "bar": bar,
        "unit": unit,
    }


def report(rows: list[dict[str, object]]) -> str:
    """Return the table."""
    lines = [
        f"{POLLERS} long polls (`?wait=30` with If-None-Match) and {READERS} event streams on {JOBS} jobs of one API",
        f"process, a job changing every {CHANGE_S} s. The readers share the machine's two cores with the service.",
        "",
        "| column | | n | median | p99 | most | wanted: p99 under | |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for entry in rows:
        numbers = " | ".join(f"{float(str(entry[name])):.3g} {entry['unit']}" for name in COLUMNS)
        met = "met" if float(str(entry["p99"])) < float(str(entry["bar"])) else "MISSED"
        lines.append(f"| {entry['column']} | {entry['what']} | {entry['n']} | {numbers} | {met} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as directory, products(Path(directory)) as stacks:
        for name, stack in stacks.items():
            with stack.client() as api:
                dataset = str(upload(api, TRAIN)["id"])
                first = submit(api, classify(dataset, hyperparameters={"epochs": 5000}))
                api.post(f"/jobs/{first}/pause")
                # They wait for a job that does not run, so that only what is done to them here changes them.
                job_ids = [submit(api, classify(dataset, depends_on=[first])) for _ in range(JOBS)]
                for job_id in job_ids:
                    api.post(f"/jobs/{job_id}/pause")
            watch = asyncio.run(measure(stack, job_ids, options.seconds))
            for kind, seen in watch.seen.items():
                rows.append(row(name, f"{kind}: change to seen", seen, SEEN_BAR_S, "s"))
            rows.append(row(name, "event loop: /livez", watch.lag_ms, LAG_BAR_MS, "ms"))
    table = report(rows)
    print(table)
    (RESULTS / "pollers.json").write_text(json.dumps(rows, indent=1) + "\n")
    (RESULTS / "pollers.md").write_text(table)


if __name__ == "__main__":
    main()
