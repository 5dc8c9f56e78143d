"""A gallery's move to another version: a job embeds all samples, and then all change at once.

What was embedded stands beside the samples until then, and goes with them: a move that was stopped goes on there, also
as another job, and nothing of somebody who is forgotten meanwhile stays behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, func, insert, select, update
from sqlalchemy.orm import Session

from store import galleries, jobs, models
from store.errors import Conflict, Fenced, NotFound
from store.galleries import Moved
from store.gallery_records import GalleryRecord, SampleEmbeddingRecord, SampleRecord, SubjectRecord
from store.models import Version
from store.records import JobRecord
from store.states import TERMINAL
from store.token import Token
from store.transition import record_event


@dataclass(frozen=True, slots=True)
class Unmoved:
    """A sample that the version to move to has not embedded yet."""

    sample_id: str
    subject_id: str
    sha256: str


def begin(session: Session, job: JobRecord) -> None:
    """Have a job move the gallery that it names; Conflict while another one does."""
    gallery = of_job(session, job)
    galleries.held(session, gallery)
    other = current(session, gallery)
    if other is not None:
        raise Conflict(
            f'Gallery "{gallery.name}" is being moved to {(other.resolved or {})["ref"]} by job {other.id}.',
            hint=f"Wait for it, or cancel it: POST /api/v1/jobs/{other.id}/cancel.",
        )
    gallery.move_job_id = job.id
    session.flush()


def current(session: Session, gallery: GalleryRecord) -> JobRecord | None:
    """Return the job that moves a gallery, if one does."""
    job = session.get(JobRecord, gallery.move_job_id) if gallery.move_job_id else None
    return job if job is not None and job.state not in TERMINAL else None


def of_job(session: Session, job: JobRecord) -> GalleryRecord:
    """Return the gallery that a job moves; NotFound when it was deleted."""
    spec = job.resolved or {}
    gallery = session.get(GalleryRecord, spec["gallery_id"])
    if gallery is None:
        raise NotFound(f'No gallery "{spec["gallery"]}" any more.', hint="List them with GET /api/v1/galleries.")
    return gallery


def unmoved(session: Session, job: JobRecord) -> tuple[list[Unmoved], int]:
    """Return which samples are still to be embedded, oldest first, and how many have been."""
    gallery, version_id = of_job(session, job), (job.resolved or {})["version_id"]
    query = (
        select(SampleRecord.id, SubjectRecord.id, SampleRecord.sha256)
        .join(SubjectRecord, SampleRecord.subject_id == SubjectRecord.id)
        .where(SubjectRecord.gallery_id == gallery.id, ~_embedded(version_id))
        .order_by(SampleRecord.id)
    )
    found = [Unmoved(*row) for row in session.execute(query)]
    return found, galleries.counts(session, gallery.id)[1] - len(found)


def keep(session: Session, token: Token, embeddings: Mapping[str, bytes]) -> None:
    """Keep embeddings by sample that a job's child has made; Fenced when the job is lost to another worker.

    Those of samples that were deleted meanwhile are left out.
    """
    data = {"samples": len(embeddings)}
    job = record_event(session, token, "embedded", f"{len(embeddings)} samples were embedded.", data=data)
    if job is None:
        raise Fenced(f"Attempt {token.attempt} of {token.job_id} no longer holds the job.")
    gallery, version_id = of_job(session, job), (job.resolved or {})["version_id"]
    galleries.held(session, gallery)  # so that nobody is forgotten between the look and the commit
    wanted = select(SampleRecord.id).where(SampleRecord.id.in_(list(embeddings)), ~_embedded(version_id))
    rows = [
        {"sample_id": sample_id, "version_id": version_id, "embedding": embeddings[sample_id]}
        for sample_id in session.scalars(wanted)
    ]
    if rows:
        session.execute(insert(SampleEmbeddingRecord), rows)


def finish(session: Session, job: JobRecord) -> dict[str, Any]:
    """Have the gallery use the version it was to move to, all its samples at once, and return the job's result.

    Moved while there is a sample that the version has not embedded: it was enrolled meanwhile.
    """
    spec = job.resolved or {}
    gallery, version = of_job(session, job), models.by_id(session, spec["version_id"])
    galleries.held(session, gallery)
    lacking = session.scalar(
        select(func.count()).select_from(SampleRecord).where(_of(gallery), ~_embedded(version.record.id))
    )
    if lacking:
        raise Moved(f'{lacking} files were enrolled in gallery "{gallery.name}" meanwhile.')
    made = select(SampleEmbeddingRecord.embedding).where(_made_of(version.record.id))
    session.execute(
        update(SampleRecord)
        .where(_of(gallery))
        .values(embedding=made.scalar_subquery())
        .execution_options(synchronize_session=False)
    )
    samples = select(SampleRecord.id).where(_of(gallery))
    session.execute(delete(SampleEmbeddingRecord).where(SampleEmbeddingRecord.sample_id.in_(samples)))
    _point(session, gallery, version, spec["threshold_from"])
    return {
        "gallery": gallery.name,
        "model": version.model.name,
        "version": version.record.number,
        "ref": version.ref,
        "samples": galleries.counts(session, gallery.id)[1],
    }


def _point(
    session: Session, gallery: GalleryRecord, version: Version, threshold_from: Mapping[str, Any] | None
) -> None:
    before = gallery.threshold_from
    if threshold_from is not None:
        gallery.threshold_from = dict(threshold_from)
    elif before["source"] == galleries.GIVEN and gallery.version_id != version.record.id:
        # A number was chosen for the scores of the version before.
        gallery.threshold_from = {"source": galleries.AUTO, "false_accept_rate": before["false_accept_rate"]}
    gallery.version_id = version.record.id
    galleries.changed(session, gallery)


def _of(gallery: GalleryRecord) -> ColumnElement[bool]:
    subjects = select(SubjectRecord.id).where(SubjectRecord.gallery_id == gallery.id)
    return SampleRecord.subject_id.in_(subjects)


def _made_of(version_id: str) -> ColumnElement[bool]:
    return (SampleEmbeddingRecord.sample_id == SampleRecord.id) & (SampleEmbeddingRecord.version_id == version_id)


def _embedded(version_id: str) -> ColumnElement[bool]:
    return exists().where(_made_of(version_id))


def submit(session: Session, new: jobs.NewJob) -> JobRecord:
    """Queue a job that moves the gallery it names."""
    job = jobs.submit(session, new)
    begin(session, job)
    return job
