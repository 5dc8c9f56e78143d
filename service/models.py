"""The registry over HTTP: models, versions, aliases, files, lineage."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.dependencies import Listing, ModelsKey, Paged
from service.job_requests import ModelName, Request
from service.ranges import check_range
from service.state import Opened
from service.times import rfc3339
from store import models
from store.errors import NotFound
from store.models import Version
from store.records import ModelRecord, VersionRecord

router = APIRouter(prefix="/models", tags=["models"])

_SVG = "image/svg+xml"
_AS_IT_IS = {"X-Content-Type-Options": "nosniff"}
# Opened by itself a picture is a document: it may show the images within it, and nothing else.
_LOOKED_AT = {**_AS_IT_IS, "Content-Security-Policy": "default-src 'none'; img-src data:; sandbox"}

VersionNumber = Annotated[int, Field(ge=1, le=2**31 - 1)]


class ModelView(BaseModel):
    """A model as callers see it."""

    id: str
    object: Literal["model"] = "model"
    name: str
    versions: int
    latest_version: int | None
    aliases: dict[str, int]
    created_at: str | None
    urls: dict[str, str]

    @classmethod
    def of(cls, session: Session, model: ModelRecord) -> ModelView:
        """Return the view of a model."""
        numbers = session.scalars(select(VersionRecord.number).where(VersionRecord.model_id == model.id)).all()
        url = f"/api/v1/models/{model.name}"
        return cls(
            id=model.id,
            name=model.name,
            versions=len(numbers),
            latest_version=max(numbers, default=None),
            aliases=models.aliases(session, model.id),
            created_at=rfc3339(model.created_at),
            urls={"self": url, "versions": f"{url}/versions"},
        )


class FileView(BaseModel):
    """A file of a version."""

    path: str
    sha256: str
    bytes: int


class VersionView(BaseModel):
    """A version as callers see it; `pictures` are the addresses, by name, of those files that show how good it is."""

    id: str
    object: Literal["version"] = "version"
    model: str
    version: int
    ref: str
    kind: str
    task: str
    architecture: str
    modality: str
    metrics: dict[str, Any]
    files: list[FileView]
    pictures: dict[str, str]
    aliases: list[str]
    job_id: str | None
    created_at: str | None
    urls: dict[str, str]

    @classmethod
    def of(cls, session: Session, version: Version) -> VersionView:
        """Return the view of a version."""
        record, number = version.record, version.record.number
        url = f"/api/v1/models/{version.model.name}/versions/{number}"
        files = models.files(session, record.id)
        return cls(
            id=record.id,
            model=version.model.name,
            version=number,
            ref=version.ref,
            kind=record.kind,
            task=record.task,
            architecture=record.architecture,
            modality=record.modality,
            metrics=record.metrics,
            files=[FileView(path=path, sha256=file.sha256, bytes=file.bytes) for path, file in files.items()],
            pictures={FilePath(path).stem: f"{url}/files/{path}" for path in files if path.startswith(models.PICTURES)},
            aliases=[name for name, at in models.aliases(session, version.model.id).items() if at == number],
            job_id=record.job_id,
            created_at=rfc3339(record.created_at),
            urls={
                "self": url,
                "lineage": f"{url}/lineage",
                "files": f"{url}/files",
                "download": f"{url}/download",
                "predict": f"/api/v1/models/{version.ref}/predict",
                "schema": f"/api/v1/models/{version.ref}/schema",
            },
        )


@router.get("")
def list_models(state: Opened, caller: ModelsKey, page: Paged) -> Listing[ModelView]:
    """Return the project's models, newest first."""
    query = select(ModelRecord).where(ModelRecord.project == caller.project)
    with state.database.read() as session:
        found = session.scalars(page.apply(query, ModelRecord.id))
        return Listing[ModelView].of([ModelView.of(session, model) for model in found], page)


@router.get("/{name}")
def get_model(name: str, state: Opened, caller: ModelsKey) -> ModelView:
    """Return a model."""
    with state.database.read() as session:
        return ModelView.of(session, models.get_model(session, caller.project, name))


@router.get("/{name}/versions")
def list_versions(name: str, state: Opened, caller: ModelsKey, page: Paged) -> Listing[VersionView]:
    """Return a model's versions, newest first."""
    with state.database.read() as session:
        model = models.get_model(session, caller.project, name)
        query = select(VersionRecord).where(VersionRecord.model_id == model.id)
        found = session.scalars(page.apply(query, VersionRecord.id)).all()
        views = [VersionView.of(session, Version(record, model)) for record in found]
        return Listing[VersionView].of(views, page)


