"""Whom a gallery knows: enrol subjects by files, list them, forget them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from fastapi import APIRouter, Query
from fastapi import Request as HttpRequest
from pydantic import BaseModel, Field, StringConstraints
from sqlalchemy.orm import Session
from starlette.types import Receive

from service.computing import parse
from service.dependencies import IdempotencyKey, Listing, ModelsKey, Paged
from service.errors import ApiError
from service.galleries import Metadata, quota_of
from service.gallery_embedding import Looked, Read, Vectors, contents, embedded, in_thread, loaded_for, look
from service.job_requests import StoredRequest
from service.predictions import CONTENTS, InputWarningView
from service.predictors import Loaded
from service.state import Opened, State
from service.submission import once
from service.times import rfc3339
from store import galleries, idempotency
from store.errors import Conflict
from store.galleries import Moved, New
from store.gallery_records import GalleryRecord, SampleRecord, SubjectRecord
from store.keys import Principal

if TYPE_CHECKING:
    from learning.prediction import Parsed

router = APIRouter(prefix="/galleries/{gallery}/subjects", tags=["galleries"])

MOST_AT_ONCE = 100
TRIES = 5  # of a gallery that moves meanwhile

SubjectName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Inputs = Annotated[
    list[Any],
    Field(
        min_length=1, max_length=MOST_AT_ONCE, description="Files of the subject, as the model's predict takes them."
    ),
]
_FILES = {"type": "array", "items": {"type": "string", "format": "binary"}}
_BINARY = {"schema": {"type": "string", "format": "binary"}}


def bodies(*fields: str) -> dict[str, Any]:
    """Return what is said of a request's bodies that are no JSON: a file, or a form with files and some fields."""
    form = {"type": "object", "properties": {"file": _FILES, **{name: {"type": "string"} for name in fields}}}
    media = {kind: _BINARY for kind in CONTENTS if kind.endswith("/*")}
    return {"requestBody": {"content": {**media, "multipart/form-data": {"schema": form}}}}


class SubjectFields(StoredRequest):
    """Who is enrolled."""

    name: SubjectName
    metadata: Metadata = Field(default_factory=dict)


class SubjectCreate(SubjectFields):
    """Who is enrolled, and by which files."""

    inputs: Inputs


class SamplesCreate(StoredRequest):
    """Further files of a subject."""

    inputs: Inputs


class SampleView(BaseModel):
    """A file that a subject was enrolled by."""

    id: str
    sha256: str
    created_at: str | None

    @classmethod
    def of(cls, record: SampleRecord) -> SampleView:
        """Return the view of a sample."""
        return cls(id=record.id, sha256=record.sha256, created_at=rfc3339(record.created_at))


class SubjectView(BaseModel):
    """A subject as callers see it."""

    id: str
    object: Literal["subject"] = "subject"
    gallery: str
    name: str
    samples: list[SampleView]
    metadata: dict[str, Any]
    created_at: str | None

    @classmethod
    def of(cls, session: Session, gallery: str, record: SubjectRecord) -> SubjectView:
        """Return the view of a subject."""
        return cls(
            id=record.id,
            gallery=gallery,
            name=record.name,
            samples=[SampleView.of(sample) for sample in galleries.samples_of(session, record.id)],
            metadata=record.user_metadata,
            created_at=rfc3339(record.created_at),
        )


class EnrolledView(SubjectView):
    """A subject, and what to know about the files of the request."""

    warnings: list[InputWarningView]

    @classmethod
    def with_warnings(cls, subject: SubjectView, parsed: Parsed) -> EnrolledView:
        """Return a subject with what is said of a request's inputs."""
        return cls(**dict(subject), warnings=[InputWarningView.of(one) for one in parsed.warnings])


class Whose(NamedTuple):
    """Whose the files are: whether there may be such a subject (None: not yet there), and what gives or writes it."""

    look: Callable[[Session, GalleryRecord], SubjectRecord | None]
    write: Callable[[Session, GalleryRecord], SubjectRecord]


