"""Datasets: upload a file, learn what is in it and what is wrong with it, look at it, delete it."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel

from service.changes import Seen
from service.dataset_requests import LONGEST_NAME, Asked, openapi_body, read_request
from service.dependencies import DatasetsKey, IdempotencyKey, Listing, Paged, Wait
from service.errors import ApiError
from service.state import Opened, State
from service.times import rfc3339
from store import datasets, idempotency, uploads
from store.datasets import PROCESSING, Dataset
from store.keys import Principal
from store.records import DatasetRecord

router = APIRouter(prefix="/datasets", tags=["datasets"])


class DatasetView(BaseModel):
    """A dataset as callers see it."""

    id: str
    object: Literal["dataset"] = "dataset"
    name: str
    filename: str
    status: Literal["processing", "ready", "invalid"]
    format: str | None
    format_reason: str | None
    sha256: str
    bytes: int
    num_rows: int | None
    columns: list[dict[str, Any]]
    task_candidates: list[dict[str, Any]]
    validation: dict[str, Any] | None
    warnings: list[Any]
    progress: dict[str, Any] | None
    error: dict[str, Any] | None
    ingestion_job_id: str
    created_at: str | None
    metadata: dict[str, Any]
    urls: dict[str, str]

    @classmethod
    def of(cls, dataset: Dataset) -> DatasetView:
        """Return the view of a dataset."""
        record, job = dataset.record, dataset.job
        known = record.description or {}
        url = f"/api/v1/datasets/{record.id}"
        return cls(
            id=record.id,
            name=record.name,
            filename=record.filename,
            status=dataset.status,
            format=known.get("format"),
            format_reason=known.get("format_reason"),
            sha256=record.source_sha256,
            bytes=dataset.bytes,
            num_rows=known.get("num_rows"),
            columns=known.get("columns", []),
            task_candidates=known.get("task_candidates", []),
            validation=known.get("validation"),
            warnings=known.get("warnings", []),
            progress=job.progress if dataset.status == PROCESSING else None,
            error=job.error,
            ingestion_job_id=job.id,
            created_at=rfc3339(record.created_at),
            metadata=record.user_metadata,
            urls={"self": url, "preview": f"{url}/preview", "errors": f"{url}/errors", "content": f"{url}/content"},
        )


@router.post("", status_code=201, openapi_extra=openapi_body())
async def upload(
    request: Request, state: Opened, caller: DatasetsKey, response: Response, key: IdempotencyKey = None
) -> DatasetView:
    """Store a file and queue its ingestion; poll the dataset until it is ready or invalid."""
    asked = await read_request(request, state)
    view = await to_thread.run_sync(_create, state, caller, key, asked)
    state.sweeper.wake()
    response.headers["Location"] = view.urls["self"]
    return view


def _create(state: State, caller: Principal, key: str | None, asked: Asked) -> DatasetView:
    wanted, came = asked.wanted, asked.source.sha256 if asked.source else ""
    fingerprint = idempotency.fingerprint(came, asked.filename or "", wanted.model_dump_json())
    with state.database.write() as session:
        earlier = idempotency.begin(session, caller.project, key, fingerprint) if key else None
        if earlier is not None:
            return DatasetView.of(datasets.get(session, caller.project, earlier.resource_id or ""))
        filename, source = asked.filename, asked.source
        if source is None or filename is None:
            filename, source = uploads.source(session, caller.project, wanted.upload_id or "")
        state.artifacts.register(session, source)
        dataset = datasets.create(
            session,
            project=caller.project,
            name=wanted.name or (filename.rsplit(".", 1)[0] or filename)[:LONGEST_NAME],
            filename=filename,
            source=source,
            options=wanted.options,
            user_metadata=wanted.metadata,
        )
        if key:
            idempotency.finish(session, caller.project, key, dataset.record.id)
        session.refresh(dataset.record)
        return DatasetView.of(dataset)


@router.get("")
def list_datasets(
    state: Opened,
    caller: DatasetsKey,
    page: Paged,
    name: str | None = None,
    status: Literal["processing", "ready", "invalid"] | None = None,
) -> Listing[DatasetView]:
    """Return the project's datasets, newest first."""
    with state.database.read() as session:
        query = datasets.listing(session, caller.project, name=name, status=status)
        rows = session.execute(page.apply(query, DatasetRecord.id)).all()
        return Listing[DatasetView].of([DatasetView.of(Dataset(*row)) for row in rows], page)


