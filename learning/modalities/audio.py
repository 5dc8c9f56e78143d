"""Recordings as log-mel spectrograms: one channel at one rate, frames of how loud it is in each band.

Rows are as long as their recordings: frame_SF, with length_B frames to each row, F mel bands. Features are computed
once, when rows are read; what training changes at random, it changes in them.
"""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field
from torch import Tensor

from learning import audio, images, spectrograms
from learning.audio import Recording
from learning.config import Auto, Columns, Config
from learning.errors import InvalidConfig, InvalidRow
from learning.interfaces import Batch, InputWarning, Part, PredictionOptions
from learning.media_types import UnreadableMedia
from learning.modalities.media_columns import MediaKind, field_of
from learning.spectrograms import LogMel, Normalization

RECORDINGS = MediaKind("audio", "recording", "a", "recordings", "WAV, FLAC, Ogg or MP3", audio.MAX_BYTES)
_LEAST_RATE, _LARGEST_AUTO_RATE, _LARGEST_RATE = 2_000, 16_000, 96_000
# A recording that never gets louder than this, where 1 is the loudest there is, holds nothing to learn from.
_SILENCE = 1e-4
_SILENT = "silent"
_SHOWN_ROWS = 3


_Rate = Annotated[int, Field(ge=_LEAST_RATE, le=_LARGEST_RATE)]
_Mels = Annotated[int, Field(ge=8, le=256)]
_Seconds = Annotated[float, Field(ge=0.1, le=3_600)]


class AudioConfig(Config):
    """How recordings become spectrograms."""

    rate: _Rate | Auto = Field(
        "auto",
        description='Samples a second that all recordings are brought to; "auto": the usual rate of the training rows, '
        "at most 16,000.",
    )
    window_ms: float = Field(25.0, ge=5, le=200, description="Length of the stretch of which a frame is the spectrum.")
    hop_ms: float = Field(10.0, ge=2, le=100, description="Time from one frame to the next.")
    mels: _Mels = Field(40, description="Mel bands that a frame tells apart.")
    normalization: Normalization = Field(
        "recording",
        description="Subtract a recording's mean and divide by its deviation, over all bands or in each band by "
        "itself, which hides microphones and voices; or do neither.",
    )
    max_seconds: _Seconds = Field(
        30.0, description="What of a recording is read; what is longer is cut, with a warning."
    )


