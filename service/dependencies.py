"""Who asks, and which part of a list they ask for."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from fastapi import Depends, Header, Query, Security
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from sqlalchemy import Select
from sqlalchemy.orm import Session

from service.errors import ApiError
from service.state import Opened
from store import keys
from store.keys import Principal

T = TypeVar("T")


Authorization = Annotated[str, Header(include_in_schema=False)]
# Only describes the header to /docs and to generated clients; `authorize` reads it, with errors that say the fix.
Scheme = Annotated[object, Security(HTTPBearer(auto_error=False, description="An API key, `id.secret`."))]


def authorize(session: Session, authorization: str, scope: str) -> Principal:
    """Return who asks; 401 for a wrong key, 403 for one that lacks the scope."""
    kind, _, key = authorization.partition(" ")
    if kind.lower() != "bearer" or not key:
        raise ApiError(
            401,
            "missing_key",
            "This request carries no API key.",
            hint='Send "Authorization: Bearer <key>"; the first key is in the file api_key of the data directory.',
        )
    principal = keys.authenticate(session, key.strip())
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


class Requires:
    """A dependency that lets in keys with one scope; endpoints of another scope never see the request."""

    def __init__(self, scope: str) -> None:
        self.scope = scope

    def __call__(self, state: Opened, _: Scheme, authorization: Authorization = "") -> Principal:
        """Return who asks."""
        with state.database.read() as session:
            return authorize(session, authorization, self.scope)


DatasetsKey = Annotated[Principal, Depends(Requires("datasets"))]
JobsKey = Annotated[Principal, Depends(Requires("jobs"))]
ModelsKey = Annotated[Principal, Depends(Requires("models"))]
PredictKey = Annotated[Principal, Depends(Requires("predict"))]
AdminKey = Annotated[Principal, Depends(Requires("admin"))]
IdempotencyKey = Annotated[
    str | None,
    Header(alias="Idempotency-Key", min_length=1, max_length=255, description="Repeat a POST safely for 24 hours."),
]
Wait = Annotated[float, Query(ge=0, le=60, description="Seconds to wait for a change before answering.")]


class Page(BaseModel):
    """Which part of a list: newest first, a cursor either way."""

    limit: int = Query(20, ge=1, le=100, description="Most entries to return.")
    after: str | None = Query(None, description="Only entries after this id, in the list's order.")
    before: str | None = Query(None, description="Only entries before this id, in the list's order.")
    order: Literal["asc", "desc"] = Query("desc", description="Oldest or newest first.")

    @property
    def backward(self) -> bool:
        """Whether the part ends at a cursor instead of starting at one."""
        return self.before is not None and self.after is None

    def apply(self, query: Select[Any], column: Any) -> Select[Any]:
        """Return the query cut to the page and one entry more, by which `has_more` is known."""
        rising = self.order == "asc"
        upward = rising != self.backward  # the entries next to the cursor are wanted, whichever way they lie
        if self.after is not None:
            query = query.where(column > self.after if rising else column < self.after)
        if self.before is not None:
            query = query.where(column < self.before if rising else column > self.before)
        return query.order_by(column.asc() if upward else column.desc()).limit(self.limit + 1)


Paged = Annotated[Page, Query()]


class Listing(BaseModel, Generic[T]):
    """A part of a list."""

    object: Literal["list"] = "list"
    data: list[T]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False

    @classmethod
    def of(cls, entries: list[T], page: Page | None = None) -> Self:
        """Return a listing of entries that have an id; the one beyond the page only tells that there is more."""
        more = page is not None and len(entries) > page.limit
        shown = entries[: page.limit] if page is not None else entries
        if page is not None and page.backward:
            shown = shown[::-1]
        ids = [str(getattr(entry, "id", getattr(entry, "name", ""))) for entry in shown]
        return cls(
            data=shown,
            first_id=ids[0] if ids else None,
            last_id=ids[-1] if ids else None,
            has_more=more,
        )
