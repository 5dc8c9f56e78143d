"""API keys."""

from collections.abc import Sequence
from typing import Any

from anneal.page import Page, fetch_page
from anneal.transport import Transport
from anneal.view import View


class Keys:
    """The keys of the service: `client.keys`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, name: str, *, scopes: Sequence[str] | None = None, expires_at: str | None = None) -> View:
        """Make a key; its secret stands in the answer's `key`, this once (`expires_at` is RFC 3339)."""
        body: dict[str, Any] = {"name": name}
        if scopes:
            body["scopes"] = list(scopes)
        if expires_at:
            body["expires_at"] = expires_at
        return View(self._transport.json("POST", "/keys", json=body))

    def list(self, **params: Any) -> Page[View]:
        """List the keys, without their secrets."""
        return fetch_page(self._transport, "/keys", View, **params)

    def revoke(self, key_id: str) -> None:
        """Make a key invalid for good."""
        self._transport.request("DELETE", f"/keys/{key_id}")
