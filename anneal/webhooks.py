"""Webhooks: be told what happens instead of asking."""

from collections.abc import Sequence
from typing import Any

from anneal.page import Page, fetch_page
from anneal.transport import Transport
from anneal.view import View


class Webhooks:
    """The webhooks of the project: `client.webhooks`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, url: str, *, events: Sequence[str] | None = None, description: str | None = None) -> View:
        """Have events sent to an address; the answer's `secret`, by which to verify them, is shown this once.

        `events` are all by default: job.queued, job.running, job.paused, job.succeeded, job.failed, job.cancelled,
        model.version_created, dataset.ready, dataset.invalid.
        """
        body: dict[str, Any] = {"url": url, "description": description}
        if events is not None:
            body["events"] = list(events)
        return View(self._transport.json("POST", "/webhooks", json=body))

    def list(self) -> list[View]:
        """List the webhooks, without their secrets."""
        return [View(item) for item in self._transport.json("GET", "/webhooks")["data"]]

    def change(self, webhook_id: str, **changes: Any) -> View:
        """Change url, events, description or enabled."""
        return View(self._transport.json("PATCH", f"/webhooks/{webhook_id}", json=changes))

    def delete(self, webhook_id: str) -> None:
        """Stop sending, and forget what was sent."""
        self._transport.request("DELETE", f"/webhooks/{webhook_id}")

    def rotate(self, webhook_id: str) -> View:
        """Make a new secret, shown this once; for a day the old one signs as well."""
        return View(self._transport.json("POST", f"/webhooks/{webhook_id}/rotate"))

    def test(self, webhook_id: str) -> View:
        """Send an event of the type webhook.test, and return its delivery."""
        return View(self._transport.json("POST", f"/webhooks/{webhook_id}/test"))

    def deliveries(self, webhook_id: str, *, limit: int | None = None) -> Page[View]:
        """List what was sent and what is still to be sent, newest first."""
        return fetch_page(self._transport, f"/webhooks/{webhook_id}/deliveries", View, limit=limit)

    def redeliver(self, webhook_id: str, delivery_id: str) -> View:
        """Send a delivery once more."""
        return View(self._transport.json("POST", f"/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver"))
