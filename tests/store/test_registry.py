"""Models: versions numbered without gaps or doubles, aliases that move, and what may be deleted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from queue_steps import PROJECT, know_artifact, submit

from store import models
from store.database import Database
from store.errors import Conflict, NotFound

SHA = "a" * 64


def register(database: Database, job_id: str, name: str = "model", **options: Any) -> int:
    new = models.NewVersion(
        **{
            "model": name,
            "kind": "task",
            "task": "t",
            "architecture": "mlp",
            "modality": "tabular",
            "metrics": {},
            "lineage": {},
            "files": {"weights": SHA},
            **options,
        }
    )
    with database.write() as session:
        know_artifact(session, SHA, 5)
        return models.register(session, PROJECT, job_id, new).record.number


def resolve(database: Database, ref: str, project: str = PROJECT) -> int:
    with database.read() as session:
        return models.resolve(session, project, ref).record.number


def test_numbers_under_concurrency(database: Database) -> None:
    job_id = submit(database)
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: register(database, job_id, aliases=("newest",)), range(24)))
    assert sorted(numbers) == list(range(1, 25))
    assert resolve(database, "model") == 24
    assert resolve(database, "model@newest") == 24


def test_one_alias_made_by_many_at_once(database: Database) -> None:
    job_id = submit(database)
    for _ in range(8):
        register(database, job_id)

    def point(number: int) -> None:
        with database.write() as session:
            models.set_alias(session, PROJECT, "model", "production", number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(point, range(1, 9)))
    assert resolve(database, "model@production") in range(1, 9)


def test_references(database: Database) -> None:
    job_id = submit(database)
    register(database, job_id)
    register(database, job_id)
    with database.write() as session:
        version = models.set_alias(session, PROJECT, "model", "stable", 1)
        assert (version.ref, version.alias) == ("model:1", "stable")
    assert [resolve(database, ref) for ref in ("model", "model:1", "model:2", "model@stable")] == [2, 1, 2, 1]
    for ref in ("model:3", "model:0", "model@none", "other", "Model", "model:", "model@", "a/b", "model:1@stable", ""):
        with pytest.raises(NotFound) as caught:
            resolve(database, ref)
        assert caught.value.hint
    with pytest.raises(NotFound):
        resolve(database, "model", project="another")
    with database.write() as session:
        models.set_alias(session, PROJECT, "model", "stable", 2)
        models.remove_alias(session, PROJECT, "model", "stable")
        with pytest.raises(NotFound):
            models.remove_alias(session, PROJECT, "model", "stable")


def remove(database: Database, ref: str) -> None:
    with database.write() as session:
        models.remove_version(session, models.resolve(session, PROJECT, ref))


def test_deleting(database: Database) -> None:
    job_id = submit(database)
    for _ in range(3):
        register(database, job_id)
    with database.write() as session:
        models.set_alias(session, PROJECT, "model", "stable", 1)
        base = models.resolve(session, PROJECT, "model:2").record.id
    submit(database, base_version_id=base)
    with pytest.raises(Conflict, match="stable"):
        remove(database, "model:1")
    with pytest.raises(Conflict, match="base model"):
        remove(database, "model:2")
    remove(database, "model:3")
    assert resolve(database, "model") == 2  # the newest that is left
    assert register(database, job_id) == 4  # a number is never used again
    register(database, job_id, "lonely")
    remove(database, "lonely")
    with pytest.raises(NotFound, match="no version any more"):
        resolve(database, "lonely")
