"""What a finished attempt leaves behind: files stored first, then one transaction that makes them count."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from store import attempts, checkpoints, datasets, files, gallery_moves, jobs, lineage, models
from store.artifacts import Artifact
from store.records import JobRecord
from store.states import State
from store.token import Token
from workers.context import Context


def publish(context: Context, token: Token, result: Mapping[str, Any]) -> None:
    """Store the result's files and end the job; Fenced, with nothing written, when it is ours no more.

    Moved when a gallery has files that no embedding was made of, since they were enrolled meanwhile.
    """
    stored = {name: context.artifacts.add(Path(path)) for name, path in result["files"].items()}
    with context.database.write() as session:
        job = session.get_one(JobRecord, token.job_id)
        for artifact in stored.values():
            context.artifacts.register(session, artifact)
        if job.kind == jobs.INGEST:
            attempts.complete(session, token, {"dataset": job.spec["dataset_id"]})
            table, aside = stored["table"], stored.get("quarantine")
            datasets.set_ingested(session, job.spec["dataset_id"], table, result["description"], aside)
            return
        if job.kind == jobs.PREDICT:
            _keep_output(session, token, job, result, stored["output"])
            return
        if job.kind == jobs.MOVE:
            attempts.complete(session, token, {})
            job.result = gallery_moves.finish(session, job)
            return
        digests = {path: artifact.sha256 for path, artifact in stored.items()}
        # First: it raises Fenced unless the job is still ours to complete, and then no version is made.
        attempts.complete(session, token, {}, result["warnings"])
        job.result = (
            _imported(session, job, result, digests)
            if job.kind == jobs.IMPORT
            else _register(session, job, result, digests)
        )


def _keep_output(session: Session, token: Token, job: JobRecord, result: Mapping[str, Any], output: Artifact) -> None:
    """End a prediction job: its file is kept, and the segments that it was made of are not."""
    counts = {name: result[name] for name in ("rows", "errors")}
    attempts.complete(session, token, {**counts, "bytes": output.bytes, "sha256": output.sha256}, result["warnings"])
    filename = f"{job.name or job.id}.{result['format']}"
    files.add(session, project=job.project, filename=filename, purpose=files.OUTPUT, artifact=output, job_id=job.id)
    checkpoints.forget_all(session, job.id)


def _register(
    session: Session, job: JobRecord, result: Mapping[str, Any], digests: Mapping[str, str]
) -> dict[str, Any]:
    output = job.spec.get("output") or {}
    version = models.register(
        session,
        job.project,
        job.id,
        models.NewVersion(
            model=output["model"],
            kind="base" if job.kind == "pretrain" else "task",
            task=result["task"],
            architecture=result["architecture"],
            modality=result["modality"],
            metrics=result["metrics"],
            lineage=lineage.of_job(session, job),
            files=digests,
            aliases=tuple(output.get("aliases") or ()),
        ),
    )
    jobs.give_base_version(session, job.id, version.record.id)
    newest = checkpoints.of_job(session, job.id)
    return {
        "model": version.model.name,
        "version": version.record.number,
        "ref": version.ref,
        "checkpoint_id": next((c.id for c in reversed(newest) if c.run == result["run"]), None),
        "metrics": result["metrics"],
        "comparison": result["comparison"],
    }


def _imported(
    session: Session, job: JobRecord, result: Mapping[str, Any], digests: Mapping[str, str]
) -> dict[str, Any]:
    """Register the model that was imported, as a base model or, where it was made here, as what it was."""
    output, job.task = job.spec["output"], result["task"]
    source = {"model_type": result["model_type"], **{name: job.spec[name] for name in ("filename", "path", "sha256")}}
    new = models.NewVersion(
        model=output["model"],
        kind=result["version_kind"],
        task=result["task"],
        architecture=result["architecture"],
        modality=result["modality"],
        metrics={},
        lineage={**lineage.of_job(session, job), "imported_from": source},
        files=digests,
        aliases=tuple(output["aliases"]),
    )
    version = models.register(session, job.project, job.id, new)
    return {"model": version.model.name, "version": version.record.number, "ref": version.ref, **source}


def refuse(session: Session, token: Token, error: Mapping[str, Any]) -> None:
    """End the job as failed by its caller's mistake; an ingestion keeps what is known of the file and wrong with it."""
    job = session.get_one(JobRecord, token.job_id)
    details = dict(error)
    description = details.pop("description", {})
    ended = attempts.fail(session, token, details)
    # Cancelled wins over failed, and a cancelled ingestion's dataset may be deleted already.
    if ended is not None and ended.state == State.FAILED and job.kind == jobs.INGEST:
        datasets.set_invalid(session, job.spec["dataset_id"], description)
