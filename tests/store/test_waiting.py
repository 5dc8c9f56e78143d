"""Why a job waits, which workers are there, and who hears of a job."""

from __future__ import annotations

from queue_steps import PROJECT, claim, look, make_due, submit
from sqlalchemy import update
from support import wait_until

from store import commands, jobs, upkeep, waiting, workers
from store.database import Database, database_now
from store.records import JobRecord, WorkerRecord
from store.waiting import Reason
from store.workers import Presence
from workers.presence import Beacon, device


def presence(name: str, *queues: str) -> Presence:
    return Presence(name, "machine", 7, queues, device())


def arrive(database: Database, name: str, *queues: str) -> None:
    with database.write() as session:
        workers.arrive(session, presence(name, *queues))


def place(database: Database, job_id: str) -> waiting.Waiting:
    with database.read() as session:
        return waiting.place(session, look(database, job_id))


def idle(database: Database) -> set[str]:
    with database.read() as session:
        return workers.idle_queues(session)


def age_worker(database: Database, name: str, seconds: float) -> None:
    with database.write() as session:
        seen_at = database_now() - seconds
        session.execute(update(WorkerRecord).where(WorkerRecord.name == name).values(seen_at=seen_at))


def test_the_reason_a_job_waits(database: Database) -> None:
    first, ingest = submit(database), submit(database, kind="ingest")
    assert place(database, first).reason is Reason.NO_WORKER
    arrive(database, "a", "ingest")
    assert place(database, first).reason is Reason.NO_WORKER  # a worker of another queue is none
    assert place(database, ingest).reason is Reason.WORKER
    arrive(database, "b", "train", "ingest")
    assert place(database, first).reason is Reason.WORKER
    age_worker(database, "b", workers.ONLINE_S + 1)
    assert place(database, first).reason is Reason.NO_WORKER

    second = submit(database, depends_on=(first,))
    found = place(database, second)
    assert (found.reason, found.jobs, found.ahead) == (Reason.JOBS, (first,), 1)
    # A job that cannot be claimed yet stands in nobody's way.
    third = submit(database)
    assert place(database, third).ahead == 1
    with database.write() as session:
        session.execute(update(JobRecord).where(JobRecord.id == first).values(not_before=database_now() + 60))
    found = place(database, first)
    assert (found.reason, found.until) == (Reason.BACK_OFF, look(database, first).not_before)
    assert place(database, third).ahead == 0


def test_only_idle_workers_are_announced_to(database: Database) -> None:
    assert idle(database) == set()
    arrive(database, "worker", "train")
    arrive(database, "reader", "ingest")
    assert idle(database) == {"train", "ingest"}
    token = claim(database, submit(database))
    assert idle(database) == {"ingest"}
    age_worker(database, "reader", workers.ONLINE_S + 1)
    assert idle(database) == set()
    with database.write() as session:
        commands.cancel(session, PROJECT, token.job_id)
        assert [row[2] for row in workers.listing(session)] == [None, token.job_id]


def test_an_arriving_worker_hears_of_every_waiting_job(database: Database) -> None:
    announced, later = submit(database), submit(database)
    with database.write() as session:
        assert len(upkeep.due(session, 60)) == 2
        session.execute(update(JobRecord).where(JobRecord.id == later).values(not_before=database_now() + 60))
    arrive(database, "worker", "train")
    with database.write() as session:
        assert [due.job_id for due in upkeep.due(session, 60)] == [announced]
    make_due(database, later)
    with database.read() as session:
        assert jobs.queue_depth(session) == {"queued": 2}


def test_a_beacon(database: Database) -> None:
    beacon = Beacon(database, presence("worker", "train"))
    wait_until(lambda: idle(database) == {"train"}, 5)
    beacon.close()
    assert idle(database) == set()
    arrive(database, "old", "train")
    age_worker(database, "old", workers.FORGOTTEN_S + 1)
    with database.write() as session:
        workers.forget_old(session)
        assert workers.listing(session) == []
