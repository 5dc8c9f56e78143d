"""Random kill -9 of everything for a while: every job that was accepted succeeds once, with the weights it should have.

    python tests/faults/chaos.py [--seconds 600] [--jobs 24] [--column embedded production] [--report docs/chaos.md]

Starts the product with `anneal up`, embedded and beside it on PostgreSQL with Redis, trains a few models in peace, then
submits the same jobs while the training processes, the fork servers, the workers, the API and the launcher
are killed at random, and some jobs are paused and resumed. What a killed launcher leaves is started by a new one.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))
from processes import alive, command, descendants, is_child
from servers import Stack, free_port, postgres, redis
from sqlalchemy import select
from support import TRAIN, classify, stack_database, upload

from store.records import EventRecord, JobRecord, VersionRecord
from store.states import TERMINAL, TRANSITIONS, State

SEEDS = 4
EPOCHS = 1500  # some seconds of training, so that most jobs are hit more than once
PATIENT = {
    "ANNEAL_LEASE_S": "3",
    "ANNEAL_HEARTBEAT_S": "0.25",
    "ANNEAL_NUDGE_REPEAT_S": "1",
    "ANNEAL_STOP_GRACE_S": "4",
    "ANNEAL_MAX_FAILURES": "1000",
    "ANNEAL_BACK_OFF_S": "0.01",
}
# What is killed, and how often relative to the rest.
TARGETS = {"child": 20, "fork server": 3, "worker's pool process": 3, "worker": 2, "API": 1, "launcher": 1}
BETWEEN_KILLS_S = (0.4, 2.4)
ABOUT = """\
# Chaos

What `make chaos` did last: jobs are submitted while processes of the product are killed with SIGKILL at random, and
jobs are paused and resumed. Afterwards every accepted job must have succeeded, with exactly one version, whose weights
are bit for bit those of an undisturbed run; its events must be a path through the state machine without a gap; and
nothing may be left running or lying about. The lease is 3 s, and a checkpoint is written every second.
"""


@dataclass
class Outcome:
    """What came of a run."""

    column: str
    seconds: float
    kills: Counter[str] = field(default_factory=Counter)
    pauses: int = 0
    jobs: int = 0
    attempts: int = 0
    wrong: list[str] = field(default_factory=list)


class Product:
    """The product under one launcher at a time."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self.launcher: subprocess.Popen[bytes]

    def start(self) -> None:
        """Start the launcher and wait until it serves."""
        self.stack.directory.mkdir(parents=True, exist_ok=True)
        self._launch()
        self.stack.processes["api"] = self.launcher
        self.stack.wait_ready(60)
        threading.Thread(target=self._keep, daemon=True).start()

    def _keep(self) -> None:
        """Start another launcher where one has ended, as an init system does.

        One that is not ready within a minute, or one of whose programs fails, ends by itself.
        """
        while not self._stopping.wait(0.2):
            with self._lock:
                if self.launcher.poll() is not None and not self._stopping.is_set():
                    self._launch()

    def _launch(self) -> None:
        arguments = ("anneal", "up", "--port", str(self.stack.port), "--workers", "2")
        with (self.stack.directory / "up.log").open("ab") as log:
            self.launcher = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                env=self.stack.variables(),
                cwd=self.stack.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, target: str, draw: random.Random) -> bool:
        """Kill one of the processes of a kind, if there is any."""
        with self._lock:
            if target == "launcher":
                self.launcher.kill()
                self.launcher.wait()
                return True
            found = [pid for pid in descendants(self.launcher.pid) if _kind(pid, self.launcher.pid) == target]
            if not found:
                return False
            with suppress(ProcessLookupError):
                os.kill(draw.choice(found), signal.SIGKILL)
                return True
            return False

    def stop(self) -> list[str]:
        """End it in order; return the command lines of what is left."""
        self._stopping.set()
        with self._lock:
            self.launcher.terminate()
            self.launcher.wait(90)
        mark = f"ANNEAL_DATA_DIR={self.stack.data_dir}".encode()
        time.sleep(2)
        return [command(pid) for pid in _every_process() if alive(pid) and mark in _environment(pid)]


