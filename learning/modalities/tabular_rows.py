"""Rows of numbers and categories from prediction inputs to features, with no table between.

A table pays for thousands of rows; for one it takes twenty times as long as the network. What is encoded here equals
what `Tabular.encode` makes of the same row. Shapes: N rows, C number columns, F features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learning.modalities.tabular import TabularState
from learning.modalities.tabular_columns import LIMIT, CategoryColumn, NumberColumn

_NUMBERS = frozenset({int, float})


class Row(NamedTuple):
    """One parsed input: the numbers, NaN where missing, and each category's place in its column's block."""

    numbers: tuple[float, ...]
    places: tuple[int, ...]


class RowEncoder:
    """Reads inputs and encodes them, for the columns that `supports` accepts."""

    def __init__(self, state: TabularState) -> None:
        blocks = [(column, block.start) for column, block in zip(state.columns, state.blocks(), strict=True)]
        self._width = state.width
        numbers = [(column, start) for column, start in blocks if isinstance(column, NumberColumn)]
        categories = [(column, start) for column, start in blocks if isinstance(column, CategoryColumn)]
        self._number_names = [column.name for column, _ in numbers]
        self._category_names = [column.name for column, _ in categories]
        self._get_numbers = _getter(self._number_names)
        self._get_categories = _getter(self._category_names)
        self._known = [{value: place for place, value in enumerate(column.values)} for column, _ in categories]
        self._category_starts = np.array([start for _, start in categories], dtype=np.intp)
        self._number_starts = np.array([start for _, start in numbers], dtype=np.intp)
        self._centers = np.array([column.center for column, _ in numbers])
        self._scales = np.array([column.scale for column, _ in numbers])
        self._clipped = np.array([column.clipped for column, _ in numbers], dtype=bool)
        self._any_clipped, self._all_clipped = bool(self._clipped.any()), bool(self._clipped.all())
        self._flags = [(at, start + 1) for at, (column, start) in enumerate(numbers) if column.has_missing]
        self._levels = [
            (at, start + 1 + column.has_missing, np.asarray(column.levels, dtype=np.float64))
            for at, (column, start) in enumerate(numbers)
            if column.levels
        ]
        self._is_plain = self._width == len(numbers)  # a feature for each number and nothing else

    @staticmethod
    def supports(state: TabularState) -> bool:
        """Return whether every column is a category, or a number scaled without quantiles."""
        return all(
            isinstance(column, CategoryColumn) or (isinstance(column, NumberColumn) and not column.quantiles)
            for column in state.columns
        )

    def read(self, value: Any) -> Row | None:
        """Return an input's row, or None for one that wants a closer look: something in it is missing, new or wrong."""
        try:
            given = self._get_numbers(value)
            if not _NUMBERS.issuperset(map(type, given)):
                return None
            numbers = tuple(map(float, given))
            # Not finite as soon as one of them is not; that it may overflow only costs the closer look.
            if not math.isfinite(sum(numbers)):
                return None
            categories = self._get_categories(value)
            places = tuple(known[category] for known, category in zip(self._known, categories, strict=True))
        except (KeyError, TypeError, OverflowError):
            return None
        return Row(numbers, places)

    def of_values(self, values: dict[str, Any]) -> Row:
        """Return the row of values that `Tabular.parse` has checked."""
        numbers = (values[name] for name in self._number_names)
        categories = (values[name] for name in self._category_names)
        return Row(
            tuple(math.nan if number is None else number for number in numbers),
            tuple(known.get(category, len(known)) for known, category in zip(self._known, categories, strict=True)),
        )

    def encode(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """Return inputs_NF of the rows."""
        flat = chain.from_iterable([row.numbers for row in rows])
        numbers_NC = _floats(flat, len(rows), len(self._number_names))
        scaled_NC = (numbers_NC - self._centers) / self._scales
        if self._any_clipped:
            drawn_in_NC = scaled_NC / np.hypot(1, scaled_NC / LIMIT)
            scaled_NC = drawn_in_NC if self._all_clipped else np.where(self._clipped, drawn_in_NC, scaled_NC)
        missing_NC = np.isnan(numbers_NC)
        if missing_NC.any():
            scaled_NC[missing_NC] = 0.0
        if self._is_plain:
            plain_NF: NDArray[np.float32] = scaled_NC.astype(np.float32)
            return plain_NF
        inputs_NF = np.zeros((len(rows), self._width), dtype=np.float32)
        inputs_NF[:, self._number_starts] = scaled_NC
        for at, flag in self._flags:
            inputs_NF[:, flag] = missing_NC[:, at]
        for at, first, levels in self._levels:
            inputs_NF[:, first : first + len(levels)] = numbers_NC[:, at, None] == levels
        if self._known:
            places_NK = np.array([row.places for row in rows], dtype=np.intp) + self._category_starts
            inputs_NF[np.arange(len(rows))[:, None], places_NK] = 1.0
        return inputs_NF


def _getter(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Return what takes the named values out of an object, always as a tuple; TypeError or KeyError if it cannot."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda value: tuple(value[name] for name in names)


def _floats(values: Iterable[float], rows: int, columns: int) -> NDArray[np.float64]:
    return np.fromiter(values, np.float64, rows * columns).reshape(rows, columns)
