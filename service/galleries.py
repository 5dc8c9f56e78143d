"""Galleries over HTTP: whom a model is to know. Subjects are in gallery_subjects, questions in gallery_questions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session
from starlette.types import Receive

from service import gallery_thresholds as thresholds
from service.dependencies import Listing, ModelsKey, Paged
from service.errors import ApiError
from service.gallery_embedding import Looked, embedded_anew, in_thread, loaded_for, look, require_comparable
from service.gallery_thresholds import AskedThreshold, FalseAcceptRate, ThresholdView
from service.job_requests import ModelName, StoredRequest
from service.state import Opened, State
from service.times import rfc3339
from store import galleries, models
from store.database import database_now
from store.galleries import Known, Moved, Quota
from store.models import Version
from store.records import GalleryRecord

router = APIRouter(prefix="/galleries", tags=["galleries"])

TRIES = 5
CHUNK = 64

Made = dict[tuple[str, str], bytes]
"""Embeddings by version and sample, kept from one try to move to the next."""

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
    """What may change; another version embeds all enrolled files anew."""

    model: str | None = Field(None, max_length=200)
    threshold: AskedThreshold | None = None
    false_accept_rate: FalseAcceptRate | None = None
    metadata: Metadata | None = None


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
    metadata: dict[str, Any]
    created_at: str | None
    updated_at: str | None
    urls: dict[str, str]

    @classmethod
    def of(cls, session: Session, record: GalleryRecord) -> GalleryView:
        """Return the view of a gallery."""
        version = galleries.version_of(session, record)
        subjects, samples = galleries.counts(session, record.id)
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
            metadata=record.user_metadata,
            created_at=rfc3339(record.created_at),
            updated_at=rfc3339(record.updated_at),
            urls={"self": url, "subjects": f"{url}/subjects", "identify": f"{url}/identify", "verify": f"{url}/verify"},
        )


def quota_of(state: State) -> Quota:
    """Return what a project may have."""
    return Quota(state.settings.max_galleries, state.settings.max_gallery_samples)


def refresh_threshold(session: Session, gallery: GalleryRecord, version: Version, known: list[Known] | None) -> None:
    """Choose the threshold anew, by the pairs there are now, in the transaction that changed them."""
    if known is None:
        known = galleries.everybody(session, gallery.id)
    gallery.threshold = thresholds.chosen(gallery.threshold_from, version.record.metrics, known)
    gallery.updated_at = database_now()
    session.flush()
    session.refresh(gallery)


@router.post("", status_code=201)
def create_gallery(asked: GalleryCreate, state: Opened, caller: ModelsKey) -> GalleryView:
    """Make a gallery that knows nobody yet."""
    with state.database.write() as session:
        version = models.resolve(session, caller.project, asked.model)
        require_comparable(state, session, version)
        record = galleries.create(
            session,
            caller.project,
            asked.name,
            version,
            threshold_from=thresholds.asked_from(asked.threshold, asked.false_accept_rate),
            user_metadata=asked.metadata,
            quota=quota_of(state),
        )
        refresh_threshold(session, record, version, [])
        return GalleryView.of(session, record)


@router.get("")
def list_galleries(state: Opened, caller: ModelsKey, page: Paged) -> Listing[GalleryView]:
    """Return the project's galleries, newest first."""
    with state.database.read() as session:
        found = session.scalars(page.apply(galleries.listing(caller.project), GalleryRecord.id)).all()
        return Listing[GalleryView].of([GalleryView.of(session, record) for record in found], page)


@router.get("/{gallery}")
def get_gallery(gallery: str, state: Opened, caller: ModelsKey) -> GalleryView:
    """Return a gallery."""
    with state.database.read() as session:
        return GalleryView.of(session, galleries.get(session, caller.project, gallery))


@router.delete("/{gallery}", status_code=204)
def delete_gallery(gallery: str, state: Opened, caller: ModelsKey) -> None:
    """Delete a gallery with its subjects, their files and embeddings."""
    with state.database.write() as session:
        galleries.remove(session, galleries.get(session, caller.project, gallery))


