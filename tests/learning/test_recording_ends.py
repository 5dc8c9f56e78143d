"""Recordings that were cut off, in each format, and others that only look like it."""

import io
from typing import Any

import numpy as np
import pytest
import soundfile

from learning import audio
from learning.media_types import UnreadableMedia

NOISE = np.random.default_rng(0).normal(0, 0.1, 80_000).astype(np.float32)
RATE = 8000
# Formats, how their samples are coded, and how an error calls them.
KINDS = [
    ("WAV", "PCM_U8", "a WAV"),
    ("WAV", "FLOAT", "a WAV"),
    ("FLAC", "PCM_16", "a FLAC"),
    ("OGG", "VORBIS", "an Ogg"),
    ("OGG", "OPUS", "an Ogg"),
    ("MP3", "MPEG_LAYER_III", "an MP3"),
]
LOSSY = [kind for kind in KINDS if kind[0] in ("OGG", "MP3")]


def written(format: str, subtype: str, samples: Any = NOISE, rate: int = RATE, **options: Any) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, subtype=subtype, format=format, **options)
    return buffer.getvalue()


def refused(content: bytes) -> str:
    with pytest.raises(UnreadableMedia) as caught:
        audio.inspect(content)
    assert caught.value.rule == "damaged_audio"
    assert caught.value.remedy == "Write or copy the recording again."
    return caught.value.what


@pytest.mark.parametrize(("format", "subtype", "called"), KINDS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95, 0.999])
def test_a_recording_that_was_cut_off_is_refused(format, subtype, called, share):
    content = written(format, subtype)
    assert audio.inspect(content).seconds == pytest.approx(10, abs=0.01)
    what = refused(content[: int(len(content) * share)])
    assert what.startswith(f"is {called} recording cut off: " if format != "FLAC" else "is a FLAC recording that")


@pytest.mark.parametrize(("format", "subtype", "called"), LOSSY)
@pytest.mark.parametrize("seconds", [1, 30])
def test_so_it_is_when_it_is_asked_for_a_prediction(format, subtype, called, seconds):
    content = written(format, subtype)
    assert len(audio.decode(content, RATE, seconds).samples_N) == min(seconds, 10) * RATE
    with pytest.raises(UnreadableMedia, match=f"is {called} recording cut off: "):
        audio.decode(content[: len(content) // 2], RATE, seconds)


def test_how_much_of_an_mp3_file_is_there_is_said():
    content = written("MP3", "MPEG_LAYER_III")
    titles = b"ID3\x04\0\0\0\0\1\0" + bytes(128)
    for count in (200, 5000):  # of no sample at all, too
        assert refused(content[:count]) == f"is an MP3 recording cut off: {count} of {len(content)} bytes"
    assert refused((titles + content)[:5000]).endswith(f"cut off: 5000 of {len(content) + 138} bytes")


@pytest.mark.parametrize(("format", "subtype", "called"), KINDS)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("count", [1, 800, 80_000])
def test_what_is_whole_is_read(format, subtype, called, channels, count):
    content = written(format, subtype, NOISE[:count, None].repeat(channels, 1))
    facts = audio.inspect(content)
    assert (round(facts.seconds * RATE), facts.channels) == (count, channels)
    assert len(audio.decode(content, RATE, 30).samples_N) == count


@pytest.mark.parametrize("mode", ["CONSTANT", "AVERAGE", "VARIABLE"])
@pytest.mark.parametrize("rate", [8000, 22_050, 44_100])
def test_an_mp3_file_is_read_however_it_is_written(mode, rate):
    content = written("MP3", "MPEG_LAYER_III", rate=rate, bitrate_mode=mode)
    for whole in (content, content + b"TAG" + bytes(125), b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + content):
        assert round(audio.inspect(whole).seconds * rate) == 80_000
    lying = bytearray(content)  # more bytes than there are, for as many samples as there are
    at = content.index(b"Xing") + 12
    lying[at : at + 4] = (len(content) + 9999).to_bytes(4, "big")
    assert round(audio.inspect(bytes(lying)).seconds * rate) == 80_000
    assert np.array_equal(audio.decode(bytes(lying), rate, 30).samples_N, audio.decode(content, rate, 30).samples_N)


def test_an_mp3_file_that_does_not_say_how_long_it_is_is_read():
    content = written("MP3", "MPEG_LAYER_III", NOISE * np.repeat([0, 1], len(NOISE) // 2))
    without = content[content.index(content[:2], 100) :]  # the first frame, which has no sound, says it
    with soundfile.SoundFile(io.BytesIO(without)) as file:
        assert file.frames > 120_000  # by its first frames the decoder takes it for longer than it is
    assert audio.inspect(without).seconds == pytest.approx(10, abs=0.2)
    assert 5 < audio.inspect(without[: len(without) // 2]).seconds < 7


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_file_of_several_streams_or_with_something_behind_is_read(subtype):
    first, second = written("OGG", subtype), written("OGG", subtype, NOISE[:8000])
    for whole in (first + second, first + b"TAG" + bytes(125), first[:-1] + b"\xff"):
        assert audio.inspect(whole).seconds > 8
    assert refused(first + second[:-10]).startswith("is an Ogg recording cut off")
    assert refused(first[:20]).startswith("is an Ogg recording cut off")


def header_with(rate: int) -> bytes:
    content = written("WAV", "PCM_16", NOISE[:800])
    return content[:24] + rate.to_bytes(4, "little") + content[28:]


def without_length(content: bytes) -> bytes:
    """A FLAC file as one that was written before its length was known, which is in 36 bits of its header."""
    return content[:21] + bytes([content[21] & 0xF0]) + bytes(4) + content[26:]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"RIFF\x04\0\0\0WAVE", "Error in WAV file. No 'data' chunk marker"),
        (header_with(0), "its rate or number of channels is none that there can be"),
        (header_with(4_000_000_000), "its rate or number of channels is none that there can be"),
        (b"ID3" + bytes(300), "Format not recognised"),
        (b"\xff\xe3\x48\xc4" + bytes(300), "there is no sound in it"),
        (b"fLaC" + bytes(60), "File contains data in an unimplemented format"),
        (written("FLAC", "PCM_16")[:1000], "flac decoder lost sync"),
        (written("FLAC", "PCM_16", 0 * NOISE)[:200], "it breaks off"),
        (without_length(written("FLAC", "PCM_16")), "it does not say how long it is"),
    ],
)
def test_why_a_recording_cannot_be_decoded_is_said_without_what_is_inside_the_service(content, said):
    assert refused(content).partition(" that cannot be decoded: ")[2] == said
