"""The base model that a job names: a version that is there, or the one that another job will make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.errors import ApiError
from service.library import importing
from store import ids, jobs, models
from store.errors import NotFound, UnknownReference
from store.records import JobRecord, VersionRecord


@dataclass(frozen=True, slots=True)
class Base:
    """What is known of a base model, whether it is there or is yet to be trained."""

    ref: str
    modality: str
    architecture: str
    version_id: str | None = None
    job_id: str | None = None  # the job that is to make it

    @property
    def depends_on(self) -> tuple[str, ...]:
        """The jobs that have to succeed first."""
        return (self.job_id,) if self.job_id else ()


def find(session: Session, project: str, named: str | None, depends_on: Sequence[str]) -> Base | None:
    """Return the base model that a request names, or None when it names none.

    A job's id stands for the version that it makes; so does the model's name under which a job in `depends_on`
    will register it. Raises NotFound for a model that is not there, UnknownReference for such a job.
    """
    if named is None:
        return None
    if named.startswith(f"{ids.JOB}_"):
        return _of_job(session, project, named)
    for job_id in depends_on:
        maker = session.get(JobRecord, job_id)
        if maker is not None and maker.project == project and (maker.spec.get("output") or {}).get("model") == named:
            return _of_job(session, project, job_id)
    version = models.resolve(session, project, named)
    return _of_version(version.ref, version.record)


def _of_job(session: Session, project: str, job_id: str) -> Base:
    with importing:
        from learning.tasks import task_named

    try:
        maker = jobs.get(session, project, job_id)
    except NotFound as error:
        raise UnknownReference(error.message, hint=error.hint, param="base_model") from None
    version = session.scalar(select(VersionRecord).where(VersionRecord.job_id == job_id))
    if version is not None:
        return _of_version(f"{maker.result['ref'] if maker.result else job_id}", version)
    if maker.kind == jobs.IMPORT:
        raise ApiError(
            422,
            "incompatible_model",
            f"Job {job_id} is {maker.state}; what model it brings is not known before it has succeeded.",
            hint=f"Wait for it: GET /api/v1/jobs/{job_id}?wait=30.",
            param="base_model",
        )
    if maker.task is None or "architecture" not in (maker.resolved or {}):
        raise ApiError(
            422,
            "incompatible_model",
            f"Job {job_id} is of the kind {maker.kind}, which makes no model.",
            hint="Name a pretrain or finetune job.",
            param="base_model",
        )
    return Base(job_id, task_named(maker.task).modality, (maker.resolved or {})["architecture"], job_id=job_id)


def _of_version(ref: str, version: VersionRecord) -> Base:
    return Base(ref, version.modality, version.architecture, version_id=version.id)
