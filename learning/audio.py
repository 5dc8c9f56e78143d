"""Encoded recordings: which are allowed and what is known of one. Imports no torch."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learning import images, mp3_frames, recording_ends
from learning.media_types import UnreadableMedia
from learning.signatures import signature_of

MAX_BYTES = 512 << 20
MAX_SECONDS = 3600

_BLOCK_SAMPLES = 1 << 18
# A frame of MP3 may take bits from frames before it, at its lowest rate from eleven. soundfile seeks to where it is
# behind every block, and the decoder forgets them there, so that each block begins with so many samples of the last.
_MP3_OVERLAP = 16 * 1152
# Samples lie within -1 to 1; of much larger ones, which a file of floats can hold, the power would be infinite.
_LARGEST_SAMPLE = 1e6
_CONVERT = "Convert it to WAV, FLAC, Ogg or MP3."
_WRITE_AGAIN = "Write or copy the recording again."
# A FLAC file's header has 36 bits for how many samples each channel has.
_MOST_FRAMES = (1 << 36) - 1
# What libsndfile says of itself, by its codes, as what it means for a recording.
_REASONS = {
    0: "its content is damaged",
    7: "there is no sound in it",
    24: "its rate or number of channels is none that there can be",
    39: "it breaks off",
}
# Where a signature stands, the signature, and the format that has it.
_KINDS = ((8, b"WAVE", "WAV"), (0, b"fLaC", "FLAC"), (0, b"OggS", "Ogg"), (0, b"ID3", "MP3"))


Samples = NDArray[np.float32]


class AudioFacts(NamedTuple):
    """What is known of a recording; `rate` in samples a second of each channel."""

    format: str
    seconds: float
    rate: int
    channels: int


class Recording(NamedTuple):
    """What was read of a recording: one channel at the wanted rate, from -1 to 1, and what the file itself has.

    `seconds` is the whole file's length, of which `samples_N` may be the beginning.
    """

    samples_N: Samples
    seconds: float
    rate: int
    channels: int


def inspect(content: bytes) -> AudioFacts:
    """Decode a recording, a block at a time, and return what is known of it; UnreadableMedia says what is wrong."""
    with _opened(content) as (kind, file):
        frames = sum(map(len, _all_blocks(kind, file)))
        rate, channels = file.samplerate, file.channels
    if not frames:
        raise _without_samples()
    return AudioFacts(kind, frames / rate, rate, channels)


def loudest(content: bytes) -> float:
    """Return how far from 0 the channels' mean gets in a whole recording, of which no more than a block is held.

    UnreadableMedia for what cannot be read.
    """
    with _opened(content) as (kind, file):
        return max((float(np.abs(block.mean(axis=1)).max()) for block in _all_blocks(kind, file)), default=0.0)


def decode(content: bytes, rate: int, most_seconds: float) -> Recording:
    """Return a recording's beginning, its channels' mean, resampled; UnreadableMedia for what cannot be read.

    What is longer than `most_seconds` is not decoded, and no more than a block is held of what is.
    """
    # Imported here because it costs every start of a process.
    import soxr

    with _opened(content) as (kind, file):
        # One sample at a time of all channels is mixed at once, so that a thousand channels cost no more than one.
        mixed = [block.mean(axis=1) for block in _blocks(kind, file, math.ceil(most_seconds * file.samplerate))]
        samples_N = np.concatenate(mixed) if mixed else np.empty(0, np.float32)
        promised, own, channels = file.frames, file.samplerate, file.channels
    if not len(samples_N):
        raise _without_samples()
    seconds = max(promised, len(samples_N)) / own
    if own != rate:
        samples_N = soxr.resample(samples_N, own, rate).astype(np.float32, copy=False)
    # A few samples at a high rate may be none at a low one.
    return Recording(samples_N if len(samples_N) else np.zeros(1, np.float32), seconds, own, channels)


def windows(content: bytes, rate: int, size: int, step: int) -> Iterator[Samples]:
    """Yield stretches of a recording of `size` samples at this rate, one every `step`; the last may be shorter.

    A block and a stretch are held at a time, however long the recording is. UnreadableMedia for what cannot be read.
    """
    waiting = np.empty(0, np.float32)
    is_first = True
    for samples_N in _resampled(content, rate):
        waiting = np.concatenate([waiting, samples_N])
        while len(waiting) > size:  # one more than that, so that it is not the last
            yield waiting[:size]
            waiting, is_first = waiting[step:], False
    if len(waiting) > (0 if is_first else size - step):
        yield waiting


def _resampled(content: bytes, rate: int) -> Iterator[Samples]:
    # Imported here because it costs every start of a process.
    import soxr

    with _opened(content) as (kind, file):
        own = file.samplerate
        stream = None if own == rate else soxr.ResampleStream(own, rate, 1, dtype="float32")
        for block in _blocks(kind, file, MAX_SECONDS * own):
            mixed_N: Samples = block.mean(axis=1)
            yield mixed_N if stream is None else stream.resample_chunk(mixed_N)
        if stream is not None:
            yield stream.resample_chunk(np.empty(0, np.float32), last=True)


@contextmanager
def _opened(content: bytes) -> Iterator[tuple[str, Any]]:
    """Give a recording's format and its opened file; UnreadableMedia for what fails within, too."""
    # Imported here because it costs every start of a process.
    import soundfile

    kind = _kind(content)
    if kind is None:
        what = "is empty" if not content else f"is {signature_of(content) or 'no recording'}"
        raise UnreadableMedia("not_audio", what, _CONVERT if content else _WRITE_AGAIN)
    _check_length(kind, content)
    is_short = kind == "MP3" and len(content) < recording_ends.mp3_bytes(content)
    if kind == "MP3":
        content = mp3_frames.with_count(content)
    try:
        if is_short:
            with soundfile.SoundFile(io.BytesIO(content)) as file:
                _check_end(file, content)
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            if kind == "FLAC" and file.frames > _MOST_FRAMES:
                raise _damaged(kind, "that cannot be decoded: it does not say how long it is")
            _check_seconds(file.frames, file)
            yield kind, file
    except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
        raise _cut(content) if is_short else _damaged(kind, f"that cannot be decoded: {_reason(error)}") from None


