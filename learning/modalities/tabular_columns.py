"""The kinds of tabular columns: what is fitted on the training rows, and how values become features.

`encode` fills a view of the row's features in place, shape (N, width), float32 and zero before.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from learning.config import Config

Floats = NDArray[np.float64]
_QUANTILES = 128
# Deviations below which "clipped" keeps every number.
LIMIT = 3.0
_DAY_US = 86_400_000_000
_WEEKDAYS = 7


class NumberColumn(Config):
    """A number, scaled; a missing one is the centre, with a feature that says so if training had missing ones."""

    kind: Literal["number"] = "number"
    name: str
    center: float
    scale: float
    low: float
    high: float
    quantiles: tuple[float, ...] = ()
    clipped: bool = False
    levels: tuple[int, ...] = ()
    has_missing: bool = False
    integer: bool = False

    @property
    def width(self) -> int:
        """Features of this column."""
        return 1 + self.has_missing + len(self.levels)

    def encode(self, values: pa.ChunkedArray, out_NF: NDArray[np.float32]) -> None:
        """Write the scaled number, the missing flag, and one-hot levels of a small integer."""
        numbers_N = to_floats(values)
        missing_N = np.isnan(numbers_N)
        out_NF[:, 0] = np.where(missing_N, 0.0, self._scaled(np.where(missing_N, self.center, numbers_N)))
        if self.has_missing:
            out_NF[:, 1] = missing_N
        if self.levels:
            first = 1 + self.has_missing
            out_NF[:, first:] = numbers_N[:, None] == np.asarray(self.levels, dtype=np.float64)

    def _scaled(self, numbers_N: Floats) -> Floats:
        if not self.quantiles:
            scaled_N = (numbers_N - self.center) / self.scale
            return scaled_N / np.hypot(1, scaled_N / LIMIT) if self.clipped else scaled_N
        ranks_N = np.interp(numbers_N, self.quantiles, np.linspace(0, 1, len(self.quantiles)))
        return _normal_quantile(ranks_N)


class CategoryColumn(Config):
    """One feature per known value and one for every other, the missing one included."""

    kind: Literal["category"] = "category"
    name: str
    values: tuple[str, ...]
    boolean: bool = False

    @property
    def width(self) -> int:
        """Features of this column."""
        return len(self.values) + 1

    def encode(self, values: pa.ChunkedArray, out_NF: NDArray[np.float32]) -> None:
        """Write a one-hot row; the last feature stands for an unknown or missing value."""
        found = pc.index_in(as_text(values), value_set=pa.array(self.values, type=pa.string()))
        indices_N = pc.fill_null(found, len(self.values)).to_numpy(zero_copy_only=False)
        out_NF[np.arange(len(out_NF)), indices_N] = 1.0


class DateColumn(Config):
    """A date or time: its trend, its place in the year, the weekday, and the time of day."""

    kind: Literal["date"] = "date"
    name: str
    center_us: float
    scale_us: float
    low: str
    high: str

    @property
    def width(self) -> int:
        """Features of this column: trend, two of the year, two of the day, seven weekdays, missing."""
        return 5 + _WEEKDAYS + 1

    def encode(self, values: pa.ChunkedArray, out_NF: NDArray[np.float32]) -> None:
        """Write the features of each date; a missing one sets only the last."""
        stamps = values.cast(pa.timestamp("us"))
        missing_N = np.asarray(stamps.is_null().to_numpy(), dtype=bool)
        micros_N = pc.fill_null(stamps.cast(pa.int64()), int(self.center_us)).to_numpy().astype(np.float64)
        out_NF[:, 0] = (micros_N - self.center_us) / self.scale_us
        year_N = 2 * np.pi * (micros_N / (_DAY_US * 365.2425) % 1.0)
        day_N = 2 * np.pi * (micros_N / _DAY_US % 1.0)
        out_NF[:, 1], out_NF[:, 2] = np.sin(year_N), np.cos(year_N)
        out_NF[:, 3], out_NF[:, 4] = np.sin(day_N), np.cos(day_N)
        weekday_N = (np.floor(micros_N / _DAY_US).astype(np.int64) + 3) % _WEEKDAYS  # 1970-01-01 was a Thursday
        out_NF[np.arange(len(out_NF)), 5 + weekday_N] = 1.0
        out_NF[missing_N] = 0.0
        out_NF[:, -1] = missing_N


def fit_number(name: str, values: pa.ChunkedArray, scaling: str, levels: tuple[int, ...]) -> NumberColumn:
    """Fit centre and scale; a column without any spread, or without any value, gets scale 1."""
    numbers_N = to_floats(values)
    present_N = numbers_N[~np.isnan(numbers_N)]
    low, high = (float(present_N.min()), float(present_N.max())) if len(present_N) else (0.0, 0.0)
    center, scale = 0.0, 1.0
    quantiles: tuple[float, ...] = ()
    if len(present_N):
        if scaling in {"clipped", "standard"}:
            center, scale = float(present_N.mean()), float(present_N.std())
        elif scaling == "min-max":
            center, scale = low, high - low
        elif scaling == "quantile":
            center, scale = float(np.median(present_N)), float(present_N.std())
            quantiles = tuple(np.quantile(present_N, np.linspace(0, 1, _QUANTILES)).tolist())
    return NumberColumn(
        name=name,
        center=center,
        scale=scale if scale > 0 else 1.0,
        low=low,
        high=high,
        quantiles=quantiles,
        clipped=scaling == "clipped",
        levels=levels,
        has_missing=len(present_N) < len(numbers_N),
        integer=pa.types.is_integer(values.type),
    )


def fit_category(name: str, values: pa.ChunkedArray, most: int) -> CategoryColumn:
    """Keep the most frequent values, ties in alphabetical order."""
    counts = Counter(value for value in as_text(values).to_pylist() if value is not None)
    kept = sorted(counts, key=lambda value: (-counts[value], value))[:most]
    return CategoryColumn(name=name, values=tuple(sorted(kept)), boolean=pa.types.is_boolean(values.type))


def fit_date(name: str, values: pa.ChunkedArray) -> DateColumn:
    """Fit the trend's centre and scale."""
    micros_N = values.drop_null().cast(pa.timestamp("us")).cast(pa.int64()).to_numpy().astype(np.float64)
    center, scale = (float(micros_N.mean()), float(micros_N.std())) if len(micros_N) else (0.0, 1.0)
    bounds: dict[str, Any] = pc.min_max(values).as_py()
    low, high = (str(bounds["min"]), str(bounds["max"])) if len(micros_N) else ("", "")
    return DateColumn(name=name, center_us=center, scale_us=scale or 1.0, low=low, high=high)


def to_floats(values: pa.ChunkedArray) -> Floats:
    """Return numbers as float64 with NaN for missing."""
    floats: Floats = values.cast(pa.float64()).to_numpy()
    return floats


def as_text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return categories as strings; booleans read "true" and "false", as in JSON."""
    return values.cast(pa.string())


def _normal_quantile(ranks_N: Floats) -> Floats:
    """Return the standard normal's quantile of ranks in [0, 1], held within 3 deviations or so."""
    import torch  # the only use: torch has the inverse error function, numpy has not

    clipped = torch.from_numpy(np.clip(ranks_N, 1e-3, 1 - 1e-3))
    quantiles: Floats = (torch.erfinv(2 * clipped - 1) * 2**0.5).numpy()
    return quantiles
