"""Random operations on jobs by six processes, some of which are killed: no illegal transition, nothing doubled."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from itertools import pairwise

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from support import wait_until

from migrations import runner
from store import attempts, checkpoints, commands, jobs, models, upkeep
from store.attempts import CrashBudget
from store.checkpoints import NewCheckpoint, Retention
from store.database import Database
from store.errors import StoreError
from store.models import NewVersion
from store.records import AttemptRecord, EventRecord, JobRecord, VersionRecord
from store.states import TERMINAL, TRANSITIONS, CancelMode, State
from store.token import Token

PROCESSES, JOBS, KILLS, MOST_KILLS, BETWEEN_KILLS_S = 6, 12, 20, 200, 0.6
LEASE_S = 0.4
PROJECT = "test"
ERROR = {"code": "invalid_data", "message": "One class only."}
BUDGET = CrashBudget(max_failures=4, back_off_s=0.01)
VERSION = NewVersion("m", "task", "t", "a", "tabular", {}, {}, {})


def work(url: str, seed: int) -> None:
    """Be a worker, a client and a sweeper in turn, for ever."""
    draw = random.Random(seed)
    database = Database(url)
    held: list[Token] = []  # also tokens that are long stale, as a zombie has them
    while True:
        with suppress(StoreError):
            act(database, draw, held, f"worker {seed}")


def act(database: Database, draw: random.Random, held: list[Token], name: str) -> None:
    """Do one thing, in a transaction of its own."""
    with database.write() as session:
        ids = list(session.scalars(select(JobRecord.id)))
        # Any job, or one that runs or just ran: among many that wait, commands would rarely meet one.
        job_id = draw.choice([draw.choice(ids), *(token.job_id for token in held[-4:])])
        what = draw.randrange(11)
        if what <= 2:
            job = attempts.claim_next(session, ["train"], name, LEASE_S)
            if job is not None:
                held.append(Token(job.id, job.attempt))
        elif what == 3:
            upkeep.due(session, 0.01)
            upkeep.reap(session, BUDGET)
        elif what == 4:
            draw.choice([commands.pause, commands.resume])(session, PROJECT, job_id)
        elif what == 5 and draw.random() < 0.1:
            commands.cancel(session, PROJECT, job_id, draw.choice(list(CancelMode)))
        elif held:
            token = draw.choice(held[-4:])
            supervise(session, draw, token)


def supervise(session: Session, draw: random.Random, token: Token) -> None:
    """Do what a supervisor does."""
    what = draw.randrange(6)
    if what == 0:
        attempts.complete(session, token, {})
        models.register(session, PROJECT, token.job_id, VERSION)
    elif what == 1 and draw.random() < 0.1:
        attempts.fail(session, token, ERROR)
    elif what == 2:
        attempts.give_up(session, token, "drained")
    elif what == 3 and draw.random() < 0.3:
        attempts.crash(session, token, "signal 9", BUDGET)
    elif what == 4:
        checkpoints.publish(session, token, NewCheckpoint("run", draw.randrange(100), {}), Retention(1, 1))
    else:
        attempts.heartbeat(session, token, LEASE_S)


@pytest.mark.slow
def test_random_operations_in_six_processes(database_url: str) -> None:
    database = Database(database_url)
    runner.upgrade(database.engine)
    with database.write() as session:
        for number in range(JOBS):
            jobs.submit(session, jobs.NewJob(kind="finetune", project=PROJECT, spec={}, priority=number % 3))
    context = multiprocessing.get_context("spawn")
    draw = random.Random(1)
    processes = {
        number: context.Process(target=work, args=(database_url, number), daemon=True) for number in range(PROCESSES)
    }
    for process in processes.values():
        process.start()
    try:
        wait_until(lambda: _attempts(database) > 0, 30)
        for kill in range(MOST_KILLS):
            # Until every state was there: how soon depends on how many transactions the disk takes.
            if kill >= KILLS and _states(database) == set(State):
                break
            time.sleep(BETWEEN_KILLS_S)
            number = draw.choice(list(processes))
            assert processes[number].is_alive(), "a worker has met an error that it did not expect"
            os.kill(processes[number].pid or 0, signal.SIGKILL)
            processes[number].join()
            processes[number] = context.Process(target=work, args=(database_url, 100 + kill), daemon=True)
            processes[number].start()
            with database.write() as session:
                for _ in range(3):
                    jobs.submit(session, jobs.NewJob(kind="finetune", project=PROJECT, spec={}))
        assert all(process.is_alive() for process in processes.values())
    finally:
        for process in processes.values():
            process.kill()
            process.join()
    _check(database)
    database.close()


def _attempts(database: Database) -> int:
    with database.read() as session:
        return len(session.scalars(select(AttemptRecord.job_id)).all())


def _states(database: Database) -> set[State]:
    with database.read() as session:
        return set(session.scalars(select(EventRecord.type).distinct())) & set(State)


def _check(database: Database) -> None:
    """Judge the whole history."""
    seen: set[State] = set()
    with database.read() as session:
        versions = Counter(session.scalars(select(VersionRecord.job_id)))
        for job in session.scalars(select(JobRecord)):
            events = session.scalars(
                select(EventRecord).where(EventRecord.job_id == job.id).order_by(EventRecord.sequence)
            ).all()
            assert [event.sequence for event in events] == list(range(1, job.last_sequence + 1))
            states = [State(event.type) for event in events if event.type in set(State)]
            assert states[0] == State.QUEUED
            assert states[-1] == job.state
            assert all(after in TRANSITIONS[before] for before, after in pairwise(states)), states
            assert versions[job.id] == (job.state == State.SUCCEEDED)
            claims = [
                row.number
                for row in session.scalars(
                    select(AttemptRecord).where(AttemptRecord.job_id == job.id).order_by(AttemptRecord.number)
                )
            ]
            assert claims == list(range(1, job.attempt + 1))
            assert job.failures <= BUDGET.max_failures
            if job.state in TERMINAL:
                assert job.lease_until is None
                assert job.finished_at is not None
            seen.update(states)
    assert seen == set(State)  # every state was there, or nothing was tested
