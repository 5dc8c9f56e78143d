"""What can go wrong with what outlives a process, named by what went wrong."""

from __future__ import annotations


class StoreError(Exception):
    """A request that what is stored does not allow; `hint` says the fix, `param` names the request's field."""

    code = "store_error"

    def __init__(self, message: str, *, hint: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.param = param


class NotFound(StoreError):
    """No such thing in this project; a foreign id answers exactly the same."""

    code = "not_found"


class Conflict(StoreError):
    """The thing's state does not allow this: a finished job cancelled, a dataset in use deleted."""

    code = "conflict"


class IllegalTransition(Conflict):
    """A job in this state cannot take that step."""

    code = "illegal_transition"


class DependencyFailed(Conflict):
    """A job depends on one that failed or was cancelled."""

    code = "dependency_failed"


class UnknownReference(StoreError):
    """A request names something that is not there."""

    code = "unknown_name"


class QuotaExceeded(Conflict):
    """The project has as much of something as it may have."""

    code = "quota_exceeded"


class IdempotencyMismatch(StoreError):
    """An Idempotency-Key came again with another request."""

    code = "idempotency_mismatch"


class Fenced(StoreError):
    """Another attempt owns the job by now: the caller must stop and write nothing."""

    code = "fenced"


class TooLarge(StoreError):
    """More bytes than the cap allows."""

    code = "too_large"


class CorruptArtifact(StoreError):
    """A stored file's bytes are not those of its digest."""

    code = "corrupt_artifact"