def _kind(pid: int, launcher: int) -> str | None:
    line = command(pid)
    if is_child(pid):
        return "child"
    if "workers.fork_server" in line:
        return "fork server"
    if "-m service" in line:
        return "API"
    if "-m workers" in line and pid != launcher:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) if alive(pid) else 0
        return "worker's pool process" if "-m workers" in command(parent) else "worker"
    return None


def _every_process() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _environment(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes()
    return b""


def insist(ask: Callable[[], httpx.Response], patience_s: float = 300) -> httpx.Response:
    """Ask until the service answers, as a client with retries does."""
    until = time.monotonic() + patience_s
    while True:
        with suppress(httpx.HTTPError):
            answer = ask()
            if answer.status_code < 500:
                return answer
        assert time.monotonic() < until, "the service stayed away"
        time.sleep(0.2)


def run(column: str, stack: Stack, seconds: float, jobs: int, seed: int = 0) -> Outcome:
    """Run the product through it, and say what came of it."""
    draw = random.Random(seed)
    product = Product(stack)
    outcome = Outcome(column, seconds)
    over = threading.Event()
    product.start()
    try:
        with stack.client(timeout=10) as api:
            rows = str(upload(api, TRAIN)["id"])
            expected = {}
            for number in range(SEEDS):
                job = _finish(api, _submit(api, rows, number, "undisturbed"))
                expected[number] = _digest(api, job)
            made: dict[str, int] = {}
            until = time.monotonic() + seconds
            killer = threading.Thread(target=_kill_until, args=(over, product, outcome.kills, random.Random(seed + 1)))
            killer.start()
            while time.monotonic() < until:
                # New ones as the old ones end, so that there is always something to lose.
                if len(made) < jobs or _unfinished(api, made) < 3:
                    made[_submit(api, rows, len(made) % SEEDS, f"chaos-{len(made)}")] = len(made) % SEEDS
                if draw.random() < 0.02:
                    outcome.pauses += _pause_one(api, list(made), draw)
                time.sleep(0.1)
            over.set()
            killer.join()
            _resume_all(api, made)
            finished = {job_id: _finish(api, job_id) for job_id in made}
            outcome.jobs = len(made)
            outcome.attempts = sum(job["attempt"] for job in finished.values())
            outcome.wrong += [
                f"{job_id} ended as {job['status']}: {job['status_reason']}"
                for job_id, job in finished.items()
                if job["status"] != "succeeded"
            ]
            outcome.wrong += [
                f"{job_id} has other weights than undisturbed"
                for job_id, job in finished.items()
                if job["status"] == "succeeded" and _digest(api, job) != expected[made[job_id]]
            ]
    finally:
        over.set()
        outcome.wrong += [f"left running: {line}" for line in product.stop()]
    outcome.wrong += _wrong_rows(stack, made)
    left = [str(path) for path in (stack.data_dir / "work").glob("*/*")]
    outcome.wrong += [f"left on disk: {path}" for path in left]
    return outcome


def _kill_until(over: threading.Event, product: Product, kills: Counter[str], draw: random.Random) -> None:
    while not over.wait(draw.uniform(*BETWEEN_KILLS_S)):
        target = draw.choices(list(TARGETS), list(TARGETS.values()))[0]
        kills[target] += product.kill(target, draw)


def _submit(api: httpx.Client, rows: str, number: int, key: str) -> str:
    body = classify(
        rows,
        hyperparameters={"epochs": EPOCHS, "batch_size": 32},
        seed=number,
        output={"model": "chaos"},
        checkpointing={"every_s": 1},
    )
    headers = {"Idempotency-Key": f"{key}-{number}"}
    answer = insist(lambda: api.post("/jobs", json=body, headers=headers))
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def _job(api: httpx.Client, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = insist(lambda: api.get(f"/jobs/{job_id}")).json()
    return found


def _finish(api: httpx.Client, job_id: str, timeout_s: float = 600) -> dict[str, Any]:
    until = time.monotonic() + timeout_s
    while (job := _job(api, job_id))["status"] not in TERMINAL:
        assert time.monotonic() < until, job
        if job["status"] == "paused":
            insist(lambda: api.post(f"/jobs/{job_id}/resume"))
        time.sleep(0.2)
    return job


def _unfinished(api: httpx.Client, made: dict[str, int]) -> int:
    return sum(_job(api, job_id)["status"] not in TERMINAL for job_id in list(made)[-6:])


def _pause_one(api: httpx.Client, made: Sequence[str], draw: random.Random) -> bool:
    running = [job_id for job_id in made[-6:] if _job(api, job_id)["status"] in ("running", "queued")]
    if not running:
        return False
    chosen = draw.choice(running)
    paused = insist(lambda: api.post(f"/jobs/{chosen}/pause")).status_code == 200
    insist(lambda: api.post(f"/jobs/{chosen}/resume"))
    return paused


def _resume_all(api: httpx.Client, made: dict[str, int]) -> None:
    for job_id in made:
        if _job(api, job_id)["status"] in ("paused", "pausing"):
            insist(lambda job_id=job_id: api.post(f"/jobs/{job_id}/resume"))  # type: ignore[misc]


def _digest(api: httpx.Client, job: dict[str, Any]) -> str:
    result = job["result"]
    version = insist(lambda: api.get(f"/models/{result['model']}/versions/{result['version']}")).json()
    return str({file["path"]: file["sha256"] for file in version["files"]}["model.safetensors"])


def _wrong_rows(stack: Stack, made: dict[str, int]) -> list[str]:
    """Return what is wrong in the database: versions, states, and events that could not have followed each other."""
    wrong = []
    database = stack_database(stack)
    with database.read() as session:
        versions = Counter(session.scalars(select(VersionRecord.job_id)))
        for job in session.scalars(select(JobRecord).where(JobRecord.kind != "ingest")):
            if versions[job.id] != (job.state == State.SUCCEEDED):
                wrong.append(f"{job.id} is {job.state} and has {versions[job.id]} versions")
            events = session.scalars(
                select(EventRecord).where(EventRecord.job_id == job.id).order_by(EventRecord.sequence)
            ).all()
            if [event.sequence for event in events] != list(range(1, job.last_sequence + 1)):
                wrong.append(f"{job.id} has a gap in its events")
            states = [State(event.type) for event in events if event.type in set(State)]
            wrong += [
                f"{job.id} went from {before} to {after}"
                for before, after in pairwise(states)
                if after not in TRANSITIONS[before]
            ]
        jobs = session.scalars(select(JobRecord.id).where(JobRecord.kind != "ingest")).all()
        if len(jobs) != len(made) + SEEDS:
            wrong.append(f"{len(made) + SEEDS} jobs were accepted, and {len(jobs)} are there")
    database.close()
    return wrong


@contextmanager
def column_stack(column: str, directory: Path) -> Iterator[Stack]:
    """Make the product's directory and environment, with servers where the column has some."""
    stack = Stack(directory / column, dict(PATIENT), port=free_port())
    if column == "embedded":
        yield stack
        return
    with postgres(directory / "postgres") as database_url, redis(directory / "redis") as broker_url:
        stack.environment |= {"ANNEAL_DATABASE_URL": database_url, "ANNEAL_BROKER_URL": broker_url}
        yield stack


def report(outcomes: Sequence[Outcome]) -> str:
    """Return the page."""
    lines = [
        *ABOUT.splitlines(),
        "",
        "| column | seconds | kills | jobs | attempts | pauses | lost, doubled, illegal, left over, or other weights |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for outcome in outcomes:
        lines.append(
            f"| {outcome.column} | {outcome.seconds:.0f} | {outcome.kills.total()} | {outcome.jobs} | "
            f"{outcome.attempts} | {outcome.pauses} | {len(outcome.wrong)} |"
        )
    kinds = ", ".join(f"{sum(outcome.kills[kind] for outcome in outcomes)} {kind}" for kind in TARGETS)
    lines += ["", f"Killed: {kinds}."]
    lines += ["", *(f"- {outcome.column}: {wrong}" for outcome in outcomes for wrong in outcome.wrong)]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--jobs", type=int, default=24)
    parser.add_argument("--column", nargs="+", default=["embedded", "production"])
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()

    def on(column: str) -> Outcome:
        with tempfile.TemporaryDirectory() as directory, column_stack(column, Path(directory)) as stack:
            return run(column, stack, options.seconds, options.jobs)

    with ThreadPoolExecutor(len(options.column)) as pool:
        outcomes = list(pool.map(on, options.column))
    print(report(outcomes), flush=True)
    if options.report:
        options.report.write_text(report(outcomes))
    return 1 if any(outcome.wrong for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
