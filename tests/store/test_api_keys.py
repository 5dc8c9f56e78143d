"""API keys and Idempotency-Keys."""

from __future__ import annotations

import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from queue_steps import PROJECT
from sqlalchemy import select, update

from store import idempotency, keys
from store.database import Database
from store.errors import IdempotencyMismatch, NotFound
from store.records import ApiKeyRecord, IdempotencyRecord


def test_a_key_opens_its_project_until_it_is_revoked(database: Database) -> None:
    with database.write() as session:
        record, key = keys.create(session, name="one", project=PROJECT, scopes=("jobs",))
        principal = keys.authenticate(session.connection(), key)
        assert principal == keys.Principal(record.id, PROJECT, frozenset({"jobs"}))
        assert key not in str(vars(record))
        secret = key.partition(".")[2]
        assert len(secret) >= 43
        for wrong in (
            "",
            ".",
            record.id,
            f"{record.id}.",
            f"{record.id}.{secret[:-1]}",
            f"x.{secret}",
            secret,
            f"{record.id}.{record.secret_sha256}",
        ):
            assert keys.authenticate(session.connection(), wrong) is None
        with pytest.raises(NotFound):
            keys.revoke(session, "another", record.id)
        keys.revoke(session, PROJECT, record.id)
        first = record.revoked_at
        keys.revoke(session, PROJECT, record.id)
        assert record.revoked_at == first
        assert keys.authenticate(session.connection(), key) is None
        assert [entry.id for entry in keys.listing(session, PROJECT)] == [record.id]
        assert keys.listing(session, "another") == []


def test_expiry(database: Database) -> None:
    with database.write() as session:
        _, over = keys.create(session, name="over", expires_at=time.time() - 1)
        _, open_ = keys.create(session, name="open", expires_at=time.time() + 60)
        assert keys.authenticate(session.connection(), over) is None
        assert keys.authenticate(session.connection(), open_) is not None


def test_the_first_key(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "api_key"
    with database.write() as session:
        key = keys.ensure_first_key(session, path)
        assert key is not None
        assert keys.ensure_first_key(session, tmp_path / "second") is None
    assert path.read_text() == key + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not (tmp_path / "second").exists()
    with database.read() as session:
        assert keys.authenticate(session.connection(), key) is not None
        assert len(session.scalars(select(ApiKeyRecord)).all()) == 1


def test_the_same_request_at_the_same_time(database: Database) -> None:
    request = idempotency.fingerprint("jobs", "{}")
    made: list[str] = []

    def post(number: int) -> str | None:
        with database.write() as session:
            earlier = idempotency.begin(session, PROJECT, "key", request)
            if earlier is not None:
                return earlier.resource_id
            made.append(f"job_{number}")
            idempotency.finish(session, PROJECT, "key", f"job_{number}")
            return f"job_{number}"

    with ThreadPoolExecutor(16) as pool:
        answers = set(pool.map(post, range(16)))
    assert answers == set(made)
    assert len(made) == 1


def test_another_request_with_the_same_key(database: Database) -> None:
    with database.write() as session:
        assert idempotency.begin(session, PROJECT, "key", idempotency.fingerprint("a", "b")) is None
    with pytest.raises(IdempotencyMismatch), database.write() as session:
        idempotency.begin(session, PROJECT, "key", idempotency.fingerprint("ab", ""))
    with database.write() as session:
        assert idempotency.begin(session, "another", "key", idempotency.fingerprint(b"x")) is None


def test_a_request_that_failed_leaves_its_key_free(database: Database) -> None:
    def post() -> None:
        with database.write() as session:
            idempotency.begin(session, PROJECT, "key", "1")
            raise NotFound("what the request named is not there")

    with pytest.raises(NotFound):
        post()
    with database.write() as session:
        assert idempotency.begin(session, PROJECT, "key", "2") is None


def test_keys_are_forgotten_after_a_day(database: Database) -> None:
    with database.write() as session:
        idempotency.begin(session, PROJECT, "old", "1")
        idempotency.begin(session, PROJECT, "new", "1")
        session.execute(
            update(IdempotencyRecord)
            .where(IdempotencyRecord.key == "old")
            .values(created_at=IdempotencyRecord.created_at - idempotency.KEPT_S - 10)
        )
    with database.write() as session:
        idempotency.forget_old(session)
    with database.read() as session:
        assert session.scalars(select(IdempotencyRecord.key)).all() == ["new"]
