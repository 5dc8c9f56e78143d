"""Columns that give a target away: alone they determine it, or are a copy of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

# A column gives labels away when it leaves so few of the mistakes that always guessing the most frequent label makes.
_MISTAKES_LEFT = 0.05
_ROWS_A_VALUE = 5
_SAME = 0.9999
_MOST_COLUMNS = 200
_MOST_LABELS = 1_000


def leaks(table: pa.Table, target: str) -> Iterator[tuple[str, str]]:
    """Yield the columns that give the target away, each with how it does, as a half sentence."""
    values = table.column(target)
    others = [name for name in table.column_names if name != target][:_MOST_COLUMNS]
    if pa.types.is_nested(values.type):
        return
    codes = _codes(values)
    labels = len(np.unique(codes))
    by_value = labels <= min(_MOST_LABELS, len(codes) // _ROWS_A_VALUE)
    for name in others:
        column = table.column(name)
        if pa.types.is_nested(column.type):
            continue
        if by_value and (share := _determined(_codes(column), codes)):
            yield name, f"alone determines, in {share:.1%} of the rows,"
        elif not by_value and _is_copy(column, values):
            yield name, "is a scaled copy of"


def _codes(values: pa.ChunkedArray) -> NDArray[np.int64]:
    indices = values.combine_chunks().dictionary_encode().indices
    codes: NDArray[np.int64] = pc.fill_null(indices, -1).to_numpy(zero_copy_only=False).astype(np.int64) + 1
    return codes


def _determined(column: NDArray[np.int64], target: NDArray[np.int64]) -> float | None:
    """Return the share of rows whose label the column's value gives away; None when that is not remarkable."""
    rows = len(target)
    values = len(np.unique(column))
    if values < 2 or values * _ROWS_A_VALUE > rows:
        return None
    pairs, counts = np.unique(column * (target.max() + 1) + target, return_counts=True)
    best = np.zeros(column.max() + 1, dtype=np.int64)
    np.maximum.at(best, pairs // (target.max() + 1), counts)
    right = best.sum() / rows
    usual = np.bincount(target).max() / rows
    return float(right) if usual < 1 and 1 - right <= _MISTAKES_LEFT * (1 - usual) else None


def _is_copy(column: pa.ChunkedArray, target: pa.ChunkedArray) -> bool:
    if not all(pa.types.is_integer(one.type) or pa.types.is_floating(one.type) for one in (column, target)):
        return False
    first, second = (one.cast(pa.float64(), safe=False).to_numpy() for one in (column, target))
    both = ~(np.isnan(first) | np.isnan(second))
    first, second = first[both], second[both]
    if len(first) < _ROWS_A_VALUE or first.std() == 0 or second.std() == 0:
        return False
    return bool(abs(np.corrcoef(first, second)[0, 1]) > _SAME)
