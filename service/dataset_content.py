"""What is in a dataset: its rows, its schema, what is wrong with it, its file, and how it differs from another."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from service.authorization import authorize
from service.dataset_views import validation_of
from service.dependencies import Authorization, DatasetsKey
from service.errors import ApiError
from service.library import importing, read_design
from service.ranges import check_range
from service.state import Opened, State
from store import datasets, models
from store.datasets import Dataset
from store.keys import Principal

if TYPE_CHECKING:
    from learning.model import Design

router = APIRouter(prefix="/datasets/{dataset_id}", tags=["datasets"])

Seed = Annotated[int, Query(ge=0, le=2**63 - 1, description="Another seed shows other random rows.")]


def _ready(state: State, caller: Principal, dataset_id: str) -> tuple[Dataset, Path]:
    """Return a dataset and its table; 409 while there is none."""
    with state.database.read() as session:
        dataset = datasets.get(session, caller.project, dataset_id)
    if dataset.record.table_sha256 is None:
        raise ApiError(
            409,
            "not_ready",
            f"Dataset {dataset_id} is {dataset.status}, not ready.",
            hint=f"Ask GET /api/v1/datasets/{dataset_id}?wait=30 until it is.",
        )
    return dataset, state.artifacts.path(dataset.record.table_sha256)


class Preview(BaseModel):
    """Some rows of a dataset, in its order; `indices` says which, from 0."""

    columns: list[str]
    rows: list[dict[str, Any]]
    indices: list[int]
    seen: list[dict[str, Any]] | None = Field(
        None,
        description="What the model sees of each row, if one was named: its `tokens`, its `features` by column or its "
        "`image` as a data URL, with `warnings`; or an `error`.",
    )


@router.get("/preview", response_model_exclude_unset=True)
def preview(
    dataset_id: str,
    state: Opened,
    caller: DatasetsKey,
    rows: Annotated[int, Query(ge=1, le=100)] = 10,
    sample: Annotated[Literal["first", "random"], Query(description="Which rows.")] = "first",
    seed: Seed = 0,
    model: Annotated[str | None, Query(description="Show what this model sees of the rows as well.")] = None,
    authorization: Authorization = "",
) -> Preview:
    """Return the first rows, or some at random; with a model, which takes the scope models, also as it reads them."""
    with importing:
        from learning.dataset_preview import preview_rows, seen_rows

    _, path = _ready(state, caller, dataset_id)
    shown = Preview(**preview_rows(path, rows, seed if sample == "random" else None))
    if model is not None:
        shown.seen = seen_rows(path, shown.indices, _design(state, caller, model, authorization))
    return shown


def _design(state: State, caller: Principal, ref: str, authorization: str) -> Design:
    with state.database.read() as session:
        authorize(session.connection(), authorization, "models")
        version = models.resolve(session, caller.project, ref)
        return read_design(state.artifacts, models.files(session, version.record.id))


class Schema(BaseModel):
    """The columns of a dataset, and the JSON Schema of one of its rows."""

    columns: list[dict[str, Any]]
    json_schema: dict[str, Any]


@router.get("/schema")
def dataset_schema(dataset_id: str, state: Opened, caller: DatasetsKey) -> Schema:
    """Return the columns' names and types, and a JSON Schema that every row fits."""
    with importing:
        from learning.dataset_preview import row_schema

    dataset, _ = _ready(state, caller, dataset_id)
    columns = (dataset.record.description or {}).get("columns", [])
    shown = [{field: column.get(field) for field in ("name", "type", "nullable")} for column in columns]
    return Schema(columns=shown, json_schema=row_schema(shown))


class ColumnsDifference(BaseModel):
    """Columns by name; `retyped` and the statistics in `changed` as [before, after]."""

    added: list[str]
    removed: list[str]
    retyped: dict[str, list[Any]]
    changed: dict[str, dict[str, list[Any]]]


class RowsDifference(BaseModel):
    """Rows, told apart by the columns that both datasets have with the same type; none: `added` is null."""

    before: int
    after: int
    compared_columns: list[str]
    added: int | None
    removed: int | None


class Difference(BaseModel):
    """What changed from the dataset `against` to this one."""

    dataset: str
    against: str
    columns: ColumnsDifference
    rows: RowsDifference


@router.get("/diff")
def difference(dataset_id: str, against: str, state: Opened, caller: DatasetsKey) -> Difference:
    """Say what changed from another dataset, such as the version before, to this one."""
    with importing:
        from learning.dataset_difference import columns_difference, rows_difference

    (new, new_path), (old, old_path) = (_ready(state, caller, one) for one in (dataset_id, against))
    before, after = old.record.description or {}, new.record.description or {}
    with tempfile.TemporaryDirectory(prefix="anneal-diff-") as scratch:
        found = rows_difference(old_path, new_path, Path(scratch))
    return Difference(
        dataset=new.record.id,
        against=old.record.id,
        columns=ColumnsDifference(**columns_difference(before.get("columns", []), after.get("columns", []))),
        rows=RowsDifference(
            before=before.get("num_rows", 0),
            after=after.get("num_rows", 0),
            compared_columns=found.columns if found else [],
            added=found.added if found else None,
            removed=found.removed if found else None,
        ),
    )


class RowErrors(BaseModel):
    """What is wrong with the uploaded file."""

    error_count: int
    errors_by_rule: dict[str, int]
    errors: list[dict[str, Any]]


@router.get("/errors")
def row_errors(dataset_id: str, state: Opened, caller: DatasetsKey) -> RowErrors:
    """Return the first hundred errors with file, row, column, value and remedy, and how many of each kind there are."""
    with state.database.read() as session:
        validation = validation_of(datasets.get(session, caller.project, dataset_id)) or {}
    return RowErrors(
        error_count=validation.get("error_count", 0),
        errors_by_rule=validation.get("errors_by_rule", {}),
        errors=validation.get("errors", []),
    )


@router.get("/content", response_class=FileResponse)
def content(dataset_id: str, request: Request, state: Opened, caller: DatasetsKey) -> FileResponse:
    """Return the file as it was uploaded; ranges are served."""
    with state.database.read() as session:
        record = datasets.get(session, caller.project, dataset_id).record
    path = state.artifacts.path(record.source_sha256)
    check_range(request, path.stat().st_size)
    return FileResponse(path, media_type="application/octet-stream", filename=record.filename)
