"""OpenAI's files and uploads: what is to be learned from is a dataset here, anything else a file as it is."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from service.dataset_requests import LONGEST_FILENAME, from_fields, made, require_format
from service.dependencies import DatasetsKey, Listing
from service.errors import ApiError
from service.job_requests import StoredRequest
from service.json_values import check_storable
from service.multipart import read_form
from service.openai_objects import FINE_TUNE, Deleted, FileObject
from service.ranges import check_range
from service.state import Opened, State
from service.streaming import opened
from store import datasets, files, ids
from store.artifacts import Artifact
from store.datasets import Dataset
from store.errors import Conflict
from store.keys import Principal
from store.records import DatasetRecord, FileRecord

router = APIRouter(prefix="/v1", tags=["openai"])

PURPOSES = (FINE_TUNE, "batch", "user_data")
MADE = ("batch_output", "batch_errors")
UPLOAD_S = 3600


@router.post("/files")
async def create_file(request: Request, state: Opened, caller: DatasetsKey) -> FileObject:
    """Store a file: a form with `file` and `purpose`. For fine-tune it is ingested, and processed once it is ready.

    Fields beyond the protocol's are those of a dataset's upload, such as format or column_types.
    """
    async with opened(state.artifacts.receive(max_bytes=state.settings.max_upload_bytes)) as file:
        form = await read_form(request, file)
        fields = dict(form.fields)
        purpose, filename = _purpose(fields.pop("purpose", None)), _checked_name(form.filename)
        if file.bytes == 0:
            raise ApiError(
                400, "empty_file", f'The file "{filename}" is empty.', hint="Send its content.", param="file"
            )
        artifact = await to_thread.run_sync(state.artifacts.keep, file)
    return await to_thread.run_sync(_made, state, caller, artifact, filename, purpose, fields)


def _purpose(given: str | None) -> str:
    if given not in PURPOSES:
        raise ApiError(
            400,
            "invalid_request",
            f'"{(given or "")[:80]}" is no purpose that files have here.',
            hint=f"Purposes: {', '.join(PURPOSES)}.",
            param="purpose",
        )
    return given


def _checked_name(filename: str | None) -> str:
    if filename is None:
        raise ApiError(400, "invalid_request", "The form has no file.", hint="Send it as the part file.", param="file")
    try:
        check_storable(filename)
    except ValueError as error:
        raise ApiError(400, "invalid_request", f"The file's name: {error}.", param="file") from None
    return filename[:LONGEST_FILENAME]


def _made(
    state: State, caller: Principal, artifact: Artifact, filename: str, purpose: str, fields: dict[str, str]
) -> FileObject:
    with state.database.write() as session:
        made = store_file(state, session, caller, artifact, filename, purpose, fields)
    state.sweeper.wake()
    return made


def store_file(
    state: State,
    session: Session,
    caller: Principal,
    artifact: Artifact,
    filename: str,
    purpose: str,
    fields: dict[str, str],
) -> FileObject:
    """Write the dataset, or the file, that stored bytes are to be."""
    state.artifacts.register(session, artifact)
    session.flush()
    if purpose != FINE_TUNE:
        file = files.add(session, project=caller.project, filename=filename, purpose=purpose, artifact=artifact)
        session.refresh(file)
        return FileObject.of_file(session, file)
    wanted = from_fields(fields)
    require_format(wanted.format)
    dataset = made(session, caller.project, wanted, filename, artifact)
    return FileObject.of_dataset(dataset)


@router.get("/files")
def list_files(
    state: Opened,
    caller: DatasetsKey,
    purpose: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    after: str | None = None,
    order: Literal["asc", "desc"] = "desc",
) -> Listing[FileObject]:
    """Return datasets and other files, newest first."""
    with state.database.read() as session:
        found: list[FileObject] = []
        if purpose in (None, FINE_TUNE):
            query = _part(datasets.listing(session, caller.project), DatasetRecord.id, ids.DATASET, after, order)
            found += [FileObject.of_dataset(Dataset(*row)) for row in session.execute(query.limit(limit + 1))]
        if purpose != FINE_TUNE:
            shown = files.listing(caller.project).where(
                FileRecord.purpose == purpose if purpose else FileRecord.purpose.in_((*PURPOSES, *MADE))
            )
            query = _part(shown, FileRecord.id, ids.FILE, after, order)
            found += [FileObject.of_file(session, file) for file in session.scalars(query.limit(limit + 1))]
    found.sort(key=lambda file: _age(file.id), reverse=order == "desc")
    listing = Listing[FileObject].of(found[:limit])
    listing.has_more = len(found) > limit
    return listing


def _part(query: Any, column: Any, prefix: str, after: str | None, order: str) -> Any:
    """Return what comes after an id of either kind: all of them sort by what is behind their prefixes."""
    if after is not None:
        edge = f"{prefix}_{_age(after)}"
        query = query.where(column < edge if order == "desc" else column > edge)
    return query.order_by(column.desc() if order == "desc" else column.asc())


def _age(file_id: str) -> str:
    return file_id.partition("_")[2]


@router.get("/files/{file_id}")
def get_file(file_id: str, state: Opened, caller: DatasetsKey) -> FileObject:
    """Return a file."""
    with state.database.read() as session:
        if _is_dataset(file_id):
            return FileObject.of_dataset(datasets.get(session, caller.project, file_id))
        return FileObject.of_file(session, files.get(session, caller.project, file_id))


def _is_dataset(file_id: str) -> bool:
    return file_id.startswith(f"{ids.DATASET}_")


@router.get("/files/{file_id}/content", response_class=FileResponse)
def file_content(file_id: str, request: Request, state: Opened, caller: DatasetsKey) -> FileResponse:
    """Return a file's bytes as they came, or as a job wrote them; ranges are served."""
    with state.database.read() as session:
        if _is_dataset(file_id):
            record = datasets.get(session, caller.project, file_id).record
            sha256, filename = record.source_sha256, record.filename
        else:
            file = files.get(session, caller.project, file_id)
            sha256, filename = file.sha256, file.filename
    path = state.artifacts.path(sha256)
    check_range(request, path.stat().st_size)
    return FileResponse(path, media_type="application/octet-stream", filename=filename)


