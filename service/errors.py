"""Every error as RFC 9457 problem+json: what, where, the value, the fix. No traceback reaches a caller."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import IntegrityError, OperationalError
from starlette.exceptions import HTTPException

from learning import errors as learning_errors
from learning.config import field_names, what_is_wrong
from service.error_forms import written
from store import errors as store_errors

log = structlog.get_logger(__name__)

# Paths whose bodies are inputs of a model, for which there is another way than a body.
_PREDICTIONS = re.compile(r"/models/.+/(predict|infer)$|^/hf/models/")


class ApiError(Exception):
    """An error of the HTTP edge itself."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        hint: str | None = None,
        param: str | None = None,
        retry_after_s: int | None = None,
        errors: Sequence[dict[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint
        self.param = param
        self.retry_after_s = retry_after_s
        self.errors = list(errors)
        self.headers = dict(headers or {})


class ClientGone(Exception):
    """Whoever asked has closed the connection; nobody reads the answer."""


# The one table from what went wrong to a status; the most special class of an error that is listed decides.
STATUS: dict[type[Exception], int] = {
    store_errors.NotFound: 404,
    store_errors.Conflict: 409,
    store_errors.IdempotencyMismatch: 422,
    store_errors.UnknownReference: 422,
    store_errors.TooLarge: 413,
    store_errors.StoreError: 500,
    learning_errors.LearningError: 422,
}


def problem(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    hint: str | None = None,
    param: str | None = None,
    errors: Sequence[dict[str, Any]] = (),
    retry_after_s: int | None = None,
) -> Response:
    """Return a problem document."""
    body = {
        "type": f"urn:anneal:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": request.url.path,
        "code": code,
        "param": param,
        "hint": hint,
        "retryable": status in (429, 503),
        "request_id": request.scope.get("request_id"),
        "errors": list(errors),
    }
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s is not None else {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if status == HTTPStatus.CONFLICT and retry_after_s is None:
        headers["x-should-retry"] = "false"
    content, kind = written(request.url.path, body)
    return Response(content, status, headers, media_type=kind)


def install(app: FastAPI) -> None:
    """Answer every error of the application with a problem."""
    for kind, handler in _handlers().items():
        app.add_exception_handler(kind, handler)


async def response_to(request: Request, error: Exception) -> Response:
    """Return what the application answers to an error, for one that came up beside it."""
    handlers = _handlers()
    return await next(handlers[kind] for kind in type(error).__mro__ if kind in handlers)(request, error)


def _handlers() -> dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]]:
    return {
        ApiError: _api_error,
        ClientGone: _client_gone,
        store_errors.StoreError: _known_error,
        learning_errors.LearningError: _known_error,
        RequestValidationError: _validation_error,
        HTTPException: _http_error,
        OperationalError: _database_error,
        OSError: _file_error,
        IntegrityError: _lost_race,
        Exception: _unexpected,
    }


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    response = problem(
        request,
        error.status,
        error.code,
        error.message,
        hint=error.hint,
        param=error.param,
        errors=error.errors,
        retry_after_s=error.retry_after_s,
    )
    response.headers.update(error.headers)
    return response


async def _client_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # as nginx has it; it reaches nobody


async def _known_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, store_errors.StoreError | learning_errors.LearningError)
    status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    return problem(request, status, error.code, error.message, hint=error.hint, param=error.param)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if found[0]["type"] == "json_invalid":
        return _malformed_json(request, found[0])
    if _is_foreign_content(request, found):
        return await _api_error(request, foreign_content(request.headers.get("content-type", ""), "application/json"))
    errors = field_errors(found)
    first = errors[0]
    more = f" And {len(errors) - 1} more." if len(errors) > 1 else ""
    return problem(
        request,
        422,
        "invalid_request",
        first["message"] + more,
        param=first["pointer"].strip("/").replace("/", ".") or None,
        hint=_known_fields(request, first) or "See /docs for what this request takes.",
        errors=errors,
    )


def _malformed_json(request: Request, item: dict[str, Any]) -> Response:
    reason = item.get("ctx", {}).get("error", "cannot be read")
    return problem(
        request,
        422,
        "malformed_json",
        f"The body is no JSON: {reason} at character {item['loc'][-1]}.",
        hint="Correct the body there; a JSON parser shows the place.",
    )


def _is_foreign_content(request: Request, found: Sequence[dict[str, Any]]) -> bool:
    """Return whether a body came with a content type by which it could not be read at all."""
    length = request.headers.get("content-length", "")
    if length == "0" or (not length and "transfer-encoding" not in request.headers):
        return False
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return all(item["loc"] == ("body",) for item in found) and not (
        kind == "application/json" or kind.endswith("+json")
    )


def foreign_content(kind: str, *wanted: str) -> ApiError:
    """Return the error for a body of a content type that a path does not take."""
    taken = " or ".join(wanted)
    return ApiError(
        415,
        "unsupported_media_type",
        f'This path takes {taken}, not "{_cut(kind)}".' if kind else f"The body has no Content-Type; {taken} is taken.",
        # A header alone does not make a form of a body.
        hint="Send a form (multipart/form-data) with the file as its field file; with curl: -F file=@path/to/file."
        if wanted[0] == "multipart/form-data"
        else f'Send "Content-Type: {wanted[0]}".',
        param="Content-Type",
    )


