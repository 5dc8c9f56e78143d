"""Which checkpoints of a job are kept."""

from __future__ import annotations

from queue_steps import claim, submit

from store import checkpoints
from store.checkpoints import NewCheckpoint, Retention
from store.database import Database


def test_the_best_stays_the_best_while_nothing_is_better(database: Database) -> None:
    """Whoever is about to promote it has the time of many checkpoints of the same score for that."""
    token = claim(database, submit(database))
    for step, score in enumerate((0.5, 0.9, 0.9, 0.7, 0.9)):
        with database.write() as session:
            new = NewCheckpoint(run="scratch", step=step, files={}, score=score)
            checkpoints.publish(session, token, new, Retention(keep_last=2, keep_best=1))
    with database.read() as session:
        found = checkpoints.of_job(session, token.job_id)
        best = checkpoints.best(found)
    assert [checkpoint.step for checkpoint in found] == [1, 3, 4]
    assert [checkpoint.step for checkpoint in found if checkpoint.id in best] == [1]
