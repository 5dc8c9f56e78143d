"""What a caller tells a job to do: pause, resume, cancel, retry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, case, select
from sqlalchemy.orm import Session

from store import checkpoints, gallery_moves, jobs
from store.database import database_now
from store.errors import Conflict, IllegalTransition
from store.records import JobDatasetRecord, JobRecord
from store.states import TERMINAL, CancelMode, State
from store.transition import Transition

_CANCELLED = Transition((State.QUEUED, State.PAUSED), State.CANCELLED, finished_at=database_now(), nudge_at=None)
_CANCELLING = Transition((State.RUNNING, State.PAUSING), State.CANCELLING, cancel_mode=bindparam("mode"))
_PAUSED = Transition((State.QUEUED,), State.PAUSED, nudge_at=None)
_PAUSING = Transition((State.RUNNING,), State.PAUSING)
_RESUMED = Transition(
    (State.PAUSED,),
    State.QUEUED,
    queued_at=database_now(),
    nudge_at=case((JobRecord.waiting_for == 0, database_now())),
    not_before=0.0,
)
_RUNNING_ON = Transition((State.PAUSING,), State.RUNNING)


def _locked(session: Session, project: str, job_id: str) -> JobRecord:
    """Return the job as it is now and stays until the transaction ends: a command tries one state after the other."""
    jobs.get(session, project, job_id)
    return session.scalars(
        select(JobRecord).where(JobRecord.id == job_id).with_for_update().execution_options(populate_existing=True)
    ).one()


def cancel(session: Session, project: str, job_id: str, mode: CancelMode = CancelMode.KEEP_BEST) -> JobRecord:
    """Cancel a job: at once while nobody runs it, else by asking its worker. Cancelling twice is harmless."""
    job = _locked(session, project, job_id)
    if job.state in (State.CANCELLED, State.CANCELLING):
        return job
    bound = {"job_id": job_id}
    changed = _CANCELLED.take(session, bound, "Job cancelled before it ran.") or _CANCELLING.take(
        session, {**bound, "mode": mode}, "Cancellation requested.", {"mode": mode}
    )
    if changed is not None and changed.state == State.CANCELLED:
        checkpoints.after_cancel(session, job_id, mode)
    return changed or _refuse(job, "cancelled")


def pause(session: Session, project: str, job_id: str) -> JobRecord:
    """Pause a job at its next checkpoint, or keep it from starting. Pausing twice is harmless."""
    job = _locked(session, project, job_id)
    if job.state in (State.PAUSED, State.PAUSING):
        return job
    bound = {"job_id": job_id}
    changed = _PAUSED.take(session, bound, "Job paused before it ran.") or _PAUSING.take(
        session, bound, "Pause requested."
    )
    return changed or _refuse(job, "paused")


def resume(session: Session, project: str, job_id: str, resolved: Mapping[str, Any] | None = None) -> JobRecord:
    """Queue a paused job again; while it is still pausing the pause is taken back.

    `resolved` replaces the specification it goes on with, which only a job that stands still allows.
    """
    job = _locked(session, project, job_id)
    if resolved is None and job.state in (State.QUEUED, State.RUNNING):
        return job
    if resolved is not None and job.state != State.PAUSED:
        raise IllegalTransition(
            f"Job {job_id} is {job.state}; its settings can change only while it is paused.",
            hint="Pause it first, wait until it is paused, then resume it with the changes.",
        )
    bound = {"job_id": job_id}
    if resolved is None:
        changed = _RESUMED.take(session, bound, "Job resumed.") or _RUNNING_ON.take(session, bound, "Pause taken back.")
    else:
        changes = {"changed": _changes(job.resolved or {}, resolved)}
        job.resolved = dict(resolved)  # the row is locked, and the job stands still
        changed = _RESUMED.take(session, bound, "Job resumed with other settings.", changes)
    return changed or _refuse(job, "resumed")


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return what differs, by dotted name."""
    found: dict[str, Any] = {}
    for name, value in after.items():
        if isinstance(value, Mapping) and isinstance(before.get(name), Mapping):
            found |= {f"{name}.{inner}": entry for inner, entry in _changes(before[name], value).items()}
        elif value != before.get(name):
            found[name] = value
    return found


def retry(session: Session, project: str, job_id: str, *, from_checkpoint: bool) -> JobRecord:
    """Submit a failed or cancelled job again, as a new job, from its start or from its last whole checkpoint."""
    job = jobs.get(session, project, job_id)
    if job.state not in (State.FAILED, State.CANCELLED):
        raise IllegalTransition(
            f"Job {job_id} is {job.state}; only failed and cancelled jobs are retried.",
            hint="Run a succeeded one again with POST .../clone." if job.state == State.SUCCEEDED else None,
        )
    if job.kind == jobs.INGEST:
        raise IllegalTransition(f"Job {job_id} reads an upload.", hint="Upload the file again.")
    if job.kind == jobs.IMPORT:
        raise IllegalTransition(f"Job {job_id} reads a model.", hint="Send the model again with POST /api/v1/models.")
    query = select(JobDatasetRecord.role, JobDatasetRecord.dataset_id).where(JobDatasetRecord.job_id == job_id)
    datasets = {role: dataset_id for role, dataset_id in session.execute(query)}
    asked = job.spec.get("dataset") or {}
    gone = {role for role, asked_id in asked.items() if asked_id} if isinstance(asked, dict) else {"train"}
    if gone := gone - datasets.keys():
        what = " and ".join(sorted(gone))
        raise Conflict(f"What job {job_id} read as {what} was deleted.", hint="Upload it again, and submit a new job.")
    made = jobs.submit(
        session,
        jobs.NewJob(
            kind=job.kind,
            project=project,
            spec=job.spec,
            task=job.task,
            name=job.name,
            resolved=job.resolved,
            datasets=datasets,
            base_version_id=job.base_version_id,
            start_checkpoint_id=job.start_checkpoint_id,
            depends_on=tuple(jobs.dependencies(session, job_id)),
            base_job_id=job.base_job_id,
            retry_of=job_id,
            resumes_job_id=job_id if from_checkpoint else None,
            max_runtime_s=job.max_runtime_s,
            priority=job.priority,
            user_metadata=job.user_metadata,
        ),
    )
    if made.kind == jobs.MOVE:
        gallery_moves.begin(session, made)
    return made


def _refuse(job: JobRecord, verb: str) -> JobRecord:
    hints = {State.CANCELLING: "Wait until it is cancelled, then submit a new job with the same body."}
    raise IllegalTransition(
        f"Job {job.id} is {job.state} and cannot be {verb}.",
        hint="Submit a new job with the same body." if job.state in TERMINAL else hints.get(State(job.state)),
    )
