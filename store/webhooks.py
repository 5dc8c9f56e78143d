"""Webhooks: who wants to be told of what, and what is still to be delivered.

A delivery is written in the transaction in which the thing happens, so nothing is told that did not happen, and nothing
that happened is forgotten. Sending is somebody else's work (service/deliveries.py), by the rows that are due.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.orm import Session

from store import ids
from store.database import database_now
from store.errors import Conflict, NotFound
from store.records import DeliveryRecord, WebhookRecord


class Event(StrEnum):
    """What a webhook can be told of."""

    JOB_QUEUED = "job.queued"
    JOB_RUNNING = "job.running"
    JOB_PAUSED = "job.paused"
    JOB_SUCCEEDED = "job.succeeded"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    VERSION_CREATED = "model.version_created"
    DATASET_READY = "dataset.ready"
    DATASET_INVALID = "dataset.invalid"


TEST_EVENT = "webhook.test"
# Seconds before each further try: three days in all, as Standard Webhooks recommends.
RETRY_S = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
SECRET_PREFIX = "whsec_"  # noqa: S105 - what secrets begin with
OLD_SECRET_S = 86_400.0
# A sender that has not said how it went within this time is taken for dead, and the delivery is tried again.
SENDING_S = 60.0
KEPT_S = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Sending:
    """A delivery to be sent now, with what it takes."""

    delivery: DeliveryRecord
    url: str
    secrets: tuple[str, ...]


def create(session: Session, project: str, url: str, events: Sequence[str], description: str | None) -> WebhookRecord:
    """Write a webhook with a new secret."""
    record = WebhookRecord(
        id=ids.new_id(ids.WEBHOOK),
        project=project,
        url=url,
        events=list(events),
        description=description,
        secret=_new_secret(),
    )
    session.add(record)
    session.flush()
    return record


def get(session: Session, project: str, webhook_id: str) -> WebhookRecord:
    """Return the project's webhook; NotFound otherwise."""
    record = session.get(WebhookRecord, webhook_id)
    if record is None or record.project != project:
        raise NotFound(f'No webhook "{webhook_id}".', hint="List them with GET /api/v1/webhooks.")
    return record


def listing(session: Session, project: str) -> list[WebhookRecord]:
    """Return the project's webhooks, oldest first."""
    query = select(WebhookRecord).where(WebhookRecord.project == project).order_by(WebhookRecord.id)
    return list(session.scalars(query))


def rotate_secret(session: Session, webhook: WebhookRecord) -> None:
    """Give it a new secret; for a day deliveries are signed with the old one too."""
    webhook.previous_secret = webhook.secret
    webhook.previous_until = session.scalar(select(database_now() + OLD_SECRET_S))
    webhook.secret = _new_secret()
    session.flush()


def remove(session: Session, webhook: WebhookRecord) -> None:
    """Delete a webhook and its deliveries."""
    session.execute(delete(DeliveryRecord).where(DeliveryRecord.webhook_id == webhook.id))
    session.delete(webhook)


def _new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


_ENABLED = select(WebhookRecord.id, WebhookRecord.events).where(
    WebhookRecord.project == bindparam("project"), WebhookRecord.enabled.is_(True)
)


def announce(session: Session, project: str, event: str, data: dict[str, Any]) -> None:
    """Write a delivery for every webhook of the project that wants to know of an event."""
    session.flush()  # the query is below the ORM
    for webhook_id, events in session.connection().execute(_ENABLED, {"project": project}).all():
        if event in events:
            enqueue(session, webhook_id, event, data)


def enqueue(session: Session, webhook_id: str, event: str, data: dict[str, Any]) -> DeliveryRecord:
    """Write a delivery that is due at once."""
    record = DeliveryRecord(
        id=ids.new_id(ids.DELIVERY), webhook_id=webhook_id, event=event, data=data, next_at=database_now()
    )
    session.add(record)
    session.flush()
    return record


