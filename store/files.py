"""Files that are no dataset: what a job made for its caller, and what a caller gave a job to read."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from store import ids
from store.artifacts import Artifact
from store.database import database_now
from store.errors import Conflict, NotFound
from store.records import FileRecord, JobRecord
from store.states import TERMINAL

INPUTS, OUTPUT = "inputs", "output"  # of a prediction job
IMPORT = "import"  # of an import job: a model's archive, kept until the job has ended
UPLOAD, PART = "upload", "part"  # what is on its way to becoming a file; a part's file name is its upload
KEPT_S = 24 * 3600.0  # of what is on its way


def add(
    session: Session,
    *,
    project: str,
    filename: str,
    purpose: str,
    artifact: Artifact,
    job_id: str | None = None,
    file_id: str | None = None,
) -> FileRecord:
    """Write a file's row; its content is registered in the same transaction."""
    file = FileRecord(
        id=file_id or ids.new_id(ids.FILE),
        project=project,
        filename=filename,
        purpose=purpose,
        job_id=job_id,
        sha256=artifact.sha256,
    )
    session.add(file)
    session.flush()
    return file


def get(session: Session, project: str, file_id: str, purpose: str | None = None) -> FileRecord:
    """Return the project's file; NotFound otherwise, also for one that is for something else."""
    file = session.get(FileRecord, file_id)
    if file is None or file.project != project or purpose not in (None, file.purpose):
        what = purpose if purpose in (UPLOAD, PART) else "file"
        raise NotFound(f'No {what} "{file_id}".', hint="See GET /v1/files.")
    return file


def of_job(session: Session, job_id: str, purpose: str) -> FileRecord | None:
    """Return what a job made or reads for a purpose, if it is there."""
    query = select(FileRecord).where(FileRecord.job_id == job_id, FileRecord.purpose == purpose)
    return session.scalars(query.order_by(FileRecord.id.desc()).limit(1)).one_or_none()


def listing(project: str) -> Any:
    """Return the query for a project's files, to be paged by the caller."""
    return select(FileRecord).where(FileRecord.project == project)


def remove(session: Session, project: str, file_id: str) -> None:
    """Delete a file that no unfinished job reads; Conflict otherwise."""
    file = get(session, project, file_id)
    job = session.get(JobRecord, file.job_id) if file.job_id else None
    if job is not None and job.state not in TERMINAL:
        raise Conflict(f"File {file_id} is in use by job {job.id}.", hint="Wait for the job, or cancel it.")
    session.delete(file)


def forget_upload(session: Session, project: str, upload_id: str) -> None:
    """Forget an upload and its parts."""
    mine = FileRecord.project == project
    session.execute(delete(FileRecord).where(mine, FileRecord.purpose == PART, FileRecord.filename == upload_id))
    session.execute(delete(FileRecord).where(mine, FileRecord.purpose == UPLOAD, FileRecord.id == upload_id))


def forget_old(session: Session) -> None:
    """Forget uploads that were never completed, and their parts; and the archives of imports that have ended."""
    old = FileRecord.created_at < database_now() - KEPT_S
    session.execute(delete(FileRecord).where(FileRecord.purpose.in_((UPLOAD, PART)), old))
    ended = select(JobRecord.id).where(JobRecord.kind == IMPORT, JobRecord.state.in_(TERMINAL))
    session.execute(delete(FileRecord).where(FileRecord.purpose == IMPORT, FileRecord.job_id.in_(ended)))
