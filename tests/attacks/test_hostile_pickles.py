"""Pickles under every name: none is opened, whatever its protocol.

A11 of the list of attacks, headers of safetensors that lie, has no test here: no route takes weights. A model's files
are written by the service alone.
"""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from servers import Stack
from support import INSIDE, upload

NAMES = [
    "t.csv",
    "t.tsv",
    "t.jsonl",
    "t.parquet",
    "t.txt",
    "t.conll",
    "t.zip",
    "t.pkl",
    "t.pt",
    "model.safetensors",
    "t",
]
FORMATS = ["csv", "jsonl", "text", "conll", "parquet", "zip-files", "zip-folders", "zip-manifest", "zip-coco"]


class Touches:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def api(embedded: Stack) -> Iterator[httpx.Client]:
    with embedded.client() as client:
        yield client


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Path]:
    """What must not be there afterwards; it would be, were the pickle opened."""
    path = tmp_path / "unpickled"
    pickle.loads(pickle.dumps(Touches(path)))
    path.rmdir()
    yield path
    assert not path.exists()


@pytest.mark.parametrize("name", NAMES)
def test_a9_a_pickle_is_refused_under_every_name(api: httpx.Client, trap: Path, name: str) -> None:
    for protocol in (2, 5):
        dataset = upload(api, pickle.dumps(Touches(trap), protocol), name)
        (error,) = dataset["validation"]["errors"]
        assert (dataset["status"], error["rule"], error["value"]) == ("invalid", "unknown_format", "a Python pickle")
        assert error["remedy"]
        assert not [word for word in INSIDE if word in str(dataset)]
    # The first protocols are text, and so may be rows of it.
    assert upload(api, pickle.dumps(Touches(trap), 0), name)["status"] in ("invalid", "ready")


@pytest.mark.parametrize("format", FORMATS)
def test_a9_a_pickle_is_refused_as_every_format(api: httpx.Client, trap: Path, format: str) -> None:
    dataset = upload(api, pickle.dumps(Touches(trap), 4), "t.bin", format=format)
    assert (dataset["status"], dataset["format"]) == ("invalid", format)
    assert dataset["validation"]["errors"]


def test_a9_an_archive_of_weights_is_refused(api: httpx.Client, trap: Path) -> None:
    """The form that torch saves in: a zip archive with a pickle in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(Touches(trap), 2))
        archive.writestr("model/data/0", bytes(64))
    for name in ("model.pt", "model.zip", "images.zip"):
        assert upload(api, buffer.getvalue(), name)["status"] == "invalid"