def next_due(session: Session, busy: Sequence[str]) -> Sending | None:
    """Take the delivery that has been due for longest, of a webhook that is not busy, or return None."""
    candidate = (
        select(DeliveryRecord.id)
        .join(WebhookRecord, DeliveryRecord.webhook_id == WebhookRecord.id)
        .where(DeliveryRecord.next_at <= database_now(), WebhookRecord.enabled.is_(True))
        .where(DeliveryRecord.webhook_id.not_in(busy))
        .order_by(DeliveryRecord.next_at)
        .limit(1)
        .with_for_update(of=DeliveryRecord, skip_locked=True)
    )
    delivery = session.scalar(
        update(DeliveryRecord)
        .where(DeliveryRecord.id == candidate.scalar_subquery(), DeliveryRecord.next_at <= database_now())
        .values(next_at=database_now() + SENDING_S, attempts=DeliveryRecord.attempts + 1)
        .returning(DeliveryRecord)
        .execution_options(populate_existing=True)
    )
    if delivery is None:
        return None
    webhook = session.get_one(WebhookRecord, delivery.webhook_id)
    now = session.scalar(select(database_now())) or 0.0
    known = [webhook.secret]
    if webhook.previous_secret and (webhook.previous_until or 0.0) > now:
        known.append(webhook.previous_secret)
    return Sending(delivery, webhook.url, tuple(known))


def delivered(session: Session, delivery_id: str, status: int) -> None:
    """Note that a delivery was accepted."""
    session.execute(
        update(DeliveryRecord)
        .where(DeliveryRecord.id == delivery_id)
        .values(delivered_at=database_now(), next_at=None, last_status=status, last_error=None)
    )


def not_delivered(
    session: Session, sending: Sending, error: str, *, status: int | None = None, wait_s: float = 0.0
) -> None:
    """Note why a delivery failed; it is tried again later, or given up after the last time."""
    tried = sending.delivery.attempts
    over = tried > len(RETRY_S)
    later = None if over else database_now() + max(RETRY_S[tried - 1], wait_s)
    session.execute(
        update(DeliveryRecord)
        .where(DeliveryRecord.id == sending.delivery.id)
        .values(next_at=later, last_status=status, last_error=error[:500])
    )


def disable(session: Session, webhook_id: str) -> None:
    """Stop telling somebody who says that he is gone."""
    session.execute(update(WebhookRecord).where(WebhookRecord.id == webhook_id).values(enabled=False))
    session.execute(update(DeliveryRecord).where(DeliveryRecord.webhook_id == webhook_id).values(next_at=None))


def deliveries(webhook_id: str) -> Any:
    """Return the query for a webhook's deliveries, to be paged by the caller."""
    return select(DeliveryRecord).where(DeliveryRecord.webhook_id == webhook_id)


def redeliver(session: Session, webhook: WebhookRecord, delivery_id: str) -> DeliveryRecord:
    """Send a delivery once more, with the same id; NotFound, or Conflict while the webhook is disabled."""
    record = session.get(DeliveryRecord, delivery_id)
    if record is None or record.webhook_id != webhook.id:
        raise NotFound(
            f'Webhook {webhook.id} has no delivery "{delivery_id}".',
            hint=f"List them with GET /api/v1/webhooks/{webhook.id}/deliveries.",
        )
    if not webhook.enabled:
        raise Conflict(f"Webhook {webhook.id} is disabled.", hint='Enable it first: PATCH {"enabled": true}.')
    record.next_at, record.attempts, record.delivered_at = session.scalar(select(database_now())), 0, None
    session.flush()
    return record


def anything_due(session: Session) -> bool:
    """Look with a read first: most looks find nothing."""
    first = (
        select(func.min(DeliveryRecord.next_at))
        .join(WebhookRecord, DeliveryRecord.webhook_id == WebhookRecord.id)
        .where(DeliveryRecord.next_at.is_not(None), WebhookRecord.enabled.is_(True))
        .scalar_subquery()
    )
    return bool(session.scalar(select(first <= database_now())))


def forget_old(session: Session) -> None:
    """Delete deliveries older than a month."""
    # By their ids, which sort by age: no index of times is needed for it.
    oldest = ids.earliest_id(ids.DELIVERY, time.time() - KEPT_S)
    session.execute(delete(DeliveryRecord).where(DeliveryRecord.id < oldest))
