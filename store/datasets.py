"""Datasets: an upload, the job that ingests it, and the table that comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Text, cast, delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from store import commands, ids, jobs, webhooks
from store.artifacts import Artifact
from store.errors import Conflict, NotFound
from store.records import ArtifactRecord, DatasetNameRecord, DatasetRecord, JobDatasetRecord, JobRecord
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
    tags: Sequence[str] = (),
) -> Dataset:
    """Write the dataset, the next version of its name, and the queued job that will ingest it."""
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
        filename=filename,
        job_id=job.id,
        source_sha256=source.sha256,
        options=dict(options),
        user_metadata=dict(user_metadata),
        tags=list(tags),
        **_next_version(session, project, name),
    )
    session.add(record)
    session.flush()
    return Dataset(record, job, source.bytes)


def _next_version(session: Session, project: str, name: str) -> dict[str, Any]:
    """Return what makes a dataset the next version of a name; concurrent writers of one name wait here."""
    named = (DatasetNameRecord.project == project, DatasetNameRecord.name == name)
    count = (
        update(DatasetNameRecord)
        .where(*named)
        .values(last_version=DatasetNameRecord.last_version + 1)
        .returning(DatasetNameRecord.last_version)
        .execution_options(synchronize_session=False)
    )
    version = session.scalar(count)
    if version is None:
        try:
            with session.begin_nested():
                session.add(DatasetNameRecord(project=project, name=name, last_version=1))
                session.flush()
            version = 1
        except IntegrityError:  # somebody else was the first meanwhile
            version = session.scalar(count)
    same = select(DatasetRecord.id).where(DatasetRecord.project == project, DatasetRecord.name == name)
    previous = session.scalar(same.order_by(DatasetRecord.version.desc()).limit(1))
    return {"name": name, "version": version, "previous_id": previous}


def change(
    session: Session,
    project: str,
    dataset_id: str,
    *,
    name: str | None = None,
    tags: Sequence[str] | None = None,
    user_metadata: Mapping[str, Any] | None = None,
) -> Dataset:
    """Change what a dataset is called and filed under; under another name it is that name's next version."""
    dataset = get(session, project, dataset_id)
    record = dataset.record
    if name is not None and name != record.name:
        for field, value in _next_version(session, project, name).items():
            setattr(record, field, value)
    if tags is not None:
        record.tags = list(tags)
    if user_metadata is not None:
        record.user_metadata = dict(user_metadata)
    session.flush()
    return dataset


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


def listing(
    session: Session,
    project: str,
    *,
    name: str | None = None,
    status: str | None = None,
    format: str | None = None,
    tag: str | None = None,
) -> Any:
    """Return the query for a project's datasets, to be paged by the caller."""
    query = _select().where(DatasetRecord.project == project)
    if name is not None:
        query = query.where(DatasetRecord.name == name)
    if format is not None:
        query = query.where(DatasetRecord.description["format"].as_string() == format)
    if tag is not None:
        # Tags hold nothing that JSON escapes, so a tag is there exactly when its quoted form is in the text.
        text = cast(DatasetRecord.tags, Text)
        query = query.where(func.length(func.replace(text, f'"{tag}"', "")) < func.length(text))
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
