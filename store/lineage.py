"""Where a version comes from."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from store import datasets, jobs
from store.records import JobRecord


def of_job(session: Session, job: JobRecord) -> dict[str, Any]:
    """Return a job's base model, data, seed, and the environment of its last attempt."""
    last = jobs.attempts(session, job.id)[-1]
    return {
        "job_id": job.id,
        "base_model": job.spec.get("base_model"),
        "base_version_id": job.base_version_id,
        "continued_from": job.start_checkpoint_id,
        "datasets": datasets.lineage(session, job.id),
        "environment": last.environment,
        "seed": job.spec.get("seed", 0),
    }
