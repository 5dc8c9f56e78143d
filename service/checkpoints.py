"""A job's checkpoints: what there is, and a model out of one, also while the job still runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from learning.extraction import STATE_FILE, extract, has_group
from service.dependencies import IdempotencyKey, JobsKey, Listing
from service.errors import ApiError
from service.job_requests import ModelName, Request
from service.library import CONFIG_FILE, importing, read_design
from service.models import VersionView
from service.state import Opened
from service.times import rfc3339
from store import checkpoints, idempotency, jobs, lineage, models
from store.artifacts import Artifact, ArtifactStore
from store.errors import CorruptArtifact, IllegalTransition
from store.models import NewVersion
from store.records import CheckpointRecord, JobRecord

if TYPE_CHECKING:
    from learning.model import Design

router = APIRouter(prefix="/jobs/{job_id}/checkpoints", tags=["jobs"])

WEIGHTS_FILE = "model.safetensors"


class CheckpointView(BaseModel):
    """A published checkpoint; `score` is the monitored validation metric, more is better."""

    id: str
    object: Literal["checkpoint"] = "checkpoint"
    job_id: str
    run: str
    step: int
    finished: bool
    attempt: int
    score: float | None
    is_best: bool
    metrics: dict[str, Any]
    bytes: int
    files: list[dict[str, Any]]
    created_at: str | None

    @classmethod
    def of(cls, checkpoint: CheckpointRecord, files: dict[str, Artifact], *, is_best: bool) -> CheckpointView:
        """Return the view of a checkpoint."""
        return cls(
            id=checkpoint.id,
            job_id=checkpoint.job_id,
            run=checkpoint.run,
            step=checkpoint.step,
            finished=checkpoint.finished,
            attempt=checkpoint.attempt,
            score=checkpoint.score,
            is_best=is_best,
            metrics=checkpoint.metrics,
            bytes=sum(file.bytes for file in files.values()),
            files=[{"path": path, "bytes": file.bytes, "sha256": file.sha256} for path, file in files.items()],
            created_at=rfc3339(checkpoint.created_at),
        )


@router.get("")
def job_checkpoints(job_id: str, state: Opened, caller: JobsKey) -> Listing[CheckpointView]:
    """Return a job's published checkpoints, oldest first; of each run the one with the best score is marked."""
    with state.database.read() as session:
        jobs.get(session, caller.project, job_id)
        found = checkpoints.of_job(session, job_id)
        best = checkpoints.best(found)
        return Listing[CheckpointView].of(
            [
                CheckpointView.of(entry, checkpoints.files(session, entry.id), is_best=entry.id in best)
                for entry in found
            ]
        )


class Promotion(Request):
    """Where a checkpoint's model is registered, and which of its weights it gets."""

    model: ModelName | None = Field(None, description="Name in the registry; default: the job's output.")
    aliases: list[ModelName] = Field(default_factory=list, max_length=16, description="Aliases to move to it.")
    weights: Literal["best", "last"] = Field(
        "best", description="The best by the validation score up to the checkpoint, or those of its step."
    )


@router.post("/{checkpoint_id}/promote", status_code=201)
def promote_checkpoint(
    job_id: str,
    checkpoint_id: str,
    state: Opened,
    caller: JobsKey,
    response: Response,
    asked: Annotated[Promotion, Field(default_factory=Promotion)],
    key: IdempotencyKey = None,
) -> VersionView:
    """Register a model version from a checkpoint; the job goes on, whatever state it is in."""
    with state.database.read() as session:
        job = jobs.get(session, caller.project, job_id)
        if job.kind == jobs.PREDICT:
            raise IllegalTransition(f"Job {job_id} only predicts; no model can be made of what it keeps.")
        checkpoints.get(session, job_id, checkpoint_id)
        files = checkpoints.files(session, checkpoint_id)
    design = read_design(state.artifacts, files)
    made = _stored(state.artifacts, checkpoint_id, files, asked.weights, design)
    fingerprint = idempotency.fingerprint("promote", job_id, checkpoint_id, asked.model_dump_json())
    with state.database.write() as session:
        earlier = idempotency.begin(session, caller.project, key, fingerprint) if key else None
        if earlier is not None:
            version = models.by_id(session, earlier.resource_id or "")
        else:
            # Once more: the retention may have forgotten it meanwhile.
            checkpoint = checkpoints.get(session, job_id, checkpoint_id)
            for artifact in made.values():
                state.artifacts.register(session, artifact)
            new = _new_version(session, job, checkpoint, asked, design)
            digests = {name: artifact.sha256 for name, artifact in made.items()}
            version = models.register(session, caller.project, job_id, replace(new, files=digests))
            if key:
                idempotency.finish(session, caller.project, key, version.record.id)
        session.flush()
        view = VersionView.of(session, version)
    response.headers["Location"] = view.urls["self"]
    return view


def _new_version(
    session: Session, job: JobRecord, checkpoint: CheckpointRecord, asked: Promotion, design: Design
) -> NewVersion:
    return NewVersion(
        model=asked.model or job.spec["output"]["model"],
        kind="base" if job.kind == "pretrain" else "task",
        task=design.task.name,
        architecture=design.architecture.name,
        modality=design.modality.name,
        metrics=checkpoint.metrics,
        lineage={
            **lineage.of_job(session, job),
            "checkpoint_id": checkpoint.id,
            "run": checkpoint.run,
            "step": checkpoint.step,
            "weights": asked.weights,
        },
        files={},
        aliases=tuple(asked.aliases),
    )


def _stored(
    store: ArtifactStore, checkpoint_id: str, files: Mapping[str, Artifact], wanted: str, design: Design
) -> dict[str, Artifact]:
    """Return the files of the model as stored ones: all those that a job's own result has."""
    try:
        source = store.verify(files[STATE_FILE].sha256)
    except CorruptArtifact as error:
        raise ApiError(
            409,
            "corrupt_checkpoint",
            f"Checkpoint {checkpoint_id} is damaged: {error.message}",
            hint="Promote an earlier one.",
        ) from None
    # Until something was measured, the weights of the step, or their average, are the best there are.
    groups = ("best_weights", "average") if wanted == "best" else ("average",)
    group = next((group for group in groups if has_group(source, group)), "weights")
    content = extract(source, group, None if design.low_rank else design.names_in_files())
    config = files[CONFIG_FILE]
    if design.low_rank is not None:
        with importing:
            from learning.model import merged_file

        plain, content = merged_file(design, b"".join(content))
        config = store.write([json.dumps(plain.to_dict()).encode()])
    return {
        CONFIG_FILE: config,
        WEIGHTS_FILE: store.write(content),
        **{name: store.write([text.encode()]) for name, text in design.files().items()},
    }
