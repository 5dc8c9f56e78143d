"""Prediction inputs as they are instead of JSON: a text, an image, a table, or several files in a form.

What a model takes is read off its input's JSON Schema: a string without more is a text, one with `contentMediaType` is
a file of such types, whose bytes go to the modality as they came, and an object is a row of a table.
"""

from __future__ import annotations

import csv
import io
import json
import mimetypes
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

import orjson
from anyio import to_thread
from fastapi import APIRouter, Request, Response
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile

from service.chosen_route import ChosenRoute, media_type
from service.computing import RequestTimeout, check_count, deadline, in_use, parse
from service.embeddings import embedded
from service.errors import ApiError, foreign_content
from service.predictions import Meant, NativeEvents, answer, opened_stream
from service.predictors import Loaded
from service.state import Opened, State

if TYPE_CHECKING:
    from learning.prediction import Parsed
from service.table_values import number

FORM, CSV, ANY = "multipart/form-data", "text/csv", "application/octet-stream"
LINES = ("application/jsonl", "application/x-ndjson", "application/x-jsonlines")
TAKEN = (FORM, ANY, *LINES, "text/*", "image/*", "audio/*", "video/*")
MOST_FILES = 1000
PARAMETERS = "parameters"
STREAM = "stream"  # of the address: whether to send events, as the field of a body in JSON says


class ContentRoute(ChosenRoute):
    """A route for bodies that are no JSON."""

    @staticmethod
    def is_for(headers: Headers) -> bool:
        """Return whether the body is a file, a form or a text."""
        kind = media_type(headers)
        return any(fnmatch(kind, one) for one in TAKEN)


