"""Transcripts that are too long for their recordings: at the upload, since a job fails by one of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc

from learning.ctc import positions_needed
from learning.transcripts import normalized

# What `speech-recognition` tells apart by default: a position of `conv-transformer` is four frames.
FRAME_SECONDS, FRAMES_A_POSITION, MOST_SECONDS = 0.01, 4, 30.0
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class TooLong:
    """How many transcripts are too long, and the rows of the first of them, from 1."""

    count: int = 0
    rows: list[int] = field(default_factory=list)


def too_long(table: Any, recordings: str, transcripts: str) -> TooLong:
    """Compare the transcripts of an Arrow table to what its recordings have room for."""
    rows: list[int] = []
    before = 0
    for batch in table.select([recordings, transcripts]).to_batches():
        seconds_N = pc.struct_field(batch.column(0), "seconds").fill_null(0.0).to_numpy(zero_copy_only=False)
        frames_N = 1 + np.floor(np.minimum(seconds_N, MOST_SECONDS) / FRAME_SECONDS).astype(np.int64)
        room_N = -(-frames_N // FRAMES_A_POSITION)
        characters_N = pc.utf8_length(batch.column(1)).fill_null(0).to_numpy(zero_copy_only=False)
        # A character needs a position, or two where it repeats the one before: most have room by far.
        for row in np.flatnonzero((2 * characters_N > room_N) & (seconds_N > 0)).tolist():
            text = normalized(batch.column(1)[row].as_py(), lower_case=True)
            if positions_needed([ord(character) for character in text]) > room_N[row]:
                rows.append(before + row + 1)
        before += batch.num_rows
    return TooLong(len(rows), rows[:_SHOWN])
