"""Archives made to do harm, uploaded: each is refused for its reason, and nothing is unpacked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from media_files import encoded, hostile_archives, packed, png
from PIL import Image
from servers import Stack
from support import upload

HOSTILE = hostile_archives()


@pytest.fixture(scope="module")
def api(embedded: Stack) -> Iterator[httpx.Client]:
    with embedded.client() as client:
        yield client


@pytest.mark.parametrize("what", [what for what in HOSTILE if HOSTILE[what][0] != "no_media"])
def test_a3_a5_a_hostile_archive_is_an_invalid_dataset(api: httpx.Client, what: str) -> None:
    rule, content = HOSTILE[what]
    dataset = upload(api, content, "hostile.zip")
    assert dataset["status"] == "invalid"
    assert dataset["validation"]["errors"][0]["rule"] == rule
    assert dataset["error"]["hint"]
    assert not [place for place in (Path("/tmp"), Path.cwd()) for _ in place.glob("*anneal-was-here*")]


def test_a7_a_bomb_among_images_is_named_and_can_be_skipped(api: httpx.Client, tmp_path: Path) -> None:
    bomb = encoded(Image.new("L", (6_000, 5_000)))
    path = packed(tmp_path / "bomb.zip", {"a.png": png(1), "bomb.png": bomb, "c.png": png(2)})
    dataset = upload(api, path)
    (error,) = dataset["validation"]["errors"]
    assert (dataset["status"], error["rule"], error["row"], error["value"]) == (
        "invalid",
        "too_many_pixels",
        2,
        "bomb.png",
    )
    kept = upload(api, path, on_bad_rows="skip")
    assert (kept["status"], kept["num_rows"]) == ("ready", 2)
