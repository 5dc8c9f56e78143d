"""API keys over HTTP, for admins of a project."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, Field

from service import times
from service.dependencies import AdminKey, Listing
from service.job_requests import StoredRequest
from service.state import Opened
from store import keys
from store.records import ApiKeyRecord

router = APIRouter(prefix="/keys", tags=["keys"])

Scope = Literal["datasets", "jobs", "models", "predict", "admin"]


def _is_time(text: str) -> str:
    times.rfc3339(times.parse(text))  # what cannot be written back is no time either
    return text


class KeyCreate(StoredRequest):
    """A key to make."""

    name: str = Field(min_length=1, max_length=200)
    scopes: list[Scope] = Field(default_factory=lambda: list(keys.SCOPES), min_length=1)  # type: ignore[arg-type]
    expires_at: Annotated[str, AfterValidator(_is_time)] | None = Field(None, description="RFC 3339 time.")


class KeyView(BaseModel):
    """A key as admins see it; the secret is only in the answer that made it."""

    id: str
    object: Literal["key"] = "key"
    name: str
    project: str
    scopes: list[str]
    created_at: str | None
    expires_at: str | None
    revoked_at: str | None
    key: str | None = None

    @classmethod
    def of(cls, record: ApiKeyRecord, key: str | None = None) -> KeyView:
        """Return the view of a key."""
        return cls(
            id=record.id,
            name=record.name,
            project=record.project,
            scopes=record.scopes,
            created_at=times.rfc3339(record.created_at),
            expires_at=times.rfc3339(record.expires_at),
            revoked_at=times.rfc3339(record.revoked_at),
            key=key,
        )


@router.post("", status_code=201)
def create_key(asked: KeyCreate, state: Opened, caller: AdminKey) -> KeyView:
    """Make a key of the caller's project; `key` in the answer is shown this once."""
    with state.database.write() as session:
        record, key = keys.create(
            session,
            name=asked.name,
            project=caller.project,
            scopes=asked.scopes,
            expires_at=times.parse(asked.expires_at) if asked.expires_at else None,
        )
        session.refresh(record)
        return KeyView.of(record, key)


@router.get("")
def list_keys(state: Opened, caller: AdminKey) -> Listing[KeyView]:
    """Return the project's keys, oldest first, without their secrets."""
    with state.database.read() as session:
        return Listing[KeyView].of([KeyView.of(record) for record in keys.listing(session, caller.project)])


@router.delete("/{key_id}", status_code=204)
def revoke_key(key_id: str, state: Opened, caller: AdminKey) -> None:
    """Make a key useless from the next request on."""
    with state.database.write() as session:
        keys.revoke(session, caller.project, key_id)
