"""Uploads in parts: any part at any time and again, from where a broken connection left off."""

from __future__ import annotations

from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field

from service.dependencies import DatasetsKey, IdempotencyKey, Listing, Paged
from service.errors import ApiError, foreign_content
from service.job_requests import StoredRequest
from service.state import Opened, State
from service.streaming import Pour, body_of, opened
from service.times import rfc3339
from store import idempotency, uploads
from store.artifacts import Artifact
from store.keys import Principal
from store.records import UploadRecord
from store.uploads import MOST_PARTS, NewUpload, Quota

router = APIRouter(prefix="/uploads", tags=["uploads"])

_OCTETS = "application/octet-stream"
PART_BODY = {
    "requestBody": {"required": True, "content": {_OCTETS: {"schema": {"type": "string", "format": "binary"}}}}
}
Number = Annotated[int, Path(ge=1, le=MOST_PARTS, description="The part's number, from 1.")]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class UploadCreate(StoredRequest):
    """A file that is to come."""

    filename: str = Field(min_length=1, max_length=255, description="Its name; the ending helps to tell the format.")
    bytes: int = Field(ge=1, le=1 << 62, description="Its size in bytes.")
    sha256: Sha256 | None = Field(
        None, description="Its digest: checked at the end; a file that the project has already need not be sent."
    )
    part_bytes: int | None = Field(
        None, ge=1024, le=1 << 30, description="Bytes of a part; the last one is shorter. Default: 8 MiB, or 1/10,000."
    )


class UploadView(BaseModel):
    """An upload as callers see it."""

    id: str
    object: Literal["upload"] = "upload"
    filename: str
    status: Literal["open", "completed"]
    bytes: int
    sha256: str | None
    part_bytes: int
    parts: int
    received_bytes: int
    missing_parts: list[int]
    created_at: str | None
    expires_at: str | None
    urls: dict[str, str]

    @classmethod
    def of(cls, state: State, record: UploadRecord) -> UploadView:
        """Return the view of an upload."""
        done = record.source_sha256 is not None
        sizes = {} if done else state.parts.sizes(record.id)
        url = f"/api/v1/uploads/{record.id}"
        return cls(
            id=record.id,
            filename=record.filename,
            status="completed" if done else "open",
            bytes=record.bytes,
            sha256=record.source_sha256 or record.sha256,
            part_bytes=record.part_bytes,
            parts=uploads.count_parts(record.bytes, record.part_bytes),
            received_bytes=record.bytes if done else sum(sizes.values()),
            missing_parts=uploads.missing_parts(record, sizes),
            created_at=rfc3339(record.created_at),
            expires_at=rfc3339(record.expires_at),
            urls={"self": url, "parts": f"{url}/parts", "complete": f"{url}/complete"},
        )


@router.post("", status_code=201, responses={200: {"description": "The file is there already."}})
def create_upload(
    body: UploadCreate, state: Opened, caller: DatasetsKey, response: Response, key: IdempotencyKey = None
) -> UploadView:
    """Start an upload in parts; 200 and completed at once when the project has the content already."""
    new = _checked(body, state.settings.max_upload_bytes)
    with state.database.write() as session:
        request = idempotency.fingerprint("upload", body.model_dump_json())
        earlier = idempotency.begin(session, caller.project, key, request) if key else None
        if earlier is not None:
            record = uploads.get(session, caller.project, earlier.resource_id or "")
        else:
            settings = state.settings
            quota = Quota(settings.max_open_uploads, settings.max_open_upload_bytes)
            record = uploads.create(
                session, state.artifacts, caller.project, new, expiry_s=settings.upload_expiry_s, quota=quota
            )
            if key:
                idempotency.finish(session, caller.project, key, record.id)
    view = UploadView.of(state, record)
    if view.status == uploads.COMPLETED:
        response.status_code = 200
    response.headers["Location"] = view.urls["self"]
    return view


def _checked(body: UploadCreate, max_bytes: int) -> NewUpload:
    if body.bytes > max_bytes:
        raise ApiError(
            413,
            "too_large",
            f"The file has {body.bytes} bytes; at most {max_bytes} are taken.",
            hint="Send a smaller file, or raise ANNEAL_MAX_UPLOAD_BYTES on the server.",
            param="bytes",
        )
    part_bytes = body.part_bytes or uploads.part_bytes_for(body.bytes)
    count = uploads.count_parts(body.bytes, part_bytes)
    if count > MOST_PARTS:
        raise ApiError(
            422,
            "invalid_request",
            f"{body.bytes} bytes in parts of {part_bytes} are {count} parts; at most {MOST_PARTS} are taken.",
            hint=f"Leave part_bytes out, or set it to {uploads.part_bytes_for(body.bytes)}.",
            param="part_bytes",
        )
    return NewUpload(body.filename, body.bytes, body.sha256, part_bytes)


