"""A gallery's move to another version: a job, since it reads and embeds every file that is enrolled."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import Field
from sqlalchemy.orm import Session

from service import gallery_thresholds as thresholds
from service.dependencies import IdempotencyKey, ModelsKey
from service.errors import ApiError
from service.gallery_embedding import require_comparable
from service.gallery_thresholds import AskedThreshold, FalseAcceptRate
from service.job_requests import RunOptions
from service.job_views import JobView
from service.state import Opened
from service.submission import submitted
from store import galleries, gallery_moves, jobs, models
from store.jobs import NewJob
from store.models import Version
from store.records import GalleryRecord, JobRecord

router = APIRouter(prefix="/galleries/{gallery}", tags=["galleries"])


class GalleryMove(RunOptions):
    """The version by which a gallery is to know its subjects; its threshold is chosen anew."""

    model: str = Field(max_length=200, description="`name`, `name:3` or `name@alias`: the version that it means now.")
    threshold: AskedThreshold | None = Field(
        None,
        description="From then on. Default: chosen as before; auto in place of a number, which was for other scores.",
    )
    false_accept_rate: FalseAcceptRate | None = None


@router.post("/move", status_code=202)
def move_gallery(
    gallery: str,
    asked: GalleryMove,
    state: Opened,
    caller: ModelsKey,
    response: Response,
    key: IdempotencyKey = None,
) -> JobView:
    """Queue a job that embeds all that is enrolled by another version.

    Until all of it is, the gallery answers by the version before, as it does if the job fails or is cancelled.
    """

    def submit(session: Session) -> JobRecord:
        record = galleries.get(session, caller.project, gallery)
        version = models.resolve(session, caller.project, asked.model)
        require_comparable(state, session, version)
        _require_same_modality(record, galleries.version_of(session, record), version)
        return gallery_moves.submit(session, _new_job(caller.project, record, version, asked))

    return submitted(state, caller, response, key, ("move", gallery, asked.model_dump_json()), submit)


def _new_job(project: str, record: GalleryRecord, version: Version, asked: GalleryMove) -> NewJob:
    before = record.threshold_from
    if before["source"] == galleries.GIVEN:  # for the scores of the version before
        before = thresholds.asked_from(galleries.AUTO, before["false_accept_rate"])
    wanted = None
    if asked.threshold is not None or asked.false_accept_rate is not None:
        wanted = thresholds.changed(before, asked.threshold, asked.false_accept_rate)
    thresholds.require_possible(wanted or before, version.record.metrics)
    resolved = {
        "gallery": record.name,
        "gallery_id": record.id,
        "ref": version.ref,
        "version_id": version.record.id,
        "threshold_from": wanted,
        "threads": asked.threads,
        "checkpoint_every_s": asked.checkpoint_every_s,
    }
    return NewJob(
        kind=jobs.MOVE,
        project=project,
        task=version.record.task,
        name=asked.name,
        spec={"gallery": record.name, **asked.model_dump(mode="json")},
        resolved=resolved,
        priority=asked.priority,
        user_metadata=asked.metadata,
    )


def _require_same_modality(gallery: GalleryRecord, before: Version, after: Version) -> None:
    old, new = before.record.modality, after.record.modality
    if old != new:
        raise ApiError(
            422,
            "invalid_request",
            f'Gallery "{gallery.name}" has its subjects\' files as {before.ref} reads them, which are of the modality '
            f"{old}; {after.ref} reads {new}.",
            hint=f"Choose a version that reads {old}, or make another gallery.",
            param="model",
        )
