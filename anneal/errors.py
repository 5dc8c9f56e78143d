"""What can go wrong between a caller and the service, each with a message that can be shown as it is."""

from collections.abc import Mapping
from typing import Any

SHOWN_ROW_ERRORS = 10


class AnnealError(Exception):
    """Something asked for did not happen; `str(error)` says what, where and how to put it right."""

    def __init__(self, message: str, *, status: int | None = None, problem: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.problem = dict(problem or {})

    @property
    def code(self) -> str | None:
        """The stable code of the problem, as the service names it."""
        return self.problem.get("code")

    @property
    def param(self) -> str | None:
        """The request's field that is at fault, if one is."""
        return self.problem.get("param")

    @property
    def hint(self) -> str | None:
        """What to do about it."""
        return self.problem.get("hint")

    @property
    def request_id(self) -> str | None:
        """The id under which the service logged the request."""
        return self.problem.get("request_id")

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The single errors, each with code, message and where: pointer, file, row, column, value."""
        return list(self.problem.get("errors") or [])


class InvalidRequest(AnnealError):
    """The request cannot be carried out as it stands (400, 422 and other 4xx)."""


class Unauthorized(AnnealError):
    """The key is missing, unknown, expired or revoked (401)."""


class PermissionDenied(AnnealError):
    """The key lacks the scope that this request needs (403)."""


class NotFound(AnnealError):
    """There is no such dataset, job, model, version or key (404)."""


class Conflict(AnnealError):
    """The request does not fit the present state of the object (409, 412)."""


class TooLarge(AnnealError):
    """The body is larger than the service takes (413)."""


class RateLimited(AnnealError):
    """Too many requests, and waiting for the retries did not help (429)."""


class ServerError(AnnealError):
    """The service failed, and the retries did not help (5xx)."""


class ConnectionFailed(AnnealError):
    """The service could not be reached."""


class JobFailed(AnnealError):
    """A job that was waited for has failed; `job` is its last state."""

    job: Any = None


class DatasetInvalid(AnnealError):
    """A dataset that was waited for did not pass validation; `dataset` is its last state."""

    dataset: Any = None


class WaitTimeout(AnnealError, TimeoutError):
    """What was waited for has not ended within the given time; it goes on in the service."""


BY_CODE: dict[str, type[AnnealError]] = {"dataset_invalid": DatasetInvalid}
BY_STATUS: dict[int, type[AnnealError]] = {
    401: Unauthorized,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    412: Conflict,
    413: TooLarge,
    429: RateLimited,
}


def from_problem(status: int, problem: Mapping[str, Any]) -> AnnealError:
    """Make the error that an answer with this status and problem body stands for."""
    default = ServerError if status >= 500 else InvalidRequest
    kind = BY_CODE.get(str(problem.get("code"))) or BY_STATUS.get(status, default)
    return kind(describe(problem, f"The service answered {status}."), status=status, problem=problem)


def describe(problem: Mapping[str, Any], otherwise: str = "Unknown error.") -> str:
    """Write a problem out for a reader: what, then the single errors, then what to do."""
    what = str(problem.get("detail") or problem.get("message") or problem.get("title") or otherwise)
    lines = [what, *row_errors(problem.get("errors") or [], beside=what)]
    hint = problem.get("hint")
    if hint and hint not in what:
        lines.append(str(hint))
    return "\n".join(lines)


def row_errors(errors: list[dict[str, Any]], beside: str = "") -> list[str]:
    """Write single errors as indented lines, the first ten, leaving out what `beside` has said already."""
    new = [line for line in map(_row_error, errors) if line not in beside]
    lines = [f"  {line}" for line in new[:SHOWN_ROW_ERRORS]]
    if len(new) > SHOWN_ROW_ERRORS:
        lines.append(f"  ... and {len(new) - SHOWN_ROW_ERRORS} more")
    return lines


def remedies(errors: list[dict[str, Any]]) -> list[str]:
    """Return what to do about single errors, each remedy once, the first ten."""
    found = dict.fromkeys(str(error["remedy"]) for error in errors if error.get("remedy"))
    return list(found)[:SHOWN_ROW_ERRORS]


def _row_error(error: Mapping[str, Any]) -> str:
    message = str(error.get("message") or error.get("code") or "error")
    row = error.get("row")
    if row is not None and str(row) not in message:
        column = error.get("column")
        return f"Row {row}{f', column {column!r}' if column else ''}: {message}"
    pointer = error.get("pointer")
    last = str(pointer or "").rsplit("/", maxsplit=1)[-1].lstrip("#")
    return f"{pointer}: {message}" if last and last not in message else message