router = APIRouter(prefix="/models", route_class=ContentRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Content:
    """One file, or a body that is one."""

    content: bytes
    media_type: str
    charset: str
    name: str

    @classmethod
    def of(cls, content: bytes, header: str, filename: str | None = None) -> Content:
        """Return what came with such a Content-Type; a file of an unknown type has the one that its name tells."""
        kind, options = parse_options_header(header)
        given = kind.decode("latin-1").lower()
        if given in ("", ANY) and filename:
            given = _type_of(filename)
        charset = options.get(b"charset", b"utf-8").decode("latin-1")
        return cls(content, given or ANY, charset, f'File "{filename}"' if filename else "The body")

    def inputs(self, schema: Mapping[str, Any]) -> list[Any]:
        """Return the inputs that are in it, for a model that takes inputs of this schema; 415 when it takes none."""
        forms = [form for form in (schema, *schema.get("anyOf", ())) if "type" in form]
        if any(_takes_file(form, self.media_type) for form in forms):
            return [self.content]
        if self.media_type in LINES:
            return list(self._values())
        row = next((form for form in forms if form["type"] == "object"), None)
        if row is not None and self.media_type == CSV:
            return list(self._rows(row))
        if any(map(_is_text, forms)) and (self.media_type.startswith("text/") or self.media_type == ANY):
            return [self._text()]
        raise foreign_content(self.media_type, "application/json", *_types(forms))

    def _text(self) -> str:
        try:
            return self.content.decode(self.charset)
        except (LookupError, UnicodeDecodeError):
            raise self._refused(f"is not text in {self.charset[:40]}", "Send UTF-8, or name its charset.") from None

    def _values(self) -> Iterator[Any]:
        for number_, line in enumerate(self._text().splitlines(), 1):
            if line.strip():
                try:
                    yield orjson.loads(line)
                except orjson.JSONDecodeError as error:
                    message = f"has a line {number_} that is no JSON: {error}"
                    raise self._refused(message, "Send an input on each line.") from None

    def _rows(self, row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        numbers = {name for name, field in row["properties"].items() if "number" in field.get("type", ())}
        lines = csv.reader(io.StringIO(self._text().removeprefix("\ufeff")), strict=True)
        try:
            header = next(lines, [])
            for cells in lines:
                if not cells:
                    continue
                if len(cells) != len(header):
                    message = f"has {len(cells)} cells in line {lines.line_num}, but {len(header)} columns"
                    raise self._refused(message, "Give each row a cell for each column.")
                pairs = zip(header, cells, strict=True)
                yield {name: number(cell) if name in numbers else cell or None for name, cell in pairs}
        except csv.Error as error:
            raise self._refused(f"is no CSV at line {lines.line_num}: {error}", "Quote cells that need it.") from None

    def _refused(self, what: str, hint: str) -> ApiError:
        return ApiError(422, "invalid_request", f"{self.name} {what}.", hint=hint, param="inputs")


def _type_of(filename: str) -> str:
    if filename.lower().endswith((".jsonl", ".ndjson")):
        return LINES[0]
    return mimetypes.guess_type(filename)[0] or ANY


def _takes_file(form: Mapping[str, Any], media_type: str) -> bool:
    wanted = form.get("contentMediaType")
    return wanted is not None and (media_type == ANY or fnmatch(media_type, wanted))


def _is_text(form: Mapping[str, Any]) -> bool:
    return bool(form["type"] == "string" and "contentMediaType" not in form)


def _types(forms: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for form in forms:
        if "contentMediaType" in form:
            yield form["contentMediaType"]
        elif form["type"] == "object":
            yield CSV
        elif form["type"] == "string":
            yield "text/plain"
    yield LINES[0]


@dataclass(frozen=True, slots=True)
class Given:
    """What a request without JSON asks."""

    files: list[Content]
    parameters: dict[str, Any]

    @classmethod
    async def read(cls, request: Request) -> Given:
        """Read a body to its end; parameters come with the address, and a form may have them as JSON too."""
        parameters = {name: _value(text) for name, text in request.query_params.items()}
        if media_type(request.headers) != FORM:
            header = request.headers.get("content-type", "")
            return cls([Content.of(await request.body(), header)], parameters)
        files = []
        async with request.form(max_files=MOST_FILES, max_fields=1) as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    files.append(Content.of(await value.read(), value.content_type or "", value.filename or name))
                else:
                    parameters |= _parameters(name, value)
        if not files:
            raise ApiError(422, "invalid_request", "The form has no file.", hint="With curl: -F file=@path/to/file.")
        return cls(files, parameters)


def _value(text: str) -> Any:
    """Return what a parameter of an address means: a number, true, false, null, or itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _parameters(name: str, text: str) -> dict[str, Any]:
    found = _value(text) if name == PARAMETERS else None
    if not isinstance(found, dict):
        raise ApiError(
            422,
            "invalid_request",
            f'The form\'s field "{name[:80]}" is no file'
            + (" and no JSON object." if name == PARAMETERS else f', and only "{PARAMETERS}" may be none.'),
            hint='Send files, each with a filename, and parameters={"...": ...} if any. With curl: -F file=@path.',
            param=name[:80],
        )
    return found


@router.post("/{ref}/predict")
async def predict_content(request: Request, state: Opened, meant: Meant, timeout_s: RequestTimeout = None) -> Response:
    """Answer for what is in a body that is no JSON."""
    given = await Given.read(request)
    if given.parameters.pop(STREAM, False) is True:

        async def read(loaded: Loaded) -> Parsed:
            options = loaded.predictor.options(given.parameters) if given.parameters else None
            return await parse(loaded, await inputs_of(given, loaded, state), options)

        return await opened_stream(state, meant, read, NativeEvents(meant), timeout_s)
    async with deadline(timeout_s), in_use(state, meant) as (loaded, load_ms):
        inputs = await inputs_of(given, loaded, state)
        body = await answer(meant, loaded, load_ms, inputs, given.parameters, request.receive)
    return Response(body, media_type="application/json", headers={"Model-State": "cold" if load_ms else "loaded"})


@router.post("/{ref}/embed")
async def embed_content(
    request: Request, state: Opened, meant: Meant, timeout_s: RequestTimeout = None, *, normalize: bool = False
) -> Response:
    """Embed what is in a body that is no JSON."""
    given = await Given.read(request)
    async with deadline(timeout_s), in_use(state, meant) as (loaded, load_ms):
        inputs = await inputs_of(given, loaded, state)
        body = await embedded(meant, loaded, load_ms, inputs, normalize, request.receive)
    return Response(body, media_type="application/json", headers={"Model-State": "cold" if load_ms else "loaded"})


async def inputs_of(given: Given, loaded: Loaded, state: State) -> list[Any]:
    """Return the inputs that a body has for a model, at least one."""
    design = loaded.predictor.design
    schema = design.modality.schema(design.inputs)
    inputs = await to_thread.run_sync(lambda: [value for file in given.files for value in file.inputs(schema)])
    if not inputs:
        raise ApiError(422, "invalid_request", "The body has no input.", hint="Send at least one.", param="inputs")
    check_count(inputs, state)
    return inputs
