"""Datasets: upload, wait for validation, look inside."""

import json
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from os import PathLike
from pathlib import Path
from typing import Any, Self, cast

from anneal.errors import AnnealError, DatasetInvalid, WaitTimeout, describe, remedies, row_errors
from anneal.page import Page, fetch_page
from anneal.retry import RetryPolicy
from anneal.transport import Transport
from anneal.upload import UploadCallback, WatchedFile, watching
from anneal.view import View

LONG_POLL_S = 30
# A wait outlives a restart of the service.
PATIENT = RetryPolicy(retries=12)


class Dataset(View):
    """An uploaded dataset: id, status (processing, ready, invalid), columns, num_rows."""

    __slots__ = ("_transport",)
    _transport: Transport
    id: str
    status: str

    def __init__(self, data: Mapping[str, Any], transport: Transport) -> None:
        super().__init__(data)
        object.__setattr__(self, "_transport", transport)

    def refresh(self) -> Self:
        """Ask for the present state and return self."""
        self._replace(self._transport.json("GET", f"/datasets/{self.id}"))
        return self

    def wait(self, *, timeout: float | None = None, progress: bool = False) -> Self:
        """Wait until validation has ended (seconds at most) and return self; raise DatasetInvalid."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with _spinner(f"validating {self._data.get('name') or self.id}", progress):
            while self.status == "processing":
                self._poll(deadline)
        if self.status == "invalid":
            raise invalid(self)
        return self

    def preview(self, rows: int = 10) -> View:
        """Return the first rows: `columns` and `rows`."""
        return View(self._transport.json("GET", f"/datasets/{self.id}/preview", params={"rows": rows}))

    def errors(self) -> View:
        """Return the row errors that validation found: `errors` and `error_count`."""
        return View(self._transport.json("GET", f"/datasets/{self.id}/errors"))

    def delete(self) -> None:
        """Delete the dataset; raise Conflict while something uses it."""
        self._transport.request("DELETE", f"/datasets/{self.id}")

    def _poll(self, deadline: float | None) -> None:
        wait_s = poll_seconds(deadline, f"Dataset {self.id} is still being validated.")
        began = time.monotonic()
        answer = self._transport.json(
            "GET",
            f"/datasets/{self.id}",
            params={"wait": wait_s},
            timeout=self._transport.timeout_s + wait_s,
            policy=PATIENT,
        )
        self._replace(answer)
        if self.status == "processing" and time.monotonic() - began < 0.2:
            time.sleep(0.2)  # a service that does not hold the answer back must not be hammered


class Datasets:
    """The datasets of the service: `client.datasets`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def upload(
        self,
        path: str | PathLike[str],
        *,
        name: str | None = None,
        format: str | None = None,
        on_bad_rows: str | None = None,
        column_types: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        progress: bool | UploadCallback = False,
    ) -> Dataset:
        """Send a file and return the dataset, being validated: call `.wait()` next.

        `on_bad_rows` is "fail" or "skip". `progress` is True for a bar on stderr or a function of
        (bytes sent, bytes in all). The file is streamed, never held in memory.
        """
        file = existing_file(path)
        fields = {"name": name, "format": format, "on_bad_rows": on_bad_rows}
        form = {key: value for key, value in fields.items() if value is not None}
        if column_types is not None:
            form["column_types"] = json.dumps(dict(column_types))
        if metadata is not None:
            form["metadata"] = json.dumps(dict(metadata))
        with file.open("rb") as opened, watching(file, progress) as callback:
            watched = WatchedFile(opened, callback)
            answer = self._transport.json("POST", "/datasets", data=form, files={"file": (file.name, watched)})
        return Dataset(answer, self._transport)

    def get(self, dataset_id: str) -> Dataset:
        """Return one dataset; raise NotFound."""
        return Dataset(self._transport.json("GET", f"/datasets/{dataset_id}"), self._transport)

    def list(
        self, *, status: str | None = None, name: str | None = None, limit: int | None = None, **params: Any
    ) -> Page[Dataset]:
        """List datasets, a page of `limit` (1 to 100) at a time."""
        return fetch_page(self._transport, "/datasets", self._make, status=status, name=name, limit=limit, **params)

    def preview(self, dataset_id: str, rows: int = 10) -> View:
        """Return a dataset's first rows."""
        return self._named(dataset_id).preview(rows)

    def errors(self, dataset_id: str) -> View:
        """Return a dataset's row errors."""
        return self._named(dataset_id).errors()

    def delete(self, dataset_id: str) -> None:
        """Delete a dataset; raise Conflict while something uses it."""
        self._named(dataset_id).delete()

    def _make(self, data: dict[str, Any]) -> Dataset:
        return Dataset(data, self._transport)

    def _named(self, dataset_id: str) -> Dataset:
        return self._make({"id": dataset_id})


def poll_seconds(deadline: float | None, unfinished: str) -> int:
    """Return how long the next long poll may take; raise WaitTimeout when the deadline has passed."""
    if deadline is None:
        return LONG_POLL_S
    left = deadline - time.monotonic()
    if left <= 0:
        raise WaitTimeout(f"{unfinished} The time given for waiting is over; it goes on in the service.")
    return max(1, min(LONG_POLL_S, round(left)))


def invalid(dataset: Dataset) -> DatasetInvalid:
    """Make the error for a dataset that did not pass, with the first row errors and their remedies in its message."""
    data = dataset.to_dict()
    validation = data.get("validation") or {}
    errors = validation.get("errors") or []
    name = f"Dataset {data['id']} ({data.get('name')}) is invalid"
    if errors:
        count = validation.get("error_count", len(errors))
        lines = [f"{name}: {count} error{'s' * (count != 1)}.", *row_errors(errors), *remedies(errors)]
    else:  # not its rows: a format or a column that the upload named
        lines = [f"{name}: {describe(data.get('error') or {})}"]
    problem = {"code": "dataset_invalid", "errors": errors}
    error = DatasetInvalid("\n".join(lines), problem=problem)
    error.dataset = dataset
    return error


def existing_file(path: str | PathLike[str]) -> Path:
    """Return the path of a file that can be sent; raise AnnealError for what is not one."""
    file = Path(path)
    if file.is_dir():
        raise AnnealError(f"{file} is a folder. Upload one of the files in it.")
    if not file.is_file():
        raise AnnealError(f"There is no file {file} (looked in {Path.cwd()}).")
    return file


def _spinner(text: str, shown: bool) -> AbstractContextManager[object]:
    if not shown:
        return nullcontext()
    from anneal.progress import spinner

    return cast("AbstractContextManager[object]", spinner(text))
