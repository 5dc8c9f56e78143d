"""The tables. Times are seconds since the epoch by the database's clock; digests are sha256 in hexadecimal."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from store.database import database_now
from store.file_records import FileRecord as FileRecord  # noqa: PLC0414 - a table is known once imported
from store.gallery_records import GalleryRecord as GalleryRecord  # noqa: PLC0414 - a table is known once imported
from store.record import Record as Record  # noqa: PLC0414 - for whoever needs all tables
from store.record import Serial, created
from store.upload_records import UploadRecord as UploadRecord  # noqa: PLC0414 - a table is known once imported


class ApiKeyRecord(Record):
    """A key `id.secret`; only the secret's hash is kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project: Mapped[str] = mapped_column(String(64), index=True)
    name: Mapped[str]
    secret_sha256: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[list[Any]]
    created_at: Mapped[float] = created()
    expires_at: Mapped[float | None]
    revoked_at: Mapped[float | None]


class ArtifactRecord(Record):
    """A file addressed by its digest; whatever keeps a file points here, so that nothing in use is ever deleted."""

    __tablename__ = "artifacts"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[float] = created()
    # When the same content was last stored: nothing that was stored a moment ago is collected.
    touched_at: Mapped[float] = mapped_column(default=database_now(), index=True)


class DatasetRecord(Record):
    """An uploaded file and, once ready, its canonical Arrow table; a version of its name.

    Its status is not stored: it follows from the ingestion job, so the two cannot disagree.
    """

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project: Mapped[str] = mapped_column(String(64))
    name: Mapped[str]
    version: Mapped[int] = mapped_column(default=1)
    # The version before, as it was then; kept when that one is deleted, so no key.
    previous_id: Mapped[str | None] = mapped_column(String(40))
    filename: Mapped[str]
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    source_sha256: Mapped[str] = mapped_column(ForeignKey("artifacts.sha256"), index=True)
    table_sha256: Mapped[str | None] = mapped_column(ForeignKey("artifacts.sha256"))
    quarantine_sha256: Mapped[str | None] = mapped_column(ForeignKey("artifacts.sha256"))
    options: Mapped[dict[str, Any]]
    description: Mapped[dict[str, Any] | None]
    tags: Mapped[list[Any]] = mapped_column(default=list)
    user_metadata: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[float] = created()

    __table_args__ = (Index(None, "project", "id"), Index(None, "project", "name", "version", unique=True))


class DatasetNameRecord(Record):
    """How many versions a dataset's name has had; a number is not given twice, even when its dataset is deleted."""

    __tablename__ = "dataset_names"

    project: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    last_version: Mapped[int]


class JobRecord(Record):
    """One request and its life; the row is also its own outbox (`nudge_at`)."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(16))
    task: Mapped[str | None] = mapped_column(String(64))
    name: Mapped[str | None]
    state: Mapped[str] = mapped_column(String(16))
    status_reason: Mapped[str | None]
    spec: Mapped[dict[str, Any]]
    resolved: Mapped[dict[str, Any] | None]
    # Jobs, versions and checkpoints point at each other: two of the keys have to be added last.
    base_version_id: Mapped[str | None] = mapped_column(ForeignKey("versions.id", use_alter=True))
    start_checkpoint_id: Mapped[str | None] = mapped_column(ForeignKey("checkpoints.id", use_alter=True))
    # The job whose version is this one's base model, once it is there.
    base_job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    # The job that this one repeats, and the one in whose checkpoints it goes on.
    retry_of: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    resumes_job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    waiting_for: Mapped[int] = mapped_column(default=0)  # jobs it depends on that have not succeeded yet
    max_runtime_s: Mapped[float | None]
    priority: Mapped[int] = mapped_column(default=0)
    attempt: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    owner: Mapped[str | None]
    lease_until: Mapped[float | None]
    not_before: Mapped[float] = mapped_column(default=0.0)
    nudge_at: Mapped[float | None]
    cancel_mode: Mapped[str | None] = mapped_column(String(16))
    last_sequence: Mapped[int] = mapped_column(default=0)
    progress: Mapped[dict[str, Any] | None]
    metrics: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]
    warnings: Mapped[list[Any]] = mapped_column(default=list)
    user_metadata: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[float] = created()
    queued_at: Mapped[float] = created()
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    updated_at: Mapped[float] = created()

    __table_args__ = (
        Index(None, "project", "id"),
        # Partial: what a sweep costs must not grow with finished jobs.
        Index(
            "ix_jobs_due",
            "nudge_at",
            sqlite_where=text("nudge_at IS NOT NULL"),
            postgresql_where=text("nudge_at IS NOT NULL"),
        ),
        Index(
            "ix_jobs_leased",
            "lease_until",
            sqlite_where=text("lease_until IS NOT NULL"),
            postgresql_where=text("lease_until IS NOT NULL"),
        ),
        Index(
            "ix_jobs_queued",
            "priority",
            "id",
            sqlite_where=text("state = 'queued'"),
            postgresql_where=text("state = 'queued'"),
        ),
    )


class JobDependencyRecord(Record):
    """That a job waits until another has succeeded."""

    __tablename__ = "job_dependencies"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    depends_on: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True, index=True)


class WorkerRecord(Record):
    """A process that runs one job at a time, as it last said of itself; its job is the one with it as the owner."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    hostname: Mapped[str]
    pid: Mapped[int]
    queues: Mapped[list[Any]]
    device: Mapped[dict[str, Any]]
    started_at: Mapped[float] = created()
    seen_at: Mapped[float] = mapped_column(default=database_now(), index=True)