@dataclass(frozen=True, slots=True)
class Enrolment:
    """Who asks that files are added to whom; and the key and the parts by which the same request is known again."""

    caller: Principal
    gallery: str
    whose: Whose
    key: str | None
    request: Callable[[], tuple[str, ...]]  # not called on the event loop: files are long


async def enrolled(state: State, asked: Enrolment, read: Read, receive: Receive) -> EnrolledView:
    """Add files to a subject of a gallery, embedded by the version that it has when they are written.

    Those that it has already are left out, so that a request may be repeated; it is warned of the same again.
    """
    for left in reversed(range(TRIES)):
        earlier = await in_thread(partial(_earlier, state, asked))
        project = asked.caller.project
        looked = await in_thread(partial(look, state, project, asked.gallery))
        async with loaded_for(state, project, looked) as loaded:
            files = await in_thread(partial(_files, loaded, read))
            earlier = earlier or await in_thread(partial(_welcomed, state, asked, files))
            parsed = await parse(loaded, files)
            if earlier is not None:
                return EnrolledView.with_warnings(earlier, parsed)
            vectors_NE = await embedded(loaded, parsed, receive)
        made = list(zip(files, vectors_NE, strict=True))
        try:
            written = await in_thread(partial(_written, state, asked, looked, made))
            return EnrolledView.with_warnings(written, parsed)
        except Moved:
            if not left:
                raise
    raise AssertionError


def _earlier(state: State, asked: Enrolment) -> SubjectView | None:
    """Return what the same request with the same key has made, if it came before."""
    if asked.key is None:
        return None
    with state.database.read() as session:
        fingerprint = idempotency.fingerprint(*asked.request())
        found = idempotency.earlier(session, asked.caller.project, asked.key, fingerprint)
        return None if found is None else _view(session, asked, found)


def _view(session: Session, asked: Enrolment, subject_id: str) -> SubjectView:
    gallery = galleries.get(session, asked.caller.project, asked.gallery)
    return SubjectView.of(session, gallery.name, galleries.subject(session, gallery, subject_id))


def _files(loaded: Loaded, read: Read) -> list[bytes]:
    inputs = read(loaded)
    if len(inputs) > MOST_AT_ONCE:
        raise ApiError(
            413,
            "too_many_inputs",
            f"{len(inputs)} files in one request; at most {MOST_AT_ONCE} are taken.",
            hint="Send them in several requests.",
            param="inputs",
        )
    return contents(loaded, inputs)


def _welcomed(state: State, asked: Enrolment, files: Sequence[bytes]) -> SubjectView | None:
    """Refuse what would be refused at the end before anything is computed and stored for it.

    Unless it is refused for what the same request did: its first sending may have ended just now.
    """
    digests = [sha256(content).hexdigest() for content in files]
    try:
        with state.database.read() as session:
            gallery = galleries.get(session, asked.caller.project, asked.gallery)
            subject = asked.whose.look(session, gallery)
            new = galleries.lacking(session, subject.id, digests) if subject else set(digests)
            galleries.require_room(session, gallery, len(new), quota_of(state))
    except Conflict:
        if (earlier := _earlier(state, asked)) is not None:
            return earlier
        raise
    return None