def _known_fields(request: Request, error: dict[str, Any]) -> str | None:
    """Return a hint that lists the fields beside one that does not exist, as the OpenAPI document has them."""
    if error["code"] != "extra_forbidden":
        return None
    body = _operations(request).get(request.method.lower(), {}).get("requestBody", {})
    schema = body.get("content", {}).get("application/json", {}).get("schema", {})
    *path, unknown = error["pointer"].strip("/").split("/")
    fields = _fields(request, schema)
    for name in path:
        fields = _fields(request, fields.get(name, {}))
    known = list(fields)
    return f"Fields: {', '.join(known)}.{learning_errors.did_you_mean(unknown, known)}" if known else None


def _fields(request: Request, schema: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of an object that a schema refers to, by itself or as one of its alternatives."""
    references = [option["$ref"] for option in [schema, *schema.get("anyOf", [])] if "$ref" in option]
    named = request.app.openapi()["components"]["schemas"]
    found: dict[str, Any] = named[references[0].rsplit("/", 1)[-1]].get("properties", {}) if references else {}
    return found


def field_errors(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what pydantic found, one entry for each place in the body."""
    return _by_pointer([_field_error(item) for item in found])


def _by_pointer(errors: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one error per place: the first alternative's, since the others only say that it was not them either."""
    return list({error["pointer"]: error for error in reversed(errors)}.values())[::-1]


def _field_error(item: dict[str, Any]) -> dict[str, Any]:
    place, *path = item["loc"]
    names = field_names(path)
    where = ".".join(names) or str(place)
    value = item.get("input")
    without_value = item["type"] == "missing" or isinstance(value, dict | list)
    shown = "" if without_value else f" Got {_shown(value)}."
    return {
        "code": item["type"],
        "message": f"{where}: {_in_words(item)}.{shown}",
        "pointer": "/" + "/".join(names),
        "value": None if without_value else _shown(value),
    }


def _in_words(item: dict[str, Any]) -> str:
    """Return pydantic's message without its own terms, which the caller has never heard of."""
    if item["type"] == "extra_forbidden":
        return "there is no such field"
    return what_is_wrong(item["msg"]).replace("dictionary or object to extract fields from", "JSON object")


def _shown(value: Any) -> str:
    plain = value is None or isinstance(value, bool)
    return _cut(f'"{value}"' if isinstance(value, str) else json.dumps(value) if plain else str(value))


def _cut(text: str) -> str:
    # Half of a surrogate pair, which JSON can spell, cannot be written in UTF-8.
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 80 else text[:77] + "..."


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    codes = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "unsupported_media_type"}
    hints = {
        404: "See /docs for the paths there are.",
        413: "Send a smaller body, or raise ANNEAL_MAX_UPLOAD_BYTES or ANNEAL_MAX_BODY_BYTES on the server.",
    }
    if _PREDICTIONS.search(request.url.path):
        hints[413] = (
            "Send less at a time, or raise ANNEAL_MAX_BODY_BYTES on the server; or upload the inputs as a dataset, "
            "whose rows a job of the kind predict answers: POST /api/v1/models/{ref}/predict-dataset."
        )
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods(request))
        hints[405] = f"Allowed here: {headers['Allow']}."
    details = {
        400: "The body cannot be read: it is nested too deeply, not UTF-8, or broken off.",
        404: f"No such path: {request.url.path}.",
        405: f"{request.method} is not allowed on {request.url.path}.",
        413: "The body is larger than this path takes.",
    }
    response = problem(
        request,
        error.status_code,
        codes.get(error.status_code, "invalid_request"),
        details.get(error.status_code, str(error.detail)),
        hint=hints.get(error.status_code),
    )
    response.headers.update(headers)
    return response


def _methods(request: Request) -> list[str]:
    """Return what the path takes; the router itself names only its first endpoint's methods."""
    return sorted(method.upper() for method in _operations(request))


def _operations(request: Request) -> dict[str, Any]:
    """Return what the OpenAPI document says of the request's path, by method."""
    paths = request.app.openapi()["paths"]
    return {
        method: operation
        for template, methods in paths.items()
        if re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", template), request.url.path)
        for method, operation in methods.items()
    }


async def _file_error(request: Request, error: Exception) -> Response:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _storage_full(request, error)
    return await _unexpected(request, error)


def _storage_full(request: Request, error: Exception) -> Response:
    log.error("the disk is full", error=str(error))
    return problem(
        request,
        507,
        "storage_full",
        "The server's disk is full; nothing was changed.",
        hint="Delete datasets or models that nobody needs, or have the operator make room; then try again.",
    )


async def _database_error(request: Request, error: Exception) -> Response:
    if any(sign in str(error) for sign in ("disk is full", "No space left", "could not extend file")):
        return _storage_full(request, error)
    log.error("database unavailable", error=str(error))
    return problem(
        request, 503, "database_unavailable", "The database does not answer; nothing was changed.", retry_after_s=2
    )


async def _lost_race(request: Request, error: Exception) -> Response:
    log.warning("constraint violated", error=str(error))
    return problem(
        request,
        409,
        "conflict",
        "Something that this request refers to was changed or deleted at the same time; nothing was changed.",
        hint="Look at it again, then repeat the request if it still makes sense.",
    )


async def _unexpected(request: Request, error: Exception) -> Response:
    # The server logs the traceback itself once this handler has answered.
    log.error("unexpected error", error=repr(error), request_id=request.scope.get("request_id"))
    return problem(
        request,
        500,
        "internal_error",
        "Something went wrong on the server; the details are in its log.",
        hint="Tell the operator the request_id.",
    )
