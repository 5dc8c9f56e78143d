"""API keys: `id.secret`, of which only the secret's hash is stored."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, bindparam, or_, select
from sqlalchemy.orm import Session

from store import ids
from store.database import database_now
from store.errors import NotFound
from store.records import ApiKeyRecord

SCOPES = ("datasets", "jobs", "models", "predict", "admin")
DEFAULT_PROJECT = "default"

_VALID_KEY = select(ApiKeyRecord.project, ApiKeyRecord.scopes, ApiKeyRecord.secret_sha256).where(
    ApiKeyRecord.id == bindparam("key_id"),
    ApiKeyRecord.revoked_at.is_(None),
    or_(ApiKeyRecord.expires_at.is_(None), ApiKeyRecord.expires_at > database_now()),
)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: a key's project and scopes."""

    key_id: str
    project: str
    scopes: frozenset[str]


def create(
    session: Session,
    *,
    name: str,
    project: str = DEFAULT_PROJECT,
    scopes: Sequence[str] = SCOPES,
    expires_at: float | None = None,
) -> tuple[ApiKeyRecord, str]:
    """Make a key; the second value, `id.secret`, is shown once and never stored."""
    secret = secrets.token_urlsafe(32)
    record = ApiKeyRecord(
        id=ids.new_id(ids.KEY),
        project=project,
        name=name,
        secret_sha256=_digest(secret),
        scopes=list(scopes),
        expires_at=expires_at,
    )
    session.add(record)
    session.flush()
    return record, f"{record.id}.{secret}"


def authenticate(connection: Connection, key: str) -> Principal | None:
    """Return who holds the key, or None when it is wrong, expired or revoked."""
    key_id, _, secret = key.partition(".")
    # A statement made once, run below the ORM: this is on the path of every request.
    row = connection.execute(_VALID_KEY, {"key_id": key_id}).one_or_none()
    # An unknown id costs the same comparison as a known one, so the time taken tells nothing.
    stored = row.secret_sha256 if row is not None else "0" * 64
    if not hmac.compare_digest(stored, _digest(secret)) or row is None:
        return None
    return Principal(key_id, row.project, frozenset(row.scopes))


def listing(session: Session, project: str) -> list[ApiKeyRecord]:
    """Return the project's keys, oldest first."""
    return list(session.scalars(select(ApiKeyRecord).where(ApiKeyRecord.project == project).order_by(ApiKeyRecord.id)))


def revoke(session: Session, project: str, key_id: str) -> None:
    """Make a key useless from the next request on; NotFound when it is not the project's."""
    record = session.get(ApiKeyRecord, key_id)
    if record is None or record.project != project:
        raise NotFound(f'No key "{key_id}".')
    if record.revoked_at is None:
        record.revoked_at = session.scalar(select(database_now()))
        session.flush()  # authenticate() reads below the ORM


def exists(session: Session) -> bool:
    """Return whether there is any key at all."""
    return session.scalar(select(ApiKeyRecord.id).limit(1)) is not None


def ensure_first_key(session: Session, path: Path) -> str | None:
    """Make a key when there is none at all and write it to `path` (mode 0600); return it, or None."""
    if exists(session):
        return None
    _, key = create(session, name="first key")
    temporary = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(key + "\n")
    temporary.rename(path)
    return key


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
