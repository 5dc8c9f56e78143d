"""What the queue costs with a long history: submit, claim, heartbeat and sweep beside ever more finished jobs.

    python benchmarks/backlog.py [--finished 0 10000 100000]

Each step is one transaction of its own, with 1,000 jobs queued, on SQLite and on a PostgreSQL server that it starts.
Prints the medians and writes benchmarks/results/backlog.json and .md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from sqlalchemy import insert, text, update

from migrations import runner
from store import attempts, ids, jobs, queue, upkeep
from store.database import Database, database_now
from store.records import EventRecord, JobRecord
from store.settings import StoreSettings
from store.states import State
from store.token import Token

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from servers import postgres

RESULTS = Path(__file__).parent / "results"
QUEUED, TIMES, BULK = 1_000, 100, 5_000
STEPS = ("submit", "claim", "heartbeat", "look with nothing due", "announce 100", "take back 1")
MOST_MS = 5.0


@contextmanager
def databases() -> Iterator[dict[str, Database]]:
    """Open a migrated database of each kind."""
    with tempfile.TemporaryDirectory() as directory, postgres(Path(directory) / "postgres") as url:
        opened = {"SQLite": Database(f"sqlite:///{directory}/jobs.db"), "PostgreSQL": Database(url)}
        for database in opened.values():
            runner.upgrade(database.engine)
        yield opened
        for database in opened.values():
            database.close()


def finish(database: Database, count: int) -> None:
    """Write jobs that have ended, each with the events of an ordinary life."""
    for start in range(0, count, BULK):
        made = [ids.new_id(ids.JOB) for _ in range(min(BULK, count - start))]
        row = {"project": "p", "kind": "finetune", "state": State.SUCCEEDED, "spec": {}, "attempt": 1}
        with database.write() as session:
            session.execute(insert(JobRecord), [{"id": job_id, **row} for job_id in made])
            session.execute(
                insert(EventRecord),
                [
                    {"job_id": job_id, "sequence": number, "type": kind, "message": kind, "data": {}}
                    for job_id in made
                    for number, kind in enumerate(("queued", "running", "succeeded"), 1)
                ],
            )
    with database.write() as session:
        session.execute(text("ANALYZE"))


def submit(database: Database) -> str:
    """Queue a job."""
    with database.write() as session:
        return jobs.submit(session, jobs.NewJob(kind="finetune", project="p", spec={})).id


def claim(database: Database) -> Token:
    """Take the next job."""
    with database.write() as session:
        job = attempts.claim_next(session, [queue.TRAIN], "worker", 60)
    assert job is not None
    return Token(job.id, job.attempt)


def median_ms(step: Callable[[], object], times: int = TIMES) -> float:
    """Return the median time of a step in milliseconds."""
    taken = []
    for _ in range(times):
        start = perf_counter()
        step()
        taken.append(perf_counter() - start)
    return 1000 * statistics.median(taken)


def measure(database: Database) -> dict[str, float]:
    """Time each step beside what the database holds."""
    for _ in range(QUEUED - TIMES):
        submit(database)
    found = {"submit": median_ms(lambda: submit(database))}
    held: list[Token] = []
    found["claim"] = median_ms(lambda: held.append(claim(database)))

    settings = StoreSettings()
    sweeper = upkeep.Sweeper(database, queue.create_celery(settings), settings)

    def beat() -> None:
        with database.write() as session:
            attempts.heartbeat(session, held[-1], 60, progress={"step": 1})

    def look() -> None:
        assert not sweeper.anything_to_do()

    def announce() -> None:
        with database.write() as session:
            assert len(upkeep.due(session, 0.0)) == upkeep.BATCH

    def take_back() -> None:
        with database.write() as session:
            assert len(upkeep.reap(session, attempts.CrashBudget())) == 1

    found["heartbeat"] = median_ms(beat)
    found["announce 100"] = median_ms(announce)
    _set_nudges(database, None)
    found["look with nothing due"] = median_ms(look)
    taken = []
    for token in held[:20]:
        with database.write() as session:
            expired = update(JobRecord).where(JobRecord.id == token.job_id)
            session.execute(expired.values(lease_until=database_now() - 1))
        taken.append(median_ms(take_back, times=1))
    found["take back 1"] = statistics.median(taken)
    with database.write() as session:
        left = update(JobRecord).where(JobRecord.state.in_((State.QUEUED, State.RUNNING)))
        session.execute(left.values(state=State.CANCELLED, nudge_at=None, lease_until=None))
    return found


def _set_nudges(database: Database, at: float | None) -> None:
    with database.write() as session:
        session.execute(update(JobRecord).where(JobRecord.state == State.QUEUED).values(nudge_at=at))


def report(rows: list[dict[str, object]]) -> str:
    """Return the table."""
    lines = [
        f"Medians in milliseconds, {QUEUED:,} jobs queued.",
        "",
        "| database | finished jobs | " + " | ".join(STEPS) + " |",
        "|---|---:|" + "---:|" * len(STEPS),
    ]
    for row in rows:
        cells = " | ".join(f"{row[step]:.2f}" for step in STEPS)
        lines.append(f"| {row['database']} | {row['finished']:,} | {cells} |")
    last = [row for row in rows if row["finished"] == max(int(str(row["finished"])) for row in rows)]
    worst = max(float(str(row[step])) for row in last for step in STEPS if step != "announce 100")
    lines += [
        "",
        f"The slowest step of one job beside the longest history: {worst:.2f} ms (wanted: under {MOST_MS:g}).",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--finished", type=int, nargs="+", default=[0, 10_000, 100_000])
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    with databases() as opened:
        for name, database in opened.items():
            before = 0
            for finished in sorted(options.finished):
                finish(database, finished - before)
                before = finished
                rows.append({"database": name, "finished": finished, **measure(database)})
    table = report(rows)
    print(table)
    (RESULTS / "backlog.json").write_text(json.dumps(rows, indent=1) + "\n")
    (RESULTS / "backlog.md").write_text(table)


if __name__ == "__main__":
    main()
