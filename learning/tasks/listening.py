"""Recordings of any length, written down: heard a window at a time, several recordings together.

Windows overlap. In what two of them share, the first is believed up to a position where both hear nothing, and the
second from there on, so that what is written down can go on where it was. T positions of a window, S frames.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learning import audio
from learning.interfaces import Network
from learning.modalities.audio import AudioRow, AudioState
from learning.packing import EVALUATION_POSITIONS
from learning.tasks.transcription import Heard, Transcript, likeliest_tokens

# Frames of a window and of a step from one to the next are a multiple of this, of which every network's positions
# are made.
_GRAIN = 16
# What windows share, of their length and in seconds at most; a word has room in it.
_SHARED, _MOST_SHARED_S = 0.25, 4.0
_MOST_ROWS = 64
# Positions beside one at which nothing is to be heard either, where a recording is cut.
_QUIET = 2


class Windows:
    """How recordings are cut: frames of a window, and from the beginning of one to that of the next."""

    def __init__(self, inputs: AudioState, seconds: float) -> None:
        self.inputs = inputs
        frames = min(seconds, inputs.max_seconds) / inputs.frame_seconds
        self.frames = max(2, int(frames / _GRAIN)) * _GRAIN
        shared = min(self.frames * _SHARED, _MOST_SHARED_S / inputs.frame_seconds)
        self.step = self.frames - max(1, int(shared / _GRAIN)) * _GRAIN

    @property
    def seconds(self) -> float:
        """Return the length of a window."""
        return self.frames * self.inputs.frame_seconds

    def of(self, row: AudioRow) -> Iterator[tuple[Tensor, bool]]:
        """Yield the frames of a recording's windows, and whether that is the last."""
        if row.whole is None:
            yield row.frame_TF, True
            return
        hop = self.inputs.hop
        stretches = audio.windows(row.whole, self.inputs.rate, self.frames * hop, self.step * hop)
        before = next(stretches)
        for samples_N in stretches:
            # A frame that is centred on the first sample behind a window is left to the next one.
            yield self.inputs.log_mel.frames(before)[: self.frames], False
            before = samples_N
        yield self.inputs.log_mel.frames(before), True


class Listening:
    """One recording on its way to its transcript."""

    def __init__(self, row: AudioRow, windows: Windows, transcript: Transcript) -> None:
        self._windows, self._transcript = windows, transcript
        self._coming = windows.of(row)
        self._held: Heard | None = None  # since the last cut
        self._position_frames = 0.0
        self._shown = ""
        self._is_last = False
        self._writing: Iterator[None] | None = None
        self.is_done = False

    @property
    def is_writing(self) -> bool:
        """Return whether what was heard is not yet written down."""
        return self._writing is not None

    def next(self) -> Tensor:
        """Return the frames of the next window."""
        frame_TF, self._is_last = next(self._coming)
        return frame_TF

    def hear(self, frames: int, heard: Heard) -> None:
        """Take what was heard in that window."""
        self._writing = self._heard(frames, heard)

    def write(self) -> None:
        """Write down what was heard, or as much of it as a few milliseconds are enough for."""
        if self._writing is not None and next(self._writing, self) is self:
            self._writing = None

    def _heard(self, frames: int, heard: Heard) -> Iterator[None]:
        if self._held is None:
            self._position_frames = frames / len(heard.token_TK)
        else:
            heard = yield from self._cut(self._held, heard)
        self._held = heard
        if self._is_last:
            yield from self._transcript.adding(heard, is_last=True)
            self.is_done = True

    def _cut(self, before: Heard, heard: Heard) -> Generator[None, None, Heard]:
        """Write down what was heard up to where two windows are cut, and return what is heard from there on."""
        shared = round((self._windows.frames - self._windows.step) / self._position_frames)
        place = _quietest(before.behind(-shared), heard.before(shared))
        yield from self._transcript.adding(before.before(place - shared), is_last=False)
        return heard.behind(place)

    def fresh(self) -> str:
        """Return what has been written down since the last time."""
        new = self._transcript.text[len(self._shown) :]
        self._shown += new
        return new

    def answer(self) -> dict[str, Any]:
        """Return the transcript as a caller gets it."""
        return self._transcript.answer(self._position_frames * self._windows.inputs.frame_seconds)


def _quietest(one: Heard, other: Heard) -> int:
    """Return the position, not near the ends, at and beside which two windows hear least; of such the middle one."""
    silence_T = one.silence() + other.silence()
    around = np.lib.stride_tricks.sliding_window_view(np.pad(silence_T, _QUIET, mode="edge"), 2 * _QUIET + 1).min(1)
    places = np.arange(len(around))
    middle = len(around) // 2
    worth = around - 1e-3 * np.abs(places - middle)
    edge = len(around) // 4
    return edge + int(worth[edge : len(around) - edge].argmax())


class Transcriptions:
    """Recordings that a network hears together, a window of each in turn."""

    def __init__(self, network: Network, windows: Windows, write: Callable[[AudioRow], Transcript]) -> None:
        self._network, self._windows, self._write = network, windows, write
        self._going: list[Listening] = []  # whose turn it is first

    def fitting(self, rows: Sequence[AudioRow]) -> int:
        """Return how many of the next recordings there is room for."""
        return min(len(rows), max(_MOST_ROWS - len(self._going), 0 if self._going else 1))

    def join(self, rows: Sequence[AudioRow]) -> list[Listening]:
        """Begin to hear recordings."""
        joined = [Listening(row, self._windows, self._write(row)) for row in rows]
        self._going += joined
        return joined

    def leave(self, answers: Collection[Listening]) -> None:
        """Forget recordings that nobody waits for."""
        self._going = [one for one in self._going if one not in answers]

    def step(self) -> list[Listening]:
        """Hear the next window of as many recordings as are computed at once, or go on writing one down; return those
        that have ended.
        """
        turn = [self._going[0]] if self._going[0].is_writing else self._hear()
        for one in turn:
            one.write()
        others = [one for one in self._going if one not in turn]
        self._going = [*others, *(one for one in turn if not one.is_done)]
        return [one for one in turn if one.is_done]

    def _hear(self) -> list[Listening]:
        """Hear the next window of those that are not writing, whose turn it is."""
        turn: list[Listening] = []
        frames: list[Tensor] = []
        for one in self._going:
            if frames and sum(map(len, frames)) >= EVALUATION_POSITIONS:
                break
            if not one.is_writing:
                turn.append(one)
                frames.append(one.next())
        for one, frame_TF, heard in zip(turn, frames, self._heard(frames), strict=True):
            one.hear(len(frame_TF), heard)
        return turn

    def _heard(self, frames: Sequence[Tensor]) -> list[Heard]:
        batch = {"frame_SF": torch.cat(list(frames)), "length_B": torch.tensor([len(one) for one in frames])}
        return [Heard.of(values_TK2) for values_TK2 in likeliest_tokens(self._network, batch).rows()]


def transcribe(steps: Transcriptions, rows: Sequence[AudioRow]) -> list[dict[str, Any]]:
    """Return the answers to recordings, as many of which are heard together as there is room for."""
    found: list[Listening] = []
    going = 0
    while going or len(found) < len(rows):
        if count := steps.fitting(rows[len(found) :]):
            found += steps.join(rows[len(found) : len(found) + count])
            going += count
        going -= len(steps.step())
    return [one.answer() for one in found]
