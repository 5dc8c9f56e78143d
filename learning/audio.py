"""Encoded recordings: which are allowed and what is known of one. Imports no torch."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np

from learning import images
from learning.media_types import UnreadableMedia
from learning.signatures import signature_of

MAX_BYTES = 512 << 20
MAX_SECONDS = 3600

_BLOCK_FRAMES = 1 << 16
_CONVERT = "Convert it to WAV, FLAC, Ogg or MP3."
_WRITE_AGAIN = "Write or copy the recording again."
# Where a signature stands, the signature, and the format that has it.
_KINDS = ((8, b"WAVE", "WAV"), (0, b"fLaC", "FLAC"), (0, b"OggS", "Ogg"), (0, b"ID3", "MP3"))


class AudioFacts(NamedTuple):
    """What is known of a recording; `rate` in samples a second of each channel."""

    format: str
    seconds: float
    rate: int
    channels: int


def inspect(content: bytes) -> AudioFacts:
    """Decode a recording, a block at a time, and return what is known of it; UnreadableMedia says what is wrong."""
    # Imported here because it costs every start of a process.
    import soundfile

    kind = _kind(content)
    if kind is None:
        what = "is empty" if not content else f"is {signature_of(content) or 'no recording'}"
        raise UnreadableMedia("not_audio", what, _CONVERT if content else _WRITE_AGAIN)
    _check_length(kind, content)
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            rate, channels, promised = file.samplerate, file.channels, file.frames
            if promised > MAX_SECONDS * rate:
                raise _too_long(promised / rate)
            frames = _frames(file)
    except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0][:120]
        raise UnreadableMedia(
            "damaged_audio", f"is a {kind} recording that cannot be decoded: {reason}", _WRITE_AGAIN
        ) from None
    if not frames:
        raise UnreadableMedia("no_samples", "is a recording without a sample", "Leave it out, or record it again.")
    return AudioFacts(kind, frames / rate, rate, channels)


def waveform(content: bytes, width: int = 160, height: int = 48) -> bytes:
    """Return a small grey PNG of a recording: from the least to the greatest sample of each stretch, over time."""
    import soundfile

    samples_NC, _ = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    samples_N = samples_NC.mean(axis=1)
    starts_W = np.arange(width) * len(samples_N) // width  # where there are fewer samples than columns, some repeat
    lowest_W, highest_W = np.minimum.reduceat(samples_N, starts_W), np.maximum.reduceat(samples_N, starts_W)
    levels_H1 = np.linspace(1, -1, height)[:, None]
    reach = 1 / (height - 1)  # half of a row's height, so that silence is a line
    inside_HW = (levels_H1 >= lowest_W - reach) & (levels_H1 <= highest_W + reach)
    return images.encode_png(np.where(inside_HW, 64, 255).astype(np.uint8)[:, :, None])


def is_audio(content: bytes) -> bool:
    """Return whether bytes begin like a recording of a format that is read."""
    return _kind(content) is not None


def _kind(content: bytes) -> str | None:
    # A frame of MPEG audio, which MP3 without a tag begins with: eleven bits set, and layer III.
    if len(content) > 1 and content[0] == 0xFF and content[1] & 0xE6 == 0xE2:
        return "MP3"
    return next((kind for at, magic, kind in _KINDS if content.startswith(magic, at)), None)


def _check_length(kind: str, content: bytes) -> None:
    if len(content) > MAX_BYTES:
        raise UnreadableMedia(
            "too_large", f"has {len(content)} bytes; at most {MAX_BYTES >> 20} MiB are read", "Cut it into pieces."
        )
    # The decoder takes what there is of a WAV file that was cut; its header says how much there was.
    promised = int.from_bytes(content[4:8], "little") + 8
    if kind == "WAV" and promised != 0xFFFFFFFF + 8 and promised > len(content) + 1:
        raise UnreadableMedia(
            "damaged_audio", f"is a WAV recording cut off: {len(content)} of {promised} bytes", _WRITE_AGAIN
        )


def _frames(file: Any) -> int:
    frames = 0
    while len(block := file.read(_BLOCK_FRAMES, dtype="int16")):
        frames += len(block)
        if frames > MAX_SECONDS * file.samplerate:
            raise _too_long(frames / file.samplerate)
    return frames


def _too_long(seconds: float) -> UnreadableMedia:
    return UnreadableMedia(
        "too_long", f"is {seconds:.0f} s long; at most {MAX_SECONDS} s are read", "Cut it into pieces."
    )