class JobDatasetRecord(Record):
    """Which dataset a job reads as what (train, validation, test): what is in use cannot be deleted."""

    __tablename__ = "job_datasets"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    role: Mapped[str] = mapped_column(String(16), primary_key=True)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"), index=True)


class AttemptRecord(Record):
    """One execution of a job."""

    __tablename__ = "attempts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[str]
    started_at: Mapped[float] = created()
    ended_at: Mapped[float | None]
    exit_reason: Mapped[str | None]
    environment: Mapped[dict[str, Any] | None]


class EventRecord(Record):
    """What happened to a job, numbered from 1, written in the transaction in which it happened."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    sequence: Mapped[int]
    type: Mapped[str] = mapped_column(String(32))
    message: Mapped[str]
    data: Mapped[dict[str, Any]]
    created_at: Mapped[float] = created()

    __table_args__ = (UniqueConstraint("job_id", "sequence"),)


class MetricRecord(Record):
    """Values measured at one step of one run of a job."""

    __tablename__ = "metrics"

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    attempt: Mapped[int]
    run: Mapped[str] = mapped_column(String(32))
    split: Mapped[str] = mapped_column(String(16))
    step: Mapped[int] = mapped_column(BigInteger)
    epoch: Mapped[float]
    # Not `values`: SQLAlchemy's rows have a method of that name.
    measured: Mapped[dict[str, Any]]
    created_at: Mapped[float] = created()

    __table_args__ = (Index(None, "job_id", "id"),)


class CheckpointRecord(Record):
    """A published checkpoint: from it training resumes or a model is built."""

    __tablename__ = "checkpoints"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    attempt: Mapped[int]
    run: Mapped[str] = mapped_column(String(32))
    step: Mapped[int] = mapped_column(BigInteger)
    finished: Mapped[bool] = mapped_column(default=False)
    # What the task's monitored metric was at the last evaluation, in the direction in which more is better.
    score: Mapped[float | None]
    metrics: Mapped[dict[str, Any]]
    created_at: Mapped[float] = created()

    __table_args__ = (Index(None, "job_id", "id"),)


class CheckpointFileRecord(Record):
    """One file of a checkpoint."""

    __tablename__ = "checkpoint_files"

    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoints.id"), primary_key=True)
    path: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(ForeignKey("artifacts.sha256"), index=True)


class ModelRecord(Record):
    """A name in the registry."""

    __tablename__ = "models"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(64))
    last_version: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[float] = created()

    __table_args__ = (UniqueConstraint("project", "name"),)


class VersionRecord(Record):
    """An immutable entry under a model's name."""

    __tablename__ = "versions"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    number: Mapped[int]
    kind: Mapped[str] = mapped_column(String(16))
    task: Mapped[str] = mapped_column(String(64))
    architecture: Mapped[str] = mapped_column(String(64))
    modality: Mapped[str] = mapped_column(String(16))
    metrics: Mapped[dict[str, Any]]
    lineage: Mapped[dict[str, Any]]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    created_at: Mapped[float] = created()

    __table_args__ = (UniqueConstraint("model_id", "number"),)


class VersionFileRecord(Record):
    """One file of a version's model directory."""

    __tablename__ = "version_files"

    version_id: Mapped[str] = mapped_column(ForeignKey("versions.id"), primary_key=True)
    path: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(ForeignKey("artifacts.sha256"), index=True)


class AliasRecord(Record):
    """A name that points to one version of a model."""

    __tablename__ = "aliases"

    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    version_id: Mapped[str] = mapped_column(ForeignKey("versions.id"), index=True)
    updated_at: Mapped[float] = created()


class WebhookRecord(Record):
    """An address that wants to be told of events; the secret is kept as it is, since it signs."""

    __tablename__ = "webhooks"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project: Mapped[str] = mapped_column(String(64), index=True)
    url: Mapped[str]
    events: Mapped[list[Any]]
    description: Mapped[str | None]
    secret: Mapped[str]
    previous_secret: Mapped[str | None]
    previous_until: Mapped[float | None]
    enabled: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[float] = created()


class DeliveryRecord(Record):
    """One event for one webhook; the row is its own queue (`next_at`)."""

    __tablename__ = "deliveries"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id"))
    event: Mapped[str] = mapped_column(String(64))
    data: Mapped[dict[str, Any]]
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[float | None]
    delivered_at: Mapped[float | None]
    last_status: Mapped[int | None]
    last_error: Mapped[str | None]
    created_at: Mapped[float] = created()

    __table_args__ = (
        Index(None, "webhook_id", "id"),
        Index(
            "ix_deliveries_due",
            "next_at",
            sqlite_where=text("next_at IS NOT NULL"),
            postgresql_where=text("next_at IS NOT NULL"),
        ),
    )


class IdempotencyRecord(Record):
    """The answer given to a POST, kept so that its repetition gets the same one."""

    __tablename__ = "idempotency_keys"

    project: Mapped[str] = mapped_column(String(64), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    resource_id: Mapped[str | None] = mapped_column(String(40))
    created_at: Mapped[float] = mapped_column(default=database_now(), index=True)
