"""Datasets: an upload, the job that ingests it, and the table that comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from store import commands, ids, jobs, webhooks
from store.artifacts import Artifact
from store.errors import Conflict, NotFound
from store.records import ArtifactRecord, DatasetRecord, JobDatasetRecord, JobRecord
from store.states import TERMINAL

PROCESSING, READY, INVALID = "processing", "ready", "invalid"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset with what follows from its rows."""

    record: DatasetRecord
    job: JobRecord
    bytes: int

    @property
    def status(self) -> str:
        """`processing` until the ingestion job has ended, then `ready` or `invalid`."""
        if self.record.table_sha256 is not None:
            return READY
        return INVALID if self.job.state in TERMINAL else PROCESSING


def create(
    session: Session,
    *,
    project: str,
    name: str,
    filename: str,
    source: Artifact,
    options: Mapping[str, Any],
    user_metadata: Mapping[str, Any],
) -> Dataset:
    """Write the dataset and the queued job that will ingest it."""
    dataset_id = ids.new_id(ids.DATASET)
    job = jobs.submit(
        session,
        jobs.NewJob(
            kind=jobs.INGEST,
            project=project,
            name=name,
            spec={"dataset_id": dataset_id, "filename": filename, **options},
        ),
    )
    record = DatasetRecord(
        id=dataset_id,
        project=project,
        name=name,
        filename=filename,
        job_id=job.id,
        source_sha256=source.sha256,
        options=dict(options),
        user_metadata=dict(user_metadata),
    )
    session.add(record)
    session.flush()
    return Dataset(record, job, source.bytes)


def _select() -> Any:
    return (
        select(DatasetRecord, JobRecord, ArtifactRecord.bytes)
        .join(JobRecord, DatasetRecord.job_id == JobRecord.id)
        .join(ArtifactRecord, DatasetRecord.source_sha256 == ArtifactRecord.sha256)
    )


def get(session: Session, project: str, dataset_id: str) -> Dataset:
    """Return the project's dataset; NotFound otherwise."""
    row = session.execute(
        _select().where(DatasetRecord.id == dataset_id, DatasetRecord.project == project)
    ).one_or_none()
    if row is None:
        raise NotFound(f'No dataset "{dataset_id}".', hint="List datasets with GET /api/v1/datasets.")
    return Dataset(*row)


def of_job(session: Session, job_id: str) -> Dataset:
    """Return the dataset that an ingestion job makes."""
    return Dataset(*session.execute(_select().where(DatasetRecord.job_id == job_id)).one())


def listing(session: Session, project: str, *, name: str | None = None, status: str | None = None) -> Any:
    """Return the query for a project's datasets, to be paged by the caller."""
    query = _select().where(DatasetRecord.project == project)
    if name is not None:
        query = query.where(DatasetRecord.name == name)
    if status == READY:
        query = query.where(DatasetRecord.table_sha256.is_not(None))
    elif status == INVALID:
        query = query.where(DatasetRecord.table_sha256.is_(None), JobRecord.state.in_(TERMINAL))
    elif status == PROCESSING:
        query = query.where(DatasetRecord.table_sha256.is_(None), JobRecord.state.not_in(TERMINAL))
    return query


def set_ingested(
    session: Session,
    dataset_id: str,
    table: Artifact,
    description: Mapping[str, Any],
    quarantine: Artifact | None = None,
) -> None:
    """Make the dataset ready; to be called in the transaction that completes its job."""
    record = session.get_one(DatasetRecord, dataset_id)
    record.table_sha256 = table.sha256
    record.quarantine_sha256 = quarantine.sha256 if quarantine else None
    record.description = dict(description)
    _announce(session, record, READY)


def set_invalid(session: Session, dataset_id: str, description: Mapping[str, Any]) -> None:
    """Keep what is wrong with the dataset; to be called in the transaction that fails its job."""
    record = session.get_one(DatasetRecord, dataset_id)
    record.description = dict(description)
    _announce(session, record, INVALID)


def _announce(session: Session, record: DatasetRecord, status: str) -> None:
    about = {"id": record.id, "name": record.name, "status": status, "metadata": record.user_metadata}
    webhooks.announce(session, record.project, f"dataset.{status}", about)


def lineage(session: Session, job_id: str) -> dict[str, Any]:
    """Return what a job learned from, by role: id, name and digest, to be kept when the dataset is gone."""
    query = (
        select(JobDatasetRecord.role, DatasetRecord.id, DatasetRecord.name, DatasetRecord.source_sha256)
        .join(DatasetRecord, JobDatasetRecord.dataset_id == DatasetRecord.id)
        .where(JobDatasetRecord.job_id == job_id)
    )
    return {
        role: {"id": dataset_id, "name": name, "sha256": sha256}
        for role, dataset_id, name, sha256 in session.execute(query)
    }


def remove(session: Session, project: str, dataset_id: str) -> None:
    """Delete a dataset that no unfinished job reads; Conflict otherwise."""
    dataset = get(session, project, dataset_id)
    users = (
        select(JobRecord.id)
        .join(JobDatasetRecord, JobDatasetRecord.job_id == JobRecord.id)
        .where(JobDatasetRecord.dataset_id == dataset_id, JobRecord.state.not_in(TERMINAL))
    )
    user = session.scalar(users.limit(1))
    if user is not None:
        raise Conflict(f"Dataset {dataset_id} is in use by job {user}.", hint="Wait for the job, or cancel it.")
    if dataset.job.state not in TERMINAL:
        commands.cancel(session, project, dataset.job.id)
    session.execute(delete(JobDatasetRecord).where(JobDatasetRecord.dataset_id == dataset_id))
    session.delete(dataset.record)
