"""One running product for all tests of the API, with a dataset and a model that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


def fruit() -> str:
    lines = ["size,colour,ripe,price"]
    for n in range(120):
        colour, ripe = ("red", "blue")[n % 2], ("yes", "no")[n % 2 or n % 3 == 0]
        lines.append(f"{n % 17},{colour},{ripe},{n % 17 + 0.5 * (n % 2)}")
    return "\n".join(lines)


@pytest.fixture(scope="session")
def served(stack: Stack, once: Callable[..., str]) -> str:
    """Two small models on each column: `fruit` (ripe: yes or no; alias `best`) and `price`; the dataset's id."""
    return once(stack, "served", lambda: _served(stack))


def _served(stack: Stack) -> str:
    with stack.client() as api:
        dataset = str(upload(api, fruit())["id"])
        ripe = {"target": "ripe", "inputs": ["size", "colour"]}
        price = {"target": "price", "inputs": ["size", "colour"]}
        # Levels would make categories of so few sizes; a missing one is then told from the others.
        plain = {"preprocessing": {"integer_levels": 0}, "architecture": {"name": "mlp", "hidden_sizes": [8]}}
        output = {"model": "fruit", "aliases": ["best"]}
        first = submit(api, classify(dataset, columns=ripe, output=output, seed=1, **plain))
        body = classify(dataset, columns=price, output={"model": "price"}, task="tabular-regression", seed=1, **plain)
        succeeded(api, first)
        succeeded(api, submit(api, body))
    return dataset
