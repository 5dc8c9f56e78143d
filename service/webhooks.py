"""Webhooks: who wants to be told, what was told, and what the receiver answered."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, Field

from service.deliveries import Refused, checked_address
from service.dependencies import JobsKey, Listing, Paged
from service.errors import ApiError
from service.job_requests import StoredRequest
from service.state import Opened, State
from service.times import rfc3339
from store import webhooks
from store.records import DeliveryRecord, WebhookRecord
from store.webhooks import Event

router = APIRouter(prefix="/webhooks", tags=["webhooks"])

MOST_EACH = 20  # webhooks of a project


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a webhook's address is an http or https URL with a host")
    if parts.username or parts.password:
        raise ValueError("an address with a password would end up in logs; the signature says who sends")
    return text


Url = Annotated[str, Field(max_length=2000), AfterValidator(_url)]


class WebhookCreate(StoredRequest):
    """Where to send which events."""

    url: Url
    events: list[Event] = Field(default_factory=lambda: list(Event), min_length=1)
    description: str | None = Field(None, max_length=200)


class WebhookPatch(StoredRequest):
    """What may change."""

    url: Url | None = None
    events: list[Event] | None = Field(None, min_length=1)
    description: str | None = Field(None, max_length=200)
    enabled: bool | None = None


class WebhookView(BaseModel):
    """A webhook; its secret is only in the answer that made it."""

    id: str
    object: Literal["webhook"] = "webhook"
    url: str
    events: list[str]
    description: str | None
    enabled: bool
    created_at: str | None
    secret: str | None = None

    @classmethod
    def of(cls, record: WebhookRecord, *, secret: str | None = None) -> WebhookView:
        """Return the view of a webhook."""
        return cls(
            id=record.id,
            url=record.url,
            events=record.events,
            description=record.description,
            enabled=record.enabled,
            created_at=rfc3339(record.created_at),
            secret=secret,
        )


class DeliveryView(BaseModel):
    """One event on its way to one receiver."""

    id: str
    object: Literal["delivery"] = "delivery"
    webhook_id: str
    event: str
    data: dict[str, Any]
    status: Literal["pending", "delivered", "failed"]
    attempts: int
    next_at: str | None
    delivered_at: str | None
    last_status: int | None
    last_error: str | None
    created_at: str | None

    @classmethod
    def of(cls, record: DeliveryRecord) -> DeliveryView:
        """Return the view of a delivery."""
        waits = record.next_at is not None
        return cls(
            id=record.id,
            webhook_id=record.webhook_id,
            event=record.event,
            data=record.data,
            status="delivered" if record.delivered_at else "pending" if waits else "failed",
            attempts=record.attempts,
            next_at=rfc3339(record.next_at),
            delivered_at=rfc3339(record.delivered_at),
            last_status=record.last_status,
            last_error=record.last_error,
            created_at=rfc3339(record.created_at),
        )


@router.post("", status_code=201)
def create_webhook(asked: WebhookCreate, state: Opened, caller: JobsKey) -> WebhookView:
    """Tell an address of events from now on; the answer's `secret`, by which to verify them, is shown this once."""
    _require_reachable(state, asked.url)
    with state.database.write() as session:
        if len(webhooks.listing(session, caller.project)) >= MOST_EACH:
            raise ApiError(
                409, "conflict", f"There are {MOST_EACH} webhooks already.", hint="Delete one that nobody needs."
            )
        record = webhooks.create(session, caller.project, asked.url, asked.events, asked.description)
        session.refresh(record)
        return WebhookView.of(record, secret=record.secret)


def _require_reachable(state: State, url: str) -> None:
    # Looked at again before each delivery; here so that the caller hears of it.
    try:
        checked_address(url, private_addresses=state.settings.webhook_private_addresses)
    except Refused as error:
        raise ApiError(
            422,
            "refused_address",
            f"Nothing can be sent to {url}: {error}.",
            hint="Give a public address.",
            param="url",
        ) from None


@router.get("")
def list_webhooks(state: Opened, caller: JobsKey) -> Listing[WebhookView]:
    """Return the project's webhooks, oldest first, without their secrets."""
    with state.database.read() as session:
        found = webhooks.listing(session, caller.project)
        return Listing[WebhookView].of([WebhookView.of(record) for record in found])


@router.get("/{webhook_id}")
def get_webhook(webhook_id: str, state: Opened, caller: JobsKey) -> WebhookView:
    """Return a webhook without its secret."""
    with state.database.read() as session:
        return WebhookView.of(webhooks.get(session, caller.project, webhook_id))


@router.patch("/{webhook_id}")
def change_webhook(webhook_id: str, patch: WebhookPatch, state: Opened, caller: JobsKey) -> WebhookView:
    """Change where, what and whether to send."""
    if patch.url is not None:
        _require_reachable(state, patch.url)
    with state.database.write() as session:
        record = webhooks.get(session, caller.project, webhook_id)
        for field, value in patch.model_dump(exclude_none=True).items():
            setattr(record, field, value)
        session.flush()
        return WebhookView.of(record)


@router.delete("/{webhook_id}", status_code=204)
def delete_webhook(webhook_id: str, state: Opened, caller: JobsKey) -> None:
    """Tell an address nothing any more, and forget what it was told."""
    with state.database.write() as session:
        webhooks.remove(session, webhooks.get(session, caller.project, webhook_id))


@router.post("/{webhook_id}/rotate")
def rotate_secret(webhook_id: str, state: Opened, caller: JobsKey) -> WebhookView:
    """Make a new secret, shown this once; for a day deliveries are signed with the old one as well."""
    with state.database.write() as session:
        record = webhooks.get(session, caller.project, webhook_id)
        webhooks.rotate_secret(session, record)
        return WebhookView.of(record, secret=record.secret)


@router.post("/{webhook_id}/test", status_code=202)
def test_webhook(webhook_id: str, state: Opened, caller: JobsKey) -> DeliveryView:
    """Send an event of the type webhook.test."""
    with state.database.write() as session:
        record = webhooks.get(session, caller.project, webhook_id)
        made = webhooks.enqueue(session, record.id, webhooks.TEST_EVENT, {"webhook_id": record.id})
        session.refresh(made)
        return DeliveryView.of(made)


@router.get("/{webhook_id}/deliveries")
def list_deliveries(webhook_id: str, state: Opened, caller: JobsKey, page: Paged) -> Listing[DeliveryView]:
    """Return what was sent in the last thirty days and what is still to be sent, newest first."""
    with state.database.read() as session:
        webhooks.get(session, caller.project, webhook_id)
        found = session.scalars(page.apply(webhooks.deliveries(webhook_id), DeliveryRecord.id))
        return Listing[DeliveryView].of([DeliveryView.of(record) for record in found], page)


@router.post("/{webhook_id}/deliveries/{delivery_id}/redeliver", status_code=202)
def redeliver(webhook_id: str, delivery_id: str, state: Opened, caller: JobsKey) -> DeliveryView:
    """Send a delivery once more, with the id that it had."""
    with state.database.write() as session:
        webhook = webhooks.get(session, caller.project, webhook_id)
        return DeliveryView.of(webhooks.redeliver(session, webhook, delivery_id))
