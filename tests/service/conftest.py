"""One running product for all tests of the API, with a dataset and a model that they share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from servers import Stack
from support import TRAIN, classify, submit, succeeded, upload


@pytest.fixture(scope="session")
def running(embedded: Stack) -> Iterator[httpx.Client]:
    """A client of the embedded product with the first key."""
    with embedded.client() as client:
        yield client


@pytest.fixture(scope="session")
def rows(running: httpx.Client) -> str:
    """The id of the breast cancer training rows."""
    return str(upload(running, TRAIN)["id"])


@pytest.fixture(scope="session")
def trained(running: httpx.Client, rows: str) -> dict[str, Any]:
    """A succeeded classification job; its model is `shared`, with the alias `production`."""
    body = classify(rows, output={"model": "shared", "aliases": ["production"]}, seed=7)
    return succeeded(running, submit(running, body))