@router.get("/{dataset_id}")
async def get_dataset(dataset_id: str, state: Opened, caller: DatasetsKey, wait: Wait = 0) -> DatasetView:
    """Return a dataset; with `wait` not before its processing has ended or the time is over."""
    until = time.monotonic() + wait
    while True:
        view, job_id, seen = await to_thread.run_sync(_look, state, caller, dataset_id, limiter=state.pollers)
        left_s = until - time.monotonic()
        if view.status != PROCESSING or left_s <= 0:
            return view
        await state.changes.wait(job_id, seen, left_s)


def _look(state: State, caller: Principal, dataset_id: str) -> tuple[DatasetView, str, Seen]:
    with state.database.read() as session:
        dataset = datasets.get(session, caller.project, dataset_id)
        return DatasetView.of(dataset), dataset.job.id, Seen(dataset.job.last_sequence)


@router.delete("/{dataset_id}", status_code=204)
def delete_dataset(dataset_id: str, state: Opened, caller: DatasetsKey) -> None:
    """Delete a dataset that no unfinished job reads."""
    with state.database.write() as session:
        datasets.remove(session, caller.project, dataset_id)


class Preview(BaseModel):
    """The first rows of a dataset."""

    columns: list[str]
    rows: list[dict[str, Any]]


@router.get("/{dataset_id}/preview")
def preview(
    dataset_id: str, state: Opened, caller: DatasetsKey, rows: Annotated[int, Query(ge=1, le=100)] = 10
) -> Preview:
    """Return the first rows as training will see them."""
    import pyarrow as pa

    dataset = _ready(state, caller, dataset_id)
    path = state.artifacts.path(dataset.record.table_sha256 or "")
    with pa.memory_map(str(path)) as mapped:
        table = pa.ipc.open_file(mapped).read_all().slice(0, rows)
        return Preview(columns=table.column_names, rows=json.loads(json.dumps(table.to_pylist(), default=str)))


def _ready(state: State, caller: Principal, dataset_id: str) -> Dataset:
    with state.database.read() as session:
        dataset = datasets.get(session, caller.project, dataset_id)
    if dataset.record.table_sha256 is None:
        raise ApiError(
            409,
            "not_ready",
            f"Dataset {dataset_id} is {dataset.status}, not ready.",
            hint=f"Ask GET /api/v1/datasets/{dataset_id}?wait=30 until it is.",
        )
    return dataset


class RowErrors(BaseModel):
    """What is wrong with the uploaded file."""

    error_count: int
    errors: list[dict[str, Any]]


@router.get("/{dataset_id}/errors")
def row_errors(dataset_id: str, state: Opened, caller: DatasetsKey) -> RowErrors:
    """Return the first hundred errors with file, row, column, value and remedy, and how many there are."""
    with state.database.read() as session:
        known = datasets.get(session, caller.project, dataset_id).record.description or {}
    validation = known.get("validation") or {}
    return RowErrors(error_count=validation.get("error_count", 0), errors=validation.get("errors", []))


@router.get("/{dataset_id}/content", response_class=FileResponse)
def content(dataset_id: str, state: Opened, caller: DatasetsKey) -> FileResponse:
    """Return the file as it was uploaded; ranges are served."""
    with state.database.read() as session:
        record = datasets.get(session, caller.project, dataset_id).record
    return FileResponse(
        state.artifacts.path(record.source_sha256), media_type="application/octet-stream", filename=record.filename
    )
