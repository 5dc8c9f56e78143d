"""Anneal's Python client: upload a dataset, pretrain, finetune, predict."""

from typing import TYPE_CHECKING, Any

from anneal.errors import (
    AnnealError,
    Conflict,
    ConnectionFailed,
    DatasetInvalid,
    InvalidRequest,
    JobFailed,
    NotFound,
    PermissionDenied,
    RateLimited,
    ServerError,
    TooLarge,
    Unauthorized,
    WaitTimeout,
)

if TYPE_CHECKING:
    from anneal.client import Client

__all__ = [
    "AnnealError",
    "Client",
    "Conflict",
    "ConnectionFailed",
    "DatasetInvalid",
    "InvalidRequest",
    "JobFailed",
    "NotFound",
    "PermissionDenied",
    "RateLimited",
    "ServerError",
    "TooLarge",
    "Unauthorized",
    "WaitTimeout",
]


def __getattr__(name: str) -> Any:
    # The command line imports this package to print its help: httpx is loaded only when a Client is wanted.
    if name == "Client":
        from anneal.client import Client

        return Client
    raise AttributeError(f"module 'anneal' has no attribute {name!r}")
