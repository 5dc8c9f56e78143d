"""From a claimed job's row to what its child needs: a specification and files laid out in the attempt's directory."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from store import checkpoints, datasets, files, gallery_moves, jobs, models
from store.errors import CorruptArtifact, NotFound
from store.gallery_records import SampleRecord
from store.records import CheckpointRecord, DatasetRecord, JobDatasetRecord, JobRecord
from store.settings import StoreSettings
from store.states import HELD
from store.token import Token
from store.transition import record_event
from workers.context import Context
from workers.protocol import Assignment

log = structlog.get_logger(__name__)


def log_path(settings: StoreSettings, token: Token) -> Path:
    """Return the file of what an attempt's child writes on its standard error."""
    return settings.job_logs_dir / token.job_id / f"attempt-{token.attempt}.log"


def remove_leftovers(context: Context) -> None:
    """Delete the directories of attempts that nobody runs any more: a killed worker deletes nothing."""
    for directory in context.settings.work_dir.glob("*/attempt-*"):
        with context.database.read() as session:
            job = session.get(JobRecord, directory.parent.name)
        if job is None or job.state not in HELD or directory.name != f"attempt-{job.attempt}":
            remove(directory)


def remove(directory: Path) -> None:
    """Delete an attempt's directory, never a later attempt's: the caller may be a supervisor that was left behind."""
    shutil.rmtree(directory, ignore_errors=True)
    with suppress(OSError):  # not empty: another attempt's is beside it
        directory.parent.rmdir()


def prepare(context: Context, token: Token, directory: Path) -> Assignment:
    """Make the attempt's directory and return its assignment."""
    for number in range(1, token.attempt + 1):  # a worker that was killed has deleted nothing
        shutil.rmtree(directory.with_name(f"attempt-{number}"), ignore_errors=True)
    directory.mkdir(mode=0o700, parents=True)
    with context.database.read() as session:
        job = session.get_one(JobRecord, token.job_id)
        if job.kind == jobs.INGEST:
            return _ingestion(context, session, token, job, directory)
        if job.kind == jobs.IMPORT:
            return _import(context, session, token, job, directory)
        if job.kind == jobs.PREDICT:
            return _prediction(context, session, token, job, directory)
        if job.kind == jobs.MOVE:
            return _move(context, session, token, job, directory)
        return _training(context, session, token, job, directory)


def _ingestion(context: Context, session: Session, token: Token, job: JobRecord, directory: Path) -> Assignment:
    dataset = datasets.of_job(session, job.id)
    source = context.artifacts.path(dataset.record.source_sha256)
    return Assignment(
        job_id=job.id,
        attempt=token.attempt,
        kind=job.kind,
        directory=str(directory),
        spec={"filename": dataset.record.filename, **dataset.record.options},
        files={"source": str(source)},
    )


def _import(context: Context, session: Session, token: Token, job: JobRecord, directory: Path) -> Assignment:
    if job.spec["file_id"] is not None:
        file = files.get(session, job.project, job.spec["file_id"])
        given = {"source": str(context.artifacts.path(file.sha256))}
    else:
        root = context.settings.import_dir
        if root is None:
            raise NotFound(
                "This worker has no folder of models to import.", hint="Set ANNEAL_IMPORT_DIR for the workers too."
            )
        given = {"source": str(root / job.spec["path"]), "root": str(root)}
    return Assignment(
        job_id=job.id,
        attempt=token.attempt,
        kind=job.kind,
        directory=str(directory),
        spec={"filename": job.spec["filename"]},
        files=given,
    )


def _training(context: Context, session: Session, token: Token, job: JobRecord, directory: Path) -> Assignment:
    base, start = None, None
    if job.base_version_id is not None:
        base = directory / "base"
        context.artifacts.copy_to(models.loadable(session, job.base_version_id), base)
    if job.start_checkpoint_id is not None:
        start = directory / "start"
        context.artifacts.copy_to(checkpoints.files(session, job.start_checkpoint_id), start)
    return Assignment(
        job_id=job.id,
        attempt=token.attempt,
        kind=job.kind,
        directory=str(directory),
        spec=job.resolved or {},
        files=_tables(context, session, job.id),
        base=str(base) if base else None,
        start=str(start) if start else None,
        resume=_newest_checkpoints(context, session, job, directory),
        max_runtime_s=job.max_runtime_s,
    )


