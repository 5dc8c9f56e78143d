"""How often each value of a column occurs: exact while there are not too many different ones."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

# Of a column with too many different values these many are still counted: the most frequent ones among the first.
_KEPT = 1_000
_MERGE_AT = 50_000


class ValueCounts:
    """Counts values as they come.

    Up to `limit` different values of `limit_bytes` together everything is exact; beyond, `exact` is False, the number
    of different values is unknown, and only values that were frequent until then are still counted.
    """

    def __init__(self, kind: pa.DataType, limit: int, limit_bytes: int) -> None:
        self.exact = True
        self.total = 0  # of all values
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._values = pa.array([], kind)
        self._counts = np.zeros(0, dtype=np.int64)
        self._pending: list[tuple[pa.Array, NDArray[np.int64]]] = []
        self._pending_size = 0

    def add(self, values: pa.Array) -> None:
        """Count values, of which none is null."""
        self.total += len(values)
        if not self.exact:
            self._add_known(values)
            return
        found = values.value_counts()
        self._pending.append((found.field(0), found.field(1).to_numpy(zero_copy_only=False)))
        self._pending_size += len(found)
        if self._pending_size >= min(_MERGE_AT, self._limit):
            self._merge()

    def _add_known(self, values: pa.Array) -> None:
        places = pc.drop_null(pc.index_in(values, value_set=self._values)).to_numpy(zero_copy_only=False)
        self._counts += np.bincount(places, minlength=len(self._counts))

    def _merge(self) -> None:
        if not self._pending:
            return
        values = pa.concat_arrays([self._values, *(values for values, _ in self._pending)])
        counts = np.concatenate([self._counts, *(counts for _, counts in self._pending)])
        self._pending, self._pending_size = [], 0
        encoded = values.dictionary_encode()
        self._values = encoded.dictionary
        places = encoded.indices.to_numpy(zero_copy_only=False)
        self._counts = np.bincount(places, weights=counts, minlength=len(self._values)).astype(np.int64)
        if len(self._values) > self._limit or self._values.nbytes > self._limit_bytes:
            self.exact = False
            frequent = np.sort(np.argsort(-self._counts, kind="stable")[:_KEPT])
            self._values = self._values.take(pa.array(frequent))
            self._counts = self._counts[frequent]

    @property
    def unique(self) -> int:
        """The number of different values counted."""
        self._merge()
        return len(self._values)

    def top(self, limit: int) -> list[tuple[Any, int]]:
        """Return the most frequent values with their counts, equal counts in the values' order."""
        self._merge()
        if not len(self._values):
            return []
        # Whoever is in the order of the values may be any of those with the last count that still gets in.
        least = np.sort(self._counts)[::-1][:limit][-1]
        candidates = np.flatnonzero(self._counts >= least)
        values = self._values.take(pa.array(candidates))
        order = pc.sort_indices(values).to_numpy()
        counts = self._counts[candidates][order]
        first = np.argsort(-counts, kind="stable")[:limit]
        return list(zip(values.take(pa.array(order[first])).to_pylist(), counts[first].tolist(), strict=True))

    def once(self, limit: int) -> tuple[int, list[Any]]:
        """Return how many values occur once, and the first of them."""
        self._merge()
        places = np.flatnonzero(self._counts == 1)
        return len(places), self._values.take(pa.array(places[:limit])).to_pylist()


class LengthCounts:
    """How often each length occurs, and so every quantile of them, exactly."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, lengths: pa.Array) -> None:
        """Count lengths, of which none is null."""
        found, counts = np.unique(lengths.to_numpy(zero_copy_only=False), return_counts=True)
        for length, count in zip(found.tolist(), counts.tolist(), strict=True):
            self._counts[length] += count

    def summary(self) -> dict[str, float] | None:
        """Return minimum, mean, p50, p95 and maximum; None without any length."""
        if not self._counts:
            return None
        lengths = sorted(self._counts)
        below = np.cumsum([self._counts[length] for length in lengths])
        total = int(below[-1])
        mean = sum(length * count for length, count in self._counts.items()) / total

        def quantile(share: float) -> int:
            return lengths[int(np.searchsorted(below, share * total))]

        return {"min": lengths[0], "mean": mean, "p50": quantile(0.5), "p95": quantile(0.95), "max": lengths[-1]}
