"""Jobs that wait for others: released by success, failed by failure, in the transaction in which it happens."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from queue_steps import ERROR, PROJECT, claim, events, look, submit

from store import attempts, commands, queue, upkeep
from store.database import Database
from store.errors import DependencyFailed, IllegalTransition, UnknownReference
from store.states import State


def next_job(database: Database) -> str | None:
    with database.write() as session:
        job = attempts.claim_next(session, [queue.TRAIN], "worker", 60)
    return job.id if job else None


def test_a_job_waits_until_all_it_depends_on_have_succeeded(database: Database) -> None:
    first, second = submit(database, kind="pretrain"), submit(database, kind="pretrain")
    child = submit(database, depends_on=(first, second), base_job_id=first)
    with database.write() as session:
        assert {due.job_id for due in upkeep.due(session, 60)} == {first, second}
        assert attempts.claim(session, child, "hasty", 60) is None
    for parent in (first, second):
        assert look(database, child).waiting_for > 0
        token = claim(database, parent)
        with database.write() as session:
            attempts.complete(session, token, {})
    assert look(database, child).waiting_for == 0
    with database.write() as session:
        assert [due.job_id for due in upkeep.due(session, 60)] == [child]
    assert next_job(database) == child


@pytest.mark.parametrize("paused", [False, True])
def test_a_failed_job_fails_all_that_wait_for_it(database: Database, paused: bool) -> None:
    parent = submit(database, kind="pretrain")
    child = submit(database, depends_on=(parent,))
    grandchild = submit(database, depends_on=(child,))
    if paused:
        with database.write() as session:
            commands.pause(session, PROJECT, child)
    token = claim(database, parent)
    with database.write() as session:
        attempts.fail(session, token, ERROR)
    for job_id in (child, grandchild):
        job = look(database, job_id)
        assert (job.state, job.error["code"]) == (State.FAILED, "dependency_failed")
        assert ERROR["message"] in job.error["message"]
        assert events(database, job_id)[-1].type == "failed"
    assert parent in look(database, child).status_reason
    with pytest.raises(DependencyFailed, match=parent):
        submit(database, depends_on=(parent,))


def test_a_cancelled_job_fails_what_waits_for_it(database: Database) -> None:
    parent = submit(database)
    child = submit(database, depends_on=(parent,))
    with database.write() as session:
        commands.cancel(session, PROJECT, parent)
    assert "was cancelled" in look(database, child).error["message"]


def test_what_a_job_depends_on_must_be_there(database: Database) -> None:
    with pytest.raises(UnknownReference, match="job_nowhere"):
        submit(database, depends_on=("job_nowhere",))
    foreign = submit(database, project="other")
    with pytest.raises(UnknownReference):
        submit(database, depends_on=(foreign,))


def test_no_child_is_forgotten_when_its_parent_ends_meanwhile(database: Database) -> None:
    """The parent completes while children are submitted: each of them is released, whichever came first."""
    for _ in range(10):
        parent = submit(database, kind="pretrain")
        token = claim(database, parent)
        with ThreadPoolExecutor(5) as pool:
            children = [pool.submit(submit, database, depends_on=(parent,)) for _ in range(4)]
            done = pool.submit(_complete, database, token)
        done.result()
        assert [look(database, child.result()).waiting_for for child in children] == [0, 0, 0, 0]
        assert all(look(database, child.result()).nudge_at is not None for child in children)


def _complete(database: Database, token: attempts.Token) -> None:
    with database.write() as session:
        attempts.complete(session, token, {})


def test_the_most_urgent_job_is_next_then_the_oldest(database: Database) -> None:
    low, high, other = submit(database), submit(database, priority=5), submit(database)
    upload = submit(database, kind="ingest", priority=100)
    assert [next_job(database) for _ in range(4)] == [high, low, other, None]
    assert look(database, upload).state == State.QUEUED


def test_eight_workers_take_each_job_once(database: Database) -> None:
    made = sorted(submit(database) for _ in range(100))

    def work() -> list[str]:
        taken = []
        while (job_id := next_job(database)) is not None:
            taken.append(job_id)
        return taken

    with ThreadPoolExecutor(8) as pool:
        lists = [pool.submit(work) for _ in range(8)]
    taken = [job_id for entry in lists for job_id in entry.result()]
    assert sorted(taken) == made


def test_a_retry_is_a_new_job_that_knows_what_it_repeats(database: Database) -> None:
    job_id = submit(database, spec={"output": {"model": "m"}}, resolved={"seed": 3}, max_runtime_s=9.0)
    with pytest.raises(IllegalTransition, match="queued"), database.write() as session:
        commands.retry(session, PROJECT, job_id, from_checkpoint=True)
    token = claim(database, job_id)
    with database.write() as session:
        attempts.fail(session, token, ERROR)
        again = commands.retry(session, PROJECT, job_id, from_checkpoint=True)
        fresh = commands.retry(session, PROJECT, job_id, from_checkpoint=False)
    assert (again.retry_of, again.resumes_job_id, fresh.resumes_job_id) == (job_id, job_id, None)
    assert (again.spec, again.resolved, again.max_runtime_s) == ({"output": {"model": "m"}}, {"seed": 3}, 9.0)
    assert look(database, job_id).state == State.FAILED
