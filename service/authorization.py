"""Who asks, by the key that a request carries."""

from __future__ import annotations

from sqlalchemy import Connection

from service.errors import ApiError
from store import keys
from store.keys import Principal


def authorize(connection: Connection, authorization: str, scope: str) -> Principal:
    """Return who asks; 401 for a wrong key, 403 for one that lacks the scope."""
    kind, _, key = authorization.partition(" ")
    if kind.lower() != "bearer" or not key:
        raise ApiError(
            401,
            "missing_key",
            "This request carries no API key.",
            hint='Send "Authorization: Bearer <key>"; the first key is in the file api_key of the data directory.',
        )
    principal = keys.authenticate(connection, key.strip())
    if principal is None:
        raise ApiError(
            401,
            "wrong_key",
            "This API key is wrong, expired or revoked.",
            hint="Ask an admin for a new key; the first key is in the file api_key of the data directory.",
        )
    if scope not in principal.scopes:
        has = ", ".join(sorted(principal.scopes)) or "none"
        raise ApiError(
            403,
            "missing_scope",
            f'This API key lacks the scope "{scope}"; it has: {has}.',
            hint="Ask an admin for a key with that scope.",
        )
    return principal
