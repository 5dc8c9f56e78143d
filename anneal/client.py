"""The client: one object per service, one attribute per resource."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from anneal.datasets import Datasets
from anneal.galleries import Galleries
from anneal.jobs import Jobs
from anneal.keys import Keys
from anneal.models import Input, Models
from anneal.retry import RetryPolicy
from anneal.transport import Transport, checked_url, is_loopback
from anneal.view import View
from anneal.webhooks import Webhooks

DEFAULT_URL = "http://127.0.0.1:8000"


class Client:
    """A connection to one Anneal service.

    `url` falls back to ANNEAL_URL, then to this machine's port 8000. `api_key` falls back to ANNEAL_API_KEY
    and, for a service on this machine, to the file `api_key` in its data directory (ANNEAL_DATA_DIR or
    ./.anneal).
    `timeout` is in seconds, for one request; `retries` counts the tries after the first.
    """

    def __init__(
        self, url: str | None = None, api_key: str | None = None, *, timeout: float = 60.0, retries: int = 5
    ) -> None:
        url = checked_url(url or os.environ.get("ANNEAL_URL") or DEFAULT_URL)
        key = api_key or os.environ.get("ANNEAL_API_KEY") or key_on_disk(url)
        self._transport = Transport(url, key, timeout_s=timeout, policy=RetryPolicy(retries=retries))
        self.datasets = Datasets(self._transport)
        self.jobs = Jobs(self._transport)
        self.models = Models(self._transport)
        self.galleries = Galleries(self._transport)
        self.keys = Keys(self._transport)
        self.webhooks = Webhooks(self._transport)

    @property
    def url(self) -> str:
        """The service's address."""
        return self._transport.url

    def predict(
        self,
        ref: str,
        inputs: Sequence[Input] | Input,
        parameters: Mapping[str, Any] | None = None,
    ) -> View:
        """Predict with a model (`name`, `name:3`, `name@alias`); see `Models.predict`."""
        return self.models.predict(ref, inputs, parameters)

    def tasks(self) -> list[View]:
        """List the tasks a job can have."""
        return self._catalogue("/tasks")

    def architectures(self) -> list[View]:
        """List the networks that can be trained."""
        return self._catalogue("/architectures")

    def formats(self) -> list[View]:
        """List the file formats a dataset can have."""
        return self._catalogue("/formats")

    def queue(self) -> View:
        """Show what runs, what waits and which workers are there."""
        return View(self._transport.json("GET", "/queue"))

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def _catalogue(self, path: str) -> list[View]:
        return [View(item) for item in self._transport.json("GET", path)["data"]]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def key_on_disk(url: str) -> str | None:
    """Return the first key of a service on this machine, where its data directory can be read.

    Only for a loopback address: the key must never travel to another machine unasked.
    """
    if not is_loopback(url):
        return None
    path = Path(os.environ.get("ANNEAL_DATA_DIR") or ".anneal") / "api_key"
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