def waveform(content: bytes, width: int = 160, height: int = 48) -> bytes:
    """Return a small grey PNG of a recording: from the least to the greatest sample of each stretch, over time."""
    with _opened(content) as (_, file):
        samples_NC = file.read(dtype="float32", always_2d=True)
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
    # The decoder takes what there is of a file that was cut.
    if kind == "WAV" and len(content) + 1 < (promised := recording_ends.wav_bytes(content)):
        raise _damaged(kind, f"cut off: {len(content)} of {promised} bytes")
    if kind == "Ogg" and not recording_ends.is_ogg_whole(content):
        raise _damaged(kind, "cut off: it does not end with a whole last page")


def _check_end(file: Any, content: bytes) -> None:
    """Raise UnreadableMedia for an opened MP3 file, which says to have more bytes than it has, if samples miss too.

    One of the two can be a mistake of the program that wrote it.
    """
    if sum(map(len, _all_blocks("MP3", file))) < file.frames:
        raise _cut(content)


def _blocks(kind: str, file: Any, most: int) -> Iterator[Samples]:
    """Yield at most so many samples of each channel, float32 of shape (N, channels); UnreadableMedia for others."""
    block_frames = max(1, _BLOCK_SAMPLES // file.channels)
    at = 0
    while most > 0:
        overlap = min(at, _MP3_OVERLAP) if kind == "MP3" else 0
        if overlap:
            file.seek(at - overlap)
        block = file.read(min(block_frames, most) + overlap, dtype="float32", always_2d=True)[overlap:]
        if not len(block):
            break
        if not (np.abs(block) <= _LARGEST_SAMPLE).all():
            raise _damaged(kind, "with samples that are no numbers, or far beyond -1 to 1")
        at, most = at + len(block), most - len(block)
        yield block


def _all_blocks(kind: str, file: Any) -> Iterator[Samples]:
    """Yield the blocks of a whole recording; UnreadableMedia at the end of one that is too long."""
    frames = 0
    for block in _blocks(kind, file, MAX_SECONDS * file.samplerate + 1):
        frames += len(block)
        yield block
    _check_seconds(frames, file)


def _check_seconds(frames: int, file: Any) -> None:
    if frames > MAX_SECONDS * file.samplerate:
        raise UnreadableMedia(
            "too_long",
            f"is {frames / file.samplerate:.0f} s long; at most {MAX_SECONDS} s are read",
            "Cut it into pieces.",
        )


def _cut(content: bytes) -> UnreadableMedia:
    return _damaged("MP3", f"cut off: {len(content)} of {recording_ends.mp3_bytes(content)} bytes")


def _reason(error: Exception) -> str:
    """Return what a decoder's error says of the recording, without what it says of the decoder."""
    code = getattr(error, "code", None)
    if code in _REASONS:
        return _REASONS[code]
    # With its prefix an error of soundfile would name the object in memory that it reads from.
    text = str(getattr(error, "error_string", error)) or type(error).__name__
    return text.splitlines()[0][:120].removeprefix("Error : ").removesuffix(".")


def _damaged(kind: str, what: str) -> UnreadableMedia:
    article = "an" if kind in ("Ogg", "MP3") else "a"
    return UnreadableMedia("damaged_audio", f"is {article} {kind} recording {what}", _WRITE_AGAIN)


def _without_samples() -> UnreadableMedia:
    return UnreadableMedia("no_samples", "is a recording without a sample", "Record it again.")
