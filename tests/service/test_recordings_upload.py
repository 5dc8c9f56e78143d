"""Archives of recordings of every format: which rows are refused and how that is said, and how long one may be."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from media_files import packed, tone, wav
from support import upload

NOISE = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
OR_ELSE = 'leave it out, or set on_bad_rows="skip".'
AGAIN = f"Write or copy the recording again, {OR_ELSE}"


def written(format: str, samples: Any = NOISE, rate: int = 8000) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format)
    return buffer.getvalue()


def said(error: dict[str, Any]) -> str:
    """An error's message without how many of the rows have one of its kind."""
    return str(error["message"]).rpartition(". ")[0] + "."


def test_each_recording_that_was_cut_off_or_is_empty_is_named_by_its_row(running: httpx.Client, tmp_path: Path) -> None:
    flac, ogg, mp3 = written("FLAC"), written("OGG"), written("MP3")
    members = {
        "0.wav": tone(),
        "1.wav": b"",
        "2.flac": flac[: len(flac) // 2],
        "3.flac": flac,
        "4.ogg": ogg[: len(ogg) // 2],
        "5.ogg": ogg[: len(ogg) * 95 // 100],
        "6.ogg": ogg,
        "7.mp3": mp3[: len(mp3) // 2],
        "8.mp3": mp3[: len(mp3) * 95 // 100],
        "9.mp3": mp3,
    }
    path = packed(tmp_path / "cut.zip", members)
    dataset = upload(running, path)
    assert dataset["status"] == "invalid"
    found = running.get(f"/datasets/{dataset['id']}/errors").json()["errors"]
    names = ["1.wav", "2.flac", "4.ogg", "5.ogg", "7.mp3", "8.mp3"]
    assert [(error["row"], error["value"]) for error in found] == [(int(name[0]) + 1, name) for name in names]
    assert [error["rule"] for error in found] == ["not_audio", *["damaged_audio"] * 5]
    assert [said(error) for error in found] == [
        'Row 2: "1.wav" is empty.',
        'Row 3: "2.flac" is a FLAC recording that cannot be decoded: flac decoder lost sync.',
        'Row 5: "4.ogg" is an Ogg recording cut off: it does not end with a whole last page.',
        'Row 6: "5.ogg" is an Ogg recording cut off: it does not end with a whole last page.',
        f'Row 8: "7.mp3" is an MP3 recording cut off: {len(mp3) // 2} of {len(mp3)} bytes.',
        f'Row 9: "8.mp3" is an MP3 recording cut off: {len(mp3) * 95 // 100} of {len(mp3)} bytes.',
    ]
    assert {error["remedy"] for error in found} == {AGAIN}
    kept = upload(running, path, on_bad_rows="skip")
    assert (kept["status"], kept["num_rows"], kept["validation"]["error_count"]) == ("ready", 4, 6)


def test_what_is_wrong_with_a_recording_is_said_in_the_caller_s_words(running: httpx.Client, tmp_path: Path) -> None:
    plain = tone()
    members = {
        "1.wav": b"RIFF\x04\0\0\0WAVE",
        "2.wav": plain[:24] + bytes(4) + plain[28:],
        "3.wav": plain[:24] + b"\0\x28\x6b\xee" + plain[28:],  # 4 GHz
        "4.wav": wav(np.zeros((0, 1))),
        "5.wav": plain,
    }
    dataset = upload(running, packed(tmp_path / "odd.zip", members))
    found = running.get(f"/datasets/{dataset['id']}/errors").json()["errors"]
    undecoded = "is a WAV recording that cannot be decoded"
    no_rate = f"{undecoded}: its rate or number of channels is none that there can be."
    assert [(said(error), error["remedy"]) for error in found] == [
        (f"Row 1: \"1.wav\" {undecoded}: Error in WAV file. No 'data' chunk marker.", AGAIN),
        (f'Row 2: "2.wav" {no_rate}', AGAIN),
        (f'Row 3: "3.wav" {no_rate}', AGAIN),
        ('Row 4: "4.wav" is a recording without a sample.', f"Record it again, {OR_ELSE}"),
    ]


@pytest.mark.parametrize("sound", ["silence", "noise"])
def test_a_recording_of_an_hour_is_read_and_no_longer_one(running: httpx.Client, tmp_path: Path, sound: str) -> None:
    # Few samples a second, so that the test takes seconds; and loud in its first second alone, so that it is small.
    rate = 500
    samples_N = np.zeros(3601 * rate, np.float32)
    if sound == "noise":
        samples_N[:rate] = NOISE[:rate]
    members = {
        "hour.flac": written("FLAC", samples_N[: 3600 * rate], rate),
        "longer.flac": written("FLAC", samples_N, rate),
        "short.flac": written("FLAC", NOISE[: 9 * rate], rate),
    }
    path = packed(tmp_path / "long.zip", members)
    dataset = upload(running, path)
    assert dataset["status"] == "invalid"
    (error,) = running.get(f"/datasets/{dataset['id']}/errors").json()["errors"]
    assert (error["row"], error["rule"], error["value"]) == (2, "too_long", "longer.flac")
    assert said(error) == 'Row 2: "longer.flac" is 3601 s long; at most 3600 s are read.'
    assert error["remedy"] == f"Cut it into pieces, {OR_ELSE}"
    kept = upload(running, path, on_bad_rows="skip")
    assert (kept["status"], kept["num_rows"]) == ("ready", 2)
    (column,) = [column for column in kept["columns"] if column["name"] == "audio"]
    assert column["media"]["seconds"]["max"] == 3600
