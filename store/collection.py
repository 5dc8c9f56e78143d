"""The collection of files that nothing points at.

What points at an artifact is read off the tables' foreign keys, so that a new table cannot be forgotten. The row goes
by a DELETE that checks this again, and the file before that transaction ends; either alone would be mended by the next
pass, and nothing that was stored or pointed at within the grace is touched.
"""

from __future__ import annotations

from itertools import cycle

import structlog
from sqlalchemy import ColumnElement, and_, delete, exists, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from store.artifacts import ArtifactStore
from store.database import Database, database_now
from store.records import ArtifactRecord, Record

log = structlog.get_logger(__name__)

BATCH = 100

_POINTERS = [
    column
    for table in Record.metadata.tables.values()
    for column in table.columns
    for key in column.foreign_keys
    if key.target_fullname == "artifacts.sha256"
]


def _unwanted(grace_s: float) -> ColumnElement[bool]:
    return and_(
        ArtifactRecord.touched_at < database_now() - grace_s,
        *(~exists().where(column == ArtifactRecord.sha256) for column in _POINTERS),
    )


class Collector:
    """Deletes unwanted files, some at each pass; any number of processes may do this at once."""

    def __init__(self, database: Database, artifacts: ArtifactStore, grace_s: float) -> None:
        self._database = database
        self._artifacts = artifacts
        self._grace_s = grace_s
        self._prefixes = cycle(f"{number:02x}" for number in range(256))

    def collect(self) -> list[str]:
        """Delete up to a hundred artifacts that nothing points at, and strays of one directory; return the digests."""
        query = select(ArtifactRecord.sha256).where(_unwanted(self._grace_s)).limit(BATCH)
        with self._database.read() as session:
            found = list(session.scalars(query))
        gone = [sha256 for sha256 in found if self._remove(sha256)]
        self._remove_strays(next(self._prefixes))
        self._artifacts.remove_leftovers(self._grace_s)
        if gone:
            log.info("deleted files that nothing points at", count=len(gone))
        return gone

    def _remove(self, sha256: str) -> bool:
        try:
            with self._database.write() as session:
                removed = self._delete_row(session, sha256) and self._artifacts.remove(sha256, self._grace_s)
                if not removed:
                    session.rollback()
                return removed
        except IntegrityError:
            return False  # something began to point at it just now

    def _delete_row(self, session: Session, sha256: str) -> bool:
        unwanted = delete(ArtifactRecord).where(ArtifactRecord.sha256 == sha256, _unwanted(self._grace_s))
        return session.scalar(unwanted.returning(ArtifactRecord.sha256)) is not None

    def _remove_strays(self, prefix: str) -> None:
        """Delete files without a row: what was stored for a transaction that never came."""
        on_disk = set(self._artifacts.digests(prefix))
        if not on_disk:
            return
        with self._database.read() as session:
            known = set(session.scalars(select(ArtifactRecord.sha256).where(ArtifactRecord.sha256.startswith(prefix))))
        for sha256 in on_disk - known:
            self._artifacts.remove(sha256, self._grace_s)
