"""What a caller sends to make a dataset: a form with a file, or the upload that brought it; read as it comes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from anyio import to_thread
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, Field, StringConstraints, ValidationError
from sqlalchemy.orm import Session

from learning.column_type import ColumnType
from learning.config import Split
from service.errors import ApiError, foreign_content
from service.job_requests import StoredRequest
from service.json_values import check_storable
from service.library import importing
from service.multipart import Form, read_form
from service.state import State
from service.streaming import body_of, opened
from store import datasets
from store.artifacts import Artifact
from store.datasets import Dataset

LONGEST_FILENAME = 255
LONGEST_NAME = 200
_JSON_FIELDS = ("column_types", "split", "metadata")
_FORM, _JSON = "multipart/form-data", "application/json"


# Nothing that a comma, a query or JSON would have to escape.
Tag = Annotated[str, StringConstraints(pattern="^[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}$")]


def _once(tags: list[str]) -> list[str]:
    return list(dict.fromkeys(tags))


Tags = Annotated[list[Tag], Field(max_length=32), AfterValidator(_once)]


class DatasetChange(StoredRequest):
    """What of a dataset can be changed; what is left out stays."""

    name: str | None = Field(None, min_length=1, max_length=LONGEST_NAME)
    tags: Tags | None = None
    metadata: dict[str, Any] | None = None


class UploadOptions(StoredRequest):
    """How an uploaded file is read, whatever its format."""

    on_bad_rows: Literal["fail", "skip", "quarantine"] = Field(
        "fail", description="What to do with rows that do not fit."
    )
    column_types: dict[str, ColumnType] = Field(default_factory=dict, description="Types that are not to be guessed.")
    split: Split | None = Field(None, description="The split of jobs that say nothing else.")


class DatasetCreate(UploadOptions):
    """What a dataset is made of, and how; in a form, objects are written as JSON."""

    upload_id: str | None = Field(None, max_length=40, description="A completed upload, instead of a file.")
    name: str | None = Field(None, min_length=1, max_length=LONGEST_NAME, description="Default: the file's name.")
    format: str | None = Field(None, description="Default: seen from the content.")
    tags: Tags = Field(default_factory=list, description="Words to find it by; in a form, with commas between.")
    metadata: dict[str, Any] = Field(default_factory=dict, description="Kept as it is.")

    @property
    def options(self) -> dict[str, Any]:
        """How the file is to be read, for the job that reads it."""
        split = self.split.model_dump(mode="json", exclude_unset=True) if self.split else None
        return {**self.model_dump(include={"format", "on_bad_rows", "column_types"}), "split": split}


def openapi_body() -> dict[str, Any]:
    """Return the request's description: a form with a file, or JSON with an upload."""
    schema = DatasetCreate.model_json_schema(ref_template="#/components/schemas/{model}")
    del schema["$defs"]  # a job has a split too, so it is among the components
    about = "The file; its name's ending helps to tell the format."
    file = {"type": "string", "format": "binary", "description": about}
    form = {**schema, "properties": {"file": file, **schema["properties"]}}
    return {"requestBody": {"required": True, "content": {_FORM: {"schema": form}, _JSON: {"schema": schema}}}}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was read: what is wanted, and the file if it came with it."""

    wanted: DatasetCreate
    filename: str | None
    source: Artifact | None


async def read_request(request: Request, state: State) -> Asked:
    """Read a body of either kind; a file in it is stored as it comes, and counted against the cap."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == _FORM:
        return await _form(request, state)
    if kind == _JSON:
        return Asked(_checked(await _json_body(request, state.settings.max_body_bytes)), None, None)
    raise foreign_content(request.headers.get("content-type", ""), _FORM, _JSON)


async def _form(request: Request, state: State) -> Asked:
    async with opened(state.artifacts.receive(max_bytes=state.settings.max_upload_bytes)) as file:
        form = await read_form(request, file)
        if "file" in form.fields:
            step = "With curl: -F file=@path/to/file."
            raise _wrong(f"file: a file is wanted, not text. {step}", step, "file")
        if form.filename is None and "upload_id" not in form.fields:
            raise _missing("file")
        wanted = from_fields(form.fields)
        _check_file(form, wanted, file.bytes)
        if form.filename is None:
            return Asked(wanted, None, None)
        return Asked(wanted, form.filename, await to_thread.run_sync(state.artifacts.keep, file))