def _written(state: State, asked: Enrolment, looked: Looked, made: Sequence[tuple[bytes, Vectors]]) -> SubjectView:
    """Store files and write their rows; Moved when the gallery has another version by now."""
    stored = [New(state.artifacts.write([content]), vector_E.tobytes()) for content, vector_E in made]
    by_digest = {one.artifact.sha256: one for one in stored}

    def write(session: Session) -> SubjectRecord:
        gallery = galleries.get(session, asked.caller.project, asked.gallery)
        galleries.held(session, gallery, version_id=looked.version.record.id)
        subject = asked.whose.write(session, gallery)
        new = [by_digest[digest] for digest in galleries.lacking(session, subject.id, by_digest)]
        galleries.require_room(session, gallery, len(new), quota_of(state))
        galleries.add_samples(session, state.artifacts, subject, new)
        galleries.changed(session, gallery, by_samples=True)
        return subject

    with state.database.write() as session:
        find = partial(session.get_one, SubjectRecord)
        subject = once(session, asked.caller, asked.key, asked.request() if asked.key else (), find, write)
        return _view(session, asked, subject.id)


def newcomer(fields: SubjectFields) -> Whose:
    """Return what writes a new subject; Conflict when one of that name is known."""
    return Whose(
        lambda session, gallery: galleries.require_new(session, gallery, fields.name),
        lambda session, gallery: galleries.enrol(session, gallery, fields.name, fields.metadata),
    )


def acquaintance(subject_id: str) -> Whose:
    """Return what finds a subject; NotFound when there is none."""

    def found(session: Session, gallery: GalleryRecord) -> SubjectRecord:
        return galleries.subject(session, gallery, subject_id)

    return Whose(found, found)


@router.post("", status_code=201, openapi_extra=bodies("name", "metadata"))
async def enrol_subject(
    gallery: str,
    asked: SubjectCreate,
    request: HttpRequest,
    state: Opened,
    caller: ModelsKey,
    key: IdempotencyKey = None,
) -> EnrolledView:
    """Enrol a subject by one file or several; in a form, its name is the field `name`, else of the address."""
    enrolment = Enrolment(caller, gallery, newcomer(asked), key, lambda: ("enrol", gallery, asked.model_dump_json()))
    return await enrolled(state, enrolment, lambda _: asked.inputs, request.receive)


@router.get("")
def list_subjects(
    gallery: str,
    state: Opened,
    caller: ModelsKey,
    page: Paged,
    name: Annotated[str | None, Query(max_length=200, description="Only the subject of this name.")] = None,
) -> Listing[SubjectView]:
    """Return whom a gallery knows, newest first."""
    with state.database.read() as session:
        record = galleries.get(session, caller.project, gallery)
        called = None if name is None else name.strip()  # as it was enrolled
        found = session.scalars(page.apply(galleries.subjects(record.id, called), SubjectRecord.id)).all()
        return Listing[SubjectView].of([SubjectView.of(session, gallery, one) for one in found], page)


@router.get("/{subject_id}")
def get_subject(gallery: str, subject_id: str, state: Opened, caller: ModelsKey) -> SubjectView:
    """Return a subject."""
    with state.database.read() as session:
        record = galleries.get(session, caller.project, gallery)
        return SubjectView.of(session, gallery, galleries.subject(session, record, subject_id))


@router.post("/{subject_id}/samples", status_code=201, openapi_extra=bodies())
async def add_samples(
    gallery: str,
    subject_id: str,
    asked: SamplesCreate,
    request: HttpRequest,
    state: Opened,
    caller: ModelsKey,
    key: IdempotencyKey = None,
) -> EnrolledView:
    """Enrol a subject by further files; those that it has already are left out."""

    def same() -> tuple[str, ...]:
        return "samples", gallery, subject_id, asked.model_dump_json()

    enrolment = Enrolment(caller, gallery, acquaintance(subject_id), key, same)
    return await enrolled(state, enrolment, lambda _: asked.inputs, request.receive)


@router.delete("/{subject_id}", status_code=204)
def delete_subject(gallery: str, subject_id: str, state: Opened, caller: ModelsKey) -> None:
    """Forget a subject: its name, its embeddings and its files."""
    with state.database.write() as session:
        record = galleries.get(session, caller.project, gallery)
        galleries.held(session, record)
        galleries.remove_subject(session, galleries.subject(session, record, subject_id))
        galleries.changed(session, record, by_samples=True)
