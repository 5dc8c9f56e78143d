"""Galleries over HTTP: whom a model is to know. Subjects are in gallery_subjects, questions in gallery_questions, and
moves to another version in gallery_moves.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from service import gallery_thresholds as thresholds
from service import library
from service.dependencies import IdempotencyKey, Listing, ModelsKey, Paged
from service.gallery_embedding import require_comparable, with_threshold
from service.gallery_thresholds import AskedThreshold, FalseAcceptRate, ThresholdView
from service.job_requests import ModelName, StoredRequest
from service.state import Opened, State
from service.submission import once
from service.times import rfc3339
from store import galleries, gallery_moves, models
from store.database import database_now
from store.errors import NotFound
from store.galleries import Quota
from store.records import GalleryRecord

router = APIRouter(prefix="/galleries", tags=["galleries"])

Metadata = Annotated[dict[str, Any], Field(max_length=64)]


class GalleryCreate(StoredRequest):
    """A gallery, and by which version it is to know its subjects."""

    name: ModelName
    model: str = Field(max_length=200, description="`name`, `name:3` or `name@alias`: the version that it means now.")
    threshold: AskedThreshold = Field(
        "auto",
        description="The score from which on two files count as of one subject: a number, or chosen from the pairs of "
        "the model's evaluation or of the gallery's own files; \"auto\": the former if there are any, of subjects that "
        "training did not know.",
    )
    false_accept_rate: FalseAcceptRate = Field(
        0.01, description="Share of pairs of two subjects that the threshold may accept, where it is chosen."
    )
    metadata: Metadata = Field(default_factory=dict)


class GalleryPatch(StoredRequest):
    """What may change at once; another version takes a move."""

    threshold: AskedThreshold | None = None
    false_accept_rate: FalseAcceptRate | None = None
    metadata: Metadata | None = None


class MoveView(BaseModel):
    """Where a gallery is moving to, and the job that moves it."""

    model: str
    job: str


class GalleryView(BaseModel):
    """A gallery as callers see it."""

    id: str
    object: Literal["gallery"] = "gallery"
    name: str
    model: str
    modality: str
    task: str
    threshold: ThresholdView | None
    subjects: int
    samples: int
    move: MoveView | None
    metadata: dict[str, Any]
    created_at: str | None
    updated_at: str | None
    urls: dict[str, str]

    @classmethod
    def of(cls, session: Session, record: GalleryRecord) -> GalleryView:
        """Return the view of a gallery."""
        version = galleries.version_of(session, record)
        subjects, samples = galleries.counts(session, record.id)
        job = gallery_moves.current(session, record)
        url = f"/api/v1/galleries/{record.name}"
        return cls(
            id=record.id,
            name=record.name,
            model=version.ref,
            modality=version.record.modality,
            task=version.record.task,
            threshold=ThresholdView(**record.threshold) if record.threshold else None,
            subjects=subjects,
            samples=samples,
            move=MoveView(model=(job.resolved or {})["ref"], job=job.id) if job else None,
            metadata=record.user_metadata,
            created_at=rfc3339(record.created_at),
            updated_at=rfc3339(record.updated_at),
            urls={"self": url, **{part: f"{url}/{part}" for part in ("subjects", "identify", "verify", "move")}},
        )


def quota_of(state: State) -> Quota:
    """Return what a project may have."""
    return Quota(state.settings.max_galleries, state.settings.max_gallery_samples)


def shown(state: State, project: str, name: str) -> GalleryView:
    """Return the view of a gallery with its threshold."""
    looked = with_threshold(state, project, None, name)
    with state.database.read() as session:
        return GalleryView.of(session, looked.gallery)


@router.post("", status_code=201)
def create_gallery(asked: GalleryCreate, state: Opened, caller: ModelsKey, key: IdempotencyKey = None) -> GalleryView:
    """Make a gallery that knows nobody yet."""

    def make(session: Session) -> GalleryRecord:
        version = models.resolve(session, caller.project, asked.model)
        require_comparable(state, session, version)
        wanted = thresholds.asked_from(asked.threshold, asked.false_accept_rate)
        record = galleries.create(
            session,
            caller.project,
            asked.name,
            version,
            threshold_from=wanted,
            user_metadata=asked.metadata,
            quota=quota_of(state),
        )
        record.threshold = thresholds.chosen(wanted, version.record.metrics, list)
        return record

    library.warm()
    with state.database.write() as session:
        request = ("galleries", asked.model_dump_json())
        record = once(session, caller, key, request, lambda gallery_id: galleries.by_id(session, gallery_id), make)
        session.flush()
        session.refresh(record)
    return shown(state, caller.project, record.name)


@router.get("")
def list_galleries(state: Opened, caller: ModelsKey, page: Paged) -> Listing[GalleryView]:
    """Return the project's galleries, newest first."""
    with state.database.read() as session:
        found = session.scalars(page.apply(galleries.listing(caller.project), GalleryRecord.id)).all()
    there = []
    for record in found:
        if not galleries.has_threshold(record):
            try:
                chosen = with_threshold(state, caller.project, None, record.name).gallery
            except NotFound:
                continue  # deleted just now
            if chosen.id != record.id:
                continue  # deleted just now, and made again under its name
            record.threshold = chosen.threshold
        there.append(record)
    with state.database.read() as session:
        return Listing[GalleryView].of([GalleryView.of(session, record) for record in there], page)


@router.get("/{gallery}")
def get_gallery(gallery: str, state: Opened, caller: ModelsKey) -> GalleryView:
    """Return a gallery."""
    return shown(state, caller.project, gallery)


@router.delete("/{gallery}", status_code=204)
def delete_gallery(gallery: str, state: Opened, caller: ModelsKey) -> None:
    """Delete a gallery with its subjects, their files and embeddings."""
    with state.database.write() as session:
        galleries.remove(session, galleries.get(session, caller.project, gallery))


@router.patch("/{gallery}")
def change_gallery(gallery: str, patch: GalleryPatch, state: Opened, caller: ModelsKey) -> GalleryView:
    """Change the threshold or what is noted."""
    with state.database.write() as session:
        record = galleries.get(session, caller.project, gallery)
        galleries.held(session, record)
        if patch.metadata is not None:
            record.user_metadata = patch.metadata
        if patch.threshold is not None or patch.false_accept_rate is not None:
            record.threshold_from = thresholds.changed(record.threshold_from, patch.threshold, patch.false_accept_rate)
            thresholds.require_possible(record.threshold_from, galleries.version_of(session, record).record.metrics)
            galleries.changed(session, record)
        else:
            record.updated_at = database_now()
    return shown(state, caller.project, gallery)