def from_fields(fields: Mapping[str, str]) -> DatasetCreate:
    """Return what a form's fields say, in which objects are written as JSON."""
    return _checked({name: _parsed(name, text) for name, text in fields.items()})


def require_format(name: str | None) -> None:
    """Raise UnknownName for a format that there is not; not to be called on the event loop."""
    if name is not None:
        with importing:
            from learning.formats import format_named  # pyarrow comes with it
        format_named(name)


def made(session: Session, project: str, wanted: DatasetCreate, filename: str, source: Artifact) -> Dataset:
    """Write the dataset that stored bytes are to be, and its ingestion."""
    dataset = datasets.create(
        session,
        project=project,
        name=wanted.name or (filename.rsplit(".", 1)[0] or filename)[:LONGEST_NAME],
        filename=filename,
        source=source,
        options=wanted.options,
        user_metadata=wanted.metadata,
        tags=wanted.tags,
    )
    session.refresh(dataset.record)
    return dataset


def _check_file(form: Form, wanted: DatasetCreate, size: int) -> None:
    if form.filename is None:
        return
    if wanted.upload_id is not None:
        raise _wrong("The form has a file and an upload_id.", "Send one of them.", "upload_id")
    if len(form.filename) > LONGEST_FILENAME:
        raise _wrong(f"The file's name has more than {LONGEST_FILENAME} characters.", "Send a shorter one.", "file")
    _require_storable({"file": form.filename})
    if size == 0:
        raise ApiError(
            422, "empty_file", f'The file "{form.filename}" is empty.', hint="Send its content.", param="file"
        )


async def _json_body(request: Request, max_bytes: int) -> dict[str, Any]:
    body = bytearray()
    async for chunk in body_of(request):
        body += chunk
        if len(body) > max_bytes:
            raise ApiError(
                413,
                "too_large",
                f"The body is larger than {max_bytes} bytes.",
                hint="Send a file as a form, or in parts.",
            )
    value = _object(body.decode("utf-8", "replace"), "The body", None)
    if not value.get("upload_id"):
        raise _missing("upload_id")
    return value


def _parsed(name: str, text: str) -> Any:
    """Return the value of a form's field: an object or a list where the field is one."""
    if name == "tags":
        return [tag.strip() for tag in text.split(",") if tag.strip()]
    return _object(text, name, name) if name in _JSON_FIELDS else text


def _object(text: str, called: str, param: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _wrong(f"{called} is no JSON object.", 'Send {"...": "..."}.', param)
    return value


def _checked(fields: dict[str, Any]) -> DatasetCreate:
    _require_storable(fields)
    _check_types(fields.get("column_types"))
    try:
        return DatasetCreate.model_validate(fields)
    except ValidationError as error:
        found = [{**item, "loc": ("body", *item["loc"])} for item in error.errors(include_url=False)]
        raise RequestValidationError(found) from None


def _check_types(given: Any) -> None:
    """Name the column whose type there is not: among fields of a request, a column's name could be taken for a type."""
    known = get_args(ColumnType)
    for column, kind in given.items() if isinstance(given, dict) else ():
        if kind not in known:
            raise _wrong(
                f'column_types: "{column[:80]}" is to be {json.dumps(kind)[:80]}, which is no type of column.',
                f"Types: {', '.join(known)}.",
                "column_types",
            )


def _require_storable(fields: dict[str, Any]) -> None:
    try:
        check_storable(fields)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"{error}.", "Correct that value.") from None


def _missing(field: str) -> RequestValidationError:
    return RequestValidationError([{"type": "missing", "loc": ("body", field), "msg": "Field required"}])


def _wrong(message: str, hint: str, param: str | None = None) -> ApiError:
    return ApiError(422, "invalid_request", message, hint=hint, param=param)
