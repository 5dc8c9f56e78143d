"""A thousand jobs and eight workers, for real: each job runs once."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from servers import Stack
from sqlalchemy import func, select
from support import classify, stack_database, upload, wait_until

from store.database import Database
from store.records import AttemptRecord, JobRecord, VersionRecord
from store.states import TERMINAL, State

JOBS, WORKERS = 1_000, 8
ROWS = "a,b,label\n" + "".join(f"{n % 7},{n % 5},{'xy'[n % 2]}\n" for n in range(40))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_thousand_jobs_and_eight_workers(stack: Stack, api: httpx.Client) -> None:
    rows = upload(api, ROWS, "tiny.csv")["id"]
    body = classify(rows, columns={"target": "label"}, hyperparameters={"epochs": 1}, name="many")

    def post(number: int) -> str:
        answer = api.post("/jobs", json={**body, "seed": number})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    with ThreadPoolExecutor(4) as pool:
        made = set(pool.map(post, range(JOBS)))
    for number in range(1, WORKERS):
        stack.start(f"train-{number}", "workers", "--queue", "train")
    database = stack_database(stack)
    try:
        wait_until(lambda: _ended(database) >= JOBS, timeout_s=1500, every_s=1)
        with database.read() as session:
            jobs = session.scalars(select(JobRecord).where(JobRecord.name == "many")).all()
            assert {job.id for job in jobs} == made
            assert Counter(job.state for job in jobs) == {State.SUCCEEDED: JOBS}
            assert {(job.attempt, job.failures) for job in jobs} == {(1, 0)}
            versions = session.scalars(select(VersionRecord.job_id).where(VersionRecord.job_id.in_(made))).all()
            assert len(versions) == len(set(versions)) == JOBS
            names = session.scalars(select(AttemptRecord.worker).where(AttemptRecord.job_id.in_(made))).all()
            assert len(set(names)) == WORKERS
    finally:
        database.close()
        for number in range(1, WORKERS):
            stack.stop(f"train-{number}")


def _ended(database: Database) -> int:
    with database.read() as session:
        query = select(func.count()).where(JobRecord.name == "many", JobRecord.state.in_(TERMINAL))
        return int(session.scalar(query) or 0)
