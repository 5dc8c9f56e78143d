"""How soon a job runs: from the POST to the first optimizer step, with an idle worker.

    python benchmarks/start.py [--jobs 30]

Starts the whole product, embedded and on PostgreSQL with Redis, and submits small tabular jobs one after the other. The
first step's time is the worker's own clock in the first report of progress with a step, on the same machine; heartbeats
come every 20 ms, so that this report is seen before the next. Prints
the table and writes benchmarks/results/start.json and .md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from servers import Stack, postgres, redis
from support import TRAIN, classify, submit, succeeded, upload

RESULTS = Path(__file__).parent / "results"
BARS = {"embedded": 0.7, "PostgreSQL and Redis": 0.3}


@contextmanager
def products(directory: Path) -> Iterator[dict[str, Stack]]:
    """Start the product on each column."""
    with postgres(directory / "postgres") as database_url, redis(directory / "redis") as broker_url:
        stacks = {
            "embedded": Stack(directory / "embedded", {"ANNEAL_HEARTBEAT_S": "0.02"}),
            "PostgreSQL and Redis": Stack(
                directory / "production",
                {"ANNEAL_DATABASE_URL": database_url, "ANNEAL_BROKER_URL": broker_url, "ANNEAL_HEARTBEAT_S": "0.02"},
            ),
        }
        try:
            yield {name: stack.up() for name, stack in stacks.items()}
        finally:
            for stack in stacks.values():
                stack.down()


def seconds_to_first_step(api: httpx.Client, rows: str, seed: int) -> float:
    """Submit one job and return how long it took to its first step."""
    # Long enough that its first report is one with a step, not the last one.
    body = classify(rows, hyperparameters={"epochs": 400}, seed=seed)
    began = time.time()
    answer = api.post("/jobs", json=body)
    answer.raise_for_status()
    job_id = answer.json()["id"]
    while True:
        job = api.get(f"/jobs/{job_id}").json()
        progress = job["progress"] or {}
        if progress.get("step"):
            succeeded(api, job_id)
            return at(progress["updated_at"]) - began
        assert job["status"] in ("queued", "running"), job
        time.sleep(0.01)


def at(timestamp: str) -> float:
    """Return a timestamp as seconds since the epoch."""
    return datetime.fromisoformat(timestamp).timestamp()


def report(rows: list[dict[str, object]]) -> str:
    """Return the table."""
    lines = [
        "From POST /api/v1/jobs to the first optimizer step of a small tabular job, one idle worker, in seconds.",
        "",
        "| column | jobs | median | p90 | wanted: median at most | |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        met = "met" if float(str(row["median"])) <= float(str(row["bar"])) else "MISSED"
        lines.append(
            f"| {row['column']} | {row['jobs']} | {row['median']:.3f} | {row['p90']:.3f} | {row['bar']} | {met} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=30)
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as directory, products(Path(directory)) as stacks:
        for name, stack in stacks.items():
            with stack.client() as api:
                dataset = str(upload(api, TRAIN)["id"])
                succeeded(api, submit(api, classify(dataset)))  # the worker is warm, as an idle one is
                taken = [seconds_to_first_step(api, dataset, seed) for seed in range(options.jobs)]
            quantiles = statistics.quantiles(taken, n=10)
            rows.append(
                {
                    "column": name,
                    "jobs": len(taken),
                    "median": statistics.median(taken),
                    "p90": quantiles[-1],
                    "bar": BARS[name],
                }
            )
    table = report(rows)
    print(table)
    (RESULTS / "start.json").write_text(json.dumps(rows, indent=1) + "\n")
    (RESULTS / "start.md").write_text(table)


if __name__ == "__main__":
    main()