class AudioState(Config):
    """What was fitted: the column and the rate, in samples a second; window and hop are in samples."""

    column: str
    rate: _Rate
    window: int = Field(ge=_LEAST_RATE * 5 // 1000, le=_LARGEST_RATE * 200 // 1000)
    hop: int = Field(ge=1, le=_LARGEST_RATE * 100 // 1000)
    mels: _Mels
    normalization: Normalization
    max_seconds: _Seconds

    @cached_property
    def log_mel(self) -> LogMel:
        """Return what computes the spectrograms."""
        return LogMel(self.rate, self.window, self.hop, self.mels, self.normalization)

    @property
    def frame_seconds(self) -> float:
        """Return the time from one frame to the next."""
        return self.hop / self.rate


class AudioRow(NamedTuple):
    """A recording as the network reads it, what is asked of its answer, and what there is beyond."""

    frame_TF: Tensor
    asked: PredictionOptions | None = None
    whole: bytes | None = None  # the file, where the frames are only of its beginning and all of it is to be read


class Audio:
    """One column of recordings."""

    name: ClassVar[str] = "audio"
    Config: ClassVar[type[AudioConfig]] = AudioConfig
    State: ClassVar[type[AudioState]] = AudioState

    def fit(self, table: pa.Table, columns: Columns, config: AudioConfig) -> AudioState:
        """Choose the rate; InvalidData without a column of recordings, InvalidConfig for more bands than fit."""
        column = RECORDINGS.column(table, columns)
        rate = _usual_rate(RECORDINGS.cells(table, column)) if config.rate == "auto" else config.rate
        state = AudioState(
            column=column,
            rate=rate,
            window=round(config.window_ms * rate / 1000),
            hop=max(1, round(config.hop_ms * rate / 1000)),
            mels=config.mels,
            normalization=config.normalization,
            max_seconds=config.max_seconds,
        )
        _check_bands(state)
        return state

    def reuse(self, table: pa.Table, columns: Columns, state: AudioState) -> AudioState:
        """Return the state for this table's column of recordings, whatever it is called."""
        return state.model_copy(update={"column": RECORDINGS.column(table, columns)})

    def remarks(self, table: pa.Table, columns: Columns, state: AudioState, part: Part = "training") -> list[str]:
        """Say what of the recordings is not read as it is, and name the columns that are not read."""
        cells = RECORDINGS.cells(table, state.column)
        channels, rates, seconds = (field_of(cells, name) for name in ("channels", "rate", "seconds"))
        mixed = pc.sum(pc.greater(channels, 1)).as_py() or 0
        other = pc.sum(pc.not_equal(rates, state.rate)).as_py() or 0
        long = pc.sum(pc.greater(seconds, state.max_seconds)).as_py() or 0
        found = [
            f"{_recordings(mixed, part)} more than one channel; their mean is read." if mixed else "",
            f"{_recordings(other, part)} another rate than {state.rate} samples a second, to which all are resampled."
            if other
            else "",
            f"{_recordings(long, part)} more than {state.max_seconds:g} s; the rest of them is not read."
            if long
            else "",
            _silent(table, state, part),
        ]
        unused = RECORDINGS.unused(table, columns, state.column) if part == "training" else []
        return [*filter(None, found), *unused]

    def files(self, state: AudioState) -> dict[str, str]:
        """Return none."""
        return {}

    def encode(self, table: pa.Table, state: AudioState) -> Batch:
        """Return frame_SF and length_B; InvalidRow names a recording that cannot be read."""
        rows = []
        for row, content in enumerate(RECORDINGS.contents(table, state.column)):
            try:
                rows.append(AudioRow(_frames(_read(content, state), state)))
            except UnreadableMedia as error:
                what = f', column "{state.column}": the file {error.what}.'
                raise InvalidRow(row, what, hint=error.remedy, param="columns") from None
        return self.assemble(rows, state)

    def column_names(self, state: AudioState) -> tuple[str, ...]:
        """Return the column of recordings."""
        return (state.column,)

    def content(self, value: Any, index: int, state: AudioState) -> bytes:
        """Return the file of an input, read or not: its bytes, their base64, a data URL, or an object with one."""
        return RECORDINGS.given(value, index, state.column)

    def parse(self, value: Any, index: int, state: AudioState) -> tuple[AudioRow, list[InputWarning]]:
        """Return frame_TF of an audio file: its bytes, their base64, a data URL, or an object with one of these."""
        recording, warnings = _parsed(RECORDINGS.given(value, index, state.column), index, state, state.max_seconds)
        return AudioRow(_frames(recording, state)), warnings

    def parse_long(
        self, value: Any, index: int, state: AudioState, seconds: float
    ) -> tuple[AudioRow, list[InputWarning]]:
        """Return an audio file as `parse` does, but of one longer than this its beginning, and with it the file."""
        content = RECORDINGS.given(value, index, state.column)
        recording, warnings = _parsed(content, index, state, seconds)
        row = AudioRow(_frames(recording, state))
        if recording.seconds <= seconds:
            return row, warnings
        # Whoever reads on must not find damage when others wait for their answers beside this one's.
        with _refusing(index, state):
            is_silent = audio.loudest(content) <= _SILENCE
        # Nothing is cut, and what is silent in its first window may be heard later.
        kept = [one for one in warnings if one.code != "truncated" and (one.code != _SILENT or is_silent)]
        return row._replace(whole=content), kept

    def assemble(self, rows: Sequence[AudioRow], state: AudioState) -> Batch:
        """Return frame_SF and length_B of parsed recordings."""
        frame_SF = torch.cat([row.frame_TF for row in rows]) if rows else torch.empty(0, state.mels)
        return {"frame_SF": frame_SF, "length_B": torch.tensor([len(row.frame_TF) for row in rows], dtype=torch.int64)}

    def positions(self, row: AudioRow) -> int:
        """Return the number of frames."""
        return len(row.frame_TF)

    def shown(self, row: AudioRow, state: AudioState) -> dict[str, Any]:
        """Return the spectrogram as a picture."""
        picture = images.data_url(spectrograms.picture(row.frame_TF))
        return {"spectrogram": picture, "frames": len(row.frame_TF), "mels": state.mels, "rate": state.rate}

    def schema(self, state: AudioState) -> dict[str, Any]:
        """Return the JSON Schema of an input."""
        return {**RECORDINGS.schema(state.column), "example": base64.b64encode(_example(state.rate)).decode()}


def _read(content: bytes, state: AudioState) -> Recording:
    return audio.decode(content, state.rate, state.max_seconds)


@contextmanager
def _refusing(index: int, state: AudioState) -> Iterator[None]:
    try:
        yield
    except UnreadableMedia as error:
        raise RECORDINGS.refused(index, state.column, f"the file {error.what}. {error.remedy}") from None


def _parsed(content: bytes, index: int, state: AudioState, most_seconds: float) -> tuple[Recording, list[InputWarning]]:
    """Return the beginning of an input, and what to warn about."""
    with _refusing(index, state):
        recording = audio.decode(content, state.rate, most_seconds)
    warnings = [
        InputWarning(index, code, f'Input {index}, "{state.column}": {message}', is_empty=code == _SILENT)
        for code, message in _differences(recording, state)
    ]
    return recording, warnings


def _frames(recording: Recording, state: AudioState) -> Tensor:
    return state.log_mel.frames(recording.samples_N)


def _is_silent(recording: Recording) -> bool:
    return float(np.abs(recording.samples_N).max()) <= _SILENCE


def _differences(recording: Recording, state: AudioState) -> list[tuple[str, str]]:
    """Return a code and a message for each way in which what is read is not the recording itself."""
    found = []
    if recording.channels > 1:
        found.append(("mixed_channels", f"the mean of the {recording.channels} channels is read."))
    if recording.rate != state.rate:
        found.append(("resampled", f"resampled from {recording.rate} to {state.rate} samples a second."))
    if recording.seconds > state.max_seconds:
        found.append(("truncated", f"only the first {state.max_seconds:g} of {recording.seconds:.1f} s are read."))
    if _is_silent(recording):
        found.append((_SILENT, "the recording is silent."))
    return found


def _silent(table: pa.Table, state: AudioState, part: Part) -> str:
    # At their own rates: nothing needs to be resampled to be heard.
    rates = field_of(RECORDINGS.cells(table, state.column), "rate").to_pylist()
    pairs = enumerate(zip(RECORDINGS.contents(table, state.column), rates, strict=True))
    silent = [row for row, (content, rate) in pairs if _is_silent(audio.decode(content, int(rate), state.max_seconds))]
    shown = ", ".join(str(row + 1) for row in silent[:_SHOWN_ROWS]) + (", ..." if len(silent) > _SHOWN_ROWS else "")
    one = len(silent) == 1
    what = f"{len(silent)} {part} recording{' is' if one else 's are'} silent ({part} row{'' if one else 's'} {shown})."
    return what if silent else ""


def _recordings(count: int, part: Part) -> str:
    return f"{count} {part} recording{' has' if count == 1 else 's have'}"


def _usual_rate(cells: pa.ChunkedArray) -> int:
    # Of rates that occur equally often the higher one: nothing of a recording is lost by it.
    counts = {item["values"]: item["counts"] for item in field_of(cells, "rate").value_counts().to_pylist()}
    usual = max(counts, key=lambda rate: (counts[rate], rate))
    return max(_LEAST_RATE, min(_LARGEST_AUTO_RATE, int(usual)))


def _check_bands(state: AudioState) -> None:
    """Raise InvalidConfig when a band lies between two frequencies, so that it never hears anything."""
    empty = int((state.log_mel.filters_KF.sum(0) == 0).sum())
    if empty:
        raise InvalidConfig(
            f"{empty} of {state.mels} mel bands would be empty: windows of {state.window} samples at {state.rate} a "
            "second do not tell so many frequencies apart.",
            hint="Ask for fewer mels, or for a longer window_ms.",
            param="preprocessing.mels",
        )


def _example(rate: int) -> bytes:
    """Return a WAV file of a tenth of a second of a tone."""
    buffer = io.BytesIO()
    tone = (8_000 * np.sin(np.arange(rate // 10) * (2 * np.pi * 440 / rate))).astype("<i2")
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(tone.tobytes())
    return buffer.getvalue()
