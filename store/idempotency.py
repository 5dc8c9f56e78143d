"""The same POST sent twice is one request: the second gets the first one's resource."""

from __future__ import annotations

import hashlib

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from store.database import database_now
from store.errors import IdempotencyMismatch
from store.records import IdempotencyRecord

KEPT_S = 24 * 3600.0


def fingerprint(*parts: bytes | str) -> str:
    """Return what tells one request from another."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def begin(session: Session, project: str, key: str, request: str) -> IdempotencyRecord | None:
    """Take the key for this transaction and return None, or return the record of the request that took it first.

    The insert waits for a concurrent transaction with the same key, so there is no moment at which two of them
    both think they are the first. IdempotencyMismatch when the key came with another request.
    """
    try:
        with session.begin_nested():
            session.add(IdempotencyRecord(project=project, key=key, fingerprint=request))
            session.flush()
        return None
    except IntegrityError:
        record = session.get_one(IdempotencyRecord, (project, key))
    _require_same(record, request)
    return record


def earlier(session: Session, project: str, key: str, request: str) -> str | None:
    """Return the id of what an earlier request with the key has made, without taking the key."""
    record = session.get(IdempotencyRecord, (project, key))
    if record is None:
        return None
    _require_same(record, request)
    return record.resource_id


def _require_same(record: IdempotencyRecord, request: str) -> None:
    if record.fingerprint != request:
        raise IdempotencyMismatch(
            f'Idempotency-Key "{record.key}" was used for another request.',
            hint="Send a new key with a new request.",
            param="Idempotency-Key",
        )


def finish(session: Session, project: str, key: str, resource_id: str) -> None:
    """Remember what the request made, in the transaction that made it."""
    session.get_one(IdempotencyRecord, (project, key)).resource_id = resource_id


def forget(session: Session, project: str, key: str) -> None:
    """Let the next request with a key be a first one."""
    session.execute(delete(IdempotencyRecord).where(IdempotencyRecord.project == project, IdempotencyRecord.key == key))


def forget_old(session: Session) -> None:
    """Delete keys older than a day."""
    session.execute(delete(IdempotencyRecord).where(IdempotencyRecord.created_at < database_now() - KEPT_S))