@router.get("")
def list_uploads(
    state: Opened,
    caller: DatasetsKey,
    page: Paged,
    filename: str | None = None,
    bytes: Annotated[int | None, Query(ge=1, le=1 << 62)] = None,
    sha256: str | None = None,
    status: Literal["open", "completed"] | None = None,
) -> Listing[UploadView]:
    """Return the project's uploads, newest first: the one to go on with is found by name, size and digest."""
    with state.database.read() as session:
        query = uploads.listing(session, caller.project, filename=filename, size=bytes, sha256=sha256, status=status)
        records = session.scalars(page.apply(query, UploadRecord.id)).all()
    return Listing[UploadView].of([UploadView.of(state, record) for record in records], page)


@router.get("/{upload_id}")
def get_upload(upload_id: str, state: Opened, caller: DatasetsKey) -> UploadView:
    """Return an upload: what has come, and the numbers of the parts that have not."""
    with state.database.read() as session:
        record = uploads.get(session, caller.project, upload_id)
    return UploadView.of(state, record)


class PartView(BaseModel):
    """A part that has come and is on the disk."""

    number: int
    bytes: int
    sha256: str


@router.put("/{upload_id}/parts/{number}", openapi_extra=PART_BODY)
async def put_part(upload_id: str, number: Number, request: Request, state: Opened, caller: DatasetsKey) -> PartView:
    """Store a part: the body is its bytes. Sent again, it replaces what was there."""
    kind = request.headers.get("content-type", _OCTETS).partition(";")[0].strip().lower()
    if kind != _OCTETS:
        raise foreign_content(kind, _OCTETS)
    record = await to_thread.run_sync(_open, state, caller, upload_id)
    size = uploads.size_of_part(record, number)
    async with opened(state.parts.receive(record.id, size)) as file:
        async with Pour(file) as pour:
            async for chunk in body_of(request):
                await pour.write(chunk)
        if file.bytes != size:
            raise ApiError(
                422,
                "wrong_part_size",
                f"Part {number} of upload {record.id} has {size} bytes, and {file.bytes} came.",
                hint="Send the part again, whole.",
                param="number",
            )

        def keep() -> None:
            state.parts.keep(file, record.id, number)
            with state.database.write() as session:
                uploads.extend(session, record.id, state.settings.upload_expiry_s)

        await to_thread.run_sync(keep)
        return PartView(number=number, bytes=size, sha256=file.sha256)


def _open(state: State, caller: Principal, upload_id: str) -> UploadRecord:
    with state.database.read() as session:
        return uploads.get_open(session, caller.project, upload_id)


@router.post("/{upload_id}/complete")
def complete_upload(upload_id: str, state: Opened, caller: DatasetsKey) -> UploadView:
    """Join the parts to one file and check it; a completed upload can be made a dataset. Harmless when repeated."""
    with state.database.read() as session:
        upload_id = uploads.get(session, caller.project, upload_id).id
    with state.parts.locked(upload_id) as alone:
        with state.database.read() as session:
            record = uploads.get(session, caller.project, upload_id)
        if record.source_sha256 is None:
            if not alone:
                message = f"Upload {record.id} is being completed by another request."
                raise ApiError(409, "completing", message, hint="Ask again in a moment.", retry_after_s=2)
            source = _joined(state, record)
            with state.database.write() as session:
                state.artifacts.register(session, source)
                record = uploads.complete(session, record.id, source, state.settings.upload_expiry_s)
            state.parts.remove(record.id)
    return UploadView.of(state, record)


def _joined(state: State, record: UploadRecord) -> Artifact:
    missing = uploads.missing_parts(record, state.parts.sizes(record.id))
    count = uploads.count_parts(record.bytes, record.part_bytes)
    if missing:
        shown = ", ".join(map(str, missing[:20])) + (", ..." if len(missing) > 20 else "")
        raise ApiError(
            409,
            "parts_missing",
            f"{len(missing)} of {count} parts are missing: {shown}.",
            hint=f"Send each with PUT /api/v1/uploads/{record.id}/parts/{{n}}, then complete the upload.",
        )
    source = state.artifacts.write(state.parts.chunks(record.id, count), max_bytes=record.bytes)
    if record.sha256 is not None and record.sha256 != source.sha256:
        raise ApiError(
            422,
            "digest_mismatch",
            f"The parts make a file with the digest {source.sha256}, not {record.sha256}.",
            hint="Send again the parts that differ (each answer had its sha256), or start another upload.",
            param="sha256",
        )
    return source


@router.delete("/{upload_id}", status_code=204)
def delete_upload(upload_id: str, state: Opened, caller: DatasetsKey) -> None:
    """Forget an upload and its parts; a dataset made of it stays."""
    with state.database.write() as session:
        upload_id = uploads.remove(session, caller.project, upload_id)
    state.parts.remove(upload_id)
