"""Uploads: a file that comes in parts, in any order and again, until it is joined to one artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import structlog
from sqlalchemy import ColumnElement, Select, delete, func, or_, select, update
from sqlalchemy.orm import Session

from store import ids
from store.artifacts import Artifact, ArtifactStore
from store.database import Database, alone, database_now
from store.errors import Conflict, NotFound, QuotaExceeded
from store.parts import PartStore, gone
from store.records import ArtifactRecord, DatasetRecord, UploadRecord

log = structlog.get_logger(__name__)

OPEN, COMPLETED = "open", "completed"
MOST_PARTS = 10_000
PART_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class NewUpload:
    """What a caller says of a file before sending it; `sha256` of None means that it is not known."""

    filename: str
    bytes: int
    sha256: str | None
    part_bytes: int


@dataclass(frozen=True, slots=True)
class Quota:
    """How many uploads a project may have open, and how many bytes they may have together once they have come."""

    uploads: int
    bytes: int


def part_bytes_for(size: int) -> int:
    """Return the size of the parts of a file: whole MiB, as many as there may be of them at most."""
    mebibytes = -(-size // (MOST_PARTS << 20))
    return max(PART_BYTES, mebibytes << 20)


def count_parts(size: int, part_bytes: int) -> int:
    """Return how many parts a file has."""
    return -(-size // part_bytes)


def status(record: UploadRecord) -> str:
    """Return `open` or `completed`."""
    return OPEN if record.source_sha256 is None else COMPLETED


def size_of_part(record: UploadRecord, number: int) -> int:
    """Return the bytes of a part; NotFound for a number that the upload does not have."""
    count = count_parts(record.bytes, record.part_bytes)
    if not 1 <= number <= count:
        raise NotFound(f"Upload {record.id} has no part {number}.", hint=f"Its parts are numbered 1 to {count}.")
    return record.bytes - record.part_bytes * (count - 1) if number == count else record.part_bytes


def missing_parts(record: UploadRecord, sizes: Mapping[int, int]) -> list[int]:
    """Return the numbers of the parts that have not come yet; none of a completed upload's."""
    if record.source_sha256 is not None:
        return []
    return [number for number in range(1, count_parts(record.bytes, record.part_bytes) + 1) if number not in sizes]


def create(
    session: Session, artifacts: ArtifactStore, project: str, new: NewUpload, *, expiry_s: float, quota: Quota
) -> UploadRecord:
    """Write an open upload, or a completed one when the project has that very content already.

    QuotaExceeded when the project may not have another one open.
    What another project has is not looked at: that a digest is known would tell what is stored there.
    """
    record = UploadRecord(
        id=ids.new_id(ids.UPLOAD),
        project=project,
        filename=new.filename,
        bytes=new.bytes,
        sha256=new.sha256,
        part_bytes=new.part_bytes,
        expires_at=database_now() + expiry_s,
    )
    if new.sha256 is not None and _has(session, project, Artifact(new.sha256, new.bytes)):
        try:
            artifacts.register(session, Artifact(new.sha256, new.bytes))
            record.source_sha256 = new.sha256
        except NotFound:
            log.warning("a stored file is missing; it is asked for again", sha256=new.sha256)
    if record.source_sha256 is None:
        _check_quota(session, project, new.bytes, quota)
    session.add(record)
    session.flush()
    session.refresh(record)
    return record


def _lasts() -> ColumnElement[bool]:
    return UploadRecord.expires_at >= database_now()


def _check_quota(session: Session, project: str, size: int, quota: Quota) -> None:
    alone(session, f"uploads of {project}")
    is_open = (UploadRecord.source_sha256.is_(None), _lasts())
    counted = select(func.count(), func.coalesce(func.sum(UploadRecord.bytes), 0))
    count, total = session.execute(counted.where(UploadRecord.project == project, *is_open)).one()
    remedy = "Complete one that GET /api/v1/uploads?status=open lists, or give it up with DELETE"
    if count >= quota.uploads:
        raise QuotaExceeded(
            f"The project has {count} uploads open, and may have {quota.uploads}.",
            hint=f"{remedy}; or raise ANNEAL_MAX_OPEN_UPLOADS on the server.",
        )
    if total + size > quota.bytes:
        raise QuotaExceeded(
            f"The project's open uploads have {total} bytes; with {size} more they would have over {quota.bytes}.",
            hint=f"{remedy}; or raise ANNEAL_MAX_OPEN_UPLOAD_BYTES on the server.",
            param="bytes",
        )


