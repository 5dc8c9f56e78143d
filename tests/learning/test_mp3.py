"""MP3 files of variable rate that do not say how long they are, and what is read of a file a block at a time."""

import io

import numpy as np
import pytest
import soundfile

from learning import audio, mp3_frames

RATES = [48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000]
VARIABLE = {"bitrate_mode": "VARIABLE", "compression_level": 0.6}
# One says how long it is, the other has no room to say it.
CONSTANT, SMALL = ({"bitrate_mode": "CONSTANT", "compression_level": level} for level in (0.2, 0.95))
SECONDS = 3


def written(rate: int, channels: int = 1, seconds: float = SECONDS, **options: object) -> bytes:
    generator = np.random.default_rng(rate)
    count = int(rate * seconds)
    # Of a sound that changes all the time no stretch is another's, and no frame takes as many bits as the next.
    tone = 0.4 * np.sin(np.cumsum(generator.normal(0.05, 0.01, count))) * np.linspace(0, 1, count)
    samples = (tone + generator.normal(0, 0.02, count)).astype(np.float32)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.repeat(samples[:, None], channels, 1), rate, format="MP3", **options)
    return buffer.getvalue()


def without_count(content: bytes) -> bytes:
    """The frames behind the first one, which says how many there are."""
    frame = mp3_frames.frame_at(content, 0)
    assert frame is not None
    return content[frame.size :]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", RATES)
def test_all_of_a_variable_rate_is_read(rate, channels):
    content = written(rate, channels, **VARIABLE)
    uncounted = without_count(content)
    with soundfile.SoundFile(io.BytesIO(uncounted)) as file:  # what the decoder reads of it by itself
        assert file.frames < 0.9 * SECONDS * rate
    facts = audio.inspect(uncounted)
    assert (facts.rate, facts.channels) == (rate, channels)
    # What an encoder puts before and behind the recording is not told from it without the frame that says so.
    assert SECONDS <= facts.seconds < SECONDS + 4 * 1152 / rate
    whole, read = (audio.decode(one, rate, 60).samples_N for one in (content, uncounted))
    assert len(read) == round(facts.seconds * rate)
    start = min(range(2500), key=lambda at: float(np.abs(read[at : at + 9000] - whole[:9000]).max()))
    length = len(whole) - 4 * 1152
    np.testing.assert_allclose(read[start : start + length], whole[:length], atol=1e-6)


def test_behind_titles_too():
    title = b"ID3\4\0\0\0\0\2\0" + bytes(256)
    uncounted = title + without_count(written(16_000, **VARIABLE))
    assert audio.inspect(uncounted).seconds >= SECONDS
    assert audio.waveform(uncounted) == audio.waveform(uncounted.removeprefix(title))


@pytest.mark.parametrize(
    "content",
    [
        written(16_000, **VARIABLE),
        written(16_000, **CONSTANT),
        without_count(written(16_000, **CONSTANT)),
        written(16_000, **SMALL),
        b"",
        b"\xff\xfb\x90\x00",
    ],
    ids=["counted", "constant", "constant, uncounted", "constant, small", "nothing", "a header alone"],
)
def test_the_others_stay_as_they_are(content):
    assert mp3_frames.with_count(content) is content


@pytest.mark.parametrize("options", [VARIABLE, SMALL], ids=["variable", "constant"])
@pytest.mark.parametrize("rate", [48_000, 16_000, 8_000])
def test_block_by_block_is_all_at_once(rate, options, monkeypatch):
    content = written(rate, seconds=6, **options)
    at_once, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    monkeypatch.setattr(audio, "_BLOCK_SAMPLES", 10_000)
    np.testing.assert_allclose(audio.decode(content, rate, 60).samples_N, at_once, atol=1e-6)
    stretches = np.concatenate(list(audio.windows(content, rate, 7_000, 7_000)))
    np.testing.assert_allclose(stretches, at_once, atol=1e-6)
