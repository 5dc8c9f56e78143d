"""Archives made to do harm, uploaded: each is refused for its reason, and nothing is unpacked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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


def test_a5_an_archive_inside_is_never_opened(api: httpx.Client, tmp_path: Path) -> None:
    bomb = HOSTILE["a bomb"][1]
    inner = packed(tmp_path / "inner.zip", {"bomb.zip": bomb, "x.png": png(3)}).read_bytes()
    alone = upload(api, packed(tmp_path / "alone.zip", {"inner.zip": inner}))
    assert (alone["status"], alone["validation"]["errors"][0]["rule"]) == ("invalid", "no_media")
    # Whatever its name says, it is no image.
    as_image = upload(api, packed(tmp_path / "as.zip", {"a.png": png(1), "b.png": inner, "c.png": png(2)}))
    assert as_image["validation"]["errors_by_rule"] == {"not_an_image": 1}
    beside = upload(api, packed(tmp_path / "beside.zip", {"a.png": png(1), "inner.zip": inner, "c.png": png(2)}))
    assert (beside["status"], beside["num_rows"]) == ("ready", 2)
    assert "left_out_files" in [warning["code"] for warning in beside["warnings"]]


def resident_bytes(stack: Stack) -> int:
    """Return what of the API's memory is resident."""
    status = Path(f"/proc/{stack.processes['api'].pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) << 10  # type: ignore[index]


def test_a18_a_large_hostile_upload_takes_no_memory_and_holds_nobody_up(embedded: Stack, api: httpx.Client) -> None:
    """The API passes on what comes: its memory does not grow by it, and it goes on answering others."""
    content = b"PK\x03\x04" + bytes(96 << 20)
    before, most, answers = resident_bytes(embedded), 0, 0
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=embedded.url, timeout=10) as other:
        sent = pool.submit(upload, api, content, "hostile.zip")
        while not sent.done():
            assert other.get("/livez").status_code == 200
            answers += 1
            most = max(most, resident_bytes(embedded))
    assert sent.result()["status"] == "invalid"
    assert answers > 10
    assert most - before < 48 << 20, f"{(most - before) >> 20} MiB more"
