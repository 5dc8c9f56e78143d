"""Some rows of a table, spread over all of it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

SAMPLE_ROWS = 20_000
_PIECES = 20


def sample(table: pa.Table, rows: int = SAMPLE_ROWS) -> pa.Table:
    """Return the whole table, or evenly spread pieces of it with about that many rows together."""
    if table.num_rows <= rows:
        return table
    step = table.num_rows // _PIECES
    return pa.concat_tables([table.slice(piece * step, rows // _PIECES) for piece in range(_PIECES)])


def sample_numbers(numbers: NDArray[np.int64], rows: int = SAMPLE_ROWS) -> NDArray[np.int64]:
    """Return all of some row numbers, or evenly spread ones of them."""
    return numbers if len(numbers) <= rows else numbers[np.linspace(0, len(numbers) - 1, rows, dtype=np.int64)]
