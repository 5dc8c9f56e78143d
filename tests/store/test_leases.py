"""Claims, fencing, leases and the crash budget: exactly one worker writes about a job at a time."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from queue_steps import ERROR, PROJECT, attempt_rows, claim, events, expire, know_artifact, look, make_due, submit
from sqlalchemy import select
from sqlalchemy.orm import Session
from support import wait_until

from store import attempts, checkpoints, commands, jobs, queue, upkeep, waiting, workers
from store.attempts import BACK_OFF, CrashBudget, Measurement
from store.checkpoints import NewCheckpoint, Retention
from store.database import Database, database_now
from store.errors import Fenced, IllegalTransition, NotFound
from store.records import CheckpointRecord, MetricRecord
from store.settings import StoreSettings
from store.states import State
from store.token import Token
from store.upkeep import Sweeper
from store.workers import Presence


def test_eight_workers_race_for_fifty_jobs(database: Database) -> None:
    ids = [submit(database) for _ in range(50)]
    start = threading.Barrier(8)

    def work(name: str) -> list[str]:
        start.wait()
        won = []
        for job_id in ids:
            with database.write() as session:
                if attempts.claim(session, job_id, name, 60) is not None:
                    won.append(job_id)
        return won

    with ThreadPoolExecutor(8) as pool:
        won = [job_id for part in pool.map(work, [f"worker {n}" for n in range(8)]) for job_id in part]
    assert Counter(won) == Counter(ids)
    for job_id in ids:
        assert (look(database, job_id).attempt, len(attempt_rows(database, job_id))) == (1, 1)


def checkpoint(session: Session, token: Token, step: int = 1) -> str:
    know_artifact(session, "0" * 64, 3)
    new = NewCheckpoint(run="scratch", step=step, files={"weights": "0" * 64})
    return checkpoints.publish(session, token, new, Retention(keep_last=100))


STALE: dict[str, tuple[Callable[[Session, Token], object], bool]] = {
    "heartbeat": (
        lambda session, token: attempts.heartbeat(
            session,
            token,
            60,
            progress={"step": 9},
            metrics={"latest": 9},
            measurements=[Measurement("scratch", "train", 1, 1.0, {"loss": 1.0})],
        ),
        True,
    ),
    "checkpoint": (checkpoint, True),
    "complete": (lambda session, token: attempts.complete(session, token, {"stale": True}, ["w"]), True),
    "describe": (lambda session, token: attempts.describe(session, token, {"stale": True}, {"stale": True}), True),
    "fail": (lambda session, token: attempts.fail(session, token, ERROR), False),
    "crash": (lambda session, token: attempts.crash(session, token, "signal 9", CrashBudget(1)), False),
    "give_up": (lambda session, token: attempts.give_up(session, token, "drained"), False),
}


@pytest.mark.parametrize("operation", STALE)
def test_a_stale_token_writes_nothing(database: Database, operation: str) -> None:
    job_id = submit(database)
    stale = claim(database, job_id)
    expire(database, job_id)
    with database.write() as session:
        upkeep.reap(session, CrashBudget())
    make_due(database, job_id)
    current = claim(database, job_id)
    assert (stale.attempt, current.attempt) == (1, 2)
    before = {name: value for name, value in vars(look(database, job_id)).items() if name[0] != "_"}
    history = [(event.sequence, event.type) for event in events(database, job_id)]
    run, raises = STALE[operation]
    if raises:
        with pytest.raises(Fenced), database.write() as session:
            run(session, stale)
    else:
        with database.write() as session:
            assert run(session, stale) is None
    after = {name: value for name, value in vars(look(database, job_id)).items() if name[0] != "_"}
    assert after == before
    assert [(event.sequence, event.type) for event in events(database, job_id)] == history
    first, second = attempt_rows(database, job_id)
    assert (first.exit_reason, second.ended_at) == ("the worker stopped answering", None)
    with database.read() as session:
        assert session.scalars(select(CheckpointRecord)).all() == []
        assert session.scalars(select(MetricRecord)).all() == []
    with database.write() as session:
        attempts.complete(session, current, {})  # the current one may


def test_a_heartbeat_extends_the_lease_and_brings_what_was_heard(database: Database) -> None:
    job_id = submit(database)
    token = claim(database, job_id, lease_s=1)
    first = look(database, job_id).lease_until or 0
    point = Measurement("scratch", "validation", 5, 1.0, {"loss": 0.5})
    with database.write() as session:
        orders = attempts.heartbeat(
            session, token, 60, progress={"step": 5}, metrics={"latest": {}}, measurements=[point, point]
        )
        assert orders.state is State.RUNNING
    job = look(database, job_id)
    assert (job.lease_until or 0) > first + 30
    assert (job.progress, job.metrics) == ({"step": 5}, {"latest": {}})
    with database.read() as session:
        found = jobs.metrics(session, job_id, run="scratch", after=0, limit=10)
        assert [(row.step, row.attempt, row.measured) for row in found] == [(5, 1, {"loss": 0.5})] * 2
        assert jobs.metrics(session, job_id, run=None, after=found[0].id, limit=10) == found[1:]
        assert jobs.metrics(session, job_id, run="other", after=0, limit=10) == []
    with database.write() as session:
        commands.pause(session, PROJECT, job_id)
        assert attempts.heartbeat(session, token, 60).state is State.PAUSING  # the state is the command


def test_what_completed_before_the_reaper_stays_succeeded(database: Database) -> None:
    """The reaper has seen the lease run out, the worker completes, then the reaper writes."""
    job_id = submit(database)
    token = claim(database, job_id)
    expire(database, job_id)
    with database.write() as session:
        attempts.complete(session, token, {"version": 1})
    with database.write() as session:
        # What reap() does with the row it read before the completion.
        assert attempts.crash(session, token, "the worker stopped answering", CrashBudget()) is None
        assert upkeep.reap(session, CrashBudget()) == []
    job = look(database, job_id)
    assert (job.state, job.result, job.failures) == (State.SUCCEEDED, {"version": 1}, 0)


def test_a_renewed_lease_is_not_reaped(database: Database) -> None:
    job_id = submit(database)
    token = claim(database, job_id)
    with database.write() as session:
        budget = CrashBudget()
        assert attempts.crash(session, token, "the worker stopped answering", budget, only_if_expired=True) is None
    assert look(database, job_id).state == State.RUNNING


def test_the_crash_budget(database: Database) -> None:
    assert [CrashBudget().wait_s(failures) for failures in range(5)] == [*BACK_OFF, BACK_OFF[-1]]
    job_id = submit(database)
    budget = CrashBudget(back_off_s=60)  # not over before a busy machine has looked
    for number in (1, 2):
        token = claim(database, job_id)
        with database.write() as session:
            job = attempts.crash(session, token, "signal 9", budget)
            assert job is not None
            assert (job.state, job.failures) == (State.QUEUED, number)
            wait = job.not_before - (session.scalar(select(database_now())) or 0)
            assert 60 * BACK_OFF[number - 1] - 2 < wait <= 60 * BACK_OFF[number - 1]
            assert attempts.claim(session, job_id, "hasty", 60) is None  # not before the back-off is over
            assert upkeep.due(session, 15) == []
        make_due(database, job_id)
    token = claim(database, job_id)
    with database.write() as session:
        assert attempts.crash(session, token, "signal 9", CrashBudget()) is not None
    job = look(database, job_id)
    assert (job.state, job.failures, job.attempt) == (State.FAILED, 3, 3)
    assert job.error is not None
    assert "3 times" in job.error["message"]
    assert "signal 9" in job.error["message"]
    assert [event.type for event in events(database, job_id)] == ["queued"] + ["running", "queued"] * 2 + [
        "running",
        "failed",
    ]


def test_pauses_and_drains_cost_nothing(database: Database) -> None:
    job_id = submit(database)
    for _ in range(5):
        token = claim(database, job_id)
        with database.write() as session:
            attempts.give_up(session, token, "the worker is shutting down")
    for _ in range(5):
        token = claim(database, job_id)
        with database.write() as session:
            commands.pause(session, PROJECT, job_id)
            attempts.give_up(session, token, "paused")
            commands.resume(session, PROJECT, job_id)
    job = look(database, job_id)
    assert (job.attempt, job.failures, job.state) == (10, 0, State.QUEUED)


def test_due_jobs_are_announced_again_until_claimed(database: Database) -> None:
    low, high, ingest = (
        submit(database, priority=priority, kind=kind)
        for priority, kind in ((0, "finetune"), (5, "finetune"), (0, "ingest"))
    )
    with database.write() as session:
        assert [(due.job_id, due.kind) for due in upkeep.due(session, 60)] == [
            (high, "finetune"),
            (low, "finetune"),
            (ingest, "ingest"),
        ]
        assert upkeep.due(session, 60) == []
    make_due(database, low)
    make_due(database, high)
    claim(database, high)
    with database.write() as session:
        assert [due.job_id for due in upkeep.due(session, 60)] == [low]
    with database.read() as session:
        assert waiting.place(session, look(database, low)).ahead == 0
        assert waiting.place(session, look(database, ingest)).ahead == 0
        assert jobs.queue_depth(session) == {"queued": 2, "running": 1}
    assert (queue.queue_of("ingest"), queue.queue_of("finetune"), queue.queue_of("pretrain")) == (
        "ingest",
        "train",
        "train",
    )


def test_cancel_complete_and_pause_race(database: Database) -> None:
    """Whoever wins, exactly one of success and cancellation comes of it."""
    for _ in range(15):
        job_id = submit(database)
        token = claim(database, job_id)
        start = threading.Barrier(3)

        def complete(token: Token = token, start: threading.Barrier = start) -> bool:
            start.wait()
            try:
                with database.write() as session:
                    attempts.complete(session, token, {})
            except Fenced:
                with database.write() as session:
                    attempts.give_up(session, token, "stopped")
                return False
            return True

        def command(operate: Callable[..., object], job_id: str = job_id, start: threading.Barrier = start) -> bool:
            start.wait()
            try:
                with database.write() as session:
                    operate(session, PROJECT, job_id)
            except IllegalTransition:
                return False
            return True

        with ThreadPoolExecutor(3) as pool:
            done = pool.submit(complete)
            cancelled = pool.submit(command, commands.cancel)
            pool.submit(command, commands.pause).result()
            completed, was_cancelled = done.result(), cancelled.result()
        assert completed != was_cancelled
        assert look(database, job_id).state == (State.SUCCEEDED if completed else State.CANCELLED)
        numbers = [event.sequence for event in events(database, job_id)]
        assert numbers == list(range(1, len(numbers) + 1))


def test_events_are_numbered_without_gaps_under_concurrency(database: Database) -> None:
    job_id = submit(database)
    token = claim(database, job_id)

    def publish(step: int) -> str:
        with database.write() as session:
            return checkpoint(session, token, step)

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(publish, range(40)))
    assert len(set(made)) == 40
    assert [event.sequence for event in events(database, job_id)] == list(range(1, 43))
    with database.read() as session:
        assert [row.id for row in checkpoints.of_job(session, job_id)] == sorted(made)
        assert [event.sequence for event in jobs.events(session, job_id, after=40)] == [41, 42]
        with pytest.raises(NotFound):
            jobs.get(session, "another project", job_id)


def test_the_sweeper(database: Database, tmp_path: Path) -> None:
    """One sweep takes back what was lost and announces what is due; a broker that is away stops nothing."""
    settings = StoreSettings(data_dir=tmp_path)
    settings.broker_dir.write_text("a file where a directory should be")
    sweeper = Sweeper(database, queue.create_celery(settings), settings)
    sweeper.sweep()  # nothing to do
    lost, other = submit(database), submit(database)
    claim(database, lost)
    expire(database, lost)
    sweeper.sweep()
    job = look(database, lost)
    assert (job.state, job.failures) == (State.QUEUED, 1)
    assert (look(database, other).nudge_at or 0) > look(database, other).created_at + 10
    settings.broker_dir.unlink()
    settings.make_directories()
    make_due(database, other)
    sweeper.sweep()
    assert not messages(settings)  # nobody is there who could hear
    with database.write() as session:
        workers.arrive(session, Presence("machine:1", "machine", 1, ("train",), {"type": "cpu"}))
    sweeper.start()
    sweeper.wake()
    wait_until(lambda: messages(settings), 10)
    sweeper.stop()
    queue.ping(queue.create_celery(settings))


def messages(settings: StoreSettings) -> list[Path]:
    return [path for path in settings.broker_dir.rglob("*") if path.is_file()]
