"""Datasets: upload, wait for validation, look inside."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from os import PathLike
from pathlib import Path
from typing import Any, Self, cast

from anneal.errors import AnnealError, DatasetInvalid, WaitTimeout, describe, remedies, row_errors
from anneal.page import Page, fetch_page
from anneal.retry import RetryPolicy
from anneal.transport import Transport
from anneal.upload import UploadCallback, WatchedFile, watching
from anneal.uploads import PARTS_ABOVE, upload_in_parts
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

    def preview(self, rows: int = 10, *, sample: str = "first", seed: int = 0, model: str | None = None) -> View:
        """Return the first rows, or with sample="random" some that the seed chooses: `columns`, `rows`, `indices`.

        With a model also `seen`, what it reads of each row: tokens, features, pixels.
        """
        asked = {"rows": rows, "sample": sample, "seed": seed, **({"model": model} if model else {})}
        return View(self._transport.json("GET", f"/datasets/{self.id}/preview", params=asked))

    def schema(self) -> View:
        """Return the `columns` and the `json_schema` of one row."""
        return View(self._transport.json("GET", f"/datasets/{self.id}/schema"))

    def update(
        self,
        *,
        name: str | None = None,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Self:
        """Change what is given and return self; under another name this is that name's next version."""
        given = {"name": name, "tags": tags if tags is None else list(tags), "metadata": metadata}
        body = {field: value for field, value in given.items() if value is not None}
        self._replace(self._transport.json("PATCH", f"/datasets/{self.id}", json=body))
        return self

    def versions(self, **params: Any) -> "Page[Dataset]":
        """List the datasets of the same name, newest first."""

        def make(data: dict[str, Any]) -> Dataset:
            return Dataset(data, self._transport)

        return fetch_page(self._transport, f"/datasets/{self.id}/versions", make, **params)

    def diff(self, against: "Dataset | str") -> View:
        """Return what changed from another dataset to this one: `columns` and `rows`."""
        other = against if isinstance(against, str) else against.id
        return View(self._transport.json("GET", f"/datasets/{self.id}/diff", params={"against": other}))

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
        split: Mapping[str, Any] | None = None,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        progress: bool | UploadCallback = False,
        parts_above: int = PARTS_ABOVE,
    ) -> Dataset:
        """Send a file and return the dataset, being validated: call `.wait()` next.

        `on_bad_rows` is "fail", "skip" or "quarantine"; `split`, written like a job's, is what its jobs have unless
        they say another. `progress` is True for a bar on stderr or a function of (bytes sent, bytes in all). The file
        is streamed, never held in memory. A file of more than `parts_above` bytes goes in parts: after a broken
        connection, or when the same call is made again, only what is missing is sent, and a file that the service
        has already is not sent at all.
        """
        file = existing_file(path)
        given = {
            "name": name,
            "format": format,
            "on_bad_rows": on_bad_rows,
            "column_types": None if column_types is None else dict(column_types),
            "split": None if split is None else dict(split),
            "tags": None if tags is None else list(tags),
            "metadata": None if metadata is None else dict(metadata),
        }
        fields = {key: value for key, value in given.items() if value is not None}
        with watching(file, progress) as callback:
            if file.stat().st_size > parts_above:
                upload_id = upload_in_parts(self._transport, file, callback)
                answer = self._transport.json("POST", "/datasets", json={"upload_id": upload_id, **fields})
            else:
                answer = self._send_whole(file, fields, callback)
        return Dataset(answer, self._transport)

    def _send_whole(self, file: Path, fields: Mapping[str, Any], callback: UploadCallback | None) -> Any:
        form = {key: json.dumps(value) if isinstance(value, dict) else value for key, value in fields.items()}
        form |= {"tags": ",".join(form["tags"])} if "tags" in form else {}
        with file.open("rb") as opened:
            watched = WatchedFile(opened, callback)
            return self._transport.json("POST", "/datasets", data=form, files={"file": (file.name, watched)})

    def get(self, dataset_id: str) -> Dataset:
        """Return one dataset; raise NotFound."""
        return Dataset(self._transport.json("GET", f"/datasets/{dataset_id}"), self._transport)

    def list(
        self, *, status: str | None = None, name: str | None = None, limit: int | None = None, **params: Any
    ) -> Page[Dataset]:
        """List datasets, a page of `limit` (1 to 100) at a time; also by `format` and `tag`."""
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