def _has(session: Session, project: str, artifact: Artifact) -> bool:
    pointers = or_(
        *(
            select(pointer.id)
            .where(pointer.project == project, pointer.source_sha256 == artifact.sha256)
            .correlate(None)
            .exists()
            for pointer in (DatasetRecord, UploadRecord)
        )
    )
    known = select(ArtifactRecord.sha256).where(
        ArtifactRecord.sha256 == artifact.sha256, ArtifactRecord.bytes == artifact.bytes, pointers
    )
    return session.scalar(known) is not None


def get(session: Session, project: str, upload_id: str) -> UploadRecord:
    """Return the project's upload; NotFound otherwise, also of one that has expired and is not swept away yet."""
    record = session.scalar(
        select(UploadRecord).where(UploadRecord.id == upload_id, UploadRecord.project == project, _lasts())
    )
    if record is None:
        raise gone(upload_id)
    return record


def get_open(session: Session, project: str, upload_id: str) -> UploadRecord:
    """Return the project's upload while parts may come; Conflict when it is completed."""
    record = get(session, project, upload_id)
    if record.source_sha256 is not None:
        raise Conflict(
            f"Upload {upload_id} is completed; it takes no more parts.",
            hint="Make a dataset of it, or start another upload.",
        )
    return record


def listing(
    session: Session,
    project: str,
    *,
    filename: str | None = None,
    size: int | None = None,
    sha256: str | None = None,
    status: str | None = None,
) -> Select[UploadRecord]:
    """Return the query for a project's uploads, to be paged by the caller."""
    query = select(UploadRecord).where(UploadRecord.project == project, _lasts())
    wanted = {UploadRecord.filename: filename, UploadRecord.bytes: size, UploadRecord.sha256: sha256}
    for column, value in wanted.items():
        if value is not None:
            query = query.where(column == value)
    if status is not None:
        joined = UploadRecord.source_sha256
        query = query.where(joined.is_(None) if status == OPEN else joined.is_not(None))
    return query


def extend(session: Session, upload_id: str, expiry_s: float) -> None:
    """Put an upload's expiry off because a part has come; NotFound when it was ended meanwhile."""
    _update(session, upload_id, expires_at=database_now() + expiry_s)


def complete(session: Session, upload_id: str, source: Artifact, expiry_s: float) -> UploadRecord:
    """Point a completed upload at its file; NotFound when it was aborted or expired while it was joined."""
    return _update(session, upload_id, source_sha256=source.sha256, expires_at=database_now() + expiry_s)


def _update(session: Session, upload_id: str, **values: object) -> UploadRecord:
    changed = update(UploadRecord).where(UploadRecord.id == upload_id).values(**values).returning(UploadRecord)
    record = session.scalars(changed, execution_options={"populate_existing": True}).one_or_none()
    if record is None:
        raise gone(upload_id)
    return record


def source(session: Session, project: str, upload_id: str) -> tuple[str, Artifact]:
    """Return a completed upload's file name and file; Conflict while parts are missing."""
    record = get(session, project, upload_id)
    if record.source_sha256 is None:
        raise Conflict(
            f"Upload {upload_id} is not completed.",
            hint=f"Send its missing parts, then POST /api/v1/uploads/{upload_id}/complete.",
            param="upload_id",
        )
    return record.filename, Artifact(record.source_sha256, record.bytes)


def remove(session: Session, project: str, upload_id: str) -> str:
    """Forget an upload and return its id as the row had it; a dataset made of it keeps its file."""
    record = get(session, project, upload_id)
    session.delete(record)
    return record.id


def sweep(database: Database, parts: PartStore, grace_s: float) -> None:
    """Forget expired uploads, and delete the parts of those that are completed, aborted or expired.

    Parts have a directory only after their row is committed, so a directory without an open upload is nobody's.
    """
    expired = UploadRecord.expires_at < database_now()
    with database.read() as session:
        any_expired = session.scalar(select(UploadRecord.id).where(expired).limit(1)) is not None
    if any_expired:
        with database.write() as session:
            session.execute(delete(UploadRecord).where(expired))
    there = parts.ids()
    if not there:
        return
    with database.read() as session:
        open_ids = set(session.scalars(select(UploadRecord.id).where(UploadRecord.source_sha256.is_(None))))
    for upload_id in there:
        if upload_id in open_ids:
            parts.remove_leftovers(upload_id, grace_s)
        else:
            parts.remove(upload_id)
