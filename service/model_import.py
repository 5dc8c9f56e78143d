"""Models from elsewhere: an archive or a folder becomes a version, by a job, since it is read in no API process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, Field, ValidationError
from sqlalchemy.orm import Session

from service.dataset_requests import LONGEST_FILENAME
from service.dependencies import IdempotencyKey, ModelsKey
from service.errors import ApiError, foreign_content
from service.job_requests import ModelName, StoredRequest
from service.job_views import JobView
from service.json_values import check_storable
from service.multipart import read_form
from service.state import Opened, State
from service.streaming import body_of, opened
from service.submission import submitted
from store import files, jobs, uploads
from store.artifacts import Artifact
from store.jobs import NewJob
from store.keys import Principal
from store.records import JobRecord

router = APIRouter(prefix="/models", tags=["models"])

_FORM, _JSON = "multipart/form-data", "application/json"
_ONE = "Send a zip archive as the form's file, or upload_id, or path."


def _plain(path: str) -> str:
    if not path.strip() or "\0" in path:
        raise ValueError("a path names a folder or a zip archive")
    return path


class ModelImport(StoredRequest):
    """Where a model is, and what it is to be called here; in a form, aliases have commas between, metadata is JSON."""

    model: ModelName = Field(description="Name in the registry.")
    aliases: list[ModelName] = Field(default_factory=list, max_length=16, description="Aliases to move to it.")
    upload_id: str | None = Field(None, max_length=40, description="A completed upload of a zip archive.")
    path: Annotated[str, AfterValidator(_plain)] | None = Field(
        None, max_length=4096, description="A folder or zip archive on the server, within its ANNEAL_IMPORT_DIR."
    )
    name: str | None = Field(None, max_length=200)
    priority: int = Field(0, ge=-100, le=100, description="Higher runs earlier.")
    metadata: dict[str, Any] = Field(default_factory=dict)


def openapi_body() -> dict[str, Any]:
    """Return the request's description: a form with a file, or JSON that says where the files are."""
    schema = ModelImport.model_json_schema()
    file = {"type": "string", "format": "binary", "description": "The zip archive of a model's directory."}
    form = {**schema, "properties": {"file": file, **schema["properties"]}}
    return {"requestBody": {"required": True, "content": {_FORM: {"schema": form}, _JSON: {"schema": schema}}}}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was read: what is wanted, and the file if it came with it."""

    wanted: ModelImport
    filename: str | None = None
    source: Artifact | None = None


@router.post("", status_code=202, openapi_extra=openapi_body())
async def import_model(
    request: Request, state: Opened, caller: ModelsKey, response: Response, key: IdempotencyKey = None
) -> JobView:
    """Store a model's archive, or take a folder of the server's, and queue the job that makes a version of it."""
    asked = await _read(request, state)
    return await to_thread.run_sync(_submit, state, caller, response, key, asked)


async def _read(request: Request, state: State) -> Asked:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == _JSON:
        return Asked(_checked(await _body(request, state.settings.max_body_bytes)))
    if kind != _FORM:
        raise foreign_content(request.headers.get("content-type", ""), _FORM, _JSON)
    async with opened(state.artifacts.receive(max_bytes=state.settings.max_upload_bytes)) as file:
        form = await read_form(request, file)
        wanted = _checked({name: _value(name, text) for name, text in form.fields.items()})
        if form.filename is None:
            return Asked(wanted)
        if file.bytes == 0:
            raise ApiError(422, "empty_file", "The file is empty.", hint="Send a zip archive.", param="file")
        filename = form.filename[-LONGEST_FILENAME:]
        _require_storable({"file": filename})
        return Asked(wanted, filename, await to_thread.run_sync(state.artifacts.keep, file))


async def _body(request: Request, most: int) -> dict[str, Any]:
    body = bytearray()
    async for chunk in body_of(request):
        body += chunk
        if len(body) > most:
            raise ApiError(413, "too_large", f"The body is larger than {most} bytes.", hint="Send a file as a form.")
    return _object(body.decode("utf-8", "replace"), "The body", None)


def _value(name: str, text: str) -> Any:
    if name == "aliases":
        return [alias.strip() for alias in text.split(",") if alias.strip()]
    return _object(text, name, name) if name == "metadata" else text


def _object(text: str, called: str, param: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ApiError(422, "invalid_request", f"{called} is no JSON object.", hint='Send {"...": "..."}.', param=param)
    return value


def _checked(fields: dict[str, Any]) -> ModelImport:
    _require_storable(fields)
    try:
        return ModelImport.model_validate(fields)
    except ValidationError as error:
        found = [{**item, "loc": ("body", *item["loc"])} for item in error.errors(include_url=False)]
        raise RequestValidationError(found) from None


def _require_storable(fields: dict[str, Any]) -> None:
    try:
        check_storable(fields)
    except (ValueError, RecursionError) as error:
        raise ApiError(422, "invalid_request", f"{error}.", hint="Correct that value.") from None


def _submit(state: State, caller: Principal, response: Response, key: str | None, asked: Asked) -> JobView:
    wanted = asked.wanted
    given = [name for name, value in (("file", asked.source), *_places(wanted).items()) if value is not None]
    if len(given) != 1:
        what = f"has {' and '.join(given)}" if given else "names no model"
        raise ApiError(422, "invalid_request", f"The request {what}.", hint=_ONE, param=given[-1] if given else "file")
    path = _inside(state, wanted.path) if wanted.path is not None else None

    def submit(session: Session) -> JobRecord:
        filename, source = asked.filename, asked.source
        if wanted.upload_id is not None:
            filename, source = uploads.source(session, caller.project, wanted.upload_id)
        return _queued(state, session, caller, wanted, path or filename or "", source)

    came = asked.source.sha256 if asked.source else ""
    return submitted(state, caller, response, key, ("import", came, wanted.model_dump_json()), submit)


def _places(wanted: ModelImport) -> dict[str, str | None]:
    return {"upload_id": wanted.upload_id, "path": wanted.path}


def _queued(
    state: State, session: Session, caller: Principal, wanted: ModelImport, filename: str, source: Artifact | None
) -> JobRecord:
    file = None
    if source is not None:
        state.artifacts.register(session, source)
        session.flush()
        file = files.add(
            session, project=caller.project, filename=filename[:LONGEST_FILENAME], purpose=files.IMPORT, artifact=source
        )
    spec = {
        "filename": filename,
        "file_id": file.id if file else None,
        "sha256": source.sha256 if source else None,
        "path": filename if source is None else None,
        "output": {"model": wanted.model, "aliases": wanted.aliases},
    }
    new = NewJob(
        kind=jobs.IMPORT,
        project=caller.project,
        spec=spec,
        name=wanted.name,
        priority=wanted.priority,
        user_metadata=wanted.metadata,
    )
    job = jobs.submit(session, new)
    if file is not None:
        file.job_id = job.id
    return job


def _inside(state: State, path: str) -> str:
    """Return a path relative to the folder of models; what lies outside answers like what is not there."""
    root = state.settings.import_dir
    if root is None:
        raise ApiError(
            422,
            "invalid_request",
            "This server has no folder whose models may be imported.",
            hint="Send the model as a zip archive, or set ANNEAL_IMPORT_DIR on the server.",
            param="path",
        )
    inside = root.resolve()
    try:
        found = (inside / Path(path)).resolve()
        is_there = found.is_relative_to(inside) and found.exists()
    except (OSError, RuntimeError):  # too long a name, or links in a circle
        is_there = False
    if not is_there:
        raise ApiError(
            422,
            "unknown_name",
            f'There is no "{path[:200]}" in the folder of models.',
            hint="Name a folder or a zip archive in ANNEAL_IMPORT_DIR, by its path from there.",
            param="path",
        )
    return str(found.relative_to(inside))