@router.patch("/{gallery}")
async def change_gallery(
    gallery: str, patch: GalleryPatch, request: HttpRequest, state: Opened, caller: ModelsKey
) -> GalleryView:
    """Change the threshold or what is noted, or move to another version, by which all files are embedded anew.

    Until all of them are, the gallery answers by the version before.
    """
    made: Made = {}
    for left in reversed(range(TRIES)):
        try:
            return await _changed(state, caller.project, gallery, patch, made, request.receive)
        except Moved:
            if not left:
                raise
    raise AssertionError


async def _changed(
    state: State, project: str, name: str, patch: GalleryPatch, made: Made, receive: Receive
) -> GalleryView:
    embeddings: dict[str, bytes] = {}
    target: Version | None = None
    if patch.model is not None:
        looked = await in_thread(lambda: _towards(state, project, name, str(patch.model)))
        target = looked.version
        embeddings = await _again(state, project, looked, made, receive)
    return await in_thread(lambda: _write_changes(state, project, name, patch, target, embeddings))


def _towards(state: State, project: str, name: str, ref: str) -> Looked:
    """Return the gallery with the version that it is to move to in place of its own."""
    found = look(state, project, name, everybody=True)
    with state.database.read() as session:
        version = models.resolve(session, project, ref)
        require_comparable(state, session, version)
        _require_same_modality(found, version)
        return Looked(found.gallery, version, models.loadable(session, version.record.id), found.known)


def _require_same_modality(found: Looked, version: Version) -> None:
    old, new = found.version.record.modality, version.record.modality
    if old != new:
        raise ApiError(
            422,
            "invalid_request",
            f'Gallery "{found.gallery.name}" has its subjects\' files as {found.version.ref} reads them, which are of '
            f"the modality {old}; {version.ref} reads {new}.",
            hint=f"Choose a version that reads {old}, or make another gallery.",
            param="model",
        )


async def _again(state: State, project: str, looked: Looked, made: Made, receive: Receive) -> dict[str, bytes]:
    """Return embeddings of all enrolled files by a version, by sample; some files at a time are in memory.

    What is in `made` is not made again, and what is made is added to it.
    """
    version_id = looked.version.record.id
    if version_id == looked.gallery.version_id:
        return {one.sample_id: one.embedding for one in looked.known}
    missing = [one for one in looked.known if (version_id, one.sample_id) not in made]
    if missing:
        async with loaded_for(state, project, looked) as loaded:
            for start in range(0, len(missing), CHUNK):
                some = await in_thread(partial(_read, state, missing[start : start + CHUNK]))
                vectors_NE = await embedded_anew(loaded, some, looked.version.ref, receive)
                for (one, _), vector_E in zip(some, vectors_NE, strict=True):
                    made[version_id, one.sample_id] = vector_E.tobytes()
    return {sample_id: vector for (made_by, sample_id), vector in made.items() if made_by == version_id}


def _read(state: State, some: Sequence[Known]) -> list[tuple[Known, bytes]]:
    with state.database.read() as session:
        return galleries.contents(session, state.artifacts, some)


def _write_changes(
    state: State, project: str, name: str, patch: GalleryPatch, target: Version | None, embeddings: dict[str, bytes]
) -> GalleryView:
    with state.database.write() as session:
        record = galleries.get(session, project, name)
        galleries.held(session, record)
        before, known = record.version_id, None
        if target is not None:
            known = galleries.move(session, record, target, embeddings)
        session.refresh(record)
        if record.version_id != before and record.threshold_from["source"] == thresholds.GIVEN:
            # A number was chosen for the scores of the version before.
            record.threshold_from = thresholds.asked_from(thresholds.AUTO, record.threshold_from["false_accept_rate"])
        if patch.threshold is not None or patch.false_accept_rate is not None:
            asked = record.threshold_from
            source = asked.get("value", asked["source"]) if patch.threshold is None else patch.threshold
            rate = patch.false_accept_rate or asked["false_accept_rate"]
            record.threshold_from = thresholds.asked_from(source, rate)
        if patch.metadata is not None:
            record.user_metadata = patch.metadata
        refresh_threshold(session, record, galleries.version_of(session, record), known)
        return GalleryView.of(session, record)
