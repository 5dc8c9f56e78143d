"""Files for a gallery as they are instead of JSON: one as the body, or several in a form.

What else a request says are fields of the form, or of the address.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Generic, TypeVar

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile

from service.chosen_route import media_type
from service.computing import RequestTimeout, deadline
from service.dependencies import IdempotencyKey, ModelsKey, PredictKey
from service.errors import ApiError
from service.gallery_questions import (
    IdentifyFields,
    IdentifyResponse,
    VerifyFields,
    VerifyResponse,
    identified,
    verified,
)
from service.gallery_subjects import EnrolledView, Enrolment, SubjectFields, acquaintance, enrolled, newcomer
from service.input_bodies import FORM, MOST_FILES, Content, ContentRoute
from service.job_requests import Request
from service.predictors import Loaded
from service.state import Opened

router = APIRouter(prefix="/galleries/{gallery}", route_class=ContentRoute, include_in_schema=False)

T = TypeVar("T", bound=BaseModel)
_MOST_FIELDS = 8


class NoFields(Request):
    """Nothing but files."""


@dataclass(frozen=True, slots=True)
class _Given(Generic[T]):
    """A body that was read to its end: its fields, checked, and its files, which a model says how to take."""

    fields: T
    files: list[Content]

    def read(self, loaded: Loaded) -> list[Any]:
        """Return the inputs."""
        return _inputs(self.files, loaded)

    def parts(self) -> tuple[str, ...]:
        """Return what tells it from others."""
        return (self.fields.model_dump_json(), *(sha256(file.content).hexdigest() for file in self.files))


async def _given(request: HttpRequest, schema: type[T]) -> _Given[T]:
    fields: dict[str, Any] = dict(request.query_params)
    files: list[Content] = []
    if media_type(request.headers) == FORM:
        async with request.form(max_files=MOST_FILES, max_fields=_MOST_FIELDS) as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    files.append(Content.of(await value.read(), value.content_type or "", value.filename or name))
                else:
                    fields[name] = value
    else:
        files.append(Content.of(await request.body(), request.headers.get("content-type", "")))
    if not files:
        raise ApiError(422, "invalid_request", "The form has no file.", hint="With curl: -F file=@path/to/file.")
    return _Given(_checked(fields, schema), files)


def _checked(fields: dict[str, Any], schema: type[T]) -> T:
    try:
        if "metadata" in fields:
            fields["metadata"] = _value(fields["metadata"])
        return schema.model_validate(fields)
    except ValidationError as error:
        raise RequestValidationError([{**one, "loc": ("fields", *one["loc"])} for one in error.errors()]) from None


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # also of a number with too many digits
        raise ApiError(
            422, "invalid_request", f"metadata is no JSON: {error}.", hint="Send a JSON object.", param="metadata"
        ) from None


def _inputs(files: Sequence[Content], loaded: Loaded) -> list[Any]:
    design = loaded.predictor.design
    schema = design.modality.schema(design.inputs)
    inputs = [value for file in files for value in file.inputs(schema)]
    if not inputs:
        raise ApiError(422, "invalid_request", "The body has no input.", hint="Send at least one.", param="inputs")
    return inputs


@router.post("/subjects", status_code=201)
async def enrol_content(
    gallery: str, request: HttpRequest, state: Opened, caller: ModelsKey, key: IdempotencyKey = None
) -> EnrolledView:
    """Enrol a subject by what is in a body that is no JSON."""
    given = await _given(request, SubjectFields)
    enrolment = Enrolment(caller, gallery, newcomer(given.fields), key, lambda: ("enrol", gallery, *given.parts()))
    return await enrolled(state, enrolment, given.read, request.receive)


@router.post("/subjects/{subject_id}/samples", status_code=201)
async def add_content(
    gallery: str, subject_id: str, request: HttpRequest, state: Opened, caller: ModelsKey, key: IdempotencyKey = None
) -> EnrolledView:
    """Enrol a subject by further files that are in a body that is no JSON."""
    given = await _given(request, NoFields)

    def same() -> tuple[str, ...]:
        return "samples", gallery, subject_id, *given.parts()

    enrolment = Enrolment(caller, gallery, acquaintance(subject_id), key, same)
    return await enrolled(state, enrolment, given.read, request.receive)


@router.post("/identify")
async def identify_content(
    gallery: str, request: HttpRequest, state: Opened, caller: PredictKey, timeout_s: RequestTimeout = None
) -> IdentifyResponse:
    """Answer whom the files of a body that is no JSON show."""
    given = await _given(request, IdentifyFields)
    async with deadline(timeout_s):
        return await identified(state, caller.project, gallery, given.read, given.fields, request.receive)


@router.post("/verify")
async def verify_content(
    gallery: str, request: HttpRequest, state: Opened, caller: PredictKey, timeout_s: RequestTimeout = None
) -> VerifyResponse:
    """Answer whether the files of a body that is no JSON are the same, or one is the subject that is named."""
    given = await _given(request, VerifyFields)
    async with deadline(timeout_s):
        return await verified(state, caller.project, gallery, given.read, given.fields, request.receive)