@router.get("/{name}/versions/{number}")
def get_version(name: str, number: VersionNumber, state: Opened, caller: ModelsKey) -> VersionView:
    """Return a version."""
    with state.database.read() as session:
        model = models.get_model(session, caller.project, name)
        return VersionView.of(session, models.get_version(session, model, number))


@router.delete("/{name}/versions/{number}", status_code=204)
def delete_version(name: str, number: VersionNumber, state: Opened, caller: ModelsKey) -> None:
    """Delete a version that no alias points at and no job started from."""
    with state.database.write() as session:
        model = models.get_model(session, caller.project, name)
        models.remove_version(session, models.get_version(session, model, number))


class AliasRequest(Request):
    """Where an alias is to point."""

    version: VersionNumber


@router.put("/{name}/aliases/{alias}")
def set_alias(name: str, alias: ModelName, asked: AliasRequest, state: Opened, caller: ModelsKey) -> VersionView:
    """Point an alias at a version; requests for `name@alias` get it from now on."""
    with state.database.write() as session:
        version = models.set_alias(session, caller.project, name, alias, asked.version)
        session.flush()
        return VersionView.of(session, version)


@router.delete("/{name}/aliases/{alias}", status_code=204)
def delete_alias(name: str, alias: str, state: Opened, caller: ModelsKey) -> None:
    """Delete an alias."""
    with state.database.write() as session:
        models.remove_alias(session, caller.project, name, alias)


@router.get("/{name}/versions/{number}/lineage")
def lineage(name: str, number: VersionNumber, state: Opened, caller: ModelsKey) -> dict[str, Any]:
    """Return where a version came from: job, datasets with their digests, base model, seed, environment."""
    with state.database.read() as session:
        model = models.get_model(session, caller.project, name)
        return models.get_version(session, model, number).record.lineage


@router.get("/{name}/versions/{number}/files")
def list_files(name: str, number: VersionNumber, state: Opened, caller: ModelsKey) -> Listing[FileView]:
    """Return a version's files."""
    with state.database.read() as session:
        model = models.get_model(session, caller.project, name)
        view = VersionView.of(session, models.get_version(session, model, number))
    listing = Listing[FileView].of(view.files)
    listing.first_id = listing.last_id = None
    return listing


def _paths(state: Opened, caller: ModelsKey, name: str, number: int) -> dict[str, FilePath]:
    with state.database.read() as session:
        model = models.get_model(session, caller.project, name)
        version = models.get_version(session, model, number)
        files = models.files(session, version.record.id)
    return {path: state.artifacts.path(file.sha256) for path, file in files.items()}


@router.get("/{name}/versions/{number}/files/{path:path}", response_class=FileResponse)
def get_file(
    name: str, number: VersionNumber, path: str, request: HttpRequest, state: Opened, caller: ModelsKey
) -> FileResponse:
    """Return one file of a version; ranges are served. A picture is an SVG file that a page may show."""
    paths = _paths(state, caller, name, number)
    if path not in paths:
        raise NotFound(f'Version {name}:{number} has no file "{path}".', hint=f"Files: {', '.join(paths)}.")
    check_range(request, paths[path].stat().st_size)
    name = FilePath(path).name
    if path.startswith(models.PICTURES):
        return FileResponse(
            paths[path], media_type=_SVG, filename=name, content_disposition_type="inline", headers=_LOOKED_AT
        )
    return FileResponse(paths[path], media_type="application/octet-stream", filename=name, headers=_AS_IT_IS)


@router.get("/{name}/versions/{number}/download", response_class=StreamingResponse)
def download(name: str, number: VersionNumber, state: Opened, caller: ModelsKey) -> StreamingResponse:
    """Return all files of a version as a zip."""
    paths = _paths(state, caller, name, number)
    return StreamingResponse(
        _zip(paths),
        media_type="application/zip",
        headers={"Content-Disposition": f'attachment; filename="{name}-{number}.zip"'},
    )


class _Sink:
    """A file that only takes, and gives what it took: zipfile writes without seeking to such a one."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        """Take bytes."""
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing: there is nowhere to flush to."""

    def drain(self) -> bytes:
        """Give what was taken since last time."""
        data = b"".join(self._parts)
        self._parts.clear()
        return data


def _zip(paths: dict[str, FilePath]) -> Iterator[bytes]:
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for name, path in paths.items():
            with path.open("rb") as source, archive.open(name, "w") as target:
                while chunk := source.read(1 << 20):
                    target.write(chunk)
                    yield sink.drain()
    yield sink.drain()
