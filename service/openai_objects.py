"""What the OpenAI API calls things, and how ours are shown as them. Times are seconds since the epoch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel
from sqlalchemy.orm import Session

from store import files
from store.datasets import INVALID, READY, Dataset
from store.records import ArtifactRecord, CheckpointRecord, EventRecord, FileRecord, JobRecord
from store.states import State

FINE_TUNE = "fine-tune"
_FILE_STATUS = {READY: "processed", INVALID: "error"}
_LEVELS: dict[str, Literal["info", "warn", "error"]] = {"failed": "error", "checkpoint_damaged": "warn"}


class FileObject(BaseModel):
    """A file: a dataset, or what a batch reads or has written."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: str
    status_details: str | None = None

    @classmethod
    def of_dataset(cls, dataset: Dataset) -> FileObject:
        """Return a dataset as a file to learn from."""
        record = dataset.record
        return cls(
            id=record.id,
            bytes=dataset.bytes,
            created_at=int(record.created_at),
            filename=record.filename,
            purpose=FINE_TUNE,
            status=_FILE_STATUS.get(dataset.status, "uploaded"),
            status_details=(dataset.job.error or {}).get("message"),
        )

    @classmethod
    def of_file(cls, session: Session, file: FileRecord) -> FileObject:
        """Return a file that is no dataset."""
        return cls(
            id=file.id,
            bytes=session.get_one(ArtifactRecord, file.sha256).bytes,
            created_at=int(file.created_at),
            filename=file.filename,
            purpose=file.purpose,
            status="processed",
        )


class Deleted(BaseModel):
    """What is no more."""

    id: str
    object: str
    deleted: Literal[True] = True


class FineTuningJob(BaseModel):
    """A training job; fields beyond the protocol's own are not shown."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    estimated_finish: int | None
    model: str
    fine_tuned_model: str | None
    organization_id: str
    status: str
    training_file: str
    validation_file: str | None
    result_files: list[str] = []
    trained_tokens: int | None = None
    hyperparameters: dict[str, Any]
    method: dict[str, Any]
    seed: int
    error: dict[str, Any] | None
    integrations: list[Any] = []
    metadata: dict[str, Any]

    @classmethod
    def of(cls, job: JobRecord) -> FineTuningJob:
        """Return a job as one."""
        spec, data = job.spec, job.spec["dataset"]
        parts = {"train": data} if isinstance(data, str) else data
        numbers = _hyperparameters(job)
        eta_s = (job.progress or {}).get("eta_seconds") if job.state == State.RUNNING else None
        return cls(
            id=job.id,
            created_at=int(job.created_at),
            finished_at=_whole(job.finished_at),
            estimated_finish=int(job.updated_at + eta_s) if eta_s is not None else None,
            model=spec.get("base_model") or (job.resolved or {}).get("architecture") or "",
            fine_tuned_model=(job.result or {}).get("ref"),
            organization_id=job.project,
            status=job_status(job),
            training_file=parts["train"],
            validation_file=parts.get("validation"),
            hyperparameters=numbers,
            method={"type": "supervised", "supervised": {"hyperparameters": numbers}},
            seed=spec.get("seed", 0),
            error=_error(job),
            metadata=job.user_metadata,
        )


def _hyperparameters(job: JobRecord) -> dict[str, Any]:
    numbers = (job.resolved or {}).get("hyperparameters", {})
    return {
        "n_epochs": numbers.get("epochs", "auto"),
        "batch_size": numbers.get("batch_size", "auto"),
        "learning_rate_multiplier": "auto",
    }


def job_status(job: JobRecord) -> str:
    """Return a job's state by the protocol's name, or by ours where it has none."""
    names = {State.PAUSING: State.PAUSED, State.CANCELLING: State.RUNNING}
    return names.get(State(job.state), State(job.state)).value


def _error(job: JobRecord) -> dict[str, Any] | None:
    return job.error and {name: job.error.get(name) for name in ("code", "message", "param")}


class JobEvent(BaseModel):
    """Something that happened to a job."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    data: dict[str, Any]
    type: Literal["message", "metrics"] = "message"

    @classmethod
    def of(cls, event: EventRecord) -> JobEvent:
        """Return an event."""
        return cls(
            id=f"evt_{event.id}",
            created_at=int(event.created_at),
            level=_LEVELS.get(event.type, "info"),
            message=event.message,
            data=event.data,
        )


class JobCheckpoint(BaseModel):
    """A checkpoint; what stands for its model is what `promote` takes."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    step_number: int
    metrics: dict[str, float | None]

    @classmethod
    def of(cls, checkpoint: CheckpointRecord) -> JobCheckpoint:
        """Return a checkpoint."""
        losses = {split: values.get("loss") for split, values in checkpoint.metrics.items()}
        return cls(
            id=checkpoint.id,
            created_at=int(checkpoint.created_at),
            fine_tuned_model_checkpoint=checkpoint.id,
            fine_tuning_job_id=checkpoint.job_id,
            step_number=checkpoint.step,
            metrics={
                "step": checkpoint.step,
                "train_loss": losses.get("train"),
                "full_valid_loss": losses.get("validation"),
            },
        )


_BATCH_STATUS = {
    State.QUEUED: "validating",
    State.RUNNING: "in_progress",
    State.PAUSING: "in_progress",
    State.PAUSED: "in_progress",
    State.SUCCEEDED: "completed",
    State.FAILED: "failed",
    State.CANCELLING: "cancelling",
    State.CANCELLED: "cancelled",
}


class Batch(BaseModel):
    """Many requests of one kind, answered by a job."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str
    input_file_id: str
    completion_window: str
    status: str
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: dict[str, Any] | None
    created_at: int
    in_progress_at: int | None
    completed_at: int | None
    failed_at: int | None
    cancelled_at: int | None
    request_counts: dict[str, int]
    metadata: dict[str, Any]

    @classmethod
    def of(cls, session: Session, job: JobRecord) -> Batch:
        """Return a job as one."""
        ended, spec = _whole(job.finished_at), job.spec
        output, errors = (files.of_job(session, job.id, purpose) for purpose in ("batch_output", "batch_errors"))
        error = _error(job)
        return cls(
            id=job.id,
            endpoint=spec["endpoint"],
            model=(job.resolved or {})["ref"],
            input_file_id=spec["input_file_id"],
            completion_window=spec["completion_window"],
            status=_BATCH_STATUS[State(job.state)],
            output_file_id=output and output.id,
            error_file_id=errors and errors.id,
            errors={"object": "list", "data": [error]} if error else None,
            created_at=int(job.created_at),
            in_progress_at=_whole(job.started_at),
            completed_at=ended if job.state == State.SUCCEEDED else None,
            failed_at=ended if job.state == State.FAILED else None,
            cancelled_at=ended if job.state == State.CANCELLED else None,
            request_counts=(job.result or {}).get("counts") or {"total": spec["requests"], "completed": 0, "failed": 0},
            metadata=job.user_metadata,
        )


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)