def _prediction(context: Context, session: Session, token: Token, job: JobRecord, directory: Path) -> Assignment:
    spec = job.resolved or {}
    found = models.loadable(session, models.by_id(session, spec["version_id"]).record.id)
    context.artifacts.copy_to(found, directory / "base")
    if "inputs_file" in spec:
        inputs = files.get(session, job.project, spec["inputs_file"])
        given = {"inputs": str(context.artifacts.path(inputs.sha256))}
    else:
        given = _tables(context, session, job.id)
    return Assignment(
        job_id=job.id,
        attempt=token.attempt,
        kind=job.kind,
        directory=str(directory),
        spec=spec,
        files=given,
        base=str(directory / "base"),
        resume=_newest_checkpoints(context, session, job, directory),
    )


def _move(context: Context, session: Session, token: Token, job: JobRecord, directory: Path) -> Assignment:
    spec = job.resolved or {}
    found = models.loadable(session, models.by_id(session, spec["version_id"]).record.id)
    context.artifacts.copy_to(found, directory / "base")
    left, embedded = gallery_moves.unmoved(session, job)
    samples = directory / "samples.json"
    given = [
        {"sample": one.sample_id, "subject": one.subject_id, "path": str(path)}
        for one in left
        if (path := _file_of(context, one)) is not None
    ]
    samples.write_text(json.dumps(given))
    return Assignment(
        job_id=job.id,
        attempt=token.attempt,
        kind=job.kind,
        directory=str(directory),
        spec={**spec, "embedded": embedded},
        files={"samples": str(samples)},
        base=str(directory / "base"),
    )


def _file_of(context: Context, one: gallery_moves.Unmoved) -> Path | None:
    """Return a sample's file; None when it went with its subject just now."""
    try:
        return context.artifacts.path(one.sha256)
    except NotFound:
        with context.database.read() as session:
            if session.get(SampleRecord, one.sample_id) is None:
                return None
        raise


def _tables(context: Context, session: Session, job_id: str) -> dict[str, str]:
    query = (
        select(JobDatasetRecord.role, DatasetRecord.id, DatasetRecord.table_sha256)
        .join(DatasetRecord, JobDatasetRecord.dataset_id == DatasetRecord.id)
        .where(JobDatasetRecord.job_id == job_id)
    )
    tables = {}
    for role, dataset_id, sha256 in session.execute(query):
        if sha256 is None:
            raise NotFound(f"Dataset {dataset_id} is not ready.", hint="Wait until its status is ready.")
        # Read in place: the file is mapped, never written.
        tables[role] = str(context.artifacts.path(sha256))
    return tables


def _newest_checkpoints(context: Context, session: Session, job: JobRecord, directory: Path) -> dict[str, str]:
    """Lay out the newest whole checkpoint of each run; a damaged one is passed over for the one before.

    A retried job goes on in the checkpoints of the one it repeats until it has its own.
    """
    candidates: list[CheckpointRecord] = []
    source: JobRecord | None = job
    while source is not None:
        candidates += reversed(checkpoints.of_job(session, source.id))
        source = session.get(JobRecord, source.resumes_job_id) if source.resumes_job_id else None
    found: dict[str, str] = {}
    for checkpoint in candidates:
        if checkpoint.run in found:
            continue
        target = directory / "resume" / checkpoint.run
        try:
            context.artifacts.copy_to(checkpoints.files(session, checkpoint.id), target)
        except (CorruptArtifact, NotFound) as error:
            log.warning("checkpoint is damaged", checkpoint=checkpoint.id, error=error.message)
            shutil.rmtree(target, ignore_errors=True)
            _tell(context, job.id, checkpoint.id, error.message)
            continue
        found[checkpoint.run] = str(target)
    return found


def _tell(context: Context, job_id: str, checkpoint_id: str, reason: str) -> None:
    # A transaction of its own: the caller's only reads.
    with context.database.write() as session:
        message = f"Checkpoint {checkpoint_id} is damaged and passed over: {reason}"
        record_event(session, job_id, "checkpoint_damaged", message, data={"checkpoint_id": checkpoint_id})
