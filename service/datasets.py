"""Datasets: upload a file, learn what is in it and what is wrong with it, look at it, delete it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import IO, Annotated, Any, Literal, get_args

from anyio import to_thread
from fastapi import APIRouter, File, Form, Query, Response, UploadFile
from fastapi.responses import FileResponse
from pydantic import BaseModel, ValidationError

from learning.column_type import ColumnType
from learning.config import Split
from service.changes import Seen
from service.dependencies import DatasetsKey, IdempotencyKey, Listing, Paged, Wait
from service.errors import ApiError
from service.json_values import check_storable
from service.state import Opened, State
from service.times import rfc3339
from store import datasets, idempotency
from store.artifacts import CHUNK_BYTES
from store.datasets import PROCESSING, Dataset
from store.keys import Principal
from store.records import DatasetRecord

router = APIRouter(prefix="/datasets", tags=["datasets"])

OnBadRows = Literal["fail", "skip", "quarantine"]


class DatasetView(BaseModel):
    """A dataset as callers see it."""

    id: str
    object: Literal["dataset"] = "dataset"
    name: str
    filename: str
    status: Literal["processing", "ready", "invalid"]
    format: str | None
    format_reason: str | None
    encoding: str | None
    sha256: str
    bytes: int
    num_rows: int | None
    split: dict[str, Any] | None
    splits: dict[str, int] | None
    duplicates: dict[str, Any] | None
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
            encoding=known.get("encoding"),
            sha256=record.source_sha256,
            bytes=dataset.bytes,
            num_rows=known.get("num_rows"),
            split=record.options.get("split"),
            splits=known.get("splits"),
            duplicates=known.get("duplicates"),
            columns=known.get("columns", []),
            task_candidates=known.get("task_candidates", []),
            validation=known.get("validation"),
            warnings=known.get("warnings", []),
            progress=job.progress if dataset.status == PROCESSING else None,
            error=job.error,
            ingestion_job_id=job.id,
            created_at=rfc3339(record.created_at),
            metadata=record.user_metadata,
            urls={"self": url}
            | {name: f"{url}/{name}" for name in ("preview", "errors", "content")}
            | ({"quarantine": f"{url}/quarantine"} if record.quarantine_sha256 else {}),
        )


@router.post("", status_code=201)
def upload(
    state: Opened,
    caller: DatasetsKey,
    response: Response,
    file: Annotated[UploadFile, File(description="The file; its name's ending helps to tell the format.")],
    key: IdempotencyKey = None,
    name: Annotated[str | None, Form(min_length=1, max_length=200, description="Default: the file's name.")] = None,
    format: Annotated[str | None, Form(description="Default: seen from the content.")] = None,
    on_bad_rows: Annotated[OnBadRows, Form(description="What to do with rows that do not fit.")] = "fail",
    column_types: Annotated[str | None, Form(description="JSON object: column to type.")] = None,
    split: Annotated[str | None, Form(description="JSON object: the split of jobs that say nothing else.")] = None,
    metadata: Annotated[str | None, Form(description="JSON object, kept as it is.")] = None,
) -> DatasetView:
    """Store a file and queue its ingestion; poll the dataset until it is ready or invalid."""
    filename = file.filename or "upload"
    described = _json_object(metadata, "metadata")
    _require_storable({"name": name, "format": format, "file": filename})
    options = {
        "format": format,
        "on_bad_rows": on_bad_rows,
        "column_types": _column_types(column_types),
        "split": _split(split),
    }
    source = state.artifacts.write(_chunks(file.file), max_bytes=state.settings.max_upload_bytes)
    if source.bytes == 0:
        raise ApiError(422, "empty_file", f'The file "{filename}" is empty.', hint="Send its content.", param="file")
    request = idempotency.fingerprint(source.sha256, filename, name or "", json.dumps(options), metadata or "")
    with state.database.write() as session:
        earlier = idempotency.begin(session, caller.project, key, request) if key else None
        if earlier is not None:
            dataset = datasets.get(session, caller.project, earlier.resource_id or "")
        else:
            state.artifacts.register(session, source)
            dataset = datasets.create(
                session,
                project=caller.project,
                name=name or filename.rsplit(".", 1)[0],
                filename=filename,
                source=source,
                options=options,
                user_metadata=described,
            )
            if key:
                idempotency.finish(session, caller.project, key, dataset.record.id)
        session.refresh(dataset.record)
        view = DatasetView.of(dataset)
    state.sweeper.wake()
    response.headers["Location"] = view.urls["self"]
    return view


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    return iter(lambda: file.read(CHUNK_BYTES), b"")


def _json_object(text: str | None, param: str) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ApiError(422, "invalid_request", f"{param} is no JSON object.", hint='Send {"...": "..."}.', param=param)
    _require_storable({param: value})
    return value


def _column_types(text: str | None) -> dict[str, str]:
    known = get_args(ColumnType)
    types = _json_object(text, "column_types")
    for column, kind in types.items():
        if kind not in known:
            raise ApiError(
                422,
                "invalid_request",
                f'column_types: "{column}" is to be {json.dumps(kind)[:80]}, which is no type of column.',
                hint=f"Types: {', '.join(known)}.",
                param="column_types",
            )
    return types


def _split(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        return Split.model_validate(_json_object(text, "split")).model_dump(mode="json", exclude_unset=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(["split", *(str(part) for part in first["loc"])])
        message = f"{where}: {first['msg'].removeprefix('Value error, ')}."
        hint = f"Fields: {', '.join(Split.model_fields)}."
        raise ApiError(422, "invalid_request", message, hint=hint, param=where) from None


def _require_storable(fields: dict[str, Any]) -> None:
    try:
        check_storable(fields)
    except ValueError as error:
        raise ApiError(422, "invalid_request", f"{error}.", hint="Correct that value.") from None


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
    errors_by_rule: dict[str, int]
    errors: list[dict[str, Any]]


@router.get("/{dataset_id}/errors")
def row_errors(dataset_id: str, state: Opened, caller: DatasetsKey) -> RowErrors:
    """Return the first hundred errors with file, row, column, value and remedy, and how many of each kind there are."""
    with state.database.read() as session:
        known = datasets.get(session, caller.project, dataset_id).record.description or {}
    validation = known.get("validation") or {}
    return RowErrors(
        error_count=validation.get("error_count", 0),
        errors_by_rule=validation.get("errors_by_rule", {}),
        errors=validation.get("errors", []),
    )


@router.get("/{dataset_id}/content", response_class=FileResponse)
def content(dataset_id: str, state: Opened, caller: DatasetsKey) -> FileResponse:
    """Return the file as it was uploaded; ranges are served."""
    with state.database.read() as session:
        record = datasets.get(session, caller.project, dataset_id).record
    return FileResponse(
        state.artifacts.path(record.source_sha256), media_type="application/octet-stream", filename=record.filename
    )