@router.delete("/files/{file_id}")
def delete_file(file_id: str, state: Opened, caller: DatasetsKey) -> Deleted:
    """Delete a file that no unfinished job reads."""
    with state.database.write() as session:
        if _is_dataset(file_id):
            datasets.remove(session, caller.project, file_id)
        else:
            files.remove(session, caller.project, file_id)
    return Deleted(id=file_id, object="file")


class UploadCreate(StoredRequest):
    """A file that will come in parts."""

    filename: str = Field(min_length=1, max_length=LONGEST_FILENAME)
    bytes: int = Field(ge=1)
    purpose: str
    mime_type: str
    expires_after: None = None


class UploadComplete(StoredRequest):
    """Which parts, in which order."""

    part_ids: list[str] = Field(min_length=1, max_length=10_000)
    md5: None = None


class UploadObject(BaseModel):
    """A file that comes in parts."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: str
    file: FileObject | None = None

    @classmethod
    def of(cls, upload: FileRecord, about: dict[str, Any]) -> UploadObject:
        """Return an upload, of which its file says the rest."""
        created = int(upload.created_at)
        return cls(id=upload.id, created_at=created, expires_at=created + UPLOAD_S, filename=upload.filename, **about)


class PartObject(BaseModel):
    """Some bytes of an upload."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str


@router.post("/uploads")
def create_upload(asked: UploadCreate, state: Opened, caller: DatasetsKey) -> UploadObject:
    """Start an upload; it is forgotten a day later unless it is completed."""
    _purpose(asked.purpose)
    if asked.bytes > state.settings.max_upload_bytes:
        raise ApiError(413, "too_large", f"{asked.bytes} bytes are more than a file may have.", param="bytes")
    about = {"bytes": asked.bytes, "purpose": asked.purpose, "status": "pending"}
    artifact = state.artifacts.write([json.dumps(about).encode()])
    with state.database.write() as session:
        state.artifacts.register(session, artifact)
        session.flush()
        upload = files.add(
            session, project=caller.project, filename=asked.filename, purpose=files.UPLOAD, artifact=artifact
        )
        session.refresh(upload)
        return UploadObject.of(upload, about)


@router.post("/uploads/{upload_id}/parts")
async def add_part(upload_id: str, request: Request, state: Opened, caller: DatasetsKey) -> PartObject:
    """Store a part: a form with `data`. Parts may come in any order, and together."""
    async with opened(state.artifacts.receive(max_bytes=state.settings.max_upload_bytes)) as file:
        form = await read_form(request, file, "data")
        if form.filename is None:
            raise ApiError(400, "invalid_request", "The form has no part.", hint="Send it as data.", param="data")
        artifact = await to_thread.run_sync(state.artifacts.keep, file)
    return await to_thread.run_sync(_part_made, state, caller, upload_id, artifact)


def _part_made(state: State, caller: Principal, upload_id: str, artifact: Artifact) -> PartObject:
    with state.database.write() as session:
        upload = files.get(session, caller.project, upload_id, files.UPLOAD)
        state.artifacts.register(session, artifact)
        session.flush()
        part = files.add(session, project=caller.project, filename=upload.id, purpose=files.PART, artifact=artifact)
        session.refresh(part)
        return PartObject(id=part.id, created_at=int(part.created_at), upload_id=upload_id)


@router.post("/uploads/{upload_id}/complete")
def complete_upload(upload_id: str, asked: UploadComplete, state: Opened, caller: DatasetsKey) -> UploadObject:
    """Join the parts to a file."""
    with state.database.read() as session:
        upload = files.get(session, caller.project, upload_id, files.UPLOAD)
        about = json.loads(state.artifacts.path(upload.sha256).read_bytes())
        parts = [files.get(session, caller.project, part_id, files.PART) for part_id in asked.part_ids]
        if any(part.filename != upload_id for part in parts):
            raise Conflict("One of the parts belongs to another upload.", param="part_ids")
    artifact = state.artifacts.write(chunk for part in parts for chunk in state.artifacts.chunks(part.sha256))
    if artifact.bytes != about["bytes"]:
        raise ApiError(
            400,
            "wrong_part_size",
            f"The parts have {artifact.bytes} bytes together; the upload was started with {about['bytes']}.",
            hint="Name all parts, in their order.",
            param="part_ids",
        )
    with state.database.write() as session:
        made = store_file(state, session, caller, artifact, upload.filename, about["purpose"], {})
        files.forget_upload(session, caller.project, upload_id)
    state.sweeper.wake()
    return UploadObject.of(upload, {**about, "status": "completed", "file": made})


@router.post("/uploads/{upload_id}/cancel")
def cancel_upload(upload_id: str, state: Opened, caller: DatasetsKey) -> UploadObject:
    """Forget an upload and its parts."""
    with state.database.write() as session:
        upload = files.get(session, caller.project, upload_id, files.UPLOAD)
        about = json.loads(state.artifacts.path(upload.sha256).read_bytes())
        files.forget_upload(session, caller.project, upload_id)
        return UploadObject.of(upload, {**about, "status": "cancelled"})
